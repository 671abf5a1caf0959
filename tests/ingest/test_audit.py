"""The native audit log of ModSecurity: several lines an entry, with whatever clients sent between them."""

import json
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.audit import as_json, entries
from ingest.parse import Lanes
from ingest.run import ingest
from ingest.source import Source
from ingest.unwrap import Inner, Joined, join, unwrap
from tests.ingest.logs import KEY, json_line, requests
from tests.ingest.wrapping import read

ENVELOPE: Final = b'{"object":"error","code":"rate_limit_exceeded","message":"Slow down.","request_id":"req_1"}'
STAMP: Final = b"[21/Aug/2024:14:00:00 +0200] ZsXSgH8AAQEAAB9nX2kAAAAC 203.0.113.17 43077 198.51.100.7 443"


def native(boundary: bytes = b"6ef24602", posted: bytes = b"a=b", body: bytes = ENVELOPE) -> list[bytes]:
    """The lines of an entry as ModSecurity 2 writes it, the blank one behind it included."""
    return [
        b"--" + boundary + b"-A--",
        STAMP,
        b"--" + boundary + b"-B--",
        b"POST /v1/messages?page=2 HTTP/1.1",
        b"Host: api.example.com",
        b"user-agent: acme-sdk/2.1",
        b"Authorization: *********",
        b"",
        b"--" + boundary + b"-C--",
        *posted.split(b"\n"),
        b"--" + boundary + b"-F--",
        b"HTTP/1.1 429 Too Many Requests",
        b"Retry-After: 30",
        b"X-Org-Id: org_acme",
        b"x-key-id: key_7f3a",
        b"",
        b"--" + boundary + b"-E--",
        *body.split(b"\n"),
        b"--" + boundary + b"-H--",
        b"Apache-Handler: proxy-server",
        b"Stopwatch: 1724241599996000 4012 (- - -)",
        b"Stopwatch2: 1724241599996000 4012; combined=5272, p1=4949",
        b'Engine-Mode: "ENABLED"',
        b"",
        b"--" + boundary + b"-Z--",
        b"",
    ]


def record(**response: str) -> dict[str, Any]:
    """What the entry above says, but for `response`."""
    return {
        "transaction": {
            "time": "21/Aug/2024:14:00:00 +0200",
            "transaction_id": "ZsXSgH8AAQEAAB9nX2kAAAAC",
            "remote_address": "203.0.113.17",
            "remote_port": 43077,
            "local_address": "198.51.100.7",
            "local_port": 443,
        },
        "request": {
            "request_line": "POST /v1/messages?page=2 HTTP/1.1",
            "headers": {"Host": "api.example.com", "User-Agent": "acme-sdk/2.1"},
        },
        "response": {
            "protocol": "HTTP/1.1",
            "status": 429,
            "headers": {"Retry-After": "30", "X-Org-Id": "org_acme", "X-Key-Id": "key_7f3a"},
            "body": ENVELOPE.decode(),
            **response,
        },
        "audit_data": {"duration_us": 4012},
    }


def found_in(entry: list[bytes]) -> Any:
    """What an entry says, its bytes that are no UTF-8 as surrogate escapes."""
    data = as_json(b"\n".join(entry))
    return None if data is None else json.loads(data.decode("utf-8", "surrogateescape"))


LIBMODSECURITY: Final = [
    b"---Dkc8Ww3D---A--",
    b"[21/Aug/2024:12:00:00 +0000] 172424160048.486973 203.0.113.17 43430 198.51.100.7 8080",
    b"---Dkc8Ww3D---B--",
    b"GET /v1/messages HTTP/1.1",
    b"Host: api.example.com",
    b"",
    b"---Dkc8Ww3D---D--",
    b"",
    b"---Dkc8Ww3D---E--",
    b"<html>",
    b"",
    b"---Dkc8Ww3D---F--",
    b"HTTP/1.1 403",
    b"Server: nginx",
    b"",
    b"---Dkc8Ww3D---H--",
    b'ModSecurity: Access denied with code 403 (phase 2). [file "a.conf"]',
    b"",
    b"---Dkc8Ww3D---Z--",
]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (native(), record()),
        (native(body=b"caf\xe9\x00"), record(body="caf\udce9\x00")),
        (native(body=b"a\n\nb\n"), record(body="a\n\nb\n")),
        (native(posted=b"--deadbeef-F--\nHTTP/1.1 200 OK"), record()),
        (
            LIBMODSECURITY,
            {
                "transaction": {
                    "time": "21/Aug/2024:12:00:00 +0000",
                    "transaction_id": "172424160048.486973",
                    "remote_address": "203.0.113.17",
                    "remote_port": 43430,
                    "local_address": "198.51.100.7",
                    "local_port": 8080,
                },
                "request": {"request_line": "GET /v1/messages HTTP/1.1", "headers": {"Host": "api.example.com"}},
                "response": {
                    "protocol": "HTTP/1.1",
                    "status": 403,
                    "headers": {"Server": "nginx"},
                    "body": "<html>\n",
                },
                "audit_data": {},
            },
        ),
        (
            [b"--6ef24602-A--", STAMP, b"--6ef24602-H--", b"Action: Intercepted (phase 2)", b"--6ef24602-Z--"],
            {
                **record(),
                "request": {},
                "response": {"headers": {}},
                "audit_data": {"action": {"intercepted": True}},
            },
        ),
    ],
    ids=[
        "ModSecurity 2",
        "a body that is no UTF-8",
        "a body of several lines",
        "a body with marks of another entry",
        "libmodsecurity",
        "an entry without request and response",
    ],
)
def test_an_entry_becomes_the_json_of_the_same_transaction(entry: list[bytes], said: dict[str, Any]) -> None:
    assert found_in(entry) == said


