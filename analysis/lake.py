"""A DuckDB connection over the lake, and the exported database for any other DuckDB client.

Knows the folder, the snapshot of its Delta table and the views over it. Knows no question: the macros come from
`analysis.question`.
"""

import atexit
import csv
import os
import re
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO, StringIO
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, mkdtemp
from typing import Final
from urllib.parse import unquote

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from pyarrow.csv import ConvertOptions, ParseOptions, read_csv

from analysis.damage import lake_errors
from analysis.question import install, literal, macros_digest
from ingest.schema import (
    CATALOGUE_COLUMNS,
    DAILY_COLUMNS,
    DAILY_SINCE,
    DETAILS,
    PARTITION_COLUMNS,
    REJECT_COLUMNS,
    REQUEST_COLUMNS,
    SCHEMA_VERSION,
    SOURCE_COLUMNS,
    UTC_MICROSECONDS,
    BadInput,
    Column,
    LakeDamaged,
    NotWritten,
    arrow_schema,
    check_path,
    database_path,
    lake_version,
    table_path,
)

DEFAULT_CATALOGUE: Final = Path(__file__).with_name("error_codes.csv")
VIEWS: Final = ("requests", "errors", "daily_successes", "rejects", "sources", "catalogue")

_COMMIT_NAME: Final = re.compile(r"(\d{20})\.json")
_CHECKPOINT_NAME: Final = re.compile(r"(\d{20})\.checkpoint\.")
SQL_TYPES: Final = {
    pa.string(): "VARCHAR",
    pa.bool_(): "BOOLEAN",
    pa.int16(): "SMALLINT",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.date32(): "DATE",
    UTC_MICROSECONDS: "TIMESTAMPTZ",
    DETAILS: "STRUCT(field VARCHAR, issue VARCHAR)[]",
}
_CATALOGUE: Final = arrow_schema(CATALOGUE_COLUMNS)
# Over the errors' own files: a view over `requests` would plan the successes' files only to prune them.
_ERRORS: Final = """
SELECT
    request.*,
    catalogue.code IS NOT NULL AS is_known_code,
    catalogue.is_retryable,
    catalogue.category,
    catalogue.owner
FROM ({requests}) AS request
LEFT JOIN catalogue ON catalogue.code = request.code
"""
_BOOLEANS: Final = {"true": True, "false": False}
# The ledger tells of all organisations, so that to some of them the data begin and end with their own requests.
_OWN_RANGE: Final = """
CREATE OR REPLACE MACRO data_begins() AS (SELECT min(ts) FROM requests);
CREATE OR REPLACE MACRO data_through() AS (SELECT max(ts) FROM requests);
"""


@dataclass(frozen=True)
class SnapshotFiles:
    """Absolute paths of the data files of a snapshot, sorted, by kind; all are in one version of the lake's schema."""

    by_kind: dict[str, list[str]]
    version: int = SCHEMA_VERSION


def connect(
    lake: Path,
    *,
    catalog: Path | None = None,
    orgs: frozenset[str] | None = None,
) -> duckdb.DuckDBPyConnection:
    """An in-memory connection with the views of `VIEWS` over the lake's current snapshot and every macro installed.

    The time zone is UTC. The snapshot does not advance: connect again to see what was ingested since.
    `catalog` is a CSV of the columns CATALOGUE_COLUMNS; without it the one that settings.toml names, or the default.
    With `orgs` the views hold the requests and errors of these org_ids alone, and neither rejects nor sources, which
    tell of others; no question sees more. It is no defence against SQL that reads the lake's files past the views.
    Raises BadInput where there is no lake or the catalogue cannot be used, LakeDamaged where the table cannot be read.
    """
    files = snapshot_files(lake)
    catalogue = catalogue_of(lake, catalog)
    con = duckdb.connect(config={"temp_directory": _spill_folder()})
    con.execute("SET GLOBAL TimeZone = 'UTC'")
    _fill(con, files, catalogue, orgs)
    return con


def connect_without_rows() -> duckdb.DuckDBPyConnection:
    """A connection as `connect` gives, over a lake without rows: to learn what there is to ask, whatever the lake."""
    con = duckdb.connect()
    con.execute("SET GLOBAL TimeZone = 'UTC'")
    _fill(con, SnapshotFiles({}), read_catalogue(DEFAULT_CATALOGUE))
    return con


