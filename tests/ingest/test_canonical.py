"""Canonical values: routes, times, who answered and why, and the numbers with their units."""

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any, Final

import pytest

from ingest.formats import Format
from ingest.parse import Lanes
from tests.ingest.logs import COMBINED, NGINX_JSON, SECOND, Row, combined_line, json_line, parsed, settled

HTML: Final = "<html><head><title>502 Bad Gateway</title></head></html>"
ENVELOPE: Final = '{"object":"error","code":"internal_error","message":"m"}'
OTHER_JSON: Final = '{"message":"Forbidden"}'


def row_of(lanes: Lanes, **fields: object) -> Row:
    """The row of nginx's JSON record with `fields`."""
    lines = [json_line(**fields)]
    [row], _ = parsed(lanes, settled(NGINX_JSON, lines), lines)
    return row


@pytest.mark.parametrize(
    "segment",
    [
        "123e4567-e89b-12d3-a456-426614174000",
        "123E4567E89B12D3A456426614174000",
        "01J9Z6Q3M8T4V5W6X7Y8Z9A0B1",
        "7",
        "1795431545250",
        "9f1c0b7e5a2d4c33a1b2c3d4e5f60718",
        "deadbeefcafe7",
        "msg_1a00000000000001",
        "m_1",
        "acct-05vhfd",
        "org_bd7vgqctm4",
        "SM1f0e8ae6ade43cb3c0ce4525424e404f",
        "ada@mail.example",
        "ada%40mail.example",
        "+14155550123",
        "%2B14155550123",
        "14155550123",
        "caf%C3%A9",
        "Andr\u00e9",
        "QmFzZTY0IHRleHQ=",
        "2026-11-23",
        "2026-11",
        "bcdfghjkl",
        "xqzvbnmkjhgf",
        "verylongsegmentwithoutanydigitinit",
        "a b",
        "{}",
        "$metadata",
        "*",
    ],
)
def test_an_id_is_folded_in_the_route(lanes: Lanes, segment: str) -> None:
    assert row_of(lanes, uri=f"/v1/messages/{segment}/parts")["route"] == "/v1/messages/{id}/parts"
    assert row_of(lanes, uri=f"/{segment}")["route"] == "/{id}"


@pytest.mark.parametrize(
    "segment",
    [
        "messages",
        "phone-numbers",
        "phone_numbers",
        "phoneNumbers",
        "Contacts",
        "a",
        "v1",
        "v2.1",
        "v10",
        "v1beta1",
        "oauth2",
        "s3",
        "ipv4",
        "i18n",
        "sha256",
        "10dlc",
        "favicon.ico",
        "robots.txt",
        "swagger.json",
        "wp-login.php",
        ".env",
        ".git",
        ".well-known",
        "..",
        "{user_id}",
        ":user_id",
        "do_not_call",
        "strengths",
    ],
)
def test_a_word_a_version_and_a_file_name_stay_in_the_route(lanes: Lanes, segment: str) -> None:
    assert row_of(lanes, uri=f"/api/{segment}/of")["route"] == f"/api/{segment}/of"


@pytest.mark.parametrize(
    ("uri", "route", "path"),
    [
        ("/v1/messages?to=x", "/v1/messages", "/v1/messages"),
        ("/", "/", "/"),
        ("/?", "/", "/"),
        ("/v1/messages/", "/v1/messages/", "/v1/messages/"),
        ("//v1//messages", "//v1//messages", "//v1//messages"),
        ("/v1/organizations/org_1/usage", "/v1/organizations/{id}/usage", "/v1/organizations/{org_id}/usage"),
        ("/v1/organizations/org_1", "/v1/organizations/{id}", "/v1/organizations/{org_id}"),
        ("/v1/organizations/org_12", "/v1/organizations/{id}", "/v1/organizations/org_12"),
        ("/v1/m/msg_1/parts/7", "/v1/m/{id}/parts/{id}", "/v1/m/msg_1/parts/7"),
        ("", None, None),
    ],
)
def test_a_path_has_its_route(lanes: Lanes, uri: str, route: str | None, path: str | None) -> None:
    row = row_of(lanes, uri=uri, org_id="org_1")

    assert (row["route"], row["path"]) == (route, path)


