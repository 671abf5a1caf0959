"""The envelope out of a body, however it was written down."""

import base64
import gzip
import json
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.envelope import MOST_DECODED_BYTES, Envelope, decode

FIXTURES: Final = Path(__file__).with_name("fixtures")


def cases(name: str) -> list[dict[str, Any]]:
    """The cases of a fixture, one a line."""
    return [json.loads(line) for line in (FIXTURES / name).read_text(encoding="utf-8").splitlines()]


BODIES: Final = cases("bodies.jsonl")
NASTY_BODIES: Final = cases("nasty_bodies.jsonl")
ENVELOPES: Final = cases("envelopes.jsonl")

TEXT: Final = (
    '{"object":"error","code":"validation_failed","message":"2 fields: \\"to\\" and \\u00fcber","request_id":"req_1",'
    '"docs_url":"https://docs.example/errors#validation_failed","details":[{"field":"to","issue":"required"},'
    '{"field":"body","issue":"too_long"}]}'
)
ENVELOPE: Final = Envelope(
    "whole",
    "validation_failed",
    '2 fields: "to" and über',
    "req_1",
    "https://docs.example/errors#validation_failed",
    (("to", "required"), ("body", "too_long")),
)
UNTIL_DETAILS: Final = Envelope("truncated", *list(vars(ENVELOPE).values())[1:5])


def hexed(marker: str) -> str:
    """`TEXT` as a proxy writes it that escapes quotes, braces and bytes over 0x7E as `marker` and two hex digits."""
    return "".join(
        chr(byte) if chr(byte) not in '"{}\\' and byte < 0x7F else f"{marker}{byte:02X}" for byte in TEXT.encode()
    )


@pytest.mark.parametrize("case", BODIES, ids=[case["case"] for case in BODIES])
def test_a_body_from_the_wild_gives_its_code_and_state(case: dict[str, Any]) -> None:
    found = decode(case["body"].encode())

    assert (found.code, found.body_state) == (case["code"], case["body_state"])


@pytest.mark.parametrize("case", NASTY_BODIES, ids=[case["case"] for case in NASTY_BODIES])
def test_a_body_that_is_hard_to_read_gives_its_code(case: dict[str, Any]) -> None:
    assert decode(case["raw_body"].encode()).code == case["expect"]


@pytest.mark.parametrize("case", ENVELOPES, ids=[case["variant"] for case in ENVELOPES])
def test_an_error_of_any_api_gives_its_code_and_what_a_gateway_says_itself_gives_none(case: dict[str, Any]) -> None:
    assert decode(json.dumps(case["body"]).encode()).code == case["expect_code"]


@pytest.mark.parametrize(
    "body",
    [
        TEXT.encode(),
        json.dumps(json.loads(TEXT), indent=2).encode(),
        json.dumps(TEXT).encode(),
        json.dumps(json.dumps(json.dumps(TEXT))).encode(),
        json.dumps(TEXT)[1:-1].encode(),
        hexed("\\x").encode(),
        hexed("#").encode(),
        TEXT.replace("{", "%7B").replace('"', "%22").replace("}", "%7D").replace(" ", "%20").encode(),
        base64.b64encode(TEXT.encode()),
        base64.urlsafe_b64encode(TEXT.encode()).rstrip(b"="),
        gzip.compress(TEXT.encode()),
        base64.b64encode(gzip.compress(TEXT.encode())),
        b"\xef\xbb\xbf " + TEXT.encode() + b"\r\n",
        b")]}',\n" + TEXT.encode(),
        b"callback(" + TEXT.encode() + b");",
        b"[" + TEXT.encode() + b', {"object":"error","code":"second"}]',
        b'[{"object":"message"}, ' + TEXT.encode() + b"]",
        b"event: error\ndata: " + TEXT.encode() + b"\n\n",
        b"data: " + TEXT.encode(),
        b'{"object":"chunk"}\n' + TEXT.encode() + b"\n",
        json.dumps(base64.b64encode(TEXT.encode()).decode()).encode(),
    ],
    ids=[
        "as it is",
        "pretty-printed",
        "encoded twice",
        "encoded four times",
        "escaped without quotes",
        "nginx escapes",
        "HAProxy escapes",
        "percent-encoded",
        "base64",
        "base64 for URLs without padding",
        "gzip",
        "gzip in base64",
        "with a byte order mark",
        "with a prefix against inclusion",
        "JSONP",
        "the first of a batch",
        "the second of a batch",
        "server-sent events",
        "one server-sent event",
        "JSON lines",
        "base64 in a JSON string",
    ],
)
def test_every_way_of_writing_a_body_gives_the_whole_envelope(body: bytes) -> None:
    assert decode(body) == ENVELOPE


