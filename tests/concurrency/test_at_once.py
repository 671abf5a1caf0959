"""Two ingests, maintenance and twenty readers at once: no reader meets an error, or anything but whole commits."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.concurrency.readers import Seen
from tests.crash.growing import Growing
from tests.crash.held import ids_in
from tests.crash.warm import Ended, Warm, warm

SECONDS: Final = 12
READERS: Final = 20
_ROOT: Final = Path(__file__).parents[2]


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[list[Warm]]:
    """What starts commands, three at once."""
    with ExitStack() as stack:
        yield [stack.enter_context(warm(tmp_path)) for _ in range(3)]


@pytest.fixture
def logs(tmp_path: Path) -> Growing:
    """Logs of which nothing is written yet."""
    (tmp_path / "logs").mkdir()
    return Growing(tmp_path / "logs", random.Random(20_261_124))


def repeated(writer: Warm, until: float, *command: object) -> list[Ended]:
    """How a command ended each time."""
    ended = []
    while time.monotonic() < until:
        ended.append(writer.run(*command))
    return ended


def grown(logs: Growing, until: float) -> int:
    """How often `logs` grew."""
    times = 0
    while time.monotonic() < until:
        logs.grow(1)
        times += 1
        time.sleep(0.1)
    return times


def read(lake: Path, seconds: float) -> list[Seen]:
    """What readers of a lake saw, each a process."""
    command = [sys.executable, "-m", "tests.concurrency.readers", str(lake), str(seconds)]
    told = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    return [Seen(**json.loads(line)) for line in told.stdout.splitlines()]


def test_readers_see_whole_commits_alone_while_others_write(logs: Growing, writers: list[Warm], tmp_path: Path) -> None:
    lake, folder = tmp_path / "lake", tmp_path / "logs"
    logs.grow(4)
    assert writers[0].run("ingest", folder, "--lake", lake).code == 0
    ingest = ("ingest", folder, "--lake", lake, "--wait", 60)
    maintain = ("maintain", "--lake", lake, "--wait", 60)

    until = time.monotonic() + SECONDS
    with ThreadPoolExecutor() as threads:
        growing = threads.submit(grown, logs, until)
        ingests = [threads.submit(repeated, writer, until, *ingest) for writer in writers[:2]]
        maintenance = threads.submit(repeated, writers[2], until, *maintain)
        readers = read(lake, SECONDS)
    logs.finish()
    last = writers[0].run(*ingest)

    assert [wrong for seen in readers for wrong in seen.wrong] == []
    runs = [*(ended for of_one in ingests for ended in of_one.result()), *maintenance.result(), last]
    assert [ended for ended in runs if ended.code] == []
    assert ids_in(lake) == logs.written
    # Otherwise nothing was tested.
    assert len(readers) == READERS
    assert min(len(seen.counts) for seen in readers) > 1
    assert max(seen.counts[-1] - seen.counts[0] for seen in readers) > 0
    assert growing.result() > 1


HOLDER: Final = """
import sys, time
from pathlib import Path
from ingest.lake import create, writing

lake = Path(sys.argv[1])
create(lake)
with writing(lake):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_run_that_waits_goes_on_when_the_holder_of_the_lock_is_killed(
    logs: Growing, writers: list[Warm], tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    logs.grow(4)
    logs.finish()
    command = [sys.executable, "-c", HOLDER, str(lake)]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        waiting = writers[0].start("ingest", tmp_path / "logs", "--lake", lake, "--wait", 60)
        refused = writers[1].run("ingest", tmp_path / "logs", "--lake", lake, "--wait", 0)
        is_waiting = not waiting.has_ended()
        holder.kill()
    ended = waiting.wait()

    assert is_waiting
    assert (ended.code, refused.code) == (0, 2)
    assert refused.said.startswith(f"errata: {lake}: another errata (process {holder.pid}) is writing to it")
    assert f"{lake}: another errata (process {holder.pid}) is writing to it; waiting up to 60 s" in ended.said
    assert ids_in(lake) == logs.written
