"""The commands as a person types them: what is on standard output, what is on standard error, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import click
import pytest
from click.testing import CliRunner, Result

import analysis
from analysis.cli import ask, explain, sql, status
from ingest.schema import BadInput, LakeDamaged
from tests.analysis.conftest import NINE, WriteLake

COMMANDS: Final[dict[str, click.Command]] = {"ask": ask, "sql": sql, "explain": explain, "status": status}


def run(command: click.Command, *arguments: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], input=stdin)


@pytest.fixture
def lake(write_lake: WriteLake) -> Path:
    return write_lake(
        [
            {"request_id": "req_1", "status": 429, "code": "rate_limited", "line": 1},
            {"request_id": "req_2", "status": 404, "code": "not_found", "org_id": "org_b", "line": 2},
            {"request_id": "req_3", "ts": NINE.replace(day=4), "status": 404, "code": "not_found", "line": 3},
            {"request_id": "req_4", "line": 4},
        ],
        sources=[
            {
                "source_id": "a",
                "name": "old.log",
                "gateway": "caddy",
                "lines": 3,
                "requests": 3,
                "errors": 2,
                "rejects": 0,
            }
            | {"skipped": 0, "first_ts": NINE, "last_ts": NINE, "ingested_at": NINE, "to_byte": 10, "is_cut": True},
            {
                "source_id": "a",
                "name": "new.log",
                "gateway": "caddy",
                "lines": 4,
                "requests": 1,
                "errors": 1,
                "rejects": 2,
            }
            | {
                "skipped": 1,
                "first_ts": NINE.replace(day=4),
                "last_ts": NINE.replace(day=4),
                "to_byte": 20,
                "is_cut": False,
            }
            | {"ingested_at": NINE.replace(day=5)},
            {"source_id": "b", "name": "-", "gateway": "envoy", "lines": 0, "requests": 0, "errors": 0, "rejects": 0}
            | {"skipped": 0, "ingested_at": NINE, "to_byte": 0, "is_cut": False},
        ],
    )


# -- ask


def test_ask_without_a_name_lists_every_question_with_what_it_asks() -> None:
    result = run(ask)

    width = max(map(len, analysis.questions()))
    expected = [
        line
        for question in analysis.questions().values()
        for line in (f"{question.name:{width}}  {question.title}", f"{'':{width}}  {question.asks}")
    ]
    assert (result.exit_code, result.stdout.splitlines(), result.stderr) == (0, expected, "")


def test_ask_answers_on_standard_output_and_says_nothing_else(lake: Path) -> None:
    result = run(ask, "errors_by_code", "--lake", lake)

    expected = analysis.answer(analysis.connect(lake), "errors_by_code").to_arrow_table().to_pylist()
    assert (result.exit_code, result.stderr) == (0, "")
    assert [line.split(",")[0] for line in result.stdout.splitlines()] == ["label", *(row["label"] for row in expected)]


def counts(result: Result) -> dict[str, int]:
    assert result.exception is None
    return {row["label"]: row["errors"] for row in json.loads(result.stdout)}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param([], {"not_found": 2, "rate_limited": 1}, id="all"),
        pytest.param(["--since", "2026-11-03"], {"not_found": 1}, id="since"),
        pytest.param(["--until", "2026-11-03"], {"not_found": 1, "rate_limited": 1}, id="until"),
        pytest.param(["--for-org", "org_b"], {"not_found": 1}, id="organisation"),
        pytest.param(["--since", "2026-11-04T10:00", "--tz", "Europe/Berlin"], {"not_found": 1}, id="zone"),
        pytest.param(["--since", "2026-11-04T10:00"], {}, id="the same moment in UTC"),
        pytest.param(["--limit", "1"], {"not_found": 2}, id="limit"),
    ],
)
def test_the_parameters_of_a_question_are_options(lake: Path, options: list[str], expected: dict[str, int]) -> None:
    assert counts(run(ask, "errors_by_code", "--lake", lake, "--output", "json", *options)) == expected


def test_a_zone_is_passed_on_to_a_question_that_takes_one(write_lake: WriteLake) -> None:
    late = NINE.replace(hour=23, minute=30)
    lake = write_lake([{"ts": late, "status": 500}], sources=[{"first_ts": late, "last_ts": late}])

    result = run(ask, "error_trend", "--lake", lake, "--bucket", "day", "--tz", "Europe/Berlin", "--output", "json")

    assert [row["bucket_start"] for row in json.loads(result.stdout)] == ["2026-11-02T23:00:00Z"]


def test_the_lake_may_come_from_the_environment(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRATA_LAKE", str(lake))

    assert counts(run(ask, "errors_by_code", "--output", "json")) == {"not_found": 2, "rate_limited": 1}


def test_the_lake_is_the_folder_lake_by_default(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lake.parent)
    monkeypatch.delenv("ERRATA_LAKE", raising=False)

    assert counts(run(ask, "errors_by_code", "--output", "json")) == {"not_found": 2, "rate_limited": 1}


def test_a_catalogue_may_be_given(lake: Path, tmp_path: Path) -> None:
    codes = tmp_path / "codes.csv"
    header = "code,http_status,is_retryable,category,owner,meaning,client_action"
    codes.write_text(f"{header}\nnot_found,404,false,mine,client,Gone.,Stop.\n")

    result = run(ask, "errors_by_code", "--lake", lake, "--catalog", codes, "--output", "json")

    assert {row["label"]: row["category"] for row in json.loads(result.stdout)} == {
        "not_found": "mine",
        "rate_limited": None,
    }


def test_the_sql_of_a_question_is_shown_without_a_lake(lake: Path) -> None:
    result = run(
        ask, "errors_by_code", "--since", "2026-11-03", "--for-org", "o'neil", "--show-sql", "--lake", "nowhere"
    )

    definition, _, call = result.stdout.rpartition("\n\n")
    assert definition == analysis.questions()["errors_by_code"].sql.rstrip()
    assert call == ("FROM errors_by_code(since := '2026-11-03 00:00:00'::TIMESTAMP, for_org := 'o''neil'::VARCHAR);\n")
    assert analysis.connect(lake).sql(call).columns == [c.name for c in analysis.questions()["errors_by_code"].columns]


@pytest.mark.parametrize(
    ("arguments", "verdict"),
    [
        (["errors_by_cod"], "there is no question 'errors_by_cod'; did you mean errors_by_code"),
        (["errors_by_code", "--since", "soon"], "--since has value 'soon'; expected a date or time: 2026-11-01"),
        (["errors_by_code", "--tz", "Mars"], "there is no time zone 'Mars'; write an IANA name such as UTC"),
        (["errors_by_code", "--lake", "nowhere"], "nowhere: expected a lake, but the folder does not exist"),
    ],
    ids=["question", "moment", "zone", "lake"],
)
def test_what_cannot_be_asked_is_told_in_one_line(arguments: list[str], verdict: str) -> None:
    result = run(ask, *arguments)

    assert isinstance(result.exception, BadInput)
    assert str(result.exception).startswith(verdict)
    assert "\n" not in str(result.exception)
    assert result.stdout == ""


def test_an_option_that_a_question_does_not_have_is_wrong_usage() -> None:
    result = run(ask, "errors_by_code", "--sinse", "today")

    assert result.exit_code == 2
    assert "No such option '--sinse'" in result.stderr
    assert "--since" in result.stderr


def test_a_damaged_lake_is_told_as_such(lake: Path) -> None:
    for file in lake.glob("table/kind=error/*/*.parquet"):
        file.unlink()

    assert isinstance(run(ask, "errors_by_code", "--lake", lake).exception, LakeDamaged)


# -- sql


def test_sql_runs_its_argument(lake: Path) -> None:
    result = run(sql, "SELECT code, count(*) AS errors FROM errors GROUP BY ALL ORDER BY code", "--lake", lake)

    assert (result.exit_code, result.stdout, result.stderr) == (0, "code,errors\nnot_found,2\nrate_limited,1\n", "")


@pytest.mark.parametrize("arguments", [["-"], []], ids=["dash", "pipe"])
def test_sql_reads_standard_input(lake: Path, arguments: list[str]) -> None:
    result = run(sql, *arguments, "--lake", lake, stdin="SELECT 1 AS a;\nSELECT count(*) AS requests FROM requests;\n")

    assert result.stdout == "requests\n4\n"


def test_sql_joins_a_question_with_a_view(lake: Path) -> None:
    query = "SELECT code, errors, meaning FROM errors_by_code(for_code := 'rate_limited') JOIN catalogue USING (code)"

    assert run(sql, query, "--lake", lake, "--output", "json").stdout == (
        '[\n{"code": "rate_limited", "errors": 1, "meaning": "The per-IP or per-key rate limit was exceeded."}\n]\n'
    )


def test_sql_writes_a_file(lake: Path, tmp_path: Path) -> None:
    result = run(sql, "SELECT count(*) AS n FROM errors", "--lake", lake, "--out", tmp_path / "n.csv")

    assert ((tmp_path / "n.csv").read_text(), result.stdout) == ("n\n3\n", "")


@pytest.mark.parametrize("name", ["n.csv", "n.parquet"])
def test_a_link_in_the_place_of_a_draft_is_not_followed(name: str, lake: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / f".{name}.draft").symlink_to(tmp_path / "mine")

    result = run(sql, "SELECT count(*) AS n FROM errors", "--lake", lake, "--out", tmp_path / name)

    assert (result.exit_code, (tmp_path / "mine").read_text(), (tmp_path / name).is_file()) == (0, "mine", True)


@pytest.mark.parametrize(
    ("query", "verdict"),
    [
        ("SELECT cod FROM errors", 'Referenced column "cod" not found in FROM clause! Candidate bindings: "code"'),
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("FROM error", "Table with name error does not exist! Did you mean"),
        (" ", "there is no SQL to run"),
    ],
    ids=["column", "syntax", "table", "nothing"],
)
def test_wrong_sql_is_told_in_one_line(lake: Path, query: str, verdict: str) -> None:
    result = run(sql, query, "--lake", lake)

    assert isinstance(result.exception, BadInput)
    assert str(result.exception).startswith(verdict)
    assert "\n" not in str(result.exception)


# -- explain and status


def test_explain_tells_a_story_or_gives_its_facts(lake: Path) -> None:
    text = run(explain, "req_1", "--lake", lake)
    facts = json.loads(run(explain, "req_1", "--lake", lake, "--output", "json").stdout)

    assert text.stdout.splitlines()[0] == (
        "req_1: POST /v1/messages was answered 429 rate_limited at 2026-11-02T09:00:00Z"
    )
    assert facts["request"]["code"] == "rate_limited"
    assert [attempt["request_id"] for attempt in facts["attempts"]] == ["req_1", "req_2", "req_4"]


def test_explain_of_an_unknown_id_is_one_line(lake: Path) -> None:
    result = run(explain, "nope", "--lake", lake)

    assert isinstance(result.exception, BadInput)
    assert str(result.exception).startswith("nothing in the lake is called 'nope'")
    assert "\n" not in str(result.exception)


def test_status_has_a_row_for_each_source_with_the_sum_of_its_steps(lake: Path) -> None:
    assert run(status, "--lake", lake).stdout == (
        "source,gateway,lines,requests,errors,duplicates,rejects,skipped,removed,is_cut,first_ts,last_ts,ingested_at,source_id\n"
        "new.log,caddy,7,4,3,0,2,1,0,false,2026-11-02T09:00:00Z,2026-11-04T09:00:00Z,2026-11-05T09:00:00Z,a\n"
        "'-,envoy,0,0,0,0,0,0,0,false,,,2026-11-02T09:00:00Z,b\n"
    )


# -- all of them


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_ends_with_an_example(name: str) -> None:
    result = run(COMMANDS[name], "--help")

    section = result.output.rpartition("\n\n")[2].splitlines()
    assert (result.exit_code, section[0]) == (0, "  Example:")
    assert all(line.startswith(f"    errata {name} ") for line in section[1:])


def test_the_help_of_the_commands_needs_no_engine() -> None:
    program = (
        "import sys, analysis.cli; print([name for name in ('duckdb', 'pyarrow', 'deltalake') if name in sys.modules])"
    )

    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "arguments", [["ask", "errors_by_code"], ["sql", "FROM errors"], ["explain", "req_1"], ["status"]]
)
def test_a_command_does_not_wait_for_pandas(lake: Path, arguments: list[str]) -> None:
    program = (
        "import sys, analysis.cli as cli\n"
        "getattr(cli, sys.argv[1])(sys.argv[2:], standalone_mode=False)\n"
        "print('pandas' in sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, *arguments, "--lake", str(lake)]

    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == "False\n"
