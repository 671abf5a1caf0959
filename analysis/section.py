"""One question of a report: what it is asked with, its first rows, and the command that gives them all."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

import analysis
from analysis.damage import lake_errors
from analysis.period import Period, written

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Topic:
    """What a section is about: a question, its columns for people, and what is said where it has no rows.

    A topic that `is_whole` shows every row, whatever the cap.
    """

    question: str
    heading: str
    columns: tuple[str, ...]
    nothing: str
    is_whole: bool = False


@dataclass(frozen=True)
class Section:
    """A topic and the answer to its question.

    `rows` are the first of `row_count` rows, with every column of the question. `command` gives all rows. `summary` is
    what is said of all of them, if anything.
    """

    topic: Topic
    rows: tuple[Row, ...]
    row_count: int
    command: str
    summary: str = ""

    @property
    def question(self) -> str:
        """Name of the question."""
        return self.topic.question

    def first(self, top: int) -> "Section":
        """The same with at most `top` rows, -1 for all."""
        return self if top < 0 else replace(self, rows=self.rows[:top])


def ask(con: duckdb.DuckDBPyConnection, topic: Topic, period: Period, *, options: tuple[str, ...], top: int) -> Section:
    """The answer about `period` with at most `top` rows, -1 for all. `options` say where `con` was connected to."""
    known = _parameters_of(topic.question)
    given = {name: value for name, value in {**period.bounds, "tz": period.tz}.items() if name in known}
    with lake_errors():
        table = analysis.answer(con, topic.question, **given).to_arrow_table()
    shown = table if topic.is_whole or top < 0 else table.slice(0, top)
    return Section(topic, tuple(shown.to_pylist()), table.num_rows, command(topic, period, options))


def command(topic: Topic, period: Period, options: tuple[str, ...]) -> str:
    """The command line that answers the question about `period`, or about everything if it takes no period."""
    words = ["errata", "ask", topic.question]
    known = _parameters_of(topic.question)
    words += ["--since", written(period.since)] if "since" in known else []
    words += ["--until", written(period.until)] if "until" in known else []
    words += ["--tz", period.tz] if "until" in known and period.tz != "UTC" else []
    return shlex.join([*words, *options])


def options(lake: Path, catalog: Path | None) -> tuple[str, ...]:
    """The options of a command that name the lake and the catalogue."""
    return ("--lake", str(lake), *(("--catalog", str(catalog)) if catalog is not None else ()))


def _parameters_of(question: str) -> set[str]:
    return {parameter.name for parameter in analysis.questions()[question].parameters}
