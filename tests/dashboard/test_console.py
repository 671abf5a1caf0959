"""The page for SQL of one's own, without a browser: what it runs, what it says, and what stands in the address."""

from pathlib import Path
from typing import Final

import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

import analysis
from analysis.console import EXAMPLES, Example, Part, relations
from analysis.lake import VIEWS
from analysis.question import judge_of
from analysis.sandbox import Limits, run_query
from dashboard.table import file_bytes
from tests.analysis.queries.event_lake import ok
from tests.dashboard.conftest import write

APP: Final = Path(__file__).parents[2] / "dashboard" / "app.py"
NOT_RUN: Final = "This query has not been run. Read it, then press Run."


def console(lake: Path, monkeypatch: pytest.MonkeyPatch, **address: str) -> AppTest:
    """The page, with the parameters `address`, drawn once."""
    monkeypatch.setenv("ERRATA_LAKE", str(lake))
    app = AppTest.from_function(_page, default_timeout=120)
    app.query_params.update(address)
    return app.run()


def _page() -> None:
    """What AppTest runs: the page alone, since AppTest knows no address of a page."""
    from dashboard import console_page
    from dashboard.scope import Scope
    from dashboard.snapshot import open_snapshot
    from dashboard.view import View

    class Links(View):
        def link(self, page: str, label: str, **options: object) -> None:
            """AppTest draws no links to pages."""

    console_page.show(Links(open_snapshot(None), Scope(None, None, "UTC", {}, None), {}))


def run(app: AppTest, sql: str) -> AppTest:
    app.text_area(key="console-sql").set_value(sql)
    return app.button(key="console-run").click().run()


def captions(app: AppTest) -> list[str]:
    return [caption.value for caption in app.caption]


def test_an_address_fills_the_field_and_runs_nothing(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = console(filled, monkeypatch, sql="SELECT count(*) AS n FROM errors")

    assert app.text_area(key="console-sql").value == "SELECT count(*) AS n FROM errors"
    assert NOT_RUN in captions(app)
    assert "1 row" not in " ".join(text.value for text in app.text)


def test_what_is_run_is_answered_and_stands_in_the_address(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = run(console(filled, monkeypatch, tz="Asia/Tokyo"), " SELECT count(*) AS n FROM errors ")

    assert app.dataframe[0].value.to_dict("list") == {"n": [144]}
    assert app.query_params == {"tz": "Asia/Tokyo", "sql": "SELECT count(*) AS n FROM errors"}
    assert NOT_RUN not in captions(app)


def test_the_answer_stays_until_another_query_is_in_the_address(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = run(console(filled, monkeypatch), "SELECT 7 AS n")
    assert app.run().dataframe[0].value.to_dict("list") == {"n": [7]}

    app.query_params["sql"] = "SELECT 8 AS n"
    app.run()

    assert app.text_area(key="console-sql").value == "SELECT 8 AS n"
    assert NOT_RUN in captions(app)
    assert [list(table.value) for table in app.dataframe] == [["name", "type", "meaning"]]


def test_a_query_too_long_for_an_address_is_run_all_the_same(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sql = f"SELECT length('{'x' * 5000}') AS n"

    app = run(console(filled, monkeypatch, sql="SELECT 1"), sql)

    assert app.dataframe[0].value.to_dict("list") == {"n": [5000]}
    assert app.query_params == {}
    assert app.run().text_area(key="console-sql").value == sql


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        pytest.param("", "there is no SQL to run", id="nothing"),
        pytest.param("SELECT cod FROM errors", 'Referenced column "cod" not found in FROM clause!', id="a slip"),
        pytest.param("COPY errors TO '/tmp/out'", "only a query can be run", id="no query"),
        pytest.param("SELECT repeat('x', 1000000) FROM range(100)", "the limit of 32 MB", id="too large"),
    ],
)
def test_why_there_is_no_answer_is_told_in_one_message(
    sql: str, said: str, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = run(console(filled, monkeypatch), sql)

    [message] = [error.value for error in app.error]
    assert message.startswith("This cannot be answered as it is asked.  \n`")
    assert said in message
    assert app.exception.len == 0


def test_rows_beyond_the_limit_are_told(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = run(console(filled, monkeypatch), "FROM range(10001)")

    [warning] = [warning.value for warning in app.warning]
    assert warning == "There are more rows than the limit.  \n` Only the first 10,000 are here. `"
    assert len(app.dataframe[0].value) == 10_000


def test_a_name_that_is_given_twice_becomes_two_names(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = run(console(filled, monkeypatch), "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a")

    assert app.dataframe[0].value.to_dict("list") == {"a": [1], "a_1": [2], "a_1_1": [3], "a_2": [4]}


def test_a_damaged_lake_is_told_in_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = console(write(tmp_path / "lake", [ok(0)]), monkeypatch)
    next((tmp_path / "lake").rglob("*.parquet")).unlink()

    app = run(app, "FROM requests")

    assert [message.value.split("  \n")[0] for message in app.error] == ["The lake is damaged."]


# -- what there is to ask


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_is_told_with_its_columns(filled: Path, name: str) -> None:
    [told] = [relation for relation in relations() if relation.name == name]
    con = analysis.connect(filled)
    view = con.sql(f"FROM {name}")

    assert [part.name for part in told.columns] == view.columns
    assert con.sql(f"SELECT {', '.join(f'NULL::{part.type}' for part in told.columns)}").types == view.types


def test_every_question_is_told_with_its_parameters_and_columns(filled: Path) -> None:
    con = analysis.connect(filled)
    questions = [relation for relation in relations() if relation.name not in VIEWS]

    assert {question.name: [part.name for part in question.columns] for question in questions} == {
        name: con.sql(f"FROM {name}()").columns for name in analysis.questions()
    }
    for question in questions:
        arguments = ", ".join(f"{part.name} := {part.type}" for part in question.parameters)
        assert con.sql(f"FROM {question.name}({arguments})").columns == [part.name for part in question.columns]


def test_a_question_with_a_judge_is_told_with_the_columns_of_its_evidence() -> None:
    [told] = [relation for relation in relations() if relation.name == "affected_customers"]
    parts = {part.name: part for part in told.columns}

    assert "note" not in parts
    assert parts["errors"] == Part("errors", "BIGINT", "those of them that failed and that the filters keep")
    assert told.note == (
        "In SQL this is the evidence, a column without a meaning too. The answer judged from it is that of "
        "`errata ask affected_customers`, and of the page Affected customers."
    )


def test_only_questions_with_a_judge_have_a_note() -> None:
    noted = {relation.name for relation in relations() if relation.note}

    assert noted == {name for name in analysis.questions() if judge_of(name) is not None}


def test_the_page_says_where_the_judged_answer_is(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = console(filled, monkeypatch)
    [note] = [relation.note for relation in relations() if relation.name == "affected_customers"]
    assert note not in captions(app)

    app.selectbox[0].select("affected_customers(...)").run()

    assert note in captions(app)


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.asks for example in EXAMPLES])
def test_every_example_has_an_answer(filled: Path, example: Example) -> None:
    answer = run_query(filled, example.sql, limits=Limits(time_s=120))

    assert answer.rows.num_rows > 0


def test_what_is_taken_away_is_the_whole_answer(filled: Path) -> None:
    rows: pa.Table = run_query(filled, "SELECT '=1+1' AS f, INTERVAL 1 DAY AS i", limits=Limits(time_s=120)).rows

    assert file_bytes(rows, "csv").decode() == "f,i\n'=1+1,0 months 1 days 0 s\n"
