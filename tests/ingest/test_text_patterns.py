"""The patterns of the text formats: Python and RE2 read them alike, and no client's words change what a line says."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import identify
from ingest.formats import Format, formats

Groups = dict[str, str]

TEXTS: Final = {name: layout for name, layout in formats().items() if layout.layout == "text"}
LINES: Final = {name: [str(sample["line"]) for sample in layout.samples] for name, layout in TEXTS.items()}
SAMPLES: Final = [
    pytest.param(TEXTS[name], line, id=f"{name}-{number}")
    for name, lines in LINES.items()
    for number, line in enumerate(lines, 1)
]
GENERAL: Final = frozenset({"combined", "nginx-combined-time", "haproxy-http"})
"""Formats that take any line of their family, and are asked after the others of it."""


def by_python(layout: Format, line: str) -> Groups | None:
    """The groups of a format's pattern by Python's engine, "" for one without a match; None for a line of another."""
    match = identify.matched(line, layout)
    return None if match is None else {name: value or "" for name, value in match.groupdict().items()}


def by_re2(engine: duckdb.DuckDBPyConnection, layout: Format, lines: Sequence[str]) -> list[Groups | None]:
    """As `by_python`, of many lines, by the engine of the vectorised lane."""
    pattern = _quoted(layout.pattern)
    groups = ", ".join(map(_quoted, layout.columns))
    found = engine.execute(
        f"""
        SELECT CASE WHEN regexp_matches(line, {pattern}) THEN regexp_extract(line, {pattern}, [{groups}]) END
        FROM (SELECT unnest($lines) AS line)""",
        {"lines": list(lines)},
    ).fetchall()
    return [values for (values,) in found]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@pytest.fixture(scope="module")
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB of its own."""
    with duckdb.connect(config={"threads": 1}) as connection:
        yield connection


@pytest.mark.parametrize("layout", TEXTS.values(), ids=TEXTS)
def test_a_pattern_starts_at_the_start_of_a_line(layout: Format) -> None:
    assert layout.pattern.startswith("^")
    assert "\n" not in layout.pattern


@pytest.mark.parametrize(("layout", "line"), SAMPLES)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"], ids=["cut", "unix", "windows"])
def test_both_engines_read_a_sample_alike(
    layout: Format, line: str, end: str, engine: duckdb.DuckDBPyConnection
) -> None:
    found = by_python(layout, line + end)

    assert found is not None
    assert found == by_python(layout, line)
    assert by_re2(engine, layout, [line + end]) == [found]


@pytest.mark.parametrize(("layout", "line"), SAMPLES)
def test_a_sample_is_matched_by_its_own_format_alone(layout: Format, line: str) -> None:
    assert _matching(line) - GENERAL == {layout.name} - GENERAL
    assert _named(line) == layout.name


def _matching(line: str) -> set[str]:
    return {name for name, layout in TEXTS.items() if by_python(layout, line)}


def _named(line: str) -> str | None:
    found = identify.of_text(line)
    return None if found is None else found.name


HAPROXY_START: Final = (
    "203.0.113.17:33317 [21/Aug/2024:12:00:00.123] fe_api~ be_msg/srv1 0/0/0/2/4 429 431 - - ---- 120/118/4/1/0 0/0 "
)
HAPROXY: Final = {
    "client_ip": "203.0.113.17",
    "ts": "21/Aug/2024:12:00:00.123",
    "answered_by": "2",
    "upstream_ms": "2",
    "latency_ms": "4",
    "status": "429",
    "response_bytes": "431",
    "gateway_reason": "----",
}
CAPTURED: Final = dict.fromkeys(
    ("idempotency_key", "code", "request_id", "org_id", "key_id", "retry_after_s"),
    "",
)