@pytest.mark.parametrize(
    ("details", "pairs"),
    [
        ("null", None),
        ("[]", ()),
        ('[{"field":"to","issue":"required"}]', (("to", "required"),)),
        ('[{"issue":"required"}]', ((None, "required"),)),
        ('[{"field":null,"issue":null}]', ((None, None),)),
        ('[{"field":["to",1],"issue":7}]', (('["to",1]', "7"),)),
        ('[{"param":"to"}]', ((None, '{"param":"to"}'),)),
        ('["to is required", 7, null]', ((None, "to is required"), (None, "7"), (None, None))),
        ('[{"param":"to","message":"required"}]', (("to", "required"),)),
        ('[{"path":["to",0],"message":"required"}]', (("to.0", "required"),)),
        ('{"to":["is required","is no number"]}', (("to", "is required"), ("to", "is no number"))),
        ('{"limit":100,"window":{"s":60}}', (("limit", "100"), ("window", '{"s":60}'))),
        ('"to is required"', ((None, "to is required"),)),
        ("true", ((None, "true"),)),
    ],
)
def test_details_of_any_shape_become_pairs(
    details: str, pairs: tuple[tuple[str | None, str | None], ...] | None
) -> None:
    assert decode(f'{{"object":"error","code":"x","details":{details}}}'.encode()) == Envelope(
        "whole", "x", details=pairs
    )


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ('{"object":"error","code":429,"message":["a",1]}', Envelope("whole", "429", '["a",1]')),
        ('{"object":"error","code":true}', Envelope("whole", "true")),
        ('{"object":"error","code":null,"message":"m","request_id":7}', Envelope("whole", None, "m", "7")),
        ('{"object":"error","code":{"id":7},"message":"m"}', Envelope("whole", None, "m")),
        ('{"object":"error"}', Envelope("whole")),
        ('{"object":"message","code":"not_an_error"}', Envelope("whole")),
        ('{"message":"Forbidden"}', Envelope("whole")),
        ('{"error":{"message":"m"}}', Envelope("whole")),
        ('{"error":{"code":null,"type":null}}', Envelope("whole")),
        ('{"error":"Forbidden","message":"m"}', Envelope("whole")),
        ('{"__type":"a#:b","message":"m"}', Envelope("whole")),
        ('{"error":true,"code":false,"message":"m"}', Envelope("whole")),
        ('{"statusCode":404,"message":"m","error":"Not Found"}', Envelope("whole")),
        ('{"detail":"Not Found"}', Envelope("whole")),
        ('{"errors":["to is required",{"message":"m"}]}', Envelope("whole")),
        ('{"type":"message","status":"queued"}', Envelope("whole")),
        ('""', Envelope("absent")),
        ("[]", Envelope("whole")),
        ("17", Envelope("whole")),
        ("upstream connect error", Envelope("whole")),
        ("<html>502 Bad Gateway</html>", Envelope("whole")),
        (" \r\n", Envelope("absent")),
        ("-", Envelope("absent")),
        ("\x00\x01\x02", Envelope("undecodable")),
        ("caf\ufffd", Envelope("undecodable")),
    ],
)
def test_a_body_that_is_no_envelope_of_the_usual_shape_is_no_surprise(body: str, found: Envelope) -> None:
    assert decode(body.encode()) == found


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (
            '{"error":{"code":"invalid_recipient","type":"invalid_request","message":"m","param":"to"},"request_id":"r"}',
            Envelope("whole", "invalid_recipient", "m", "r", None, (("to", None),)),
        ),
        (
            '{"type":"error","error":{"type":"not_found_error","message":"m"},"request_id":"r"}',
            Envelope("whole", "not_found_error", "m", "r"),
        ),
        (
            '{"error":{"code":"BadArgument","message":"m","details":[{"code":"c","target":"to","message":"i"}]}}',
            Envelope("whole", "BadArgument", "m", details=(("to", "i"),)),
        ),
        (
            '{"error":{"type":"card_error","code":"","message":"m","doc_url":"https://d","decline_code":"no_funds"}}',
            Envelope("whole", "card_error", "m", None, "https://d", ((None, "no_funds"),)),
        ),
        (
            '{"code":21211,"message":"m","more_info":"https://d/21211","status":400}',
            Envelope("whole", "21211", "m", None, "https://d/21211"),
        ),
        (
            '{"errors":[{"code":20404,"message":"m","infoUrl":"https://d/20404"},{"code":2}]}',
            Envelope("whole", "20404", "m", None, "https://d/20404"),
        ),
        (
            '{"type":"https://d/limit","title":"t","status":429,"detail":"m",'
            '"errors":[{"detail":"i","pointer":"#/to"},{"detail":"j"}]}',
            Envelope("whole", "https://d/limit", "m", None, "https://d/limit", (("#/to", "i"), (None, "j"))),
        ),
        ('{"type":"urn:p:limit","detail":"m"}', Envelope("whole", "urn:p:limit", "m")),
        (
            '{"type":"about:blank","title":"t","status":400,"code":"extended"}',
            Envelope("whole", "extended", "t"),
        ),
        (
            '{"title":"t","status":400,"errors":{"To":["i","j"]}}',
            Envelope("whole", "about:blank", "t", details=(("To", "i"), ("To", "j"))),
        ),
        (
            '{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT","details":['
            '{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"to","description":"i"}]}]}}',
            Envelope("whole", "INVALID_ARGUMENT", "m", details=(("to", "i"),)),
        ),
        (
            '{"code":8,"message":"m","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo",'
            '"reason":"QUOTA","metadata":{"limit":"100"}}]}',
            Envelope("whole", "QUOTA", "m", details=(("limit", "100"),)),
        ),
        ('{"error":{"code":500,"message":"m","status":"Server Error"}}', Envelope("whole", "500", "m")),
        ('{"__type":"com.api#Throttling:http://x/","Message":"m"}', Envelope("whole", "Throttling", "m")),
        ('{"code":"com.api#Throttling","message":"m"}', Envelope("whole", "Throttling", "m")),
        (
            '{"data":null,"errors":[{"message":"m","path":["send",0],"extensions":{"code":"FORBIDDEN"}}]}',
            Envelope("whole", "FORBIDDEN", "m", details=(("send.0", "m"),)),
        ),
        (
            '{"errors":[{"message":"m","locations":[]},{"message":"n","extensions":{"code":"LATE"}}]}',
            Envelope("whole", "LATE", "n"),
        ),
        ('{"errors":[{"message":"m","locations":[{"line":1}]}]}', Envelope("whole", None, "m")),
        (
            '{"errors":[{"message":"m","path":"/to","code":"invalid"}]}',
            Envelope("whole", "invalid", "m", details=(("/to", "m"),)),
        ),
        (
            '{"errors":[{"status":"422","code":"invalid","title":"t","detail":"m","source":{"pointer":"/data/to"}},'
            '{"code":"blank","title":"i","source":{"parameter":"page"}}]}',
            Envelope("whole", "invalid", "m", details=(("/data/to", "m"), ("page", "i"))),
        ),
        (
            '{"error":"invalid_token","error_description":"m","error_uri":"https://d"}',
            Envelope("whole", "invalid_token", "m", None, "https://d"),
        ),
        (
            '{"detail":[{"type":"missing","loc":["body","to",0],"msg":"m"},{"type":"x","loc":["query"],"msg":"i"}]}',
            Envelope("whole", "missing", "m", details=(("body.to.0", "m"), ("query", "i"))),
        ),
    ],
    ids=[
        "code before type",
        "type without a code",
        "details with targets",
        "Stripe, declined",
        "Twilio",
        "Twilio, several",
        "problem with errors",
        "problem that is a URN",
        "problem with an extension",
        "problem without a type",
        "Google, bad request",
        "Google, without a parent",
        "no Google status",
        "AWS type",
        "AWS code",
        "GraphQL",
        "GraphQL, the first with a code",
        "GraphQL without a code",
        "a list of errors with paths",
        "JSON:API",
        "OAuth",
        "FastAPI",
    ],
)
def test_an_envelope_of_another_shape_gives_all_that_it_says(body: str, found: Envelope) -> None:
    assert decode(body.encode()) == found


