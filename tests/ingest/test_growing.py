"""A log that is read while it is written has the same rows as one that was read when it was whole, wherever it was cut.

Every file is cut at another byte, so that one pair of runs is some twenty tests.
"""

import gzip
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from pprint import pformat
from typing import Final

import pytest

from ingest.run import ingest
from ingest.source import Source
from tests.ingest.logs import KEY, SECOND, Row, combined_line, error_line, json_line, rejects, requests, steps
from tests.ingest.wrapping import (
    Wrap,
    back_to_back,
    cri,
    crlf,
    docker,
    indented,
    indented_array,
    journald,
    json_array,
    json_array_on_one_line,
    plain,
    syslog_5424,
)

_CUTS: Final = 10


def lines_of(name: str) -> list[bytes]:
    """A few lines of a log that no other file begins like, of every kind that may be read in part."""
    short = dict.fromkeys(("org_id", "key_id", "idempotency_key", "upstream_time", "host"), ...)
    return [
        json_line(request_id=f"{name}_1", **short),
        error_line("not_found", 404, user_agent=f"é {name}", **short),
        json_line(request_id=f"{name}_3", msec=SECOND + 1, uri='/a"}{"b', **short),
    ]


def text_lines_of(name: str) -> list[bytes]:
    return [combined_line(request=f"GET /v1/{name}/{number} HTTP/1.1", status=400 + number) for number in range(4)]


def two_streams(lines: list[bytes]) -> bytes:
    """CRI whose split records of two streams lie between each other."""
    out, other = cri(lines, 90).splitlines(keepends=True), cri([b"started", b"two lines\tof it"], 7)
    others = other.replace(b" stdout ", b" stderr ").splitlines(keepends=True)
    return b"".join(line for pair in zip(out, [*others, *[b""] * len(out)], strict=False) for line in pair)


def two_arrays(lines: list[bytes]) -> bytes:
    """An array, a blank line, and another."""
    return json_array(lines[:2]) + b"\n" + indented_array(lines[2:])


LINES: Final[dict[str, Wrap]] = {
    "lines": plain,
    "lines that end in CR LF": crlf,
    "CRI, split": partial(cri, size=50),
    "CRI, split, of two streams": two_streams,
    "Docker, split": partial(docker, size=50),
    "CRI in syslog": lambda lines: syslog_5424(cri(lines).splitlines()),
    "journald": journald,
}
DOCUMENTS: Final[dict[str, Wrap]] = {
    "an array": json_array,
    "an array on one line": json_array_on_one_line,
    "two arrays": two_arrays,
    "indented documents": indented,
    "back to back": back_to_back,
}


def cuts(data: bytes) -> list[int]:
    """Places to cut `data` at: spread evenly, and around the last ends of records and of their lines."""
    ends = [at for at in range(1, len(data)) if data[at - 1] in b"\n}]" or data[at] in b"\n}]"]
    return sorted({*range(1, len(data), len(data) // _CUTS), *ends[-8:]})


def added(folder: Path, lake: Path, contents: dict[str, bytes]) -> None:
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    list(ingest([Source(name, folder / name) for name in contents], lake, KEY))


# Where a log stops right behind a document nobody knows whether its line goes on: what follows may be a line off.
_DIFFERS: Final = {True: {"source_id", "day"}, False: {"source_id", "day", "line", "byte_offset"}}


def rows_by_name(lake: Path, rows: Iterable[Row], differs: set[str]) -> dict[str, str]:
    """`rows` as text by the name of their source, but for what depends on when it was read."""
    names = {step["source_id"]: step["name"] for step in steps(lake)}
    found: dict[str, list[str]] = {}
    for row in rows:
        kept = {name: value for name, value in row.items() if name not in differs}
        found.setdefault(names[row["source_id"]], []).append(pformat(kept))
    return {name: "\n".join(sorted(of_name)) for name, of_name in found.items()}


CASES: Final = [
    *(pytest.param(lines_of, wrap, id=name) for name, wrap in {**LINES, **DOCUMENTS}.items()),
    *(pytest.param(text_lines_of, LINES[name], id=f"text: {name}") for name in ("lines", "CRI, split")),
]


@pytest.mark.parametrize(("lines", "wrap"), CASES)
def test_a_log_that_was_cut_at_any_byte_and_grew_has_the_rows_of_the_whole_one(
    tmp_path: Path, lines: Callable[[str], list[bytes]], wrap: Wrap
) -> None:
    model = wrap(lines("cut_0000"))
    cut_at = {f"cut_{at:04}": at for at in cuts(model)}
    whole = {name: wrap(lines(name)) for name in cut_at}
    added(tmp_path, tmp_path / "model", {"cut_0000": model})

    added(tmp_path, tmp_path / "lake", {name: data[: cut_at[name]] for name, data in whole.items()})
    added(tmp_path, tmp_path / "lake", whole)

    differs = _DIFFERS[wrap in LINES.values()]
    for read in (requests, rejects):
        expected = rows_by_name(tmp_path / "model", read(tmp_path / "model"), differs).get("cut_0000", "")
        found = rows_by_name(tmp_path / "lake", read(tmp_path / "lake"), differs)
        assert {name: found.get(name, "") for name in cut_at} == {
            name: expected.replace("cut_0000", name) for name in cut_at
        }
    assert len(requests(tmp_path / "model")) == len(lines(""))


def test_a_log_that_did_not_grow_adds_nothing(tmp_path: Path) -> None:
    contents = {name: wrap(lines_of(name.replace(" ", "_"))) for name, wrap in {**LINES, **DOCUMENTS}.items()}
    added(tmp_path, tmp_path / "lake", contents)
    before = (requests(tmp_path / "lake"), steps(tmp_path / "lake"))

    added(tmp_path, tmp_path / "lake", contents)

    assert (requests(tmp_path / "lake"), steps(tmp_path / "lake")) == before
    assert {step["name"] for step in before[1]} == {*LINES, *DOCUMENTS}


@pytest.mark.parametrize("wrap", [plain, partial(cri, size=50), json_array], ids=["lines", "CRI, split", "an array"])
def test_a_compressed_log_whose_copy_was_cut_is_completed_by_the_whole_one(tmp_path: Path, wrap: Wrap) -> None:
    lines = [json_line(request_id=f"id_{number}", host=json.dumps([number] * 40)) for number in range(40)]
    packed = gzip.compress(wrap(lines), mtime=0)

    for cut in (len(packed) // 3, len(packed) * 2 // 3, len(packed) - 4, len(packed)):
        added(tmp_path, tmp_path / "lake", {"a.log.gz": packed[:cut]})

    assert sorted(row["request_id"] for row in requests(tmp_path / "lake")) == sorted(
        f"id_{number}" for number in range(40)
    )
    assert rejects(tmp_path / "lake") == []
