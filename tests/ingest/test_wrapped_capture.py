"""A real nginx log reads the same however it is wrapped and packed: as it is, byte for byte, or in another container.

The lines are of the capture: all whose error bodies are raw gzip in the line, every status, code and kind of caller.
"""

import gzip
import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Final

import pytest

from ingest.frame import Frame
from ingest.parse import Lanes
from ingest.source import Source, expand, replayable
from tests.ingest.logs import Row
from tests.ingest.wrapping import (
    PACKERS,
    Found,
    Wrap,
    back_to_back,
    cri,
    crlf,
    docker,
    docker_lossy,
    indented,
    indented_array,
    journald,
    json_array,
    json_array_on_one_line,
    marked,
    plain,
    read,
    syslog_3164,
    syslog_5424,
    text_of,
    utf_16,
)

CAPTURE: Final = Path(__file__).parents[2] / "sample_logs" / "capture" / "access.json.log.gz"
_OF_EACH: Final = 4


def is_utf_8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_packed(line: bytes) -> bool:
    """Whether the body on `line` is raw gzip."""
    return b'"resp_body":"\\u001F\x8b' in line


@cache
def capture() -> list[bytes]:
    """Lines of the capture: those that are no UTF-8 or have other characters than ASCII, the longest, and a few of each
    status, code, method, user agent and missing value."""
    lines = gzip.decompress(CAPTURE.read_bytes()).splitlines()
    longest = set(sorted(lines, key=len)[-5:])
    seen: dict[object, int] = {}
    chosen = []
    for line in lines:
        value = json.loads(text_of(line), strict=False)
        kinds = [
            *((name, value[name]) for name in ("status", "method", "user_agent")),
            *((name, value[name] == "") for name in ("org_id", "request_id", "retry_after", "resp_body")),
            ("code", line.partition(b'\\"code\\":\\"')[2].partition(b"\\")[0]),
        ]
        is_rare = any(seen.get(kind, 0) < _OF_EACH for kind in kinds)
        for kind in kinds:
            seen[kind] = seen.get(kind, 0) + 1
        if is_rare or line in longest or not line.isascii():
            chosen.append(line)
    return chosen


