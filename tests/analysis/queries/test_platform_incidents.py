"""platform_incidents: when the platform failed more than usual, where, and whether one customer made it fail."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from math import sqrt
from typing import Any, Final

import pytest

from analysis import questions
from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows

HOUR_S: Final = 3_600
SECOND_US: Final = 1_000_000


def customer(number: int, **fields: Any) -> Row:
    return {"key_id": f"key_{number}", "org_id": f"org_{number}", "request_id": f"req_{number}"} | fields


def quiet(hours: float = 24, per_minute: int = 4, start_s: float = 0) -> list[Row]:
    """Requests of twenty customers that succeed, at equal distances."""
    count = int(hours * 60 * per_minute)
    step = hours * HOUR_S / count
    return [ok(start_s + number * step, **customer(number % 20)) for number in range(count)]


def outage(start_s: float, end_s: float, count: int, customers: int = 10, **fields: Any) -> list[Row]:
    """`count` faults of so many customers from one moment to another."""
    step = (end_s - start_s) / (count - 1)
    return [
        error(start_s + number * step, "internal_error", **customer(number % customers) | fields)
        for number in range(count)
    ]


def found(events: list[Row], **parameters: Any) -> list[Row]:
    return rows(lake(events), "platform_incidents", **parameters)


def test_a_quiet_day_has_no_incident() -> None:
    stray = [error(number * HOUR_S + 100, "internal_error", **customer(number)) for number in range(24)]

    assert found(quiet() + stray) == []


@pytest.mark.parametrize(
    ("start_s", "end_s", "count"),
    [
        pytest.param(36_000, 36_008.5, 200, id="nine seconds"),
        pytest.param(36_000, 36_299, 600, id="five minutes"),
        pytest.param(36_000, 39_590, 240, id="an hour of four a minute"),
    ],
)
def test_an_outage_begins_with_its_first_fault_and_ends_with_its_last(start_s: float, end_s: float, count: int) -> None:
    answer = found(quiet() + outage(start_s, end_s, count))

    assert columns_of(answer, "started_at", "ended_at", "verdict", "faults", "orgs_hit") == [
        (at(start_s), at(end_s), "platform", count, 10)
    ]


def test_two_outages_by_the_second_that_pause_are_two_incidents() -> None:
    events = quiet() + outage(36_000, 36_009, 100) + outage(36_019, 36_025, 100)

    assert sorted(columns_of(found(events), "started_at")) == [(at(36_000),), (at(36_019),)]


def test_an_outage_that_pauses_for_minutes_is_one_incident() -> None:
    events = quiet() + outage(36_000, 36_600, 200) + outage(36_800, 37_400, 200)

    assert columns_of(found(events), "started_at", "ended_at", "faults") == [(at(36_000), at(37_400), 400)]


def test_faults_of_one_customer_alone_are_not_the_platforms() -> None:
    poisoned = outage(36_000, 36_299, 100, customers=1)

    assert columns_of(found(quiet() + poisoned), "verdict", "top_customer", "top_customer_share") == [
        ("one customer", "org_0", 1.0)
    ]


def test_an_outage_in_which_one_customer_loops_is_still_the_platforms() -> None:
    events = quiet() + outage(36_000, 36_299, 60) + outage(36_000, 36_299, 3_000, customers=1)

    assert columns_of(found(events), "verdict", "top_customer", "orgs_hit") == [("platform", "org_0", 10)]


def test_an_outage_of_one_route_names_it() -> None:
    events = quiet() + outage(36_000, 36_299, 100, route="/v1/reports", method="GET")

    assert columns_of(found(events), "method", "route") == [("GET", "/v1/reports")]


def test_an_outage_of_all_routes_names_none() -> None:
    others = [row | {"route": "/v1/numbers"} for row in quiet()]
    events = quiet() + others + outage(36_000, 36_299, 100) + outage(36_000, 36_299, 100, route="/v1/numbers")

    assert columns_of(found(events), "method", "route") == [(None, None)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, ("upstream", ["internal_error"]), id="by the API"),
        pytest.param(
            {"code": None, "status": 502, "origin": "gateway", "gateway_reason": "bad_gateway"},
            ("gateway", ["bad_gateway"]),
            id="by the gateway",
        ),
        pytest.param({"code": None, "status": 503}, ("upstream", ["503"]), id="without an envelope"),
    ],
)
def test_an_incident_says_who_answered_what(fields: Row, expected: tuple[str, list[str]]) -> None:
    events = quiet() + [row | fields for row in outage(36_000, 36_299, 100)]

    assert columns_of(found(events), "origin", "reasons") == [expected]


def test_client_errors_are_no_incident() -> None:
    refused = [row | {"code": "not_found", "status": 404} for row in outage(36_000, 36_299, 500)]

    assert found(quiet() + refused) == []


def test_a_surge_of_requests_that_fail_as_often_as_ever_is_no_incident() -> None:
    draws = random.Random(3)
    usual = [
        error(second, "internal_error", **customer(second % 20)) if draws.random() < 0.1 else ok(second, **customer(1))
        for second in range(0, 86_400, 10)
    ]
    surge = [
        error(40_000 + number / 10, "internal_error", **customer(number % 20))
        if draws.random() < 0.1
        else ok(40_000 + number / 10, **customer(2))
        for number in range(3_000)
    ]

    assert found(usual + surge) == []


def test_an_hour_that_is_bad_every_week_is_no_incident() -> None:
    weeks = [
        row
        for week in range(5)
        for row in quiet(2, start_s=week * 7 * 86_400) + outage(week * 7 * 86_400 + 600, week * 7 * 86_400 + 3_000, 120)
    ]

    assert found(weeks, since=at(4 * 7 * 86_400)) == []


def test_the_request_ids_to_hand_over_are_the_first_of_each_caller() -> None:
    (row,) = found(quiet() + outage(36_000, 36_299, 100, customers=3))

    assert row["request_ids"] == ["req_0", "req_1", "req_2"]


def test_faults_within_a_minute_of_the_callers_last_one_are_repeats() -> None:
    loop = outage(36_000, 36_100, 101, customers=1) + outage(36_010, 36_110, 3, customers=3)

    (row,) = found(quiet() + loop)

    # All but the first of each of the three callers: the first of the three customers is the one that loops.
    assert (row["faults"], row["repeat_share"]) == (104, 101 / 104)


def test_the_header_describes_each_column_of_the_answer() -> None:
    (row,) = found(quiet() + outage(36_000, 36_299, 100))

    assert [column.name for column in questions()["platform_incidents"].columns] == list(row)


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({}, id="all"),
        pytest.param({"since": at(86_000)}, id="since"),
        pytest.param({"until": at(86_400)}, id="until"),
        pytest.param({"for_org": "org_a"}, id="organisation"),
        pytest.param({"for_route": "/v1/messages"}, id="route"),
        pytest.param({"min_faults": 2, "min_factor": 2.0}, id="thresholds"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_every_incident_equals_a_second_count_without_sql(seed: int, parameters: Row) -> None:
    events = random_events(seed, count=900, spread_s=600)
    found_by_sql = rows(lake(events), "platform_incidents", **parameters, max_p=1.0)

    assert columns_of(
        found_by_sql, "started_at", "ended_at", "faults", "requests", "orgs_hit", "callers_hit"
    ) == _expected(events, **parameters)


def _expected(
    events: list[Row],
    since: datetime | None = None,
    until: datetime | None = None,
    for_org: str | None = None,
    for_route: str | None = None,
    min_faults: int = 5,
    min_factor: float = 3.0,
) -> list[tuple[Any, ...]]:
    """Incidents of less than three weeks, as the header defines them."""
    first, last = min(row["ts"] for row in events), max(row["ts"] for row in events)
    begins = max(first, since) if since else first
    ends = min(last + timedelta(microseconds=1), until) if until else last + timedelta(microseconds=1)
    asked = [
        row
        for row in events
        if begins <= row["ts"] < ends and for_org in (None, row["org_id"]) and for_route in (None, row["route"])
    ]
    failed = [row for row in asked if row["is_error"] and (row["status"] >= 500 or row.get("code") == "internal_error")]
    times = sorted(_us(row["ts"]) for row in failed)
    length = _us(ends) - _us(begins)
    slice_us = min(HOUR_S * SECOND_US, max(SECOND_US, length // 24))
    in_slices = sorted(Counter((time - _us(begins)) // slice_us for time in times).values(), reverse=True)
    middle = (length // slice_us) // 2
    usual = max(0.5 * slice_us / HOUR_S / SECOND_US, in_slices[middle] if middle < len(in_slices) else 0)
    hot: list[tuple[int, int, int]] = []
    for width_s, pause_s in ((1, 5), (60, 300), (600, 300)):
        expected = usual / slice_us * width_s * SECOND_US
        bins: dict[int, list[int]] = {}
        for time in times:
            bins.setdefault(time // (width_s * SECOND_US), []).append(time)
        for inside in bins.values():
            if len(inside) >= max(expected + 5 * sqrt(expected) + min_faults, min_factor * expected):
                hot.append((inside[0], inside[-1], pause_s * SECOND_US))
                times = [time for time in times if time not in set(inside)]
    incidents: list[list[tuple[int, int, int]]] = []
    for one in sorted(hot):
        if incidents and any(one[0] <= end + max(pause, one[2]) for _, end, pause in incidents[-1]):
            incidents[-1].append(one)
        else:
            incidents.append([one])
    answer: list[tuple[Any, ...]] = []
    for parts in incidents:
        start, end = parts[0][0], max(end for _, end, _ in parts)
        hit = [row for row in failed if start <= _us(row["ts"]) <= end]
        answer.append(
            (
                _moment(start),
                _moment(end),
                len(hit),
                sum(start <= _us(row["ts"]) <= end for row in asked),
                len({row["org_id"] for row in hit} - {None}),
                len({row["caller"] for row in hit} - {None}),
            )
        )
    return sorted(answer, key=lambda incident: (-incident[2], incident[0]))


def _us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _moment(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
