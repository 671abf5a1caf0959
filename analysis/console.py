"""What there is to ask in SQL, for the person who writes it: the views and macros with their columns, and examples.

Knows names and meanings. Running what was written is the affair of `analysis.sandbox`.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final

import duckdb

from analysis.lake import SQL_TYPES, VIEWS, connect_without_rows
from analysis.question import Question, judge_of, questions
from ingest.schema import (
    CATALOGUE_COLUMNS,
    DAILY_COLUMNS,
    PARTITION_COLUMNS,
    REJECT_COLUMNS,
    REQUEST_COLUMNS,
    SOURCE_COLUMNS,
    Column,
)


@dataclass(frozen=True)
class Part:
    """A column or parameter of a relation: its name, SQL type (a parameter's default) and meaning with the unit."""

    name: str
    type: str
    meaning: str


@dataclass(frozen=True)
class Relation:
    """What may stand after FROM: a view, or a question with its parameters; `note` says how its answer differs."""

    name: str
    meaning: str
    parameters: tuple[Part, ...]
    columns: tuple[Part, ...]
    note: str = ""


@dataclass(frozen=True)
class Example:
    """A query to start from, and what it answers."""

    asks: str
    sql: str


_OF_REQUESTS: Final = (
    Part("caller", "VARCHAR", "key_id, else key_hash, else client_ip"),
    Part("is_error", "BOOLEAN", "is its kind error: an error envelope, or a status of 400 or more"),
)
_FROM_CATALOGUE: Final = ("is_retryable", "category", "owner")
_KNOWN: Final = Part("is_known_code", "BOOLEAN", "is its code in the catalogue")
_VIEWS: Final = {
    "requests": "Every request, one row each.",
    "errors": "The requests that failed, with what the catalogue says of their code.",
    "daily_successes": "The successes of each day, counted by caller and route; one count may be in several rows.",
    "rejects": "Lines of the logs that are no readable request. Their text is not kept.",
    "sources": "The ledger: a row for each time that something new of a source was read.",
    "catalogue": "The error catalogue.",
}

EXAMPLES: Final = (
    Example(
        "Which codes does each route answer with?",
        """SELECT route, code, count(*) AS errors, count(DISTINCT org_id) AS orgs
FROM errors
GROUP BY ALL
ORDER BY errors DESC, route, code
LIMIT 50""",
    ),
    Example(
        "How slow are failures, hour by hour?",
        """SELECT
    time_bucket(INTERVAL 1 HOUR, ts) AS hour,
    count(*) AS requests,
    quantile_cont(latency_ms, 0.95) FILTER (WHERE is_error) AS error_p95_ms,
    quantile_cont(latency_ms, 0.95) FILTER (WHERE NOT is_error) AS success_p95_ms
FROM requests
GROUP BY ALL
ORDER BY hour""",
    ),
    Example(
        "What should clients do about the most frequent errors?",
        """SELECT found.label, found.errors, found.rate, catalogue.client_action
FROM errors_by_code(since := DATE '2020-01-01') AS found
LEFT JOIN catalogue ON catalogue.code = found.code
ORDER BY found.errors DESC, found.label
LIMIT 20""",
    ),
    Example(
        "Which requests failed first, for each code?",
        """SELECT code, ts, request_id, org_id, message
FROM errors
QUALIFY row_number() OVER (PARTITION BY code ORDER BY ts, source_id, line) = 1
ORDER BY ts, code""",
    ),
)
"""Queries for the console, the simplest first."""


@cache
def relations() -> tuple[Relation, ...]:
    """The views, then the questions by name. Of a question with a judge they tell the rows that it judges."""
    views = (Relation(name, _VIEWS[name], (), _columns(name)) for name in VIEWS)
    with connect_without_rows() as con:
        return (*views, *(_of_question(con, question) for question in questions().values()))


def _columns(view: str) -> tuple[Part, ...]:
    """The columns of `view` in the order of the view."""
    partition, request = _parts(PARTITION_COLUMNS), (*_parts(REQUEST_COLUMNS), *_OF_REQUESTS)
    catalogue = _parts(CATALOGUE_COLUMNS)
    joined = (_KNOWN, *(part for part in catalogue if part.name in _FROM_CATALOGUE))
    columns = {
        "requests": (*partition, *request),
        "errors": (*partition, *request, *joined),
        "daily_successes": (*partition, *_parts(DAILY_COLUMNS), _OF_REQUESTS[0]),
        "rejects": (*partition, *_parts(REJECT_COLUMNS)),
        "sources": (*partition, *_parts(SOURCE_COLUMNS)),
        "catalogue": catalogue,
    }
    return columns[view]


def _parts(columns: tuple[Column, ...]) -> tuple[Part, ...]:
    return tuple(
        Part(
            column.name, SQL_TYPES[column.type], f"{column.meaning} ({column.unit})" if column.unit else column.meaning
        )
        for column in columns
    )


def _of_question(con: duckdb.DuckDBPyConnection, question: Question) -> Relation:
    parameters = tuple(Part(one.name, one.default, one.meaning) for one in question.parameters)
    meanings = {column.name: column.meaning for column in question.columns}
    if judge_of(question.name) is None:
        columns = tuple(Part(name, "", meaning) for name, meaning in meanings.items())
        return Relation(question.name, question.asks, parameters, columns)
    evidence = con.sql(f"FROM {question.name}()")
    columns = tuple(
        Part(name, str(sql_type), meanings.get(name, ""))
        for name, sql_type in zip(evidence.columns, evidence.types, strict=True)
    )
    note = (
        f"In SQL this is the evidence, a column without a meaning too. The answer judged from it is that of "
        f"`errata ask {question.name}`, and of the page {question.title}."
    )
    return Relation(question.name, question.asks, parameters, columns, note)
