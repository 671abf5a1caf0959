"""The story of a key or of an organisation: what it asked, what the questions say of it, and when what happened.

Knows the questions that give verdicts, and no rule of theirs: each is asked about the one key or organisation.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import duckdb

from analysis.damage import lake_errors
from analysis.output import cell_text, inert, python_values
from analysis.question import answer, questions
from ingest.schema import BadInput

Row = dict[str, Any]

# The columns in which questions say what they find, and the words for finding nothing.
_VERDICTS: Final = ("verdict", "cause", "state")
_NOTHING: Final = frozenset({"not enough data", "occasional", "does not retry"})
_SHOWN: Final = 15
# Asked one after the other: errors are few, ids have bloom filters, and successes are counted by day.
_KINDS: Final = (
    ("request", "FROM errors WHERE request_id = $name"),
    ("caller", "FROM errors WHERE caller = $name"),
    ("organisation", "FROM errors WHERE org_id = $name"),
    ("request", "FROM requests WHERE kind = 'ok' AND request_id = $name"),
    ("caller", "FROM daily_successes WHERE key_id = $name OR key_hash = $name OR client_ip = $name"),
    ("organisation", "FROM daily_successes WHERE org_id = $name"),
)
_TOTALS: Final = """
SELECT
    coalesce(sum(requests), 0)::BIGINT AS requests,
    coalesce(sum(requests) FILTER (WHERE is_error), 0)::BIGINT AS errors,
    min(first_ts) AS first_seen,
    max(last_ts) AS last_seen,
    list_sort(list(DISTINCT org_id) FILTER (WHERE org_id IS NOT NULL)) AS org_ids,
    count(DISTINCT caller) AS callers
FROM request_counts($since::TIMESTAMP, $until::TIMESTAMP, $org_id::VARCHAR, $caller::VARCHAR, NULL)
"""
_CODES: Final = """
SELECT
    coalesce(errors.code, errors.gateway_reason, errors.status::VARCHAR) AS answer,
    count(*) AS errors,
    min(errors.ts) AS first_seen,
    max(errors.ts) AS last_seen,
    list_sort(list(DISTINCT product_of(errors.user_agent))) AS clients,
    max(catalogue.owner) AS owner,
    max(catalogue.client_action) AS client_action
FROM errors
LEFT JOIN catalogue ON catalogue.code = errors.code
WHERE ($caller::VARCHAR IS NULL OR errors.caller = $caller::VARCHAR)
  AND ($org_id::VARCHAR IS NULL OR errors.org_id = $org_id::VARCHAR)
  AND ($since::TIMESTAMP IS NULL OR errors.ts >= utc_moment($since::TIMESTAMP))
  AND ($until::TIMESTAMP IS NULL OR errors.ts < utc_moment($until::TIMESTAMP))
