"""The questions: one SQL file each, its header for people and its macro for DuckDB.

Knows the form of the files in `queries/` and how to ask one. Knows no lake: any connection with the views will do.
What SQL is not the place for, exact tests and sentences, is done to a macro's rows by the judge of the same name in
`analysis/judges/`, where there is one.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from graphlib import TopologicalSorter
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from analysis.damage import lake_errors, said
from analysis.moments import utc_moment
from ingest.schema import BadInput

FOLDER: Final = Path(__file__).with_name("queries")

# What DuckDB raises for a value that a macro cannot take: a cast, an unknown zone, or the macro's own error().
_VALUE_ERRORS: Final = (
    duckdb.ConversionException,
    duckdb.InvalidInputException,
    duckdb.NotImplementedException,
    duckdb.OutOfRangeException,
)
_MACRO: Final = re.compile(r"CREATE\s+OR\s+REPLACE\s+MACRO\s+(\w+)\s*\(", re.IGNORECASE)
_HEADER: Final = re.compile(r"--\s?(?P<key>title|asks|codes|chart|columns|param\s+(?P<param>\w+))\s*:\s*(?P<text>.*)")
_COLUMN: Final = re.compile(r"--\s+(?P<name>\w+):\s*(?P<text>.*)")
_CONTINUED: Final = re.compile(r"--\s{2,}(?P<text>\S.*)")
_CHART: Final = re.compile(r"(?P<kind>bar|stacked|line)\((?P<columns>\w+(?:\s*,\s*\w+)+)\)")
_LITERALS: Final = (
    (re.compile(r"[+-]?\d+"), "BIGINT"),
    (re.compile(r"[+-]?\d*\.\d+"), "DOUBLE"),
    (re.compile(r"true|false", re.IGNORECASE), "BOOLEAN"),
    (re.compile(r"INTERVAL\b.*", re.IGNORECASE), "INTERVAL"),
)
_CHART_COLUMNS: Final = {"bar": (2,), "line": (2, 3), "stacked": (3,)}

Judge = Callable[[pa.Table, Mapping[str, object]], pa.Table]
"""From the rows of a question's macro, and every parameter of it by name, to the rows of its answer."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a question: its name, its default as SQL text and what it means."""

    name: str
    default: str
    meaning: str

    @property
    def sql_type(self) -> str:
        """TIMESTAMP for `since` and `until`, else that of the default: BIGINT, DOUBLE, BOOLEAN, INTERVAL or VARCHAR."""
        if self.name in ("since", "until"):
            return "TIMESTAMP"
        return next((sql_type for literal, sql_type in _LITERALS if literal.fullmatch(self.default)), "VARCHAR")

    @property
    def default_value(self) -> object:
        """The default as `_bindable` gives it: None for NULL, a string without its quotes."""
        if self.default.upper() == "NULL":
            return None
        if self.sql_type == "BOOLEAN":
            return self.default.lower() == "true"
        return _bindable(self, self.default.strip("'").replace("''", "'"))


@dataclass(frozen=True)
class ResultColumn:
    """One column of a question's result and what it means."""

    name: str
    meaning: str


@dataclass(frozen=True)
class Chart:
    """How a question's result is drawn: `bar`, `stacked` or `line` over its columns x and y, by `series` if given."""

    kind: str
    x: str
    y: str
    series: str | None = None


@dataclass(frozen=True)
class Question:
    """What a person reads about one question, and the SQL that defines its macro.

    `codes` are those of the catalogue that it is the answer for; `chart` is None for a plain table.
    """

    name: str
    title: str
    asks: str
    chart: Chart | None
    parameters: tuple[Parameter, ...]
    columns: tuple[ResultColumn, ...]
    sql: str
    codes: tuple[str, ...] = ()


@cache
def questions(folder: Path = FOLDER) -> dict[str, Question]:
    """Every question in `folder`, by name, in name order. ValueError names the file and line of a malformed one."""
    return {path.stem: read_question(path) for path in sorted(folder.glob("*.sql"))}


def install(con: duckdb.DuckDBPyConnection, folder: Path = FOLDER) -> None:
    """Creates every macro of `folder` in `con`, over the tables or views there that are named like the lake's views."""
    for sql in _in_order([*folder.glob("shared/*.sql"), *folder.glob("*.sql")]):
        con.execute(sql)


