"""The vectorised lane and the careful lane give the same rows; here a line is made to go through either."""

import base64
import gzip
import json
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest import careful
from ingest.parse import Lanes
from tests.ingest.logs import (
    COMBINED,
    KEY,
    NGINX_JSON,
    SECOND,
    combined_line,
    error_line,
    json_line,
    parsed,
    record,
    settled,
)

JSON_LINES: Final = settled(NGINX_JSON, [json_line()])
COMBINED_LINES: Final = settled(COMBINED, [combined_line()])
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"  # what makes the vectorised lane refuse a line of JSON
SPACE: Final = b" "  # and one of text

WORDS: Final = (
    st.sampled_from(["", "-", "a", "a b", "é", "😀", '"', "\\", "a/b", "<b>", "tab\t", "line\nfeed", "nul\0", "\ud800"])
    | st.sampled_from(["+14155550123", "ada@mail.example", "sk_live_0123456789abcdef", "%2B14155550123", "null", "7"])
    | st.text(max_size=10)
)
VALUES: Final = WORDS | st.integers(-(10**6), 10**13) | st.none()
NUMBERS: Final = st.sampled_from(["", "-", "0.007", "0.1, 0.2", "0.1 : 0.3", "1e3", "x", 0, 0.25, 12, None])
STATUSES: Final = st.sampled_from([200, 201, 204, 301, 400, 401, 404, 429, 499, 500, 502, "200", "429", "503"])
IDS: Final = st.sampled_from(["/v1/messages", "/v1/messages/msg_1a?to=x", "/", "", "/a%20b/7", "*", "/é"]) | WORDS
FIELDS: Final = {
    "request_id": VALUES,
    "org_id": VALUES,
    "key_id": VALUES,
    "http_x_api_key": WORDS,
    "remote_addr": st.sampled_from(["198.51.100.7", "2001:db8::1", "unix:", ""]) | WORDS,
    "user_agent": VALUES,
    "method": st.sampled_from(["GET", "post", "", "\\x16\\x03", "X" * 30]),
    "uri": IDS,
    "request": st.sampled_from(["GET /v1/a?b=c HTTP/1.1", "", "-", "\\x16\\x03", "PUT /b"]) | WORDS,
    "retry_after": NUMBERS,
    "idempotency_key": VALUES,
    "request_time": NUMBERS,
    "upstream_time": NUMBERS,
    "upstream_status": st.sampled_from(["", "-", "200", "502, 200", "429", 200, None]),
    "bytes_sent": NUMBERS,
    "host": VALUES,
    "something_else": VALUES,
}