def export(lake: Path, catalog: Path | None = None) -> Path:
    """The path of `<lake>/errata.duckdb`, rewritten in one step to the current snapshot: views, catalogue and macros.

    The file is in DuckDB's 1.0 storage format and holds absolute paths. Raises as `connect` does, and NotWritten,
    keeping the old file.
    """
    files = snapshot_files(lake)
    catalogue = catalogue_of(lake, catalog)
    database = database_path(lake)
    draft = database.with_name(f"{database.name}.{os.getpid()}.draft")
    try:
        draft.unlink(missing_ok=True)
        write_database(draft, files, catalogue)
        flush(draft)
        draft.replace(database)
        flush(database.parent)
    except (duckdb.OperationalError, duckdb.FatalException, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split()).rpartition(": ")[2]
        raise NotWritten(
            f"{database}: cannot be written: {reason}. It shows an earlier state of the lake; "
            "mend that and run the same command again."
        ) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return database


def write_database(path: Path, files: SnapshotFiles, catalogue: pa.Table, orgs: frozenset[str] | None = None) -> None:
    """Makes the database `path` with what `connect` has: the catalogue, every macro, and the views, of `orgs` alone.

    `files` are those of `snapshot_files`. The database is in DuckDB's 1.0 storage format.
    """
    with duckdb.connect() as con:
        con.execute(f"ATTACH {literal(path)} AS exported (STORAGE_VERSION 'v1.0.0')")
        con.execute("USE exported")
        _fill(con, files, catalogue, orgs)
        con.execute("USE memory")
        con.execute("DETACH exported")


def catalogue_of(lake: Path, catalog: Path | None = None) -> pa.Table:
    """The error catalogue of the CSV file `catalog`, else of the one that settings.toml names, else the default one."""
    return read_catalogue(catalog or _configured_catalogue(lake))


def snapshot_files(lake: Path) -> SnapshotFiles:
    """The data files of the lake's current snapshot; raises BadInput without a lake, LakeDamaged for a broken one."""
    root = table_path(lake)
    if not any(root.glob("_delta_log/*.json")) and not any(root.glob("kind=*")):
        found = "has no table in it" if lake.exists() else "does not exist"
        raise BadInput(
            f"{lake}: expected a lake, but the folder {found}; make one with `errata ingest PATH... --lake {lake}`"
        )
    root = root.resolve()
    check_path(root)
    log = root / "_delta_log"
    try:
        _check_commits(log)
        table = DeltaTable(str(root))
        version = lake_version(root, table.metadata().configuration, (field.name for field in table.schema().fields))
        uris = table.file_uris()
    except (FileNotFoundError, TableNotFoundError):
        raise LakeDamaged(f"{log}: expected the log of a Delta table, found none; restore it from a backup") from None
    except (DeltaError, OSError, ValueError) as error:
        raise LakeDamaged(f"{log}: cannot be read ({_one_line(error)}); restore it from a backup") from error
    files: dict[str, list[str]] = {}
    for path in sorted(unquote(uri) for uri in uris):
        kind = path.split("/")[-3].removeprefix("kind=")
        files.setdefault(kind, []).append(path)
    return SnapshotFiles(files, version)


def read_catalogue(path: Path) -> pa.Table:
    """The error catalogue of a CSV file, with the columns CATALOGUE_COLUMNS; BadInput names the line that is wrong."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: the catalogue cannot be read ({_one_line(error)}); give a UTF-8 CSV file") from error
    reader = csv.DictReader(StringIO(text, newline=""), strict=True)
    missing = [name for name in _CATALOGUE.names if name not in (reader.fieldnames or ())]
    if missing:
        raise BadInput(f"{path}:1: expected the columns {', '.join(_CATALOGUE.names)}; missing: {', '.join(missing)}")
    entries: dict[str, dict[str, str | int | bool]] = {}
    try:
        for row in reader:
            entry = _catalogue_entry(row, place=f"{path}:{reader.line_num}")
            code = str(entry["code"])
            if code in entries:
                raise BadInput(f"{path}:{reader.line_num}: the code {code!r} is there twice; keep one of the lines")
            entries[code] = entry
    except csv.Error as error:
        line = min(reader.line_num + 1, text.count("\n") + 1)
        raise BadInput(f"{path}:{line}: not valid CSV ({error}); quote fields that hold commas or quotes") from error
    return _typed(entries.values())


@cache
def _spill_folder() -> str:
    """Where rows go that do not fit in memory, for nobody else to read; DuckDB's default is the folder one is in."""
    folder = mkdtemp(prefix="errata-")
    atexit.register(rmtree, folder, ignore_errors=True)
    return folder


