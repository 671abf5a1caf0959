"""keyless_callers: who calls without a key, and whether that is a lost key, a crawler or a scanner."""

import random
from datetime import datetime
from typing import Any, Final

import pytest

from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows

DAY: Final = 86_400
BEHIND_THE_DOOR: Final = {"not_found", "missing_api_key", "invalid_api_key", "rate_limited", None}
ATTACKED: Final = ("/.env", "/wp-login.php")


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({}, id="all"),
        pytest.param({"since": at(86_000)}, id="since"),
        pytest.param({"until": at(2 * 86_000)}, id="until"),
        pytest.param({"for_key": "192.0.2.1"}, id="address"),
        pytest.param({"for_route": "/.env"}, id="route"),
        pytest.param(
            {"min_requests": 2, "min_walked_routes": 2, "max_unknown_share": 0.6, "min_alone": 6}, id="thresholds"
        ),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_every_row_equals_a_second_count_without_sql(seed: int, parameters: Row) -> None:
    events = _with_keyless_calls(seed)

    assert rows(lake(events), "keyless_callers", **parameters) == _expected(events, **parameters)


@pytest.mark.parametrize(("requests", "verdict"), [(4, "not enough data"), (5, "misconfigured integration")])
def test_calls_to_a_route_that_others_use_are_a_misconfigured_integration(requests: int, verdict: str) -> None:
    con = lake([_used("/v1/messages"), *(_keyless(number) for number in range(requests))])

    answer = rows(con, "keyless_callers")

    assert columns_of(answer, "verdict", "missing_key", "distinct_routes", "existing_routes") == [
        (verdict, requests, 1, 1)
    ]


def test_an_integration_that_forgets_its_key_on_one_path_also_makes_keyed_calls() -> None:
    keyed = [ok(number, key_id="key_a", client_ip="192.0.2.9") for number in range(3)]
    con = lake([*keyed, error(4, "not_found", key_id="key_a", client_ip="192.0.2.9"), *map(_keyless, range(9))])

    assert columns_of(rows(con, "keyless_callers"), "verdict", "keyed_requests", "keyed_successes") == [
        ("misconfigured integration", 4, 3)
    ]


def test_routes_that_only_an_integration_with_a_good_key_uses_are_not_walked() -> None:
    keyed = [ok(number, key_id="key_a", client_ip="192.0.2.9", route="/v1/other") for number in range(3)]
    con = lake(keyed + [_keyless(number, route=f"/v1/own{'abcd'[number % 4]}") for number in range(40)])

    assert columns_of(rows(con, "keyless_callers"), "verdict", "existing_routes") == [("misconfigured integration", 0)]


def test_keys_of_the_address_that_never_succeed_leave_it_open() -> None:
    failing = [error(number, "not_found", key_id="key_a", client_ip="192.0.2.9") for number in range(3)]
    con = lake([_used("/v1/messages"), *failing, *map(_keyless, range(9))])

    assert columns_of(rows(con, "keyless_callers"), "verdict") == [("not enough data",)]


def test_routes_that_are_each_tried_once_are_no_integration() -> None:
    routes = [f"/v1/{name}" for name in ("messages", "numbers", "contacts", "usage", "dnc", "campaigns")]
    con = lake([*map(_used, routes), *(_keyless(number, route=route) for number, route in enumerate(routes))])

    assert columns_of(rows(con, "keyless_callers"), "verdict", "existing_routes") == [("not enough data", 6)]


def test_a_walk_over_pages_that_come_round_again_is_a_crawler() -> None:
    con = lake([_used("/v1/messages"), *_walk(("/", "/robots.txt", "/about", "/v1/messages"), rounds=5)])

    assert columns_of(rows(con, "keyless_callers"), "verdict", "requests", "not_found", "existing_routes") == [
        ("crawler", 20, 15, 1)
    ]


def test_a_walk_over_pages_that_goes_on_for_an_hour_is_a_crawler() -> None:
    pages = [f"/page{chr(97 + number)}" for number in range(25)]

    assert _verdict(_walk(pages, gap_s=150)) == "crawler"
    assert _verdict(_walk(pages, gap_s=149)) == "scanner"


