"""The question files and how they are asked: the form of every file, and what a wrong question or value is told."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import pytest

import analysis
import analysis.judges
from analysis.cli import ask
from analysis.lake import VIEWS
from analysis.question import FOLDER, Chart, Parameter, Question, ResultColumn, call, read_question
from ingest.schema import BadInput
from tests.analysis.conftest import NINE, WriteLake

NAMES: Final = sorted(path.stem for path in FOLDER.glob("*.sql"))
TIMED: Final = [name for name in NAMES if "since" in {p.name for p in analysis.questions()[name].parameters}]
EVERY_FILE: Final = sorted(FOLDER.rglob("*.sql"))

WELL_FORMED: Final = """\
-- title: Slow callers
-- asks: Who is slow,
--   and how slow?
-- chart: line(caller, latency, org)
-- param since: first moment
-- param pattern: who counts; ')' does not
-- param slower_than: milliseconds
-- columns:
--   caller: who
--   latency: how slow,
--     in ms
-- A comment of the SQL? No: the header ends at the first line of SQL.
"""
MACRO: Final = """\
CREATE OR REPLACE MACRO slow_callers(
    since := NULL, -- a comment (with a parenthesis
    pattern := concat('a,b', ')'), slower_than := 20
) AS TABLE
SELECT caller, latency FROM requests ORDER BY ALL;
"""


@pytest.fixture
def empty(write_lake: WriteLake) -> duckdb.DuckDBPyConnection:
    return analysis.connect(write_lake())


# -- every file


def test_there_are_questions_and_they_are_in_name_order() -> None:
    assert list(analysis.questions()) == NAMES
    assert len(NAMES) > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_header_says_everything_that_a_reader_needs(name: str) -> None:
    question = analysis.questions()[name]

    assert question.title
    assert question.asks.endswith("?")
    assert [parameter.name for parameter in question.parameters if not parameter.meaning] == []
    assert [column.name for column in question.columns if not column.meaning] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_documented_columns_are_those_of_the_result(empty: duckdb.DuckDBPyConnection, name: str) -> None:
    documented = [column.name for column in analysis.questions()[name].columns]

    assert analysis.answer(empty, name).columns == documented


@pytest.mark.parametrize("name", NAMES)
def test_the_chart_is_drawn_from_columns_of_the_result(name: str) -> None:
    question = analysis.questions()[name]
    chart = question.chart
    drawn = {chart.x, chart.y, chart.series} - {None} if chart else set()

    assert drawn <= {column.name for column in question.columns}


@pytest.mark.parametrize("name", NAMES)
def test_the_documented_parameters_are_those_of_the_macro(empty: duckdb.DuckDBPyConnection, name: str) -> None:
    macro = empty.execute("SELECT parameters FROM duckdb_functions() WHERE function_name = ?", [name]).fetchall()

    assert macro == [([parameter.name for parameter in analysis.questions()[name].parameters],)]


@pytest.mark.parametrize("name", NAMES)
def test_no_parameter_is_named_like_a_column(empty: duckdb.DuckDBPyConnection, name: str) -> None:
    """A column wins over a parameter of the same name without a word, so that the filter is always true."""
    columns = {column for view in VIEWS for column in empty.sql(f"FROM {view}").columns}

    assert {parameter.name for parameter in analysis.questions()[name].parameters} & columns == set()


@pytest.mark.parametrize("name", NAMES)
def test_no_parameter_hides_an_option_of_the_command(name: str) -> None:
    options = {"lake", "catalog", "output", "out", "limit", "show_sql", "help"}

    assert {parameter.name for parameter in analysis.questions()[name].parameters} & options == set()


@pytest.mark.parametrize("name", NAMES)
def test_no_default_freezes_the_moment_of_installation(name: str) -> None:
    relative = re.compile(r"\b(current_\w+|now|today|get_current_\w+)\b", re.IGNORECASE)

    assert [p.name for p in analysis.questions()[name].parameters if relative.search(p.default)] == []


@pytest.mark.parametrize("name", TIMED)
def test_a_range_of_time_reads_only_the_days_in_it(write_lake: WriteLake, name: str) -> None:
    lake = write_lake(
        [{"ts": NINE.replace(day=day), "status": 429, "code": "rate_limited"} for day in range(2, 12)],
        sources=[{"first_ts": NINE, "last_ts": NINE.replace(day=11)}],
    )
    question = analysis.questions()[name]
    bounds = {"since": datetime(2026, 11, 8), "until": datetime(2026, 11, 9)}
    given = {p.name: bounds[p.name] for p in question.parameters if p.name in bounds}

    plan = analysis.connect(lake).execute(f"EXPLAIN ANALYZE {call(question, given)}").fetchall()[0][1]

    scanned = [int(files) for files in re.findall(r"Scanning Files: (\d+)/10\b", plan)]
    assert 0 < max(scanned) < 10, plan


@pytest.mark.parametrize("name", NAMES)
def test_the_rows_have_an_order_and_the_file_names_its_columns(name: str) -> None:
    sql = re.sub(r"--.*", "", analysis.questions()[name].sql)

    last_select = sql.rpartition("\nSELECT\n")[2]
    assert re.search(r"^ORDER BY\b", last_select, re.MULTILINE), "expected the outermost SELECT to end in ORDER BY"
    assert re.search(r"\bSELECT\s+\*", sql) is None


@pytest.mark.parametrize("path", EVERY_FILE, ids=lambda path: path.stem)
def test_a_file_reads_views_alone(path: Path) -> None:
    assert re.search(r"read_(parquet|csv|json|text)|\.parquet'", path.read_text()) is None


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_lake_is_no_error(empty: duckdb.DuckDBPyConnection, name: str) -> None:
    given = {p.name for p in analysis.questions()[name].parameters} & {"since", "until"}

    assert analysis.answer(empty, name, **dict.fromkeys(given, "2026-11-01")).fetchall() is not None


@pytest.mark.parametrize("name", NAMES)
def test_every_question_is_a_command_with_help(name: str) -> None:
    from click.testing import CliRunner

    result = CliRunner().invoke(ask, [name, "--help"])

    assert (result.exit_code, result.stderr) == (0, "")
    question = analysis.questions()[name]
    assert [c.name for c in question.columns if f"    {c.name}: {c.meaning}\n" not in result.output] == []
    assert result.output.rstrip().splitlines()[-2:-1] == ["  Example:"]


# -- how a file is read


def test_a_file_is_read_with_its_continued_lines_and_defaults(tmp_path: Path) -> None:
    path = tmp_path / "slow_callers.sql"
    path.write_text(WELL_FORMED.rsplit("\n", 2)[0] + "\n" + MACRO)

    assert read_question(path) == Question(
        name="slow_callers",
        title="Slow callers",
        asks="Who is slow, and how slow?",
        chart=Chart("line", "caller", "latency", "org"),
        parameters=(
            Parameter("since", "NULL", "first moment"),
            Parameter("pattern", "concat('a,b', ')')", "who counts; ')' does not"),
            Parameter("slower_than", "20", "milliseconds"),
        ),
        columns=(ResultColumn("caller", "who"), ResultColumn("latency", "how slow, in ms")),
        sql=path.read_text(),
    )


HEADER: Final = "-- title: T\n-- asks: A?\n-- chart: none\n-- columns:\n--   a: b\n"
BODY: Final = "CREATE OR REPLACE MACRO broken() AS TABLE SELECT 1 AS a ORDER BY a;\n"
MALFORMED = [
    pytest.param(f"-- titel: T\n{BODY}", ":1: expected title, asks, codes, chart", id="unknown key"),
    pytest.param(f"-- title: T\nsome SQL\n{BODY}", ":1: the header has no asks", id="no asks"),
    pytest.param(f"-- title: T\n-- title: U\n{BODY}", ":2: title is there twice", id="twice"),
    pytest.param(f"{HEADER}--   a: c\n{BODY}", ":6: a is there twice", id="column twice"),
    pytest.param(HEADER.replace("none", "pie(a, b)") + BODY, ":1: chart is 'pie(a, b)'", id="unknown chart"),
    pytest.param(HEADER.replace("none", "bar(a, b, c)") + BODY, ":1: chart is 'bar(a, b, c)'", id="chart too wide"),
    pytest.param(HEADER, ":1: expected one CREATE OR REPLACE MACRO NAME(...), found 0", id="no macro"),
    pytest.param(HEADER + BODY + BODY, ":1: expected one CREATE OR REPLACE MACRO NAME(...), found 2", id="two macros"),
    pytest.param(HEADER + BODY.replace("broken", "other"), ":6: expected a macro named broken, found other", id="name"),
    pytest.param(
        HEADER + BODY.replace("()", "(since := 1)"), ":6: the macro has parameters ['since']", id="undescribed"
    ),
    pytest.param(HEADER + BODY.replace("()", "(since)"), ":6: the parameter 'since' has no default", id="no default"),
]


@pytest.mark.parametrize(("text", "verdict"), MALFORMED)
def test_a_malformed_file_is_named_with_its_line(tmp_path: Path, text: str, verdict: str) -> None:
    path = tmp_path / "broken.sql"
    path.write_text(text)

    with pytest.raises(ValueError, match=re.escape(f"{path}{verdict}")):
        read_question(path)


def test_a_macro_is_created_after_those_that_it_calls(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "z_last.sql").write_text("CREATE OR REPLACE MACRO doubled(x) AS x + x;")
    (tmp_path / "shared" / "a_first.sql").write_text("CREATE OR REPLACE MACRO fourfold(x) AS doubled(doubled(x));")
    (tmp_path / "again.sql").write_text("CREATE OR REPLACE MACRO again() AS TABLE SELECT y FROM eight();")
    (tmp_path / "eight.sql").write_text("CREATE OR REPLACE MACRO eight() AS TABLE SELECT fourfold(2) AS y;")
    con = duckdb.connect()

    analysis.install(con, tmp_path)

    assert con.execute("FROM again()").fetchall() == [(8,)]


# -- how a question is asked


@pytest.mark.parametrize(
    ("default", "name", "sql_type"),
    [
        ("NULL", "since", "TIMESTAMP"),
        ("NULL", "until", "TIMESTAMP"),
        ("NULL", "for_org", "VARCHAR"),
        ("'UTC'", "tz", "VARCHAR"),
        ("20", "min_events", "BIGINT"),
        ("-1", "min_events", "BIGINT"),
        ("0.25", "tolerance", "DOUBLE"),
        ("false", "only_new", "BOOLEAN"),
        ("INTERVAL 5 MINUTE", "quiet", "INTERVAL"),
    ],
)
def test_a_parameter_has_the_type_of_its_default(default: str, name: str, sql_type: str) -> None:
    assert Parameter(name, default, "").sql_type == sql_type


@pytest.mark.parametrize(
    "since",
    [
        pytest.param(datetime(2026, 11, 3, 9), id="naive"),
        pytest.param(datetime(2026, 11, 3, 9, tzinfo=UTC), id="aware"),
        pytest.param("2026-11-03T10:00+01:00", id="text with offset"),
        pytest.param(date(2026, 11, 3), id="date"),
        pytest.param("2026-11-03", id="text"),
    ],
)
def test_since_is_a_moment_in_utc_and_inclusive(write_lake: WriteLake, since: object) -> None:
    con = analysis.connect(write_lake([{"ts": NINE.replace(day=day), "status": 500} for day in (2, 3, 4)]))

    assert analysis.answer(con, "errors_by_code", since=since).project("errors").fetchall() == [(2,)]


def test_none_keeps_the_default(write_lake: WriteLake) -> None:
    con = analysis.connect(write_lake([{"status": 500}]))

    assert analysis.answer(con, "errors_by_code", since=None, for_org=None).project("errors").fetchall() == [(1,)]


def test_a_value_is_bound_and_never_spliced(write_lake: WriteLake) -> None:
    con = analysis.connect(write_lake([{"status": 500, "org_id": "o'; DROP TABLE catalogue; --"}, {"status": 500}]))

    answer = analysis.answer(con, "errors_by_code", for_org="o'; DROP TABLE catalogue; --")

    assert answer.project("errors").fetchall() == [(1,)]
    assert con.execute("SELECT count(*) FROM catalogue").fetchall() == [(14,)]


def test_the_text_of_a_call_can_be_run_as_it_is(write_lake: WriteLake) -> None:
    con = analysis.connect(write_lake([{"status": 500, "org_id": "o'neil"}, {"status": 500}]))
    parameters = {"since": datetime(2026, 11, 1), "for_org": "o'neil"}

    text = call(analysis.questions()["errors_by_code"], parameters)

    assert text == "FROM errors_by_code(since := '2026-11-01 00:00:00'::TIMESTAMP, for_org := 'o''neil'::VARCHAR)"
    assert con.sql(text).to_arrow_table() == analysis.answer(con, "errors_by_code", **parameters).to_arrow_table()


WRONG = [
    pytest.param("eror_trend", {}, "there is no question 'eror_trend'; did you mean error_trend", id="question"),
    pytest.param("errors_by_code", {"sinse": "today"}, "no parameter 'sinse'; did you mean since?", id="parameter"),
    pytest.param("errors_by_code", {"zzz": 1}, "no parameter 'zzz'; there are: since, until", id="nothing close"),
    pytest.param("errors_by_code", {"since": "soon"}, "since has value 'soon'; expected a date or time", id="moment"),
    pytest.param("error_trend", {"bucket": "week"}, "error_trend: bucket: expected minute, hour or day", id="refused"),
    pytest.param(
        "error_trend", {"bucket": "day", "tz": "Mars/Base"}, "error_trend: Unknown TimeZone 'Mars/Base'!", id="zone"
    ),
]


@pytest.mark.parametrize(("name", "parameters", "verdict"), WRONG)
def test_a_wrong_question_or_value_is_told_in_one_line(
    write_lake: WriteLake, name: str, parameters: dict[str, object], verdict: str
) -> None:
    con = analysis.connect(write_lake([{"status": 500}], sources=[{"first_ts": NINE, "last_ts": NINE}]))

    with pytest.raises(BadInput, match=re.escape(verdict)) as raised:
        analysis.answer(con, name, **parameters)

    assert "\n" not in str(raised.value)


def test_the_codes_of_a_question_are_those_of_its_header(tmp_path: Path) -> None:
    path = tmp_path / "broken.sql"
    path.write_text(f"-- codes: not_found, opted_out\n{HEADER}{BODY}")

    assert read_question(path).codes == ("not_found", "opted_out")


@pytest.mark.parametrize(
    ("default", "value"),
    [("NULL", None), ("20", 20), ("0.05", 0.05), ("TRUE", True), ("'it''s'", "it's")],
)
def test_a_default_is_known_as_a_value(default: str, value: object) -> None:
    assert Parameter("p", default, "").default_value == value


def test_a_judge_sees_the_rows_of_the_macro_and_every_parameter(
    empty: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(evidence: pa.Table, parameters: Mapping[str, object]) -> pa.Table:
        assert evidence.column_names == [column.name for column in analysis.questions()["errors_by_org"].columns]
        return pa.table({name: [str(value)] for name, value in parameters.items()})

    monkeypatch.setattr("analysis.question.judge_of", lambda _name: judge)
    answer = analysis.answer(empty, "errors_by_org", for_org="org_a").to_arrow_table().to_pylist()

    assert [(row["for_org"], row["since"]) for row in answer] == [("org_a", "None")]


def test_every_judge_has_a_question() -> None:
    judges = {path.stem for path in Path(analysis.judges.__file__).parent.glob("*.py")} - {"__init__"}

    assert judges <= set(NAMES)
