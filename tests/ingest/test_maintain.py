"""Retention, compaction and the removal of files: fewer files, the same rows, and a law that still holds."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

import analysis
from ingest import lake as lakes
from ingest import maintain
from ingest.maintain import Retention
from ingest.run import ingest
from ingest.schema import KINDS, NotWritten, table_path
from ingest.source import Source
from tests.ingest.logs import KEY, SECOND, error_line, json_line, log, rejects, requests, steps

DAY_S: Final = 86_400
_FOR_EVER: Final = Retention()
NOW: Final = datetime(2026, 11, 25, 12, tzinfo=UTC)  # the logs are of the 23rd and 24th


def added(tmp_path: Path, name: str, lines: list[bytes]) -> None:
    (tmp_path / name).write_bytes(log(lines))
    list(ingest([Source(name, tmp_path / name)], tmp_path / "lake", KEY))


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Eight sources of two days, each committed for itself: eight files of every kind and day, counts among them."""
    for number in range(8):
        lines = [
            json_line(request_id=f"{number}_ok", msec=SECOND + number),
            json_line(request_id=f"{number}_next_day", msec=SECOND + DAY_S - number),
            error_line("not_found", 404, msec=SECOND + number, org_id=f"org_{number}"),
            error_line("rate_limited", 429, msec=SECOND + DAY_S, org_id=f"org_{number}"),
            b"{",
        ]
        added(tmp_path, f"{number}.log", lines)
    return tmp_path / "lake"


def maintained(lake: Path, retention: Retention = _FOR_EVER, grace_hours: int = 24) -> list[str]:
    with lakes.writing(lake):
        return list(maintain.maintain(lake, retention, NOW, grace_hours=grace_hours))


def files(lake: Path) -> dict[tuple[str, str], int]:
    """How many files the snapshot has, by kind and day."""
    table = lakes.open_table(lake)
    counts: dict[tuple[str, str], int] = {}
    for kind in KINDS:
        for path in lakes.paths_of(table, kind):
            place = (kind, lakes.day_of(path).isoformat())
            counts[place] = counts.get(place, 0) + 1
    return counts


def on_disk(lake: Path) -> int:
    return len(list(table_path(lake).rglob("*.parquet"))) - len(
        list((table_path(lake) / "_delta_log").glob("*.parquet"))
    )


def held(lake: Path) -> tuple[list[dict[str, Any]], ...]:
    def key(row: dict[str, Any]) -> str:
        return repr(row)

    return tuple(sorted(rows(lake), key=key) for rows in (requests, rejects, steps))


def test_small_files_become_one_with_the_same_rows(lake: Path) -> None:
    before = held(lake)
    assert set(files(lake).values()) == {8}

    told = maintained(lake)

    assert held(lake) == before
    assert set(files(lake).values()) == {1}
    today = datetime.now(UTC).date()
    assert told == [
        "successes of 2026-11-23: 8 files became 1",
        "successes of 2026-11-24: 8 files became 1",
        "errors of 2026-11-23: 8 files became 1",
        "errors of 2026-11-24: 8 files became 1",
        f"rejects of {today}: 8 files became 1",
        f"ledger steps of {today}: 8 files became 1",
    ]
    assert maintained(lake) == []


def test_sources_are_known_and_grow_after_a_compaction(lake: Path, tmp_path: Path) -> None:
    maintained(lake)
    lines = (tmp_path / "3.log").read_bytes().splitlines()

    added(tmp_path, "3.log", [*lines, json_line(request_id="grown")])

    [grown] = [row for row in requests(lake) if row["request_id"] == "grown"]
    assert grown["line"] == 6
    assert len(requests(lake)) == 33


def test_who_opened_the_lake_before_reads_on_for_the_grace(lake: Path) -> None:
    reading = analysis.connect(lake)
    maintained(lake)

    assert reading.execute("SELECT count(*) FROM requests").fetchall() == [(32,)]
    assert on_disk(lake) == 8 * 8 + 8

    told = maintained(lake, grace_hours=0)

    assert told == ["64 files removed that no snapshot has, 0 of them left by killed runs"]
    assert on_disk(lake) == 8
    assert analysis.connect(lake).execute("SELECT count(*) FROM requests").fetchall() == [(32,)]


def test_what_killed_runs_left_goes_at_once(lake: Path) -> None:
    day = table_path(lake) / "kind=ok" / "day=2026-11-23"
    left = [day / "orphan.parquet", table_path(lake) / "_delta_log" / "00000000000000000009.json#1"]
    left += [lake / "errata.duckdb.123.draft", lake / ".spill" / "rows.tmp"]
    left[-1].parent.mkdir()
    for path in left:
        path.write_bytes(b"half")

    told = maintained(lake)

    assert told[-1] == "1 files removed that no snapshot has, 1 of them left by killed runs"
    assert not any(path.exists() for path in left)


def test_successes_and_errors_have_times_of_their_own(lake: Path) -> None:
    told = maintained(lake, Retention(successes_days=2, errors_days=3))

    assert told[0] == "8 successes before 2026-11-24 removed"
    assert {place for place in files(lake) if place[0] != "source"} == {
        ("ok", "2026-11-24"),
        ("daily", "2026-11-24"),
        ("error", "2026-11-23"),
        ("error", "2026-11-24"),
        ("reject", datetime.now(UTC).date().isoformat()),
    }
    assert len(requests(lake)) == 24


