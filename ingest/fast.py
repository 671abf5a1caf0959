"""The vectorised lane: DuckDB SQL that reads clean records, and marks as refused what the careful lane must look at.

Knows the layouts of `ingest.formats` and the schema of records that it shares with the careful lane.
"""

# ruff: noqa: S608 - the SQL is built from the names and paths of a format, quoted
import json
import re
import time
from typing import Any, Final

import duckdb
import pyarrow as pa

from ingest.careful import KEPT, RECORDS
from ingest.formats import MISSING, FieldPath, Format
from ingest.prepared import quoted

_NUMBERS: Final = {"latency_ms": "DOUBLE", "status": "SMALLINT", "response_bytes": "BIGINT"}
# What decides something before redaction, where the usual markers are dropped once for all rows that have them.
_DECIDES: Final = frozenset({"method", "path", "body", "code"})
_EPOCHS: Final = frozenset({"epoch", "s", "ms", "us"})
_ENVELOPE: Final = json.dumps(
    dict.fromkeys(("object", "code", "message", "request_id", "docs_url"), "VARCHAR") | {"details": "JSON"}
)
_DETAILS: Final = json.dumps([{"field": "VARCHAR", "issue": "VARCHAR"}])


def records_sql(layout: Format, lines: str, *, is_clean: bool, groups: int) -> str:
    """A query over the relation `lines`, with `line` and `text`, that gives the columns of `RECORDS` and `is_refused`.

    Its numbers may be DOUBLE where `RECORDS` has text. A refused row's other columns mean nothing. With `is_clean` a
    line of broken JSON makes the whole query raise, for a fifth less time. `groups` are extracted at once from text.
    """
    record = _record(layout, lines, is_clean=is_clean, groups=groups)
    bodies = f"SELECT *, {_MAY_HOLD_ENVELOPE} AS may_hold_envelope FROM ({record})"
    envelopes = f"""
        SELECT *, CASE WHEN may_hold_envelope THEN TRY(json_transform(body, '{_ENVELOPE}')) END AS envelope
        FROM ({bodies})"""
    detailed = f"""
        SELECT *, CASE WHEN envelope.details IS NOT NULL
            THEN TRY(json_transform(envelope.details, '{_DETAILS}')) END AS details
        FROM ({envelopes})"""
    columns = ", ".join(_column(name, layout) for name in RECORDS.names[1:])
    return f"""
        SELECT line, {columns},
            is_refused OR CASE WHEN may_hold_envelope THEN NOT coalesce({_IS_PLAIN_ENVELOPE}, false) ELSE false END
                AS is_refused
        FROM ({detailed})"""


def successes_sql(layout: Format, lines: str, *, is_clean: bool, groups: int) -> str:
    """As `records_sql`, of plain successes alone: lines with a status below 400, no code and no body to look into."""
    record = _record(layout, lines, is_clean=is_clean, groups=groups)
    columns = ", ".join(_NOT_IN_A_SUCCESS.get(name, _column(name, layout)) for name in RECORDS.names[1:])
    code = "AND field_code IS NULL" if layout.has("code") else ""
    return f"""
        SELECT line, {columns}, false AS is_refused
        FROM ({record})
        WHERE NOT is_refused AND body IS NULL AND TRY_CAST(status AS SMALLINT) BETWEEN 100 AND 399 {code}"""


_NOT_IN_A_SUCCESS: Final = {
    "code": "NULL::VARCHAR AS code",
    "message": "NULL::VARCHAR AS message",
    "envelope_request_id": "NULL::VARCHAR AS envelope_request_id",
    "docs_url": "NULL::VARCHAR AS docs_url",
    "details": "NULL::STRUCT(field VARCHAR, issue VARCHAR)[] AS details",
    "body_state": "NULL::VARCHAR AS body_state",
    "is_html": "false AS is_html",
}


_MAY_HOLD_ENVELOPE: Final = """
    body IS NOT NULL AND NOT starts_with(body, '<')
    AND (coalesce(TRY_CAST(status AS SMALLINT), 999) >= 400 OR contains(body, 'error'))"""

