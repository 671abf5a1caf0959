"""What a client sends or an application says is never counted as a request, however much it looks like a record.

Each record is written twice: once with a harmless text, once with one that is a record or a wrapper itself, escaped as
its gateway escapes it. The rows differ in the column of that text alone.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pytest

from ingest import identify
from ingest.formats import FieldPath, Format, formats
from ingest.parse import Lanes
from ingest.source import Source
from tests.ingest.logs import Row, combined_line, error_line, json_line, record
from tests.ingest.wrapping import (
    Found,
    Wrap,
    back_to_back,
    cri,
    docker,
    indented,
    journald,
    json_array,
    plain,
    read,
    syslog_3164,
    syslog_5424,
)

ERROR: Final = error_line("internal_error", 500, request_id="forged")
TEXT_ERROR: Final = combined_line(status=500)
FORGED: Final = {
    "JSON": ERROR,
    "text": TEXT_ERROR,
    "in CRI": cri([ERROR]),
    "in Docker": docker([ERROR]),
    "in journald": journald([ERROR]),
    "in syslog": syslog_3164([ERROR]),
    "in newer syslog": syslog_5424([TEXT_ERROR]),
    "in an array": json_array([ERROR, ERROR]),
    "behind a quote": b'"}' + ERROR,
    "behind a quote and a line end": b'"}\n' + ERROR + b"\n",
    "behind the end of a text": b'" 200 1 "-" "x"\n' + TEXT_ERROR + b"\n",
    "keys": b'","status":500,"code":"forged","x":"',
    "keys behind": b'x", "status": "500", "response": {"status": 500}, "y": "',
    "an envelope": b'{"object":"error","code":"forged","message":"m"}',
    "escaped once more": json.dumps(ERROR.decode()).encode(),
    "escaped by nginx": ERROR.replace(b'"', rb"\x22"),
    "an Envoy record": b'[2026-11-23T10:59:05.000Z] "GET / HTTP/1.1" 500 UF 0 91 3 - "-" "-" "-" "-" "-"',
    "a directive": b"\n#Fields: date time sc-status\n2026-11-23\t10:59:05\t500\n",
    "control characters": b"\x00\x1b[31m\x0b\x85\x1c",
}
HARMLESS: Final = "sdk/1.0"
OF_CLIENTS: Final = ("user_agent", "path", "request_line", "host", "request_id")
DEPENDENT: Final = {"path": {"path", "route"}, "request_line": {"path", "route", "method", "host"}}


def found_in(folder: Path, data: bytes, lanes: Lanes) -> Found:
    path = folder / "access.log"
    path.write_bytes(data)
    return read(Source("access.log", path), lanes)


def samples(layout: Format) -> list[str]:
    """The sample lines of a format that are rows."""
    return [str(sample["line"]) for sample in layout.samples if "row" in sample]


def is_json(line: str) -> bool:
    """Whether a sample is JSON, and not what a template makes of it."""
    try:
        json.loads(line, strict=False)
    except ValueError:
        return False
    return True


def put(value: Any, path: FieldPath, text: str) -> bool:
    """Whether `text` could be put where `path` leads to a text in `value`, and is there now."""
    *parents, last = path
    for key in parents:
        is_there = isinstance(value, list) and isinstance(key, int) and key < len(value)
        value = value[key] if is_there else value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(value.get(last), str):
        return False
    value[last] = text
    return True


def json_lines(layout: Format, field: str, texts: Iterable[str]) -> list[bytes]:
    """The first sample of `layout` with each of `texts` in `field`; none where no client has a say in that."""
    lines = []
    for text in texts:
        value = json.loads(next(filter(is_json, samples(layout))), strict=False)
        prefix = {"path": "/v1/", "request_line": "GET /v1/"}.get(field, "")
        if not any(put(value, path, prefix + text) for path in layout.columns.get(field, ())):
            return []
        lines.append(json.dumps(value).encode())
    return lines


def unlike(row: Row, names: set[str]) -> Row:
    """`row` without the columns `names` and its place."""
    return {name: value for name, value in row.items() if name not in names | {"line"}}


JSON_FORMATS: Final = [
    layout
    for layout in formats().values()
    if layout.layout == "json" and any(map(is_json, samples(layout))) and json_lines(layout, "user_agent", [HARMLESS])
]


@pytest.mark.parametrize("layout", JSON_FORMATS, ids=lambda layout: layout.name)
def test_no_text_of_a_client_changes_more_than_its_own_column(tmp_path: Path, layout: Format, lanes: Lanes) -> None:
    texts = [HARMLESS, *(text.decode("latin-1") for text in FORGED.values())]
    by_field = {field: json_lines(layout, field, texts) for field in OF_CLIENTS}

    found = found_in(tmp_path, plain(line for lines in by_field.values() for line in lines), lanes)

    rows = iter(found.rows)
    assert found.rejects == []
    for field, lines in by_field.items():
        differs = DEPENDENT.get(field, {field})
        of_field = [unlike(next(rows), differs) for _ in lines]
        assert of_field == of_field[:1] * len(lines)
    assert next(rows, None) is None


NGINX_ESCAPED: Final = {byte: f"\\x{byte:02X}" for byte in {*range(0x20), *range(0x7F, 0x100), *b'"\\'}}
APACHE_ESCAPED: Final = NGINX_ESCAPED | {ord('"'): '\\"', ord("\\"): "\\\\", ord("\n"): "\\n"}
HAPROXY_ESCAPED: Final = {byte: f"#{byte:02X}" for byte in {*range(0x20), *range(0x7F, 0x100), *b'"#{|}'}}
NOT_ESCAPED: Final = dict.fromkeys([*range(0x20), *range(0x7F, 0x100)], "?")
TEXT_FORMATS: Final = [
    layout
    for layout in formats().values()
    if layout.layout == "text" and samples(layout) and {"user_agent", "request_line", "path"} & {*layout.columns}
]
UNESCAPED: Final = {"aws-api-gateway-csv", "aws-api-gateway-xml", "envoy-text", "istio-text", "tyk-gomap"}
"""Text that its gateway writes as the client sent it, but for line ends."""
ESCAPED: Final = [
    pytest.param(layout, escaped, id=f"{layout.name}, {name}")
    for layout in TEXT_FORMATS
    if layout.name not in UNESCAPED
    for name, escaped in (
        [("as HAProxy", HAPROXY_ESCAPED)]
        if layout.name.startswith("haproxy")
        else [("as nginx", NGINX_ESCAPED), ("as Apache", APACHE_ESCAPED)]
    )
]


def text_lines(layout: Format, field: str, texts: Iterable[str]) -> list[bytes]:
    """The first sample of `layout` with each of `texts` in `field`, between what is there and its end."""
    line = samples(layout)[0]
    match = identify.matched(line, layout)
    assert match is not None
    if not match.groupdict().get(field):
        return []
    at = match.start(field) + (len("GET /") if field == "request_line" else 1)
    return [(line[:at] + text + line[at:]).encode() for text in texts]


def text_by_field(layout: Format, escaped: dict[int, str]) -> dict[str, list[bytes]]:
    """Lines of `layout` by the field that has a harmless text first and each forged one then."""
    texts = [HARMLESS, *(text.decode("latin-1").translate(escaped) for text in FORGED.values())]
    # What asks for a path with a blank in it is no HTTP.
    without_blanks = [text.replace(" ", "%20") for text in texts]
    return {
        field: text_lines(layout, field, texts if field == "user_agent" else without_blanks)
        for field in ("user_agent", "path", "request_line")
    }


@pytest.mark.parametrize(("layout", "escaped"), ESCAPED)
def test_no_text_of_a_client_changes_more_of_a_line_of_text_than_its_own_column(
    tmp_path: Path, layout: Format, escaped: dict[int, str], lanes: Lanes
) -> None:
    by_field = text_by_field(layout, escaped)

    found = found_in(tmp_path, plain(line for lines in by_field.values() for line in lines), lanes)

    rows = iter(found.rows)
    assert found.rejects == []
    for field, lines in by_field.items():
        differs = DEPENDENT.get(field, {field})
        of_field = [unlike(next(rows), differs) for _ in lines]
        assert of_field == of_field[:1] * len(lines)
    assert next(rows, None) is None


@pytest.mark.parametrize("layout", [formats()[name] for name in sorted(UNESCAPED)], ids=lambda layout: layout.name)
def test_where_a_gateway_cannot_escape_a_client_spoils_its_own_line_at_most(
    tmp_path: Path, layout: Format, lanes: Lanes
) -> None:
    by_field = text_by_field(layout, NOT_ESCAPED)
    lines = [line for of_field in by_field.values() for line in of_field]

    found = found_in(tmp_path, plain(lines), lanes)

    # Envoy's text has no escapes: behind a quote in it, a user agent may give itself another request_id and host.
    kept = {(row["status"], row["code"], row["kind"], row["ts"], row["method"]) for row in found.rows}
    assert len(kept) == 1
    assert (
        len(found.rows) + len(found.rejects) == len({row["line"] for row in found.rows + found.rejects}) == len(lines)
    )


def test_in_json_that_escapes_nothing_a_client_can_forge_a_record(tmp_path: Path, lanes: Lanes) -> None:
    # A log_format with escape=none: this line is, byte for byte, a torn record with the next one behind it.
    honest, forged = json_line(user_agent=..., resp_body=...), json_line(status=500, resp_body=...)
    line = honest[:-1] + b', "user_agent": "' + forged[:-1] + b', "x": "", "referer": ""}'
    escaped = json_line(user_agent=f'{forged[:-1].decode()}, "x": "')

    found = found_in(tmp_path, plain([escaped, line]), lanes)

    assert ([(row["line"], row["status"]) for row in found.rows], found.reasons) == ([(1, 201), (2, 500)], ["not_json"])


WRAPS: Final[dict[str, Wrap]] = {
    "lines": plain,
    "CRI": cri,
    "CRI, split": lambda lines: cri(lines, 60),
    "Docker": docker,
    "Docker, split": lambda lines: docker(lines, 60),
    "journald": journald,
    "syslog RFC 3164": syslog_3164,
    "syslog RFC 5424": syslog_5424,
    "an array": json_array,
    "indented documents": indented,
    "back to back": back_to_back,
}


@pytest.mark.parametrize("field", ["user_agent", "uri", "resp_body", "referer"])
@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_a_success_stays_one_in_every_wrapper(tmp_path: Path, wrap: Wrap, field: str, lanes: Lanes) -> None:
    lines = [json_line(**{field: f"/{text.decode('latin-1')}"}) for text in [b"x", *FORGED.values()]]

    found = found_in(tmp_path, wrap(lines), lanes)

    assert found.rejects == []
    assert [(row["status"], row["code"], row["kind"], row["request_id"]) for row in found.rows] == [
        (201, None, "ok", "req_1")
    ] * len(lines)


def of_application(**fields: object) -> bytes:
    return json.dumps({"time": "2026-11-23T10:59:05Z", "level": "info", **fields}).encode()


SAID: Final = [
    *(
        of_application(**{key: said.decode()})
        for key in ("message", "msg", "log", "line")
        for said in (ERROR, TEXT_ERROR)
    ),
    of_application(message="replayed", request=record(status=500)),
    of_application(message="replayed", records=[record(status=500)]),
    of_application(message="replayed", events=[record(status=500)]),
    of_application(err={"message": ERROR.decode(), "stack": f"Error: {TEXT_ERROR.decode()}\n    at f (a.js:1:1)"}),
    b"Traceback (most recent call last):",
    b'  File "access.py", line 7, in read',
    b"ValueError: cannot parse '" + TEXT_ERROR + b"'",
    b"    at Parser.parse (parser.js:10:3): " + TEXT_ERROR,
    b"Caused by: java.io.IOException: " + ERROR,
    b"2026-11-23 10:59:05 ERROR upstream said " + TEXT_ERROR,
    b"2026-11-23T10:59:05.000Z INFO " + ERROR,
    b"level=info msg=" + json.dumps(TEXT_ERROR.decode()).encode(),
    b"[error] 7#7: *1 upstream sent: " + ERROR,
    b"INFO " + TEXT_ERROR,
    b"- " + TEXT_ERROR,
    b"> " + ERROR,
    json.dumps(ERROR.decode()).encode(),
]


@pytest.mark.parametrize("wrap", [plain, cri, docker, journald, syslog_3164], ids=lambda wrap: wrap.__name__)
@pytest.mark.parametrize("access", [json_line(), combined_line()], ids=["JSON", "text"])
@pytest.mark.parametrize("said", SAID, ids=lambda said: said[:60].decode())
def test_what_an_application_says_in_the_same_stream_is_a_reject(
    tmp_path: Path, access: bytes, said: bytes, wrap: Wrap, lanes: Lanes
) -> None:
    found = found_in(tmp_path, wrap([access, access, said, access]), lanes)

    assert [row["line"] for row in found.rows] == [1, 2, 4]
    assert [reject["line"] for reject in found.rejects] == [3]