@pytest.mark.parametrize(
    "entry",
    [
        native()[:-2],
        native()[2:],
        [b"--6ef24602-A--", b"--6ef24602-Z--"],
        [b"--6ef24602-A--", STAMP, b"--deadbeef-Z--"],
        [b"--6ef24602-A--", b"a body of some form", b"--6ef24602-Z--"],
        [b"--boundary--"],
        [b"-"],
    ],
    ids=["torn", "no first section", "no header", "the end of another", "another header", "a form", "a dash"],
)
def test_what_is_no_whole_entry_is_left_as_it_is(entry: list[bytes]) -> None:
    assert unwrap(b"\n".join(entry)) is None


@given(lines=st.lists(st.sampled_from([*native(), *native(b"deadbeef"), *LIBMODSECURITY, b"\xff", b"x"]) | st.binary()))
@example(lines=[b"--6ef24602-A--", STAMP, b"--6ef24602-F--", b"--6ef24602-Z--"])
def test_no_lines_raise(lines: list[bytes]) -> None:
    lines = [b"--6ef24602-A--", STAMP, *(line.replace(b"\n", b"") for line in lines), b"--6ef24602-Z--"]

    joined = join(lines, is_end=True)

    assert b"\n".join(joined.records) == b"\n".join(lines)
    assert all(type(inner.data) is bytes for record in joined.records for inner in (unwrap(record) or ("", []))[1])


FIRST, SECOND, THIRD = native(), native(b"0badcafe"), native(b"feedf00d")
FORGED: Final = b"\n".join([*native(b"deadbeef"), json_line(), b"2024-08-21T12:00:00.123456Z stdout P x"])


@pytest.mark.parametrize(
    ("lines", "is_end", "records", "open_from"),
    [
        ([*FIRST, *SECOND], True, [FIRST, SECOND], None),
        ([b"x", *FIRST, b"y"], False, [[b"x"], FIRST, [b"y"]], None),
        (FIRST[:-1], False, [], 0),
        (FIRST[:-1], True, [FIRST[:-1]], None),
        ([*FIRST, *SECOND[:9]], False, [FIRST], len(FIRST)),
        ([*FIRST, *SECOND[:9]], True, [FIRST, SECOND[:9]], None),
        ([*FIRST[:9], *SECOND, *THIRD], True, [FIRST[:9], SECOND, THIRD], None),
        ([*FIRST[:9], *SECOND], False, [], 0),
        (native(posted=FORGED, body=FORGED), False, [native(posted=FORGED, body=FORGED)], None),
        (
            [b"--6ef24602-A--", b"a form", b"--6ef24602-Z--"],
            False,
            [[b"--6ef24602-A--"], [b"a form"], FIRST[-2:-1]],
            None,
        ),
        ([b"--boundary--", b""], False, [[b"--boundary--"], [b""]], None),
    ],
    ids=[
        "entries one after another",
        "lines of others around an entry",
        "an entry that may have a blank line behind it",
        "an entry without one at the end",
        "an open entry",
        "an open entry at the end",
        "a torn entry before whole ones",
        "an entry that may be torn, or hold what looks like another",
        "bodies that imitate entries and records",
        "a mark without a header",
        "a part of a form",
    ],
)
def test_the_lines_of_an_entry_are_put_together(
    lines: list[bytes], is_end: bool, records: list[list[bytes]], open_from: int | None
) -> None:
    joined = join(lines, is_end=is_end)

    assert joined.records == [b"\n".join(entry) for entry in records]
    assert [lines[first] for first in joined.first] == [entry[0] for entry in records]
    assert joined.open_from == open_from