@pytest.mark.parametrize(
    "body",
    [
        '{"code":"SMS-1","message":"hello","status":"queued"}',
        '{"type":"https://d/x","title":"t","status":200,"detail":"d"}',
        '{"error":null,"data":{"error":{"code":"x"}}}',
        '{"error":{"code":"last_error","message":"m"}}',
        '{"error":"last_error"}',
        '{"items":[{"id":1}],"errors":[]}',
        '{"errors":[{"code":"item_failed","detail":"d"}]}',
        '{"errors":[{"code":"item_failed","message":"m","path":"/to"}]}',
        '{"detail":[{"type":"x","msg":"m"}]}',
        '{"__type":"Widget","message":"m"}',
        '{"object":"list","data":[],"code":"ok","message":"m"}',
        '{"code":"x","message":"cut',
    ],
)
def test_a_success_is_no_error_for_having_fields_like_one(body: str) -> None:
    assert decode(body.encode(), is_success=True).code is None


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (TEXT, ENVELOPE),
        (f'[{{"object":"message"}},{TEXT}]', ENVELOPE),
        (TEXT[: TEXT.index("details")], UNTIL_DETAILS),
        (
            '{"data":{"a":null},"errors":[{"message":"m","extensions":{"code":"FORBIDDEN"}}]}',
            Envelope("whole", "FORBIDDEN", "m"),
        ),
        ('{"data":null,"errors":[{"message":"m","path":[]}]}', Envelope("whole", None, "m", details=(("", "m"),))),
    ],
    ids=["v1", "v1 in a batch", "v1, cut", "GraphQL", "GraphQL without a code"],
)
def test_an_error_may_be_answered_with_the_status_of_a_success(body: str, found: Envelope) -> None:
    assert decode(body.encode(), is_success=True) == found


