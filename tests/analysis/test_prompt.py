"""The prompt of `errata sql`, driven by the keys that a person presses."""

import os
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

import analysis
from analysis.prompt import is_complete, prompt, words
from tests.analysis.conftest import WriteLake

ENTER = "\r"
CTRL_C = "\x03"
CTRL_D = "\x04"
TAB = "\t"
UP = "\x1b[A"


@pytest.fixture
def con(write_lake: WriteLake) -> duckdb.DuckDBPyConnection:
    return analysis.connect(write_lake([{"status": 500, "code": "internal_error"}, {}]))


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "errata" / "sql_history"


@pytest.fixture
def keyboard(history: Path) -> Iterator[PipeInput]:
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        yield keys


def test_a_statement_runs_when_it_ends_with_a_semicolon(
    con: duckdb.DuckDBPyConnection, keyboard: PipeInput, capsys: pytest.CaptureFixture[str]
) -> None:
    keyboard.send_text(f"SELECT count(*) AS n{ENTER}FROM requests;{ENTER}.quit{ENTER}")

    prompt(con)

    assert capsys.readouterr() == ("n\n2\n", "Write SQL and end it with ;  .help for help\n")


def test_a_mistake_is_one_line_and_the_prompt_goes_on(
    con: duckdb.DuckDBPyConnection, keyboard: PipeInput, capsys: pytest.CaptureFixture[str]
) -> None:
    keyboard.send_text(f"SELECT cod FROM errors;{ENTER};{ENTER}{ENTER}.nonsense{ENTER}SELECT 1 AS a;{ENTER}{CTRL_D}")

    prompt(con)

    out, err = capsys.readouterr()
    assert out == "a\n1\n"
    assert [line.split(" Candidate")[0] for line in err.splitlines()[1:]] == [
        'Referenced column "cod" not found in FROM clause!',
        "there is no SQL to run; write a statement such as FROM errors LIMIT 10",
        "expected SQL or one of .help .questions .quit .tables",
    ]


def test_a_damaged_file_is_told_and_the_prompt_goes_on(
    write_lake: WriteLake, keyboard: PipeInput, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = write_lake([{}])
    con = analysis.connect(lake)
    for file in lake.glob("table/kind=ok/*/*.parquet"):
        file.unlink()
    keyboard.send_text(f"FROM requests;{ENTER}SELECT 1 AS a;{ENTER}.quit{ENTER}")

    prompt(con)

    out, err = capsys.readouterr()
    assert out == "a\n1\n"
    assert "this data file of the lake is missing or cannot be read" in err.splitlines()[1]


def test_the_dot_commands_show_what_there_is(
    con: duckdb.DuckDBPyConnection, keyboard: PipeInput, capsys: pytest.CaptureFixture[str]
) -> None:
    keyboard.send_text(f".help{ENTER}.tables{ENTER}.questions{ENTER}.quit{ENTER}")

    prompt(con)

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Write SQL and end it with ;"
    assert f"rejects: {', '.join(con.sql('FROM rejects').columns)}" in lines
    assert "errors_by_code(since, until, for_org, for_key, for_code, for_route): Errors by code" in lines


def test_ctrl_c_drops_the_line_that_was_begun(
    con: duckdb.DuckDBPyConnection, keyboard: PipeInput, capsys: pytest.CaptureFixture[str]
) -> None:
    keyboard.send_text(f"SELECT nonsense{CTRL_C}SELECT 1 AS a;{ENTER}.quit{ENTER}")

    prompt(con)

    assert capsys.readouterr().out == "a\n1\n"


def test_ctrl_c_stops_a_query_and_the_prompt_goes_on(
    con: duckdb.DuckDBPyConnection, keyboard: PipeInput, capsys: pytest.CaptureFixture[str]
) -> None:
    running = threading.Event()

    def started(number: int) -> int:
        running.set()
        return number

    def press_ctrl_c() -> None:
        running.wait()
        os.kill(os.getpid(), signal.SIGINT)

    con.create_function("started", started, ["BIGINT"], "BIGINT")
    endless = "SELECT sum(CASE WHEN i = 0 THEN started(i) ELSE i % 7 END) FROM range(1000000000000) AS numbers(i)"
    keyboard.send_text(f"{endless};{ENTER}")
    keyboard.send_text(f"SELECT 2 AS a;{ENTER}.quit{ENTER}")
    hand = threading.Thread(target=press_ctrl_c)
    hand.start()

    prompt(con)

    hand.join()
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[1:]) == ("a\n2\n", ["query stopped"])


def test_the_history_is_kept_for_its_owner_alone(
    con: duckdb.DuckDBPyConnection, keyboard: PipeInput, history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history.parent.mkdir(parents=True)
    history.touch(mode=0o644)
    keyboard.send_text(f"SELECT 1 AS a;{ENTER}.quit{ENTER}")
    prompt(con)
    keyboard.send_text(f"{UP}{UP}{ENTER}.quit{ENTER}")

    prompt(con)

    assert capsys.readouterr().out == "a\n1\na\n1\n"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_tab_completes_views_columns_questions_and_sql_words(con: duckdb.DuckDBPyConnection) -> None:
    offered = words(con)

    assert {"requests", "catalogue", "retry_after_s", "is_known_code", "errors_by_code", "SELECT"} <= set(offered)
    assert offered == sorted(set(offered))


@pytest.mark.parametrize(
    ("text", "complete"),
    [("SELECT 1;", True), ("SELECT 1; \n", True), ("SELECT 1", False), (".quit", True), ("", True), ("  ", True)],
)
def test_enter_runs_only_what_is_complete(text: str, complete: bool) -> None:
    assert is_complete(text) is complete
