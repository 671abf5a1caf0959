"""What holds for every question: its header is true and an empty lake is no accident."""

import pytest

import analysis
from tests.analysis.queries.event_lake import lake, random_events, rows

NAMES = list(analysis.questions())


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
