"""approval_dwell: who sends before the approval, how long the wait is, and who keeps trying."""

from datetime import datetime
from typing import Any

import pytest

from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, rows
from tests.analysis.queries.refusal_oracle import events_refused_with, is_asked_for, windows

CODE = "approval_required"
HOUR, DAY = 3600, 86_400


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
        pytest.param({"merge_gap_s": 900, "min_attempts": 2, "min_wait_s": 600, "trying_s": 300}, id="thresholds"),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_every_row_equals_a_second_count_without_sql(seed: int, parameters: Row) -> None:
    events = events_refused_with(CODE, seed)

    assert rows(lake(events), "approval_dwell", **parameters) == _expected(events, **parameters)


def test_an_organisation_that_never_sent_and_is_refused_is_waiting() -> None:
    con = lake([_refused(0), _refused(2 * DAY)])

    assert columns_of(rows(con, "approval_dwell"), "state", "is_still_refused", "waiting_days", "attempts") == [
        ("waiting", True, 2.0, 2)
    ]


def test_one_refused_send_is_enough_to_be_waiting() -> None:
    assert columns_of(rows(lake([_refused(0)]), "approval_dwell"), "state", "keeps_trying") == [("waiting", False)]


def test_the_first_send_that_passes_ends_the_wait() -> None:
    con = lake([_refused(0), _refused(HOUR), _sent(3 * DAY), _sent(4 * DAY)])

    assert columns_of(rows(con, "approval_dwell"), "state", "last_refused_at", "approved_at", "waiting_days") == [
        ("approved", at(HOUR), at(3 * DAY), 3.0)
    ]


@pytest.mark.parametrize(
    "success",
    [
        pytest.param({"method": "GET"}, id="a read of the same path"),
        pytest.param({"route": "/v1/numbers"}, id="a route that needs no approval"),
        pytest.param({"org_id": "org_b"}, id="another organisation"),
        pytest.param({"status": 302}, id="no 2xx"),
    ],
)
def test_a_wait_is_not_ended_by(success: Row) -> None:
    con = lake([_refused(0), _refused(60), _sent(120, **success)])

    assert columns_of(rows(con, "approval_dwell"), "state") == [("waiting",)]


def test_an_approval_that_was_withdrawn_is_a_state_of_its_own() -> None:
    con = lake([_sent(0), *(_refused(hour * HOUR) for hour in (1, 2, 3)), ok(9 * HOUR, org_id="org_b")])

    assert columns_of(rows(con, "approval_dwell"), "state", "passed_before", "first_refused_at") == [
        ("withdrawn", 1, at(HOUR))
    ]


def test_an_approval_that_came_back_is_told_from_a_first_one() -> None:
    con = lake([_sent(0), *(_refused(hour * HOUR) for hour in (1, 2, 3)), _sent(9 * HOUR)])

    assert columns_of(rows(con, "approval_dwell"), "state", "approved_at") == [("approved again", at(9 * HOUR))]


def test_a_refusal_or_two_among_sends_that_pass_is_no_wait() -> None:
    passing = [_sent(second) for second in range(0, 2000, 2)]
    con = lake([*passing, _refused(901), _refused(903)])

    assert columns_of(rows(con, "approval_dwell"), "state", "attempts") == [("not enough data", 2)]


@pytest.mark.parametrize(
    ("attempts", "wait_s", "state"),
    [
        pytest.param(3, 60, "withdrawn", id="enough"),
        pytest.param(2, 60, "not enough data", id="too few"),
        pytest.param(3, 59, "not enough data", id="too short"),
    ],
)
def test_a_withdrawn_approval_takes_three_refusals_and_a_minute(attempts: int, wait_s: int, state: str) -> None:
    refused = [_refused(100 + number) for number in range(attempts)]
    con = lake([_sent(0), *refused, ok(100 + wait_s, org_id="org_b")])

    assert columns_of(rows(con, "approval_dwell"), "state") == [(state,)]


