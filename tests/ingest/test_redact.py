"""Nothing secret gets into the lake, whatever field it comes in; what is no secret stays as it is."""

import hmac
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest import lake as lakes
from ingest.parse import Batch, Lanes
from ingest.redact import Redacted, mask_name
from ingest.run import ingest
from ingest.schema import REJECTS, table_path
from ingest.source import expand
from ingest.writer import Writer
from tests.ingest.logs import (
    COMBINED,
    KEY,
    NGINX_JSON,
    SECOND,
    combined_line,
    error_line,
    json_line,
    log,
    parsed,
    rejects,
    requests,
    settled,
    steps,
)

JWT: Final = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1LTEifQ.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"

# How a secret stands in a text, and the part of it that must not get through.
SECRETS: Final = {
    "secret key": ("sk_live_00e674ff6ae6b7b9e34f", "00e674ff6ae6b7b9e34f"),
    "integration key": ("ik_live_6d02beaf08eea9d1b84d", "6d02beaf08eea9d1b84d"),
    "test key": ("ak_test_FAKE0001", "FAKE0001"),
    "JWT": (JWT, "eyJhbGciOiJIUzI1NiJ9"),
    "cut JWT": (JWT[:30], JWT[:30]),
    "bearer": ("Bearer 9f1c0b7e5a2d4c33", "9f1c0b7e5a2d4c33"),
    "basic": ("Basic b3BzOmh1bnRlcjI=", "b3BzOmh1bnRlcjI"),
    "login in a URL": ("https://ops:hunter2fiction@api.example/v1", "hunter2fiction"),
    "AWS id": ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
    "AWS session id": ("ASIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE"),
    "webhook secret": ("whsec_4mVOZFPSdTV9mVOZ", "4mVOZFPSdTV9mVOZ"),
    "GitHub token": ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", "16C7e42F292c6912E7710c83"),
    "Slack token": ("xoxb-2048-fiction-2048", "2048-fiction-2048"),
    "parameter": ("api_key=hunter2fiction", "hunter2fiction"),
    "password": ('"password": "hunter2fiction"', "hunter2fiction"),
    "E.164": ("+14155550123", "4155550123"),
    "E.164 with spaces": ("+1 415 555 0123", "415 555 0123"),
    "E.164 with dots": ("+44.20.7946.0151", "7946.0151"),
    "E.164 with a trunk digit": ("+44 (0)20 7946 0151", "7946 0151"),
    "international": ("0014155550123", "4155550123"),
    "national": ("(212) 555-0152", "555-0152"),
    "national with dashes": ("804-555-0148", "555-0148"),
    "British": ("020 7946 0151", "7946 0151"),
    "mobile": ("07700900149", "07700900149"),
    "digits": ("14155550123", "4155550123"),
    "e-mail": ("ada.example@mail.example", "ada.example"),
    "e-mail with a tag": ("ada+tag@mail.co.example", "ada+tag"),
}
QUOTED: Final = {f"{name}, percent-encoded": (quote(text, safe=""), kept) for name, (text, kept) in SECRETS.items()}
PLANTED: Final = SECRETS | {
    name: (text, quote(kept)) for name, (text, kept) in QUOTED.items() if text != SECRETS[name.split(", ")[0]][0]
}

ENVELOPE: Final = {"object": "error", "code": "validation_failed", "message": "m", "request_id": "req_1"}


def in_body(**fields: object) -> dict[str, object]:
    """The fields of a record that was answered with an envelope."""
    return {"status": 400, "resp_body": json.dumps(ENVELOPE | fields)}


