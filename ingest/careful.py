"""One record at a time, for the lines that the vectorised lane refuses: the same fields, or the reason there are none.

Knows the layouts of `ingest.formats`; gives text, and leaves types and redaction to what both lanes share.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from ingest import envelope
from ingest.formats import FIELDS, Format
from ingest.schema import DETAILS


@dataclass(frozen=True)
class Record:
    """A line that is a record: its fields as text, None where it has none, and the envelope of its body."""

    line: int
    fields: dict[str, str | None]
    envelope: envelope.Envelope
    is_html: bool


@dataclass(frozen=True)
class Refusal:
    """A line that is no record: `reason` is None for a blank line or a comment, which count as skipped."""

    line: int
    reason: str | None


RECORDS: Final = pa.schema(
    [
        pa.field("line", pa.int64()),
        *(pa.field(name, pa.string()) for name in FIELDS if name not in {"code", "body"}),
        pa.field("code", pa.string()),
        pa.field("message", pa.string()),
        pa.field("envelope_request_id", pa.string()),
        pa.field("docs_url", pa.string()),
        pa.field("details", DETAILS),
        pa.field("body_state", pa.string()),
        pa.field("is_html", pa.bool_()),
    ]
)
"""Arrow schema of records, as `records_table` gives them and the vectorised lane selects them."""

RECORDS_SQL: Final = "SELECT *, false AS is_refused FROM {}"
"""Records of this lane as a query, like that of the vectorised lane."""


def read_line(data: bytes, line: int, layout: Format) -> Record | Refusal:
    """The record on one line, or why there is none; never raises, whatever the bytes."""
    data = data.removeprefix(b"\xef\xbb\xbf").strip()
    if not data or data.startswith(b"#"):
        return Refusal(line, None)
    # Surrogate escapes keep the bytes of a body that was logged raw, so that it can still be unzipped.
    text = data.decode("utf-8", "surrogateescape")
    values = _from_json(text, layout) if layout.layout == "json" else _from_text(text, layout)
    if isinstance(values, str):
        return Refusal(line, values)
    body = values.pop("body", None)
    is_html = body is not None and body.lstrip().startswith("<")
    if body is None:
        found = envelope.Envelope("absent")
    elif (values["status"] or "999") < "400" and "error" not in body:
        found = envelope.Envelope("whole")  # a success is not searched for an envelope that cannot be there
    else:
        found = envelope.decode(_bytes(body))
    return Record(line, {name: _unless_missing(value, layout) for name, value in values.items()}, found, is_html)


def _from_json(text: str, layout: Format) -> dict[str, str | None] | str:
    try:
        # Of a repeated key the first counts, as in the vectorised lane.
        record = json.loads(text, strict=False, object_pairs_hook=lambda pairs: dict(reversed(pairs)))
        if not isinstance(record, dict):
            return "not_an_object"
        return {name: _first(record, paths) for name, paths in layout.columns.items()}
    except (ValueError, RecursionError):
        return "not_json"


def _first(record: dict[str, Any], paths: Iterable[tuple[str, ...]]) -> str | None:
    for path in paths:
        value: Any = record
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            return envelope.as_text(value)
    return None


def _from_text(text: str, layout: Format) -> dict[str, str | None] | str:
    # Of the classes of characters RE2, which the vectorised lane matches with, knows those of ASCII alone.
    match = re.match(layout.pattern, text, re.ASCII)
    return dict(match.groupdict()) if match else "not_this_format"


def _unless_missing(value: str | None, layout: Format) -> str | None:
    return None if value is None or value in layout.missing else _valid(value)


def _valid(text: str) -> str:
    """`text` with what is no Unicode character replaced, so that Arrow and Parquet can hold it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def records_table(records: Iterable[Record]) -> pa.Table:
    """`records` as an Arrow table of the schema `RECORDS`."""
    return pa.Table.from_pylist([_row(record) for record in records], schema=RECORDS)


def _row(record: Record) -> dict[str, object]:
    found = record.envelope
    details = found.details
    return {
        **record.fields,
        "line": record.line,
        "code": _maybe_valid(found.code) or record.fields.get("code"),
        "message": _maybe_valid(found.message),
        "envelope_request_id": _maybe_valid(found.request_id),
        "docs_url": _maybe_valid(found.docs_url),
        "details": details
        and [{"field": _maybe_valid(field), "issue": _maybe_valid(issue)} for field, issue in details],
        "body_state": found.body_state,
        "is_html": record.is_html,
    }


def _maybe_valid(text: str | None) -> str | None:
    return None if text is None else _valid(text)
