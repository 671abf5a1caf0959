"""rate_limit_hot_spots: who is limited where, how hard, and whether they wait as they are told."""

from collections import Counter
from datetime import timedelta
from itertools import groupby
from typing import Any

import pytest

from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows

CROWDED_S = 90


@pytest.mark.parametrize("seed", range(6))
def test_every_row_equals_a_second_count_without_sql(seed: int) -> None:
    events = random_events(seed, spread_s=CROWDED_S)

    assert rows(lake(events), "rate_limit_hot_spots") == _expected(events)


@pytest.mark.parametrize(
    ("parameters", "keep"),
    [
        pytest.param({"since": at(86_400)}, lambda row: row["ts"] >= at(86_400), id="since"),
        pytest.param({"until": at(86_400)}, lambda row: row["ts"] < at(86_400), id="until"),
        pytest.param({"for_org": "org_a"}, lambda row: row["org_id"] == "org_a", id="organisation"),
        pytest.param({"for_key": "key_3"}, lambda row: row["caller"] == "key_3", id="key"),
        pytest.param({"for_route": "/v1/messages"}, lambda row: row["route"] == "/v1/messages", id="route"),
    ],
)
def test_a_filter_answers_as_if_the_lake_held_only_what_it_keeps(parameters: Row, keep: Any) -> None:
    events = random_events(seed=7, spread_s=CROWDED_S)

    answer = rows(lake(events), "rate_limit_hot_spots", min_shared_keys=99, **parameters)

    assert answer == _expected([row for row in events if keep(row)], min_shared_keys=99)


def test_without_refusals_there_are_no_rows() -> None:
    assert rows(lake([ok(0), error(1, "not_found")]), "rate_limit_hot_spots") == []


def test_a_429_of_the_gateway_without_an_envelope_counts() -> None:
    con = lake(
        [error(0, None, status=429, origin="gateway", gateway_reason="limited", key_id="key_a"), ok(1, key_id="key_a")]
    )

    assert columns_of(rows(con, "rate_limit_hot_spots"), "caller", "rate_limited", "requests", "rate") == [
        ("key_a", 1, 2, 0.5)
    ]


def test_a_run_ends_with_another_answer_on_the_same_route_only() -> None:
    refused = [_refusal(second) for second in (0, 1, 2, 4, 5)]
    elsewhere = ok(1.5, key_id="key_a", route="/v1/numbers", path="/v1/numbers")

    answer = rows(lake([*refused, elsewhere, ok(3, key_id="key_a")]), "rate_limit_hot_spots")

    assert columns_of(answer, "longest_run", "longest_run_s") == [(3, 2.0)]


def test_the_share_is_of_all_that_the_caller_asks() -> None:
    con = lake([_refusal(0), ok(1, key_id="key_a"), ok(2, key_id="key_a", route="/v1/numbers"), ok(3, key_id="key_b")])

    answer = rows(con, "rate_limit_hot_spots")

    assert columns_of(answer, "requests", "rate", "caller_requests", "share_of_caller") == [(2, 0.5, 3, 1 / 3)]


def test_the_peak_is_the_fullest_minute_of_the_clock() -> None:
    con = lake([_refusal(second) for second in (58, 59, 60, 61, 62)])

    assert columns_of(rows(con, "rate_limit_hot_spots"), "peak_per_minute") == [(3,)]


@pytest.mark.parametrize(
    ("gap_s", "early"),
    [
        pytest.param(0.05, 1, id="at once"),
        pytest.param(1.74, 1, id="just too early"),
        pytest.param(1.75, 0, id="within the tolerance"),
        pytest.param(2.0, 0, id="as told"),
        pytest.param(60.0, 0, id="much later"),
    ],
)
@pytest.mark.parametrize("next_answer", [ok, lambda ended, **fields: error(ended, "rate_limited", **fields)])
def test_a_retry_is_early_when_it_begins_before_retry_after_has_passed(
    next_answer: Any, gap_s: float, early: int
) -> None:
    refusal = _refusal(10, retry_after_s=2.0)
    retry = next_answer(10 + gap_s + 0.5, latency_ms=500.0, key_id="key_a")

    answer = rows(lake([refusal, retry]), "rate_limit_hot_spots")

    assert columns_of(answer, "retried_too_early") == [(early,)]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"method": "GET"}, id="another method"),
        pytest.param({"path": "/v1/messages/msg_2"}, id="another object"),
        pytest.param({"idempotency_hash": "other"}, id="another idempotency key"),
        pytest.param({"key_id": "key_b"}, id="another caller"),
        pytest.param({"latency_ms": 1000.0}, id="already under way when the refusal came"),
    ],
)
def test_another_request_is_not_a_retry(other: Row) -> None:
    same = {"route": "/v1/messages/{id}", "path": "/v1/messages/msg_1", "key_id": "key_a", "idempotency_hash": "same"}
    refusal = error(0, "rate_limited", retry_after_s=10.0, **same)

    answer = rows(lake([refusal, error(0.5, "internal_error", **same | other)]), "rate_limit_hot_spots")

    assert columns_of(answer, "caller", "retried_too_early") == [("key_a", 0)]


@pytest.mark.parametrize(
    ("fields", "confidence"),
    [
        pytest.param({"idempotency_hash": "one"}, "high", id="idempotency key"),
        pytest.param({"route": "/v1/messages/{id}", "path": "/v1/messages/msg_1"}, "medium", id="one object"),
        pytest.param({}, "low", id="any object"),
    ],
)
def test_the_confidence_says_how_surely_it_was_the_same_request(fields: Row, confidence: str) -> None:
    con = lake([_refusal(0, **fields)])

    assert columns_of(rows(con, "rate_limit_hot_spots"), "intent_confidence") == [(confidence,)]