@cache
def macro_names(folder: Path = FOLDER) -> frozenset[str]:
    """The names of the macros that `install` creates: the questions, and those that they share."""
    texts = (path.read_text("utf-8") for path in folder.rglob("*.sql"))
    return frozenset(name for text in texts for name in _MACRO.findall(text))


@cache
def macros_digest(folder: Path = FOLDER) -> str:
    """SHA-256 of the SQL of every file: another one means other macros."""
    return sha256(b"\0".join(path.read_bytes() for path in sorted(folder.rglob("*.sql")))).hexdigest()


def answer(con: duckdb.DuckDBPyConnection, name: str, **parameters: object) -> duckdb.DuckDBPyRelation:
    """The result of one question, its rows held in memory. Parameters left out, or None, keep their defaults.

    `since` and `until` may be a datetime (naive means UTC), a date, or text as in `analysis.moments`.
    Raises BadInput for a question or parameter that does not exist and for a value that the question cannot take,
    LakeDamaged for a data file that cannot be read.
    """
    question = find(name)
    known = {parameter.name: parameter for parameter in question.parameters}
    for unknown in sorted(parameters.keys() - known):
        raise BadInput(f"{name} has no parameter {unknown!r}; {_close(unknown, known)}")
    bound = {key: _bindable(known[key], value) for key, value in parameters.items() if value is not None}
    arguments = ", ".join(f"{key} := ${key}::{known[key].sql_type}" for key in bound)
    try:
        with lake_errors():
            rows = con.sql(f"FROM {name}({arguments})", params=bound).materialize()
    except _VALUE_ERRORS as error:
        raise BadInput(f"{name}: {said(error)}") from error
    judge = judge_of(name)
    if judge is None:
        return rows
    defaults = {parameter.name: parameter.default_value for parameter in question.parameters}
    return con.from_arrow(judge(rows.to_arrow_table(), defaults | bound)).materialize()


def judge_of(name: str) -> Judge | None:
    """The judge of a question, None for one whose macro is the whole answer; statistics load when it is called."""
    if find_spec(f"analysis.judges.{name}") is None:
        return None
    judge: Judge = import_module(f"analysis.judges.{name}").judge
    return judge


def call(question: Question, parameters: Mapping[str, object]) -> str:
    """The SQL text that asks `question` with `parameters`, to be read, copied and run by a person."""
    types = {parameter.name: parameter.sql_type for parameter in question.parameters}
    arguments = (f"{key} := {literal(value)}::{types[key]}" for key, value in parameters.items())
    return f"FROM {question.name}({', '.join(arguments)})"


def literal(value: object) -> str:
    """`value` as an SQL string, for statements that take no bound parameters."""
    return "'" + str(value).replace("'", "''") + "'"


def find(name: str) -> Question:
    """The question called `name`; BadInput with the closest names where there is none."""
    known = questions()
    if name not in known:
        raise BadInput(f"there is no question {name!r}; {_close(name, known)}")
    return known[name]


def read_question(path: Path) -> Question:
    """The question of one file. ValueError, `path:line: ...`, where its header or macro is malformed."""
    sql = path.read_text("utf-8")
    texts: dict[str, str] = {}
    columns: dict[str, str] = {}
    meanings: dict[str, str] = {}
    section, key = texts, ""
    for number, line in enumerate(sql.splitlines(), start=1):
        if not line.startswith("--"):
            break
        place = f"{path}:{number}"
        if header := _HEADER.fullmatch(line):
            section, key = (meanings, header["param"]) if header["param"] else (texts, header["key"])
            text = header["text"]
        elif "columns" in texts and (column := _COLUMN.fullmatch(line)):
            section, key, text = columns, column["name"], column["text"]
        elif key and (continued := _CONTINUED.fullmatch(line)):
            section[key] += " " + continued["text"]
            continue
        else:
            raise ValueError(
                f"{place}: expected title, asks, codes, chart, param NAME or columns, each followed by a colon"
            )
        if key in section:
            raise ValueError(f"{place}: {key} is there twice")
        section[key] = text.strip()
    for required in ("title", "asks", "chart", "columns"):
        if required not in texts:
            raise ValueError(f"{path}:1: the header has no {required}")
    line_of_macro, name, defaults = _signature(sql, path)
    if name != path.stem:
        raise ValueError(f"{path}:{line_of_macro}: expected a macro named {path.stem}, found {name}")
    if list(defaults) != list(meanings):
        raise ValueError(
            f"{path}:{line_of_macro}: the macro has parameters {list(defaults)}, the header describes {list(meanings)}"
        )
    return Question(
        name=name,
        title=texts["title"],
        asks=texts["asks"],
        chart=_chart(texts["chart"], path),
        parameters=tuple(Parameter(key, default, meanings[key]) for key, default in defaults.items()),
        columns=tuple(ResultColumn(name, meaning) for name, meaning in columns.items()),
        sql=sql,
        codes=tuple(re.split(r"\s*,\s*", texts["codes"])) if "codes" in texts else (),
    )


