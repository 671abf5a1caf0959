"""The error envelope out of a response body, however the gateway wrote the body down.

The ladder of decodings is tried in a fixed order, and no regular expression looks at a body before JSON does: messages
quote other envelopes. Knows the v1 envelope; knows neither gateways nor the lake.
"""

import base64
import binascii
import json
import re
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

BodyState = Literal["whole", "truncated", "absent", "undecodable"]

MOST_DECODED_BYTES: Final = 1 << 20
_DEEPEST: Final = 5
_MOST_CUT: Final = 1 << 16
_MISSING: Final = frozenset({b"", b"-", b"null", b"(null)", b"(not set)"})


@dataclass(frozen=True)
class Envelope:
    """What a body says of an error; `code` is None where it holds no envelope. `details` are (field, issue) pairs."""

    body_state: BodyState
    code: str | None = None
    message: str | None = None
    request_id: str | None = None
    docs_url: str | None = None
    details: tuple[tuple[str | None, str | None], ...] | None = None


def decode(body: bytes) -> Envelope:
    """The envelope of `body`, the raw bytes that were logged; never raises."""
    stripped = _strip(body)
    if stripped in _MISSING:
        return Envelope("absent")
    if stripped.startswith(b"<"):
        return Envelope("whole")
    cut = None
    for text in _decodings(stripped):
        try:
            found = _from_json(text)
        except RecursionError:
            return _start_of(text, "undecodable")
        if found is not None:
            return found
        if text.startswith(("{", "[")) and (cut is None or cut.code is None):
            cut = _start_of(text, "truncated")
    return cut or Envelope("whole" if _is_text(stripped) else "undecodable")


def _strip(body: bytes) -> bytes:
    body = body.removeprefix(b"\xef\xbb\xbf").strip()
    body = body.removeprefix(b")]}',").lstrip()
    jsonp = re.fullmatch(rb"[A-Za-z_$][\w.$]*\((.*)\);?", body, re.DOTALL)
    return jsonp.group(1) if jsonp else body


def _decodings(body: bytes) -> Iterator[str]:
    """`body` as text, then with each escaping undone that a gateway or wrapper may have applied, likeliest first."""
    if body.startswith(b"\x1f\x8b"):
        yield _gunzipped(body)
        return
    text = body.decode("utf-8", "replace")
    yield text
    for is_likely, undo in _ESCAPINGS:
        if is_likely(text):
            try:
                yield undo(text)
            except (ValueError, binascii.Error, zlib.error):
                continue


def _gunzipped(body: bytes) -> str:
    try:
        return zlib.decompressobj(31).decompress(body, MOST_DECODED_BYTES).decode("utf-8", "replace")
    except zlib.error:
        return ""


def _unbase64(text: str) -> str:
    text = text.translate(str.maketrans("-_", "+/")).rstrip("=")
    # Of a text that was cut, one letter may be left over that stands for less than a byte.
    whole = text[: len(text) - (len(text) % 4 == 1)]
    raw = base64.b64decode(whole + "=" * (-len(whole) % 4), validate=True)
    if raw.startswith(b"\x1f\x8b"):
        return _gunzipped(raw)
    # A recorded HTTP response in wire form: the body follows the blank line.
    wire = raw.partition(b"\r\n\r\n")[2] if raw.startswith(b"HTTP/") else raw
    return wire[:MOST_DECODED_BYTES].decode("utf-8", "replace")


def _unhex(marker: str) -> Callable[[str], str]:
    pattern = re.compile(re.escape(marker) + "([0-9A-Fa-f]{2})")
    return lambda text: pattern.sub(lambda match: chr(int(match.group(1), 16)), text)


def _unescaped(text: str) -> str:
    """Text that was escaped for JSON, with its quotes or without, and may be cut, even inside an escape."""
    uncut = re.sub(r"\\+(?:u[0-9A-Fa-f]{0,3})?$", "", text.removeprefix('"'))
    return str(json.loads(f'"{uncut}"', strict=False))


def _last_envelope_line(text: str) -> str:
    lines = [line.removeprefix("data:").strip() for line in text.splitlines()]
    return next((line for line in reversed(lines) if line.startswith("{") and '"error"' in line), "")


_ESCAPINGS: Final[tuple[tuple[Callable[[str], bool], Callable[[str], str]], ...]] = (
    (lambda text: "\n" in text, _last_envelope_line),
    (lambda text: "\\x22" in text[:64] or text.startswith("\\x7B"), _unhex("\\x")),
    (lambda text: "#22" in text[:64] or text.startswith("#7B"), _unhex("#")),
    (lambda text: text.startswith(('{\\"', '"{\\"')), _unescaped),
    (lambda text: text[:3].upper() in {"%7B", "%5B"}, urllib.parse.unquote),
    (lambda text: re.fullmatch(r"[A-Za-z0-9+/_-]{16,}={0,2}", text) is not None, _unbase64),
)


def _from_json(text: str) -> Envelope | None:
    """What JSON text holds: its envelope, one without a code where it is other JSON, None where it is no JSON."""
    value: Any = text
    for _ in range(_DEEPEST):
        try:
            value = json.loads(value, strict=False)
        except ValueError:
            return None
        if not isinstance(value, str):
            break
    candidates = value if isinstance(value, list) else [value]
    return next((found for found in map(_from_object, candidates) if found), Envelope("whole"))


def _from_object(value: object) -> Envelope | None:
    if not isinstance(value, dict) or value.get("object") != "error":
        return None
    code = value.get("code")
    if code is None or isinstance(code, dict | list):
        return Envelope("whole", None, as_text(value.get("message")), as_text(value.get("request_id")))
    return Envelope(
        "whole",
        as_text(code),
        as_text(value.get("message")),
        as_text(value.get("request_id")),
        as_text(value.get("docs_url")),
        _details(value.get("details")),
    )


def as_text(value: object) -> str | None:
    """A JSON value as text: a string as it is, null as None, anything else as compact JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _details(value: object) -> tuple[tuple[str | None, str | None], ...] | None:
    if value is None:
        return None
    if isinstance(value, dict):
        return tuple((key, as_text(item)) for key, item in value.items())
    if not isinstance(value, list):
        return ((None, as_text(value)),)
    return tuple(_detail(item) for item in value)


def _detail(item: object) -> tuple[str | None, str | None]:
    if isinstance(item, dict) and "issue" in item:
        return as_text(item.get("field")), as_text(item["issue"])
    return None, as_text(item)


_CODE: Final = re.compile(r'^\{\s*"object"\s*:\s*"error"\s*,\s*"code"\s*:\s*"([^"\\]{1,64})"')
_SAID: Final = re.compile(
    r'"(message|request_id|docs_url)"\s*:\s*("[^"\\]*(?:\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})[^"\\]*)*")'
)
_PRINTABLE: Final = re.compile(r"[^\x00-\x08\x0b\x0c\x0e-\x1f\ufffd]*")


def _start_of(text: str, body_state: BodyState) -> Envelope:
    """What JSON text that cannot be parsed says before its details; nothing where it does not start as an envelope."""
    code = _CODE.match(text)
    if not code:
        return Envelope(body_state)
    before_details = text[:_MOST_CUT].split('"details"', 1)[0]
    said = {name: str(json.loads(value, strict=False)) for name, value in _SAID.findall(before_details)}
    return Envelope(body_state, code.group(1), said.get("message"), said.get("request_id"), said.get("docs_url"))


def _is_text(body: bytes) -> bool:
    is_gzip = body.startswith(b"\x1f\x8b")
    return not is_gzip and _PRINTABLE.fullmatch(body.decode("utf-8", "replace")) is not None