def _fill(
    con: duckdb.DuckDBPyConnection, files: SnapshotFiles, catalogue: pa.Table, orgs: frozenset[str] | None = None
) -> None:
    """Creates every macro, the catalogue and the views over `files`, of `orgs` where given."""
    has_macros = _copied_macros(con)
    # One transaction: each flushes an exported database to disk.
    con.execute("BEGIN")
    _create_catalogue(con, catalogue)
    if not has_macros:
        _install_all(con)
    with lake_errors():
        _create_views(con, files, orgs)
    if orgs is not None:
        con.execute(_OWN_RANGE)
    con.execute("COMMIT")


def _copied_macros(con: duckdb.DuckDBPyConnection) -> bool:
    """Copies every macro into `con` from a database in the user's cache: in 0.03 s, and to create them takes 0.3 s.

    False where there is none: without a home that can be written to, or where the database is broken.
    """
    try:
        kept = _kept_macros()
        con.execute(f"ATTACH {literal(kept)} AS kept (READ_ONLY)")
    except (OSError, RuntimeError, duckdb.Error):
        return False
    [(target,)] = con.execute("SELECT current_database()").fetchall()
    con.execute(f"COPY FROM DATABASE kept TO {target}")
    con.execute("DETACH kept")
    return True


def _kept_macros() -> Path:
    """A database that has every macro and nothing else, made where it is missing."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "errata"
    path = folder / f"macros-{duckdb.__version__}-{macros_digest()}.duckdb"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with TemporaryDirectory(dir=folder) as place:
            draft = Path(place) / path.name
            with duckdb.connect(draft) as con:
                con.execute("BEGIN")
                _create_catalogue(con, read_catalogue(DEFAULT_CATALOGUE))
                _install_all(con)
                for view in VIEWS:
                    con.execute(f"DROP {'TABLE' if view == 'catalogue' else 'VIEW'} {view}")
                con.execute("COMMIT")
            flush(draft)
            draft.replace(path)
    return path


def _install_all(con: duckdb.DuckDBPyConnection) -> None:
    # DuckDB binds a macro as it creates it: 1 ms over views without rows, 80 ms over 5,000 files.
    _create_views(con, SnapshotFiles({}))
    install(con)


def _create_catalogue(con: duckdb.DuckDBPyConnection, catalogue: pa.Table) -> None:
    con.register("catalogue_rows", catalogue)
    con.execute("CREATE OR REPLACE TABLE catalogue AS SELECT * FROM catalogue_rows")
    con.unregister("catalogue_rows")


def _create_views(con: duckdb.DuckDBPyConnection, files: SnapshotFiles, orgs: frozenset[str] | None = None) -> None:
    if orgs is not None:
        # Rejects and sources tell of others; no organisation at all sees nothing at all.
        kinds = ("ok", "error", "daily") if orgs else ()
        files = replace(files, by_kind={kind: files.by_kind.get(kind, []) for kind in kinds})
    con.execute(f"CREATE OR REPLACE VIEW requests AS {_requests(files, ('ok', 'error'), orgs)}")
    con.execute(f"CREATE OR REPLACE VIEW errors AS {_ERRORS.format(requests=_requests(files, ('error',), orgs))}")
    con.execute(f"CREATE OR REPLACE VIEW daily_successes AS {_daily_successes(files, orgs)}")
    con.execute(f"CREATE OR REPLACE VIEW rejects AS {_rows(files, ('reject',), REJECT_COLUMNS)}")
    con.execute(f"CREATE OR REPLACE VIEW sources AS {_rows(files, ('source',), SOURCE_COLUMNS)}")


_CALLER: Final = ", coalesce(key_id, key_hash, client_ip) AS caller"
# What the counts of a lake are made from that was written before there were any.
_COUNTED: Final = """
SELECT
    'daily' AS kind, day, org_id, key_id, key_hash, client_ip, method, route,
    count(*) AS successes, min(ts) AS first_ts, max(ts) AS last_ts,
    caller
