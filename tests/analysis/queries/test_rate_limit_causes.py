"""rate_limit_causes: why each run of refusals came about."""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any, Final

import pytest

from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows
from tests.analysis.queries.test_attempts import attempts

NAME: Final = "rate_limit_causes"


def _refused(seconds: float, **fields: Any) -> Row:
    return error(
        seconds, "rate_limited", **{"key_id": "key_a", "org_id": "org_a", "latency_ms": 0.0, "request_id": "r"} | fields
    )


def _sibling(events: int, **fields: Any) -> list[Row]:
    return [
        make(number / 10, **{"key_id": "key_b", "org_id": "org_a"} | fields)
        for number in range(events)
        for make in ([_refused] if number % 10 == 0 else [ok])
    ]


@pytest.mark.parametrize("max_gap_s", [5, 60])
@pytest.mark.parametrize("seed", range(3))
def test_every_run_equals_a_second_count_without_sql(seed: int, max_gap_s: int) -> None:
    events = random_events(seed, count=800, spread_s=900)

    found = rows(lake(events), NAME, max_gap_s=max_gap_s, min_echo=10_000)

    names = ("caller", "started_at", "ended_at", "rate_limited", "requests", "retries", "sibling_key", "routes")
    assert Counter(columns_of(found, *names)) == Counter(_expected(events, max_gap_s))


@pytest.mark.parametrize(("seconds", "cause"), [(9.9, "burst"), (10, "sustained")])
def test_a_run_is_a_burst_below_ten_seconds(seconds: float, cause: str) -> None:
    con = lake([_refused(0), _refused(seconds)])

    assert columns_of(rows(con, NAME), "cause", "duration_s") == [(cause, pytest.approx(seconds))]


@pytest.mark.parametrize(("gap_s", "runs"), [(60, [2]), (60.1, [1, 1])])
def test_a_minute_without_refusals_ends_a_run(gap_s: float, runs: list[int]) -> None:
    con = lake([_refused(0), _refused(gap_s)])

    assert [row["rate_limited"] for row in rows(con, NAME)] == runs


@pytest.mark.parametrize(("retries", "cause"), [(2, "self-inflicted"), (1, "burst")])
def test_half_of_a_run_of_retries_are_self_inflicted(retries: int, cause: str) -> None:
    fresh = [_refused(number, idempotency_hash=f"i{number}") for number in range(2 if retries == 2 else 3)]
    again = [_refused(5 + number, idempotency_hash=f"i{number}") for number in range(retries)]

    (row,) = rows(lake(fresh + again), NAME)

    assert (row["cause"], row["retries"], row["rate_limited"]) == (cause, retries, 4)


def test_without_keys_the_echo_of_the_refusals_tells_the_retries() -> None:
    rng = Random(1)
    moments = [number * 7 + rng.uniform(0, 6) for number in range(60)]
    refused = [
        _refused(moment + attempt * 0.21, request_id=f"{moment}.{attempt}", latency_ms=10.0)
        for moment in moments[::2]
        for attempt in range(4)
    ]
    passed = [ok(moment, key_id="key_a", org_id="org_a", request_id=f"{moment}") for moment in moments[1::2]]

    (row,) = rows(lake(refused + passed), NAME)

    assert (row["cause"], row["is_estimate"]) == ("self-inflicted", True)
    assert row["retries"] == pytest.approx(90, abs=5)


@pytest.mark.parametrize("passed_every", [2, 1000], ids=["half of it passes", "none passes"])
def test_without_keys_a_steady_stream_does_not_retry(passed_every: int) -> None:
    events = [
        (ok if number % passed_every == 1 else _refused)(
            number / 10, key_id="key_a", org_id="org_a", request_id=f"{number}", latency_ms=0.0
        )
        for number in range(400)
    ]

    assert columns_of(rows(lake(events), NAME), "cause", "retries") == [("sustained", 0)]


def test_a_job_on_the_hour_is_scheduled() -> None:
    events = [
        _refused(hour * 3600 + number / 20, request_id=f"{hour}.{number}") for hour in range(3) for number in range(30)
    ]

    found = rows(lake(events), NAME)

    assert columns_of(found, "cause", "schedule", "schedule_share") == [("scheduled", "00:00 of every hour", 1.0)] * 3


def test_a_long_job_on_the_hour_is_told_by_the_starts_of_its_runs() -> None:
    events = [_refused(hour * 3600 + number * 3 + hour / 3) for hour in range(3) for number in range(30)]

    assert {row["schedule"] for row in rows(lake(events), NAME)} == {"00:00 of every hour"}


def test_a_job_of_every_minute_is_scheduled() -> None:
    events = [_refused(minute * 60 + 12 + number / 20) for minute in range(4) for number in range(10)]

    assert columns_of(rows(lake(events), NAME), "cause", "schedule") == [("scheduled", "11 s of every minute")]