HEAD: Final = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nX-Vary: a\r\nRetry-After: 30\r\nx-vary: b"
)
CHUNKED: Final = HEAD + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
HEADERS: Final = {"content-type": "application/json", "x-vary": "a, b", "retry-after": "30"}


@pytest.mark.parametrize(
    "response",
    [
        HEAD + b"\r\n\r\n" + TEXT.encode(),
        base64.b64encode(HEAD + b"\r\n\r\n" + TEXT.encode()),
        base64.b64encode(HEAD + b"\r\n\r\n" + gzip.compress(TEXT.encode())),
        HEAD.replace(b"\r", b"") + b"\n\n" + TEXT.encode(),
        HEAD.replace(b"\r\n", b" ") + b" " + TEXT.encode(),
        HEAD.replace(b"\r\n", b"  ") + b"  " + TEXT.encode(),
        json.dumps((HEAD + b"\r\n\r\n" + TEXT.encode()).decode()).encode(),
    ],
    ids=[
        "as it is",
        "in base64",
        "gzip, in base64",
        "with bare newlines",
        "with blanks for newlines",
        "with blanks for carriage returns too",
        "in a JSON string",
    ],
)
def test_a_recorded_response_gives_its_headers_beside_the_envelope(response: bytes) -> None:
    assert decode(response) == replace(ENVELOPE, headers=HEADERS)


