"""A request that reaches the lake twice is there once, where its id proves that it is the same, and is counted."""

import gzip
from pathlib import Path
from typing import Final

import pytest

from ingest.run import Step, ingest
from ingest.source import Source
from tests.ingest.logs import KEY, SECOND, combined_line, json_line, log, requests, steps
from tests.ingest.wrapping import cri

LINES: Final = [
    json_line(request_id=f"id_{number}", msec=SECOND + number) if number % 3 else
    json_line(request_id=f"id_{number}", msec=SECOND + number, status=429)
    for number in range(30)
]  # fmt: skip


def added(folder: Path, contents: dict[str, bytes], jobs: int = 1) -> dict[str, Step]:
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    given = [Source(name, folder / name) for name in contents]
    return {step.name: step for step in ingest(given, folder / "lake", KEY, jobs=jobs)}


def counts(told: dict[str, Step]) -> dict[str, tuple[int, int, int]]:
    """Requests, errors and duplicates of each source."""
    return {
        name: (step.progress.requests, step.progress.errors, step.progress.duplicates) for name, step in told.items()
    }


def test_a_tail_that_was_shipped_again_adds_what_is_new_alone(tmp_path: Path) -> None:
    added(tmp_path, {"a.log": log(LINES[:20])})

    told = added(tmp_path, {"again.log": log(LINES[9:])})

    assert counts(told) == {"again.log": (10, 3, 11)}
    assert [row["line"] for row in requests(tmp_path / "lake")] == [*range(1, 21), *range(12, 22)] or [
        row["line"] for row in requests(tmp_path / "lake")
    ] == [*range(12, 22), *range(1, 21)]
    ledger = {step["name"]: step for step in steps(tmp_path / "lake")}
    assert (ledger["again.log"]["lines"], ledger["again.log"]["requests"], ledger["again.log"]["duplicates"]) == (
        21,
        10,
        11,
    )
    assert ledger["again.log"]["errors"] == 3


def test_logs_of_one_run_may_overlap_and_the_first_of_them_keeps_its_rows(tmp_path: Path) -> None:
    told = added(
        tmp_path, {"a.log": log(LINES[:20]), "b.log.gz": gzip.compress(log(LINES[10:])), "c.log": cri(LINES[5:15])}
    )

    assert counts(told) == {"a.log": (20, 7, 0), "b.log.gz": (10, 3, 10), "c.log": (0, 0, 10)}
    assert len({(row["request_id"], row["ts"]) for row in requests(tmp_path / "lake")}) == 30


def test_two_logs_that_were_joined_into_a_third_add_nothing(tmp_path: Path) -> None:
    added(tmp_path, {"a.log": log(LINES[:12]), "b.log": log(LINES[12:])})

    told = added(tmp_path, {"joined.log": log(LINES), "twice.log": log([b"# twice", *LINES, *LINES])})

    assert counts(told) == {"joined.log": (0, 0, 18), "twice.log": (0, 0, 60)}
    assert len(requests(tmp_path / "lake")) == 30


def test_two_processes_leave_out_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.run._SOURCES_A_COMMIT", 1)

    told = added(tmp_path, {"a.log": log(LINES[:20]), "b.log": log(LINES[10:])}, jobs=2)

    assert counts(told) == {"a.log": (20, 7, 0), "b.log": (10, 3, 10)}


def test_a_few_rows_a_pass_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.duplicates._ROWS_A_PASS", 7)
    added(tmp_path, {"a.log": log(LINES[:20])})

    assert counts(added(tmp_path, {"again.log": log(LINES[9:])})) == {"again.log": (10, 3, 11)}


@pytest.mark.parametrize(
    "differs",
    [
        {"msec": SECOND + 1},
        {"status": 202},
        {"method": "GET"},
        {"uri": "/v1/others"},
        {"org_id": "org_2"},
        {"key_id": "key_2"},
        {"remote_addr": "198.51.100.8"},
        {"user_agent": "sdk/2.0"},
        {"request_time": 0.009},
        {"bytes_sent": 67},
        {"request_id": "req_2"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_requests_that_differ_in_anything_are_two(tmp_path: Path, differs: dict[str, object]) -> None:
    told = added(
        tmp_path, {"a.log": log([json_line(msec=SECOND)]), "b.log": log([json_line(**{"msec": SECOND} | differs)])}
    )

    assert counts(told) == {"a.log": (1, 0, 0), "b.log": (1, 0, 0)}


def test_requests_without_an_id_are_never_the_same(tmp_path: Path) -> None:
    lines = [json_line(request_id=..., msec=SECOND), combined_line(), combined_line(), json_line(request_id="-")]

    told = added(tmp_path, {"a.log": log([b"# a", *lines]), "b.log": log([b"# b", *lines, *lines])})

    assert counts(told) == {"a.log": (4, 0, 0), "b.log": (8, 0, 0)}


def test_an_id_that_a_client_sends_with_everything_proves_nothing(tmp_path: Path) -> None:
    lines = [json_line(request_id="constant", msec=SECOND + number // 2) for number in range(20)]

    told = added(tmp_path, {"a.log": log(lines)})

    assert counts(told) == {"a.log": (20, 0, 0)}


def test_files_that_held_duplicates_alone_are_not_left_behind(tmp_path: Path) -> None:
    added(tmp_path, {"a.log": log(LINES)})
    before = set((tmp_path / "lake" / "table").glob("kind=[oe]*/*/*"))

    added(tmp_path, {"b.log": log([b"# b", *LINES])})

    assert set((tmp_path / "lake" / "table").glob("kind=[oe]*/*/*")) == before