@pytest.mark.parametrize(
    ("fields", "method", "path"),
    [
        ({"method": "get", "uri": "/a"}, "GET", "/a"),
        ({"method": "PATCH", "uri": "/a", "request": "GET /b HTTP/1.1"}, "PATCH", "/a"),
        ({"method": "", "uri": "", "request": "GET /b?c=d HTTP/1.1"}, "GET", "/b"),
        ({"method": ..., "uri": ..., "request": "DELETE /b"}, "DELETE", "/b"),
        ({"method": ..., "uri": ..., "request_method": "PUT", "request_uri": "/c?d"}, "PUT", "/c"),
        ({"method": ..., "uri": ..., "request": "\\x16\\x03\\x01"}, None, None),
        ({"method": ..., "uri": ..., "request": "-"}, None, None),
        ({"method": ..., "uri": ..., "request": "Bearer 9f1c0b7e5a2d4c33"}, "BEARER", None),
        ({"method": ..., "uri": ..., "request": "OPTIONS * HTTP/1.1"}, "OPTIONS", None),
        ({"method": ..., "uri": ..., "request": "GET http://api.example/a HTTP/1.1"}, "GET", "/a"),
        ({"method": "\\x16\\x03", "uri": "/a"}, None, "/a"),
    ],
)
def test_method_and_path_come_from_where_they_are(
    lanes: Lanes, fields: dict[str, object], method: str | None, path: str | None
) -> None:
    row = row_of(lanes, **fields)

    assert (row["method"], row["path"]) == (method, path)


@pytest.mark.parametrize(
    ("status", "upstream_status", "body", "origin", "reason", "code"),
    [
        (200, "200", "", "upstream", None, None),
        (304, "-", "", "gateway", None, None),
        (301, "", HTML, "gateway", None, None),
        (404, "404", ENVELOPE, "upstream", None, "internal_error"),
        (404, "404", "", "upstream", None, None),
        (404, "404", OTHER_JSON, "upstream", None, None),
        (404, "404", HTML, "gateway", "no_route", None),
        (404, "", HTML, "gateway", "no_route", None),
        (400, "", HTML, "gateway", "bad_request", None),
        (401, "-", "", "gateway", "unauthorized", None),
        (403, "-", OTHER_JSON, "gateway", "forbidden", None),
        (408, "", "", "gateway", "request_timeout", None),
        (413, "", HTML, "gateway", "request_too_large", None),
        (414, "", HTML, "gateway", "uri_too_long", None),
        (429, "", HTML, "gateway", "too_many_requests", None),
        (429, "429", ENVELOPE, "upstream", None, "internal_error"),
        (444, "", "", "gateway", "connection_closed", None),
        (494, "", HTML, "gateway", "headers_too_large", None),
        (495, "", HTML, "gateway", "bad_client_certificate", None),
        (499, "", "", "gateway", "client_closed_request", None),
        (499, "200", "", "gateway", "client_closed_request", None),
        (500, "500", ENVELOPE, "upstream", None, "internal_error"),
        (500, "500", "Internal Server Error", "upstream", None, None),
        (500, "", HTML, "gateway", "gateway_error", None),
        (502, "502", HTML, "gateway", "bad_gateway", None),
        (502, "502, 502", HTML, "gateway", "bad_gateway", None),
        (502, "502", ENVELOPE, "upstream", None, "internal_error"),
        (503, "503", "", "gateway", "service_unavailable", None),
        (504, "504", HTML, "gateway", "gateway_timeout", None),
        (418, "", "", "gateway", "status_418", None),
        (200, "200", ENVELOPE, "upstream", None, "internal_error"),
    ],
)
def test_who_answered_and_why(
    lanes: Lanes, status: int, upstream_status: str, body: str, origin: str, reason: str | None, code: str | None
) -> None:
    row = row_of(lanes, status=status, upstream_status=upstream_status, resp_body=body)

    assert (row["origin"], row["gateway_reason"], row["code"]) == (origin, reason, code)
    assert row["kind"] == ("error" if status >= 400 or code else "ok")