def test_a_keyless_caller_is_limited_per_address() -> None:
    con = lake([error(0, "rate_limited", client_ip="192.0.2.1")])

    assert columns_of(rows(con, "rate_limit_hot_spots"), "caller", "limited_per") == [("192.0.2.1", "ip")]


def test_one_key_alone_is_limited_per_key() -> None:
    con = lake([_refusal(second) for second in range(5)])

    assert columns_of(rows(con, "rate_limit_hot_spots"), "limited_per") == [("key",)]


def test_keys_of_one_address_that_are_limited_together_are_limited_per_address() -> None:
    con = lake([_refusal(number, key_id=f"key_{number}") for number in range(3)])

    assert columns_of(rows(con, "rate_limit_hot_spots"), "limited_per") == [("ip",), ("ip",), ("ip",)]


def test_an_address_where_most_keys_go_on_unlimited_is_a_proxy_and_no_limit() -> None:
    limited = [_refusal(number, key_id=f"key_{number}") for number in range(3)]
    free = [ok(number, key_id=f"free_{number}", client_ip="192.0.2.1") for number in range(4)]

    assert columns_of(rows(lake(limited + free), "rate_limit_hot_spots"), "limited_per") == [
        ("key",),
        ("key",),
        ("key",),
    ]


def test_the_most_limited_caller_comes_first() -> None:
    con = lake([_refusal(0, key_id="key_a"), _refusal(1, key_id="key_b"), _refusal(2, key_id="key_b")])

    assert columns_of(rows(con, "rate_limit_hot_spots"), "caller", "rate_limited") == [("key_b", 2), ("key_a", 1)]


def _refusal(seconds: float, **fields: Any) -> Row:
    return error(seconds, "rate_limited", **{"key_id": "key_a", "client_ip": "192.0.2.1"} | fields)


def _expected(events: list[Row], min_shared_keys: int = 3) -> list[Row]:
    cells: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(events, key=lambda row: (row["ts"], _is_refusal(row))):
        cells.setdefault((row["caller"], row.get("org_id"), row["route"]), []).append(row)
    asked = Counter(row["caller"] for row in events)
    answer = [
        _expected_cell(cell, found, events, min_shared_keys) | {"caller_requests": asked[cell[0]]}
        for cell, found in cells.items()
        if any(map(_is_refusal, found))
    ]
    for row in answer:
        row["share_of_caller"] = row["rate_limited"] / row["caller_requests"]
    return sorted(
        answer,
        key=lambda row: (-row["rate_limited"], row["caller"], row["org_id"] or "~", row["route"] or "~"),
    )


def _expected_cell(cell: tuple[Any, ...], found: list[Row], events: list[Row], min_shared_keys: int) -> Row:
    refusals = [row for row in found if _is_refusal(row)]
    runs = [list(run) for refused, run in groupby(found, key=_is_refusal) if refused]
    longest_run, longest_run_s = max((len(run), (run[-1]["ts"] - run[0]["ts"]).total_seconds()) for run in runs)
    waits = [row for row in refusals if row.get("retry_after_s") is not None]
    shared = sum(_is_shared(row, events, min_shared_keys) for row in refusals)
    keyless = not any(_key(row) for row in refusals)
    objects = [row["route"] is not None and "{" in row["route"] for row in refusals]
    keyed = [row.get("idempotency_hash") is not None for row in refusals]
    sure = [is_keyed or is_object for is_keyed, is_object in zip(keyed, objects, strict=True)]
    return {
        "caller": cell[0],
        "org_id": cell[1],
        "route": cell[2],
        "limited_per": "ip" if keyless or 2 * shared >= len(refusals) else "key",
        "rate_limited": len(refusals),
        "requests": len(found),
        "rate": len(refusals) / len(found),
        "peak_per_minute": max(Counter(_minute(row) for row in refusals).values()),
        "longest_run": longest_run,
        "longest_run_s": longest_run_s,
        "first_seen": refusals[0]["ts"],
        "last_seen": refusals[-1]["ts"],
        "with_retry_after": len(waits),
        "retried_too_early": sum(_is_retried_early(row, events) for row in waits),
        "intent_confidence": "high" if all(keyed) else "medium" if all(sure) else "low",
    }


def _is_refusal(row: Row) -> bool:
    return row["status"] == 429 or row.get("code") == "rate_limited"


def _is_shared(refusal: Row, events: list[Row], min_shared_keys: int) -> bool:
    there = [
        row
        for row in events
        if row["client_ip"] == refusal["client_ip"] and _minute(row) == _minute(refusal) and _key(row)
    ]
    active = {_key(row) for row in there}
    limited = {_key(row) for row in there if _is_refusal(row)}
    return len(limited) >= min_shared_keys and 2 * len(limited) >= len(active)


def _is_retried_early(refusal: Row, events: list[Row]) -> bool:
    early = timedelta(seconds=refusal["retry_after_s"] - 0.25)
    return any(
        refusal["ts"] < _start(row) < refusal["ts"] + early
        for row in events
        if _intent(row) == _intent(refusal) and (row["is_error"] or "{" not in (row["route"] or ""))
    )


def _intent(row: Row) -> tuple[Any, ...]:
    return row["caller"], row["method"], row["path"], row.get("idempotency_hash")


def _start(row: Row) -> Any:
    return row["ts"] - timedelta(milliseconds=row["latency_ms"] or 0)


def _key(row: Row) -> Any:
    return row.get("key_id") or row.get("key_hash")


def _minute(row: Row) -> Any:
    return row["ts"].replace(second=0, microsecond=0)
