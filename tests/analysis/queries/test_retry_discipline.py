"""retry_discipline: what each client does after its failures, known by keys or told by their echo."""

from random import Random
from statistics import median
from typing import Any, Final

import pytest

from tests.analysis.queries.event_lake import Row, columns_of, error, lake, ok, random_events, rows
from tests.analysis.queries.test_attempts import attempts

RETRYABLE: Final = frozenset({"rate_limited", "idempotency_in_progress"})


@pytest.mark.parametrize("tolerance_s", [0.25, 5.0])
@pytest.mark.parametrize("seed", range(4))
def test_what_keys_tell_equals_a_second_count_without_sql(seed: int, tolerance_s: float) -> None:
    events = [row for row in random_events(seed, count=700, spread_s=300) if row["idempotency_hash"] is not None]

    found = rows(lake(events), "retry_discipline", tolerance_s=tolerance_s)

    names = ("name", "requests", "retries", "told", "retried_too_early", "futile", "futile_repeats", "chains")
    assert sorted(columns_of(found, *names, "median_gap_s")) == sorted(_expected(events, tolerance_s))


def test_a_client_that_waits_as_told_is_well_behaved() -> None:
    (row,) = rows(lake(_limited(pause_s=30)), "retry_discipline")

    assert (row["verdict"], row["grade"], row["told"], row["retried_too_early"]) == ("well-behaved", "A", 25, 0)
    assert (row["honoured_rate"], row["honoured_high"]) == (1.0, 1.0)
    assert row["honoured_low"] == pytest.approx(0.8668, abs=0.0001)  # Wilson, 25 of 25


def test_a_client_that_comes_back_early_ignores_retry_after() -> None:
    (row,) = rows(lake(_limited(pause_s=1)), "retry_discipline")

    assert (row["verdict"], row["grade"], row["retried_too_early"]) == ("ignores Retry-After", "F", 25)
    assert row["sentence"] == (
        "Of 25 answers that asked key_a to wait (Retry-After), 25 were tried again too early; it honoured 0% "
        "(95 % interval 0% to 13%). 25 of its 50 requests were wasted. Please wait as long as Retry-After says before "
        "the next request. Examples: r24b, r23b, r22b."
    )


@pytest.mark.parametrize(
    ("early", "verdict"),
    [(9, "ignores Retry-After"), (8, "well-behaved")],
    ids=["at the share", "below it"],
)
def test_a_habit_is_what_is_done_after_three_in_ten_failures(early: int, verdict: str) -> None:
    (row,) = rows(lake(_limited(pause_s=1, count=early) + _limited(pause_s=30, count=30 - early, first=50)), NAME)

    assert row["verdict"] == verdict


def test_below_twenty_failures_there_is_not_enough_data() -> None:
    (row,) = rows(lake(_limited(pause_s=1, count=19)), "retry_discipline")

    assert columns_of([row], "verdict", "grade", "score", "retried_too_early") == [("not enough data", None, None, 19)]
    assert row["sentence"] == "Only 19 failures show how key_a retries: not enough data."


def test_repeating_what_cannot_succeed_is_futile() -> None:
    (row,) = rows(lake(_chains("validation_failed", [5.0])), "retry_discipline")

    assert columns_of([row], "verdict", "futile", "futile_repeats", "wasted_requests") == [
        ("futile repeats", 50, 25, 25)
    ]


def test_a_client_that_never_repeats_what_is_refused_does_not_retry() -> None:
    (row,) = rows(lake(_chains("validation_failed", [])), "retry_discipline")

    assert columns_of([row], "verdict", "score", "wasted_requests") == [("does not retry", 100.0, 0)]


