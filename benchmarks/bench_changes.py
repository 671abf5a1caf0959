"""Measures how often `what_changed` is silent where nothing changed, and names a planted change first.

    python -m benchmarks.bench_changes [--seeds 100] [--json]

Each seed is a world of its own (benchmarks/error_days.py): fifteen days, the last of them any weekday. The change is
planted on the last day, threefold or to a third, in a cell with at least 50 errors with it or without it, whichever is
less, a burst of one client counted as one. One of the four levels is a code, the others are narrower.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final

import duckdb
import pyarrow as pa

import analysis
from analysis.lake import DEFAULT_CATALOGUE, read_catalogue
from benchmarks.error_days import FIRST_DAY, LEVELS, Change, World
from ingest.schema import DAILY, PARTITION_COLUMNS, REJECTS, REQUESTS, SOURCES, arrow_schema

FACTORS: Final = (3.0, 1 / 3)
_CELL: Final = ("code", "method", "route", "org_id", "key")


@dataclass(frozen=True)
class Score:
    """How many of `seeds` worlds were answered as they should be."""

    case: str
    seeds: int
    right: int


def connection() -> duckdb.DuckDBPyConnection:
    """The lake's views as empty tables, with every macro."""
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    partition = list(arrow_schema(PARTITION_COLUMNS))
    derived = [pa.field("caller", pa.string()), pa.field("is_error", pa.bool_())]
    of_catalogue = [("is_known_code", pa.bool_()), ("is_retryable", pa.bool_()), ("category", pa.string())]
    tables = {
        "requests": pa.schema([*partition, *REQUESTS, *derived]).empty_table(),
        "daily_successes": pa.schema([*partition, *DAILY, derived[0]]).empty_table(),
        "errors": pa.schema([*partition, *REQUESTS, *derived, *of_catalogue, ("owner", pa.string())]).empty_table(),
        "rejects": pa.schema([*partition, *REJECTS]).empty_table(),
        "sources": pa.schema([*partition, *SOURCES]).empty_table(),
        "catalogue": read_catalogue(DEFAULT_CATALOGUE),
    }
    for name, table in tables.items():
        con.register("arriving", table)
        con.execute(f"CREATE TABLE {name} AS SELECT * FROM arriving")
        con.unregister("arriving")
    analysis.install(con)
    return con


def answers(con: duckdb.DuckDBPyConnection, world: World) -> list[dict[str, Any]]:
    """What `what_changed` says of the world's last day."""
    world.fill(con)
    since = FIRST_DAY + timedelta(days=world.last_day)
    answer = analysis.answer(con, "what_changed", since=since, until=since + timedelta(days=1))
    found: list[dict[str, Any]] = answer.to_arrow_table().to_pylist()
    return found


def is_named_first(con: duckdb.DuckDBPyConnection, found: list[dict[str, Any]], change: Change) -> bool:
    """Is the first sentence about the cell, or about one inside it that explains four fifths of its change?"""
    if not found:
        return False
    first = found[0]
    planted = (change.code, change.method, change.route, change.org_id, change.key_id)
    wanted = {name: value for name, value in zip(_CELL, planted, strict=True) if value is not None}
    if (first["kind"] in ("UP", "NEW", "RETURNED")) != (change.factor > 1):
        return False
    if any(first[name] != value for name, value in wanted.items()):
        return False
    named = {name: first[name] for name in _CELL if first[name] is not None}
    return _moved(con, named) / _moved(con, wanted) >= 0.8


def _moved(con: duckdb.DuckDBPyConnection, cell: dict[str, str]) -> float:
    condition = " AND ".join(f"{'caller' if name == 'key' else name} = ${name}" for name in cell)
    counts = dict(
        con.execute(
            f"""SELECT (SELECT max(day) FROM requests) - day, count(*) FROM requests
            WHERE is_error AND {condition} GROUP BY ALL""",
            cell,
        ).fetchall()
    )
    return float(counts.get(0, 0) - (counts.get(1, 0) + counts.get(7, 0)) / 2)


def scores(seeds: int) -> Iterator[Score]:
    """Silence without a change, then each planted level and factor."""
    con = connection()
    quiet = sum(not answers(con, World(seed)) for seed in range(seeds))
    yield Score("nothing changed: silent", seeds, quiet)
    for factor in FACTORS:
        for level in LEVELS:
            worlds = ((World(seed), seed) for seed in range(10_000, 10_000 + 10 * seeds))
            planted = ((world, change) for world, _ in worlds if (change := world.change(level, factor)))
            right = total = 0
            for (world, change), _ in zip(planted, range(seeds), strict=False):
                total += 1
                right += is_named_first(con, answers(con, world), change)
            yield Score(f"{level} x {factor:.2g}: named first", total, right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100, help="worlds of each case")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for score in scores(arguments.seeds):
        if arguments.json:
            print(json.dumps(asdict(score)), flush=True)
        else:
            print(f"{score.case:44} {score.right:4} of {score.seeds}", flush=True)


if __name__ == "__main__":
    main()
