"""Ctrl-C for work that happens inside the engine."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import duckdb

Result = TypeVar("Result")


def interruptibly(con: duckdb.DuckDBPyConnection, work: Callable[[], Result]) -> Result:
    """What `work`, which uses `con`, gives; ctrl-C stops its query at once and raises KeyboardInterrupt.

    In the main thread a query sees the signal only between two of its tasks, which in a long scan may be never.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        running = pool.submit(work)
        try:
            return running.result()
        except KeyboardInterrupt:
            con.interrupt()
            raise