@pytest.mark.parametrize(
    ("pauses", "backoff", "verdict"),
    [
        pytest.param([0.5, 1.0, 2.0], "exponential", "well-behaved", id="doubling"),
        pytest.param([10.0, 10.0, 10.0], "fixed", "well-behaved", id="ten seconds each"),
        pytest.param([0.2, 0.2, 0.2], "immediate", "tight loop", id="at once each"),
        pytest.param([0.8, 0.3, 0.1], "collapsing", "tight loop", id="ever faster"),
        pytest.param([0.2], "immediate", "not enough data", id="at once, but once only"),
        pytest.param([9.0, 3.0, 1.1], "collapsing", "well-behaved", id="shrinking, but slow"),
        pytest.param([5.0, 6.5, 8.45], "irregular", "well-behaved", id="hardly growing"),
    ],
)
def test_server_errors_are_judged_by_the_pauses(pauses: list[float], backoff: str, verdict: str) -> None:
    (row,) = rows(lake(_chains("internal_error", pauses)), "retry_discipline")

    assert (row["backoff"], row["verdict"]) == (backoff, verdict)


@pytest.mark.parametrize(("pauses", "backoff"), [(19, None), (20, "immediate")])
def test_a_few_quick_retries_are_no_way_of_backing_off(pauses: int, backoff: str | None) -> None:
    quick = [event for number in range(100, 100 + pauses) for event in _chain(number, "internal_error", [0.4])]
    (row,) = rows(lake([*_limited(pause_s=30), *quick]), "retry_discipline")

    assert (row["verdict"], row["backoff"]) == ("well-behaved", backoff)


@pytest.mark.parametrize(("jitter", "is_lockstep"), [(0.02, True), (0.3, False)])
def test_pauses_that_are_nearly_the_same_are_in_lockstep(jitter: float, is_lockstep: bool) -> None:
    rng = Random(1)
    events = [
        event
        for number in range(25)
        for event in _chain(number, "internal_error", [10 * rng.uniform(1 - jitter, 1 + jitter)])
    ]

    (row,) = rows(lake(events), "retry_discipline")

    assert row["is_lockstep"] is is_lockstep


def test_the_longest_chain_and_those_over_three_attempts_are_told() -> None:
    events = _chains("internal_error", [1.0, 2.0, 4.0]) + _chain(99, "internal_error", [1.0])

    (row,) = rows(lake(events), "retry_discipline")

    assert columns_of([row], "chains", "longest_chain", "over_three") == [(26, 4, 25 / 26)]


def test_callers_of_one_client_program_are_judged_together() -> None:
    events = [
        row | {"key_id": f"key_{row['request_id'][-1]}{number}", "caller": f"key_{number}", "user_agent": agent}
        for number, agent in enumerate(("acme-sdk/2.1 (Linux)", "acme-sdk/2.1 (Windows)", "other/1.0"))
        for row in _limited(pause_s=1, count=15)
    ]

    found = rows(lake(events), "retry_discipline", per="client")

    assert columns_of(found, "name", "org_id", "told", "retried_too_early", "verdict") == [
        ("acme-sdk 2.1", None, 30, 30, "ignores Retry-After"),
        ("other 1.0", None, 15, 15, "not enough data"),
    ]


# -- without keys


@pytest.mark.parametrize("pause_s", [0.05, 1.0])
def test_without_keys_the_echo_shows_who_ignores_retry_after(pause_s: float) -> None:
    events, early = _anonymous("rate_limited", pause_s, retry_after_s=20.0)

    (row,) = rows(lake(events), "retry_discipline")

    assert (row["verdict"], row["is_estimate"]) == ("ignores Retry-After", True)
    assert row["retried_too_early"] == pytest.approx(early, rel=0.1)


def test_without_keys_a_client_that_waits_is_not_accused() -> None:
    events, _ = _anonymous("rate_limited", 22.0, retry_after_s=20.0)

    (row,) = rows(lake(events), "retry_discipline")

    assert (row["verdict"], row["retried_too_early"]) == ("not enough data", 0)


def test_without_keys_the_echo_shows_futile_repeats() -> None:
    events, repeats = _anonymous("validation_failed", 0.3)

    (row,) = rows(lake(events), "retry_discipline")

    assert row["verdict"] == "futile repeats"
    assert row["futile_repeats"] == pytest.approx(repeats, rel=0.1)


def test_without_keys_a_batch_that_goes_on_after_each_refusal_does_not_repeat_it() -> None:
    rng = Random(2)
    events, moment = [], 0.0
    for number in range(600):
        is_refused = rng.random() < 0.3
        make = error(moment, "validation_failed") if is_refused else ok(moment)
        events.append(make | {"key_id": "key_a", "caller": "key_a", "request_id": f"r{number}"})
        moment += 0.1 if is_refused else rng.uniform(0.2, 3)

    (row,) = rows(lake(events), "retry_discipline")

    assert (row["verdict"], row["futile_repeats"]) == ("not enough data", 0)