@pytest.mark.parametrize(("pages", "verdict"), [(2, "not enough data"), (3, "scanner")])
def test_a_few_pages_in_one_go_are_a_scanner_once_they_are_too_many_for_a_mistake(pages: int, verdict: str) -> None:
    walked = _walk([f"/page{chr(97 + number)}" for number in range(pages)], rounds=2)

    assert _verdict([_used("/v1/messages"), _keyless(9), *walked]) == verdict


def test_a_walk_stays_one_where_a_rate_limit_refuses_most_of_it() -> None:
    walked = _walk([f"/page{chr(97 + number)}" for number in range(4)])
    limited = [_keyless(5 + number, "rate_limited", route=f"/page{chr(101 + number)}") for number in range(20)]

    assert _verdict([*walked, *limited]) == "scanner"
    assert _verdict([_used("/v1/messages"), _keyless(0), *limited]) == "not enough data"


def test_an_integration_with_a_few_stray_requests_stays_one() -> None:
    stray = _walk(("/", "/favicon.ico", "/robots.txt"))

    assert _verdict([_used("/v1/messages"), *map(_keyless, range(12)), *stray]) == "misconfigured integration"
    assert _verdict([_used("/v1/messages"), *map(_keyless, range(11)), *stray]) == "scanner"


@pytest.mark.parametrize(("page", "verdict"), [("/status", "not enough data"), ("/.env", "scanner")])
def test_one_route_that_only_attacks_ask_for_is_enough(page: str, verdict: str) -> None:
    assert _verdict([_used("/v1/messages"), _keyless(9), *_walk((page,), rounds=4)]) == verdict


def test_a_monitor_of_one_page_that_does_not_exist_is_neither_crawler_nor_scanner() -> None:
    assert _verdict([_keyless(60 * number, route="/health") for number in range(200)]) == "not enough data"


def test_malformed_requests_give_a_scanner_away_whatever_agent_it_names() -> None:
    garbled = [
        error(number, None, status=400, origin="gateway", gateway_reason="bad_request", method=None, route=None)
        | {"client_ip": "192.0.2.9"}
        for number in range(3)
    ]
    calls = [_keyless(number, user_agent=f"agent {number}") for number in range(6)]
    con = lake([_used("/v1/messages"), *garbled, *calls])

    assert columns_of(rows(con, "keyless_callers"), "verdict") == [("scanner",)] * 6


def test_two_clients_of_one_address_are_judged_apart_once_they_say_enough() -> None:
    walk = [row | {"user_agent": "walker"} for row in _walk(("/", "/about", "/jobs"), rounds=7)]
    con = lake([_used("/v1/messages"), *(_keyless(number, user_agent="plugin") for number in range(20)), *walk])

    assert columns_of(rows(con, "keyless_callers"), "user_agent", "verdict") == [
        ("walker", "crawler"),
        ("plugin", "misconfigured integration"),
    ]


def test_where_unknown_routes_are_not_found_a_missing_key_says_that_a_route_exists() -> None:
    con = lake([*_walk(("/about",), rounds=2), *(_keyless(number, route="/v1/messages") for number in range(12))])

    assert columns_of(rows(con, "keyless_callers"), "existing_routes", "verdict") == [(1, "misconfigured integration")]


def test_where_every_route_asks_for_a_key_only_the_calls_of_others_say_that_it_exists() -> None:
    pages = [_keyless(number, route=f"/page{'abc'[number % 3]}") for number in range(21)]
    con = lake([_used("/v1/messages"), *pages])

    assert columns_of(rows(con, "keyless_callers"), "existing_routes", "verdict") == [(0, "crawler")]


def test_a_walker_that_never_meets_a_route_with_a_key_is_found_all_the_same() -> None:
    assert _verdict(_walk(("/", "/about", "/jobs"), rounds=9)) == "crawler"


def test_customers_of_a_gateway_that_logs_no_keys_are_not_taken_for_keyless() -> None:
    customer = [ok(number, client_ip="192.0.2.9", route="/v1/numbers") for number in range(9)]

    assert rows(lake(customer + _walk(("/about", "/jobs", "/press"))), "keyless_callers") == []


