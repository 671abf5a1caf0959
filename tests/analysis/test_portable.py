"""Every question and shared macro says the same in Spark's SQL, as far as that can be told without Spark.

`spark_sql` says what they become there, and refuses what sqlglot would silently change. The rest is held here: nothing
that has no counterpart, nothing that gives other rows on another day or another engine.
"""

import logging
import re
from pathlib import Path
from typing import Final

import pytest
import sqlglot
from sqlglot import exp
from sqlglot.errors import UnsupportedError

import analysis
from analysis.lake import VIEWS
from tests.analysis.conftest import WriteLake
from tests.analysis.spark_sql import FUNCTIONS, Macro, called, macros, to_spark

MACROS: Final = macros()
SCALARS: Final = {name: macro for name, macro in MACROS.items() if not macro.is_table}
TABLES: Final = MACROS.keys() - SCALARS.keys()
SPARK: Final = frozenset(
    word
    for line in Path(__file__).with_name("spark_functions.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
    for word in line.split()
)
# Words of SQL that a parenthesis may follow.
WORDS: Final = frozenset(
    ["as", "distinct", "filter", "from", "in", "join", "on", "over", "select", "then", "using", "values", "where"]
)
# What other engines have not, or with another meaning, and what to take instead.
INSTEAD: Final = {
    "approx_quantile": "quantile_cont()",
    "arg_max": "max_by() over a struct that leaves no tie, or row_number()",
    "arg_min": "min_by() over a struct that leaves no tie, or row_number()",
    "date_diff": "the difference of epoch_us()",
    "date_sub": "the difference of epoch_us()",
    "datediff": "the difference of epoch_us()",
    "epoch": "epoch_us(): Spark's has whole seconds",
    "isodow": "a day of the week counted from epoch_us()",
    "len": "length() or list_size()",
    "list_sum": "unnest() and sum()",
    "now": "data_through()",
    "quantile_disc": "quantile_cont() or row_number()",
    "string_agg": "array_to_string(list(...), ...)",
}
UNKNOWN_WORDS: Final = frozenset(
    ["ASOF", "CURRENT_DATE", "CURRENT_TIMESTAMP", "GLOB", "PIVOT", "POSITIONAL", "UNPIVOT"]
)
PASSED_ON_WRONG: Final = {
    "a list ordered downwards": ("list(code ORDER BY errors DESC)", "Spark sorts a list up alone"),
    "texts in an order": ("string_agg(code, ', ' ORDER BY code)", "take array_to_string(list(...), ...)"),
    "another time zone": ("ts AT TIME ZONE given", "take local_time_of() or moment_of()"),
    "one replacement": ("regexp_replace(path, 'a', 'b')", "ask for all with 'g'"),
    "a group in a replacement": ("regexp_replace(path, '(a)', '\\1', 'g')", "groups in a replacement"),
    "a bracket in brackets": ("regexp_matches(path, '[[]')", "escape a bracket"),
    "a frame of given width": ("count(*) OVER (ORDER BY ts RANGE BETWEEN given PRECEDING AND 1 PRECEDING)", "literals"),
    "a parameter in an aggregate": ("count(*) FILTER (WHERE status > given)", "make what depends on given a column"),
}
TRANSLATED: Final = {
    "a list in an order": (
        "list(code ORDER BY errors) FILTER (WHERE errors > 1)",
        "NULLIF(TRANSFORM(ARRAY_SORT(COLLECT_LIST(STRUCT(errors AS key_0, code AS item)) FILTER(WHERE errors > 1)), "
        "entry -> entry.item), ARRAY())",
    ),
    "an exact quantile": ("quantile_cont(latency_ms, 0.5)", "PERCENTILE(latency_ms, 0.5)"),
    "microseconds": ("epoch_us(make_timestamptz(given))", "UNIX_MICROS(TIMESTAMP_MICROS(given))"),
    "a scalar macro": ("is_rate_limited(status, code)", "(status = 429 OR COALESCE(code = 'rate_limited', FALSE))"),
    "a zone's clock": ("local_time_of(ts, given)", "(FROM_UTC_TIMESTAMP(CAST(ts AS TIMESTAMP), given))"),
}


def macro(body: str) -> Macro:
    """A table macro with one parameter, `given`."""
    return Macro(Path("made.sql"), "made", ("given",), True, f"SELECT {body} AS answer FROM requests")


def names_made(macro: Macro) -> set[str]:
    """The names that the macro's SQL gives to columns."""
    return {alias.alias for alias in sqlglot.parse_one(macro.body, read="duckdb").find_all(exp.Alias)}


@pytest.mark.parametrize("name", MACROS)
def test_a_macro_becomes_spark_sql_without_error_or_warning(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "sqlglot"):
        spark = to_spark(MACROS[name], SCALARS)
        parsed = sqlglot.parse_one(spark, read="spark")

    assert caplog.messages == []
    assert isinstance(parsed, exp.Create) == MACROS[name].is_table


@pytest.mark.parametrize("name", MACROS)
def test_spark_has_the_functions_that_are_left(name: str) -> None:
    calls = called(to_spark(MACROS[name], SCALARS), "spark")

    assert calls - SPARK - WORDS - TABLES == set()


def test_the_functions_that_are_renamed_are_spark_s() -> None:
    assert set(FUNCTIONS.values()) <= SPARK
    assert FUNCTIONS.keys() & SPARK == set()


@pytest.mark.parametrize("name", MACROS)
def test_a_macro_keeps_to_what_other_engines_have(name: str) -> None:
    tokens = {token.text.upper() for token in sqlglot.tokenize(MACROS[name].body, read="duckdb")}
    selects = sqlglot.parse_one(MACROS[name].body, read="duckdb").find_all(exp.Select)

    assert {call: INSTEAD[call] for call in called(MACROS[name].body, "duckdb") & INSTEAD.keys()} == {}
    assert tokens & UNKNOWN_WORDS == set()
    assert [select.sql() for select in selects if select.is_star] == []


@pytest.mark.parametrize("name", MACROS)
def test_no_column_is_named_like_a_word_that_breaks(name: str) -> None:
    assert names_made(MACROS[name]) & {"at", "limit", "offset", "window"} == set()


@pytest.mark.parametrize("name", sorted(TABLES))
def test_no_parameter_of_a_macro_is_named_like_a_column(name: str, write_lake: WriteLake) -> None:
    """A column wins over a parameter of the same name without a word, so that the filter is always true."""
    con = analysis.connect(write_lake())
    columns = {column for view in VIEWS for column in con.sql(f"FROM {view}").columns}

    assert set(MACROS[name].parameters) & (columns | names_made(MACROS[name])) == set()


@pytest.mark.parametrize(("body", "verdict"), PASSED_ON_WRONG.values(), ids=PASSED_ON_WRONG)
def test_what_sqlglot_would_pass_on_with_another_meaning_is_refused(body: str, verdict: str) -> None:
    with pytest.raises(UnsupportedError, match=re.escape(verdict)):
        to_spark(macro(body), SCALARS)


@pytest.mark.parametrize(("body", "spark"), TRANSLATED.values(), ids=TRANSLATED)
def test_what_sqlglot_has_to_be_told_is_told(body: str, spark: str) -> None:
    scalar = Macro(Path("made.sql"), "made", ("given",), False, body)

    assert " ".join(to_spark(scalar, SCALARS).split()).replace("( ", "(").replace(" )", ")") == spark