@pytest.mark.parametrize(
    ("captures", "expected"),
    [
        ("", CAPTURED),
        (
            "{idem-1} {rate_limited|req_1|org_1|key_1|30} ",
            {
                "idempotency_key": "idem-1",
                "code": "rate_limited",
                "request_id": "req_1",
                "org_id": "org_1",
                "key_id": "key_1",
                "retry_after_s": "30",
            },
        ),
        ("{} {|req_1|||} ", CAPTURED | {"request_id": "req_1"}),
        ("{api.example.com|ak_test_FAKE0001|org_acme} {req_1|30} ", CAPTURED),
        ("{idem-1} {rate_limited|req_1|org_1|key_1} ", CAPTURED),
        ("{idem-1} {rate_limited|req_1|org_1|key_1|30|more} ", CAPTURED),
        ("{idem-1|more} {rate_limited|req_1|org_1|key_1|30} ", CAPTURED),
        ("{idem-1} {text/html; charset=utf-8|no-cache|a|b|30} ", CAPTURED),
        ("{idem-1} {a|b|c|d|Wed, 21 Aug 2024 12:00:30 GMT} ", CAPTURED),
        ("{only one block} ", CAPTURED),
    ],
    ids=[
        *(
            "none",
            "documented",
            "empty",
            "other order",
            "four",
            "six",
            "two of the request",
            "a content type",
            "a date",
        ),
        "one block",
    ],
)
def test_captures_of_haproxy_are_fields_in_the_documented_form_alone(
    captures: str, expected: Groups, engine: duckdb.DuckDBPyConnection
) -> None:
    line = f'{HAPROXY_START}{captures}"POST /v1/messages HTTP/2.0"'
    found = by_python(TEXTS["haproxy-http"], line)

    assert found == HAPROXY | expected | {"request_line": "POST /v1/messages HTTP/2.0"}
    assert by_re2(engine, TEXTS["haproxy-http"], [line]) == [found]


def test_a_line_that_haproxy_cut_inside_the_target_has_its_beginning() -> None:
    found = by_python(TEXTS["haproxy-http"], HAPROXY_START + '"GET /v1/messages?q=AAAAAAAA\r\n')

    assert found == HAPROXY | CAPTURED | {"request_line": "GET /v1/messages?q=AAAAAAAA"}


COMBINED: Final = (
    '203.0.113.17 - - [21/Aug/2024:12:00:00 +0000] "POST /v1/messages HTTP/1.1" 429 214 "-" "acme-sdk/2.1"'
)


@pytest.mark.parametrize(
    ("tail", "name"),
    [
        ("", "combined"),
        (" 4012", "apache-combined-d"),
        (" 4012 -", "apache-combined-d"),
        (' 4012 "req_1"', "apache-combined-d"),
        (" 4012 612", "combined"),
        (" 612 0.004", "combined"),
        (" 0.004", "nginx-combined-time"),
        (" 0.004 -", "nginx-combined-time"),
        (" 0.004 0.001, 0.002 : 0.003 more", "nginx-combined-time"),
        (' "198.51.100.1" 0.004', "nginx-combined-time"),
        (' "198.51.100.1"', "combined"),
        (" 1.52", "combined"),
        (" 1724241600.123", "combined"),
        (' 0.004 <"" >"{}"', "nginx-bodylog"),
        (' 0.004 <"{\\"to\\":1}" >"{\\"code\\":\\"cut', "nginx-bodylog"),
        (" 612 0.004 [a-b-80] [] 10.0.0.1:80 9 0.002 429 0123abc", "ingress-nginx"),
        (' kong_request_id: "0123abc"', "kong-combined"),
        (' 7 "router@file" "http://10.0.0.1:80" 4ms', "traefik-clf"),
    ],
)
def test_what_stands_behind_the_user_agent_tells_the_combined_family_apart(tail: str, name: str) -> None:
    assert _named(COMBINED + tail) == name


@pytest.mark.parametrize(
    ("tail", "name"),
    [
        ("", "combined"),
        (" 0.004 ", "nginx-combined-time"),
        (" 0.004  request_id= org= key= code= retry_after=", "nginx-combined-time"),
        (' 0.004 <"" >""', "nginx-bodylog"),
        (" 612 0.004 [] []     0123abc", "ingress-nginx"),
        (' kong_request_id: "0123abc"', "kong-combined"),
    ],
)
def test_nginx_leaves_out_what_is_missing_where_it_escapes_for_json(tail: str, name: str) -> None:
    line = '203.0.113.9 -  [21/Aug/2024:12:00:00 +0000] "" 400 0 "" ""' + tail

    assert _named(line) == name


