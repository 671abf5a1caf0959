"""The lake as its one writer sees it: the lock, the ledger, and the commits that make data files visible together.

Knows Delta Lake and durability. Knows neither logs nor questions.
"""

import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction

from ingest.daily import counts_of
from ingest.schema import (
    SCHEMA_VERSION,
    SOURCE_COLUMNS,
    SOURCES,
    VERSION_PROPERTY,
    BadInput,
    Column,
    LakeDamaged,
    NotWritten,
    arrow_schema,
    check_path,
    lake_version,
    table_path,
    table_schema,
)
from ingest.writer import PARTITIONS, DataFile, Writer, flush

WAIT_S: Final = 600.0
_LOOK_AGAIN_S: Final = 0.1
_COMMITS_A_CHECKPOINT: Final = 50
_ROWS_A_BATCH: Final = 1 << 16
SPILL: Final = ".spill"
"""The folder of a lake for what does not fit in memory; it is nobody's when nobody writes."""
# Checkpoints are made here, and flushed.
NO_HOOKS: Final = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)

Replaced = Sequence[tuple[str, str, str | list[str]]]
"""The partitions whose files a commit replaces, as in `[("kind", "in", ["ok"]), ("day", "in", ["2026-11-01"])]`."""


def partitions(kind: str, days: Iterable[date]) -> Replaced:
    """The partitions of a kind and days; those of successes with their counts, which a commit makes anew."""
    kinds = ["ok", "daily"] if kind == "ok" else [kind]
    return [("kind", "in", kinds), ("day", "in", sorted({day.isoformat() for day in days}))]


def create(lake: Path) -> None:
    """Makes the lake at `lake` where there is none yet; raises BadInput where it cannot be written to."""
    table = table_path(lake)
    check_path(table.resolve())
    try:
        # A run that was killed while it made the table leaves a log without a commit.
        if not any((table / "_delta_log").glob("*.json")) and not any(table.glob("kind=*")):
            # It holds who called what; a folder that is there already says itself who may read it.
            lake.mkdir(mode=0o700, parents=True, exist_ok=True)
            table.mkdir(parents=True, exist_ok=True)
            DeltaTable.create(
                str(table.resolve()),
                schema=table_schema(),
                partition_by=PARTITIONS,
                mode="ignore",
                configuration={
                    "delta.logRetentionDuration": "interval 7 days",
                    VERSION_PROPERTY: str(SCHEMA_VERSION),
                },
                raise_if_key_not_exists=False,
            )
            flush_log(table)
            for folder in (table, lake, lake.absolute().parent):
                flush(folder)
        if not os.access(table, os.W_OK | os.X_OK):
            is_read_only = os.statvfs(table).f_flag & os.ST_RDONLY
            raise _os_error(errno.EROFS if is_read_only else errno.EACCES)
    except (DeltaError, OSError) as error:
        told = f"{lake}: cannot be written to: {_reason(error)}. Choose another folder with --lake."
        raise BadInput(told) from error


def check_there(lake: Path) -> None:
    """Raises BadInput where there is no lake."""
    if not table_path(lake).exists():
        raise BadInput(f"{lake}: expected a lake, found none; make one with `errata ingest PATH... --lake {lake}`")


