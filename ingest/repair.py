"""JSON lines from hand-made templates, which gateways break in a few known ways, made JSON again.

Knows the damage: `\\xHH` escapes (nginx escape=default), values left out, bare dashes and lists, unescaped quotes.
"""

import json
import re
from typing import Any, Final

_STRING: Final = r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?$)'
_ESCAPE: Final = re.compile(r"\\\\|((?:\\x[0-9A-Fa-f]{2})+)")
_VALUE: Final = re.compile(
    rf"({_STRING})|:\s*(-?|[0-9][0-9.]*(?:\s*[,:]\s*(?:[0-9][0-9.]*|-)){{1,16}})(?=\s*[,}}])", re.DOTALL
)
_UNESCAPED: Final = re.compile(r'"(.*?)"(?=\s*(?::|,\s*"|\}))', re.DOTALL)


# A search for the end of a string that has none costs the square of its length.
_LONGEST: Final = 1 << 16
_LONGEST_UNESCAPED: Final = 1 << 12


def repaired(text: str) -> dict[str, Any] | None:
    """The object that broken JSON was meant to be; None where it cannot be told."""
    if len(text) > _LONGEST:
        return None
    unescaped = _ESCAPE.sub(_as_json_escape, text)
    completed = _VALUE.sub(_as_json_value, unescaped)
    value = _loaded(completed)
    if value is None and len(completed) <= _LONGEST_UNESCAPED:
        value = _loaded(_UNESCAPED.sub(_as_json_string, completed))
    return value


def _loaded(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _as_json_escape(match: re.Match[str]) -> str:
    if match[1] is None:
        return match[0]
    characters = bytes.fromhex(match[1].replace("\\x", "")).decode("utf-8", "surrogateescape")
    return json.dumps(characters)[1:-1]


def _as_json_value(match: re.Match[str]) -> str:
    if match[1] is not None:
        return match[1]
    return ":null" if match[2] in ("", "-") else f':"{match[2]}"'


def _as_json_string(match: re.Match[str]) -> str:
    return '"' + re.sub(r'(?<!\\)"', r"\"", match[1]) + '"'