_IS_PLAIN_ENVELOPE: Final = """
    envelope.object = 'error' AND regexp_full_match(envelope.code, '[A-Za-z0-9_.-]+')
    AND NOT regexp_matches(body, '(?s)"code"\\s*:.*"code"\\s*:')
    AND (envelope.details IS NULL OR envelope.details::VARCHAR = 'null'
        OR (json_type(envelope.details) = 'ARRAY' AND list_bool_and([d.issue IS NOT NULL FOR d IN details])))"""


def _column(name: str, layout: Format) -> str:
    match name:
        case "code":
            return f"coalesce(envelope.code, {'field_code' if layout.has('code') else 'NULL'}) AS code"
        case "message" | "docs_url":
            return f"envelope.{name} AS {name}"
        case "details":
            return "details"
        case "envelope_request_id":
            return "envelope.request_id AS envelope_request_id"
        case "is_html":
            return "coalesce(starts_with(body, '<'), false) AS is_html"
        case "body_state":
            return "CASE WHEN body IS NULL THEN 'absent' ELSE 'whole' END AS body_state"
        case _ if not layout.has(name):
            return f"NULL::VARCHAR AS {name}"
        case _:
            return name


def _record(layout: Format, lines: str, *, is_clean: bool, groups: int) -> str:
    if layout.layout == "json":
        return _json_record(layout, lines, "{}" if is_clean else "TRY({})")
    return _text_record(layout, lines, groups)


def _json_record(layout: Format, lines: str, attempt: str) -> str:
    record = attempt.format(f"json_transform(text, {quoted(json.dumps(_spec(layout)))})")
    fields = ", ".join(_json_field(name, paths, layout) for name, paths in layout.columns.items())
    return f"""
        SELECT line,
            record IS NULL OR {_lacks(layout, "ts")} OR {_lacks(layout, "status")} AS is_refused,
            {fields}{_absent(layout)}
        FROM (SELECT line, {record} AS record FROM {lines})"""


def _absent(layout: Format) -> str:
    """The columns that the queries over a record look at and `layout` does not have."""
    return "".join(f", NULL::VARCHAR AS {name}" for name in ("body", "status") if not layout.has(name))


def _spec(layout: Format) -> dict[str, Any]:
    """The structure that `json_transform` is to give: what the format names and nothing else."""
    spec: dict[str, Any] = {}
    for name, paths in layout.columns.items():
        is_epoch = name == "ts" and layout.unit("ts") in _EPOCHS
        kind = "DOUBLE" if is_epoch else _kind(name, layout)
        for path in paths:
            _put(spec, path, kind)
    return spec


def _lacks(layout: Format, name: str) -> str:
    return f"({_any(layout, name)}) IS NULL" if layout.has(name) else "true"


def _kind(name: str, layout: Format) -> str:
    return "VARCHAR" if layout.units.get(name) == "duration" else _NUMBERS.get(name, "VARCHAR")


def _put(level: dict[str, Any], path: FieldPath, kind: str) -> None:
    """Adds `path` to the structure `level`; a key that holds a list has a list of what is in it."""
    key, *rest = path
    places = 0
    while rest and isinstance(rest[0], int):
        rest.pop(0)
        places += 1
    inside = level.get(str(key))
    for _ in range(places if inside is not None else 0):
        inside = inside[0]  # type: ignore[index] # a format's file that reads a key as a list and not is refused
    if rest:
        inside = {} if inside is None else inside
        _put(inside, tuple(rest), kind)
    elif inside is None:
        inside = kind
    for _ in range(places):
        inside = [inside]
    level[str(key)] = inside


def _any(layout: Format, name: str) -> str:
    values = [f"record{''.join(map(_step, path))}" for path in layout.columns[name]]
    if len(values) == 1:
        return values[0]
    if _kind(name, layout) == "VARCHAR":
        values = [*(_unless_missing(value, layout) for value in values[:-1]), values[-1]]
    return f"coalesce({', '.join(values)})"


