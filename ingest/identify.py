"""Which format one record is in, by the signatures of the formats, the surest first.

Knows signatures. Knows nothing of wrappers, nor of what becomes of a record.
"""

import re
from functools import cache
from typing import Any

from ingest.formats import CONFIDENCES, FieldPath, Format, Signature, formats
from ingest.json_text import object_of


@cache
def by_confidence(layout: str) -> tuple[Format, ...]:
    """The built-in formats of one layout, those with the surest signature first."""
    found = [format_ for format_ in formats().values() if format_.layout == layout]
    return tuple(sorted(found, key=lambda format_: (CONFIDENCES.index(format_.confidence), format_.name)))


def of_object(record: dict[str, Any]) -> Format | None:
    """The format of a JSON record."""
    return next((layout for layout in by_confidence("json") if is_signed(record, layout.signature)), None)


def of_text(record: str) -> Format | None:
    """The format of a record that is a line of text."""
    return next((layout for layout in by_confidence("text") if matched(record, layout)), None)


def of_fields(names: list[str]) -> Format | None:
    """The format of the lines below a `#Fields:` directive (W3C extended log file format) with these names."""
    for layout in by_confidence("w3c"):
        if layout.signature.all_of and {key for (key,) in layout.signature.all_of} <= set(names):
            return layout
    return None


def matched(record: str, layout: Format) -> re.Match[str] | None:
    """What the pattern of a text format finds in `record`."""
    # Of the classes of characters RE2, which the vectorised lane matches with, knows those of ASCII alone.
    return _pattern(layout.pattern).match(record)


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII)


def is_signed(record: dict[str, Any], signature: Signature) -> bool:
    """Whether a JSON record has all that a signature asks for."""
    if signature == Signature():
        return False
    return (
        all(_has(record, path) for path in signature.all_of)
        and all(any(_has(record, path) for path in group) for group in signature.any_of)
        and all(value_at(record, path) == text for path, text in signature.equals)
    )


def _has(record: dict[str, Any], path: FieldPath) -> bool:
    parent = value_at(record, path[:-1])
    return isinstance(parent, dict) and path[-1] in parent


def value_at(record: Any, path: FieldPath) -> Any:
    """The value that `path` leads to, None where it leads nowhere; a string on the way may hold JSON itself."""
    value = record
    for key in path:
        if isinstance(value, str) and value.startswith("{"):
            value = object_of(value)
        if isinstance(key, int):
            value = value[key] if isinstance(value, list) and key < len(value) else None
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value
