"""affected_customers: who was hit in a window, what became of it, and the note that support sends."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from statistics import median
from typing import Any, Final

import pytest

from ingest.schema import BadInput
from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows

DAY: Final = 86_400
COUNTS: Final = ("intents_failed", "intents_later_succeeded", "intents_never_succeeded")
RECOVERY: Final = ("median_recovery_s", "max_recovery_s")


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({}, id="all"),
        pytest.param({"since": at(86_000)}, id="since"),
        pytest.param({"until": at(86_600)}, id="until"),
        pytest.param({"since": at(85_000), "until": at(86_900)}, id="period"),
        pytest.param({"for_org": "org_a"}, id="organisation"),
        pytest.param({"for_key": "key_3"}, id="key"),
        pytest.param({"for_route": "/v1/messages/{id}"}, id="route"),
        pytest.param({"for_code": "internal_error"}, id="code"),
        pytest.param({"for_fault": "platform", "since": at(86_000)}, id="faults of the platform"),
        pytest.param({"for_fault": "client"}, id="faults of the client"),
        pytest.param({"for_fault": "rate_limited"}, id="rate limits"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_every_row_equals_a_second_count_without_sql(seed: int, parameters: Row) -> None:
    events = [row | {"request_id": f"req_{number:04}"} for number, row in enumerate(random_events(seed, 600))]

    found = rows(lake(events), "affected_customers", **parameters)

    assert _rounded(found) == _rounded(_expected(events, **parameters))


def test_what_a_retry_got_done_is_told_from_what_was_never_done() -> None:
    retried = [_failed(0, idempotency_hash="one"), _failed(2, idempotency_hash="one"), _sent(5, idempotency_hash="one")]
    con = lake([*retried, _failed(1, idempotency_hash="two")])

    answer = rows(con, "affected_customers")

    assert columns_of(answer, "org_id", "requests", "errors", *COUNTS) == [("org_a", 4, 3, 2, 1, 1)]
    assert columns_of(answer, "intent_confidence", *RECOVERY) == [("high", 5.0, 5.0)]


def test_the_time_to_recovery_is_the_median_and_the_longest_of_those_that_recovered() -> None:
    events = [_failed(0, idempotency_hash=f"idem_{waited}") for waited in (1, 2, 6, 10, 0)]
    con = lake([*events, *(_sent(waited, idempotency_hash=f"idem_{waited}") for waited in (1, 2, 6, 10))])

    assert columns_of(rows(con, "affected_customers"), *COUNTS, *RECOVERY) == [(5, 4, 1, 4.0, 10.0)]


@pytest.mark.parametrize(
    ("fields", "recovered"),
    [
        pytest.param({"idempotency_hash": "one"}, 1, id="one Idempotency-Key"),
        pytest.param({"route": "/v1/messages/{id}", "path": "/v1/messages/m_1"}, 1, id="one object"),
        pytest.param({}, 0, id="neither"),
    ],
)
def test_a_success_hours_later_counts_where_it_is_known_to_be_the_same(fields: Row, recovered: int) -> None:
    con = lake([_failed(0, **fields), _sent(7200, **fields)])

    assert columns_of(rows(con, "affected_customers"), "intents_later_succeeded") == [(recovered,)]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"idempotency_hash": "two"}, id="another Idempotency-Key"),
        pytest.param({"key_id": "key_b"}, id="another key"),
        pytest.param({"method": "PUT"}, id="another method"),
    ],
)
def test_the_success_of_another_request_is_no_recovery(other: Row) -> None:
    con = lake([_failed(0, idempotency_hash="one"), _sent(7200, **{"idempotency_hash": "one"} | other)])

    assert columns_of(rows(con, "affected_customers"), "intents_never_succeeded") == [(1,)]


def test_requests_without_anything_to_tell_them_apart_are_one_chain_with_low_confidence() -> None:
    con = lake([_failed(0), _failed(10), _failed(20), _sent(30)])

    assert columns_of(rows(con, "affected_customers"), "errors", *COUNTS, "intent_confidence") == [(3, 1, 1, 0, "low")]


def test_a_success_after_the_window_is_a_recovery() -> None:
    con = lake([_failed(0, idempotency_hash="one"), _sent(90, idempotency_hash="one")])

    answer = rows(con, "affected_customers", until=at(60))

    assert columns_of(answer, "requests", "errors", "intents_later_succeeded", "max_recovery_s") == [(1, 1, 1, 90.0)]


def test_failures_after_the_window_are_not_counted() -> None:
    con = lake([_failed(0, idempotency_hash="one"), _failed(90, idempotency_hash="one"), _failed(91)])

    assert columns_of(rows(con, "affected_customers", until=at(60)), "errors", "intents_failed", "last_error_at") == [
        (1, 1, at(0))
    ]


def test_what_went_on_failing_from_before_the_window_is_timed_from_its_first_failure_in_it() -> None:
    con = lake(
        [_failed(0, idempotency_hash="one"), _failed(60, idempotency_hash="one"), _sent(100, idempotency_hash="one")]
    )

    answer = rows(con, "affected_customers", since=at(50))

    assert columns_of(answer, "errors", "first_error_at", "max_recovery_s") == [(1, at(60), 40.0)]


def test_an_intent_that_failed_otherwise_is_not_counted_but_its_success_is_seen() -> None:
    limited = error(5, "rate_limited", key_id="key_a", org_id="org_a", idempotency_hash="one")
    con = lake([_failed(0, idempotency_hash="one"), limited, _sent(9, idempotency_hash="one")])

    answer = rows(con, "affected_customers", for_code="internal_error")

    assert columns_of(answer, "errors", "codes", "intents_later_succeeded", "max_recovery_s") == [
        (1, ["internal_error"], 1, 9.0)
    ]


def test_faults_of_the_platform_are_told_from_those_of_clients_and_limits() -> None:
    made = [
        error(0, "validation_failed", org_id="org_c", key_id="key_c"),
        error(0, "rate_limited", org_id="org_d", key_id="key_d"),
        error(0, None, status=502, origin="gateway", gateway_reason="bad_gateway", org_id="org_b", key_id="key_b"),
        _failed(1),
    ]

    answer = rows(lake(made), "affected_customers", for_fault="platform")

    assert columns_of(answer, "org_id", "codes") == [("org_a", ["internal_error"]), ("org_b", ["bad_gateway"])]


def test_an_unknown_fault_is_told_which_ones_there_are() -> None:
    with pytest.raises(BadInput, match="for_fault: expected platform, rate_limited or client, got weather"):
        rows(lake([_failed(0)]), "affected_customers", for_fault="weather")


def test_the_keys_of_an_organisation_are_one_customer() -> None:
    con = lake([_failed(0), _failed(1, key_id="key_b"), _sent(2, key_id="key_c")])

    assert columns_of(rows(con, "affected_customers"), "key", "requests", "errors", "affected_keys") == [
        (None, 3, 2, ["key_a", "key_b"])
    ]


def test_keys_without_an_organisation_are_customers_and_all_the_rest_is_one_row() -> None:
    nobody = {"org_id": None, "key_id": None}
    con = lake(
        [
            _failed(0, **nobody, client_ip="192.0.2.1"),
            _failed(0, **nobody, client_ip="192.0.2.2"),
            _failed(0, org_id=None),
            _failed(0, org_id=None, key_id=None, key_hash="hash_b"),
        ]
    )

    assert columns_of(rows(con, "affected_customers"), "org_id", "key", "errors", "intents_failed") == [
        (None, None, 2, 2),
        (None, "hash_b", 1, 1),
        (None, "key_a", 1, 1),
    ]


def test_errors_of_callers_without_a_name_are_counted_and_in_no_chain() -> None:
    con = lake([_failed(0, org_id=None, key_id=None)])

    answer = rows(con, "affected_customers")

    assert columns_of(answer, "errors", *COUNTS, "intent_confidence", "example_request_ids") == [
        (1, 0, 0, 0, None, None)
    ]


def test_customers_that_lost_most_come_first() -> None:
    recovered = [_failed(0, idempotency_hash=str(n), org_id="org_b", key_id="key_b") for n in range(3)]
    later = [_sent(9, idempotency_hash=str(n), org_id="org_b", key_id="key_b") for n in range(3)]

    assert columns_of(rows(lake([*recovered, *later, _failed(0)]), "affected_customers"), "org_id") == [
        ("org_a",),
        ("org_b",),
    ]


def test_the_examples_are_of_what_never_succeeded_first() -> None:
    lost = [_failed(number, idempotency_hash=f"lost_{number}", request_id=f"lost_{number}") for number in range(2)]
    saved = [_failed(50, idempotency_hash="saved", request_id="saved"), _sent(60, idempotency_hash="saved")]

    assert columns_of(rows(lake(lost + saved), "affected_customers"), "example_request_ids") == [
        (["lost_1", "lost_0", "saved"],)
    ]


def test_the_note_says_what_happened_and_what_became_of_it() -> None:
    lost = [_failed(600, idempotency_hash="lost", request_id="req_1", key_id="key_b")]
    saved = [_failed(0, idempotency_hash="saved", request_id="req_2"), _sent(4, idempotency_hash="saved")]
    con = lake([*lost, *saved, _sent(700)])

    (answer,) = rows(con, "affected_customers", since=at(0), until=at(900), for_fault="platform")

    assert answer["note"] == (
        "Organisation org_a: 2 of 4 requests failed from 2026-11-02 09:00:00 UTC to 2026-11-02 09:15:00 UTC, answered "
        "internal_error, on POST /v1/messages, with 2 keys. The first error was at 2026-11-02 09:00:00 UTC, the last "
        "at 2026-11-02 09:10:00 UTC. Of the 2 things attempted, 1 succeeded later and 1 had not by 2026-11-02 09:11:40 "
        "UTC. That took 4.0 s. These are faults of the platform, not of the client. Example request ids: req_1, req_2."
    )


@pytest.mark.parametrize(
    ("parameters", "window"),
    [
        pytest.param({}, "up to 2026-11-02 09:00:00 UTC", id="none"),
        pytest.param({"since": at(-60)}, "since 2026-11-02 08:59:00 UTC", id="since"),
        pytest.param({"until": at(60)}, "before 2026-11-02 09:01:00 UTC", id="until"),
    ],
)
def test_the_note_names_the_window(parameters: Row, window: str) -> None:
    (answer,) = rows(lake([_failed(0)]), "affected_customers", **parameters)

    assert answer["note"].startswith(
        f"Organisation org_a: 1 of 1 requests failed {window}, answered internal_error, on"
    )


@pytest.mark.parametrize(
    ("saved", "lost", "told"),
    [
        pytest.param(0, 1, "What was attempted had not succeeded by 2026-11-02 09:00:00 UTC. Ex", id="one lost"),
        pytest.param(1, 0, "What was attempted succeeded later. That took 5.0 minutes. Ex", id="one saved"),
        pytest.param(
            0, 2, "None of the 2 things attempted had succeeded by 2026-11-02 09:00:00 UTC. Ex", id="all lost"
        ),
        pytest.param(
            2,
            0,
            "All 2 things attempted succeeded later. That took 5.0 minutes in the median and 5.0 minutes at most. Ex",
            id="all saved",
        ),
    ],
)
def test_the_note_counts_in_plain_words(saved: int, lost: int, told: str) -> None:
    failed = [_failed(0, idempotency_hash=str(number), request_id=f"req_{number}") for number in range(saved + lost)]
    later = [_sent(300, idempotency_hash=str(number)) for number in range(saved)]

    (answer,) = rows(lake(failed + later), "affected_customers")

    assert told in answer["note"]


@pytest.mark.parametrize(
    ("waited_s", "told"),
    [(1, "1.0 s"), (119, "119.0 s"), (120, "2.0 minutes"), (7200, "2.0 hours"), (3 * DAY, "3.0 days")],
)
def test_the_note_tells_durations_in_units_that_fit(waited_s: int, told: str) -> None:
    con = lake([_failed(0, idempotency_hash="one"), _sent(waited_s, idempotency_hash="one")])

    (answer,) = rows(con, "affected_customers")

    assert f"That took {told}." in answer["note"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        pytest.param({"org_id": None}, "Key key_a of no known organisation: ", id="a key"),
        pytest.param({"org_id": None, "key_id": None}, "Traffic without organisation and key: ", id="nobody"),
    ],
)
def test_the_note_names_whom_the_log_names(fields: Row, told: str) -> None:
    (answer,) = rows(lake([_failed(0, **fields)]), "affected_customers")

    assert answer["note"].startswith(told)


def test_the_note_admits_what_is_not_known() -> None:
    (nobody, unsure) = rows(
        lake([_failed(0, org_id="org_b", key_id=None), _failed(0, org_id="org_a")]), "affected_customers"
    )[::-1]

    assert "The log does not say who sent them, so that nothing is known of later attempts." in nobody["note"]
    assert "Without an Idempotency-Key a retry cannot be told from a new request" in unsure["note"]


def test_the_note_names_the_three_routes_with_most_errors() -> None:
    failed = [_failed(0, route=f"/v1/r{number}", path=f"/v1/r{number}") for number in (5, 1, 2, 2, 3, 3, 3, 4)]

    (answer,) = rows(lake(failed), "affected_customers")

    assert ", mostly on POST /v1/r3, on POST /v1/r2, on POST /v1/r1." in answer["note"]


def test_a_scanner_does_not_fill_the_answer_with_routes() -> None:
    con = lake([_failed(0, route=f"/{number:02}", path=f"/{number:02}") for number in range(40)])

    assert columns_of(rows(con, "affected_customers"), "routes") == [([f"POST /{number:02}" for number in range(10)],)]


def _failed(seconds: float, **fields: Any) -> Row:
    return error(seconds, "internal_error", **{"key_id": "key_a", "org_id": "org_a"} | fields)


def _sent(seconds: float, **fields: Any) -> Row:
    return ok(seconds, **{"key_id": "key_a", "org_id": "org_a"} | fields)


def _rounded(answer: Iterable[Row]) -> list[Row]:
    return [
        {name: round(value, 6) if isinstance(value, float) else value for name, value in row.items() if name != "note"}
        for row in answer
    ]


def _expected(
    events: list[Row],
    since: datetime | None = None,
    until: datetime | None = None,
    for_org: str | None = None,
    for_key: str | None = None,
    for_route: str | None = None,
    for_code: str | None = None,
    for_fault: str | None = None,
) -> list[Row]:
    seen = [
        row
        for row in events
        if (since is None or row["ts"] >= since)
        and for_org in (None, row["org_id"])
        and for_key in (None, row["caller"])
        and for_route in (None, row["route"])
    ]
    asked = [row for row in seen if until is None or row["ts"] < until]
    wanted = [
        row
        for row in asked
        if row["is_error"] and for_code in (None, row.get("code")) and for_fault in (None, _fault(row))
    ]
    outcomes = _outcomes(seen, {row["request_id"] for row in wanted})
    answer = []
    for customer in {_customer(row) for row in wanted}:
        failed = [row for row in wanted if _customer(row) == customer]
        intents = outcomes[customer]
        recoveries = [intent["recovery_s"] for intent in intents if intent["recovery_s"] is not None]
        requests = sum(_customer(row) == customer for row in asked)
        examples = sorted(
            intents, key=lambda intent: (intent["recovery_s"] is not None, -intent["last_us"], intent["id"])
        )
        answer.append(
            {
                "org_id": customer[0],
                "key": customer[1],
                "requests": requests,
                "errors": len(failed),
                "error_rate": len(failed) / requests,
                "affected_keys": sorted({key for row in failed if (key := _key(row))}) or None,
                "codes": _most_first(
                    row.get("code") or row.get("gateway_reason") or str(row["status"]) for row in failed
                ),
                "routes": _most_first(f"{row['method']} {row['route']}" for row in failed if row["route"])[:10] or None,
                "intents_failed": len(intents),
                "intents_later_succeeded": len(recoveries),
                "intents_never_succeeded": len(intents) - len(recoveries),
                "intent_confidence": _confidence([intent["confidence"] for intent in intents]),
                "median_recovery_s": median(recoveries) if recoveries else None,
                "max_recovery_s": max(recoveries, default=None),
                "first_error_at": min(row["ts"] for row in failed),
                "last_error_at": max(row["ts"] for row in failed),
                "data_through": max(row["ts"] for row in events),
                "example_request_ids": [intent["id"] for intent in examples[:3]] or None,
            }
        )
    return sorted(
        answer,
        key=lambda row: (
            -row["intents_never_succeeded"],
            -row["intents_failed"],
            -row["errors"],
            row["org_id"] or "~",
            row["key"] or "~",
        ),
    )


def _most_first(names: Iterable[str]) -> list[str]:
    counted = Counter(names)
    return sorted(counted, key=lambda name: (-counted[name], name))


def _fault(row: Row) -> str:
    if row["status"] == 429 or row.get("code") == "rate_limited":
        return "rate_limited"
    is_known = row.get("code") not in (None, "brand_new")
    is_platform = row["code"] == "internal_error" if is_known else row["status"] >= 500
    return "platform" if is_platform else "client"


def _key(row: Row) -> str | None:
    return row.get("key_id") or row.get("key_hash")


def _customer(row: Row) -> tuple[str | None, str | None]:
    return row["org_id"], None if row["org_id"] else _key(row)


def _confidence(confidences: list[str]) -> str | None:
    high, medium = confidences.count("high"), confidences.count("medium")
    if not confidences:
        return None
    return "high" if 2 * high >= len(confidences) else "medium" if 2 * (high + medium) >= len(confidences) else "low"


def _outcomes(seen: list[Row], wanted: set[str]) -> defaultdict[tuple[str | None, str | None], list[Row]]:
    """What became of each chain with a wanted error, by customer."""
    intents: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in seen:
        if row["caller"] is not None:
            token = None if row.get("code") == "idempotency_key_reused" else row.get("idempotency_hash")
            intents[row["caller"], row["method"], _is_object(row), row["path"], token].append(row)
    found: defaultdict[tuple[str | None, str | None], list[Row]] = defaultdict(list)
    for (*_, is_object, _path, token), tries in intents.items():
        confidence = "high" if token else "medium" if is_object else "low"
        for chain in _chains(tries):
            failed = [row for row in chain if row["request_id"] in wanted]
            if not failed:
                continue
            last_us = max(_end_us(row) for row in failed)
            successes = [_end_us(row) for row in chain if not row["is_error"]]
            if not successes and confidence != "low":
                successes = [_end_us(row) for row in tries if not row["is_error"] and _start_us(row) > last_us]
            waited_us = min(successes, default=0) - min(_end_us(row) for row in failed)
            customer = max(map(_customer, failed), key=lambda customer: customer[0] or "")
            found[customer].append(
                {
                    "confidence": confidence,
                    "recovery_s": max(waited_us, 0) / 1e6 if successes else None,
                    "last_us": last_us,
                    "id": max((_end_us(row), row["request_id"]) for row in failed)[1],
                }
            )
    return found


def _chains(tries: list[Row]) -> list[list[Row]]:
    """The attempts of one intent, cut where one begins that is no retry of the last that ran alone."""
    chains: list[list[Row]] = []
    leader: Row | None = None
    ended_us = -(10**18)
    for row in sorted(tries, key=lambda row: (_start_us(row), _end_us(row), row["request_id"])):
        if _start_us(row) + 1000 >= ended_us:
            longest_s = max(300, 4 * (leader.get("retry_after_s") or 0)) if leader else 0
            if leader is None or not leader["is_error"] or _start_us(row) - _end_us(leader) > longest_s * 1e6:
                chains.append([])
            leader = row
        chains[-1].append(row)
        ended_us = max(ended_us, _end_us(row))
    return chains


def _is_object(row: Row) -> bool:
    return "{" in (row["route"] or "")


def _end_us(row: Row) -> int:
    end_us: int = (row["ts"] - at(0)) // timedelta(microseconds=1)
    return end_us


def _start_us(row: Row) -> int:
    return _end_us(row) - round((row["latency_ms"] or 0) * 1000)
