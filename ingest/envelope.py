"""What a response body says of an error, however the gateway wrote the body down.

The ladder of decodings is tried in a fixed order, and no regular expression looks for an envelope: messages quote other
envelopes. Knows the shapes of envelopes; knows neither gateways nor the lake.
"""

import base64
import json
import re
import urllib.parse
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

BodyState = Literal["whole", "truncated", "absent", "undecodable"]
Details = tuple[tuple[str | None, str | None], ...]

MOST_DECODED_BYTES: Final = 1 << 20
_MOST_CUT: Final = 1 << 16
_DEEPEST: Final = 5
_JSON: Final = json.JSONDecoder(strict=False)
_MISSING: Final = frozenset({b"", b"-", b"null", b"(null)", b"(not set)"})


@dataclass(frozen=True)
class Envelope:
    """What a body says of an error; `code` is None where it holds no envelope. `details` are (field, issue) pairs.

    `message` stands without a code only where the shape alone says error: in a v1 envelope and in a GraphQL answer.
    `headers` are those of a response that was recorded as it went over the wire, their names in lower case.
    """

    body_state: BodyState
    code: str | None = None
    message: str | None = None
    request_id: str | None = None
    docs_url: str | None = None
    details: Details | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def decode(body: bytes, *, is_success: bool = False) -> Envelope:
    """The envelope of `body`, the raw bytes that were logged; never raises.

    With `is_success`, for a status below 400, only a v1 envelope and a GraphQL answer with errors count: a resource may
    well have a `code`, a `type` and a `title` of its own.
    """
    stripped = _strip(body)
    if stripped.startswith(_RECORDED):
        headers, content = _response(stripped)
        if headers:
            return replace(_decode(_strip(content), is_success), headers=headers)
    return _decode(stripped, is_success)


def _decode(body: bytes, is_success: bool) -> Envelope:
    if body in _MISSING:
        return Envelope("absent")
    if body.startswith(b"<"):
        return Envelope("whole")
    cut = None
    for text in _decodings(body):
        try:
            return _from_json(_JSON.decode(_unquoted(text)), is_success) or Envelope("whole")
        except RecursionError:
            return _start_of(text, "undecodable", is_success)
        except ValueError:
            if (found := _from_lines(text, is_success)) is not None:
                return found
        if text.startswith(("{", "[")) and (cut is None or cut.code is None):
            cut = _start_of(text, "truncated", is_success)
    return cut or Envelope("whole" if _is_text(body) else "undecodable")


def as_text(value: object) -> str | None:
    """A JSON value as text: a string as it is, null as None, anything else as compact JSON."""
    if value is None or isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)  # as JSON has it, in a fifteenth of the time
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# The ladder: from bytes to JSON.


def _strip(body: bytes) -> bytes:
    body = body.removeprefix(b"\xef\xbb\xbf").strip()
    if body.startswith(b'"'):
        body = _unquoted(body.decode("utf-8", "replace")).encode("utf-8", "replace").strip()
    body = body.removeprefix(b")]}',").lstrip()
    jsonp = re.fullmatch(rb"[A-Za-z_$][\w.$]*\((.*)\);?", body, re.DOTALL)
    return jsonp.group(1) if jsonp else body


def _unquoted(text: str) -> str:
    """What a JSON string says, and the JSON string in it, as deep as anybody encodes; `text` where it is none."""
    for _ in range(_DEEPEST):
        if not text.startswith('"'):
            break
        try:
            text = _JSON.decode(text)
        except ValueError:
            break
    return text


_RECORDED: Final = (b"HTTP/", b"SFRUUC8")  # the second is the first in base64


