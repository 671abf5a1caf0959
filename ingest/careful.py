"""One record at a time, for what the vectorised lane refuses: the same fields, or the reason there are none.

A record that is not in its source's format is asked for its own, or taken out of what carried it. Knows the layouts of
`ingest.formats`; gives text, and leaves units and redaction to what both lanes share.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

import pyarrow as pa

from ingest import envelope, identify
from ingest.documents import split
from ingest.formats import FIELDS, Format
from ingest.json_text import DECODER
from ingest.repair import begun_again, repaired
from ingest.schema import DETAILS
from ingest.times import epoch_unit, micros
from ingest.unwrap import ZIPPED, unwrap

MOST_LAYERS: Final = 6
"""How deep a record may be wrapped."""

EPOCHS: Final = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
"""Microseconds in each unit of an epoch."""


@dataclass(frozen=True)
class Record:
    """What is a record of `layout`: its fields as text, None where it has none, and the envelope of its body.

    `ts` and `started` are epochs in microseconds.
    """

    line: int
    layout: Format
    fields: dict[str, str | None]
    envelope: envelope.Envelope
    is_html: bool


@dataclass(frozen=True)
class Refusal:
    """What is no record: `reason` is None for a blank line or a comment, which count as skipped."""

    line: int
    reason: str | None
    code: str | None = None


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


def as_read(layout: Format) -> Format:
    """`layout` as its records leave this lane: their times in microseconds."""
    return replace(layout, units={**layout.units, "ts": "us"})


def read(data: bytes, line: int, layout: Format, received_us: int | None = None) -> list[Record | Refusal]:
    """What one record is, by `layout` or by a format of its own; never raises, whatever the bytes.

    More than one where several stand on one line or in one wrapper, none where it is a wrapper's control message.
    `received_us` is when a wrapper received it, the time of a record that has none.
    """
    return _Reading(line, layout, received_us).of_bytes(data)


@dataclass(frozen=True)
class _Reading:
    """One record of a source in `layout`, however deep it is wrapped."""

    line: int
    layout: Format
    received_us: int | None
    layers: int = 0
    is_unzipped: bool = False

    def of_bytes(self, data: bytes) -> list[Record | Refusal]:
        data = data.removeprefix(b"\xef\xbb\xbf").strip()
        if not data or data.startswith(b"#"):
            return [Refusal(self.line, None)]
        if data[0] == 0 or data[-1] == 0:  # the hole that a truncated file has before what is written next
            data = data.strip(b"\0 \t\r\n")
            if not data:
                return [self._refusal()]
        # Surrogate escapes keep the bytes of a body that was logged raw, so that it can still be unzipped.
        text = data.decode("utf-8", "surrogateescape")
        if text[0] not in "{[":
            return self._text(data, text)
        try:
            value = DECODER.decode(text)
        except (ValueError, RecursionError):
            is_text = text[0] == "[" and (self.layout.layout == "text" or self._text_format(text) is not None)
            return self._text(data, text) if is_text else self._broken(data, text)
        if not isinstance(value, dict):
            return self._inside(data) or [Refusal(self.line, "not_an_object")]
        return self._object(data, value)

    def _object(self, data: bytes, value: dict[str, Any]) -> list[Record | Refusal]:
        of_source = self.layout if self.layout.layout == "json" else None
        if of_source:
            record = self._record(_fields(value, of_source), of_source)
            if record.fields["ts"] and record.fields.get("status"):
                return [record]
        found = None if self.layout.is_given else identify.of_object(value)
        if found is None and (inside := self._inside(data)) is not None:
            return inside
        if found is None:
            return [record] if of_source else [Refusal(self.line, "not_this_format")]
        return [self._record(_fields(value, found), found)]

    def _inside(self, data: bytes) -> list[Record | Refusal] | None:
        """What a wrapper held, None where `data` is no wrapper's."""
        found = unwrap(data, is_unzipped=self.is_unzipped) if self.layers < MOST_LAYERS else None
        if found is None:
            return None
        wrapper, held = found
        within = replace(self, is_unzipped=self.is_unzipped or wrapper == ZIPPED)
        if wrapper == "journald" and not held[0].data:
            return [Refusal(self.line, "left_out_by_journald")]
        return [record for inner in held for record in within._deeper(inner.received_us).of_bytes(inner.data)]

    def _deeper(self, received_us: int | None = None) -> "_Reading":
        received_us = self.received_us if received_us is None else received_us
        return replace(self, received_us=received_us, layers=self.layers + 1)

    def _broken(self, data: bytes, text: str) -> list[Record | Refusal]:
        """What is no JSON: several records on one line, one that was torn, or one of a template that breaks JSON."""
        documents, _ = split(data, is_end=True)
        if len(documents) > 1 and self.layers < MOST_LAYERS:
            return [record for document in documents for record in self._deeper().of_bytes(document.data)]
        value = repaired(text)
        if value is not None:
            return replace(self, layers=MOST_LAYERS)._object(b"", value)
        return [self._refusal(), *self._behind_torn(begun_again(text))]

    def _behind_torn(self, text: str) -> list[Record | Refusal]:
        """The records of `text` where it is one object, none where it is not."""
        try:
            value = DECODER.decode(text)
        except (ValueError, RecursionError):
            value = repaired(text)
        if not isinstance(value, dict):
            return []
        found = self._deeper()._object(_bytes(text), value)
        return [record for record in found if isinstance(record, Record) and record.fields["ts"]]

    def _text(self, data: bytes, text: str) -> list[Record | Refusal]:
        if self.layout.layout == "text" and (match := identify.matched(text, self.layout)):
            return [self._record(_groups(match), self.layout)]
        if (found := self._text_format(text)) and (match := identify.matched(text, found)):
            return [self._record(_groups(match), found)]
        inside = self._inside(data)
        if inside is not None:
            return inside
        is_other_json = self.layout.layout == "json" and _is_json(text)
        return [Refusal(self.line, "not_an_object") if is_other_json else self._refusal()]

    def _text_format(self, text: str) -> Format | None:
        return None if self.layout.is_given else identify.of_text(text)

    def _refusal(self) -> Refusal:
        return Refusal(self.line, "not_json" if self.layout.layout == "json" else "not_this_format")

    def _record(self, values: dict[str, str | None], layout: Format) -> Record:
        body = values.pop("body", None)
        is_html = body is not None and body.lstrip().startswith("<")
        is_success = (values.get("status") or "999") < "400"
        if body is None:
            found = envelope.Envelope("absent")
        elif is_success and "error" not in body:
            found = envelope.Envelope("whole")  # a success is not searched for an envelope that cannot be there
        else:
            found = envelope.decode(_bytes(body), is_success=is_success)
        missing = layout.missing
        fields: dict[str, str | None] = {
            name: value if value.isascii() else _valid(value)
            for name, value in values.items()
            if value is not None and (value not in missing or name in KEPT)
        }
        if found.headers:
            for name, header in _OF_HEADERS.items():
                fields[name] = fields.get(name) or found.headers.get(header)
        # A format that names no zone has the one that was given for its source.
        zone = _zone(self.layout.time_zone if layout.time_zone == "UTC" else layout.time_zone)
        ts_us = _micros(fields.get("ts"), layout, zone)
        fields["ts"] = _number(self.received_us if ts_us is None else ts_us)
        if "started" in fields:
            fields["started"] = _number(_micros(fields["started"], layout, zone))
        return Record(self.line, layout, fields, found, is_html)