def test_a_recorded_response_that_came_in_chunks_is_joined() -> None:
    parts = [TEXT[:7].encode(), TEXT[7:100].encode(), TEXT[100:].encode()]
    chunks = b"".join(b"%x;ext\r\n%b\r\n" % (len(part), part) for part in parts)

    whole = decode(CHUNKED + chunks + b"0\r\n\r\n")
    cut = decode(CHUNKED + chunks[: chunks.index(b"details") + len(b"details")])

    assert whole == replace(ENVELOPE, headers=HEADERS | {"transfer-encoding": "chunked"})
    assert cut == replace(UNTIL_DETAILS, headers=HEADERS | {"transfer-encoding": "chunked"})


@pytest.mark.parametrize(
    ("response", "found"),
    [
        (base64.b64encode(b"HTTP/1.1 502 X\r\nServer: x\r\n\r\n"), Envelope("absent", headers={"server": "x"})),
        (b"HTTP/1.1 502 Bad Gateway\r\nServer: x\r\n\r\nno route", Envelope("whole", headers={"server": "x"})),
        (b"HTTP/1.1 429 X\r\nServer: x\r\nRetry-After: 3", Envelope("absent", headers={"server": "x"})),
        (
            b'HTTP/1.1 404 X Nel: {"max_age":1} Retry-After: 3 {"error":"not_found","at":"X-A: b"}',
            Envelope("whole", "not_found", headers={"nel": '{"max_age":1}', "retry-after": "3"}),
        ),
        (b"HTTP/1.1 is required", Envelope("whole")),
        (b"HTTP/", Envelope("whole")),
        (b"SFRUUC8", Envelope("whole")),
        (b"SFRUUC8\xff\xff", Envelope("undecodable")),
    ],
    ids=["empty", "text", "cut head", "braces in a header", "text about HTTP", "prefix", "base64", "bad base64"],
)
def test_what_looks_like_a_recorded_response_is_read_as_far_as_it_is_one(response: bytes, found: Envelope) -> None:
    assert decode(response) == found


def test_a_stream_without_an_error_is_whole() -> None:
    assert decode(b'{"object":"chunk"}\n{"object":"chunk"}\n') == Envelope("whole")
    assert decode(b'data: {"id":1}\n\ndata: [DONE]\n\n') == Envelope("whole")


def test_an_envelope_that_is_cut_at_the_end_of_a_stream_counts() -> None:
    cut = TEXT[: TEXT.index("details")]

    assert decode(f'{{"object":"chunk"}}\n{cut}'.encode()) == UNTIL_DETAILS
    assert decode(f'data: {{"id":1}}\n\ndata: {cut}'.encode()) == UNTIL_DETAILS


def test_details_over_several_lines_are_no_stream_of_envelopes() -> None:
    item = '{"code":"decoy","message":"m"}'
    body = f'{{\n"object":"error",\n"code":"x",\n"details":[\n{item},\n{item}'

    assert decode(body.encode()) == Envelope("truncated", "x")


@pytest.mark.parametrize(
    "text", [TEXT, json.dumps(TEXT)[1:-1], hexed("\\x"), hexed("#")], ids=["plain", "escaped", "nginx", "HAProxy"]
)
def test_a_body_that_is_cut_after_its_docs_url_keeps_all_but_the_details(text: str) -> None:
    assert decode(text[: text.index("details") + len("details")].encode()) == UNTIL_DETAILS


def test_a_body_that_is_cut_in_its_compressed_form_keeps_its_start() -> None:
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(TEXT[:200].encode()) + packer.flush(zlib.Z_SYNC_FLUSH)

    assert decode(packed) == UNTIL_DETAILS
    assert decode(base64.b64encode(packed)) == UNTIL_DETAILS
    assert decode(base64.b64encode(TEXT.encode())[:269]) == UNTIL_DETAILS