@pytest.mark.parametrize("shift_s", [0, 1, 59])
def test_two_seconds_across_the_turn_of_a_minute_are_one_time(shift_s: int) -> None:
    events = [
        _refused(minute * 60 + shift_s + number, request_id=f"{minute}.{number}")
        for minute in range(4)
        for number in (0, 1)
    ]

    (row,) = rows(lake(events), NAME)

    assert (row["cause"], row["schedule"]) == ("scheduled", f"{shift_s:02} s of every minute")


def test_twice_is_no_schedule() -> None:
    events = [_refused(hour * 3600 + number / 20) for hour in range(2) for number in range(30)]

    assert {row["cause"] for row in rows(lake(events), NAME)} == {"burst"}


@pytest.mark.parametrize(
    ("before", "cause"),
    [
        pytest.param([], "burst", id="never asked before"),
        pytest.param([-n for n in range(1, 600)], "burst", id="asked all the time"),
        pytest.param([-60 * n + 0.2 for n in range(1, 10)], "scheduled", id="asked every minute then"),
    ],
)
def test_who_was_told_to_wait_for_the_minute_is_scheduled_only_if_it_was_before(
    before: list[float], cause: str
) -> None:
    refused = [
        _refused(minute * 61 - minute + number / 5, retry_after_s=59.0, request_id=f"{minute}.{number}")
        for minute in range(5)
        for number in (0, 1)
    ]
    asked = [ok(second, key_id="key_a", org_id="org_a", request_id=f"{second}") for second in before]

    found = rows(lake(refused + asked), NAME, burst_s=1000)

    assert {row["cause"] for row in found} == {cause}


@pytest.mark.parametrize(
    ("others", "cause"),
    [
        pytest.param(_sibling(100), "noisy sibling", id="a busy key that is refused too"),
        pytest.param(_sibling(15), "burst", id="a key that is hardly busier"),
        pytest.param(_sibling(100, org_id="org_b"), "burst", id="a key of another organisation"),
        pytest.param([ok(n / 10, key_id="key_b", org_id="org_a") for n in range(100)], "burst", id="never refused"),
    ],
)
def test_a_key_may_suffer_from_another_one(others: list[Row], cause: str) -> None:
    own = [_refused(1.05), _refused(8.05)]

    found = [row for row in rows(lake(own + others), NAME) if row["caller"] == "key_a"]

    assert [row["cause"] for row in found] == [cause]


@pytest.mark.parametrize(
    ("make", "is_counted"),
    [
        pytest.param(lambda: error(0, None, status=429, key_id="key_a"), True, id="a gateway's 429"),
        pytest.param(lambda: error(0, "internal_error", key_id="key_a"), False, id="another error"),
        pytest.param(lambda: ok(0, key_id="key_a"), False, id="a success"),
    ],
)
def test_refusals_are_what_says_slow_down(make: Callable[[], Row], is_counted: bool) -> None:
    assert len(rows(lake([make()]), NAME)) == is_counted


def _expected(events: list[Row], max_gap_s: int) -> list[tuple[Any, ...]]:
    refused = [row for row in events if row["is_error"] and (row["status"] == 429 or row.get("code") == "rate_limited")]
    retries = Counter(
        (row["caller"], row["start_us"])
        for row in attempts(lake(events))
        if row["gap_s"] is not None
        and row["intent_confidence"] == "high"
        and (row["status"] == 429 or row["code"] == "rate_limited")
    )
    told = []
    for caller in {row["caller"] for row in refused if row["caller"] is not None}:
        own = sorted((row for row in refused if row["caller"] == caller), key=_start)
        cuts = [n for n in range(1, len(own)) if _start(own[n]) - _start(own[n - 1]) > timedelta(seconds=max_gap_s)]
        for first, last in zip([0, *cuts], [*cuts, len(own)], strict=True):
            run = own[first:last]
            moments = {_start(row) for row in run}
            meanwhile = [row for row in events if _start(run[0]) <= _start(row) <= _start(run[-1])]
            org_id = max((row["org_id"] for row in run if row["org_id"]), default=None)
            others = Counter(
                row["caller"]
                for row in meanwhile
                if org_id is not None and row["org_id"] == org_id and row["caller"] not in (caller, None)
            )
            told.append(
                (
                    caller,
                    _start(run[0]),
                    _start(run[-1]),
                    len(run),
                    sum(row["caller"] == caller and org_id in (None, row["org_id"]) for row in meanwhile),
                    sum(
                        retries[caller, (moment - at(0)) // timedelta(microseconds=1) + _EPOCH_US] for moment in moments
                    ),
                    min(others, key=lambda other: (-others[other], other), default=None),
                    len({row["route"] for row in run} - {None}),
                )
            )
    return told


_EPOCH_US: Final = round(at(0).timestamp()) * 1_000_000


def _start(row: Row) -> Any:
    return row["ts"] - timedelta(milliseconds=row["latency_ms"] or 0)