@pytest.mark.parametrize(
    ("status", "request_line", "origin", "reason"),
    [
        (200, "GET / HTTP/1.1", "upstream", None),
        (404, "GET / HTTP/1.1", "upstream", None),
        (400, "GET / HTTP/1.1", "upstream", None),
        (400, "\\x16\\x03\\x01", "gateway", "bad_request"),
        (400, "-", "gateway", "bad_request"),
        (499, "GET / HTTP/1.1", "gateway", "client_closed_request"),
        (500, "GET / HTTP/1.1", "upstream", None),
        (502, "GET / HTTP/1.1", "gateway", "bad_gateway"),
        (504, "GET / HTTP/1.1", "gateway", "gateway_timeout"),
    ],
)
def test_of_a_log_without_upstream_the_status_says_who_answered(
    lanes: Lanes, status: int, request_line: str, origin: str, reason: str | None
) -> None:
    lines = [combined_line(request=request_line, status=status)]

    [row], _ = parsed(lanes, settled(COMBINED, lines), lines)

    assert (row["origin"], row["gateway_reason"], row["body_state"]) == (
        origin,
        reason,
        "absent" if status >= 400 else None,
    )


@pytest.mark.parametrize(
    ("fields", "body_state"),
    [
        ({"status": 200, "resp_body": ""}, None),
        ({"status": 404, "resp_body": ""}, "absent"),
        ({"status": 404, "resp_body": "-"}, "absent"),
        ({"status": 404, "resp_body": ...}, "absent"),
        ({"status": 404, "resp_body": ENVELOPE}, "whole"),
        ({"status": 404, "resp_body": ENVELOPE[:-9]}, "truncated"),
        ({"status": 404, "resp_body": "\x1f\x8b\ufffd"}, "undecodable"),
        ({"status": 200, "resp_body": ENVELOPE}, "whole"),
        ({"status": 404, "resp_body": OTHER_JSON}, "whole"),
    ],
)
def test_an_error_says_what_the_log_holds_of_its_body(
    lanes: Lanes, fields: dict[str, object], body_state: str | None
) -> None:
    assert row_of(lanes, **fields)["body_state"] == body_state


AT: Final = datetime(2026, 11, 23, 10, 59, 5, 250_000, tzinfo=UTC)
WHOLE: Final = AT.replace(microsecond=0)