FROM ({successes})
GROUP BY ALL
"""


def _requests(files: SnapshotFiles, kinds: tuple[str, ...], orgs: frozenset[str] | None) -> str:
    return _of_orgs(files, kinds, REQUEST_COLUMNS, f"{_CALLER}, kind = 'error' AS is_error", orgs)


def _daily_successes(files: SnapshotFiles, orgs: frozenset[str] | None) -> str:
    if files.version < DAILY_SINCE:
        return _COUNTED.format(successes=_requests(files, ("ok",), orgs))
    return _of_orgs(files, ("daily",), DAILY_COLUMNS, _CALLER, orgs)


def _of_orgs(
    files: SnapshotFiles,
    kinds: tuple[str, ...],
    columns: tuple[Column, ...],
    derived: str,
    orgs: frozenset[str] | None,
) -> str:
    rows = _rows(files, kinds, columns, derived)
    if not orgs or not any(files.by_kind.get(kind) for kind in kinds):
        return rows
    return f"{rows} WHERE org_id IN ({', '.join(map(literal, sorted(orgs)))})"


def _rows(files: SnapshotFiles, kinds: tuple[str, ...], columns: tuple[Column, ...], derived: str = "") -> str:
    """A SELECT of the partition columns, `columns` and `derived` over the files of `kinds`, or over no rows."""
    columns = PARTITION_COLUMNS + columns
    paths = sorted(path for kind in kinds for path in files.by_kind.get(kind, []))
    if paths:
        names = ", ".join(_column(column, files.version) for column in columns)
        listed = ", ".join(literal(path) for path in paths)
        hive = "hive_partitioning = true, hive_types = {'kind': VARCHAR, 'day': DATE}"
        return f"SELECT {names}{derived} FROM read_parquet([{listed}], {hive})"  # noqa: S608 - paths are quoted by literal()
    names = ", ".join(f'"{column.name}"' for column in columns)
    nulls = ", ".join(f'NULL::{SQL_TYPES[column.type]} AS "{column.name}"' for column in columns)
    return f"SELECT {names}{derived} FROM (SELECT {nulls}) WHERE false"  # noqa: S608 - names of the contract


def _column(column: Column, version: int) -> str:
    """`column` as the files of a lake with that version of the schema have it."""
    if column.since <= version:
        return f'"{column.name}"'
    value = "NULL" if column.before is None else column.before
    return f'{value}::{SQL_TYPES[column.type]} AS "{column.name}"'


def _check_commits(log: Path) -> None:
    """Raises LakeDamaged for an empty commit that deltalake would pass over in silence, and its rows with it."""
    names = [path.name for path in log.iterdir()]
    checkpoint = max((int(name[1]) for name in map(_CHECKPOINT_NAME.match, names) if name), default=-1)
    commits = sorted(name for name in names if (found := _COMMIT_NAME.fullmatch(name)) and int(found[1]) > checkpoint)
    for name in commits:
        with suppress(FileNotFoundError):  # cleaned up after a new checkpoint
            if (log / name).stat().st_size == 0:
                is_last = name == commits[-1]
                lake = log.parent.parent
                remedy = f"run `errata check --repair --lake {lake}`" if is_last else "restore it from a backup"
                raise LakeDamaged(f"{log / name}: this commit is empty, so what it added cannot be seen; {remedy}")


def _configured_catalogue(lake: Path) -> Path:
    settings = lake / "settings.toml"
    try:
        catalog = tomllib.loads(settings.read_text("utf-8")).get("catalog")
    except FileNotFoundError:
        return DEFAULT_CATALOGUE
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{settings}: expected TOML ({_one_line(error)}); correct or delete the file") from error
    if catalog is None:
        return DEFAULT_CATALOGUE
    if not isinstance(catalog, str):
        raise BadInput(
            f'{settings}: expected catalog = "PATH", found {type(catalog).__name__}; write the path as a string'
        )
    return lake / catalog


def _catalogue_entry(row: dict[str, str | None], *, place: str) -> dict[str, str | int | bool]:
    entry: dict[str, str | int | bool] = {name: (row[name] or "").strip() for name in _CATALOGUE.names}
    if None in row:
        raise BadInput(f"{place}: more fields than the header has; quote fields that hold commas")
    empty = [name for name in ("code", "category", "owner") if not entry[name]]
    if empty:
        raise BadInput(f"{place}: {empty[0]} is empty; every code needs code, category and owner")
    boolean = str(entry["is_retryable"])
    if boolean.lower() not in _BOOLEANS:
        raise BadInput(f"{place}: is_retryable has value {boolean!r}; expected true or false")
    status = str(entry["http_status"])
    if not (status.isascii() and status.isdigit() and 100 <= int(status) <= 599):
        raise BadInput(f"{place}: http_status has value {status!r}; expected a number from 100 to 599")
    return entry | {"is_retryable": _BOOLEANS[boolean.lower()], "http_status": int(status)}


def _typed(entries: Iterable[dict[str, str | int | bool]]) -> pa.Table:
    # Through Arrow's CSV reader: Table.from_pylist imports pandas, which costs every command 0.2 s.
    text = StringIO(newline="")
    writer = csv.DictWriter(text, _CATALOGUE.names)
    writer.writeheader()
    writer.writerows(entries)
    types = ConvertOptions(column_types=dict(zip(_CATALOGUE.names, _CATALOGUE.types, strict=True)))
    return read_csv(
        BytesIO(text.getvalue().encode()), parse_options=ParseOptions(newlines_in_values=True), convert_options=types
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def flush(path: Path) -> None:
    """Has a file, or the names in a folder, written to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