@pytest.mark.parametrize(
    "line",
    [
        "",
        "-",
        "{}",
        "2024/08/21 12:00:00 [error] 31#31: *1 connect() failed (111: Connection refused) while connecting, "
        'client: 203.0.113.17, server: api, request: "GET /v1/messages HTTP/1.1", upstream: "http://10.0.4.11:8080/"',
        "[Wed Aug 21 12:00:00.123456 2024] [core:error] [pid 1:tid 2] [client 203.0.113.17:1] AH00126: Invalid URI",
        "203.0.113.9:56059 [21/Aug/2024:12:00:34.380] fe_api/1: SSL handshake failure",
        "Proxy api stopped (cumulated conns: FE: 13, BE: 0).",
        '[2024-08-21T12:00:00.123Z] "- - -" 0 - 1033 2033 12 - "-" "-" "-" "-" "10.0.4.11:5432"',
        "[GIN-debug] GET /v1/messages --> main.list (3 handlers)",
        "map[alias:org_acme api_id:b84fe1a0]",
        "GET /v1/messages 200",
        "--a1b2c3d4-A--",
    ],
    ids=[
        *("empty", "dash", "json", "nginx error", "apache error", "haproxy error", "haproxy stopped", "envoy tcp"),
        *("gin debug", "another go map", "no morgan", "modsecurity"),
    ],
)
def test_what_is_no_access_record_is_in_no_format(line: str) -> None:
    assert _matching(line) == set()


@pytest.mark.parametrize(("layout", "line"), SAMPLES)
@pytest.mark.parametrize(
    "wrapper",
    [
        "<190>Aug 21 12:00:00 gw-1 nginx: ",
        "Aug 21 12:00:00 localhost haproxy[14389]: ",
        "<134>1 2024-08-21T12:00:00.123456Z gw-1 nginx 2211 - - ",
        "2024-08-21T12:00:00.123456789Z stdout F ",
        "2024-08-21T12:00:00.123Z ",
        "2024-08-21T12:00:00 ",
        "1724241600123 ",
        "gateway-1  | ",
    ],
    ids=["syslog", "rsyslog", "syslog 5424", "cri", "cloudwatch", "no zone", "milliseconds", "compose"],
)
def test_a_line_inside_a_wrapper_is_left_to_whoever_unwraps_it(wrapper: str, layout: Format, line: str) -> None:
    assert _matching(wrapper + line) == set()


def as_nginx(text: str) -> str:
    """As nginx writes a variable, with its default escaping."""
    return text.replace("\\", "\\x5C").replace('"', "\\x22").replace("\x1b", "\\x1B")


