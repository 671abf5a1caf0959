"""No page shows, and no frame carries, what was planted in a log."""

from pathlib import Path

from playwright.sync_api import Page

import analysis
from ingest.run import ingest
from ingest.source import expand
from tests.dashboard.conftest import Serve, look, turn_to
from tests.ingest.logs import KEY, NGINX_JSON, log
from tests.secrets import planted
from tests.secrets.search import found_in


def test_what_was_planted_reaches_no_page_and_no_frame(tmp_path: Path, serve: Serve, page: Page) -> None:
    (tmp_path / "api.log").write_bytes(log(planted.lines(NGINX_JSON)))
    list(ingest(expand([str(tmp_path / "api.log")]), tmp_path / "lake", KEY))
    frames: list[bytes] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: frames.append(_bytes(frame))))

    address = serve(tmp_path / "lake")
    shown = [look(page, f"{address}/?period=all").content()]
    shown += [turn_to(page, question.title).content() for question in analysis.questions().values()]

    assert any("rate_limit_exceeded" in text for text in shown)
    assert b"[secret]" in b"".join(frames)
    assert found_in("\n".join(shown).encode()) | found_in(b"\n".join(frames)) == set()


def _bytes(frame: bytes | str) -> bytes:
    return frame if isinstance(frame, bytes) else frame.encode()
