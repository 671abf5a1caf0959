"""scope_misuse: which keys lack scope where, and what kind of mistake that is."""

from typing import Any

import pytest

from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows

CODES = ("insufficient_scope", "scope_invalid")


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({}, id="all"),
        pytest.param({"since": at(86_000)}, id="since"),
        pytest.param({"until": at(2 * 86_000)}, id="until"),
        pytest.param({"for_org": "org_a"}, id="organisation"),
        pytest.param({"for_key": "key_3"}, id="key"),
        pytest.param({"for_route": "/v1/messages"}, id="route"),
        pytest.param({"min_probed_routes": 3, "max_probe_success": 0.6}, id="thresholds"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_every_row_equals_a_second_count_without_sql(seed: int, parameters: Row) -> None:
    events = random_events(seed, count=300)

    assert rows(lake(events), "scope_misuse", **parameters) == _expected(events, **parameters)


def test_a_key_that_never_succeeded_lacks_a_grant() -> None:
    con = lake([_refused(0), _refused(1), _succeeded(2, route="/v1/numbers")])

    assert columns_of(rows(con, "scope_misuse"), "verdict", "refused", "own_successes", "sibling_key") == [
        ("missing grant", 2, 0, None)
    ]


def test_a_key_whose_sibling_succeeds_on_the_route_is_the_wrong_key() -> None:
    con = lake([_refused(0), _succeeded(1, key_id="key_b")])

    assert columns_of(rows(con, "scope_misuse"), "verdict", "sibling_key", "sibling_successes") == [
        ("wrong key", "key_b", 1)
    ]


@pytest.mark.parametrize(
    "stranger",
    [
        pytest.param({"org_id": "org_b"}, id="a key of another organisation"),
        pytest.param({"method": "GET"}, id="on another method"),
        pytest.param({"route": "/v1/numbers"}, id="on another route"),
        pytest.param({"key_id": None}, id="a caller without a key"),
    ],
)
def test_the_success_of_a_stranger_does_not_make_it_the_wrong_key(stranger: Row) -> None:
    con = lake([_refused(0), _succeeded(1, **{"key_id": "key_b"} | stranger)])

    assert columns_of(rows(con, "scope_misuse"), "verdict", "sibling_key") == [("missing grant", None)]


def test_a_key_that_succeeded_before_has_lost_its_grant() -> None:
    con = lake([_succeeded(0), _refused(1), _succeeded(2, key_id="key_b")])

    assert columns_of(rows(con, "scope_misuse"), "verdict", "own_successes", "last_own_success") == [
        ("regression", 1, at(0))
    ]


def test_a_success_before_since_still_makes_it_a_regression() -> None:
    con = lake([_succeeded(0), _refused(100)])

    answer = rows(con, "scope_misuse", since=at(50))

    assert columns_of(answer, "verdict", "own_successes", "caller_requests") == [("regression", 1, 1)]


def test_a_grant_that_came_later_shows_as_a_success_after_the_last_refusal() -> None:
    con = lake([_refused(0), _succeeded(1)])

    answer = rows(con, "scope_misuse")

    assert columns_of(answer, "verdict", "last_own_success", "last_seen") == [("missing grant", at(1), at(0))]


def test_a_personal_key_on_an_organization_only_resource_is_named_whatever_else_it_lacks() -> None:
    con = lake([_refused(0), _refused(1, code="scope_invalid"), _succeeded(2, key_id="key_b")])

    assert columns_of(rows(con, "scope_misuse"), "verdict", "codes") == [
        ("personal key", ["insufficient_scope", "scope_invalid"])
    ]


def test_a_key_that_is_refused_on_many_routes_and_succeeds_nowhere_is_probing() -> None:
    con = lake([_refused(number, route=f"/v1/secret/{number}") for number in range(5)])

    assert {row["verdict"] for row in rows(con, "scope_misuse")} == {"probing"}


def test_a_key_that_mostly_succeeds_is_not_probing() -> None:
    refused = [_refused(number, route=f"/v1/secret/{number}") for number in range(5)]
    succeeded = [_succeeded(number, route="/v1/numbers") for number in range(5)]

    assert {row["verdict"] for row in rows(lake(refused + succeeded), "scope_misuse")} == {"missing grant"}


def test_a_filter_on_a_route_does_not_hide_that_the_key_is_probing() -> None:
    con = lake([_refused(number, route=f"/v1/secret/{number}") for number in range(5)])

    answer = rows(con, "scope_misuse", for_route="/v1/secret/0")

    assert columns_of(answer, "route", "verdict") == [("/v1/secret/0", "probing")]


def test_many_objects_tried_on_one_route_are_counted() -> None:
    con = lake([_refused(number, route="/v1/orgs/{id}", path=f"/v1/orgs/{number}") for number in range(4)])

    assert columns_of(rows(con, "scope_misuse"), "refused_paths", "caller_refused_routes") == [
        (4, ["POST /v1/orgs/{id}"])
    ]


def test_the_examples_are_the_three_latest_refusals() -> None:
    con = lake([_refused(number, request_id=f"req_{number}") for number in range(5)])

    assert columns_of(rows(con, "scope_misuse"), "example_request_ids") == [(["req_4", "req_3", "req_2"],)]


def test_other_refusals_are_no_scope_misuse() -> None:
    assert rows(lake([error(0, "invalid_api_key"), error(1, "not_found")]), "scope_misuse") == []


def _refused(seconds: float, code: str = "insufficient_scope", **fields: Any) -> Row:
    return error(seconds, code, **{"key_id": "key_a", "org_id": "org_a"} | fields)


def _succeeded(seconds: float, **fields: Any) -> Row:
    return ok(seconds, **{"key_id": "key_a", "org_id": "org_a"} | fields)


def _expected(
    events: list[Row],
    since: Any = None,
    until: Any = None,
    for_org: str | None = None,
    for_key: str | None = None,
    for_route: str | None = None,
    min_probed_routes: int = 5,
    max_probe_success: float = 0.05,
) -> list[Row]:
    known = [row for row in events if until is None or row["ts"] < until]
    recent = [row for row in known if since is None or row["ts"] >= since]
    asked = [row for row in recent if for_org in (None, row["org_id"]) and for_key in (None, row["caller"])]
    refusals = sorted((row for row in asked if row.get("code") in CODES), key=lambda row: row["request_id"])
    refusals.sort(key=lambda row: row["ts"], reverse=True)
    cells: dict[tuple[Any, ...], list[Row]] = {}
    for row in refusals:
        cells.setdefault((row["caller"], row["org_id"], row["method"], row["route"]), []).append(row)
    answer = []
    for cell, found in cells.items():
        caller = cell[0]
        own_refusals = [row for row in refusals if row["caller"] == caller]
        own_requests = [row for row in recent if row["caller"] == caller]
        own = sorted(row["ts"] for row in known if not row["is_error"] and _cell(row) == cell)
        siblings = _siblings(cell, known)
        success_rate = sum(not row["is_error"] for row in own_requests) / len(own_requests)
        routes = sorted({f"{row['method'] or ''} {row['route'] or ''}" for row in own_refusals})
        codes = sorted({row["code"] for row in found})
        if len(routes) >= min_probed_routes and success_rate < max_probe_success:
            verdict = "probing"
        elif "scope_invalid" in codes:
            verdict = "personal key"
        elif own and own[0] < found[-1]["ts"]:
            verdict = "regression"
        else:
            verdict = "wrong key" if siblings else "missing grant"
        answer.append(
            dict(zip(("caller", "org_id", "method", "route"), cell, strict=True))
            | {
                "verdict": verdict,
                "refused": len(found),
                "codes": codes,
                "refused_paths": len({row["path"] for row in found} - {None}),
                "caller_refused_routes": routes,
                "caller_requests": len(own_requests),
                "caller_success_rate": success_rate,
                "own_successes": len(own),
                "last_own_success": own[-1] if own else None,
                "sibling_key": siblings[0][1] if siblings else None,
                "sibling_successes": -siblings[0][0] if siblings else None,
                "first_seen": found[-1]["ts"],
                "last_seen": found[0]["ts"],
                "example_request_ids": [row["request_id"] for row in found[:3]],
            }
        )
    kept = [row for row in answer if for_route in (None, row["route"])]
    names = ("caller", "org_id", "route", "method")
    return sorted(kept, key=lambda row: (-row["refused"], *(row[name] or "~" for name in names)))


def _cell(row: Row) -> tuple[Any, ...]:
    return row["caller"], row["org_id"], row["method"], row["route"]


def _siblings(cell: tuple[Any, ...], known: list[Row]) -> list[tuple[int, str]]:
    """Successes (negated) and name of every other key of the organisation that succeeded there, the best one first."""
    others = [
        row["caller"]
        for row in known
        if cell[1] is not None
        and _cell(row)[1:] == cell[1:]
        and not row["is_error"]
        and (row.get("key_id") or row.get("key_hash"))
        and row["caller"] != cell[0]
    ]
    return sorted((-others.count(other), other) for other in set(others))
