"""A write, flush, rename or link that fails is told in one line; the lake stays whole, and the next run completes it.

What fails is a call and a file in the lake, as in `faults.c`. Where power goes, the process ends right before the call.
"""

import errno
import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import pytest

from tests.crash.growing import Growing
from tests.crash.held import ids_in, left_behind
from tests.crash.warm import Ended, Warm

FULL: Final = errno.ENOSPC
BROKEN: Final = errno.EIO
NO_POWER: Final = -1
NAMES: Final = {NO_POWER: "no power"}
# Nothing is lost where these fail: what is there already is made, what is not needed is left, or nobody else is told.
_HARMLESS: Final = ("unlink ", "mkdir lake", "write lake/.lock", "create lake/table/_delta_log/*checkpoint")
# DuckDB says no more than that it failed.
_UNTOLD: Final = "fsync lake/errata.duckdb*"

BOTH: Final = ("ingest", "maintain")
CALLS: Final[Sequence[tuple[str, Sequence[str], Sequence[int]]]] = (
    ("create lake/.lock", BOTH, (FULL,)),
    ("write lake/.lock", BOTH, (FULL,)),
    ("mkdir lake/table/kind=*", BOTH, (FULL,)),
    ("create lake/table/kind=*.parquet", BOTH, (FULL, NO_POWER)),
    ("write lake/table/kind=*.parquet", BOTH, (FULL, BROKEN, NO_POWER)),
    ("fsync lake/table/kind=*.parquet", BOTH, (BROKEN, NO_POWER)),
    ("fsync lake/table/kind=*[0-9]", BOTH, (BROKEN,)),
    ("create lake/table/_delta_log/*.json#*", BOTH, (FULL, NO_POWER)),
    ("write lake/table/_delta_log/*.json#*", BOTH, (FULL, NO_POWER)),
    ("link lake/table/_delta_log/*.json", BOTH, (FULL, BROKEN, NO_POWER)),
    ("unlink lake/table/_delta_log/*.json#*", BOTH, (BROKEN, NO_POWER)),
    ("fsync lake/table/_delta_log/*.json", BOTH, (BROKEN, NO_POWER)),
    ("fsync lake/table/_delta_log", BOTH, (BROKEN,)),
    ("create lake/table/_delta_log/*checkpoint*", ("maintain",), (FULL, NO_POWER)),
    ("write lake/table/_delta_log/*checkpoint*", ("maintain",), (FULL, NO_POWER)),
    ("rename lake/table/_delta_log/*checkpoint*", ("maintain",), (BROKEN, NO_POWER)),
    ("fsync lake/table/_delta_log/*checkpoint*", ("maintain",), (BROKEN,)),
    ("unlink lake/table/kind=*", ("maintain",), (BROKEN, NO_POWER)),
    ("create lake/errata.duckdb*", BOTH, (FULL, NO_POWER)),
    ("write lake/errata.duckdb*", BOTH, (FULL, NO_POWER)),
    ("fsync lake/errata.duckdb*", BOTH, (BROKEN,)),
    ("rename lake/errata.duckdb", BOTH, (BROKEN, NO_POWER)),
    ("mkdir .export.*", ("export",), (FULL,)),
    ("create .export.*.parquet", ("export",), (FULL, NO_POWER)),
    ("write .export.*.parquet", ("export",), (FULL, NO_POWER)),
    ("fsync .export.*", ("export",), (BROKEN,)),
    ("rename export", ("export",), (BROKEN, NO_POWER)),
)


@dataclass(frozen=True)
class Begun:
    """A lake of many small files, the logs that have grown since, and the calls by which each command changes it."""

    lake: Path
    logs: Growing
    calls: dict[str, list[str]]


def arguments(command: str, logs: Growing, place: Path) -> list[object]:
    """What comes after `errata` for a command that has something to do."""
    of_command = {
        "ingest": ["ingest", logs.folder],
        "maintain": ["maintain", "--grace", 0],
        "export": ["export", place / "export"],
    }
    return [*of_command[command], "--lake", place / "lake"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, faulty: Warm) -> Begun:
    """Where every case starts from; cases copy the lake, and leave the logs alone."""
    folder = tmp_path_factory.mktemp("begun")
    (folder / "logs").mkdir()
    lake, logs = folder / "lake", Growing(folder / "logs", random.Random(20_261_123))
    calls = {}
    for _ in range(6):
        logs.grow(2)
        assert faulty.run("ingest", logs.folder, "--lake", lake).code == 0
    logs.grow(2)
    logs.finish()
    for command in (*BOTH, "export"):
        place = folder / command
        shutil.copytree(lake, place / "lake")
        told = folder / "calls"
        ended = faulty.run(*arguments(command, logs, place), fault=(str(place), str(told), "*", 0, 0))
        assert ended.code == 0
        calls[command] = told.read_text().splitlines()
    return Begun(lake, logs, calls)


CASES: Final = [
    pytest.param(command, calls, error, id=f"{command}: {calls}: {NAMES.get(error) or os.strerror(error)}")
    for calls, commands, errors in CALLS
    for command in commands
    for error in errors
]


@pytest.mark.parametrize(("command", "calls", "error"), CASES)
def test_a_call_that_fails_leaves_a_whole_lake_and_the_next_run_completes_it(
    begun: Begun, faulty: Warm, tmp_path: Path, command: str, calls: str, error: int
) -> None:
    place, lake, logs, told = tmp_path / "place", tmp_path / "place" / "lake", begun.logs, tmp_path / "calls"
    shutil.copytree(begun.lake, lake)
    run = arguments(command, logs, place)
    before = ids_in(lake)
    number = random.Random(calls).randrange(sum(fnmatchcase(call, calls) for call in begun.calls[command])) + 1

    failed = faulty.run(*run, fault=(str(place), str(told), calls, number, error))

    assert len(told.read_text().splitlines()) >= number
    assert ending(failed) in endings(calls, error)
    complaints = [line for line in failed.said.splitlines() if line.startswith("errata: ")]
    reason = "" if calls == _UNTOLD or error == NO_POWER else os.strerror(error)
    assert [line for line in complaints if str(place) not in line or reason not in line] == []
    found = ids_in(lake)
    assert found == {name: logs.written[name][: len(ids)] for name, ids in found.items()}
    assert {name: found[name][: len(ids)] for name, ids in before.items()} == before
    assert not (place / "export").exists()
    clean_up = [] if command == "maintain" else [arguments("maintain", logs, place)]
    assert {faulty.run(*again).code for again in (run, *clean_up)} == {0}
    assert ids_in(lake) == (logs.written if command == "ingest" else before)
    assert (left_behind(lake), [path.name for path in place.glob(".*")]) == ([], [])


def ending(ended: Ended) -> tuple[int, int, bool]:
    """The exit code of a command, how many lines it complained in, and whether it fell over."""
    return ended.code, sum(line.startswith("errata: ") for line in ended.said.splitlines()), "Traceback" in ended.said


def endings(calls: str, error: int) -> set[tuple[int, int, bool]]:
    """How a command may end in which one of `calls` failed."""
    if error == NO_POWER:
        return {(-9, 0, False)}
    is_harmless = calls.startswith(_HARMLESS) or "checkpoint" in calls
    return {(2, 1, False), (0, 0, False)} if is_harmless else {(2, 1, False)}
