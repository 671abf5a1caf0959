"""What a gateway logs while logrotate rotates its logs is in the lake to the line, while errata looks all the time."""

import gzip
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Final

import pytest

from ingest.fingerprint import load_key
from ingest.run import Step, ingest
from ingest.source import expand
from tests.ingest.logs import rejects, requests

LOGROTATE: Final = shutil.which("logrotate", path="/usr/sbin:/usr/bin:/sbin:/bin")
ROTATIONS: Final = 15
_ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Rotated:
    """How a gateway writes a log, as in `tests.rotation.gateway`, and how logrotate is told to rotate it.

    `may_lose` is what logrotate's manual says of copytruncate: what is written between the copy and the cut is lost.
    """

    way: str
    directives: str
    may_lose: bool = False


LOGS: Final = {
    "create": Rotated("blocks", "create"),
    "delayed": Rotated("blocks", "create\ncompress\ndelaycompress"),
    "dated": Rotated("blocks", "create\ncompress\ndelaycompress\ndateext\ndateformat -%Y%m%d-%s"),
    "copied": Rotated("lines", "copytruncate", may_lose=True),
    "packed": Rotated("lines", "copytruncate\ncompress", may_lose=True),
    "late": Rotated("lines", "copytruncate\ncompress\ndelaycompress", may_lose=True),
    "holes": Rotated("no append", "copytruncate", may_lose=True),
}


@contextmanager
def writing(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A gateway that writes `LOGS` into `folder`."""
    ways = [f"{name}={rotated.way}" for name, rotated in LOGS.items()]
    command = [sys.executable, "-m", "tests.rotation.gateway", str(folder), *ways]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        assert gateway.stdout.readline() == "up\n"
        try:
            yield gateway
        finally:
            gateway.kill()


def ended(gateway: subprocess.Popen[str]) -> dict[str, list[str]]:
    """The request ids that a gateway has logged, by log, in their order."""
    gateway.send_signal(signal.SIGTERM)
    counts = json.loads(gateway.communicate()[0])
    return {name: [f"{name}_{number}" for number in range(counts[name])] for name in LOGS}


def rotate(folder: Path, gateway: subprocess.Popen[str]) -> int:
    """Rotates every log, as cron has it done; gives logrotate's exit code."""
    sections = (
        f'"{folder}/{name}.log" {{\nrotate 1000\nmissingok\nnotifempty\n{rotated.directives}\n'
        f"postrotate\nkill -USR1 {gateway.pid}\nendscript\n}}\n"
        for name, rotated in LOGS.items()
    )
    configuration = folder.parent / "logrotate.conf"
    configuration.write_text("".join(sections))
    # Of two rotations in one second the second finds the name of a dated log taken, which it says and passes over.
    command = [str(LOGROTATE), "--force", "--state", str(folder.parent / "state"), str(configuration)]
    return subprocess.run(command, check=False, capture_output=True).returncode


@contextmanager
def rotating(folder: Path, gateway: subprocess.Popen[str]) -> Iterator[list[int]]:
    """Rotates the logs all the time; the list is as long as often that was done."""
    rotations: list[int] = []
    is_over = Event()

    def rotate_on() -> None:
        while not is_over.wait(0.2):
            rotations.append(rotate(folder, gateway))

    thread = Thread(target=rotate_on)
    thread.start()
    try:
        yield rotations
    finally:
        is_over.set()
        thread.join()


def held(folder: Path) -> dict[str, set[str]]:
    """The request ids in the files of `folder`, by log."""
    found: dict[str, set[str]] = {name: set() for name in LOGS}
    for path in folder.iterdir():
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        ids = re.findall(rb'"request_id": "(\w+)"', data)
        found[path.name.partition(".")[0]] |= {id_.decode() for id_ in ids}
    return found


def kept(lake: Path) -> dict[str, list[str]]:
    """The request ids in the lake, by log, in their order."""
    found: dict[str, list[str]] = {name: [] for name in LOGS}
    for row in requests(lake):
        found[row["request_id"].partition("_")[0]].append(row["request_id"])
    return {name: sorted(ids, key=lambda id_: int(id_.partition("_")[2])) for name, ids in found.items()}


def unread(told: list[Step]) -> list[tuple[str, str]]:
    """The sources that could not be read, and why; that one is gone by now is part of rotation."""
    return [
        (step.name, step.reason)
        for step in told
        if step.outcome == "unreadable" and step.reason != "cannot be read: No such file or directory"
    ]


@pytest.mark.skipif(not LOGROTATE, reason="logrotate is missing; `apt-get install logrotate`")
def test_logs_that_logrotate_rotates_under_a_gateway_are_kept_to_the_line(tmp_path: Path) -> None:
    folder, lake = tmp_path / "logs", tmp_path / "lake"
    folder.mkdir()
    told: list[Step] = []

    with writing(folder) as gateway:
        with rotating(folder, gateway) as rotations:
            while len(rotations) < ROTATIONS:
                told += ingest(expand([str(folder)], lake), lake, load_key())
        written = ended(gateway)
    last = subprocess.run(
        [sys.executable, "-m", "errata", "ingest", str(folder), "--lake", str(lake)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    on_disk, found = held(folder), kept(lake)
    assert (last.returncode, unread(told), rejects(lake)) == (0, [], [])
    assert {name: len(ids) - len(set(ids)) for name, ids in found.items()} == dict.fromkeys(LOGS, 0)
    # All that the files hold, and what errata saw before copytruncate lost it.
    assert {name: sorted(on_disk[name] - set(ids)) for name, ids in found.items()} == {name: [] for name in LOGS}
    assert {name: sorted(set(ids) - set(written[name])) for name, ids in found.items()} == {name: [] for name in LOGS}
    whole = [name for name, rotated in LOGS.items() if not rotated.may_lose]
    assert {name: found[name] for name in whole} == {name: written[name] for name in whole}
    lost = [name for name, ids in written.items() if set(ids) - on_disk[name]]
    assert [name for name in lost if not LOGS[name].may_lose] == []
    # Otherwise nothing was tested.
    assert min(len(list(folder.glob(f"{name}.log*"))) for name in LOGS) > 2
    assert min(map(len, found.values())) > 100