GROUP BY ALL
ORDER BY errors DESC, answer
"""


@dataclass(frozen=True)
class Verdict:
    """What one question says: its title, the word, how many rows say it, and a sentence of the first if it has one."""

    question: str
    title: str
    word: str
    rows: int
    sentence: str | None


@dataclass(frozen=True)
class History:
    """What the lake knows about one caller or organisation.

    `totals` has requests, errors, first_seen, last_seen, org_ids and callers; `codes` a row for each answer that was an
    error, with its count; `timeline` the events of the question `explain`, in order; `data_through` is the
    moment of the lake's latest request.
    """

    name: str
    kind: str
    totals: Row
    codes: tuple[Row, ...]
    verdicts: tuple[Verdict, ...]
    timeline: tuple[Row, ...]
    data_through: datetime | None


def kind_of(con: duckdb.DuckDBPyConnection, name: str) -> str:
    """What `name` is in the lake: a request, a caller or an organisation; BadInput where it is nothing."""
    with lake_errors():
        found = (kind for kind, rows in _KINDS if _rows(con, f"SELECT 1 {rows} LIMIT 1", name=name))
        kind = next(found, None)
    if kind is None:
        raise BadInput(
            f"nothing in the lake is called {name!r}: no request_id, key, address or org_id; "
            "those that met errors are in: errata ask errors_by_key"
        )
    return kind


def history(
    con: duckdb.DuckDBPyConnection,
    name: str,
    kind: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> History:
    """The story of the caller or organisation `name`, from `since` to before `until`. Raises as `answer` does."""
    filters = {"for_key" if kind == "caller" else "for_org": name}
    scope = {"since": since, "until": until}
    who = {"caller": name if kind == "caller" else None, "org_id": name if kind == "organisation" else None}
    with lake_errors():
        totals = _rows(con, _TOTALS, **who, **scope)[0]
        codes = _rows(con, _CODES, **who, **scope)
        data_through = _rows(con, "SELECT data_through() AS data_through")[0]["data_through"]
    return History(
        name=name,
        kind=kind,
        totals=totals,
        codes=tuple(codes),
        verdicts=tuple(_verdicts(con, filters | scope)),
        timeline=tuple(answer(con, "explain", about=name, **scope).to_arrow_table().to_pylist()),
        data_through=data_through,
    )


def history_text(told: History) -> str:
    """The history as text for a person, a paragraph per matter."""
    paragraphs = (_who(told), _what(told), _found(told), _when(told), _to_do(told))
    return "\n".join(
        "".join(f"{inert(line)}\n" for line in paragraph) for paragraph in map(list, paragraphs) if paragraph
    )


def _verdicts(con: duckdb.DuckDBPyConnection, filters: dict[str, Any]) -> Iterator[Verdict]:
    for question in questions().values():
        column = next((column.name for column in question.columns if column.name in _VERDICTS), None)
        if column is None or not {name for name in filters if filters[name]} <= {p.name for p in question.parameters}:
            continue
        rows = answer(con, question.name, **filters).to_arrow_table().to_pylist()
        for word, count in Counter(row[column] for row in rows).items():
            if word not in _NOTHING:
                first = next(row for row in rows if row[column] == word)
                yield Verdict(question.name, question.title, word, count, first.get("sentence") or first.get("note"))


def _who(told: History) -> Iterator[str]:
    totals = told.totals
    owner = f" of {', '.join(totals['org_ids'])}" if told.kind == "caller" and totals["org_ids"] else ""
    number = f"{totals['callers']:,} caller{'' if totals['callers'] == 1 else 's'}"
    callers = f", {number}" if told.kind == "organisation" else ""
    yield f"{told.name}: {'a caller' if told.kind == 'caller' else 'an organisation'}{owner}{callers}"
    if not totals["requests"]:
        yield "  It asked nothing in this period."
        return
    rate = totals["errors"] / totals["requests"]
    span = f"from {cell_text(totals['first_seen'])} to {cell_text(totals['last_seen'])}"
    yield f"  {totals['requests']:,} requests {span}, {totals['errors']:,} of them errors ({rate:.1%})"
    clients = sorted({client for row in told.codes for client in row["clients"] or () if client})
    if clients:
        more = f" and {len(clients) - 5:,} more" if len(clients) > 5 else ""
        yield f"  the errors were met by {', '.join(clients[:5])}{more}"
    if told.data_through is not None:
        yield f"  data through {cell_text(told.data_through)}"


def _what(told: History) -> Iterator[str]:
    if told.codes:
        yield "What it was answered"
    for row in told.codes[:_SHOWN]:
        span = f"from {cell_text(row['first_seen'])} to {cell_text(row['last_seen'])}"
        yield f"  {row['errors']:>8,}  {row['answer']}, {span}"
    if len(told.codes) > _SHOWN:
        yield f"  and {len(told.codes) - _SHOWN:,} answers more"


def _found(told: History) -> Iterator[str]:
    if told.verdicts:
        yield "What that means"
    for verdict in told.verdicts:
        times = f" ({verdict.rows:,} rows)" if verdict.rows > 1 else ""
        yield f"  {verdict.title}: {verdict.word}{times}; see errata ask {verdict.question}"
        if verdict.sentence:
            yield f"    {verdict.sentence}"


def _when(told: History) -> Iterator[str]:
    if not told.timeline:
        return
    yield "When"
    # Of many events the largest are told, in order of time; where it begins and ends always.
    largest = sorted(told.timeline, key=lambda row: (row["event"] == "errors", -row["requests"]))[:_SHOWN]
    for row in told.timeline:
        if row in largest:
            yield f"  {_event(row, told.kind)}"
    if len(told.timeline) > _SHOWN:
        yield f"  and {len(told.timeline) - _SHOWN:,} smaller events; see errata ask explain --about {told.name}"


def _event(row: Row, kind: str) -> str:
    seconds = (row["ended_at"] - row["started_at"]).total_seconds()
    lasted = f" in {seconds:,.0f} s" if seconds >= 1 else ""
    by = f" of {row['caller']}" if kind == "organisation" and row["caller"] else ""
    what = (
        f"{row['requests']:,} {row['answer']}{lasted}"
        if row["event"] == "errors"
        else f"{row['event']}, {row['answer']}"
    )
    ids = ", ".join(request_id for request_id in row["request_ids"] or () if request_id)
    return f"{cell_text(row['started_at'])}  {what}{by}{f'  ({ids})' if ids else ''}"


def _to_do(told: History) -> Iterator[str]:
    actions = [row for row in told.codes if row["client_action"]][:5]
    if actions:
        yield "What to do"
    for row in actions:
        yield f"  {row['answer']} ({row['owner']} acts): {row['client_action']}"


def _rows(con: duckdb.DuckDBPyConnection, sql: str, **parameters: object) -> list[Row]:
    table = con.sql(sql, params=parameters).to_arrow_table()
    return [
        dict(zip(table.column_names, row, strict=True)) for row in zip(*map(python_values, table.columns), strict=True)
    ]