def test_without_keys_the_echo_shows_a_tight_loop_at_server_errors() -> None:
    events, _ = _anonymous("internal_error", 0.1)

    (row,) = rows(lake(events), "retry_discipline")

    assert (row["verdict"], row["backoff"]) == ("tight loop", "immediate")


NAME: Final = "retry_discipline"


def _limited(*, pause_s: float, count: int = 25, first: int = 0) -> list[Row]:
    """Requests that are limited, asked to wait 30 s, and tried again with success after `pause_s`."""
    events = []
    for number in range(first, first + count):
        fields: Row = {"key_id": "key_a", "idempotency_hash": f"i{number}", "latency_ms": 0.0}
        start = number * 600
        events += [
            error(start, "rate_limited", retry_after_s=30.0, request_id=f"r{number}a", **fields),
            ok(start + pause_s, request_id=f"r{number}b", **fields),
        ]
    return events


def _chains(code: str, pauses: list[float]) -> list[Row]:
    return [event for number in range(25) for event in _chain(number, code, pauses)]


def _chain(number: int, code: str, pauses: list[float]) -> list[Row]:
    """A request that fails with `code`, and again after each of the pauses."""
    moments = [number * 600 + sum(pauses[:attempt]) for attempt in range(len(pauses) + 1)]
    fields: Row = {"key_id": "key_a", "idempotency_hash": f"i{number}", "latency_ms": 0.0}
    return [error(moment, code, request_id=f"r{moment}", **fields) for moment in moments]


def _anonymous(code: str, pause_s: float, retry_after_s: float | None = None) -> tuple[list[Row], int]:
    """Requests without Idempotency-Keys, 40 % of which fail and are tried again up to three times; how many were."""
    rng = Random(3)
    events, repeats, moment = [], 0, 0.0
    for number in range(500):
        moment += rng.expovariate(0.05)
        fields: Row = {"key_id": "key_a", "latency_ms": 5.0}
        if rng.random() >= 0.4:
            events.append(ok(moment, request_id=f"r{number}", **fields))
            continue
        for attempt in range(4):
            end = moment + attempt * (pause_s * rng.uniform(0.99, 1.01) + 0.005)
            refused = error(end, code, retry_after_s=retry_after_s, request_id=f"r{number}_{attempt}", **fields)
            events.append(refused)
            repeats += attempt > 0
    return events, repeats


def _expected(events: list[Row], tolerance_s: float) -> list[tuple[Any, ...]]:
    # attempts() has a second implementation of its own.
    tried = [row for row in attempts(lake(events)) if row["intent_token"] is not None]
    told = []
    for caller in sorted({row["caller"] for row in events if row["is_error"] and row["caller"] is not None}):
        own = [row for row in tried if row["caller"] == caller]
        retries = [row for row in own if row["gap_s"] is not None]
        asked_to_wait = [
            row
            for row in retries
            if (row["failed_code"] == "rate_limited" or row["failed_status"] == 429)
            and (row["failed_retry_after_s"] or 0) > tolerance_s
        ]
        failed = [row for row in events if row["caller"] == caller and row["is_error"]]
        unasked = [row["gap_s"] for row in retries if row["failed_retry_after_s"] is None]
        told.append(
            (
                caller,
                sum(row["caller"] == caller for row in events),
                len(retries),
                len(asked_to_wait),
                sum(row["gap_s"] < row["failed_retry_after_s"] - tolerance_s for row in asked_to_wait),
                sum(_is_futile(row["code"], row["status"]) for row in failed),
                sum(_is_futile(row["failed_code"], row["failed_status"]) for row in retries),
                len({(row["method"], row["intent_path"], row["intent_token"], row["chain"]) for row in retries}),
                pytest.approx(median(unasked)) if unasked else None,
            )
        )
    return told


def _is_futile(code: str | None, status: int) -> bool:
    known = code is not None and code not in {"brand_new", "internal_error"}
    return known and code not in RETRYABLE and status < 500
