"""credit_outages: who ran out of credits, from when to when, and what was lost meanwhile."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, rows, source
from tests.analysis.queries.refusal_oracle import events_refused_with, is_asked_for, windows

CODE = "insufficient_credits"
DAY = 86_400


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
        pytest.param(
            {"merge_gap_s": 30, "min_attempts": 3, "min_passed": 0.4, "recurrence_days": 1}, id="other thresholds"
        ),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_every_row_equals_a_second_count_without_sql(seed: int, parameters: Row) -> None:
    events = events_refused_with(CODE, seed)

    assert rows(lake(events), "credit_outages", **parameters) == _expected(events, **parameters)


def test_an_outage_lasts_from_the_first_refusal_to_the_first_send_that_passes() -> None:
    con = lake([_sent(0), _refused(60), _refused(120), _sent(180), _sent(240)])

    assert columns_of(rows(con, "credit_outages"), "verdict", "is_open", "started_at", "ended_at", "duration_s") == [
        ("outage", False, at(60), at(180), 120.0)
    ]


def test_an_outage_that_nothing_ended_is_open_to_the_end_of_the_data() -> None:
    con = lake([_refused(0), _refused(60), ok(500, org_id="org_b")])

    assert columns_of(rows(con, "credit_outages"), "is_open", "ended_at", "duration_s", "last_refused_at") == [
        (True, None, 500.0, at(60))
    ]


@pytest.mark.parametrize(
    "success",
    [
        pytest.param({"method": "GET"}, id="a read of the same path"),
        pytest.param({"route": "/v1/numbers"}, id="a route that costs nothing"),
        pytest.param({"org_id": "org_b"}, id="another organisation"),
        pytest.param({"status": 304}, id="no 2xx"),
        pytest.param({"latency_ms": 90_000.0}, id="a send that was on its way before"),
    ],
)
def test_an_outage_is_not_ended_by(success: Row) -> None:
    con = lake([_refused(0), _refused(60), _sent(61, **success)])

    assert columns_of(rows(con, "credit_outages"), "is_open", "passed_meanwhile") == [(True, 0)]


def test_an_outage_is_ended_by_a_send_on_a_route_where_only_others_are_refused() -> None:
    con = lake(
        [_refused(0), _refused(60), _refused(5, org_id="org_b", route="/v1/calls"), _sent(90, route="/v1/calls")]
    )

    assert columns_of(rows(con, "credit_outages", for_org="org_a"), "ended_at") == [(at(90),)]


def test_another_error_on_the_route_neither_ends_nor_begins_an_outage() -> None:
    con = lake([_failed(0), _refused(60), _refused(90), _failed(120)])

    assert columns_of(rows(con, "credit_outages"), "started_at", "is_open", "attempts") == [(at(60), True, 2)]


@pytest.mark.parametrize(
    ("pause_s", "attempts"), [pytest.param(599, [4], id="just under"), pytest.param(600, [2, 2], id="ten minutes")]
)
def test_outages_less_than_ten_minutes_apart_are_one(pause_s: int, attempts: list[int]) -> None:
    again = 70 + pause_s
    con = lake([_refused(0), _refused(60), _sent(70), _refused(again), _refused(again + 60), _sent(again + 90)])

    assert [row["attempts"] for row in rows(con, "credit_outages")] == attempts


def test_an_outage_in_which_small_sends_still_pass_is_partial() -> None:
    large = [_refused(60 * minute) for minute in range(10)]
    small = [_sent(60 * minute + 30) for minute in range(10)]
    con = lake(large + small)

    assert columns_of(rows(con, "credit_outages"), "verdict", "attempts", "passed_meanwhile", "refused_share") == [
        ("partial outage", 10, 9, 10 / 19)
    ]


@pytest.mark.parametrize(
    ("refused", "verdict"), [pytest.param(9, "partial outage", id="tenth"), pytest.param(10, "outage", id="less")]
)
def test_an_outage_is_partial_where_a_tenth_of_its_sends_passes(refused: int, verdict: str) -> None:
    con = lake([_refused(0), _sent(5), *(_refused(number) for number in range(10, 9 + refused))])

    assert columns_of(rows(con, "credit_outages"), "verdict", "attempts") == [(verdict, refused)]


def test_one_refusal_among_sends_that_pass_is_not_enough_data() -> None:
    con = lake([*(_sent(second) for second in range(50)), _refused(50), *(_sent(second) for second in range(51, 99))])

    assert columns_of(rows(con, "credit_outages"), "verdict", "attempts") == [("not enough data", 1)]


def test_one_message_tried_again_and_again_is_an_outage_only_when_that_takes_long() -> None:
    quick = [_refused(second, idempotency_hash="one") for second in range(20)]
    slow = [_refused(200 * turn, idempotency_hash="two", org_id="org_b") for turn in range(4)]
    con = lake([*quick, _sent(20), *slow, _sent(800, org_id="org_b")])

    assert columns_of(rows(con, "credit_outages"), "org_id", "verdict", "attempts", "distinct_intents") == [
        ("org_b", "outage", 4, 1),
        ("org_a", "not enough data", 20, 1),
    ]


def test_retries_with_one_idempotency_key_are_one_intent() -> None:
    con = lake([*(_refused(second, idempotency_hash=f"idem_{second % 2}") for second in range(6)), _sent(900)])

    assert columns_of(rows(con, "credit_outages"), "attempts", "distinct_intents", "intent_confidence") == [
        (6, 2, "high")
    ]


def test_attempts_without_an_idempotency_key_count_each_with_low_confidence() -> None:
    con = lake([_refused(0), _refused(1), _refused(2, idempotency_hash="idem")])

    assert columns_of(rows(con, "credit_outages"), "distinct_intents", "intent_confidence") == [(3, "low")]


def test_attempts_at_one_named_object_are_one_intent_with_medium_confidence() -> None:
    renewal = {"route": "/v1/numbers/{id}/renew", "path": "/v1/numbers/n_1/renew"}
    con = lake([_refused(0, **renewal), _refused(700, **renewal)])

    assert columns_of(rows(con, "credit_outages"), "distinct_intents", "intent_confidence") == [(1, "medium")]


def test_all_keys_of_an_organisation_share_its_outage() -> None:
    con = lake([_refused(0), _refused(10, key_id="key_b"), _sent(60, key_id="key_b")])

    assert columns_of(rows(con, "credit_outages"), "attempts", "keys", "ended_at") == [(2, 2, at(60))]


def test_callers_without_an_organisation_are_accounts_of_their_own() -> None:
    nobody = {"org_id": None}
    con = lake([_refused(0, **nobody), _refused(1, key_id="key_b", **nobody), _sent(2, key_id="key_b", **nobody)])

    assert columns_of(rows(con, "credit_outages"), "org_id", "caller", "is_open") == [
        (None, "key_a", True),
        (None, "key_b", False),
    ]


def test_since_keeps_outages_that_were_not_over_and_tells_them_whole() -> None:
    over = [_refused(0, org_id="org_b"), _sent(60, org_id="org_b")]
    lasting = [_refused(0), _refused(100), _sent(200)]

    answer = rows(lake(over + lasting), "credit_outages", since=at(60))

    assert columns_of(answer, "org_id", "started_at", "attempts") == [("org_a", at(0), 2)]


def test_until_tells_what_was_known_then() -> None:
    con = lake([_refused(0), _refused(100), _refused(200), _sent(300)])

    answer = rows(con, "credit_outages", until=at(150))

    assert columns_of(answer, "is_open", "ended_at", "duration_s", "attempts") == [(True, None, 150.0, 2)]


def test_until_after_the_data_adds_no_time_to_an_open_outage() -> None:
    con = lake([_refused(0), _refused(100)])

    assert columns_of(rows(con, "credit_outages", until=at(9 * DAY)), "duration_s") == [(100.0,)]


@pytest.mark.parametrize("wanted", [{"for_key": "key_b"}, {"for_route": "/v1/calls"}], ids=["key", "route"])
def test_a_filter_on_a_key_or_route_keeps_the_outages_that_hit_it_whole(wanted: Row) -> None:
    hit = [_refused(0), _refused(1, key_id="key_b", route="/v1/calls")]
    spared = [_refused(0, org_id="org_b"), _refused(1, org_id="org_b")]

    assert columns_of(rows(lake(hit + spared), "credit_outages", **wanted), "org_id", "attempts") == [("org_a", 2)]


def test_earlier_outages_of_ninety_days_are_counted_and_single_refusals_not() -> None:
    starts = [0, 1 * DAY, 50 * DAY, 90 * DAY, 91 * DAY + 1]
    outages = [event for start in starts for event in _outage(start)]
    con = lake([*outages, _refused(60 * DAY), _sent(60 * DAY + 1)])

    answer = rows(con, "credit_outages")

    assert sorted(columns_of(answer, "started_at", "verdict", "earlier_outages")) == [
        (at(0), "outage", 0),
        (at(1 * DAY), "outage", 1),
        (at(50 * DAY), "outage", 2),
        (at(60 * DAY), "not enough data", 3),
        (at(90 * DAY), "outage", 3),
        (at(91 * DAY + 1), "outage", 2),
    ]


def test_open_outages_come_first_and_what_is_not_enough_data_last() -> None:
    single = [_refused(0, org_id="org_c")]
    ended = [*(_refused(second, org_id="org_b") for second in range(9)), _sent(60, org_id="org_b")]
    still_open = [_refused(0), _refused(60)]

    assert columns_of(rows(lake(single + ended + still_open), "credit_outages"), "org_id") == [
        ("org_a",),
        ("org_b",),
        ("org_c",),
    ]


def test_equal_moments_in_whole_seconds_do_not_end_an_outage() -> None:
    con = lake([_refused(0), _sent(0, latency_ms=None), _refused(60), _sent(120)])

    assert columns_of(rows(con, "credit_outages"), "started_at", "ended_at", "passed_meanwhile") == [
        (at(0), at(120), 0)
    ]


def test_the_examples_are_the_three_latest_refusals() -> None:
    con = lake([_refused(number, request_id=f"req_{number}") for number in range(5)])

    assert columns_of(rows(con, "credit_outages"), "example_request_ids") == [(["req_4", "req_3", "req_2"],)]


def test_an_organisation_whose_rows_are_all_before_the_end_of_the_ledger_waits_up_to_it() -> None:
    ledger = [source("first", first_ts=at(0), last_ts=at(3600))]
    con = lake([_refused(0), _refused(60)], sources=ledger)

    assert columns_of(rows(con, "credit_outages"), "duration_s") == [(3600.0,)]


def _refused(seconds: float, **fields: Any) -> Row:
    return error(seconds, CODE, **{"status": 422, "key_id": "key_a", "org_id": "org_a"} | fields)


def _failed(seconds: float) -> Row:
    return error(seconds, "internal_error", key_id="key_a", org_id="org_a")


def _sent(seconds: float, **fields: Any) -> Row:
    return ok(seconds, **{"key_id": "key_a", "org_id": "org_a"} | fields)


def _outage(start: float) -> list[Row]:
    return [_refused(start), _refused(start + 60), _sent(start + 120)]


def _expected(
    events: list[Row],
    since: datetime | None = None,
    until: datetime | None = None,
    for_org: str | None = None,
    for_key: str | None = None,
    for_route: str | None = None,
    merge_gap_s: int = 600,
    min_attempts: int = 2,
    min_passed: float = 0.1,
    recurrence_days: int = 90,
) -> list[Row]:
    through = max(row["ts"] for row in events)
    outages = windows(events, CODE, until, merge_gap_s)
    for outage in outages:
        end = outage["passed_at"] or (through if until is None else min(until, through))
        outage["duration_s"] = (end - outage["first_refused_at"]).total_seconds()
        outage["refused_share"] = outage["attempts"] / (outage["attempts"] + outage["passed_meanwhile"])
        is_one_intent = outage["distinct_intents"] == 1 and outage["duration_s"] < merge_gap_s
        if outage["attempts"] < min_attempts or is_one_intent:
            outage["verdict"] = "not enough data"
        else:
            outage["verdict"] = "partial outage" if outage["refused_share"] <= 1 - min_passed else "outage"
    answer = [
        {
            "org_id": outage["org_id"],
            "caller": outage["caller"],
            "verdict": outage["verdict"],
            "is_open": outage["passed_at"] is None,
            "started_at": outage["first_refused_at"],
            "ended_at": outage["passed_at"],
            "duration_s": outage["duration_s"],
            "attempts": outage["attempts"],
            "distinct_intents": outage["distinct_intents"],
            "intent_confidence": outage["intent_confidence"],
            "keys": outage["keys"],
            "routes": outage["routes"],
            "passed_meanwhile": outage["passed_meanwhile"],
            "refused_share": outage["refused_share"],
            "last_refused_at": outage["last_refused_at"],
            "earlier_outages": sum(
                other["verdict"] != "not enough data"
                and (other["org_id"], other["caller"]) == (outage["org_id"], outage["caller"])
                and other["first_refused_at"] < outage["first_refused_at"]
                and other["first_refused_at"] >= outage["first_refused_at"] - timedelta(days=recurrence_days)
                for other in outages
            ),
            "example_request_ids": outage["example_request_ids"],
        }
        for outage in outages
        if is_asked_for(outage, since, for_org, for_key, for_route)
    ]
    return sorted(
        answer,
        key=lambda row: (
            row["verdict"] == "not enough data",
            not row["is_open"],
            -row["distinct_intents"],
            -row["attempts"],
            row["started_at"],
            row["org_id"] or "~",
            row["caller"] or "~",
        ),
    )