@pytest.mark.parametrize(
    ("given", "unit", "ts"),
    [
        (1_795_431_545.25, "s", AT),
        ("1795431545.250", "s", AT),
        (1_795_431_545_250, "ms", AT),
        ("1795431545250.5", "ms", AT.replace(microsecond=250_500)),
        (1_795_431_545_250_000, "us", AT),
        (1_795_431_545_250_000_000, "ns", AT),
        ("2026-11-23T10:59:05.250Z", "iso8601", AT),
        ("2026-11-23T10:59:05.25+00:00", "iso8601", AT),
        ("2026-11-23T16:29:05.250+05:30", "iso8601", AT),
        ("2026-11-23T07:29:05-03:30", "iso8601", WHOLE),
        ("2026-11-23 10:59:05Z", "iso8601", WHOLE),
        ("2026-11-23T10:59:05", "iso8601", WHOLE),
        ("23/Nov/2026:10:59:05 +0000", "clf", WHOLE),
        ("23/Nov/2026:16:29:05 +0530", "clf", WHOLE),
        ("23/Nov/2026:02:59:05 -0800", "clf", WHOLE),
        ("31/Dec/2026:23:30:00 -0100", "clf", datetime(2027, 1, 1, 0, 30, tzinfo=UTC)),
        ("2000-01-01T00:00:00Z", "iso8601", datetime(2000, 1, 1, tzinfo=UTC)),
        ("2028-02-29T12:00:00Z", "iso8601", datetime(2028, 2, 29, 12, tzinfo=UTC)),
    ],
)
def test_a_time_in_any_unit_and_zone_is_a_moment_in_utc(lanes: Lanes, given: object, unit: str, ts: datetime) -> None:
    lines = [json_line(msec=given)]
    layout = settled(NGINX_JSON, lines)

    [row], _ = parsed(lanes, layout, lines)

    assert (layout.unit("ts"), row["ts"], row["day"]) == (unit, ts, ts.date())


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("1999-12-31T23:59:59Z", "impossible_timestamp"),
        ("2100-01-02T00:00:00Z", "impossible_timestamp"),
        ("1970-01-01T00:00:00Z", "impossible_timestamp"),
        ("2026-02-30T00:00:00Z", "no_timestamp"),
        ("2026-13-01T00:00:00Z", "no_timestamp"),
        ("2026-11-23T25:00:00Z", "no_timestamp"),
        ("2026-11-23T10:59:05 Mars/Olympus", "no_timestamp"),
        ("infinity", "no_timestamp"),
        ("now", "no_timestamp"),
        ("today", "no_timestamp"),
        ("", "no_timestamp"),
        ("-", "no_timestamp"),
    ],
)
def test_an_impossible_time_is_a_reject(lanes: Lanes, given: str, reason: str) -> None:
    layout = settled(NGINX_JSON, [json_line(msec="2026-11-23T10:59:05Z")])

    assert parsed(lanes, layout, [json_line(msec=given)]) == ([], [(1, reason)])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (0, "impossible_timestamp"),
        (-1, "impossible_timestamp"),
        (946_684_799, "impossible_timestamp"),
        (4_102_444_801, "impossible_timestamp"),
        (1_795_431_545_250, "impossible_timestamp"),
        (1e300, "no_timestamp"),
        ("inf", "no_timestamp"),
        ("nan", "no_timestamp"),
        ("soon", "no_timestamp"),
    ],
)
def test_an_impossible_number_is_a_reject(lanes: Lanes, given: object, reason: str) -> None:
    layout = settled(NGINX_JSON, [json_line()])

    assert parsed(lanes, layout, [json_line(msec=given)]) == ([], [(1, reason)])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("30/Feb/2026:00:00:00 +0000", "no_timestamp"),
        ("23/Nov/1999:10:59:05 +0000", "impossible_timestamp"),
        ("-", "no_timestamp"),
    ],
)
def test_an_impossible_time_of_a_text_log_is_a_reject(lanes: Lanes, given: str, reason: str) -> None:
    layout = settled(COMBINED, [combined_line()])

    assert parsed(lanes, layout, [combined_line(time=given)]) == ([], [(1, reason)])


def starting(layout: Format, **units: str) -> Format:
    """`layout` as a gateway writes it that logs the start of a request."""
    return replace(layout, ts_is="start", units=layout.units | units)


@pytest.mark.parametrize(
    ("request_time", "unit", "ts", "latency_ms"),
    [
        (1.5, "s", "2026-11-23T10:59:06.500000+00:00", 1500.0),
        (1500, "ms", "2026-11-23T10:59:06.500000+00:00", 1500.0),
        (1_500_000, "us", "2026-11-23T10:59:06.500000+00:00", 1500.0),
        (1_500_000_000, "ns", "2026-11-23T10:59:06.500000+00:00", 1500.0),
        ("", "s", "2026-11-23T10:59:05+00:00", None),
        ("-", "s", "2026-11-23T10:59:05+00:00", None),
    ],
)
def test_a_format_that_logs_the_start_is_moved_by_its_latency(
    lanes: Lanes, request_time: object, unit: str, ts: str, latency_ms: float | None
) -> None:
    lines = [json_line(msec=SECOND, request_time=request_time)]
    layout = starting(settled(NGINX_JSON, lines), latency_ms=unit)

    [row], _ = parsed(lanes, layout, lines)

    assert (row["ts"].isoformat(), row["latency_ms"]) == (ts, latency_ms)