def test_a_torn_entry_holds_up_the_log_no_longer_than_it_may() -> None:
    torn = [b"--6ef24602-A--", STAMP, b"x" * 500, b"y" * 500, *SECOND, b"z" * 500]

    assert entries(torn, is_end=False, most_bytes=1 << 20) == [(0, None)]
    assert entries(torn, is_end=False, most_bytes=1200) == [(0, 4), (4, 4 + len(SECOND))]
    assert entries(torn, is_end=False, most_bytes=600) == [(0, 3), (4, 4 + len(SECOND))]


@pytest.mark.parametrize("cut", range(len(FIRST) + len(SECOND) + len(THIRD)))
def test_a_log_that_is_split_at_any_line_gives_what_it_gives_at_once(cut: int) -> None:
    lines = [*FIRST, *native(b"0badcafe", posted=FORGED), *THIRD]

    begun = join(lines[:cut], is_end=False)
    rest = cut if begun.open_from is None else begun.open_from
    ended = join(lines[rest:], is_end=True)

    first = [*begun.first, *(rest + index for index in ended.first)]
    assert Joined([*begun.records, *ended.records], first, ended.open_from) == join(lines, is_end=True)


def log(folder: Path, lines: list[bytes]) -> Source:
    path = folder / "modsec_audit.log"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return Source(path.name, path)


def test_an_entry_is_one_row_with_what_the_api_said(tmp_path: Path, lanes: Lanes) -> None:
    found = read(log(tmp_path, [*FIRST, *native(b"0badcafe", body=b"caf\xe9")]), lanes)

    (first, second) = found.rows
    said = ("gateway", "status", "method", "path", "org_id", "key_id", "key_hash", "client_ip", "latency_ms", "line")
    assert [first[name] for name in said] == [
        *("modsecurity", 429, "POST", "/v1/messages", "org_acme", "key_7f3a", None, "203.0.113.17", 4.012, 1)
    ]
    assert (first["ts"].isoformat(), first["code"], first["request_id"], first["retry_after_s"]) == (
        *("2024-08-21T12:00:00+00:00", "rate_limit_exceeded", "req_1", 30.0),
    )
    assert (second["line"], second["request_id"], second["code"]) == (1 + len(FIRST), "ZsXSgH8AAQEAAB9nX2kAAAAC", None)
    assert found.detection.wrappers == ("modsecurity",)


def test_lines_are_requests_rejects_or_skipped(tmp_path: Path, lanes: Lanes) -> None:
    lines = [*FIRST, *SECOND[:9], *native(b"feedf00d", posted=FORGED, body=FORGED), b"--a--", *LIBMODSECURITY]

    found = read(log(tmp_path, lines), lanes)

    whole = [1, 1 + len(FIRST) + 9, len(lines) - len(LIBMODSECURITY) + 1]
    assert [row["line"] for row in found.rows] == whole
    assert [(reject["line"], reject["reason"]) for reject in found.rejects] == [
        (1 + len(FIRST), "not_json"),
        (len(lines) - len(LIBMODSECURITY), "not_json"),
    ]
    assert (found.progress.lines, found.progress.skipped) == (len(lines), len(lines) - 5)


def test_a_log_that_was_read_inside_an_entry_gives_the_rows_of_the_whole(tmp_path: Path) -> None:
    others = (native(boundary, body=ENVELOPE.replace(b"req_", boundary)) for boundary in (b"0badcafe", b"feedf00d"))
    lines = [*FIRST, *next(others), *next(others)]
    lake = tmp_path / "lake"

    for count in (len(FIRST) + 12, len(FIRST) + len(SECOND), len(lines)):
        for _ in ingest([log(tmp_path, lines[:count])], lake, key=KEY):
            pass

    assert [row["line"] for row in requests(lake)] == [1, 1 + len(FIRST), 1 + len(FIRST) + len(SECOND)]


def test_a_wrapped_entry_keeps_its_bytes() -> None:
    entry = b"\n".join(native(body=b"\x1f\x8b\xff"))

    assert unwrap(entry) == ("modsecurity", [Inner(as_json(entry) or b"", None)])
    assert astuple(join(native(body=b"\x1f\x8b\xff"), is_end=True)) == ([entry], [0], None)