def _is_json(text: str) -> bool:
    try:
        DECODER.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _groups(match: re.Match[str]) -> dict[str, str | None]:
    """What the groups of a pattern matched; RE2 does not tell a group without a match from one that matched nothing."""
    return {name: value or None for name, value in match.groupdict().items()}


def _fields(record: dict[str, Any], layout: Format) -> dict[str, str | None]:
    """The fields of a JSON record as text: of several candidates the first that is not missing."""
    missing = layout.missing
    found: dict[str, str | None] = {}
    for name, keys in layout.keys:
        for key in keys:
            value = record.get(key)
            if value is not None and (value not in missing or key is keys[-1]):
                found[name] = value if type(value) is str else envelope.as_text(value)
                break
    for name, paths in layout.nested:
        for path in paths:
            value = identify.value_at(record, path)
            if value is not None and (value not in missing or path is paths[-1]):
                found[name] = value if type(value) is str else envelope.as_text(value)
                break
    return found


# Whether the gateway wrote nothing or a dash tells whether it asked an upstream.
KEPT: Final = frozenset({"upstream_status"})
"""Fields whose markers of a missing value stay."""


_OF_HEADERS: Final = {
    "request_id": "x-request-id",
    "org_id": "x-org-id",
    "key_id": "x-key-id",
    "code": "x-error-code",
    "retry_after_s": "retry-after",
}
"""What a response that was recorded as it went over the wire says in its headers."""


def _zone(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)


def _micros(text: str | None, layout: Format, zone: tzinfo) -> int | None:
    """The time that `text` says, as the unit of `layout` has it, or in whatever form it is written."""
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        return micros(text.replace("\t", " "), zone)
    if not math.isfinite(number):
        return None
    unit = layout.unit("ts")
    unit = unit if unit in EPOCHS else epoch_unit(number)
    if unit == "ns" and text.isdecimal():
        return (int(text) + 500) // 1000  # of so many digits a float keeps no more than 53 bits
    # Halves away from zero, as in SQL.
    us = abs(number) * EPOCHS[unit] + 0.5
    return int(math.copysign(math.floor(us), number)) if math.isfinite(us) else None


def _number(number: int | None) -> str | None:
    return None if number is None else str(number)


def _valid(text: str) -> str:
    """`text` with what is no Unicode character replaced, so that Arrow and Parquet can hold it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def records_table(records: Sequence[Record]) -> pa.Table:
    """`records` as an Arrow table of the schema `RECORDS`."""
    # Arrow takes rows apart in C++ when they are one array of structures, seven times as fast as column by column.
    rows = pa.array([_row(record) for record in records], pa.struct(list(RECORDS)))
    return pa.Table.from_struct_array(rows)


def _row(record: Record) -> dict[str, Any]:
    found = record.envelope
    row: dict[str, Any] = {**record.fields, "line": record.line, "body_state": found.body_state}
    row["is_html"] = record.is_html
    if found.code or found.message:
        row["code"] = _maybe_valid(found.code) or row.get("code")
        row["message"] = _maybe_valid(found.message)
        row["envelope_request_id"] = _maybe_valid(found.request_id)
        row["docs_url"] = _maybe_valid(found.docs_url)
        row["details"] = found.details and [
            {"field": _maybe_valid(field), "issue": _maybe_valid(issue)} for field, issue in found.details
        ]
    return row


def _maybe_valid(text: str | None) -> str | None:
    return text if text is None or text.isascii() else _valid(text)
