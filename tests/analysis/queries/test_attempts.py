"""attempts and chains: who tried what again, after which failure and how long."""

from collections import defaultdict
from datetime import timedelta
from typing import Any, Final

import duckdb
import pytest

from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events

EVERYTHING: Final = "(NULL, NULL, NULL, NULL, NULL)"


@pytest.mark.parametrize("seed", range(4))
def test_every_attempt_equals_a_second_walk_without_sql(seed: int) -> None:
    events = [row | {"line": number} for number, row in enumerate(random_events(seed, count=600, spread_s=400))]

    found = attempts(lake(events))

    assert sorted(map(_shown, found)) == sorted(map(_shown, _expected(events)))


@pytest.mark.parametrize(
    ("gap_s", "retry_after_s", "is_retry"),
    [
        pytest.param(300, None, True, id="within five minutes"),
        pytest.param(300.1, None, False, id="later than five minutes"),
        pytest.param(400, 100.0, True, id="within four times what it was asked to wait"),
        pytest.param(400.1, 100.0, False, id="later than that"),
        pytest.param(-0.001, None, True, id="a millisecond before the answer, as clocks are coarse"),
        pytest.param(-0.002, None, False, id="before the answer"),
    ],
)
def test_the_next_attempt_is_a_retry(gap_s: float, retry_after_s: float | None, is_retry: bool) -> None:
    con = lake([_refused(0, retry_after_s=retry_after_s), _sent(gap_s + 0.01)])

    gaps = [row["gap_s"] for row in attempts(con) if row["gap_s"] is not None]

    assert gaps == ([pytest.approx(gap_s)] if is_retry else [])


def test_a_retry_knows_what_it_retries() -> None:
    con = lake([_refused(0, retry_after_s=2.0), _sent(3)])

    assert columns_of(attempts(con), "attempt", "chain_attempts", "failed_code", "failed_status", "gap_s") == [
        (1, 2, None, None, None),
        (2, 2, "rate_limited", 429, 2.99),
    ]


def test_after_a_success_a_new_chain_begins() -> None:
    con = lake([_refused(0), _sent(1), _refused(2), _sent(3)])

    assert columns_of(attempts(con), "chain", "attempt") == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_what_simply_succeeded_is_in_no_chain() -> None:
    con = lake([_sent(0), _refused(1)])

    assert columns_of(attempts(con), "status", "chain_attempts") == [(429, 1)]


def test_of_concurrent_attempts_the_next_one_retries_the_first() -> None:
    original = error(0.5, "internal_error", key_id="key_a", idempotency_hash="i1", latency_ms=500.0)
    duplicate = error(0.3, "idempotency_in_progress", key_id="key_a", idempotency_hash="i1", latency_ms=100.0)

    found = attempts(lake([original, duplicate, _sent(1.0, latency_ms=0.0)]))

    assert columns_of(found, "chain", "failed_code", "gap_s") == [
        (1, None, None),
        (1, None, None),
        (1, "internal_error", 0.5),
    ]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"key_id": "key_b"}, id="another caller"),
        pytest.param({"method": "PUT"}, id="another method"),
        pytest.param({"route": "/v1/other", "path": "/v1/other"}, id="another route"),
        pytest.param({"idempotency_hash": "i2"}, id="another Idempotency-Key"),
        pytest.param({"idempotency_hash": None}, id="no Idempotency-Key"),
    ],
)
def test_another_intent_is_no_retry(other: Row) -> None:
    con = lake([_refused(0), _sent(1, **other)])

    assert columns_of(attempts(con), "status", "gap_s") == [(429, None)]


def test_objects_of_one_route_are_different_intents() -> None:
    routed: Row = {"method": "GET", "route": "/v1/messages/{id}", "idempotency_hash": None}
    con = lake(
        [
            _refused(0, path="/v1/messages/1", **routed),
            _sent(1, path="/v1/messages/2", **routed),
            _sent(2, path="/v1/messages/1", **routed),
        ]
    )

    assert columns_of(attempts(con), "intent_path", "gap_s") == [("/v1/messages/1", None), ("/v1/messages/1", 1.99)]


@pytest.mark.parametrize(
    ("fields", "confidence"),
    [
        pytest.param({}, "high", id="an Idempotency-Key"),
        pytest.param({"idempotency_hash": None, "route": "/v1/messages/{id}"}, "medium", id="a path of one object"),
        pytest.param({"idempotency_hash": None}, "low", id="a path of many objects"),
        pytest.param({"code": "idempotency_key_reused"}, "low", id="a key that came with another body"),
    ],
)
def test_confidence_says_how_surely_attempts_want_the_same(fields: Row, confidence: str) -> None:
    con = lake([_refused(0, **fields), _refused(1, **fields)])

    assert {row["intent_confidence"] for row in attempts(con)} == {confidence}


def test_a_caller_that_the_log_does_not_name_is_left_out() -> None:
    assert attempts(lake([_refused(0, key_id=None, client_ip=None)])) == []