def test_an_address_that_the_lake_does_not_keep_cannot_be_judged() -> None:
    con = lake([_used("/v1/messages"), *(_keyless(number, client_ip=None) for number in range(9))])

    assert columns_of(rows(con, "keyless_callers"), "client_ip", "verdict", "requests") == [
        (None, "not enough data", 9)
    ]


def test_the_routes_are_the_first_ten_in_name_order() -> None:
    con = lake([_keyless(number, route=f"/page{number:02}") for number in reversed(range(12))])

    assert columns_of(rows(con, "keyless_callers"), "distinct_routes", "routes") == [
        (12, [f"/page{number:02}" for number in range(10)])
    ]


def _keyless(seconds: float, code: str = "missing_api_key", **fields: Any) -> Row:
    route = fields.get("route", "/v1/messages")
    caller = {"client_ip": "192.0.2.9", "user_agent": "plugin/1", "method": "GET", "path": route}
    return error(seconds, code, **caller | fields)


def _walk(pages: Any, rounds: int = 1, gap_s: float = 1) -> list[Row]:
    """Pages asked for one after the other; the API asks for a key on its own routes alone."""
    codes = {page: "missing_api_key" if page.startswith("/v1/") else "not_found" for page in pages}
    return [_keyless(gap_s * number, codes[page], route=page) for number, page in enumerate(list(pages) * rounds)]


def _used(route: str) -> Row:
    """A success of somebody else on `route`."""
    return ok(0, key_id="key_b", org_id="org_b", client_ip="192.0.2.77", route=route)


def _verdict(events: list[Row]) -> str:
    [row] = rows(lake(events), "keyless_callers")
    return str(row["verdict"])


def _with_keyless_calls(seed: int) -> list[Row]:
    """Random events, with keyless calls of a few addresses and agents: known pages and unknown ones, garbled too."""
    choose = random.Random(seed)
    events = random_events(seed, count=150)
    for _ in range(240):
        address = choose.randrange(5)
        pages = ["/v1/messages", "/v1/numbers", "/", "/about", "/jobs", *ATTACKED]
        route = choose.choice(pages[: 2 + address])
        fields = {
            "client_ip": f"192.0.2.{address}",
            "user_agent": choose.choice([*[f"agent/{address}"] * 6, "other", None]),
            "route": route,
            "path": route,
            "request_id": f"req_{choose.randrange(99)}",
        }
        seconds = choose.randrange(3) * DAY + choose.randrange(-3_600, 3_600)
        usual = "missing_api_key" if route.startswith("/v1/") or address == seed else "not_found"
        code = choose.choice([*[usual] * 20, "rate_limited", None])
        broken = {"status": 400, "origin": "gateway", "gateway_reason": "bad_request"} if code is None else {}
        is_answered = route.startswith("/v1/") and choose.random() < 0.1
        events.append(
            error(seconds, code, **fields | broken) if not is_answered else ok(seconds, **fields | {"key_id": "k"})
        )
    return events