def test_the_law_holds_for_every_source_after_a_retention(lake: Path) -> None:
    maintained(lake, Retention(successes_days=1))

    con = analysis.connect(lake)
    health = con.execute("SELECT lines, requests, rejects, removed, is_conserved FROM ingest_health()").fetchall()
    assert health == [(5, 2, 1, 2, True)] * 8
    assert len(requests(lake)) == 16
    told = con.execute(
        "SELECT decision, requests, errors, removed FROM sources WHERE removed > 0 ORDER BY ALL"
    ).fetchall()
    assert told == [("retention", -2, 0, 2)] * 8


def test_what_was_removed_is_not_ingested_again(lake: Path, tmp_path: Path) -> None:
    maintained(lake, Retention(successes_days=1, errors_days=1))

    given = [Source(f"{number}.log", tmp_path / f"{number}.log") for number in range(8)]
    told = [step.outcome for step in ingest(given, lake, KEY)]

    assert told == ["known"] * 8
    assert requests(lake) == []


def test_rejects_are_kept_as_long_as_errors(lake: Path) -> None:
    later = datetime.now(UTC) + timedelta(days=30)

    with lakes.writing(lake):
        told = list(maintain.maintain(lake, Retention(errors_days=10), later))

    assert f"8 rejects before {(later - timedelta(days=9)).date()} removed" in told
    assert rejects(lake) == []
    assert {step["rejects"] for step in steps(lake)} >= {1, -1}


@pytest.mark.parametrize(
    ("sizes", "is_worth"),
    [
        ([1], False),
        ([1, 1, 1, 1], False),
        ([1, 1, 1, 1, 1], True),
        ([1 << 30, 1, 1, 1, 1, 1], False),
        ([1 << 30, *[1] * 64], True),
        ([1 << 28, *[1 << 24] * 5], True),
        ([1 << 28] * 9, False),
    ],
    ids=["one", "a few", "some", "beside a large one", "many beside a large one", "a tenth of all", "large ones"],
)
def test_a_day_is_rewritten_only_where_that_pays(sizes: list[int], is_worth: bool) -> None:
    assert maintain.is_worth_compacting(sizes) is is_worth


def test_more_rows_than_fit_in_memory_are_kept_beside_the_table_meanwhile(lake: Path) -> None:
    with lakes.spilling(lake) as con:
        con.execute("SET memory_limit = '20MB'; SET threads = 1")
        con.execute(
            "CREATE TEMP TABLE large AS SELECT range AS n, repeat('x', 100) || range AS text FROM range(600000)"
        )
        assert (lake / ".spill").exists()
        assert con.execute("SELECT n FROM large ORDER BY text LIMIT 1").fetchall() == [(0,)]

    assert not (lake / ".spill").exists()


def test_a_compaction_that_fails_leaves_the_lake_as_it_was(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, there = held(lake), on_disk(lake)

    def broken(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ingest.writer.flush", broken)
    with pytest.raises(NotWritten, match="No space left on device"):
        maintained(lake)

    assert (held(lake), on_disk(lake)) == (before, there)


def order(lake: Path, kind: str, day: str) -> list[tuple[str, str]]:
    """Key and request id of the rows of a kind and day as they lie in its files."""
    sql = "SELECT key_id, request_id FROM requests WHERE kind = $kind AND day = $day"
    return analysis.connect(lake).execute(sql, {"kind": kind, "day": day}).fetchall()


def test_a_compacted_day_has_its_errors_in_the_order_of_time_and_its_successes_by_caller(tmp_path: Path) -> None:
    keys = ("key_2", "key_1", "key_2", "key_1")
    lines = [json_line(request_id=f"ok_{n}", key_id=key, msec=SECOND + n) for n, key in enumerate(keys)]
    lines += [error_line("x", 400, key_id=key, msec=SECOND - n) for n, key in enumerate(keys)]
    added(tmp_path, "a.log", lines)

    with lakes.writing(tmp_path / "lake"):
        for kind in ("ok", "error"):
            maintain.compact_day(tmp_path / "lake", kind, date(2026, 11, 23))

    assert order(tmp_path / "lake", "ok", "2026-11-23") == [
        ("key_1", "ok_1"),
        ("key_1", "ok_3"),
        ("key_2", "ok_0"),
        ("key_2", "ok_2"),
    ]
    assert [key for key, _ in order(tmp_path / "lake", "error", "2026-11-23")] == list(reversed(keys))


def test_a_large_day_is_put_in_the_order_of_its_callers_once_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.maintain._SMALL_BYTES", 1)
    monkeypatch.setattr("ingest.writer._ROWS_A_GROUP", 1)
    days = (NOW.timestamp() - DAY_S, NOW.timestamp())
    added(
        tmp_path,
        "a.log",
        [json_line(request_id=f"{n}", key_id=f"key_{n % 3}", msec=day - n) for day in days for n in range(6)],
    )
    before = held(tmp_path / "lake")

    first, second = maintained(tmp_path / "lake"), maintained(tmp_path / "lake")

    assert (first, second) == (["successes of 2026-11-24: 1 files became 1"], [])
    assert [key for key, _ in order(tmp_path / "lake", "ok", "2026-11-24")] == sorted(f"key_{n % 3}" for n in range(6))
    assert held(tmp_path / "lake") == before