def _response(recorded: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and content of a response in wire form, also in base64, or with its newlines made blanks.

    Without headers it is no such response.
    """
    try:
        raw = recorded if recorded.startswith(b"HTTP/") else _unbase64(recorded.decode("ascii"))
    except ValueError:
        return {}, b""
    if blank_line := re.search(rb"\r?\n\r?\n", raw):
        head, content = raw[: blank_line.start()], raw[blank_line.end() :]
    elif b"\n" in raw:
        head, content = raw[: raw.rindex(b"\n")], b""  # the last header may be cut
    else:
        # A header's value may itself start with a bracket.
        gap = re.search(rb"(?<=[^:,;\s])\s+(?=[{\[<])", raw)
        start = gap.end() if gap else len(raw)
        head, content = re.sub(rb"\s(?=[A-Za-z][A-Za-z0-9-]*:(?:\s|$))", b"\n", raw[:start]), raw[start:]
    headers: dict[str, list[str]] = {}
    for line in head.decode("utf-8", "replace").split("\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), []).append(value.strip())
    if "chunked" in headers.get("transfer-encoding", ()):
        content = _unchunked(content)
    return {name: ", ".join(values) for name, values in headers.items()}, content


def _unchunked(content: bytes) -> bytes:
    """The chunks of RFC 9112, 7.1, joined; `content` where it has none."""
    chunks, at = [], 0
    while (size := _CHUNK_SIZE.match(content, at)) and int(size.group(1), 16):
        at = size.end() + int(size.group(1), 16)
        chunks.append(content[size.end() : at])
    return b"".join(chunks) or content


_CHUNK_SIZE: Final = re.compile(rb"\r?\n?([0-9A-Fa-f]{1,8})[^\r\n]*\r?\n")


def _decodings(body: bytes) -> Iterator[str]:
    """`body` as text, then with each escaping undone that a gateway or wrapper may have applied, likeliest first."""
    if body.startswith(b"\x1f\x8b"):
        yield _gunzipped(body).decode("utf-8", "replace")
        return
    text = body.decode("utf-8", "replace")
    yield text
    for is_likely, undo in _ESCAPINGS:
        if is_likely(text):
            try:
                yield undo(text)
            except ValueError:
                continue


def _gunzipped(body: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(body, MOST_DECODED_BYTES)
    except zlib.error:
        return b""


def _unbase64(text: str) -> bytes:
    """Raises ValueError where `text` is no base64, of either alphabet, with its padding or without."""
    text = text.translate(str.maketrans("-_", "+/")).rstrip("=")
    # Of a text that was cut, one letter may be left over that stands for less than a byte.
    whole = text[: len(text) - (len(text) % 4 == 1)]
    raw = base64.b64decode(whole + "=" * (-len(whole) % 4), validate=True)
    return _gunzipped(raw) if raw.startswith(b"\x1f\x8b") else raw[:MOST_DECODED_BYTES]


def _unhex(marker: str) -> Callable[[str], str]:
    pattern = re.compile(re.escape(marker) + "([0-9A-Fa-f]{2})")
    return lambda text: pattern.sub(lambda match: chr(int(match.group(1), 16)), text)


def _unescaped(text: str) -> str:
    """Text that was escaped for JSON, with its quotes or without, and may be cut, even inside an escape."""
    uncut = re.sub(r"(?<!\\)\\++(?:u[0-9A-Fa-f]{0,3})?$", "", text.removeprefix('"'))
    return str(_JSON.decode(f'"{uncut}"'))


_ESCAPINGS: Final[tuple[tuple[Callable[[str], bool], Callable[[str], str]], ...]] = (
    (lambda text: "\\x22" in text[:64] or text.startswith("\\x7B"), _unhex("\\x")),
    (lambda text: "#22" in text[:64] or text.startswith("#7B"), _unhex("#")),
    (lambda text: text.startswith(('{\\"', '"{\\"')), _unescaped),
    (lambda text: text[:3].upper() in {"%7B", "%5B"}, urllib.parse.unquote),
    (
        lambda text: re.fullmatch(r"[A-Za-z0-9+/_-]{16,}={0,2}", text) is not None,
        lambda text: _unbase64(text).decode("utf-8", "replace"),
    ),
)


def _from_lines(text: str, is_success: bool) -> Envelope | None:
    """The last envelope of server-sent events or JSON lines, one without a code where they have none; else None."""
    is_stream = text.startswith(("data:", "event:", "id:", "retry:"))
    if not is_stream and "\n" not in text:
        return None
    last, is_whole = None, True
    for line in text.split("\n"):
        data = line.removeprefix("data:").strip()
        if not data.startswith(("{", "[")):
            continue
        try:
            last = _from_json(_JSON.decode(data), is_success) or last
        except (ValueError, RecursionError):
            if not is_stream:
                return None  # JSON over several lines: one in the midst of it may look like an envelope
            is_whole = False
            start = _start_of(data, "truncated", is_success)
            last = start if start.code else last
        is_stream = True
    return last or (Envelope("whole") if is_stream and is_whole else None)


class _Cut(dict[str, Any]):
    """The members of an object whose end is missing, and with it members that would say more."""


def _start_of(text: str, body_state: BodyState, is_success: bool) -> Envelope:
    """What JSON text that cannot be parsed says before its details; nothing where it does not start as an envelope."""
    start = _cut_value(text[:_MOST_CUT], 0, _DEEPEST)
    try:
        found = _from_json(start, is_success)
    except RecursionError:
        found = _from_json(_without_children(start), is_success)
    return replace(found, body_state=body_state, details=None) if found else Envelope(body_state)


def _cut_value(text: str, at: int, levels: int) -> Any:
    """The object or list at `at`: its whole members, and what there is of the last one; None for anything else."""
    if not levels or not text.startswith(("{", "["), at):
        return None
    is_object = text[at] == "{"
    members: Any = _Cut() if is_object else []
    at += 1
    while start := (_NAME if is_object else _BLANK).match(text, at):
        try:
            value, end = _JSON.raw_decode(text, start.end())
        except (ValueError, RecursionError):
            value, end = _cut_value(text, start.end(), levels - 1), len(text)
        delimiter = _DELIMITER.match(text, end)
        is_cut_number = end == len(text) and isinstance(value, int | float)
        if delimiter and value is not None and not is_cut_number:
            members.update({start.group(1): value}) if is_object else members.append(value)
        if not delimiter or delimiter.group(1) != ",":
            break
        at = delimiter.end()
    return members


def _without_children(value: object) -> object:
    members = value.items() if isinstance(value, dict) else ()
    return _Cut((name, member) for name, member in members if not isinstance(member, dict | list))


_NAME: Final = re.compile(r'\s*"((?:[^"\\]|\\.)*+)"\s*:\s*', re.DOTALL)
_BLANK: Final = re.compile(r"\s*")
_DELIMITER: Final = re.compile(r"\s*([,}\]]|\Z)")
_PRINTABLE: Final = re.compile(r"[^\x00-\x08\x0b\x0c\x0e-\x1f\ufffd]*")


def _is_text(body: bytes) -> bool:
    is_gzip = body.startswith(b"\x1f\x8b")
    return not is_gzip and _PRINTABLE.fullmatch(body.decode("utf-8", "replace")) is not None


# The shapes: from JSON to an envelope.


def _from_json(value: object, is_success: bool) -> Envelope | None:
    """The envelope that `value` is, or the first with a code of those in it; None where it is other JSON."""
    codeless = None
    for candidate in value if isinstance(value, list) else [value]:
        found = _from_object(candidate, is_success) if isinstance(candidate, dict) else None
        if found and found.code is not None:
            return found
        codeless = codeless or found
    return codeless


def _from_object(value: dict[str, Any], is_success: bool) -> Envelope | None:
    kind = value.get("object")
    if kind == "error":
        return _v1(value)
    if isinstance(kind, str):
        return None  # a resource that says what it is
    shapes = _SHAPES_OF_SUCCESS if is_success else _SHAPES
    return next((found for shape in shapes if (found := shape(value))), None)


def _v1(value: dict[str, Any]) -> Envelope:
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


def _nested(value: dict[str, Any]) -> Envelope | None:
    """`{error: {code, type, message}}`, as Stripe and many others have it, and google.rpc.Status (AIP-193)."""
    error = value.get("error")
    if not isinstance(error, dict):
        return None
    code = _google_code(error) or _code(error)
    if code is None and not isinstance(error, _Cut):
        code = _text(error.get("type"))
    param, decline = _text(error.get("param")), _text(error.get("decline_code"))
    details = _details(error.get("details")) or (((param, decline),) if param or decline else None)
    return _said(code, error, value, details=details)


def _google_code(status: dict[str, Any]) -> str | None:
    """The reason of a google.rpc.Status, or else its status: its `code` is a number that stands for that of HTTP."""
    if not isinstance(status.get("code"), int):
        return None
    reasons = (_text(detail.get("reason")) for detail in _objects(status.get("details")))
    name = status.get("status")
    is_name = not isinstance(status, _Cut) and isinstance(name, str) and re.fullmatch("[A-Z][A-Z_]*", name)
    return next((reason for reason in reasons if reason), name if is_name else None)


def _aws(value: dict[str, Any]) -> Envelope | None:
    """`{__type, message}` of the AWS JSON protocols."""
    return _said(_shape_name(_text(value.get("__type")) or ""), value)


def _problem(value: dict[str, Any]) -> Envelope | None:
    """A problem document (RFC 9457), told by title and status, or by a type that is a URI beside one of the others."""
    kind = _text(value.get("type"))
    is_titled = isinstance(value.get("title"), str) and isinstance(value.get("status"), int)
    is_typed = kind is not None and ("/" in kind or ":" in kind) and not value.keys().isdisjoint(_PROBLEM)
    if not is_titled and not is_typed:
        return None
    if kind is None or kind == "about:blank":
        # Without a type of its own, what a problem is stands in an extension, if anywhere.
        code = _code(value) or (None if isinstance(value, _Cut) else "about:blank")
        return _said(code, value, details=_details(value.get("errors")))
    found = _said(kind, value, details=_details(value.get("errors")))
    is_link = kind.startswith(("http://", "https://"))
    return replace(found, docs_url=found.docs_url or kind) if found and is_link else found


_PROBLEM: Final = frozenset({"title", "status", "detail"})


def _graphql(value: dict[str, Any]) -> Envelope | None:
    """`{errors: [{message, path, locations, extensions: {code}}]}`, whatever the HTTP status."""
    errors = [error for error in _objects(value.get("errors")) if _is_of_graphql(error)]
    if not errors:
        return None
    coded = next((error for error in errors if _graphql_code(error)), errors[0])
    return _envelope(_graphql_code(coded), coded, details=_of_fields(errors))


def _is_of_graphql(error: dict[str, Any]) -> bool:
    has_place = isinstance(error.get("path"), list) or isinstance(error.get("locations"), list)
    return (has_place and "message" in error) or _extension_code(error) is not None


def _graphql_code(error: dict[str, Any]) -> str | None:
    return _extension_code(error) or _code(error)


def _extension_code(error: dict[str, Any]) -> str | None:
    extensions = error.get("extensions")
    return _code(extensions) if isinstance(extensions, dict) else None


def _error_list(value: dict[str, Any]) -> Envelope | None:
    """`{errors: [{code, ...}]}`: JSON:API, and Twilio's newer APIs."""
    errors = _objects(value.get("errors"))
    coded = next((error for error in errors if _code(error)), None)
    return _said(_code(coded), coded, value, details=_of_fields(errors)) if coded else None


def _fastapi(value: dict[str, Any]) -> Envelope | None:
    """`{detail: [{loc, msg, type}]}`."""
    errors = [error for error in _objects(value.get("detail")) if "msg" in error or "loc" in error]
    typed = next((error for error in errors if _text(error.get("type"))), None)
    return _said(_text(typed.get("type")), typed, details=_details(errors)) if typed else None


def _oauth2(value: dict[str, Any]) -> Envelope | None:
    """`{error, error_description}` (RFC 6749, 5.2); an `error` that is a sentence or a status in words is no code."""
    error = value.get("error")
    is_code = isinstance(error, str) and _TOKEN.fullmatch(error)
    return _said(error, value) if is_code else None


_TOKEN: Final = re.compile(r"(?![A-Z][a-z]*$)[A-Za-z][A-Za-z0-9]*(?:[_.:-][A-Za-z0-9]+)*")


def _flat(value: dict[str, Any]) -> Envelope | None:
    """`{code, message}`: Twilio, and google.rpc.Status without a parent."""
    if not any(_text(value.get(name)) for name in _MESSAGES):
        return None
    return _said(_google_code(value) or _code(value), value, details=_details(value.get("details")))


# A code is looked for where it is most specific; without one an object is no envelope, whatever its `message`: that is
# how gateways answer themselves.
_SHAPES: Final = (_nested, _aws, _problem, _graphql, _error_list, _fastapi, _oauth2, _flat)
_SHAPES_OF_SUCCESS: Final = (_graphql,)
_MESSAGES: Final = ("message", "Message", "error_description", "detail", "msg", "title")
_REQUEST_IDS: Final = ("request_id", "requestId")
_DOCS_URLS: Final = ("docs_url", "doc_url", "more_info", "infoUrl", "error_uri")


def _said(code: str | None, *places: dict[str, Any], details: Details | None = None) -> Envelope | None:
    """An envelope with `code` and what the first of `places` says beside it; None without a code."""
    return None if code is None else _envelope(code, *places, details=details)


def _envelope(code: str | None, *places: dict[str, Any], details: Details | None) -> Envelope:
    def first(names: Iterable[str]) -> str | None:
        values = (value for place in places for name in names if (value := place.get(name)) not in (None, ""))
        return as_text(next(values, None))

    return Envelope("whole", code, first(_MESSAGES), first(_REQUEST_IDS), first(_DOCS_URLS), details or None)


def _code(value: dict[str, Any]) -> str | None:
    code = value.get("code")
    if isinstance(code, str):
        return _shape_name(code) if "#" in code else code or None
    # A number may be the HTTP status; what would tell is missing in an object that is cut.
    is_number = isinstance(code, int) and not isinstance(code, bool) and not isinstance(value, _Cut)
    return str(code) if is_number else None


def _shape_name(kind: str) -> str | None:
    """The name in an AWS error type: `namespace#Name:http://address`."""
    return kind.rpartition("#")[2].partition(":")[0] or None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _of_fields(errors: list[dict[str, Any]]) -> Details | None:
    return _details([error for error in errors if _field(error) is not None])


def _details(value: object) -> Details | None:
    if value is None:
        return None
    if isinstance(value, dict):
        return tuple(pair for key, issues in value.items() for pair in _issues(key, issues))
    if not isinstance(value, list):
        return ((None, as_text(value)),)
    return tuple(pair for item in value for pair in _detail(item))


def _issues(name: str, issues: object) -> Details:
    if isinstance(issues, list) and issues and all(isinstance(issue, str) for issue in issues):
        return tuple((name, issue) for issue in issues)
    return ((name, as_text(issues)),)


def _detail(item: object) -> Details:
    if not isinstance(item, dict):
        return ((None, as_text(item)),)
    if "@type" in item:  # google.rpc.ErrorInfo and google.rpc.BadRequest
        violations = _details(_objects(item.get("fieldViolations"))) or ()
        return violations + (_details(item.get("metadata")) or ())
    issue = next((name for name in _ISSUES if name in item), None)
    return ((_field(item), as_text(item[issue])),) if issue else ((None, as_text(item)),)


_FIELDS: Final = ("field", "pointer", "param", "loc", "path", "target", "parameter", "header")
_ISSUES: Final = ("issue", "detail", "msg", "message", "description", "title")


def _field(item: dict[str, Any]) -> str | None:
    source = item.get("source")
    place = source if isinstance(source, dict) else item
    name = next((name for name in _FIELDS if place.get(name) is not None), None)
    if name in {"loc", "path"} and isinstance(place[name], list):
        return ".".join(as_text(part) or "" for part in place[name])
    return as_text(place[name]) if name else None