@pytest.mark.parametrize("latency", [3.03e26, 1e300, 1e15, "inf", "nan"])
def test_a_latency_that_no_request_can_have_moves_no_time(lanes: Lanes, latency: float | str) -> None:
    lines = [json_line(request_time=latency)]

    [row], rejects = parsed(lanes, starting(settled(NGINX_JSON, lines)), lines)

    assert (row["ts"].timestamp(), rejects) == (SECOND + 0.25, [])


@pytest.mark.parametrize("ts", ["9223372036854775807", "9223372036854775000", "-9223372036854775808", "1e40"])
def test_a_number_that_is_no_time_is_a_reject_in_any_unit(lanes: Lanes, ts: str) -> None:
    epoch = settled(NGINX_JSON, [json_line()])
    for unit in ("s", "ms", "us", "ns"):
        rows, rejects = parsed(lanes, starting(epoch, ts=unit), [json_line(msec=ts)])
        assert (rows, [line for line, _ in rejects]) == ([], [1])


def test_a_request_that_ends_on_the_next_day_belongs_to_it(lanes: Lanes) -> None:
    lines = [json_line(msec="2026-11-23T23:59:59Z", request_time=2)]

    [row], _ = parsed(lanes, starting(settled(NGINX_JSON, lines)), lines)

    assert row["day"] == date(2026, 11, 24)


@pytest.mark.parametrize(
    ("fields", "column", "value"),
    [
        ({"request_time": "0.25"}, "latency_ms", 250.0),
        ({"request_time": "x"}, "latency_ms", None),
        ({"upstream_time": "0.25"}, "upstream_ms", 250.0),
        ({"upstream_time": "0.1, 0.25"}, "upstream_ms", 250.0),
        ({"upstream_time": "0.1, 0.2 : 0.25"}, "upstream_ms", 250.0),
        ({"upstream_time": "0.25, -"}, "upstream_ms", 250.0),
        ({"upstream_time": "-"}, "upstream_ms", None),
        ({"bytes_sent": 66}, "response_bytes", 66),
        ({"bytes_sent": "66"}, "response_bytes", 66),
        ({"bytes_sent": "-"}, "response_bytes", None),
        ({"bytes_sent": ..., "body_bytes_sent": "7"}, "response_bytes", 7),
        ({"retry_after": "30"}, "retry_after_s", 30.0),
        ({"retry_after": 1.5}, "retry_after_s", 1.5),
        ({"retry_after": "Wed, 21 Oct 2026 07:28:00 GMT"}, "retry_after_s", None),
        ({"retry_after": ""}, "retry_after_s", None),
        ({"remote_addr": "2001:db8::1"}, "client_ip", "2001:db8::1"),
        ({"remote_addr": "unix:"}, "client_ip", None),
        ({"host": "api.example:8443"}, "host", "api.example:8443"),
        ({"status": "404"}, "status", 404),
        ({"status": 999}, "status", 999),
        ({"status": 100}, "status", 100),
        ({"request_id": 7}, "request_id", "7"),
        ({"org_id": 12_345_678_901_234_567_890}, "org_id", "12345678901234567890"),
        ({"sent_http_x_request_id": "of_the_api", "request_id": "r"}, "request_id", "of_the_api"),
    ],
)
def test_a_value_has_the_type_and_unit_of_its_column(
    lanes: Lanes, fields: dict[str, object], column: str, value: Any
) -> None:
    assert row_of(lanes, **fields)[column] == value


def test_the_envelope_knows_the_request_id_better_than_the_gateway(lanes: Lanes) -> None:
    body = ENVELOPE.replace('"m"', '"m","request_id":"req_of_the_api"')

    assert row_of(lanes, status=500, resp_body=body, request_id="req_7")["request_id"] == "req_of_the_api"
    assert row_of(lanes, status=500, resp_body=ENVELOPE, request_id="req_7")["request_id"] == "req_7"


def test_every_line_has_its_number(lanes: Lanes) -> None:
    lines = [json_line(status=status) for status in (200, 404, 200, 500)]

    rows, _ = parsed(lanes, settled(NGINX_JSON, lines), [b"", *lines])

    assert [(row["line"], row["status"]) for row in rows] == [(2, 200), (3, 404), (4, 200), (5, 500)]