def _step(key: str | int) -> str:
    return f"[{key + 1}]" if isinstance(key, int) else f".{_identifier(key)}"


def _json_field(name: str, paths: tuple[FieldPath, ...], layout: Format) -> str:
    value = _any(layout, name)
    alias = "field_code" if name == "code" else name
    if _kind(name, layout) != "VARCHAR" or name in KEPT or (name == "ts" and layout.unit("ts") in _EPOCHS):
        return f"{value} AS {alias}"
    is_fallback = name in {"method", "path"} and layout.has("request_line")
    if set(layout.missing) <= set(MISSING) and not is_fallback and name != "code":
        return f"nullif({value}, '') AS {alias}" if name in _DECIDES else f"{value} AS {alias}"
    return f"{_unless_missing(value, layout)} AS {alias}"


def _text_record(layout: Format, lines: str, groups_at_once: int) -> str:
    names = list(layout.columns)
    runs = [names[at : at + groups_at_once] for at in range(0, len(names), groups_at_once)]
    records = ", ".join(f"{_groups(layout, run)} AS record_{number}" for number, run in enumerate(runs))
    places = {name: f"record_{number}.{name}" for number, run in enumerate(runs) for name in run}
    fields = ", ".join(_text_field(name, places[name], layout) for name in names)
    is_refused = f"is_behind_hole OR coalesce({places['status']}, '') = ''" if layout.has("status") else "true"
    # What a truncated file has before a line would be part of its first group.
    return f"""
        SELECT line, {is_refused} AS is_refused, {fields}{_absent(layout)}
        FROM (SELECT line, starts_with(text, chr(0)) AS is_behind_hole, {records} FROM {lines})"""


def _groups(layout: Format, names: list[str]) -> str:
    """SQL that gives the groups `names` of a line as a structure, whose fields are all '' where it does not match."""
    # RE2 numbers named groups like others, so that it is to know no more of them than are asked for.
    pattern = re.sub(r"\(\?P<(\w+)>", lambda group: group[0] if group[1] in names else "(?:", layout.pattern)
    return f"regexp_extract(text, {quoted(pattern)}, [{', '.join(map(quoted, names))}])"


ONE_PASS_GROUPS: Final = 4
"""Up to so many groups RE2 extracts in one pass over a line, if the pattern leaves it no choice on the way."""


def groups_at_once(con: duckdb.DuckDBPyConnection, layout: Format, lines: pa.Table) -> int:
    """How many groups of a text format's pattern to extract at a time: all, or as many as one pass can.

    Several passes take a third of the time, but for a pattern that is not made for one they take three times as long:
    the first of `lines`, with `line` and `text`, tell.
    """
    everything = max(1, len(layout.columns))
    if layout.layout != "text" or everything <= ONE_PASS_GROUPS:
        return everything
    con.register("first_lines", lines.slice(0, _TRIED))
    took = {}
    for size in (everything, ONE_PASS_GROUPS):
        query = f"SELECT count(COLUMNS(*)) FROM ({_text_record(layout, 'first_lines', size)})"
        con.execute(query).fetchall()
        start = time.perf_counter()
        con.execute(query).fetchall()
        took[size] = time.perf_counter() - start
    con.unregister("first_lines")
    return min(took, key=lambda size: took[size])


_TRIED: Final = 1000


def _text_field(name: str, value: str, layout: Format) -> str:
    alias = "field_code" if name == "code" else name
    # A group that matched nothing is empty here, and a group that is not there in Python.
    given = f"nullif({value}, '')" if name in KEPT else _unless_missing(value, layout)
    return f"{given} AS {alias}"


def _unless_missing(value: str, layout: Format) -> str:
    markers = ", ".join(quoted(marker) for marker in layout.missing)
    return f"CASE WHEN {value} IN ({markers}) THEN NULL ELSE {value} END" if markers else value


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
