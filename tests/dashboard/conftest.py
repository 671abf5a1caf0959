"""Lakes to look at, the dashboard as a process, and a browser that looks."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from playwright.sync_api import BrowserContext, Page, ViewportSize, expect, sync_playwright

from ingest.lake import create
from ingest.schema import table_path, table_schema
from tests.analysis.queries.event_lake import daily_successes, error, ok, source

Row = dict[str, Any]
Serve = Callable[[Path], str]

CHROMIUM: Final = Path("/usr/bin/chromium")

# Tests run side by side on few cores: a page may take long, and none has to be waited for longer than it takes.
expect.set_options(timeout=30_000)

_ROOT: Final = Path(__file__).parents[2]
_QUIET: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_HOUR: Final = 3600
_SIZE: Final = ViewportSize(width=1400, height=1000)


def write(lake: Path, rows: Sequence[Row]) -> Path:
    """`lake`, with `rows` added to it in one commit; it is made if need be, an empty one of no rows."""
    table = pa.Table.from_pylist([*rows, *daily_successes(rows)], schema=table_schema())
    create(lake)
    write_deltalake(table_path(lake), table, mode="append", partition_by=["kind", "day"])
    return lake


def two_days() -> list[Row]:
    """From 9:00 a day with ten requests an hour, two of them errors, then a day with twice as many errors."""
    rows = []
    for hour in range(48):
        errors = 2 if hour < 24 else 4
        for number in range(10):
            who = {"org_id": f"org_{number % 2}", "key_id": f"key_{number}", "request_id": f"req_{hour}_{number}"}
            codes = ("rate_limited", "internal_error", "not_found", None)
            seconds = hour * _HOUR + 60 + 390 * number
            rows.append(error(seconds, codes[number], **who) if number < errors else ok(seconds, **who))
    moments = [row["ts"] for row in rows]
    counts = {"lines": 481, "requests": 480, "errors": 144, "rejects": 1}
    step = {"kind": "source", "day": moments[0].date(), "first_ts": min(moments), "last_ts": max(moments)}
    reject = {"kind": "reject", "day": moments[0].date(), "source_id": "first", "line": 481, "reason": "not_json"}
    return [*rows, source("first", **counts) | step, reject]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of `two_days`, in a folder whose name has to be passed on with care."""
    return write(tmp_path_factory.mktemp("filled") / "Lars' läke $HOME", two_days())


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake without rows."""
    return write(tmp_path_factory.mktemp("empty") / "lake", [])


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts the dashboard of a lake once and gives its address; all that were started end with the module."""
    running: dict[Path, subprocess.Popen[str]] = {}
    ports: dict[Path, int] = {}
    home = tmp_path_factory.mktemp("home")

    def start(lake: Path) -> str:
        if lake not in running:
            ports[lake] = free_port()
            running[lake] = started(lake, ports[lake], home)
        return f"http://127.0.0.1:{ports[lake]}"

    yield start
    for process in running.values():
        end(process)


def started(lake: Path, port: int, home: Path, *options: str) -> subprocess.Popen[str]:
    """The dashboard of `lake`, when it answers at `port`."""
    command = [sys.executable, str(_ROOT / "errata.py"), "dashboard", "--no-browser", *options]
    process = subprocess.Popen(
        [*command, "--lake", str(lake), "--port", str(port)],
        cwd=home,
        env=os.environ | {"HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    _wait_until_up(process, f"http://127.0.0.1:{port}")
    return process


def end(process: subprocess.Popen[str]) -> str:
    """What `process` printed, after it was ended."""
    process.terminate()
    return process.communicate(timeout=20)[0]


@pytest.fixture(scope="module")
def window() -> Iterator[BrowserContext]:
    """Chromium in Tokyo, without a window. Its pages share what they have loaded of Streamlit."""
    if not CHROMIUM.exists():
        pytest.fail(f"{CHROMIUM}: expected a browser, found none; `apt-get install chromium`", pytrace=False)
    with (
        sync_playwright() as playwright,
        closing(playwright.chromium.launch(executable_path=CHROMIUM, args=_QUIET)) as browser,
        closing(browser.new_context(viewport=_SIZE, locale="en-GB", timezone_id="Asia/Tokyo")) as context,
    ):
        yield context


@pytest.fixture
def page(window: BrowserContext) -> Iterator[Page]:
    """A page that fails the test when it asks anything of a machine but this one."""
    asked: list[str] = []
    with closing(window.new_page()) as page:
        page.on("request", lambda request: asked.append(request.url))
        yield page
    assert [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))] == []


def look(page: Page, address: str) -> Page:
    """`page`, at `address` and drawn to its end."""
    page.goto(address)
    return drawn(page)


def drawn(page: Page) -> Page:
    """`page`, when nothing on it is about to change."""
    expect(page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_be_visible(timeout=30_000)
    expect(page.locator("[data-stale=true], [data-testid=stSkeleton]")).to_have_count(0)
    return page


def turn_to(page: Page, title: str) -> Page:
    """`page`, after a click on the link to the page called `title`, drawn to its end."""
    page.get_by_test_id("stSidebar").get_by_role("link", name=title, exact=True).click()
    expect(page.get_by_role("heading", name=title, exact=True, level=1)).to_be_visible(timeout=30_000)
    return drawn(page)


def free_port() -> int:
    """A port at which nothing is served."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_up(process: subprocess.Popen[str], address: str) -> None:
    for _ in range(300):
        if process.poll() is not None:
            pytest.fail(f"the dashboard ended at once: {process.communicate()[0]}", pytrace=False)
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"nothing is served at {address} after 30 s", pytrace=False)
