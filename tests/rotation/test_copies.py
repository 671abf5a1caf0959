"""Logs as they lie about after years of rotation and copying: each request once, whatever holds it."""

import gzip
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from ingest.run import Step, ingest
from ingest.source import Source
from tests.ingest.logs import KEY, SECOND, json_line, log, rejects, requests, steps

DAY: Final = 86_400


def lines(first: int, last: int, *, name: str = "req") -> bytes:
    """Lines `first` to `last` of a log, a second apart."""
    return log(json_line(request_id=f"{name}_{number}", msec=SECOND + number) for number in range(first, last + 1))


def read(folder: Path, name: str, data: bytes) -> list[Step]:
    """What became of a file `name` with `data`."""
    (folder / name).write_bytes(data)
    return list(ingest([Source(name, folder / name)], folder / "lake", KEY))


def ids(folder: Path) -> list[str]:
    """The request ids in the lake, sorted by number."""
    return sorted((str(row["request_id"]) for row in requests(folder / "lake")), key=lambda id_: int(id_.split("_")[1]))


def whole(count: int) -> list[str]:
    return [f"req_{number}" for number in range(count)]


# What a file is replaced by, or what else comes, when lines 0 to 19 have been read; and how many lines that makes.
COPIES: Final[dict[str, tuple[str, bytes, int]]] = {
    "under another name": ("b.log", lines(0, 19), 20),
    "compressed": ("a.log.gz", gzip.compress(lines(0, 19)), 20),
    "compressed again": ("a.log.gz", gzip.compress(lines(0, 19), 1), 20),
    "the tail of it, shipped again": ("tail.log", lines(15, 19), 20),
    "a tail that goes on": ("tail.log", lines(15, 24), 25),
    "the same and another behind it": ("all.log", lines(0, 19) + lines(20, 29), 30),
    "another and the same behind it": ("all.log", lines(20, 29) + lines(0, 19), 30),
    "both, compressed one by one": ("all.log.gz", gzip.compress(lines(20, 29)) + gzip.compress(lines(0, 19)), 30),
    "shorter, with other lines": ("a.log", lines(20, 21), 22),
    "shorter, with the same lines": ("a.log", lines(0, 9), 20),
    "as long, with other lines": ("a.log", lines(20, 39), 40),
    "the middle of it": ("part.log", lines(5, 14), 20),
}


@pytest.mark.parametrize(("name", "data", "count"), COPIES.values(), ids=COPIES.keys())
def test_a_request_is_kept_once_whatever_holds_it(tmp_path: Path, name: str, data: bytes, count: int) -> None:
    read(tmp_path, "a.log", lines(0, 19))

    for _ in range(2):
        read(tmp_path, name, data)

    assert ids(tmp_path) == whole(count)
    assert rejects(tmp_path / "lake") == []
    for step in steps(tmp_path / "lake"):
        parts = ("requests", "duplicates", "rejects", "skipped", "removed")
        assert step["lines"] == sum(step[part] for part in parts)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_last_line_that_was_cut_is_completed_by_the_file_that_it_rotated_to(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    text = lines(0, 4)
    for cut in (1, 40, len(lines(4, 4)) - 1):
        folder = tmp_path / str(cut)
        folder.mkdir()
        read(folder, "a.log", text[:-cut])

        read(folder, "a.log.1", pack(text))

        assert (ids(folder), rejects(folder / "lake")) == (whole(5), [])


MOMENTS: Final[dict[str, Sequence[int]]] = {
    "a log of last year": [-400 * DAY, -400 * DAY + 1],
    "a clock that is set back": [0, 1, -3600, -3599, 2],
    "a clock that is set back over midnight": [0, -DAY, 1],
    "a clock that jumps ahead": [0, DAY, 1],
}


@pytest.mark.parametrize("moments", MOMENTS.values(), ids=MOMENTS.keys())
def test_a_request_belongs_to_its_own_day_whenever_it_comes(tmp_path: Path, moments: Sequence[int]) -> None:
    read(tmp_path, "new.log", lines(0, 3, name="new"))
    late = [json_line(request_id=f"late_{number}", msec=SECOND + moment) for number, moment in enumerate(moments)]

    read(tmp_path, "late.log", log(late))

    found = {row["request_id"]: (row["ts"].timestamp(), row["day"]) for row in requests(tmp_path / "lake")}
    assert {id_: place for id_, place in found.items() if id_.startswith("late")} == {
        f"late_{number}": (SECOND + moment, datetime.fromtimestamp(SECOND + moment, UTC).date())
        for number, moment in enumerate(moments)
    }
    [step] = [step for step in steps(tmp_path / "lake") if step["name"] == "late.log"]
    assert (step["first_ts"].timestamp(), step["last_ts"].timestamp()) == (SECOND + min(moments), SECOND + max(moments))


@pytest.mark.parametrize("when", [1, 2], ids=["before it is read", "when its last line was read"])
def test_a_log_that_is_cut_by_copytruncate_while_it_is_read_is_left_to_the_next_run(tmp_path: Path, when: int) -> None:
    path, copy = tmp_path / "a.log", tmp_path / "a.log.1"
    path.write_bytes(lines(0, 9))
    calls = iter(range(1, 100))

    def copytruncate(name: str, size: int) -> None:
        if next(calls) == when:
            copy.write_bytes(path.read_bytes())
            path.write_bytes(lines(10, 11))

    [cut] = ingest([Source("a.log", path)], tmp_path / "lake", KEY, watch=copytruncate)
    list(ingest([Source("a.log", path), Source("a.log.1", copy)], tmp_path / "lake", KEY))

    assert cut.outcome == "moved"
    assert ids(tmp_path) == whole(12)
