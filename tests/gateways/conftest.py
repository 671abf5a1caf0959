"""Gateways as Debian installs them, in front of a small API on this machine, and what errata makes of their logs."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
import pytest

from ingest.formats import formats
from ingest.run import ingest
from ingest.source import expand
from tests.gateways.api import IDEMPOTENCY_KEY, PHONE, PRESENTED_KEY, SLOW, SLOW_S, Address, serving
from tests.ingest.logs import KEY, Row, rejects, requests

# Each process has an address of the loopback network to itself, so that tests side by side never want the same port.
_HOST: Final = str(IPv4Address("127.0.0.0") + os.getpid())
_MOST_WAITED_S: Final = 30


@pytest.fixture(scope="session")
def api() -> Iterator[Address]:
    """Where the API is."""
    with serving() as address:
        yield address


@pytest.fixture
def gateway() -> Address:
    """Where a gateway may listen."""
    with closing(socket.socket()) as probe:
        probe.bind((_HOST, 0))
        return _HOST, probe.getsockname()[1]


def needs(package: str, file: str) -> pytest.MarkDecorator:
    """Skips a test where `file` of Debian's `package` is not installed."""
    return pytest.mark.skipif(not Path(file).exists(), reason=f"{file} is missing; `apt-get install {package}`")


@dataclass(frozen=True)
class Told:
    """What a gateway is told to log, and the rows that must come of it, with `durations`.

    The documentation of the format tells it, in `snippet`; where a gateway needs not be told, `stock` is what its
    package is configured with.
    """

    layout: str
    rows: Sequence[Row]
    durations: Sequence[str] = ()
    snippet: str = "configure"
    stock: str = ""

    def configuration(self, folder: Path) -> str:
        """The text of the configuration, with its log as `log` in `folder`."""
        text = self.stock or formats()[self.layout].docs[self.snippet]
        return re.sub(r"/var/log/[\w/.]+", str(folder / "log"), text)


@contextmanager
def running(
    command: Sequence[str], gateway: Address, folder: Path, *, stop: signal.Signals, zone: str = "Asia/Tokyo"
) -> Iterator[None]:
    """Runs a gateway in `folder` and time zone `zone`; `stop` is the signal at which it ends what it is doing.

    What it says is in `folder`, as `stdout` and `stderr`.
    """
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TZ": zone}
    with (folder / "stdout").open("wb") as said, (folder / "stderr").open("wb") as complaints:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=complaints)
    try:
        _wait_until_up(process, gateway, folder)
        yield
        process.send_signal(stop)
        process.wait(_MOST_WAITED_S)
    finally:
        process.kill()
        process.wait()


def assert_kept(told: Told, log: Path, began: datetime) -> None:
    """Asserts that errata knows `log` for what it is, and keeps the rows of the calls since `began` and no secret."""
    ended = datetime.now(UTC)
    lake = log.parent / "lake"
    (step,) = ingest(expand([str(log)]), lake, KEY)
    found = requests(lake)

    assert (step.outcome, step.reason, {row["gateway"] for row in found}) == ("added", "", {told.layout})
    kept = [{name: row[name] for name in told.rows[0]} for row in found]
    assert sorted(kept, key=str) == sorted(told.rows, key=str)
    _assert_timed(found, began, ended, told.durations)
    # HAProxy also says when it ends.
    no_requests = [number for number, line in enumerate(log.read_text().splitlines(), 1) if line.startswith("Proxy ")]
    assert [row["line"] for row in rejects(lake)] == no_requests
    text = _everything_in(lake)
    assert [secret for secret in (PRESENTED_KEY, PHONE, PHONE[1:], IDEMPOTENCY_KEY) if secret in text] == []


def _assert_timed(found: Sequence[Row], began: datetime, ended: datetime, durations: Sequence[str]) -> None:
    # Some gateways write whole seconds.
    assert [row["ts"] for row in found if not began - timedelta(seconds=1) < row["ts"] <= ended] == []
    longest_ms = (ended - began) / timedelta(milliseconds=1)
    for column in durations:
        timed = [row for row in found if column == "latency_ms" or row["origin"] == "upstream"]
        assert [row for row in timed if not _least_ms(row) < (row[column] or 0) < longest_ms] == []


def _least_ms(row: Row) -> float:
    # A gateway's clock may be some milliseconds behind.
    return 900 * SLOW_S if row["path"] == SLOW.target else 0


def _everything_in(folder: Path) -> str:
    """All texts in the files of a lake, as they are stored and as they are read."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    stored = [file.read_bytes().decode(errors="replace") for file in files]
    return "\n".join(stored + [str(pq.read_table(file).to_pylist()) for file in files if file.suffix == ".parquet"])


def _wait_until_up(process: subprocess.Popen[bytes], gateway: Address, folder: Path) -> None:
    deadline = time.monotonic() + _MOST_WAITED_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"{process.args!r} ended at once: {(folder / 'stderr').read_text()}", pytrace=False)
        try:
            socket.create_connection(gateway, _MOST_WAITED_S).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(f"{process.args!r} does not listen after {_MOST_WAITED_S} s", pytrace=False)