def _in_order(paths: Iterable[Path]) -> Iterable[str]:
    """The SQL of each file, after that of the files it calls: DuckDB looks a macro up when it creates its caller."""
    texts = {path: path.read_text("utf-8") for path in sorted(paths)}
    homes = {name: path for path, text in texts.items() for name in _MACRO.findall(text)}
    calls: dict[Path, set[Path]] = {}
    for path, text in texts.items():
        code = re.sub(r"--.*", "", text)
        calls[path] = {homes[word] for word in re.findall(r"\b(\w+)\s*\(", code) if homes.get(word, path) != path}
    return [texts[path] for path in TopologicalSorter(calls).static_order()]


def _signature(sql: str, path: Path) -> tuple[int, str, dict[str, str]]:
    """Line, name and parameters (name -> default as SQL text) of the file's only macro."""
    macros = list(_MACRO.finditer(sql))
    if len(macros) != 1:
        raise ValueError(f"{path}:1: expected one CREATE OR REPLACE MACRO NAME(...), found {len(macros)}")
    macro = macros[0]
    line = sql.count("\n", 0, macro.start()) + 1
    defaults: dict[str, str] = {}
    for argument in _arguments(sql[macro.end() :]):
        parameter, assigned, default = argument.partition(":=")
        if not assigned:
            raise ValueError(f"{path}:{line}: the parameter {parameter.strip()!r} has no default; give it one with :=")
        defaults[parameter.strip()] = default.strip()
    return line, macro[1], defaults


def _arguments(sql: str) -> list[str]:
    """What stands between the commas up to the parenthesis that closes `sql`, strings and nested calls left whole."""
    arguments, depth = [""], 0
    for word in re.findall(r"'(?:[^']|'')*'|--.*|.|\n", sql):
        if word == ")" and depth == 0:
            break
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(word, 0)
        if word == "," and depth == 0:
            arguments.append("")
        elif not word.startswith("--"):
            arguments[-1] += word
    return [argument for argument in arguments if argument.strip()]


def _chart(text: str, path: Path) -> Chart | None:
    if text == "none":
        return None
    found = _CHART.fullmatch(text)
    columns = re.split(r"\s*,\s*", found["columns"]) if found else []
    if not found or len(columns) not in _CHART_COLUMNS[found["kind"]]:
        raise ValueError(
            f"{path}:1: chart is {text!r}; expected bar(x, y), stacked(x, y, series), line(x, y[, series]) or none"
        )
    return Chart(found["kind"], *columns)


def _bindable(parameter: Parameter, value: object) -> object:
    """`value` in the Python type that DuckDB binds as the parameter's SQL type, without rounding or guessing."""
    if parameter.sql_type == "TIMESTAMP":
        return utc_moment(value, name=parameter.name)
    if parameter.sql_type == "BOOLEAN":
        if isinstance(value, bool):
            return value
        raise BadInput(f"{parameter.name} has value {value!r}; expected True or False")
    if parameter.sql_type in ("BIGINT", "DOUBLE"):
        try:
            return int(str(value)) if parameter.sql_type == "BIGINT" else float(str(value))
        except ValueError:
            raise BadInput(
                f"{parameter.name} has value {value!r}; expected a number like {parameter.default}"
            ) from None
    return str(value)


def _close(word: str, known: Iterable[str]) -> str:
    matches = get_close_matches(word, known, n=3, cutoff=0.5)
    if matches:
        return f"did you mean {' or '.join(matches)}?"
    return f"there are: {', '.join(known)}"