def test_a_chain_says_how_it_began_and_ended() -> None:
    con = lake(
        [
            _refused(0, request_id="r1", org_id="org_a"),
            error(2, "internal_error", key_id="key_a", idempotency_hash="i1", request_id="r2"),
            _sent(5, request_id="r3"),
        ]
    )

    (chain,) = con.sql(f"FROM chains{EVERYTHING}").to_arrow_table().to_pylist()

    assert chain == {
        "caller": "key_a",
        "org_id": "org_a",
        "method": "POST",
        "route": "/v1/messages",
        "intent_path": "/v1/messages",
        "intent_token": "i1",
        "intent_confidence": "high",
        "chain": 1,
        "attempts": 3,
        "failures": 2,
        "started_at": at(-0.01),
        "ended_at": at(5),
        "first_code": "rate_limited",
        "first_status": 429,
        "last_code": None,
        "last_status": 200,
        "is_recovered": True,
        "request_ids": ["r1", "r2", "r3"],
    }


@pytest.mark.parametrize(
    ("scope", "statuses"),
    [
        pytest.param("(NULL, NULL, NULL, 'key_a', NULL)", [429, 200], id="of a key"),
        pytest.param("(NULL, NULL, 'org_b', NULL, NULL)", [], id="of an organisation"),
        pytest.param("(NULL, '2026-11-02 09:00:01', NULL, NULL, NULL)", [429], id="before a moment"),
        pytest.param("('2026-11-02 09:00:01', NULL, NULL, NULL, NULL)", [], id="failed before the period"),
    ],
)
def test_the_scope_limits_what_is_seen(scope: str, statuses: list[int]) -> None:
    con = lake([_refused(0), _sent(3)])

    found = con.sql(f"SELECT status FROM attempts{scope} ORDER BY start_us").fetchall()

    assert [status for (status,) in found] == statuses


def attempts(con: duckdb.DuckDBPyConnection) -> list[Row]:
    """Every attempt, in the order of their chains."""
    order = "caller, method, intent_path, intent_token, chain, attempt"
    rows: list[Row] = con.sql(f"FROM attempts{EVERYTHING} ORDER BY {order}").to_arrow_table().to_pylist()
    return rows


def _refused(seconds: float, **fields: Any) -> Row:
    return error(seconds, **{"code": "rate_limited", "key_id": "key_a", "idempotency_hash": "i1"} | fields)


def _sent(seconds: float, **fields: Any) -> Row:
    return ok(seconds, **{"key_id": "key_a", "idempotency_hash": "i1"} | fields)


def _shown(row: Row) -> tuple[str, ...]:
    names = ("caller", "method", "intent_path", "intent_token", "chain", "attempt", "chain_attempts", "request_id")
    return tuple(str(row[name]) for name in (*names, "status", "gap_s", "failed_code", "failed_retry_after_s"))


def _expected(events: list[Row]) -> list[Row]:
    intents: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in events:
        is_object = "{" in (row["route"] or "")
        token = None if row.get("code") == "idempotency_key_reused" else row.get("idempotency_hash")
        if row["caller"] is not None:
            intents[row["caller"], row["method"], row["path"] if is_object else row["route"], token].append(row)
    return [attempt for intent, rows in intents.items() for attempt in _walk(intent, rows)]


def _walk(intent: tuple[Any, ...], rows: list[Row]) -> list[Row]:
    """The chains of one intent, from its first request to its last."""
    chains: list[list[Row]] = []
    leader: Row | None = None
    last_end_us: int | None = None
    for row in sorted(rows, key=lambda row: (_start_us(row), _end_us(row), row["request_id"])):
        start_us, attempt = _start_us(row), row | {"gap_s": None, "failed_code": None, "failed_retry_after_s": None}
        is_alone = last_end_us is None or start_us + 1000 >= last_end_us
        if is_alone and leader is not None and leader["is_error"]:
            gap_us = start_us - _end_us(leader)
            if gap_us <= max(300, 4 * (leader.get("retry_after_s") or 0)) * 1_000_000:
                attempt |= {
                    "gap_s": gap_us / 1e6,
                    "failed_code": leader.get("code"),
                    "failed_retry_after_s": leader.get("retry_after_s"),
                }
        if is_alone and attempt["gap_s"] is None:
            chains.append([])
        chains[-1].append(attempt)
        leader = row if is_alone else leader
        last_end_us = _end_us(row) if last_end_us is None else max(_end_us(row), last_end_us)
    return [
        row
        | dict(zip(("caller", "method", "intent_path", "intent_token"), intent, strict=True))
        | {"chain": number, "attempt": place, "chain_attempts": len(chain)}
        for number, chain in enumerate(chains, start=1)
        for place, row in enumerate(chain, start=1)
        if any(attempt["is_error"] for attempt in chain)
    ]


def _end_us(row: Row) -> int:
    end_us: int = (row["ts"] - at(0)) // timedelta(microseconds=1)
    return end_us


def _start_us(row: Row) -> int:
    latency_us: int = round((row["latency_ms"] or 0) * 1000)
    return _end_us(row) - latency_us