ISSUES: Final = (
    st.fixed_dictionaries({"field": VALUES, "issue": VALUES}) | st.fixed_dictionaries({"issue": WORDS}) | VALUES
)
ENVELOPES: Final = st.fixed_dictionaries(
    {
        "object": st.sampled_from(["error"] * 5 + ["message", None]),
        "code": st.sampled_from(["rate_limited", "not_found", "a b", "é", "", 429, None]),
        "message": VALUES,
    },
    optional={
        "request_id": VALUES,
        "docs_url": WORDS,
        "details": st.lists(ISSUES, max_size=3) | st.dictionaries(WORDS, VALUES, max_size=2) | VALUES,
        "extra": st.just({"object": "error", "code": "decoy"}),
    },
)
WRITINGS: Final[dict[str, Callable[[str], Any]]] = {
    "plain": lambda text: text,
    "padded": lambda text: f" {text}\n",
    "indented": lambda text: json.dumps(json.loads(text), indent=1),
    "batch": lambda text: f"[{text}]",
    "twice": json.dumps,
    "cut": lambda text: text[: len(text) * 2 // 3],
    "nginx escapes": lambda text: text.replace('"', "\\x22"),
    "base64": lambda text: base64.b64encode(text.encode("utf-8", "surrogatepass")).decode(),
    "html": lambda text: f"<html>{text}</html>",
    "decoy": lambda text: text.replace("it", '{\\"code\\":\\"decoy\\"}'),
    "code again": lambda text: text[:-1] + ',"code":"second"}',
    "object": json.loads,
    "nothing": lambda text: "",
    "null": lambda text: None,
}


@st.composite
def bodies(draw: st.DrawFn) -> Any:
    """An envelope of any kind, written in any way; at times unlike JSON writes it: with or without ASCII alone."""
    text = json.dumps(
        draw(ENVELOPES), ensure_ascii=draw(st.booleans()), separators=draw(st.sampled_from([(",", ":"), None]))
    )
    return WRITINGS[draw(st.sampled_from(["plain", *WRITINGS]))](text)


@st.composite
def json_lines(draw: st.DrawFn) -> bytes:
    """A line of nginx's JSON log with values of sane types, whatever they are."""
    fields = {name: draw(values) for name, values in FIELDS.items() if draw(st.booleans())}
    body = {"resp_body": draw(bodies())} if draw(st.booleans()) else {}
    text = json.dumps(
        record(msec=SECOND + draw(st.integers(0, 999)) / 1000, status=draw(STATUSES)) | fields | body,
        ensure_ascii=draw(st.booleans()),
    )
    return text.replace("\n", " ").encode("utf-8", "surrogatepass") + draw(st.sampled_from([b"", b"", b"\r"]))


@st.composite
def combined_lines(draw: st.DrawFn) -> bytes:
    """A line of the combined log, or nearly one."""
    word = st.text(st.characters(exclude_characters='\n"\\', exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
        ["-", "", '\\"', "\\x16\\x03", "ada@mail.example", "%2B14155550123"]
    )
    method = draw(st.sampled_from(["GET", "POST", "get", "\\x16"]))
    request = draw(st.sampled_from([f"{method} /v1/a/{draw(word)}?b HTTP/1.1", "-", "", draw(word)]))
    address = draw(st.sampled_from(["198.51.100.7", "2001:db8::1", "-", "host.example"]))
    time = draw(
        st.sampled_from(["23/Nov/2026:10:59:05 +0000", "23/Nov/2026:10:59:05 -0330", "31/Feb/2026:00:00:00 +0000", "-"])
    )
    status = draw(st.sampled_from(["200", "404", "499", "502", "000", "-"]))
    size = draw(st.sampled_from(["66", "0", "-"]))
    agent = draw(st.sampled_from([f' "-" "{draw(word)}"', "", ' "-" "sdk/1.0" "trailing"', ' "-" "cut']))
    return f'{address} - {draw(word)} [{time}] "{request}" {status} {size}{agent}'.encode()


@settings(max_examples=60)
@given(lines=st.lists(json_lines(), min_size=1, max_size=12))
@example(lines=[json_line(method="-", request="GET /v1/a HTTP/1.1")])
@example(lines=[json_line(uri="-", request="GET /v1/a HTTP/1.1")])
@example(lines=[json_line(status=404, resp_body='{"object":"error",\n"code":"x",\n"message":"m",\n"code":"second"}')])
@example(
    lines=[
        json_line(status=404, resp_body='{"object":"error","code":"x","details":[{"field":"to","issue":"\\ud800"}]}')
    ]
)
@example(lines=[json_line(resp_body={"object": "error", "code": "x"})])
def test_the_lanes_agree_on_json(lanes: Lanes, lines: list[bytes]) -> None:
    swiftly = parsed(lanes, JSON_LINES, lines)
    carefully = parsed(lanes, JSON_LINES, [BYTE_ORDER_MARK + line for line in lines])

    assert swiftly == carefully


@settings(max_examples=60)
@given(lines=st.lists(combined_lines(), min_size=1, max_size=12))
def test_the_lanes_agree_on_text(lanes: Lanes, lines: list[bytes]) -> None:
    swiftly = parsed(lanes, COMBINED_LINES, lines)
    carefully = parsed(lanes, COMBINED_LINES, [SPACE + line for line in lines])

    assert swiftly == carefully


@settings(max_examples=30)
@given(
    lines=st.lists(json_lines(), min_size=1, max_size=6),
    damage=st.sampled_from([b"{", b"\xff\xfe", b"\0", b"nonsense"]),
)
def test_a_broken_line_changes_nothing_for_its_neighbours(lanes: Lanes, lines: list[bytes], damage: bytes) -> None:
    rows, rejects = parsed(lanes, JSON_LINES, lines)

    assert parsed(lanes, JSON_LINES, [*lines, damage]) == (rows, [*rejects, (len(lines) + 1, "not_json")])


def test_a_record_with_other_keys_than_its_neighbours_loses_nothing(lanes: Lanes) -> None:
    plain = json.dumps({"msec": SECOND, "status": 200, "request_uri": "/health"}).encode()
    error = error_line("rate_limited", 429)

    rows, _ = parsed(lanes, JSON_LINES, [plain, error, plain])

    [alone], _ = parsed(lanes, JSON_LINES, [error])
    assert rows[1] == alone | {"line": 2}


@pytest.fixture
def carefully_read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The lines that the careful lane was given."""
    seen: list[bytes] = []
    read = careful.read

    def watched(data: bytes, *rest: Any) -> list[careful.Record | careful.Refusal]:
        seen.append(data)
        return read(data, *rest)

    monkeypatch.setattr(careful, "read", watched)
    return seen


PLAIN_LINES: Final = [
    json_line(),
    json_line(uri="/v1/messages/msg_1?to=x", user_agent='quoted "agent" \\ é', status=304),
    error_line("rate_limited", 429, retry_after="30"),
    json_line(
        status=400, resp_body='{"object":"error","code":"x","message":"m","details":[{"field":"to","issue":"i"}]}'
    ),
    json_line(status=502, upstream_status="", resp_body="<html>502 Bad Gateway</html>"),
    json_line(status=499, upstream_status="-", method="", uri=""),
]


def test_plain_lines_stay_in_the_vectorised_lane(lanes: Lanes, carefully_read: list[bytes]) -> None:
    rows, rejects = parsed(lanes, JSON_LINES, PLAIN_LINES)

    assert (len(rows), rejects, carefully_read) == (len(PLAIN_LINES), [], [])
    assert parsed(lanes, COMBINED_LINES, [combined_line()])[1] == []
    assert carefully_read == []


def test_a_prefix_sends_a_line_through_the_careful_lane(lanes: Lanes, carefully_read: list[bytes]) -> None:
    marked = [BYTE_ORDER_MARK + line for line in PLAIN_LINES]
    indented = [SPACE + combined_line()]

    assert len(parsed(lanes, JSON_LINES, marked)[0]) == len(marked)
    assert carefully_read == marked
    assert len(parsed(lanes, COMBINED_LINES, indented)[0]) == 1
    assert carefully_read == marked + indented


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not_json"),
        (b'{"msec": 1795431545.1, "status": 200', "not_json"),
        (b"[]", "not_an_object"),
        (b"7", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"\xff\xfe", "not_json"),
        (json_line(msec=...), "no_timestamp"),
        (json_line(msec=""), "no_timestamp"),
        (json_line(msec="yesterday"), "no_timestamp"),
        (json_line(msec=17), "impossible_timestamp"),
        (json_line(msec=1e300), "no_timestamp"),
        (json_line(status=...), "no_status"),
        (json_line(status=""), "no_status"),
        (json_line(status="OK"), "no_status"),
        (json_line(status=99), "no_status"),
        (json_line(status=1000), "no_status"),
        (json_line(status=99999), "no_status"),
        (b"2026/11/23 10:59:05 [error] 7#7: *1 upstream timed out", "not_json"),
    ],
)
@pytest.mark.parametrize("prefix", [b"", BYTE_ORDER_MARK], ids=["vectorised", "careful"])
def test_a_line_that_is_no_request_is_rejected_with_its_reason(
    lanes: Lanes, prefix: bytes, line: bytes, reason: str
) -> None:
    assert parsed(lanes, JSON_LINES, [prefix + line]) == ([], [(1, reason)])


@pytest.mark.parametrize("line", [b"", b" ", b"\t\r", b"# Fields: a b", BYTE_ORDER_MARK], ids=repr)
@pytest.mark.parametrize("layout", [JSON_LINES, COMBINED_LINES], ids=["JSON", "text"])
def test_blank_lines_and_comments_are_skipped(lanes: Lanes, line: bytes, layout: Any) -> None:
    assert parsed(lanes, layout, [line]) == ([], [])


@pytest.mark.parametrize(
    "line",
    [b"nonsense", b"198.51.100.7 - - no time", combined_line()[: len(b"198.51.100.7 - - [23/Nov")]],
    ids=["no fields", "no time", "cut"],
)
def test_a_line_of_text_in_another_form_is_rejected(lanes: Lanes, line: bytes) -> None:
    assert parsed(lanes, COMBINED_LINES, [line]) == ([], [(1, "not_this_format")])


def test_a_byte_that_is_no_utf8_is_replaced_and_the_record_kept(lanes: Lanes) -> None:
    rows, _ = parsed(lanes, JSON_LINES, [json_line(user_agent="caf?").replace(b"caf?", b"caf\xe9")])

    assert [row["user_agent"] for row in rows] == ["caf\ufffd"]


def test_a_body_that_was_logged_as_raw_gzip_is_read(lanes: Lanes) -> None:
    packed = gzip.compress(b'{"object":"error","code":"not_found","message":"no such message"}', mtime=0)
    raw = b"".join(b"\\u%04x" % byte if byte < 0x20 or byte in b'"\\' else bytes([byte]) for byte in packed)
    line = json_line(status=404, resp_body="BODY").replace(b"BODY", raw)

    [row], _ = parsed(lanes, JSON_LINES, [line])

    assert (row["code"], row["message"], row["body_state"]) == ("not_found", "no such message", "whole")


def test_of_a_key_that_a_record_has_twice_the_first_counts(lanes: Lanes) -> None:
    line = json_line(user_agent="first")[:-1] + b', "user_agent": "second"}'

    [row], _ = parsed(lanes, JSON_LINES, [line])
    [careful_row], _ = parsed(lanes, JSON_LINES, [BYTE_ORDER_MARK + line])

    assert (row["user_agent"], careful_row["user_agent"]) == ("first", "first")


def test_what_stands_for_nothing_is_null_in_every_column(lanes: Lanes) -> None:
    nothing = dict.fromkeys([name for name in record() if name not in {"msec", "status"}], "-")
    emptied = dict.fromkeys(nothing, "")

    rows, _ = parsed(lanes, JSON_LINES, [json_line(**nothing), json_line(**emptied)])

    always = {"ts", "day", "status", "kind", "origin", "gateway", "source_id", "line"}
    assert [{name for name, value in row.items() if value is not None} for row in rows] == [always, always]


def test_a_source_of_which_most_is_refused_is_read_alike_in_every_part() -> None:
    good, odd = json_line(), BYTE_ORDER_MARK + error_line("rate_limited", 429)
    parts = [[odd] * 3, [odd] * 4, [good] * 3, [good, odd], [odd, good, b"{"]]
    of_one_source = Lanes(KEY, 1)

    found = [parsed(of_one_source, JSON_LINES, lines) for lines in parts]

    assert found == [parsed(Lanes(KEY, 1), JSON_LINES, lines) for lines in parts]
    assert [(len(rows), rejects) for rows, rejects in found] == [
        (3, []),
        (4, []),
        (3, []),
        (2, []),
        (2, [(3, "not_json")]),
    ]
