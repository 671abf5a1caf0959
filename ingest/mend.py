"""What can be mended of a lake that is not whole. Nothing is deleted that could hold an answer: it is set aside.

Knows what each remedy costs; knows not how faults are found.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ingest import lake as lakes
from ingest.check import Fault, Remedy, check
from ingest.maintain import rows_by_source
from ingest.removal import Removed, replace_rows
from ingest.schema import table_path
from ingest.writer import Writer, flush

ASIDE: Final = "damaged"
"""The folder of a lake that broken files are moved to."""


def mend(lake: Path, *, is_deep: bool = False) -> Iterator[str]:
    """Mends what `check` finds, one thing after the other, and tells what it did; check again to see what is left.

    `is_deep` counts the successes of each day again, to see whether that is what is written. The caller holds the
    writer lock. Raises NotWritten and LakeDamaged.
    """
    # What names a broken checkpoint is broken too once that is gone.
    while broken := _found(lake, Remedy.SET_ASIDE):
        for fault in broken:
            _set_aside(lake, Path(fault.place))
            yield f"{fault.place}: moved to {lake / ASIDE}; {fault.found}"
    if dropped := _found(lake, Remedy.DROP):
        for fault in dropped:
            if Path(fault.place).exists():
                _set_aside(lake, Path(fault.place))
            yield f"{fault.place}: taken out of the lake; {fault.found}"
        with lakes.writes(lake):
            lakes.open_table(lake).repair(post_commithook_properties=lakes.NO_HOOKS)
            lakes.flush_log(table_path(lake))
    if short := _found(lake, Remedy.RECOUNT):
        yield from _recount(lake, {fault.source_id for fault in short})
    if miscounted := _found(lake, Remedy.COUNT, is_deep=is_deep):
        days = [fault.day for fault in miscounted if fault.day]
        lakes.count_again(lake, days)
        yield f"successes of {', '.join(map(str, days))}: counted again"
    for fault in _found(lake, Remedy.REMOVE):
        Path(fault.place).unlink(missing_ok=True)
        yield f"{fault.place}: removed; it {fault.found}"


def _found(lake: Path, remedy: Remedy, *, is_deep: bool = False) -> list[Fault]:
    """The faults that `remedy` is for: what was mended before may have brought them to light."""
    return [fault for fault in check(lake, is_deep=is_deep).faults if fault.remedy is remedy]


def _set_aside(lake: Path, path: Path) -> None:
    with lakes.writes(lake):
        folder = lake / ASIDE
        folder.mkdir(mode=0o700, exist_ok=True)
        path.rename(folder / path.name)
        flush(folder)
        flush(path.parent)


def _recount(lake: Path, source_ids: set[str]) -> Iterator[str]:
    """Writes down in the ledger which rows of these sources are lost, so that it fits those that are left."""
    table = lakes.open_table(lake)
    steps = lakes.ledger(lake).to_pylist()
    lost: Removed = {}
    for kind in ("ok", "error", "reject"):
        paths = lakes.paths_of(table, kind)
        held = rows_by_source(paths) if paths else Counter[str]()
        expected: Counter[str] = Counter()
        for step in steps:
            if step["source_id"] in source_ids:
                expected[step["source_id"]] += _rows(step, kind)
        lost[kind] = Counter({name: rows - held[name] for name, rows in expected.items()})
    now = datetime.now(UTC).date()
    nothing: lakes.Replaced = [("kind", "=", "none")]
    replace_rows(lake, nothing, Writer(table_path(lake), now), lost, "lost")
    names = {step["source_id"]: step["name"] for step in steps}
    for source_id in sorted(source_ids):
        rows = sum(counter[source_id] for counter in lost.values())
        yield (
            f"{names[source_id]}: {rows:,} rows are lost and counted as removed; "
            "to have them back, ingest the log into a new lake"
        )


def _rows(step: dict[str, int], kind: str) -> int:
    if kind == "reject":
        return step["rejects"]
    return step["errors"] if kind == "error" else step["requests"] - step["errors"]