def fields_with(text: str) -> dict[str, dict[str, object]]:
    """The fields of a record with `text` in one of them, by the name of that one."""
    return {
        "path": {"uri": f"/v1/messages/{text}/parts"},
        "query": {"uri": f"/v1/messages?to={text}"},
        "request line": {"uri": "", "method": "", "request": f"GET /v1/{quote(text, safe='%')} HTTP/1.1"},
        "method": {"method": text},
        "user agent": {"user_agent": f"sdk/1.0 ({text})"},
        "host": {"host": text},
        "referer": {"referer": f"https://shop.example/{text}"},
        "request id": {"request_id": text},
        "organisation": {"org_id": text},
        "key id": {"key_id": text},
        "presented key": {"http_authorization": text},
        "Idempotency-Key": {"idempotency_key": text},
        "Retry-After": {"retry_after": text},
        "upstream status": {"upstream_status": text},
        "message": in_body(message=f"The number {text}, which is wrong. {text}"),
        "message of another type": in_body(message={"to": [text]}),
        "code": in_body(code=text),
        "envelope's request id": in_body(request_id=text),
        "docs_url": in_body(docs_url=f"https://docs.example/errors?to={text}#{text}"),
        "field": in_body(details=[{"field": f"to[{text}]", "issue": "required"}]),
        "issue": in_body(details=[{"field": "to", "issue": f"{text} is no number"}]),
        "details of another shape": in_body(details={"to": text, text: 1}),
        "cut body": {"status": 400, "resp_body": json.dumps(ENVELOPE | {"message": text, "docs_url": text})[:-2]},
        "body in base64": {"status": 400, "resp_body": json.dumps(json.dumps(ENVELOPE | {"message": text}))},
        "body that is no envelope": {"status": 502, "upstream_status": "", "resp_body": f"<html>{text}</html>"},
    }


def lines_with(text: str) -> list[bytes]:
    """A line for each field that `text` may come in, some of them twice: for either lane."""
    lines = [json_line(**fields) for fields in fields_with(text).values()]
    return lines + [b"\xef\xbb\xbf" + line for line in lines]


# An id that is a number may be one; and what is fine in an address or a method is not looked for in them.
IS_AN_ID: Final = {"digits", "mobile", "international"}
OF_IDS: Final = {"request id", "organisation", "key id", "envelope's request id"}