@given(end=st.integers(0, len(TEXT) - 1))
def test_whatever_is_left_of_a_cut_body_is_never_wrong(end: int) -> None:
    found = decode(TEXT[:end].encode())

    known = vars(ENVELOPE)
    assert found.body_state == ("truncated" if end else "absent")
    assert {name: value for name, value in vars(found).items() if value not in (None, known[name])} == {
        "body_state": found.body_state
    }
    assert (found.code is not None) == (end >= len('{"object":"error","code":"validation_failed"'))


@pytest.mark.parametrize("case", ENVELOPES, ids=[case["variant"] for case in ENVELOPES])
def test_whatever_is_left_of_a_cut_body_of_any_shape_gives_its_code_or_none(case: dict[str, Any]) -> None:
    text = json.dumps(case["body"])

    assert {decode(text[:end].encode()).code for end in range(len(text))} <= {case["expect_code"], None}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ('{"error":{"type":"t","code":"card_declined","mess', "card_declined"),
        ('{"error":{"type":"t","co', None),
        ('{"error":{"type":"t"},"request_id":"r', "t"),
        ('{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","det', None),
        ('{"error":{"code":429,"details":[{"reason":"QUOTA"},{"rea', "QUOTA"),
        ('{"__type":"a#B:c","mess', "B"),
        ('{"type":"https://d/x","title":"t","deta', "https://d/x"),
        ('{"title":"t","status":404,"deta', None),
        ('{"errors":[{"message":"m","path":["a"],"extensions":{"code":"FORBIDDEN","cl', "FORBIDDEN"),
        ('{"errors":[{"id":"e","code":"invalid","sou', "invalid"),
        ('{"errors":[{"code":2040', None),
        ('{"detail":[{"type":"missing","loc":["body"],"ms', "missing"),
        ('{"error":"invalid_token","error_desc', "invalid_token"),
        ('{"error":"invalid_to', None),
        ('{"code":"x","object":"error","mess', "x"),
        ('{"object":"error","code":42', None),
        ('{"object":"error","message":"it"s","code":"x"}', None),
        ('[{"object":"error","code":"x"},{"obj', "x"),
    ],
)
def test_a_cut_body_gives_a_code_that_nothing_in_the_rest_could_change(body: str, code: str | None) -> None:
    found = decode(body.encode())

    assert (found.code, found.body_state) == (code, "truncated")


@pytest.mark.parametrize(
    "body",
    [
        '{"object":"error","code":"x","message":"{\\"object\\":\\"error\\",\\"code\\":\\"decoy\\"}"}',
        '{"object":"error","code":"x","details":{"code":"decoy","object":"error"}}',
        '{"object":"error","code":"x","message":"a \\\\\\"code\\\\\\":\\\\\\"decoy\\\\\\" b',
        '{"object":"error","code":"x","details":[{"object":"error","code":"decoy"',
        '{"error":{"message":"{\\"error\\":{\\"code\\":\\"decoy\\"}}","code":"x"},"errors":[{"code":"decoy"}]}',
        '{"error":"x","error_description":"{\\"object\\":\\"error\\",\\"code\\":\\"decoy\\"}\\n{',
    ],
    ids=[
        "in the message",
        "in the details",
        "in a message that is cut",
        "in details that are cut",
        "in another shape",
        "in another shape that is cut",
    ],
)
def test_an_envelope_that_is_quoted_in_another_is_not_taken_for_it(body: str) -> None:
    assert decode(body.encode()).code == "x"


@given(st.binary(max_size=200))
@example(b"\x1f\x8b")
@example(b'"\\ud800"')
def test_no_bytes_make_it_raise(body: bytes) -> None:
    assert decode(body).code is None


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMED: Final = st.fixed_dictionaries(
    {"object": st.just("error") | JSON, "code": st.sampled_from(["rate_limited", "", "é"]) | JSON},
    optional=dict.fromkeys(("message", "request_id", "docs_url", "details"), JSON),
)


