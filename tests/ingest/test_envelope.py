"""The envelope out of a body, however it was written down."""

import base64
import gzip
import json
import tracemalloc
import zlib
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.envelope import MOST_DECODED_BYTES, Envelope, decode

FIXTURES: Final = Path(__file__).with_name("fixtures")
BODIES: Final = [json.loads(line) for line in (FIXTURES / "bodies.jsonl").read_text(encoding="utf-8").splitlines()]

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
        base64.b64encode(b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n\r\n" + TEXT.encode()),
        b"\xef\xbb\xbf " + TEXT.encode() + b"\r\n",
        b")]}',\n" + TEXT.encode(),
        b"callback(" + TEXT.encode() + b");",
        b"[" + TEXT.encode() + b', {"object":"error","code":"second"}]',
        b'[{"object":"message"}, ' + TEXT.encode() + b"]",
        b"event: error\ndata: " + TEXT.encode() + b"\n\n",
        b'{"object":"chunk"}\n' + TEXT.encode() + b"\n",
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
        "a recorded response in base64",
        "with a byte order mark",
        "with a prefix against inclusion",
        "JSONP",
        "the first of a batch",
        "the second of a batch",
        "server-sent events",
        "JSON lines",
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
        ('{"error":{"code":"another_api"}}', Envelope("whole")),
        ('{"message":"Forbidden"}', Envelope("whole")),
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


@pytest.mark.parametrize(
    "body",
    [
        '{"object":"error","code":"x","message":"{\\"object\\":\\"error\\",\\"code\\":\\"decoy\\"}"}',
        '{"object":"error","code":"x","details":{"code":"decoy","object":"error"}}',
        '{"object":"error","code":"x","message":"a \\\\\\"code\\\\\\":\\\\\\"decoy\\\\\\" b',
        '{"object":"error","code":"x","details":[{"object":"error","code":"decoy"',
    ],
    ids=["in the message", "in the details", "in a message that is cut", "in details that are cut"],
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
