"""unattributed: which errors name no organisation or no key, and why."""

from typing import Any

import pytest

from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows, source

SPAN = {"first_ts": at(0), "last_ts": at(9)}


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({}, id="all"),
        pytest.param({"since": at(86_000)}, id="since"),
        pytest.param({"until": at(2 * 86_000)}, id="until"),
        pytest.param({"for_route": "/v1/messages"}, id="route"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_every_row_equals_a_second_count_without_sql(seed: int, parameters: Row) -> None:
    events = [row | {"source_id": f"day_{row['ts'].day}"} for row in random_events(seed, count=300)]
    events = [row | {"org_id": None} if row["ts"].day == 3 else row for row in events]
    con = lake(events, sources=[source("day_2", **SPAN), source("day_3", name="third.log", **SPAN)])

    assert rows(con, "unattributed", **parameters) == _expected(
        events, {"day_2": "day_2.log", "day_3": "third.log"}, **parameters
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"code": "missing_api_key"}, "no key sent", id="missing_api_key"),
        pytest.param({"code": "invalid_api_key"}, "unknown key", id="invalid_api_key"),
        pytest.param({"code": None, "origin": "gateway"}, "gateway answered", id="the gateway's own"),
        pytest.param({"code": None, "body_state": "absent"}, "body not read", id="no body in the log"),
        pytest.param({"code": None, "body_state": "undecodable"}, "body not read", id="no body that can be decoded"),
        pytest.param({"code": "not_found"}, "answered before the key was checked", id="any other code"),
    ],
)
def test_an_error_without_org_and_key_has_a_reason(fields: Row, reason: str) -> None:
    con = lake([error(0, **fields), ok(1, org_id="org_a", key_id="key_a")])

    assert columns_of(rows(con, "unattributed"), "missing", "reason") == [("org and key", reason)]


def test_a_source_in_which_nobody_has_an_org_or_a_key_does_not_log_them() -> None:
    gateway = {"code": None, "origin": "gateway"}
    con = lake(
        [
            error(0, **gateway, source_id="plain"),
            ok(1, source_id="plain"),
            error(2, **gateway, source_id="rich"),
            ok(3, source_id="rich", org_id="org_a", key_id="key_a"),
        ],
        sources=[source("plain", **SPAN), source("rich", **SPAN)],
    )

    assert columns_of(rows(con, "unattributed"), "source", "reason") == [
        ("plain.log", "not logged"),
        ("rich.log", "gateway answered"),
    ]


@pytest.mark.parametrize(
    ("named", "missing"),
    [
        pytest.param({"key_id": "key_a"}, "org", id="only a key"),
        pytest.param({"key_hash": "f00d"}, "org", id="only a fingerprint"),
        pytest.param({"org_id": "org_a"}, "key", id="only an organisation"),
    ],
)
def test_what_the_log_never_names_is_said_to_be_missing_from_it(named: Row, missing: str) -> None:
    con = lake([error(0, "not_found", **named), ok(1, **named)])

    assert columns_of(rows(con, "unattributed"), "missing", "reason") == [(missing, "not logged")]


def test_an_error_with_an_org_and_a_key_is_attributed() -> None:
    con = lake([error(0, "not_found", org_id="org_a", key_hash="f00d")])

    assert rows(con, "unattributed") == []


def test_the_share_is_of_all_errors_in_scope() -> None:
    con = lake([error(0, "missing_api_key"), *(error(n, "not_found", org_id="o", key_id="k") for n in range(1, 4))])

    assert columns_of(rows(con, "unattributed"), "errors", "share") == [(1, 0.25)]
    assert columns_of(rows(con, "unattributed", until=at(1)), "errors", "share") == [(1, 1.0)]


def test_a_source_that_the_ledger_does_not_name_goes_by_its_id() -> None:
    con = lake([error(0, "missing_api_key")], sources=[])

    assert columns_of(rows(con, "unattributed"), "source") == [("first",)]


def test_the_examples_are_the_three_latest_errors() -> None:
    con = lake([error(number, "missing_api_key", request_id=f"req_{number}") for number in range(5)])

    assert columns_of(rows(con, "unattributed"), "example_request_ids") == [(["req_4", "req_3", "req_2"],)]


def _expected(
    events: list[Row], names: dict[str, str], since: Any = None, until: Any = None, for_route: str | None = None
) -> list[Row]:
    with_org = {row["source_id"] for row in events if row["org_id"]}
    with_key = {row["source_id"] for row in events if _key(row)}
    errors = [
        row
        for row in events
        if row["is_error"]
        and (since is None or row["ts"] >= since)
        and (until is None or row["ts"] < until)
        and for_route in (None, row["route"])
    ]
    cells: dict[tuple[Any, ...], list[Row]] = {}
    for row in errors:
        if row["org_id"] and _key(row):
            continue
        missing = "key" if row["org_id"] else "org" if _key(row) else "org and key"
        is_logged = ("org" in missing and row["source_id"] in with_org) or (
            "key" in missing and row["source_id"] in with_key
        )
        reasons = {"missing_api_key": "no key sent", "invalid_api_key": "unknown key"}
        other = "gateway answered" if row["origin"] == "gateway" else "answered before the key was checked"
        other = "body not read" if other[0] == "a" and row["body_state"] in ("absent", "undecodable") else other
        reason = reasons.get(row["code"] or "", other if is_logged else "not logged")
        cell = (
            *(row["code"], row.get("gateway_reason"), row["route"], names.get(row["source_id"], row["source_id"])),
            *(missing, reason),
        )
        cells.setdefault(cell, []).append(row)
    answer = []
    for cell, found in cells.items():
        latest = sorted(sorted(found, key=lambda row: row["request_id"]), key=lambda row: row["ts"], reverse=True)
        answer.append(
            dict(zip(("code", "gateway_reason", "route", "source", "missing", "reason"), cell, strict=True))
            | {
                "errors": len(found),
                "share": len(found) / len(errors),
                "client_ips": len({row["client_ip"] for row in found}),
                "first_seen": latest[-1]["ts"],
                "last_seen": latest[0]["ts"],
                "example_request_ids": [row["request_id"] for row in latest[:3]],
            }
        )
    names_in_order = ("code", "gateway_reason", "route", "source", "missing", "reason")
    return sorted(answer, key=lambda row: (-row["errors"], *(row[name] or "~" for name in names_in_order)))


def _key(row: Row) -> str | None:
    return row.get("key_id") or row.get("key_hash")
