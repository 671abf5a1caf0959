"""JSON lines from hand-made templates, which gateways break in a few known ways, made JSON again.

Knows the damage: `\\xHH` escapes (nginx escape=default), values left out, bare dashes and lists, unescaped quotes.
"""

import json
import re
from typing import Any, Final

from ingest.json_text import object_of

_STRING: Final = r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?$)'
_ESCAPE: Final = re.compile(r"\\\\|((?:\\x[0-9A-Fa-f]{2})+)")
_NUMBER: Final = r"(?:[0-9][0-9.]*+|-)"
_VALUE: Final = re.compile(
    rf"({_STRING})|:\s*+({_NUMBER}(?:\s*+[,:]\s*+{_NUMBER}){{1,16}}+|-?)(?=\s*+[,}}])", re.DOTALL
)
# A string that does not end takes all that follows, or each quote in it would be searched for an end of its own.
_UNESCAPED: Final = re.compile(r'"(?:(.*?)"(?=\s*+(?::|,\s*+"|\}))|.*)', re.DOTALL)
_OPENING: Final = re.compile(r'\{\s*+"(?:[^"\\]|\\.)*+"\s*+:')


# A search for the end of a string that has none costs the square of its length.
_LONGEST: Final = 1 << 16
_LONGEST_UNESCAPED: Final = 1 << 12


def repaired(text: str) -> dict[str, Any] | None:
    """The object that broken JSON was meant to be; None where it cannot be told."""
    if len(text) > _LONGEST:
        return None
    unescaped = _ESCAPE.sub(_as_json_escape, text)
    completed = _VALUE.sub(_as_json_value, unescaped)
    value = object_of(completed)
    if value is None and len(completed) <= _LONGEST_UNESCAPED and not begun_again(text):
        value = object_of(_UNESCAPED.sub(_as_json_string, completed))
    return value


def begun_again(text: str) -> str:
    """The record behind one that was torn, where another process or the next start wrote on in the same line: from the
    last place on that starts with the same key. Nothing where there is none; what comes back may be torn as well.
    """
    opening = _OPENING.match(text)
    return text[text.rfind(opening[0]) :] if opening and text.rfind(opening[0]) else ""


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
    return match[0] if match[1] is None else '"' + re.sub(r'(?<!\\)"', r"\"", match[1]) + '"'
