"""Readers of a lake that others write to: what each of them saw.

Run as a module, `LAKE SECONDS`, it is twenty processes, and prints a `Seen` for each of them as a line of JSON.
"""

import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import duckdb

from analysis import connect
from ingest.schema import database_path
from tests.crash.held import UNLIKE_THE_LEDGER

_LONGEST_PAUSE_S: Final = 3.0
_KEPT_FOR_LOOKS: Final = 4


@dataclass
class Seen:
    """What a reader of a kind saw: how many requests at each look, and whatever was not as it must be."""

    kind: str
    counts: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def look(self, con: duckdb.DuckDBPyConnection) -> None:
        """Looks at every source once."""
        self.wrong += [f"unlike the ledger: {row}" for row in con.execute(UNLIKE_THE_LEDGER).fetchall()]
        [(count,)] = con.execute("SELECT count(DISTINCT (source_id, line)) FROM requests").fetchall()
        if self.counts and count < self.counts[-1]:
            self.wrong.append(f"{self.counts[-1]} requests became {count}")
        self.counts.append(count)


def _of_any_client(lake: Path) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(str(database_path(lake)), read_only=True)


_Kind = tuple[str, Callable[[Path], duckdb.DuckDBPyConnection], int]
_KINDS: Final[list[_Kind]] = [
    *[("errata", connect, 1)] * 8,
    *[("errata, connection kept", connect, _KEPT_FOR_LOOKS)] * 4,
    *[("any client", _of_any_client, 1)] * 4,
    *[("any client, connection kept", _of_any_client, _KEPT_FOR_LOOKS)] * 4,
]


def _read(lake: Path, until: float, kind: _Kind) -> Seen:
    name, opened, looks = kind
    seen = Seen(name)
    try:
        while time.monotonic() < until:
            with closing(opened(lake)) as con:
                for _ in range(looks):
                    seen.look(con)
                    time.sleep(random.uniform(0, _LONGEST_PAUSE_S))
    except Exception:
        seen.wrong.append(traceback.format_exc())
    return seen


def _main(lake: Path, seconds: float) -> None:
    until = time.monotonic() + seconds
    children = []
    for kind in _KINDS:
        pid = os.fork()
        if not pid:
            # One write of a line, so that lines of different readers do not mix.
            os.write(1, json.dumps(asdict(_read(lake, until, kind))).encode() + b"\n")
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), float(sys.argv[2]))
