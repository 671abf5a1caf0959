"""What keeps a lake small, fast and lawful: retention, compaction, and the removal of files that nobody needs.

Knows when files are worth rewriting and which are past their time. Each step is a commit of its own: killed at any
moment, a run leaves a whole lake, and the next one goes on.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError

from ingest import lake as lakes
from ingest.prepared import quoted
from ingest.removal import Removed, replace_rows
from ingest.schema import KINDS, LakeDamaged, database_path, table_path
from ingest.writer import Writer

GRACE_HOURS: Final = 24
_GOOD_BYTES: Final = 128 << 20
_SMALL_BYTES: Final = _GOOD_BYTES // 4
_FEW: Final = 4
_MANY: Final = 64
_ROWS_A_BATCH: Final = 1 << 16
ORDERS: Final = {
    "ok": "key_id, key_hash, client_ip, ts, line",
    "error": "ts, line",
    "reject": "source_id, line",
    "source": "ingested_at, source_id",
}
"""What lies together in the files of a day: of successes those of a caller, of which questions want one or few."""
_NAMES: Final = {"ok": "successes", "error": "errors", "reject": "rejects", "source": "ledger steps"}


@dataclass(frozen=True)
class Retention:
    """How many days successes and errors are kept, today's among them; rejects stay as long as errors. None: for ever.

    A success belongs to the day of its response, a reject to that of its ingest, in UTC.
    """

    successes_days: int | None = None
    errors_days: int | None = None


def maintain(lake: Path, retention: Retention, now: datetime, *, grace_hours: int = GRACE_HOURS) -> Iterator[str]:
    """Removes rows past their time, joins small files, and removes files that no snapshot has; tells what it did.

    Files that were replaced stay `grace_hours` for those who opened the lake before; what a killed run left goes at
    once. The caller holds the writer lock. Raises NotWritten and LakeDamaged.
    """
    yield from _expire(lake, retention, now.date())
    yield from _compact(lake, now.date())
    with lakes.writes(lake), suppress(DeltaError):  # the log is whole without it
        lakes.checkpoint(lake)
    yield from remove_files(lake, grace_hours)


def _expire(lake: Path, retention: Retention, today: date) -> Iterator[str]:
    kept_days = {"ok": retention.successes_days, "error": retention.errors_days, "reject": retention.errors_days}
    table = lakes.open_table(lake)
    for kind, days in kept_days.items():
        if days is None:
            continue
        first_kept = today - timedelta(days=days - 1)
        files = [path for path in lakes.paths_of(table, kind) if lakes.day_of(path) < first_kept]
        if files:
            removed: Removed = {kind: rows_by_source(files)}
            expired = lakes.partitions(kind, map(lakes.day_of, files))
            replace_rows(lake, expired, Writer(table_path(lake), today), removed, "retention")
            yield f"{removed[kind].total():,} {_NAMES[kind]} before {first_kept} removed"


def rows_by_source(files: list[Path]) -> Counter[str]:
    """How many rows of each source_id are in data files of one kind, of which there is at least one."""
    with duckdb.connect() as con:
        counted = "SELECT source_id, count(*) FROM read_parquet($files, hive_partitioning = false) GROUP BY ALL"
        return Counter(dict(con.execute(counted, {"files": [str(path) for path in files]}).fetchall()))


def _compact(lake: Path, today: date) -> Iterator[str]:
    files: dict[tuple[str, date], dict[Path, int]] = {}
    table = lakes.open_table(lake)
    for kind in ORDERS:
        for path in lakes.paths_of(table, kind):
            files.setdefault((kind, lakes.day_of(path)), {})[path] = _size(path)
    for (kind, day), sizes in files.items():
        is_over = kind == "ok" and day < today
        if is_worth_compacting(list(sizes.values())) or (is_over and _are_worth_sorting(sizes)):
            left = compact_day(lake, kind, day)
            yield f"{_NAMES[kind]} of {day}: {len(sizes):,} files became {left:,}"


def _are_worth_sorting(successes: dict[Path, int]) -> bool:
    """Whether there is a large file, given with its size in bytes, that does not lie in the order of its callers."""
    return any(size >= _SMALL_BYTES and not _is_sorted(path) for path, size in successes.items())


def _is_sorted(path: Path) -> bool:
    """Whether each row group's keys come after those of the one before."""
    metadata = pq.read_metadata(path)
    column = metadata.schema.names.index("key_id")
    groups = (metadata.row_group(number).column(column).statistics for number in range(metadata.num_row_groups))
    spans = [(keys.min, keys.max) for keys in groups if keys is not None and keys.has_min_max]
    return all(before[1] <= after[0] for before, after in pairwise(spans))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise LakeDamaged(f"{path}: cannot be read: {error.strerror}; run `errata check`") from error