def _expected(
    events: list[Row],
    since: datetime | None = None,
    until: datetime | None = None,
    for_key: str | None = None,
    for_route: str | None = None,
    min_requests: int = 5,
    min_walked_routes: int = 3,
    max_unknown_share: float = 0.2,
    min_alone: int = 20,
) -> list[Row]:
    recent = [row for row in events if (since is None or row["ts"] >= since) and (until is None or row["ts"] < until)]
    keyless = [
        row
        for row in recent
        if row["is_error"] and not (_is_keyed(row) or row.get("org_id")) and for_key in (None, row.get("client_ip"))
    ]
    agents: dict[tuple[Any, Any], list[Row]] = {}
    for row in keyless:
        agents.setdefault((row.get("client_ip"), row.get("user_agent")), []).append(row)
    candidates = {
        agent
        for agent, found in agents.items()
        if any(row["code"] == "missing_api_key" for row in found)
        or len({row["route"] for row in found if _is_not_found(row)} - {None}) >= min_walked_routes
    }
    agents = {agent: found for agent, found in agents.items() if agent[0] in {ip for ip, _ in candidates}}
    answered = {row["route"] for row in events if not row["is_error"] or row["code"] not in BEHIND_THE_DOOR}
    existing = answered - {None}
    if any(
        any(row["code"] == "missing_api_key" for row in found)
        and any(_is_not_found(row) and row["route"] not in answered for row in found)
        for found in agents.values()
    ):
        existing |= {row["route"] for found in agents.values() for row in found if row["code"] == "missing_api_key"} - {
            None
        }
    keyed: dict[Any, list[Row]] = {}
    successes: dict[Any, int] = {}
    for row in recent:
        if _is_keyed(row):
            keyed.setdefault(row.get("client_ip"), []).append(row)
        if not row["is_error"]:
            successes[row.get("client_ip")] = successes.get(row.get("client_ip"), 0) + 1

    def is_unknown(row: Row) -> bool:
        has_good_key = any(not one["is_error"] for one in keyed.get(row["client_ip"], []))
        is_asked_for = row["code"] == "missing_api_key" and not has_good_key
        return row["route"] not in existing and not _is_malformed(row) and (_is_not_found(row) or is_asked_for)

    answer = []
    for (address, agent), found in agents.items():
        missing = [row for row in found if row["code"] == "missing_api_key"]
        if (address, agent) not in candidates or not (missing or not successes.get(address)):
            continue
        if for_route is not None and for_route not in {row["route"] for row in found}:
            continue
        is_alone = agent is not None and len(found) >= min_alone
        judged = [
            row
            for (other_address, other), calls in agents.items()
            if other_address == address and (other == agent if is_alone else other is None or len(calls) < min_alone)
            for row in calls
        ]
        unknown = [row for row in judged if is_unknown(row)]
        telling = sum(row["code"] != "rate_limited" for row in judged)
        unknown_share = len(unknown) / telling if telling else None
        moments = [row["ts"] for row in judged]
        keyed_successes = sum(not row["is_error"] for row in keyed.get(address, []))
        routes = sorted({row["route"] for row in found} - {None})
        if len(judged) < min_requests:
            verdict = "not enough data"
        elif len({row["route"] for row in unknown}) >= min_walked_routes and (unknown_share or 0) > max_unknown_share:
            is_on = (max(moments) - min(moments)).total_seconds() >= 3600
            comes_again = len(judged) >= 2 * len({row["path"] for row in judged} - {None})
            verdict = "crawler" if len(judged) >= 20 and (comes_again or is_on) else "scanner"
        elif sum(map(_is_malformed, judged)) / len(judged) >= 0.1:
            verdict = "scanner"
        elif unknown_share is None:
            verdict = "not enough data"
        elif unknown_share > max_unknown_share:
            verdict = "scanner" if {row["route"] for row in unknown} & set(ATTACKED) else "not enough data"
        elif len(found) < max(min_requests, 2 * len(routes)) or (keyed.get(address) and not keyed_successes):
            verdict = "not enough data"
        else:
            verdict = "misconfigured integration"
        latest = sorted(found, key=lambda row: row["request_id"])
        latest.sort(key=lambda row: row["ts"], reverse=True)
        answer.append(
            {
                "client_ip": address,
                "user_agent": agent,
                "verdict": verdict,
                "requests": len(found),
                "missing_key": len(missing),
                "not_found": sum(map(_is_not_found, found)),
                "malformed": sum(map(_is_malformed, found)),
                "distinct_routes": len(routes),
                "existing_routes": len(existing & set(routes)),
                "routes": routes[:10],
                "keyed_requests": len(keyed.get(address, [])),
                "keyed_successes": keyed_successes,
                "requests_per_minute": len(found) / len({row["ts"].replace(second=0) for row in found}),
                "first_seen": latest[-1]["ts"],
                "last_seen": latest[0]["ts"],
                "days": len({row["ts"].date() for row in found}),
                "example_request_ids": [row["request_id"] for row in latest[:3]],
            }
        )
    return sorted(answer, key=lambda row: (-row["requests"], row["client_ip"] or "~", row["user_agent"] or "~"))


def _is_keyed(row: Row) -> bool:
    return bool(row.get("key_id") or row.get("key_hash"))


def _is_not_found(row: Row) -> bool:
    return bool(row["code"] == "not_found")


def _is_malformed(row: Row) -> bool:
    return bool(row["origin"] == "gateway" and row["status"] == 400)
