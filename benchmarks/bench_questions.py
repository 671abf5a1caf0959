"""Measures how long each question takes on a lake, over all of it and over its last day, and to explain a request.

    python -m benchmarks.generate_lake --requests 100_000_000 --days 30 --out LAKE
    python -m benchmarks.bench_questions LAKE

Each is asked in a process of its own, once to warm the page cache and then a few times, each time over a fresh
connection. Seconds are those of connecting and answering. Where other processes take a part of the machine, what two
cores would need when idle lies between the CPU seconds by two and the wall time.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatch
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import duckdb

import analysis
from analysis.explain import explain

_CORES: Final = 2
_MEMORY: Final = "4GB"
_LIMIT_S: Final = 30
_ID: Final = """
SELECT request_id
FROM requests
WHERE kind = $kind
  AND day = (SELECT max(day) FROM requests) - 1
ORDER BY ts, request_id
LIMIT 1 OFFSET 100
"""


@dataclass(frozen=True)
class Asked:
    """A question of the lake with its period, or an explanation of a request."""

    what: str
    period: str
    since: datetime | None = None
    request_id: str | None = None


@dataclass(frozen=True)
class Taken:
    """A line of the table: medians of the runs."""

    what: str
    period: str
    wall_s: float
    cpu_s: float
    peak_mib: int
    rows: int


def measure(lake: Path, asked: Asked, runs: int) -> Taken:
    """What it takes this process to answer."""
    ask = _asking(asked)
    walls, cpus, rows = [], [], 0
    for turn in range(runs + 1):
        before, cpu_before = time.perf_counter(), time.process_time()
        with analysis.connect(lake) as con:
            con.execute(f"SET enable_progress_bar = false; SET memory_limit = '{_MEMORY}'")
            rows = _within(con, ask)
        if turn:  # the first turn warms the page cache
            walls.append(time.perf_counter() - before)
            cpus.append(time.process_time() - cpu_before)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return Taken(asked.what, asked.period, statistics.median(walls), statistics.median(cpus), peak_mib, rows)


def _within(con: duckdb.DuckDBPyConnection, ask: Callable[[duckdb.DuckDBPyConnection], int]) -> int:
    """How many rows `con` answers with; -1 where it needs more than `_MEMORY` or `_LIMIT_S`."""
    clock = threading.Timer(_LIMIT_S, con.interrupt)
    clock.start()
    try:
        return ask(con)
    except (duckdb.OutOfMemoryException, duckdb.InterruptException):
        return -1
    finally:
        clock.cancel()


def _asking(asked: Asked) -> Callable[[duckdb.DuckDBPyConnection], int]:
    if request_id := asked.request_id:
        return lambda con: len(explain(con, request_id).attempts)
    parameters = {"since": asked.since} if asked.since else {}
    return lambda con: len(analysis.answer(con, asked.what, **parameters))


def all_asked(lake: Path) -> Iterator[Asked]:
    """Every question over all of the lake and, if it has a period, its last day; an error and a success explained."""
    with analysis.connect(lake) as con:
        [(through,)] = con.execute("SELECT epoch_us(data_through())").fetchall()
        ids = {kind: con.execute(_ID, {"kind": kind}).fetchall() for kind in ("error", "ok")}
    last_day = (datetime(1970, 1, 1) + timedelta(microseconds=through)).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    for name, question in analysis.questions().items():
        yield Asked(name, "all")
        if any(parameter.name == "since" for parameter in question.parameters):
            yield Asked(name, "last day", since=last_day)
    for kind, found in ids.items():
        for (request_id,) in found:
            yield Asked(f"explain ({kind})", "all", request_id=request_id)


def main() -> None:
    """Prints the table, or the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lake", type=Path)
    parser.add_argument("--only", metavar="PATTERN", default="*", help="questions with such a name")
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    versions = {package: version(package) for package in ("duckdb", "pyarrow")}
    if not options.json:
        print(f"{machine}; {', '.join(f'{package} {number}' for package, number in versions.items())}")
        head = f"{'period':10}{'wall s':>8}{'CPU s/2':>8}{'peak MiB':>10}{'rows':>10}"
        print(f"median of {options.runs} runs\n\n{'':28}{head}")
    found = []
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        for asked in all_asked(options.lake):
            if not fnmatch(asked.what, options.only):
                continue
            taken = pool.submit(measure, options.lake, asked, options.runs).result()
            found.append(taken)
            if not options.json:
                told = f"{taken.wall_s:8.2f}{taken.cpu_s / _CORES:8.2f}{taken.peak_mib:10,}{taken.rows:10,}"
                print(f"{taken.what:28}{taken.period:10}{told}", flush=True)
    if options.json:
        print(json.dumps({"machine": machine, "versions": versions, "rows": list(map(asdict, found))}, indent=1))


if __name__ == "__main__":
    main()
