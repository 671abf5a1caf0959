"""Whether a lake is whole: its log, its files, its ledger and the rows, each against the others.

Knows how each part can break. Reads and changes nothing; `ingest.mend` mends what can be mended.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from enum import Enum, auto
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from ingest import lake as lakes
from ingest.daily import are_counted
from ingest.maintain import GRACE_HOURS, files_past, rows_by_source
from ingest.schema import DAILY_SINCE, KINDS, LakeDamaged, column_names, database_path, table_path

_COMMIT: Final = re.compile(r"(\d{20})\.json")
_CHECKPOINT: Final = re.compile(r"(\d{20})\.checkpoint\.(?:[^/]*\.)?parquet")
_DATA_FILE: Final = re.compile(r"/day=[^/']+/([^/']+\.parquet)")
_LEDGERED: Final = ("ok", "error", "reject", "source")


class Remedy(Enum):
    """What `ingest.mend` can do about a fault."""

    NONE = auto()
    SET_ASIDE = auto()  # move the file of the log out of the way: the lake is whole without it
    DROP = auto()  # take the data file out of the table, and count what it held as removed
    RECOUNT = auto()  # write down in the ledger that rows are lost
    COUNT = auto()  # count the successes of the day anew
    REMOVE = auto()  # delete the file
    EXPORT = auto()  # write errata.duckdb again


@dataclass(frozen=True)
class Fault:
    """Something that is not as it should be: where, and what; `is_damage` where answers are wrong or impossible."""

    place: str
    found: str
    remedy: Remedy = Remedy.NONE
    is_damage: bool = True
    source_id: str = ""
    day: date | None = None

    def __str__(self) -> str:
        advice = " Restore it from a backup, or ingest the logs into a new lake." if self.remedy is Remedy.NONE else ""
        return f"{self.place}: {self.found}.{advice}"


@dataclass(frozen=True)
class Checked:
    """What was found in a lake, and how much of it was looked at."""

    faults: list[Fault]
    files: int = 0
    rows: int = 0
    sources: int = 0


def check(lake: Path, *, is_deep: bool = False, is_alone: bool = True) -> Checked:
    """The faults of a lake: none in a whole one.

    `is_deep` reads every page of every file against its checksum, and not the footers alone, and every success again
    that is counted. `is_alone` says that the
    caller holds the writer lock; without it files that have no commit yet may be those of a run that is at work, and
    are passed over. Raises BadInput where there is no lake, or one that this version cannot read.
    """
    lakes.check_there(lake)
    faults = list(_of_log(table_path(lake) / "_delta_log"))
    if faults:
        return Checked(faults)
    try:
        table = lakes.open_table(lake)
    except LakeDamaged as damaged:
        place, _, found = str(damaged).partition(": ")
        return Checked([Fault(place, found.partition("; run")[0])])
    version = lakes.version_of(table, table_path(lake))
    files = {kind: lakes.paths_of(table, kind) for kind in KINDS}
    faults = list(_of_files(lake, table, version, is_deep))
    rows = sources = 0
    # Every row is counted in the ledger: without all files there is nothing to compare.
    if not faults:
        ledger = lakes.ledger(lake).to_pylist()
        counts = {kind: rows_by_source(files[kind]) if files[kind] else Counter() for kind in _LEDGERED}
        rows, sources = sum(count.total() for count in counts.values()), len(counts["source"])
        faults += _of_ledger(lake, table, ledger, counts)
        if version >= DAILY_SINCE:
            faults += _of_counts(lake, files["ok"], files["daily"], is_deep)
    if is_alone:
        orphans, _ = files_past(lake, GRACE_HOURS)
        faults += (
            Fault(str(path), "belongs to no commit; a killed run left it", Remedy.REMOVE, is_damage=False)
            for path in sorted(orphans)
        )
    faults += _of_database(lake, files)
    return Checked(faults, sum(map(len, files.values())), rows, sources)


def _of_log(log: Path) -> Iterator[Fault]:
    """The commits and checkpoints that cannot be read, or are missing between others."""
    names = sorted(path.name for path in log.iterdir()) if log.is_dir() else []
    commits = {int(found[1]): log / name for name in names if (found := _COMMIT.fullmatch(name))}
    checkpoints = {int(found[1]): log / name for name in names if (found := _CHECKPOINT.fullmatch(name))}
    if not commits:
        yield Fault(str(log), "expected the log of a Delta table, found none")
        return
    broken = {version for version, path in checkpoints.items() if not _is_parquet(path)}
    whole = [version for version in checkpoints if version not in broken]
    first = max(whole, default=-1) + 1
    missing = [version for version in range(first, max(commits) + 1) if version not in commits]
    for version in sorted(broken):
        # Without the checkpoint the log is read from the one before, or from its start.
        remedy = Remedy.NONE if missing else Remedy.SET_ASIDE
        yield Fault(str(checkpoints[version]), "this checkpoint cannot be read", remedy)
    hint = _hinted(log / "_last_checkpoint")
    if hint is not None and hint not in checkpoints:
        remedy = Remedy.NONE if missing else Remedy.SET_ASIDE
        yield Fault(str(log / "_last_checkpoint"), f"names checkpoint {hint}, which is not there", remedy)
    for version in missing:
        yield Fault(str(log / f"{version:020}.json"), "this commit is missing")
    for version, path in sorted(commits.items()):
        if version >= first and (why := _unreadable(path)):
            is_last = version == max(commits)
            told = f"this commit {why}" + (": what it added is not in the lake" if is_last else "")
            yield Fault(str(path), told, Remedy.SET_ASIDE if is_last and version > 0 else Remedy.NONE)


def _is_parquet(path: Path) -> bool:
    try:
        return bool(pq.ParquetFile(path).metadata.num_rows)
    except (OSError, pa.ArrowException):
        return False


def _hinted(path: Path) -> int | None:
    """The version that `_last_checkpoint` names; None where it is not there, or nothing that anybody reads."""
    try:
        return int(json.loads(path.read_bytes())["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _unreadable(commit: Path) -> str:
    """Why a commit cannot be read; empty for one that can."""
    data = commit.read_bytes()
    if not data.strip():
        return "is empty"
    try:
        for line in data.splitlines():
            json.loads(line)
    except ValueError:
        return "is torn"
    return ""


def _of_files(lake: Path, table: DeltaTable, version: int, is_deep: bool) -> Iterator[Fault]:
    """The data files that are not as their commit says."""
    expected = pa.table(table.get_add_actions(flatten=True)).select(["path", "size_bytes", "num_records"]).to_pylist()
    root = table_path(lake)
    for add in sorted(expected, key=lambda add: str(add["path"])):
        path = root / add["path"]
        if found := _wrong(path, add, version, is_deep):
            yield Fault(str(path), found, Remedy.DROP)


def _wrong(path: Path, add: dict[str, Any], version: int, is_deep: bool) -> str:
    """What is wrong with a data file; empty for one that is as its commit says."""
    try:
        size = path.stat().st_size
        if size != add["size_bytes"]:
            return f"has {size:,} bytes, expected {add['size_bytes']:,}"
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if file.metadata.num_rows != add["num_records"]:
                return f"has {file.metadata.num_rows:,} rows, expected {add['num_records']:,}"
            missing = set(column_names(lakes.kind_of(path), version)) - set(file.schema_arrow.names)
            if missing:
                return f"has no column {', '.join(sorted(missing))}"
            if is_deep:
                for _ in file.iter_batches():
                    pass
    except FileNotFoundError:
        return "this data file is missing"
    except (OSError, pa.ArrowException) as error:
        return f"this data file cannot be read ({' '.join(str(error).split())[:120]})"
    return ""


_ROWS: Final = {"requests": ("ok", "error"), "errors": ("error",), "rejects": ("reject",)}


def _of_ledger(
    lake: Path, table: DeltaTable, ledger: list[dict[str, Any]], counts: dict[str, Counter[str]]
) -> Iterator[Fault]:
    """The sources whose steps do not add up, do not follow on each other, or do not fit the rows that are there."""
    by_source: dict[str, list[dict[str, Any]]] = {}
    for step in ledger:
        by_source.setdefault(step["source_id"], []).append(step)
    for source_id in sorted({name for kind in ("ok", "error", "reject") for name in counts[kind]} - set(by_source)):
        yield Fault(f"{lake}: source {source_id}", "has rows and is not in the ledger", source_id=source_id)
    for source_id, steps in sorted(by_source.items()):
        place = f"{lake}: source {source_id} ({steps[-1]['name']})"
        sums = {name: sum(step[name] for step in steps) for name in (*_ROWS, *_PARTS, "lines")}
        if sums["lines"] != sum(sums[name] for name in ("requests", "rejects", *_PARTS)):
            yield Fault(place, f"{sums['lines']:,} lines were read, and the ledger does not say what became of all")
        held = {name: sum(counts[kind][source_id] for kind in kinds) for name, kinds in _ROWS.items()}
        if wrong := [name for name in _ROWS if held[name] != sums[name]]:
            told = ", ".join(f"{held[name]:,} {name}, expected {sums[name]:,}" for name in wrong)
            is_loss = all(held[name] <= sums[name] for name in _ROWS)
            yield Fault(place, f"has {told}", Remedy.RECOUNT if is_loss else Remedy.NONE, source_id=source_id)
        read = sorted((step["from_byte"], step["to_byte"]) for step in steps if step["lines"])
        if any(later[0] != earlier[1] for earlier, later in pairwise(read)):
            yield Fault(place, "its steps leave bytes out or read them twice", source_id=source_id)
        offset = table.transaction_version(steps[0]["fingerprint"])
        if read and offset != read[-1][1]:
            yield Fault(place, f"was read up to byte {read[-1][1]:,}, and the table says {offset}", source_id=source_id)


_PARTS: Final = ("skipped", "duplicates", "removed")


def _of_counts(lake: Path, successes: list[Path], counts: list[Path], is_deep: bool) -> Iterator[Fault]:
    """The days whose successes are not as many as were counted or, where it `is_deep`, not the ones that were."""
    rows: Counter[date] = Counter()
    counted: Counter[date] = Counter()
    for path in successes:
        rows[lakes.day_of(path)] += pq.read_metadata(path).num_rows
    for path in counts:
        counted[lakes.day_of(path)] += sum(pq.read_table(path, columns=["successes"])["successes"].to_pylist())
    with duckdb.connect() as con:
        for day in sorted({*rows, *counted}):
            place = f"{lake}: successes of {day}"
            if rows[day] != counted[day]:
                told = f"{counted[day]:,} are counted, and there are {rows[day]:,}"
                yield Fault(place, told, Remedy.COUNT, day=day)
            elif is_deep and not are_counted(con, *(_of_day(paths, day) for paths in (successes, counts))):
                yield Fault(place, "are counted for other callers, routes or moments", Remedy.COUNT, day=day)


def _of_day(paths: list[Path], day: date) -> list[Path]:
    return [path for path in paths if lakes.day_of(path) == day]


def _of_database(lake: Path, files: dict[str, list[Path]]) -> Iterator[Fault]:
    """Whether the exported database reads the files of this snapshot."""
    path = database_path(lake)
    if not path.exists():
        return
    try:
        with duckdb.connect(path, read_only=True) as con:
            views = con.execute("SELECT sql FROM duckdb_views() WHERE NOT internal").fetchall()
    except duckdb.Error:
        yield Fault(str(path), "cannot be read", Remedy.EXPORT, is_damage=False)
        return
    exported = {name for (sql,) in views for name in _DATA_FILE.findall(sql)}
    if exported != {file.name for paths in files.values() for file in paths}:
        yield Fault(str(path), "is not of the present lake", Remedy.EXPORT, is_damage=False)
