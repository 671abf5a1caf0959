"""Which format a source is in: every record of its head votes, and the reasons are kept for people.

Knows signatures; parses no more of a record than it takes to vote.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Final

from ingest.formats import FieldPath, Format, formats
from ingest.schema import BadInput

_MOST_RECORDS: Final = 200
_CLF: Final = re.compile(r"\d{2}/[A-Z][a-z]{2}/\d{4}:")
_ISO8601: Final = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:")


@dataclass(frozen=True)
class Detection:
    """The format of a source with its time unit settled, how the head's records voted, and the reason in words."""

    layout: Format
    votes: dict[str, int]
    decision: str


def detect(name: str, head: bytes, given: Format | None = None, given_as: str = "") -> Detection:
    """The format of the source called `name` that starts with `head`.

    `given` decides without a vote, and `given_as` says who gave it. Raises BadInput where no format fits any record.
    """
    records = _head_records(head)
    votes = Counter(_vote(record) for record in records)
    if given is not None:
        return Detection(settled(given, records), dict(votes), given_as)
    known = [(count, format_name) for format_name, count in votes.items() if format_name in formats()]
    if not known:
        raise BadInput(
            f"{name}: none of the first {len(records)} records is in a known format ({', '.join(formats())}). "
            "For other JSON lines pass --mapping FILE."
        )
    count, winner = max(known)
    decision = f"detected: {count} of the first {len(records)} records"
    return Detection(settled(formats()[winner], records), dict(votes), decision)


def _head_records(head: bytes) -> list[str]:
    text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    lines = [line.strip() for line in text.split("\n")]
    # The head may end inside a line, which then must not vote.
    whole = lines[:-1] if len(lines) > 1 else lines
    return [line for line in whole if line and not line.startswith("#")][:_MOST_RECORDS]


def _vote(record: str) -> str:
    if record.startswith("{"):
        values = _object(record)
        if values is None:
            return "not_json"
        return next((layout.name for layout in formats().values() if _is_signed(values, layout)), "json")
    texts = (layout for layout in formats().values() if layout.layout == "text")
    return next((layout.name for layout in texts if re.match(layout.pattern, record)), "text")


def _object(record: str) -> dict[str, Any] | None:
    try:
        values = json.loads(record, strict=False)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _is_signed(values: dict[str, Any], layout: Format) -> bool:
    has_all = layout.signature_all and all(key in values for key in layout.signature_all)
    return bool(has_all) and all(any(key in values for key in group) for group in layout.signature_any)


def settled(layout: Format, records: list[str]) -> Format:
    """`layout` with its time unit decided by `records`, once for all: text by its form, a number by its magnitude."""
    for record in records:
        for path in layout.columns["ts"]:
            value = _value(record, path, layout)
            if value not in (None, *layout.missing):
                unit = layout.units.get("ts", "epoch")
                unit = _unit(str(value)) if unit == "epoch" else unit
                return replace(layout, columns={**layout.columns, "ts": (path,)}, units={**layout.units, "ts": unit})
    unit = layout.unit("ts").replace("epoch", "s")
    columns = {**layout.columns, "ts": layout.columns["ts"][:1]}
    return replace(layout, columns=columns, units={**layout.units, "ts": unit})


def _value(record: str, path: FieldPath, layout: Format) -> Any:
    if layout.layout == "text":
        match = re.match(layout.pattern, record, re.ASCII)
        return match[path[0]] if match else None
    value: Any = _object(record)
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _unit(value: str) -> str:
    try:
        magnitude = abs(float(value))
    except ValueError:
        return "clf" if _CLF.match(value) else "iso8601"
    return next((unit for unit, most in (("s", 1e11), ("ms", 1e14), ("us", 1e17)) if magnitude < most), "ns")
