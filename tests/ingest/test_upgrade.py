"""A lake that an earlier version of errata wrote is read as it is, and goes on when something is ingested into it.

The lakes in `fixtures/lake-version-1` and `-2` were written by those versions, from the two logs beside the first.
"""

import shutil
from pathlib import Path
from typing import Final

import pytest

import analysis
from ingest import lake as lakes
from ingest.check import check
from ingest.fingerprint import secret_id
from ingest.run import ingest
from ingest.schema import SCHEMA_VERSION, LakeDamaged, table_path
from ingest.source import Source
from ingest.upgrade import upgrade
from tests.ingest.logs import KEY, json_line, rejects, requests, steps

FIXTURES: Final = Path(__file__).with_name("fixtures")
FIRST: Final = FIXTURES / "lake-version-1"
LOGS: Final = ("a.log", "b.log")
SECRET_ID: Final = secret_id(KEY)


@pytest.fixture(params=[1, 2])
def written_by(request: pytest.FixtureRequest) -> int:
    """The version of the lake."""
    return int(request.param)


@pytest.fixture
def lake(tmp_path: Path, written_by: int) -> Path:
    """A copy of the lake of that version."""
    shutil.copytree(FIXTURES / f"lake-version-{written_by}" / "table", table_path(tmp_path / "lake"))
    return tmp_path / "lake"


def added(lake: Path, *logs: Path) -> list[tuple[str, str]]:
    return [(step.name, step.outcome) for step in ingest([Source(log.name, log) for log in logs], lake, KEY)]


def version(lake: Path) -> int:
    return lakes.version_of(lakes.open_table(lake), table_path(lake))


def test_it_is_read_as_it_is(lake: Path, written_by: int) -> None:
    con = analysis.connect(lake)

    assert con.execute(
        "SELECT count(*), count(*) FILTER (is_error), count(recipient_hash) FROM requests"
    ).fetchall() == [(8, 1, 0)]
    assert con.execute("SELECT line, reason, code FROM rejects").fetchall() == [(5, "not_json", None)]
    assert (
        con.execute("SELECT name, lines, to_line, duplicates, removed, secret_id FROM sources ORDER BY name").fetchall()
        == {
            1: [("a.log", 7, None, 0, 0, None), ("b.log", 3, None, 0, 0, None)],
            2: [("a.log", 7, 8, 0, 0, SECRET_ID), ("b.log", 3, 4, 0, 0, SECRET_ID)],
        }[written_by]
    )
    assert con.execute("SELECT name, is_conserved FROM ingest_health() ORDER BY name").fetchall() == [
        ("a.log", True),
        ("b.log", True),
    ]
    assert version(lake) == written_by


def test_its_sources_are_known_and_grow_where_they_stopped(lake: Path, tmp_path: Path) -> None:
    before = requests(lake)
    last = (FIRST / "a.log").read_bytes().splitlines()[-1]
    (tmp_path / "a.log").write_bytes((FIRST / "a.log").read_bytes() + last.replace(b"a_4", b"a_5") + b"\n")

    assert added(lake, tmp_path / "a.log", FIRST / "b.log") == [("b.log", "known"), ("a.log", "added")]

    assert version(lake) == SCHEMA_VERSION
    assert [row for row in requests(lake) if row["request_id"] != "a_5"] == [
        row | {"recipient_hash": None} for row in before
    ]
    [grown] = [row for row in requests(lake) if row["request_id"] == "a_5"]
    assert grown["line"] == 8
    assert [(step["first_line"], step["to_line"], step["duplicates"], step["removed"]) for step in steps(lake)] == [
        (1, 8, 0, 0),
        (8, 9, 0, 0),
        (1, 4, 0, 0),
    ]


def test_a_lake_whose_upgrade_was_cut_short_is_upgraded_by_the_next_run(
    lake: Path, written_by: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ingest.upgrade.set_version", killed)
        with pytest.raises(KeyboardInterrupt):
            upgrade(lake)
    between = analysis.connect(lake)

    assert version(lake) == written_by
    assert between.execute("SELECT count(*) FROM requests").fetchall() == [(8,)]
    assert between.execute("SELECT count(*) FROM rejects").fetchall() == [(1,)]
    assert between.execute("SELECT sum(lines), sum(duplicates) FROM sources").fetchall() == [(10, 0)]
    assert added(lake, *(FIRST / name for name in LOGS)) == [("a.log", "known"), ("b.log", "known")]
    assert version(lake) == SCHEMA_VERSION
    assert (len(requests(lake)), len(rejects(lake)), len(steps(lake))) == (8, 1, 2)


def test_a_request_of_it_is_known_again_when_its_log_is_joined_with_another(lake: Path, tmp_path: Path) -> None:
    (tmp_path / "joined.log").write_bytes(
        b"".join((FIRST / name).read_bytes() for name in reversed(LOGS)) + json_line(request_id="new") + b"\n"
    )

    added(lake, tmp_path / "joined.log")

    assert len(requests(lake)) == 9


def test_an_upgrade_that_meets_a_damaged_file_says_so_and_leaves_nothing_behind(lake: Path) -> None:
    [errors] = table_path(lake).glob("kind=error/*/*.parquet")
    errors.write_bytes(errors.read_bytes()[:-20])
    before = sorted(table_path(lake).rglob("*"))

    with pytest.raises(LakeDamaged, match=errors.name):
        upgrade(lake)

    assert sorted(table_path(lake).rglob("*")) == before


def test_its_successes_are_counted_when_it_is_read_and_once_for_all_by_the_next_run(lake: Path) -> None:
    sql = "SELECT * EXCLUDE (kind) FROM daily_successes ORDER BY ALL"
    before = analysis.connect(lake).sql(sql).to_arrow_table().to_pylist()

    upgrade(lake)

    assert lakes.paths_of(lakes.open_table(lake), "daily")
    assert analysis.connect(lake).sql(sql).to_arrow_table().to_pylist() == before
    assert sum(row["successes"] for row in before) == 7
    with lakes.writing(lake):
        assert [fault for fault in check(lake, is_deep=True).faults if fault.is_damage] == []
