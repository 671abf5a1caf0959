"""The answers about the sample logs: those that were looked at, and their counts those of the truth beside the logs."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final

import duckdb
import pytest

import analysis
from tests.analysis.queries.event_lake import rows
from tests.analysis.queries.golden import answer_text, golden_path, golden_text

SAMPLES: Final = Path(__file__).parents[3] / "sample_logs"
DAYS: Final = {"until": "2026-11-18"}
CAPTURE: Final = {"since": "2026-11-23"}


def truth(name: str) -> Any:
    return json.loads((SAMPLES / name).read_text("utf-8"))


def errors_by_code(con: duckdb.DuckDBPyConnection, **parameters: object) -> dict[str, int]:
    """Errors by code; those without a code together under "null"."""
    found: Counter[str] = Counter()
    for row in rows(con, "errors_by_code", **parameters):
        found[row["code"] or "null"] += row["errors"]
    return dict(found)


@pytest.mark.parametrize("name", analysis.questions())
def test_an_answer_about_the_sample_logs_is_that_of_its_golden_file(
    samples: duckdb.DuckDBPyConnection, name: str
) -> None:
    golden = golden_text(name)

    assert answer_text(samples, name).splitlines() == golden.splitlines()


def test_every_golden_file_is_that_of_a_question() -> None:
    assert {path.stem for path in golden_path("any").parent.glob("*.csv")} <= set(analysis.questions())


def test_a_golden_file_says_how_many_rows_it_leaves_out() -> None:
    lines = golden_text("error_trend").splitlines()

    assert (len(lines), lines[-1]) == (62, "60 of 2000 rows")


def test_a_missing_golden_file_is_told_with_the_command_that_makes_it() -> None:
    told = (
        "tests/analysis/queries/golden/brand_new.csv: there is no golden file; run: python -m tests.analysis.queries."
    )

    with pytest.raises(pytest.fail.Exception, match=re.escape(told)):
        golden_text("brand_new")


def test_the_errors_of_the_days_have_the_codes_of_their_truth(samples: duckdb.DuckDBPyConnection) -> None:
    told = truth("multi-day/truth.json")["by_code"]

    assert errors_by_code(samples, **DAYS) == {code: counted["errors"] for code, counted in told.items()}


@pytest.mark.parametrize(
    ("question", "column", "name"), [("errors_by_org", "org_id", "by_org"), ("errors_by_key", "key", "by_key")]
)
def test_the_errors_and_requests_of_the_days_are_those_of_their_truth(
    samples: duckdb.DuckDBPyConnection, question: str, column: str, name: str
) -> None:
    told = truth("multi-day/truth.json")[name]

    found = {row[column] or "null": (row["errors"], row["requests"]) for row in rows(samples, question, **DAYS)}

    assert found == {
        name: (counted["errors"], counted["requests"]) for name, counted in told.items() if counted["errors"]
    }


def test_the_trend_of_the_days_is_that_of_their_truth(samples: duckdb.DuckDBPyConnection) -> None:
    told = truth("multi-day/truth.json")["by_day"]

    trend = rows(samples, "error_trend", bucket="day", **DAYS)

    assert {
        (f"{row['bucket_start']:%Y-%m-%d}", row["code"]): (row["errors"], row["requests"])
        for row in trend
        if row["code"] and row["errors"]
    } == {
        (day, code): (errors, counted["requests"])
        for day, counted in told.items()
        for code, errors in counted["codes"].items()
    }


def test_the_errors_of_the_capture_have_the_codes_of_its_truth(samples: duckdb.DuckDBPyConnection) -> None:
    by_code = errors_by_code(samples, **CAPTURE)

    without_envelope = by_code.pop("null")
    assert by_code == truth("capture/summary.json")["by_code"]
    assert without_envelope == 18  # hung up 8, gateway timeout 5, bad request 3, bad gateway 1, URI too long 1