def texts(value: Any) -> Iterator[str]:
    """Every text within a value of a row."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


@pytest.mark.parametrize(("text", "secret"), PLANTED.values(), ids=PLANTED)
def test_a_secret_gets_through_in_no_field(lanes: Lanes, text: str, secret: str) -> None:
    names = list(fields_with(text)) * 2
    lines = lines_with(text)

    rows, rejects = parsed(lanes, settled(NGINX_JSON, lines), lines)

    assert (len(rows), rejects) == (len(lines), [])
    is_id = {name for name in IS_AN_ID if SECRETS[name][0] == text}
    leaks = {
        (names[row["line"] - 1], found)
        for row in rows
        for found in texts(row)
        if secret.casefold() in found.casefold() and not (is_id and names[row["line"] - 1] in OF_IDS)
    }
    assert leaks == set()


@pytest.mark.parametrize(("text", "secret"), PLANTED.values(), ids=PLANTED)
def test_a_secret_gets_through_in_no_field_of_a_text_log(lanes: Lanes, text: str, secret: str) -> None:
    escaped = text.replace('"', "\\x22")
    lines = [
        combined_line().replace(b"sdk/1.0", escaped.encode()),
        combined_line().replace(b" - - ", f" - {quote(text, safe='')} ".encode()),
        combined_line(request=f"GET /v1/{quote(text, safe='%')}/parts HTTP/1.1"),
        combined_line(request=f"GET /v1/messages?to={escaped} HTTP/1.1"),
        combined_line(request=escaped, status=400),
    ]

    rows, rejects = parsed(lanes, settled(COMBINED, lines), lines)

    assert (len(rows), rejects) == (len(lines), [])
    assert {found for row in rows for found in texts(row) if secret.casefold() in found.casefold()} == set()


def test_no_file_of_the_lake_holds_a_secret_not_even_the_ledger(tmp_path: Path) -> None:
    folder = tmp_path / "logs of ada.example@mail.example" / "sk_live_00e674ff6ae6b7b9e34f"
    folder.mkdir(parents=True)
    planted = [found for name, found in SECRETS.items() if name not in IS_AN_ID]
    for number, (text, _) in enumerate(planted):
        reject = f'{{"msec": 1, "to": "{text}"'.encode()
        (folder / f"{number}.log").write_bytes(log([*lines_with(text), reject]))
    (folder / "+14155550123.log").write_bytes(log([json_line(msec=SECOND + 9)]))

    list(ingest(expand([str(folder)]), tmp_path / "lake", KEY))

    kept = [
        found
        for file in table_path(tmp_path / "lake").rglob("*.parquet")
        for row in pq.ParquetFile(file).read().to_pylist()
        for found in texts(row)
    ]
    written = [path.read_bytes() for path in table_path(tmp_path / "lake").rglob("*") if path.is_file()]
    secrets = {secret for _, secret in planted}
    assert {secret for secret in secrets for found in kept if secret in found} == set()
    assert {secret for secret in secrets for content in written if secret.encode() in content} == set()
    assert len(steps(tmp_path / "lake")) == len(planted) + 1
    assert {step["name"].removeprefix(str(tmp_path)) for step in steps(tmp_path / "lake")} >= {
        "/logs of [email]/[secret]/0.log",
        "/logs of [email]/[secret]/[phone].log",
    }


HARMLESS: Final = [
    "The field `to` is required.",
    "Too many requests. Retry after 30 s; the limit is 1000 in 60 s.",
    "No message msg_1a00000000000001 in org_544n5qxt5e",
    "Deleted at 2026-11-23T10:59:05.123Z",
    "Not found: 123e4567-e89b-12d3-a456-42661417400a",
    "Client 198.51.100.7 sent 1,234,567 bytes, at most 65536 are allowed",
    "key_id key_0n9j6mzqpgqd is unknown",
    "Version 3.2.1 needs python 3.11; see section 4.1.2",
    "Invalid API key",
    "a/b?c & d; [e] {f} 100 %",
    "Überweisung über 12 € 😀",
    "1-2-3 456 78",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_a_text_without_a_secret_stays_as_it_is(lanes: Lanes, text: str) -> None:
    lines = [json_line(user_agent=text, **in_body(message=text, details=[{"field": text, "issue": text}]))]

    [row], _ = parsed(lanes, settled(NGINX_JSON, lines), lines)

    assert (row["user_agent"], row["message"], row["details"]) == (text, text, [{"field": text, "issue": text}])


@pytest.mark.parametrize(
    "given",
    [
        "req_902fc85a10c8bc6ae8c2340a",
        "msg_1a00000000000001",
        "req_01J9Z6Q3M8T4V5W6X7Y8Z9A0B1",
        "123e4567-e89b-12d3-a456-426614174000",
        "9f1c0b7e5a2d4c33a1b2c3d4e5f60718",
        "1795431545250",
        "14155550123",
        "Root=1-67891233-abcdef012345678912345678",
        "key_0n9j6mzqpgqd",
        "acct-05vhfd",
        "eyJ",
    ],
)
def test_an_id_stays_as_it_is_however_many_digits_it_has(lanes: Lanes, given: str) -> None:
    lines = [json_line(request_id=given, org_id=given, key_id=given)]

    [row], _ = parsed(lanes, settled(NGINX_JSON, lines), lines)

    assert (row["request_id"], row["org_id"], row["key_id"]) == (given, given, given)


@pytest.mark.parametrize(
    "given",
    ["ada@mail.example", "+14155550123", "sk_live_00e674ff6ae6b7b9", "two words", "%2B14155550123", "x" * 129, JWT],
)
def test_an_id_that_is_none_becomes_a_fingerprint_so_that_it_still_groups(lanes: Lanes, given: str) -> None:
    lines = [json_line(request_id=given, org_id=given, key_id=given)]

    [row], _ = parsed(lanes, settled(NGINX_JSON, lines), lines)

    fingerprint = "#" + hmac.digest(KEY, given.encode(), "sha256").hex()[:16]
    assert (row["request_id"], row["org_id"], row["key_id"]) == (fingerprint, fingerprint, fingerprint)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ("sk_live_00e674ff6ae6b7b9", "sk_live_00e674ff6ae6b7b9"),
        ("Bearer sk_live_00e674ff6ae6b7b9", "sk_live_00e674ff6ae6b7b9"),
        ("bearer  sk_live_00e674ff6ae6b7b9", "sk_live_00e674ff6ae6b7b9"),
        ("Basic b3BzOmh1bnRlcjI=", "b3BzOmh1bnRlcjI="),
        ("testing-4f2a9c", "testing-4f2a9c"),
        ("********", "********"),
        ("ключ", "ключ"),
        ("k" * 200, "k" * 200),
    ],
)
@pytest.mark.parametrize("field", ["http_authorization", "http_x_api_key"])
def test_a_presented_key_becomes_its_hmac(lanes: Lanes, field: str, given: str, key: str) -> None:
    lines = [json_line(**{field: given}), json_line(idempotency_key=key)]

    rows, _ = parsed(lanes, settled(NGINX_JSON, lines), lines)

    fingerprint = hmac.digest(KEY, key.encode(), "sha256").hex()[:16]
    assert [(row["key_hash"], row["idempotency_hash"]) for row in rows] == [(fingerprint, None), (None, fingerprint)]


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ("YOUR_API_KEY", "YOUR_API_KEY"),
        ("Bearer YOUR_API_KEY", "YOUR_API_KEY"),
        ("<your-api-key-here>", "<your-api-key-here>"),
        ("${API_KEY}", "${API_KEY}"),
        ("process.env.API_KEY", "process.env.API_KEY"),
        ("Bearer undefined", "undefined"),
        ("null", "null"),
        ("[object Object]", "[object Object]"),
        ("sk_test_123456789", "sk_test_123456789"),
        ("sk_live_xxxxxxxxxxxxxxxx", "sk_live_xxxxxxxxxxxxxxxx"),
        ("test-key", "test-key"),
    ],
)
def test_a_placeholder_that_was_presented_for_a_key_is_marked(lanes: Lanes, given: str, key: str) -> None:
    lines = [json_line(http_authorization=given)]

    [row], _ = parsed(lanes, settled(NGINX_JSON, lines), lines)

    assert row["key_hash"] == "placeholder-" + hmac.digest(KEY, key.encode(), "sha256").hex()[:16]


def test_another_secret_gives_other_fingerprints() -> None:
    lines = [
        json_line(http_x_api_key="sk_live_00e674ff6ae6b7b9", request_id="ada@mail.example", uri="/v1/ada@mail.example")
    ]
    others = Lanes(bytes(32), threads=1)
    ours = Lanes(KEY, threads=1)

    [first], _ = parsed(ours, settled(NGINX_JSON, lines), lines)
    [again], _ = parsed(ours, settled(NGINX_JSON, lines), lines)
    [other], _ = parsed(others, settled(NGINX_JSON, lines), lines)
    ours.close()
    others.close()

    assert first == again
    names = {"key_hash", "request_id", "path"}
    assert {name for name in first if first[name] != other[name]} == names


@pytest.mark.parametrize(
    ("uri", "route"),
    [
        ("/v1/contacts/ada@mail.example", "/v1/contacts/{id}"),
        ("/v1/contacts/ada%40mail.example", "/v1/contacts/{id}"),
        ("/v1/numbers/+14155550123/messages", "/v1/numbers/{id}/messages"),
        ("/v1/numbers/14155550123", "/v1/numbers/{id}"),
        ("/v1/numbers/(212)%20555-0152", "/v1/numbers/{id}"),
        ("/v1/keys/sk_live_00e674ff6ae6b7b9", "/v1/keys/{id}"),
        ("/v1/sessions/" + JWT, "/v1/sessions/{id}"),
    ],
)
def test_a_path_with_personal_data_is_its_route_and_a_fingerprint(lanes: Lanes, uri: str, route: str) -> None:
    lines = [json_line(uri=uri), json_line(uri=f"{uri}?page=2")]

    rows, _ = parsed(lanes, settled(NGINX_JSON, lines), lines)

    path = f"{route}#{hmac.digest(KEY, uri.encode(), 'sha256').hex()[:12]}"
    assert [(row["route"], row["path"]) for row in rows] == [(route, path)] * 2


@pytest.mark.parametrize(
    "uri",
    [
        "/v1/messages",
        "/v1/messages/msg_1a00000000000001",
        "/v1/organizations/org_7/usage",
        "/.git/config",
        "/",
        "/a/~b.c-d",
    ],
)
def test_a_path_without_personal_data_stays_and_loses_its_query(lanes: Lanes, uri: str) -> None:
    lines = [json_line(uri=f"{uri}?to=x&api_key=y")]

    [row], _ = parsed(lanes, settled(NGINX_JSON, lines), lines)

    assert row["path"] == uri


@pytest.mark.parametrize(
    ("name", "masked"),
    [
        ("/var/log/nginx/access.json.log-20261113.gz", "/var/log/nginx/access.json.log-20261113.gz"),
        ("-", "-"),
        ("logs/ada@mail.example.log", "logs/[email]"),
        ("logs/sk_live_00e674ff6ae6b7b9.log", "logs/[secret].log"),
        ("https://ops:hunter2@logs.example/a.gz", "https://[secret]@logs.example/a.gz"),
        ("logs/caf\udce9.log", "logs/caf\ufffd.log"),
        ("logs/caf\udce9/+14155550123.log", "logs/caf\ufffd/[phone].log"),
    ],
)
def test_the_name_of_a_source_is_masked(name: str, masked: str) -> None:
    assert mask_name(name) == masked


def test_the_code_of_a_reject_is_masked_as_that_of_an_error_is(tmp_path: Path) -> None:
    codes = ["validation_failed", "ada@mail.example", "sk_live_00e674ff6ae6b7b9"]
    lines = [json_line(), *(error_line(code, 400, msec=1) for code in codes)]
    (tmp_path / "api.log").write_bytes(log(lines))

    list(ingest(expand([str(tmp_path / "api.log")]), tmp_path / "lake", KEY))

    assert [row["code"] for row in rejects(tmp_path / "lake")] == ["validation_failed", "[email]", "[secret]"]


def test_the_writer_takes_nothing_that_did_not_pass_the_door(tmp_path: Path) -> None:
    lakes.create(tmp_path / "lake")
    writer = Writer(table_path(tmp_path / "lake"), date(2026, 11, 2))
    rows = pa.table({"request_id": ["req_1"]})

    with pytest.raises(TypeError, match="the lake takes request rows only as `Redacted`"):
        writer.add(Batch((cast("Redacted", rows),), REJECTS.empty_table()))

    assert requests(tmp_path / "lake") == []


def test_a_gateways_own_reason_is_masked_as_text_is(lanes: Lanes) -> None:
    mapping = replace(NGINX_JSON, columns=NGINX_JSON.columns | {"gateway_reason": (("why",),)})
    lines = [
        json_line(status=502, upstream_status="", why=why) for why in ("UF,URX", "sk_live_0123456789abcdef", "a b")
    ]

    rows, _ = parsed(lanes, settled(mapping, lines), lines)

    assert [row["gateway_reason"] for row in rows] == ["UF,URX", "[secret]", "bad_gateway"]