def as_apache(text: str) -> str:
    """As httpd, Go's %q and nginx's escape=json write a quoted field."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def as_haproxy(text: str) -> str:
    """As HAProxy writes a capture or a request."""
    return "".join(f"#{ord(sign):02X}" if sign in '"#{|}\x1b' else sign for sign in text)


def as_is(text: str) -> str:
    """As gateways write a header that escape nothing."""
    return text


# Where a client has its say in a line of each format: `{}`, and how the gateway escapes it.
CLF_START: Final = '203.0.113.17 - - [21/Aug/2024:12:00:00 +0000] "POST {} HTTP/1.1" 429 214 "{}" "{}"'
SPOKEN: Final[dict[str, tuple[str, Callable[[str], str]]]] = {
    "combined": (CLF_START, as_nginx),
    "apache-combined-d": (CLF_START + " 4012 req_1", as_apache),
    "apache-vhost-combined": ("api.example.com:443 " + CLF_START, as_apache),
    "nginx-combined-time": (CLF_START + ' "{}" 0.004 0.002', as_nginx),
    "nginx-bodylog": (CLF_START + ' 0.004 <"{}" >"{}"', as_apache),
    "ingress-nginx": (CLF_START + " 612 0.004 [a-b-80] [] 10.0.0.1:80 9 0.002 429 0123abc", as_nginx),
    "kong-combined": (CLF_START + ' kong_request_id: "0123abc"', as_nginx),
    "lighttpd": (CLF_START.replace("17 - -", "17 api.example.com -"), as_apache),
    "traefik-clf": (CLF_START.replace("{}", "/v1/messages", 1) + ' 7 "router" "http://10.0.0.1:80" 4ms', as_is),
    "apisix-access": (
        CLF_START.replace("] ", "] api.example.com ").replace("214", "214 0.004") + ' 10.0.0.1:80 429 0.002 "{}"',
        as_nginx,
    ),
    "aws-alb": (
        "https 2024-08-21T12:00:00.127000Z app/api-lb/1 203.0.113.17:51234 10.0.4.11:8080 0.000 0.002 0.000 429 429 "
        '612 431 "POST https://api.example.com:443/v1/messages HTTP/2.0" "{}" cipher TLSv1.3 arn "{}" "{}" "-" 1 '
        '2024-08-21T12:00:00.123000Z "forward" "-" "-"',
        as_is,
    ),
    "envoy-text": (
        '[2024-08-21T12:00:00.123Z] "POST /v1/messages HTTP/2" 429 - 154 214 4 2 "{}" "{}" "{}" "{}" "10.0.4.11:8080"',
        as_is,
    ),
    "istio-text": (
        '[2024-08-21T12:00:00.123Z] "POST /v1/messages HTTP/1.1" 429 - via_upstream - "-" 154 214 4 2 "{}" "{}" "{}" '
        '"{}" "10.44.1.27:8080" outbound|8080||messages 10.44.1.23:1 10.0.45.184:8080 10.44.1.23:2 - default',
        as_is,
    ),
    "haproxy-http": (HAPROXY_START + '{{{}}} {{a|b}} "POST {} HTTP/2.0"', as_haproxy),
    "haproxy-http-user-agent": (HAPROXY_START + '{{{}}} {{req_1|org_1|key_1}} "POST {} HTTP/2.0"', as_haproxy),
    "krakend": ('[GIN] 2024/08/21 - 12:00:00 | 429 |    4.529213ms |    203.0.113.17 | POST     "{}"', as_apache),
}


@pytest.mark.parametrize("name", SPOKEN)
@pytest.mark.parametrize("imitated", list(TEXTS))
def test_a_client_that_writes_a_record_into_its_request_changes_neither_format_nor_status(
    name: str, imitated: str, engine: duckdb.DuckDBPyConnection
) -> None:
    template, escaped = SPOKEN[name]
    places = template.count("{}")
    said = [
        f"{opening}{line}{closing}" for line in LINES[imitated] for opening in ('x" ', "") for closing in ("", ' "x')
    ]
    lines = [
        template.format(*("-" if other != place else escaped(text) for other in range(places)))
        for text in said
        for place in range(places)
    ]

    found = by_re2(engine, TEXTS[name], lines)

    assert [groups and groups["status"] for groups in found] == ["429"] * len(lines)
    assert [by_python(TEXTS[name], line) for line in lines] == found
    assert {matching for line in lines for matching in _matching(line)} - GENERAL == {name} - GENERAL
    assert {_named(line) for line in lines} == {name}


def test_a_user_agent_with_quotes_that_envoy_does_not_escape_gives_no_headers() -> None:
    line = SPOKEN["envoy-text"][0].format("203.0.113.17", 'x" "id" "host" "1.1.1.1:1', "cc21d9b0", "api.example.com")
    found = by_python(TEXTS["envoy-text"], line)

    assert found is not None
    assert {name: found[name] for name in ("status", "client_ip", "user_agent", "request_id", "host")} == {
        "status": "429",
        **dict.fromkeys(("client_ip", "user_agent", "request_id", "host"), ""),
    }


GO_MAP_END: Final = (
    " raw_path:/x raw_request: raw_response: request_time_ms:1 response_code:200 "
    "timestamp:2024-01-01 00:00:00 +0000 UTC user_agent:y]"
)


@pytest.mark.parametrize(
    ("logged", "said"),
    [
        (" path:/v1/messages", f" path:/x{GO_MAP_END}"),
        ("user_agent:acme-sdk/2.1", f"user_agent:x path:/x{GO_MAP_END}"),
        ("user_agent:acme-sdk/2.1", f"user_agent:x{GO_MAP_END}"),
    ],
    ids=["path", "agent with a path", "agent"],
)
def test_a_client_that_writes_keys_of_a_go_map_into_its_request_has_its_line_refused(logged: str, said: str) -> None:
    line = LINES["tyk-gomap"][0]
    assert logged in line

    assert _matching(line.replace(logged, said)) == set()


def test_a_user_agent_with_an_address_in_it_is_whole_in_a_go_map(engine: duckdb.DuckDBPyConnection) -> None:
    agent = "Mozilla/5.0 (compatible; bot/2.1; +http://bot.example/about) [a b]"
    line = LINES["tyk-gomap"][0].replace("acme-sdk/2.1", agent)
    found = by_python(TEXTS["tyk-gomap"], line)

    assert found is not None
    assert found["user_agent"] == agent
    assert by_re2(engine, TEXTS["tyk-gomap"], [line]) == [found]


@st.composite
def mutants(draw: st.DrawFn, name: str) -> str:
    """A sample of the format with a few of its parts left out, repeated or replaced."""
    line = draw(st.sampled_from(LINES[name]))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(line)))
        end = draw(st.integers(start, min(len(line), start + 12)))
        line = line[:start] + draw(_PARTS | st.just(line[start:end] * 2)) + line[end:]
    return line


_PARTS: Final = st.sampled_from(
    [
        *(
            "",
            " ",
            '"',
            "\\",
            '\\"',
            '" "',
            "\\x22",
            "-",
            ", ",
            " : ",
            "|",
            "{",
            "}",
            "[",
            "]",
            "/",
            ":",
            ".",
            "0",
            "200",
        ),
        *(
            "\t",
            "\r",
            "\n",
            "\v",
            "\f",
            "\0",
            "\x1b[0m",
            "\x85",
            "\xa0",
            "\u2028",
            "é",
            "😀",
            "٣",
            "µ",
            "\u212a",
            "\u017f",
        ),
    ]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)


@settings(max_examples=200)
@given(
    st.sampled_from(sorted(TEXTS)).flatmap(lambda name: st.tuples(st.just(name), st.lists(mutants(name), min_size=1)))
)
def test_both_engines_read_damaged_lines_alike(engine: duckdb.DuckDBPyConnection, named: tuple[str, list[str]]) -> None:
    name, lines = named

    assert by_re2(engine, TEXTS[name], lines) == [by_python(TEXTS[name], line) for line in lines]


FLOODS: Final = (
    '"',
    "\\",
    '\\"',
    '" "',
    " ",
    "a",
    "1",
    ", ",
    "0.001, ",
    "200 : ",
    ":",
    "|",
    "[",
    "a=1 ",
    "\x1b[0m",
    '" 1 "',
)


@pytest.mark.parametrize("layout", TEXTS.values(), ids=TEXTS)
def test_a_long_run_of_anything_in_any_field_is_decided_by_both_engines(
    layout: Format, engine: duckdb.DuckDBPyConnection
) -> None:
    # What a pattern tries again and again it would try some thousand million times here.
    lines = []
    for line in LINES[layout.name]:
        match = identify.matched(line, layout)
        assert match is not None
        places = sorted({0, len(line), *(match.end(name) for name in layout.columns if match[name] is not None)})
        lines += [
            line[:place] + flood * (20_000 // len(flood)) + rest
            for place in places
            for flood in FLOODS
            for rest in ("\0", line[place:])
        ]

    assert [by_python(layout, line) for line in lines] == by_re2(engine, layout, lines)


@pytest.mark.parametrize("layout", TEXTS.values(), ids=TEXTS)
def test_a_megabyte_of_quotes_and_backslashes_is_decided_by_both_engines(
    layout: Format, engine: duckdb.DuckDBPyConnection
) -> None:
    start = LINES[layout.name][0][:-1]
    lines = [start + flood * (1_000_000 // len(flood)) for flood in ('"', "\\", '\\"', '" "')]

    assert [by_python(layout, line) for line in lines] == by_re2(engine, layout, lines)
