"""How rows leave the lake: the partitions they lay in are replaced, and the ledger says how many went, in one commit.

So for every source the law still holds: lines = requests + duplicates + rejects + skipped + removed.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from ingest import lake as lakes
from ingest.schema import SOURCES
from ingest.writer import Writer

Removed = dict[str, Counter[str]]
"""How many rows of each source are removed, by their kind and source_id."""


def replace_rows(lake: Path, replaced: lakes.Replaced, kept: Writer, removed: Removed, why: str) -> None:
    """Commits what `kept` was given in the place of the partitions `replaced`, and a ledger step for each source that
    lost rows, which has `why` for its decision. Discards what was written where that fails.

    The caller holds the writer lock. Raises NotWritten and LakeDamaged.
    """
    with lakes.filling(lake, kept):
        steps = _steps(lakes.ledger(lake), removed, why)
        if len(steps):
            kept.add_steps(steps)
        files = kept.close()
    lakes.commit(lake, files, replaced=replaced)


def _steps(ledger: pa.Table, removed: Removed, why: str) -> pa.Table:
    counts = {source_id: _of_source(removed, source_id) for source_id in _sources(removed.values())}
    last: dict[str, dict[str, Any]] = {}
    for step in ledger.to_pylist():
        before = last.get(step["source_id"])
        if step["source_id"] in counts and (before is None or _place(step) > _place(before)):
            last[step["source_id"]] = step
    nothing = {"lines": 0, "skipped": 0, "duplicates": 0, "first_ts": None, "last_ts": None}
    now = datetime.now(UTC)
    rows = [
        step
        | {"decision": why, "first_line": step["to_line"], "from_byte": step["to_byte"], "ingested_at": now}
        | nothing
        | counts[source_id]
        for source_id, step in last.items()
    ]
    return pa.Table.from_pylist(rows, schema=SOURCES)


def _place(step: dict[str, Any]) -> tuple[int, datetime]:
    return step["to_byte"], step["ingested_at"]


def _sources(counters: Iterable[Counter[str]]) -> set[str]:
    return {source_id for counter in counters for source_id, count in counter.items() if count}


def _of_source(removed: Removed, source_id: str) -> dict[str, int]:
    ok, errors, rejects = (removed.get(kind, Counter())[source_id] for kind in ("ok", "error", "reject"))
    return {"requests": -ok - errors, "errors": -errors, "rejects": -rejects, "removed": ok + errors + rejects}
