"""The counts of successes by day: who succeeded where and how often, so that a rate need not read every success.

Knows what they are counted by. Knows no commit: `ingest.lake` makes them visible together with the successes.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import duckdb

from ingest.prepared import quoted
from ingest.schema import DAILY

_MEASURES: Final = ("successes", "first_ts", "last_ts")
_CELL: Final = ", ".join(name for name in DAILY.names if name not in _MEASURES)


def counts_of(successes: Iterable[Path]) -> str:
    """SQL for the counts of the successes in data files of one day, in an order that compresses well."""
    measures = "count(*) AS successes, min(ts) AS first_ts, max(ts) AS last_ts"
    return f"SELECT {_CELL}, {measures} FROM {_rows(successes)} GROUP BY ALL ORDER BY {_CELL}"  # noqa: S608 - paths are quoted


def are_counted(con: duckdb.DuckDBPyConnection, successes: Iterable[Path], counts: Iterable[Path]) -> bool:
    """Whether the counts in data files of one day are those of the successes in others; they may lie in parts."""
    measures = "sum(successes)::BIGINT AS successes, min(first_ts) AS first_ts, max(last_ts) AS last_ts"
    found = f"SELECT {_CELL}, {measures} FROM {_rows(counts)} GROUP BY ALL"  # noqa: S608 - paths are quoted
    expected = counts_of(successes)
    differing = f"(({found}) EXCEPT ({expected})) UNION ALL (({expected}) EXCEPT ({found}))"
    return con.execute(f"SELECT count(*) FROM ({differing})").fetchall() == [(0,)]  # noqa: S608 - paths are quoted


def _rows(files: Iterable[Path]) -> str:
    listed = ", ".join(quoted(str(path)) for path in files)
    return f"read_parquet([{listed}], hive_partitioning = false)"