@pytest.mark.parametrize(
    ("attempts", "wait_s", "state"),
    [
        pytest.param(2, 59, "not enough data", id="neither"),
        pytest.param(3, 59, "approved", id="three refusals"),
        pytest.param(1, 60, "approved", id="a minute"),
    ],
)
def test_a_first_approval_takes_three_refusals_or_a_minute(attempts: int, wait_s: int, state: str) -> None:
    con = lake([*(_refused(number) for number in range(attempts)), _sent(wait_s)])

    assert columns_of(rows(con, "approval_dwell"), "state") == [(state,)]


@pytest.mark.parametrize(
    ("pause_s", "attempts"),
    [pytest.param(59, [(4, at(164))], id="just under"), pytest.param(60, [(3, at(100)), (1, at(165))], id="minute")],
)
def test_a_refusal_soon_after_the_approval_belongs_to_the_wait(pause_s: int, attempts: list[Any]) -> None:
    straggler = 100 + pause_s
    con = lake([*(_refused(number) for number in range(3)), _sent(100), _refused(straggler), _sent(straggler + 5)])

    assert sorted(columns_of(rows(con, "approval_dwell"), "attempts", "approved_at"), reverse=True) == sorted(
        attempts, reverse=True
    )


@pytest.mark.parametrize(
    ("quiet_s", "keeps_trying"), [pytest.param(DAY, True, id="a day"), pytest.param(DAY + 1, False, id="more")]
)
def test_an_organisation_keeps_trying_that_was_refused_within_a_day(quiet_s: int, keeps_trying: bool) -> None:
    con = lake([_refused(0), _refused(60), ok(60 + quiet_s, org_id="org_b")])

    assert columns_of(rows(con, "approval_dwell"), "keeps_trying", "last_refused_at") == [(keeps_trying, at(60))]


def test_an_approved_organisation_does_not_keep_trying() -> None:
    con = lake([_refused(0), _refused(60), _sent(120)])

    assert columns_of(rows(con, "approval_dwell"), "keeps_trying") == [(False,)]


def test_retries_with_one_idempotency_key_are_one_intent() -> None:
    con = lake([_refused(second, idempotency_hash=f"idem_{second % 2}") for second in range(6)])

    assert columns_of(rows(con, "approval_dwell"), "attempts", "distinct_intents", "intent_confidence") == [
        (6, 2, "high")
    ]


def test_all_keys_of_an_organisation_wait_together() -> None:
    con = lake([_refused(0), _refused(10, key_id="key_b"), _sent(60, key_id="key_c")])

    assert columns_of(rows(con, "approval_dwell"), "org_id", "caller", "attempts", "keys", "approved_at") == [
        ("org_a", None, 2, 2, at(60))
    ]


def test_callers_without_an_organisation_wait_each_for_itself() -> None:
    nobody = {"org_id": None}
    con = lake([_refused(0, **nobody), _sent(100, key_id="key_b", **nobody)])

    assert columns_of(rows(con, "approval_dwell"), "org_id", "caller", "state") == [(None, "key_a", "waiting")]


def test_since_keeps_waits_that_were_not_over_and_tells_them_whole() -> None:
    over = [_refused(0, org_id="org_b"), _sent(HOUR, org_id="org_b")]
    lasting = [_refused(0), _refused(2 * HOUR), _sent(3 * HOUR)]

    answer = rows(lake(over + lasting), "approval_dwell", since=at(HOUR))

    assert columns_of(answer, "org_id", "first_refused_at", "attempts") == [("org_a", at(0), 2)]


def test_until_tells_what_was_known_then() -> None:
    con = lake([_refused(0), _refused(DAY), _refused(2 * DAY), _sent(3 * DAY)])

    answer = rows(con, "approval_dwell", until=at(DAY + HOUR))

    assert columns_of(answer, "state", "waiting_days", "attempts") == [("waiting", 25 / 24, 2)]


