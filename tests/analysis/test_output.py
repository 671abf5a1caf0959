"""Rows in every format: whole files compared, and text from a log that tries to be more than text."""

import csv
import io
import json
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Final

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.output import cell_text, inert, write_query, write_rows
from ingest.schema import BadInput

KINDS: Final = """
SELECT 1 AS whole, 12345678901234567890::HUGEINT AS huge, 0.5::DOUBLE AS half, 1.50::DECIMAL(5, 2) AS price,
    true AS flag, 'grün' AS word, TIMESTAMPTZ '2026-11-02 09:00:00.25+00' AS ts, DATE '2026-11-02' AS day,
    ['a', NULL] AS list, {'field': 'to', 'n': 1} AS struct, 'nan'::DOUBLE AS missing, NULL AS nothing,
    TIMESTAMP '2026-11-02 09:00:00' AS local, INTERVAL '1 month 90 seconds' AS wait, '\\xCA\\xFE'::BLOB AS bytes
"""
EVIL: Final = "\x1b]0;owned\x07\r\n\u202e=1+1|<b>[x](y)`"


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


class Terminal(io.StringIO):
    """A screen of 80 columns that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name, value in {"COLUMNS": "80", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


def test_csv_has_iso_moments_plain_numbers_and_json_for_what_is_nested(
    con: duckdb.DuckDBPyConnection, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(con.sql(KINDS), "csv")

    assert capsys.readouterr().out == (
        "whole,huge,half,price,flag,word,ts,day,list,struct,missing,nothing,local,wait,bytes\n"
        "1,12345678901234567890,0.5,1.5,true,grün,2026-11-02T09:00:00.250000Z,2026-11-02,"
        '"[""a"", null]","{""field"": ""to"", ""n"": 1}",,,2026-11-02T09:00:00,1 months 0 days 90 s,cafe\n'
    )


def test_json_keeps_types_and_nesting(con: duckdb.DuckDBPyConnection, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(con.sql(KINDS), "json")

    assert json.loads(capsys.readouterr().out) == [
        {
            "whole": 1,
            "huge": 12345678901234567890,
            "half": 0.5,
            "price": 1.5,
            "flag": True,
            "word": "grün",
            "ts": "2026-11-02T09:00:00.250000Z",
            "day": "2026-11-02",
            "list": ["a", None],
            "struct": {"field": "to", "n": 1},
            "missing": None,
            "nothing": None,
            "local": "2026-11-02T09:00:00",
            "wait": "1 months 0 days 90 s",
            "bytes": "cafe",
        }
    ]


@pytest.mark.parametrize("expression", ["moment", "[moment]", "{'at': moment}"])
def test_a_moment_is_written_in_utc_whatever_zone_the_session_is_set_to(
    con: duckdb.DuckDBPyConnection, capsys: pytest.CaptureFixture[str], expression: str
) -> None:
    con.execute("SET TimeZone = 'Europe/Berlin'")

    write_rows(con.sql(f"SELECT {expression} AS a FROM (SELECT TIMESTAMPTZ '2026-11-02 09:00:00+00' AS moment)"), "csv")

    assert "2026-11-02T09:00:00Z" in capsys.readouterr().out


def test_markdown_is_a_table_with_numbers_to_the_right(
    con: duckdb.DuckDBPyConnection, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(con.sql("SELECT 'rate_limited' AS code, 0.123456 AS rate, 0.00001234 AS tiny, 3 AS n"), "markdown")

    assert capsys.readouterr().out == (
        "| code | rate | tiny | n |\n| --- | ---: | ---: | ---: |\n| rate_limited | 0.1235 | 1.23e-05 | 3 |\n"
    )


def test_a_table_in_a_pipe_is_as_wide_as_its_rows(
    con: duckdb.DuckDBPyConnection, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(con.sql(f"SELECT '{'x' * 300}' AS long, 12 AS n UNION ALL SELECT '日本', 3 ORDER BY n DESC"), "table")

    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "long" + " " * 300 + "n",
        "─" * 305,
        "x" * 300 + "   12",
        "日本" + " " * 300 + "3",
    ]


def test_parquet_on_standard_output_is_the_rows(
    con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", pipe)

    write_rows(con.sql("SELECT i, i::VARCHAR AS word FROM range(3) AS numbers(i)"), "parquet")

    assert pq.read_table(io.BytesIO(pipe.buffer.getvalue())).to_pylist() == [
        {"i": 0, "word": "0"},
        {"i": 1, "word": "1"},
        {"i": 2, "word": "2"},
    ]


# -- the default, the file and the limit


def test_csv_is_the_default_in_a_pipe(con: duckdb.DuckDBPyConnection, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(con.sql("SELECT 1 AS a"))

    assert capsys.readouterr() == ("a\n1\n", "")


def test_a_table_is_the_default_on_a_terminal(con: duckdb.DuckDBPyConnection, terminal: Terminal) -> None:
    with redirect_stdout(terminal):
        write_rows(con.sql("SELECT 'x' AS code, 1 AS n"))

    assert [line.rstrip() for line in terminal.getvalue().splitlines()] == ["code   n", "────────", "x      1"]


def test_rows_that_are_too_wide_for_a_terminal_are_shown_one_below_the_other(
    con: duckdb.DuckDBPyConnection, terminal: Terminal
) -> None:
    columns = ", ".join(f"'{'v' * 15}' AS column_{number}" for number in range(5))

    with redirect_stdout(terminal):
        write_rows(con.sql(f"SELECT {columns}"))

    assert [line.rstrip() for line in terminal.getvalue().splitlines()] == [
        "row 1",
        *(f"  column_{number}  {'v' * 15}" for number in range(5)),
    ]


def test_a_long_message_is_folded_and_not_cut(con: duckdb.DuckDBPyConnection, terminal: Terminal) -> None:
    with redirect_stdout(terminal):
        write_rows(con.sql(f"SELECT 'x' AS code, '{'m' * 150}' AS message"))

    assert terminal.getvalue().count("m") == 1 + 150  # the header's and the message's
    assert max(map(len, terminal.getvalue().splitlines())) <= 80


@pytest.mark.parametrize(
    ("name", "start"), [("a.csv", b"a,b\n"), ("a.json", b"[\n{"), ("a.md", b"| a | b |"), ("a.parquet", b"PAR1")]
)
def test_the_suffix_of_a_file_chooses_its_format(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, start: bytes
) -> None:
    (tmp_path / name).write_text("old")

    write_rows(con.sql("SELECT 1 AS a, 'x' AS b"), out=tmp_path / name)

    assert (tmp_path / name).read_bytes().startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert capsys.readouterr() == ("", "")


def test_a_file_that_fails_half_way_leaves_the_old_one(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    out = tmp_path / "a.csv"
    out.write_text("old")
    rows = con.sql("SELECT CASE WHEN i = 50_000 THEN error('stop') ELSE 'x' END AS a FROM range(60_000) AS numbers(i)")

    with pytest.raises(duckdb.Error, match="stop"):
        write_rows(rows, out=out)

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.csv", "old")]


@pytest.mark.parametrize(
    ("out", "verdict"),
    [
        ("a.xlsx", "a.xlsx: cannot tell the format from the name; give --output or one of .csv, .json, .md"),
        ("nowhere/a.csv", "nowhere/a.csv: cannot be written (No such file or directory); choose another --out"),
    ],
)
def test_a_file_that_cannot_be_written_is_told(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, out: str, verdict: str
) -> None:
    with pytest.raises(BadInput, match=re.escape(verdict)):
        write_rows(con.sql("SELECT 1 AS a"), out=tmp_path / out)


def test_parquet_is_not_written_to_a_terminal(con: duckdb.DuckDBPyConnection, terminal: Terminal) -> None:
    with redirect_stdout(terminal), pytest.raises(BadInput, match="parquet is no text for a terminal; give --out FILE"):
        write_rows(con.sql("SELECT 1 AS a"), "parquet")

    assert terminal.getvalue() == ""


def test_a_type_that_parquet_does_not_know_is_told(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"a type that Parquet does not know .* cast it to VARCHAR"):
        write_rows(con.sql("SELECT INTERVAL 1 DAY AS wait"), out=tmp_path / "a.parquet")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "limit", "rows", "note"),
    [
        pytest.param(
            "table", None, 500, "results truncated at --limit 500; pass --limit -1 for all rows\n", id="table"
        ),
        pytest.param("table", -1, 30_000, "", id="table, all"),
        pytest.param("csv", None, 30_000, "", id="csv"),
        pytest.param("csv", 30_000, 30_000, "", id="csv, exactly all"),
        pytest.param(
            "csv", 29_999, 29_999, "results truncated at --limit 29999; pass --limit -1 for all rows\n", id="csv, cut"
        ),
        pytest.param("csv", 0, 0, "results truncated at --limit 0; pass --limit -1 for all rows\n", id="csv, none"),
    ],
)
def test_a_limit_is_told_when_it_cuts(
    con: duckdb.DuckDBPyConnection,
    capsys: pytest.CaptureFixture[str],
    output: str,
    limit: int | None,
    rows: int,
    note: str,
) -> None:
    write_rows(con.sql("SELECT 7 AS a FROM range(30_000)"), output, limit=limit)

    written = capsys.readouterr()
    assert (written.out.count("7"), written.err) == (rows, note)


@pytest.mark.parametrize(
    ("output", "out", "err"),
    [
        ("csv", "a,b\n", ""),
        ("json", "[]\n", ""),
        ("markdown", "| a | b |\n| ---: | --- |\n", ""),
        ("table", "a   b", "no rows\n"),
    ],
)
def test_no_rows_are_an_answer_too(
    con: duckdb.DuckDBPyConnection, capsys: pytest.CaptureFixture[str], output: str, out: str, err: str
) -> None:
    write_rows(con.sql("SELECT 1 AS a, 'x' AS b WHERE false"), output)

    written = capsys.readouterr()
    assert (written.out[: len(out)], written.err) == (out, err)


# -- text that tries to be more


def test_text_cannot_act_in_any_format(con: duckdb.DuckDBPyConnection, capsys: pytest.CaptureFixture[str]) -> None:
    written = {}
    for output in ("csv", "json", "markdown", "table"):
        write_rows(con.sql('SELECT $evil AS "a\x1b[2J", 1 AS b', params={"evil": EVIL}), output)
        written[output] = capsys.readouterr().out

    plain = r"\x1b]0;owned\x07\r\n\u202e=1+1|<b>[x](y)`"
    assert written["csv"] == rf"a\x1b[2J,b{chr(10)}{plain},1{chr(10)}"
    assert json.loads(written["json"]) == [{"a\x1b[2J": EVIL, "b": 1}]
    assert written["markdown"].splitlines()[0] == r"| `a\x1b[2J` | b |"
    assert written["markdown"].splitlines()[2] == "| {} | 1 |".format(
        "".join(char if char.isalnum() else f"&#{ord(char)};" for char in plain)
    )
    assert written["table"].splitlines()[2].rstrip() == f"{plain}   1"
    assert re.search(r"[^\n\x20-\x7e─]", "".join(written.values())) is None


@pytest.mark.parametrize(
    "start",
    ["=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", " =", '"=', "'=", " \"'\xa0@", "\u3000-", "`+"],
)
def test_a_cell_of_text_is_never_a_formula(
    con: duckdb.DuckDBPyConnection, capsys: pytest.CaptureFixture[str], start: str
) -> None:
    write_rows(con.sql("SELECT $cell AS a, -1 AS b", params={"cell": f"{start}1+1"}), "csv")

    written = capsys.readouterr().out
    assert list(csv.reader(io.StringIO(written))) == [["a", "b"], [f"'{start}1+1", "-1"]]


def test_numbers_of_a_csv_stay_numbers_and_texts_that_look_like_one_stay_text(
    con: duckdb.DuckDBPyConnection, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(con.sql("SELECT -5 AS a, -0.5::DOUBLE AS b, -1.50::DECIMAL(5, 2) AS c, '-5' AS d, 'a-5' AS e"), "csv")

    assert capsys.readouterr().out == "a,b,c,d,e\n-5,-0.5,-1.5,'-5,a-5\n"


def test_a_formula_does_not_begin_where_a_spreadsheet_ends_a_cell(
    con: duckdb.DuckDBPyConnection, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = "'a;=1+1' AS a, 'a; =1;b' AS b, 'X11; Linux' AS c, ';@x' AS d"

    write_rows(con.sql(f"SELECT {texts}"), "csv")

    assert capsys.readouterr().out == "a,b,c,d\na;'=1+1,a;' =1;b,X11; Linux,;'@x\n"


def test_the_name_of_a_column_is_no_formula(con: duckdb.DuckDBPyConnection, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(con.sql("PIVOT (SELECT '=1+1' AS code) ON code USING count(*)"), "csv")

    assert capsys.readouterr().out == "'=1+1\n1\n"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        pytest.param("rate_limited", "rate_limited", id="a code"),
        pytest.param("/v1/messages/{id}", "/v1/messages/{id}", id="a route"),
        pytest.param("no such key", "no such key", id="words"),
        pytest.param("größe 東京", "größe 東京", id="letters of other languages"),
        pytest.param("_all_", "`_all_`", id="emphasis"),
        pytest.param("a~~b~~", "`a~~b~~`", id="struck through"),
        pytest.param("https://evil.example", "`https://evil.example`", id="an address"),
        pytest.param("WWW.evil.example", "`WWW.evil.example`", id="an address without a scheme"),
        pytest.param("a@evil.example", "`a@evil.example`", id="an e-mail address"),
        pytest.param("#1 @team", "`#1 @team`", id="mentions"),
        pytest.param("a|b", "a&#124;b", id="a bar"),
        pytest.param("`a`", "&#96;a&#96;", id="a span"),
        pytest.param(" ", " ", id="a blank"),
    ],
)
def test_a_cell_of_markdown_is_text(
    con: duckdb.DuckDBPyConnection, capsys: pytest.CaptureFixture[str], text: str, cell: str
) -> None:
    write_rows(con.sql("SELECT $text AS a", params={"text": text}), "markdown")

    assert capsys.readouterr().out == f"| a |\n| --- |\n| {cell} |\n"


@pytest.mark.parametrize("text", ["\U000e0041", "\xad", "\ud83d\ude00", "\x7f\x9b", "\u2028"])
def test_json_escapes_what_cannot_be_seen_and_keeps_it(
    con: duckdb.DuckDBPyConnection, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    text = text.encode("utf-16", "surrogatepass").decode("utf-16")

    write_rows(con.sql("SELECT $text AS a", params={"text": text}), "json")

    written = capsys.readouterr().out
    assert json.loads(written) == [{"a": text}]
    assert written.replace("\n", "").isprintable()


@given(st.text())
def test_inert_text_is_one_printable_line_and_ordinary_text_is_left_alone(text: str) -> None:
    shown = inert(text)

    assert len(shown.splitlines()) <= 1
    assert re.search(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]", shown) is None
    assert shown == text or not text.isprintable()


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (True, "true"), (False, "false"), ("", ""), (float("inf"), "")]
)
def test_a_cell_of_few_words(value: object, text: str) -> None:
    assert cell_text(value) == text


# -- a person's own SQL


def test_what_duckdb_says_of_wrong_sql_is_one_line(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("CREATE TABLE requests AS SELECT 'x' AS code")

    with pytest.raises(BadInput) as raised:
        write_query(con, "SELECT cod\nFROM requests")

    assert str(raised.value) == 'Referenced column "cod" not found in FROM clause! Candidate bindings: "code"'


@pytest.mark.parametrize("text", ["", "  ;; ", "-- a comment"])
def test_no_sql_is_told(con: duckdb.DuckDBPyConnection, text: str) -> None:
    with pytest.raises(BadInput, match="there is no SQL to run; write a statement such as FROM errors LIMIT 10"):
        write_query(con, text)


def test_an_error_in_a_later_row_is_told_too(con: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(BadInput, match="Could not convert string 'x' to INT32"):
        write_query(con, "SELECT CASE WHEN i = 400_000 THEN 'x' ELSE '1' END::INT AS a FROM range(500_000) AS n(i)")
