"""What holds for every question: its header is true and an empty lake is no accident."""

import random

import pytest

import analysis
from analysis.lake import DEFAULT_CATALOGUE, read_catalogue
from tests.analysis.queries.event_lake import lake, random_events, rows

NAMES = list(analysis.questions())
CODES = [entry["code"] for entry in read_catalogue(DEFAULT_CATALOGUE).to_pylist()]
# Random events are no incident.
MAY_FIND_NOTHING = {"platform_incidents", "retry_storms", "what_changed"}


@pytest.mark.parametrize("name", NAMES)
def test_the_header_names_the_columns_of_the_answer(name: str) -> None:
    described = [column.name for column in analysis.questions()[name].columns]

    assert analysis.answer(lake(random_events(seed=1)), name).columns == described


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_lake_gives_an_empty_answer(name: str) -> None:
    assert rows(lake(), name) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_same_question_gives_the_same_rows_in_the_same_order(name: str) -> None:
    events = random_events(seed=2)

    assert rows(lake(events), name) == rows(lake(reversed(events)), name)


@pytest.mark.parametrize("name", NAMES)
def test_no_number_that_a_log_may_hold_is_too_large(name: str) -> None:
    chance = random.Random(3)
    events = [
        event
        | {"latency_ms": chance.choice([0.0, 1e30, 1e300]), "retry_after_s": chance.choice([0.0, 1e18, 1e300])}
        | ({"code": chance.choice(CODES)} if event["kind"] == "error" else {})
        for event in random_events(seed=3, count=2000)
    ]

    assert len(rows(lake(events), name)) >= (name not in MAY_FIND_NOTHING)