@contextmanager
def writing(lake: Path, *, wait_s: float = 0, told: Callable[[str], object] = lambda line: None) -> Iterator[None]:
    """Holds the lake's writer lock, which the kernel frees when its holder dies.

    Waits up to `wait_s` seconds for another run to free it, of which `told` is told once; raises BadInput after that,
    and where the lake cannot be written to.
    """
    try:
        descriptor = os.open(lake / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise BadInput(f"{lake}: cannot be written to: {error.strerror}. Mend that and run it again.") from error
    try:
        _wait_for(descriptor, lake, wait_s, told)
        with suppress(OSError):  # it is only told to those who wait
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _wait_for(lock: int, lake: Path, wait_s: float, told: Callable[[str], object]) -> None:
    until = time.monotonic() + wait_s
    is_first = True
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = f"{lake}: another errata (process {os.pread(lock, 20, 0).decode() or 'unknown'}) is writing to it"
        if time.monotonic() >= until:
            raise BadInput(f"{holder}; try again when it has finished, or wait longer with --wait SECONDS")
        if is_first:
            told(f"{holder}; waiting up to {wait_s:g} s")
            is_first = False
        time.sleep(_LOOK_AGAIN_S)


def open_table(lake: Path) -> DeltaTable:
    """A fresh handle on the lake's table; raises LakeDamaged where its log cannot be read."""
    table = table_path(lake)
    log = table / "_delta_log"
    try:
        commits = sorted(log.glob("*.json"))
        if commits and commits[-1].stat().st_size == 0:
            raise LakeDamaged(f"{commits[-1]}: this commit is empty; {_REPAIR.format(lake)}")
        found = DeltaTable(str(table.resolve()))
        version_of(found, table)
        return found
    except TableNotFoundError:
        raise LakeDamaged(f"{log}: expected the log of a Delta table, found none; restore it from a backup") from None
    except (DeltaError, OSError, ValueError) as error:
        raise LakeDamaged(f"{log}: cannot be read ({_one_line(error)}); {_REPAIR.format(lake)}") from error


_REPAIR: Final = "run `errata check --repair --lake {}`"


def version_of(table: DeltaTable, path: Path) -> int:
    """The version of the schema that the lake's table at `path` is in; BadInput as `schema.lake_version`."""
    return lake_version(path, table.metadata().configuration, (field.name for field in table.schema().fields))


def ledger(lake: Path) -> pa.Table:
    """Every ingest step of every source that the lake holds, with the schema `SOURCES`, in no order.

    Raises LakeDamaged.
    """
    files = paths_of(open_table(lake), "source")
    return pa.concat_tables([SOURCES.empty_table(), *(in_schema(rows_of(file), SOURCE_COLUMNS) for file in files)])


def in_schema(rows: pa.Table, columns: tuple[Column, ...]) -> pa.Table:
    """`rows` of any version with all of `columns`: those that their version did not have are filled in."""
    found = {name: rows[name] for name in rows.column_names}
    for column in columns:
        if column.name in found:
            continue
        if column.name == "to_line":
            # Every line was one record then.
            found["to_line"] = pc.add(rows["first_line"], rows["lines"])
        else:
            found[column.name] = pa.repeat(pa.scalar(column.before, column.type), len(rows))
    schema = arrow_schema(columns)
    return pa.table({name: found[name] for name in schema.names}).cast(schema)


def paths_of(table: DeltaTable, kind: str, days: Iterable[str] | None = None) -> list[Path]:
    """The data files of a kind in the snapshot `table`, of all days or of `days`, in the order of their names."""
    filters: list[tuple[str, str, str | list[str]]] = [("kind", "=", kind)]
    if days is not None:
        filters.append(("day", "in", list(days)))
    # delta-rs gives local paths as URIs, with %20 for a space.
    return sorted(Path(unquote(uri)) for uri in table.file_uris(partition_filters=filters))


def kind_of(file: Path) -> str:
    """The kind of the partition that a data file lies in."""
    return file.parent.parent.name.removeprefix("kind=")


def day_of(file: Path) -> date:
    """The day of the partition that a data file lies in."""
    return date.fromisoformat(file.parent.name.removeprefix("day="))


def rows_of(file: Path) -> pa.Table:
    """All rows of a data file; LakeDamaged where it cannot be read."""
    with _reading(file):
        return pq.ParquetFile(file).read()


def row_groups_of(file: Path) -> Iterator[pa.Table]:
    """The rows of a data file, a row group at a time; LakeDamaged where it cannot be read."""
    with _reading(file), pq.ParquetFile(file) as opened:
        for number in range(opened.num_row_groups):
            yield opened.read_row_group(number)


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        # A process that may not take more memory or threads says nothing of the file.
        if isinstance(error, MemoryError) or "worker thread" in str(error):
            raise
        raise LakeDamaged(f"{file}: cannot be read ({_one_line(error)}); restore it from a backup") from error


@contextmanager
def writes(lake: Path) -> Iterator[None]:
    """Raises NotWritten for what the file system refuses: no space, no permission, a broken disk."""
    try:
        yield
    except (OSError, pa.ArrowException, duckdb.IOException, duckdb.OutOfMemoryException) as error:
        raise NotWritten(f"{lake}: cannot be written to: {_reason(error)}. {_UNCHANGED}") from error


@contextmanager
def filling(lake: Path, writer: Writer) -> Iterator[None]:
    """As `writes`, while `writer` is given rows or closed: what it wrote is discarded where anything fails."""
    try:
        with writes(lake):
            yield
    except BaseException:
        writer.discard()
        raise


_UNCHANGED: Final = "The lake is as it was before; run the same command again when that is mended."


def commit(
    lake: Path, files: Iterable[DataFile], progress: dict[str, int] | None = None, *, replaced: Replaced | None = None
) -> None:
    """Makes `files` visible in one step, and with them the progress of their sources: fingerprint -> byte offset.

    The counts of the successes in `files` come with them. Files of the partitions `replaced` are gone from the same
    moment on. Raises NotWritten where the commit failed, so that nothing has changed; DeltaError where another writer
    has moved one of the same sources meanwhile.
    """
    files = list(files)
    try:
        files += _counted(lake, files)
    except BaseException:
        discard(lake, files)
        raise
    table = open_table(lake)
    before = table.version()
    properties = CommitProperties(
        max_commit_retries=10,
        app_transactions=[Transaction(name, offset, None) for name, offset in (progress or {}).items()],
    )
    try:
        table.create_write_transaction(
            [_add_action(lake, file) for file in files],
            "append" if replaced is None else "overwrite",
            table_schema(),
            partition_by=PARTITIONS,
            partition_filters=None if replaced is None else list(replaced),
            commit_properties=properties,
            post_commithook_properties=NO_HOOKS,
        )
    except (DeltaError, OSError) as error:
        _discard_if_unseen(lake, before, files)
        if isinstance(error, OSError) or "No space" in str(error) or "os error" in str(error):
            raise NotWritten(f"{lake}: the commit failed: {_reason(error)}. {_UNCHANGED}") from error
        raise
    try:
        flush_log(table_path(lake))
    except OSError as error:
        found = "what was just committed can be seen, but the disk did not confirm it"
        raise NotWritten(f"{lake}: {found}: {_reason(error)}. Mend the disk, then run `errata check`.") from error
    if (before + 1) % _COMMITS_A_CHECKPOINT == 0:
        with suppress(DeltaError, OSError):  # the log is whole without it
            checkpoint(lake)


def _counted(lake: Path, files: Iterable[DataFile]) -> list[DataFile]:
    """Data files with the counts of the successes in `files`, not visible yet either."""
    successes: dict[date, list[Path]] = {}
    for file in files:
        if file.kind == "ok":
            successes.setdefault(file.day, []).append(table_path(lake) / file.path)
    return counted(lake, successes) if successes else []


def counted(lake: Path, successes: Mapping[date, Iterable[Path]]) -> list[DataFile]:
    """Data files, not visible yet, with the counts of the successes in others, which are given by their day."""
    writer = Writer(table_path(lake), date.min)
    files: list[DataFile] = []
    with filling(lake, writer), spilling(lake) as con:
        for day, paths in successes.items():
            for batch in con.sql(counts_of(paths)).to_arrow_reader(_ROWS_A_BATCH):
                writer.add_again("daily", day, pa.table(batch))
            files = writer.close()  # of this day and those before: rows that wait to be written take memory
    return files


def count_again(lake: Path, days: Iterable[date]) -> None:
    """Replaces the counts of the successes of `days` by what there is; raises NotWritten and LakeDamaged."""
    days = list(days)
    table = open_table(lake)
    successes = {day: paths_of(table, "ok", [day.isoformat()]) for day in days}
    files = counted(lake, {day: paths for day, paths in successes.items() if paths})
    commit(lake, files, replaced=partitions("daily", days))


@contextmanager
def spilling(lake: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection in UTC for rows of any number: what does not fit in memory lies in the lake's folder."""
    folder = lake / SPILL
    with duckdb.connect(config={"memory_limit": "500MB", "temp_directory": str(folder)}) as con:
        con.execute("SET TimeZone = 'UTC'")
        try:
            yield con
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _discard_if_unseen(lake: Path, before: int, files: list[DataFile]) -> None:
    """Removes `files` where their commit certainly did not happen; otherwise they stay, at worst as orphans."""
    with suppress(LakeDamaged, OSError):
        if open_table(lake).version() == before:
            discard(lake, files)


def discard(lake: Path, files: Iterable[DataFile]) -> None:
    """Removes files that no commit has made visible; one that cannot be removed is left to `errata maintain`."""
    for file in files:
        with suppress(OSError):
            (table_path(lake) / file.path).unlink(missing_ok=True)


def checkpoint(lake: Path) -> None:
    """Sums the log up in one file, from which readers go on; flushed to disk."""
    open_table(lake).create_checkpoint()
    log = table_path(lake) / "_delta_log"
    # A run that failed here may have left a checkpoint that `_last_checkpoint` does not name; readers find it too.
    for path in (*sorted(log.glob("*.checkpoint*.parquet"))[-1:], *log.glob("_last_checkpoint"), log):
        flush(path)


def _add_action(lake: Path, file: DataFile) -> AddAction:
    modified = int((table_path(lake) / file.path).stat().st_mtime * 1000)
    partition = {"kind": file.kind, "day": file.day.isoformat()}
    return AddAction(file.path, file.size, partition, modified, True, json.dumps({"numRecords": file.rows}))


def flush_log(table: Path) -> None:
    """Has the last commit of a table written to disk."""
    log = table / "_delta_log"
    for commit_file in sorted(log.glob("*.json"))[-1:]:
        flush(commit_file)
    flush(log)


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _reason(error: Exception) -> str:
    """What the system said, in its own words where they can be told; engines put theirs around the number of it."""
    number = re.search(r"(?:os error|errno) (\d+)", str(error), re.IGNORECASE)
    return os.strerror(int(number[1])) if number else _one_line(error)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
