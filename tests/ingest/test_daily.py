"""The counts of successes by day are those of the successes, whatever becomes of these."""

import gzip
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import analysis
from errata import cli
from ingest import lake as lakes
from ingest.check import check
from ingest.forget import forget, of_key, of_org
from ingest.maintain import Retention, maintain
from ingest.run import ingest
from ingest.schema import NotWritten, table_path
from ingest.source import Source
from ingest.writer import Writer
from tests.ingest.logs import KEY, SECOND, combined_line, error_line, json_line, log, requests

DAY_S: Final = 86_400
NOW: Final = datetime(2026, 11, 25, 12, tzinfo=UTC)  # the logs are of the 23rd and 24th
_CELL: Final = ("day", "org_id", "key_id", "key_hash", "client_ip", "method", "route")
_WHERE: Final = {"msec": SECOND + DAY_S, "uri": "/v1/numbers", "method": "GET"}


def added(lake: Path, name: str, data: bytes) -> Any:
    path = lake.parent / name
    path.write_bytes(data)
    [step] = ingest([Source(name, path)], lake, KEY)
    return step


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Two sources in a commit each, of two days, three callers and two routes; and one without keys."""
    lines = [json_line(request_id=f"a{n}", msec=SECOND + n, key_id=f"key_{n % 2}") for n in range(6)]
    added(tmp_path / "lake", "a.log", log([*lines, json_line(request_id="a6", **_WHERE), error_line("x", 400)]))
    lines = [json_line(request_id=f"b{n}", org_id="org_b", **(_WHERE if n else {})) for n in range(4)]
    added(tmp_path / "lake", "b.log", log(lines))
    added(tmp_path / "lake", "c.log", log([combined_line(), combined_line(request="GET /v1/numbers HTTP/1.1")]))
    return tmp_path / "lake"


def counted(lake: Path) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """What the view says, its parts summed up in Python."""
    found: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    with analysis.connect(lake) as con:
        rows = con.sql("FROM daily_successes").to_arrow_table().to_pylist()
    for row in rows:
        assert row["caller"] == (row["key_id"] or row["key_hash"] or row["client_ip"])
        cell = tuple(row[name] for name in _CELL)
        successes, first, last = found.get(cell, (0, row["first_ts"], row["last_ts"]))
        found[cell] = successes + row["successes"], min(first, row["first_ts"]), max(last, row["last_ts"])
    return found


def expected(lake: Path) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """The same, counted in Python from the rows."""
    moments: dict[tuple[Any, ...], list[datetime]] = {}
    for row in requests(lake):
        if row["kind"] == "ok":
            moments.setdefault(tuple(row[name] for name in _CELL), []).append(row["ts"])
    return {cell: (len(of_cell), min(of_cell), max(of_cell)) for cell, of_cell in moments.items()}


def assert_counted(lake: Path, cells: int) -> None:
    assert counted(lake) == expected(lake)
    assert len(expected(lake)) == cells
    with lakes.writing(lake):
        assert [fault for fault in check(lake, is_deep=True).faults if fault.is_damage] == []


def files(lake: Path) -> Counter[str]:
    """How many files of counts each day has."""
    return Counter(str(lakes.day_of(path)) for path in lakes.paths_of(lakes.open_table(lake), "daily"))


def test_each_commit_brings_its_own_counts(lake: Path) -> None:
    assert_counted(lake, cells=7)
    assert files(lake) == {"2026-11-23": 3, "2026-11-24": 2}


def test_what_is_left_out_as_a_duplicate_is_not_counted(lake: Path) -> None:
    tail = [json_line(request_id=f"a{n}", msec=SECOND + n, key_id=f"key_{n % 2}") for n in range(3, 6)]

    step = added(lake, "tail.log", log([*tail, json_line(request_id="new")]))

    assert step.progress.duplicates == 3
    assert_counted(lake, cells=7)


def test_a_source_that_grew_adds_what_is_new(lake: Path) -> None:
    grown = (lake.parent / "c.log").read_bytes() + log([combined_line()])

    assert added(lake, "c.log", grown).progress.requests == 1
    assert_counted(lake, cells=7)


def test_a_copy_adds_nothing(lake: Path) -> None:
    before = counted(lake)

    assert added(lake, "copy.gz", gzip.compress((lake.parent / "a.log").read_bytes())).outcome == "known"
    assert counted(lake) == before


def test_what_a_retention_removes_is_not_counted(lake: Path) -> None:
    with lakes.writing(lake):
        list(maintain(lake, Retention(successes_days=2), NOW))

    assert files(lake) == {"2026-11-24": 2}
    assert_counted(lake, cells=2)


def test_files_that_become_one_have_their_counts_in_one(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.maintain._FEW", 1)
    before = counted(lake)

    with lakes.writing(lake):
        list(maintain(lake, Retention(), NOW))

    assert files(lake) == {"2026-11-23": 1, "2026-11-24": 1}
    assert counted(lake) == before
    assert_counted(lake, cells=7)


@pytest.mark.parametrize(("erasure", "cells"), [(of_org("org_b"), 5), (of_key("key_1"), 3)], ids=["org", "key"])
def test_what_is_erased_is_not_counted(lake: Path, erasure: Any, cells: int) -> None:
    with lakes.writing(lake):
        list(forget(lake, erasure, NOW.date()))

    assert erasure.value not in repr(counted(lake))
    assert_counted(lake, cells)


def test_an_erasure_that_was_stopped_leaves_counts_that_are_right(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, calls = lakes.commit, iter(range(10))

    def stopped(*args: object, **named: object) -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt
        commit(*args, **named)  # type: ignore[arg-type]  # whatever it was given

    monkeypatch.setattr(lakes, "commit", stopped)
    with pytest.raises(KeyboardInterrupt), lakes.writing(lake):
        list(forget(lake, of_org("org_b"), NOW.date()))

    assert_counted(lake, cells=6)


def test_counts_that_cannot_be_written_leave_the_lake_as_it_was(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, there = counted(lake), {*table_path(lake).rglob("*.parquet")}

    def broken(*_: object) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lakes, "counts_of", broken)
        with pytest.raises(NotWritten, match="No space left on device"):
            added(lake, "d.log", log([json_line(request_id="new")]))

    assert (counted(lake), {*table_path(lake).rglob("*.parquet")}) == (before, there)


def miscounted(lake: Path, **change: Any) -> None:
    """One file of counts has other values than it had in its first row; `successes` are added to what was counted."""
    path = lakes.paths_of(lakes.open_table(lake), "daily", ["2026-11-24"])[0]
    rows = pq.ParquetFile(path).read().to_pylist()
    schema = pq.ParquetFile(path).schema_arrow
    writer = Writer(table_path(lake), lakes.day_of(path))
    change["successes"] = change.get("successes", 0) + rows[0]["successes"]
    changed = pa.Table.from_pylist([rows[0] | change, *rows[1:]], schema)
    writer.add_again("daily", lakes.day_of(path), changed)
    others = [lakes.rows_of(other) for other in lakes.paths_of(lakes.open_table(lake), "daily", ["2026-11-24"])[1:]]
    for other in others:
        writer.add_again("daily", lakes.day_of(path), other)
    lakes.commit(lake, writer.close(), replaced=lakes.partitions("daily", [lakes.day_of(path)]))


@pytest.mark.parametrize(
    ("change", "options", "told"),
    [
        ({"successes": 6}, [], "10 are counted, and there are 4"),
        ({"key_id": "key_9"}, ["--deep"], "are counted for other callers, routes or moments"),
        ({"first_ts": NOW}, ["--deep"], "are counted for other callers, routes or moments"),
    ],
    ids=["count", "caller", "moment"],
)
def test_counts_that_are_wrong_are_found_and_counted_again(
    lake: Path, change: dict[str, object], options: list[str], told: str
) -> None:
    miscounted(lake, **change)

    found = CliRunner().invoke(cli, ["check", *options, "--lake", str(lake)])
    assert (found.exit_code, found.stdout) == (3, f"damaged: {lake}: successes of 2026-11-24: {told}.\n")
    mended = CliRunner().invoke(cli, ["check", "--repair", *options, "--lake", str(lake)])

    assert (mended.exit_code, mended.stdout) == (0, "")
    assert "successes of 2026-11-24: counted again\n" in mended.stderr
    assert_counted(lake, cells=7)


@pytest.mark.parametrize("kind", ["ok", "daily"])
def test_counts_fit_again_after_a_file_was_lost(lake: Path, kind: str) -> None:
    lakes.paths_of(lakes.open_table(lake), kind, ["2026-11-23"])[0].unlink()

    mended = CliRunner().invoke(cli, ["check", "--repair", "--lake", str(lake)])

    assert "successes of 2026-11-23: counted again\n" in mended.stderr
    assert counted(lake) == expected(lake)
    assert CliRunner().invoke(cli, ["check", "--deep", "--lake", str(lake)]).exit_code == 0
