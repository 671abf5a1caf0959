"""JSON as logs hold it, read in one way everywhere in ingest.

Of a repeated key the first counts, as in DuckDB, and control characters may stand in strings. Knows no format.
"""

import json
from typing import Any, Final

JsonObject = dict[str, Any]


def first_wins(pairs: list[tuple[str, Any]]) -> JsonObject:
    """The object of `pairs`; of a repeated key the first counts."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else dict(reversed(pairs))


DECODER: Final = json.JSONDecoder(strict=False, object_pairs_hook=first_wins)
"""Reads JSON text whose bytes that are no UTF-8 are surrogate escapes. Raises ValueError and RecursionError."""


def object_of(text: str) -> JsonObject | None:
    """The object that `text` is; None for other JSON, and for what is none."""
    try:
        value = DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