@pytest.fixture(scope="module")
def expected(lanes: Lanes, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What the plain file says."""
    path = tmp_path_factory.mktemp("capture") / "access.log"
    path.write_bytes(plain(capture()))
    return read(Source("access.log", path), lanes)


def read_held(folder: Path, held: bytes, lanes: Lanes) -> Found:
    """What one file with the bytes `held` says, whatever it is."""
    path = folder / "held"
    path.write_bytes(held)
    with replayable(expand([str(path)])) as [given]:
        return read(given, lanes)


def test_the_chosen_lines_are_of_every_kind_and_each_is_a_row(expected: Found) -> None:
    lines = capture()

    assert 200 < len(lines) < 300
    assert sum(not is_utf_8(line) for line in lines) == 38
    assert {row["status"] for row in expected.rows} >= {200, 201, 400, 401, 403, 404, 409, 414, 422, 429, 499, 500, 502}
    assert ([row["line"] for row in expected.rows], expected.rejects) == ([*range(1, len(lines) + 1)], [])
    packed = [row for row, line in zip(expected.rows, lines, strict=True) if is_packed(line)]
    assert None not in {row["code"] for row in packed}
    assert {row["body_state"] for row in packed} == {"whole"}


LINE_BY_LINE: Final[dict[str, tuple[Wrap, Frame]]] = {
    "CRI": (cri, Frame("wrapped", 1)),
    "Docker": (docker, Frame("wrapped", 1)),
    "journald": (journald, Frame("wrapped", 1)),
    "syslog RFC 3164": (syslog_3164, Frame("wrapped", 1)),
    "syslog RFC 5424": (syslog_5424, Frame("wrapped", 1)),
    "CRI in syslog": (lambda lines: syslog_5424(cri(lines).splitlines()), Frame("wrapped", 2)),
    "syslog in Docker": (lambda lines: docker(syslog_3164(lines).splitlines()), Frame("wrapped", 2)),
    "lines that end in CR LF": (crlf, Frame()),
    "a byte order mark": (marked, Frame()),
}
DOCUMENTS: Final[dict[str, Wrap]] = {
    "an array": json_array,
    "an array on one line": json_array_on_one_line,
    "an array, indented": indented_array,
    "indented documents": indented,
    "back to back": back_to_back,
}


@pytest.mark.parametrize("name", LINE_BY_LINE)
def test_a_wrapper_of_each_line_changes_no_row(name: str, expected: Found, tmp_path: Path, lanes: Lanes) -> None:
    wrap, frame = LINE_BY_LINE[name]

    found = read_held(tmp_path, wrap(capture()), lanes)

    assert found.detection.frame == frame
    assert (found.what, found.rejects) == (expected.what, [])
    assert [row["line"] for row in found.rows] == [row["line"] for row in expected.rows]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_json_that_is_no_line_each_gives_the_same_rows(
    name: str, expected: Found, tmp_path: Path, lanes: Lanes
) -> None:
    found = read_held(tmp_path, DOCUMENTS[name](capture()), lanes)

    assert found.detection.frame == Frame("documents")
    assert (sorted(map(str, found.what)), found.rejects) == (sorted(map(str, expected.what)), [])


@pytest.mark.parametrize("size", [1 << 14, 4096, 700, 97], ids="pieces of {} bytes".format)
@pytest.mark.parametrize("wrap", [cri, docker], ids=["CRI", "Docker"])
def test_a_line_that_the_runtime_split_is_one_row(
    wrap: Callable[[list[bytes], int], bytes], size: int, expected: Found, tmp_path: Path, lanes: Lanes
) -> None:
    pieces = [-(-max(len(line) + (wrap is docker), 1) // size) for line in capture()]

    found = read_held(tmp_path, wrap(capture(), size), lanes)

    assert (found.what, found.rejects) == (expected.what, [])
    # A record is where its first piece is; the others are skipped.
    assert [row["line"] for row in found.rows] == [1 + sum(pieces[:number]) for number in range(len(pieces))]
    assert found.progress.skipped == sum(pieces) - len(pieces)


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("wrap", [plain, partial(cri, size=700)], ids=["as it is", "in CRI"])
def test_packing_changes_no_row(name: str, wrap: Wrap, expected: Found, tmp_path: Path, lanes: Lanes) -> None:
    found = read_held(tmp_path, PACKERS[name](wrap(capture())), lanes)

    assert (found.what, found.rejects) == (expected.what, [])


def test_utf_16_changes_no_row_of_lines_that_it_can_hold(expected: Found, tmp_path: Path, lanes: Lanes) -> None:
    are_text = [is_utf_8(line) for line in capture()]

    found = read_held(tmp_path, utf_16([line for line in capture() if is_utf_8(line)]), lanes)

    kept = [row for row, is_text in zip(expected.what, are_text, strict=True) if is_text]
    assert (found.what, found.rejects) == (kept, [])


_OF_THE_BODY: Final = ("code", "message", "docs_url", "details", "body_state", "request_id")


def test_docker_itself_loses_bodies_that_are_raw_gzip_and_nothing_else(
    expected: Found, tmp_path: Path, lanes: Lanes
) -> None:
    def without_body(row: Row) -> Row:
        return {name: value for name, value in row.items() if name not in _OF_THE_BODY}

    found = read_held(tmp_path, docker_lossy(capture()), lanes)

    whole = zip(found.what, expected.what, capture(), strict=True)
    pairs = [(row, kept, is_packed(line)) for row, kept, line in whole]
    assert [row for row, _, is_lost in pairs if not is_lost] == [kept for _, kept, is_lost in pairs if not is_lost]
    lost = [(row, kept) for row, kept, is_lost in pairs if is_lost]
    assert len(lost) == 34
    assert [without_body(row) for row, _ in lost] == [without_body(kept) for _, kept in lost]
    assert {(row["code"], row["body_state"], row["kind"]) for row, _ in lost} == {(None, "undecodable", "error")}