@given(
    envelope=NAMED,
    end=st.integers(0, 400),
    swapped=st.tuples(
        st.sampled_from('"\\{}[]:,u'), st.sampled_from(["", '"', "\\", "\\q", "\\u12", "\x00", "\udcff"])
    ),
)
@example({"object": "error", "code": "x", "message": "it is b:d", "details": 1}, 400, (":", "\\q"))
@example({"object": "error", "code": "x", "message": "u", "details": 1}, 400, ("u", "\\q"))
def test_no_damaged_envelope_makes_it_raise(envelope: dict[str, Any], end: int, swapped: tuple[str, str]) -> None:
    text = json.dumps(envelope).replace(*swapped)[:end]

    assert decode(text.encode("utf-8", "surrogateescape")).body_state in {"whole", "truncated", "absent", "undecodable"}


FIELDS: Final = ("error", "errors", "code", "type", "status", "title", "detail", "details", "extensions", "message")
LIKE_ERRORS: Final = st.recursive(
    JSON | st.sampled_from(["rate_limited", "about:blank", "a#b:c", "https://d", "HTTP/1.1 200\n\n", 429]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*FIELDS, "__type", "@type", "source", "loc", "path", "reason"]), inner)
    ),
    max_leaves=12,
)


@given(value=LIKE_ERRORS, end=st.integers(1, 400), is_success=st.booleans())
@example({"error": {"code": 1, "status": ["x"], "details": {"@type": None}}}, 400, False)
@example({"detail": [{"type": "x", "loc": [["a"], None], "msg": {}}], "errors": {"": [None, "x"]}}, 400, False)
@example({"errors": [{"source": {"pointer": {}}, "code": "x", "extensions": {"code": {}}}]}, 400, True)
def test_no_error_of_any_shape_makes_it_raise(value: object, end: int, is_success: bool) -> None:
    found = decode(json.dumps(value)[:end].encode(), is_success=is_success)

    assert {type(found.code), type(found.message)} <= {str, type(None)}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("[" * 100_000, Envelope("undecodable")),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, Envelope("undecodable")),
        ('{"object":"error","code":"x","details":' + "[" * 100_000 + "]" * 100_000 + "}", Envelope("undecodable", "x")),
        ('{"error":{"code":"x","details":' + "[" * 100_000, Envelope("undecodable", "x")),
        ('{"object":"chunk"}\n' + "[" * 100_000, Envelope("truncated")),
        ("HTTP/1.1 200 OK\nA: b\n\n" * 100_000, Envelope("whole", headers={"a": "b"})),
    ],
    ids=["lists", "objects", "details of v1", "details of another shape", "a line", "responses in responses"],
)
def test_a_body_of_a_hundred_thousand_levels_gives_its_start(body: str, found: Envelope) -> None:
    assert decode(body.encode()) == found


@pytest.mark.parametrize("level", ["[{}]", '{{"a":{}}}'], ids=["lists", "objects"])
def test_a_body_of_any_depth_keeps_its_code(level: str) -> None:
    opening, closing = level.replace("{{", "{").replace("}}", "}").split("{}") if "a" in level else ("[", "]")

    for depth in range(930, 1010):
        body = f'{{"object":"error","code":"x","details":{opening * depth}1{closing * depth}}}'
        assert decode(body.encode()).code == "x"
    assert decode(body.encode()) == Envelope("undecodable", "x")


@pytest.mark.parametrize("is_base64", [False, True], ids=["raw", "base64"])
def test_a_gzip_bomb_is_bounded(is_base64: bool) -> None:
    packed = gzip.compress(b'{"object":"error","code":"x","message":"' + b"a" * (64 * MOST_DECODED_BYTES) + b'"}')
    body = base64.b64encode(packed) if is_base64 else packed

    tracemalloc.start()
    try:
        found = decode(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert found == Envelope("truncated", "x")
    assert peak < 16 * MOST_DECODED_BYTES