def is_worth_compacting(sizes: list[int]) -> bool:
    """Whether a day with files of these sizes in bytes has so many small ones that they are worth rewriting it all."""
    small = [size for size in sizes if size < _SMALL_BYTES]
    return len(small) > _FEW and (10 * sum(small) >= sum(sizes) or len(small) >= _MANY)


def compact_day(lake: Path, kind: str, day: date) -> int:
    """Rewrites the rows of a kind and day in their order; gives the number of files that they are in now."""
    paths = lakes.paths_of(lakes.open_table(lake), kind, [day.isoformat()])
    writer = Writer(table_path(lake), day)
    listed = ", ".join(quoted(str(path)) for path in paths)
    with lakes.spilling(lake) as con:
        rows = con.sql(
            f"SELECT * FROM read_parquet([{listed}], hive_partitioning = false) ORDER BY {ORDERS[kind]}"  # noqa: S608 - paths are quoted
        )
        add_all(lake, writer, kind, day, rows)
    with lakes.filling(lake, writer):
        files = writer.close()
    lakes.commit(lake, files, replaced=lakes.partitions(kind, [day]))
    return len(files)


def add_all(lake: Path, writer: Writer, kind: str, day: date, rows: duckdb.DuckDBPyRelation) -> None:
    """Gives all `rows` to `writer`, a batch at a time; discards what it wrote where that fails."""
    with lakes.filling(lake, writer):
        for batch in rows.to_arrow_reader(_ROWS_A_BATCH):
            writer.add_again(kind, day, pa.table(batch))


def remove_files(lake: Path, grace_hours: int) -> Iterator[str]:
    """Removes the data files that were replaced `grace_hours` ago and whatever killed runs left; tells how many.

    The caller holds the writer lock, so that a file without a commit is nobody's.
    """
    table = lakes.open_table(lake)
    with lakes.writes(lake):
        orphans, replaced = files_past(lake, grace_hours)
        removed = orphans | replaced
        for path in removed:
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in removed}:
            with suppress(OSError):  # other files lie there
                folder.rmdir()
        for path in _left_behind(lake):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        table.cleanup_metadata()
    if removed:
        yield f"{len(removed):,} files removed that no snapshot has, {len(orphans):,} of them left by killed runs"


def files_past(lake: Path, grace_hours: int) -> tuple[set[Path], set[Path]]:
    """The data files that never had a commit, and those that were replaced `grace_hours` ago."""
    root = table_path(lake).resolve()
    table = lakes.open_table(lake)
    needed = {path for kind in KINDS for path in lakes.paths_of(table, kind)}
    replaced, past_grace = (
        {root / unquote(name) for name in table.vacuum(hours, dry_run=True, enforce_retention_duration=False)}
        for hours in (0, grace_hours)
    )
    there = set(root.glob("kind=*/day=*/*")) - needed
    return there - replaced, there & past_grace


def _left_behind(lake: Path) -> Iterator[Path]:
    """What killed runs leave beside the data files: drafts, spilled rows, and commits that did not happen."""
    yield from lake.glob(f"{database_path(lake).name}.*.draft*")
    yield from lake.glob(lakes.SPILL)
    yield from (table_path(lake) / "_delta_log").glob("*#*")