@pytest.mark.parametrize("wanted", [{"for_key": "key_b"}, {"for_route": "/v1/calls"}], ids=["key", "route"])
def test_a_filter_on_a_key_or_route_keeps_the_waits_that_it_met_whole(wanted: Row) -> None:
    met = [_refused(0), _refused(1, key_id="key_b", route="/v1/calls")]
    other = [_refused(0, org_id="org_b"), _refused(1, org_id="org_b")]

    assert columns_of(rows(lake(met + other), "approval_dwell", **wanted), "org_id", "attempts") == [("org_a", 2)]


def test_who_waits_longest_comes_first_and_what_is_not_enough_data_last() -> None:
    race = [_sent(0, org_id="org_d"), _refused(5, org_id="org_d")]
    approved = [_refused(0, org_id="org_c"), _sent(DAY, org_id="org_c")]
    waiting = [_refused(HOUR, org_id="org_b"), _refused(0)]

    assert columns_of(rows(lake(race + approved + waiting), "approval_dwell"), "org_id") == [
        ("org_a",),
        ("org_b",),
        ("org_c",),
        ("org_d",),
    ]


def test_the_examples_are_the_three_latest_refusals() -> None:
    con = lake([_refused(number, request_id=f"req_{number}") for number in range(5)])

    assert columns_of(rows(con, "approval_dwell"), "example_request_ids") == [(["req_4", "req_3", "req_2"],)]


def _refused(seconds: float, **fields: Any) -> Row:
    return error(seconds, CODE, **{"status": 422, "key_id": "key_a", "org_id": "org_a"} | fields)


def _sent(seconds: float, **fields: Any) -> Row:
    return ok(seconds, **{"key_id": "key_a", "org_id": "org_a"} | fields)


def _expected(
    events: list[Row],
    since: datetime | None = None,
    until: datetime | None = None,
    for_org: str | None = None,
    for_key: str | None = None,
    for_route: str | None = None,
    merge_gap_s: int = 60,
    min_attempts: int = 3,
    min_wait_s: int = 60,
    trying_s: int = 86_400,
) -> list[Row]:
    through = max(row["ts"] for row in events)
    known_until = through if until is None else min(until, through)
    answer = []
    for wait in windows(events, CODE, until, merge_gap_s):
        if not is_asked_for(wait, since, for_org, for_key, for_route):
            continue
        is_open = wait["passed_at"] is None
        waiting_s = ((wait["passed_at"] or known_until) - wait["first_refused_at"]).total_seconds()
        is_long, is_often = waiting_s >= min_wait_s, wait["attempts"] >= min_attempts
        if wait["passed_before"]:
            told = ("withdrawn" if is_open else "approved again") if is_long and is_often else "not enough data"
        else:
            told = "waiting" if is_open else "approved" if is_long or is_often else "not enough data"
        silent_s = (known_until - wait["last_refused_at"]).total_seconds()
        answer.append(
            {
                "org_id": wait["org_id"],
                "caller": wait["caller"],
                "state": told,
                "is_still_refused": is_open,
                "first_refused_at": wait["first_refused_at"],
                "last_refused_at": wait["last_refused_at"],
                "approved_at": wait["passed_at"],
                "waiting_days": waiting_s / 86_400,
                "attempts": wait["attempts"],
                "distinct_intents": wait["distinct_intents"],
                "intent_confidence": wait["intent_confidence"],
                "keeps_trying": is_open and wait["attempts"] > 1 and silent_s <= trying_s,
                "keys": wait["keys"],
                "routes": wait["routes"],
                "passed_before": wait["passed_before"],
                "passed_meanwhile": wait["passed_meanwhile"],
                "example_request_ids": wait["example_request_ids"],
            }
        )
    return sorted(
        answer,
        key=lambda row: (
            row["state"] == "not enough data",
            not row["is_still_refused"],
            -row["waiting_days"],
            -row["attempts"],
            row["org_id"] or "~",
            row["caller"] or "~",
            row["first_refused_at"],
        ),
    )
