"""Logs that were emptied under a gateway which does not append: the same hole, and each with rows of its own."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.run import ingest
from ingest.source import HEAD_BYTES, Source
from tests.ingest.logs import KEY, json_line, log, rejects, requests


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_log_behind_a_hole_is_not_taken_for_an_older_copy_of_a_longer_one(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    hole = b"\0" * (2 * HEAD_BYTES)
    lines = {"long.log": 500, "short.log": 5}
    for name, count in lines.items():
        text = hole + log(json_line(request_id=f"{name}_{number}") for number in range(count))
        (tmp_path / name).write_bytes(pack(text))

    for name in lines:
        list(ingest([Source(name, tmp_path / name)], tmp_path / "lake", KEY))

    found = sorted(row["request_id"] for row in requests(tmp_path / "lake"))
    assert found == sorted(f"{name}_{number}" for name, count in lines.items() for number in range(count))
    assert rejects(tmp_path / "lake") == []


def test_a_log_behind_a_hole_is_known_when_the_hole_is_gone(tmp_path: Path) -> None:
    text = log(json_line(request_id=f"req_{number}") for number in range(3))
    sources = [Source(name, tmp_path / name) for name in ("a.log", "b.log")]
    sources[0].path.write_bytes(b"\0" * (2 * HEAD_BYTES) + text)
    sources[1].path.write_bytes(text)

    told = [step.outcome for given in sources for step in ingest([given], tmp_path / "lake", KEY)]

    assert told == ["added", "known"]


def test_a_log_behind_a_hole_grows(tmp_path: Path) -> None:
    given = Source("a.log", tmp_path / "a.log")
    given.path.write_bytes(b"\0" * (2 * HEAD_BYTES))

    for number in range(3):
        with given.path.open("ab") as file:
            file.write(log([json_line(request_id=f"req_{number}")]))
        list(ingest([given], tmp_path / "lake", KEY))

    assert [(row["line"], row["request_id"]) for row in requests(tmp_path / "lake")] == [
        (1, "req_0"),
        (2, "req_1"),
        (3, "req_2"),
    ]
