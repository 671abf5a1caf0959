"""What is measured: a lake as an ingest would have made it, with errors of every code."""

from datetime import date
from pathlib import Path

import pytest

import analysis
from analysis.explain import explain
from benchmarks.bench_questions import Asked, all_asked, measure
from benchmarks.generate_lake import generate
from ingest.check import check

_REQUESTS = 24_000
_FIRST_DAY = date(2026, 10, 24)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of two days."""
    made = tmp_path_factory.mktemp("generated") / "lake"
    generate(made, _REQUESTS, _FIRST_DAY, days=2, jobs=1)
    return made


def test_it_is_whole(lake: Path) -> None:
    checked = check(lake, is_deep=True)

    assert (checked.faults, checked.sources) == ([], 2)


def test_it_has_errors_of_every_code_and_a_twentieth_are_errors(lake: Path) -> None:
    with analysis.connect(lake) as con:
        found = con.execute("SELECT list(DISTINCT code ORDER BY code) FROM errors WHERE code IS NOT NULL").fetchall()
        known = con.execute("SELECT list(code ORDER BY code) FROM catalogue").fetchall()
        [(share, count)] = con.execute("SELECT avg(is_error::INT), count(*) FROM requests").fetchall()

    assert found == known
    assert 0.04 < share < 0.06
    assert 0.95 * _REQUESTS < count < 1.05 * _REQUESTS


def test_its_errors_are_chains_of_attempts(lake: Path) -> None:
    sql = "SELECT request_id FROM errors WHERE code = 'rate_limited' ORDER BY ts LIMIT 100"
    with analysis.connect(lake) as con:
        chains = [explain(con, id_).chain for (id_,) in con.execute(sql).fetchall()]

    assert sum(end - first > 1 for first, end in chains) > 50


def test_the_same_arguments_give_the_same_rows(lake: Path, tmp_path: Path) -> None:
    generate(tmp_path / "again", _REQUESTS, _FIRST_DAY, days=2, jobs=2)

    sql = "FROM requests ORDER BY ts, source_id, line"
    with analysis.connect(lake) as first, analysis.connect(tmp_path / "again") as second:
        assert second.sql(sql).to_arrow_table() == first.sql(sql).to_arrow_table()


def test_every_question_is_measured_and_so_is_what_an_id_is_explained_by(lake: Path) -> None:
    asked = list(all_asked(lake))

    assert {one.what for one in asked} == {*analysis.questions(), "explain (error)", "explain (ok)"}
    taken = measure(lake, Asked("errors_by_fault", "all"), runs=1)
    assert (taken.rows, taken.cpu_s > 0, taken.peak_mib > 0) == (3, True, True)
    explained = measure(lake, next(one for one in asked if one.request_id), runs=1)
    assert explained.rows >= 1
