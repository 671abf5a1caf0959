"""what_changed: what is new, back, more, fewer or gone since yesterday and the same weekday last week."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any, Final

import duckdb
import pytest

from analysis import questions
from benchmarks.bench_changes import answers, connection, is_named_first
from benchmarks.error_days import LEVELS, World
from tests.analysis.queries.event_lake import MORNING, Row, columns_of, error, lake, ok, random_events, rows

DAY_S: Final = 86_400
TODAY: Final = datetime(2026, 11, 2, tzinfo=UTC)
DAYS: Final = range(15)
WHOLE_DAY: Final = {"since": TODAY, "until": TODAY + timedelta(days=1)}
FROM_MIDNIGHT_S: Final = (TODAY - MORNING).total_seconds()


def spread(count: int, days_ago: int, make: Callable[..., Row], **fields: Any) -> list[Row]:
    """`count` requests at equal distances over a day."""
    step = DAY_S / (count + 1)
    start = FROM_MIDNIGHT_S - days_ago * DAY_S
    return [
        make(start + (number + 1) * step, **{"request_id": f"req_{days_ago}_{number}"} | fields)
        for number in range(count)
    ]


def failed(count: int, days_ago: int, code: str = "validation_failed", **fields: Any) -> list[Row]:
    """`count` errors of one caller over a day."""
    return spread(count, days_ago, error, code=code, **{"key_id": "key_a", "org_id": "org_a"} | fields)


def traffic(days: Iterable[int] = DAYS, count: int = 400) -> list[Row]:
    """Requests that succeed, of the caller that fails and of another one."""
    return [
        row
        for days_ago in days
        for caller in ({"key_id": "key_a", "org_id": "org_a"}, {"key_id": "key_b", "org_id": "org_b"})
        for row in spread(count, days_ago, ok, **caller)
    ]


def said(events: list[Row], **parameters: Any) -> list[Row]:
    return rows(lake(events), "what_changed", **WHOLE_DAY | parameters)


def test_a_day_like_its_baselines_needs_no_sentence() -> None:
    assert said(traffic() + [row for day in DAYS for row in failed(50, day)]) == []


def test_three_times_as_many_errors_are_up() -> None:
    events = traffic() + [row for day in DAYS[1:] for row in failed(50, day)] + failed(150, 0)

    assert columns_of(
        said(events), "rank", "kind", "code", "key", "errors", "previous_errors", "week_before_errors"
    ) == [(1, "UP", "validation_failed", "key_a", 150, 50, 50)]


def test_a_third_of_the_errors_is_down() -> None:
    events = traffic() + [row for day in DAYS[1:] for row in failed(150, day)] + failed(50, 0)

    assert columns_of(said(events), "kind", "code", "errors") == [("DOWN", "validation_failed", 50)]


def test_a_code_that_nobody_met_before_is_new() -> None:
    assert columns_of(said(traffic() + failed(30, 0)), "kind", "first_seen") == [("NEW", failed(30, 0)[0]["ts"])]


def test_a_code_that_was_met_ten_days_ago_and_not_since_has_returned() -> None:
    events = traffic() + failed(30, 0) + failed(30, 10)

    assert columns_of(said(events), "kind", "first_seen") == [("RETURNED", failed(30, 10)[0]["ts"])]


def test_a_code_that_nobody_meets_any_more_is_gone() -> None:
    events = traffic() + [row for day in DAYS[1:] for row in failed(40, day)]

    assert columns_of(said(events), "kind", "errors", "example_request_ids") == [
        ("GONE", 0, ["req_1_39", "req_1_38", "req_1_37"])
    ]


def test_an_error_of_the_gateway_goes_by_its_reason() -> None:
    events = traffic() + failed(30, 0, code="", status=502, gateway_reason="bad_gateway", origin="gateway")
    events = [row | {"code": row.get("code") or None} for row in events]

    assert columns_of(said(events), "kind", "code") == [("NEW", "bad_gateway")]


@pytest.mark.parametrize(("count", "kinds"), [(20, ["NEW"]), (19, [])])
def test_a_change_has_at_least_twenty_errors(count: int, kinds: list[str]) -> None:
    assert [row["kind"] for row in said(traffic() + failed(count, 0))] == kinds


@pytest.mark.parametrize(("count", "kinds"), [(1_100, ["UP"]), (990, [])])
def test_a_change_is_by_a_factor_of_two(count: int, kinds: list[str]) -> None:
    events = traffic(count=4_000) + [row for day in DAYS[1:] for row in failed(500, day)] + failed(count, 0)

    assert [row["kind"] for row in said(events)] == kinds


def test_a_client_that_repeats_one_request_for_two_minutes_is_no_change() -> None:
    loop = [error(second * 2.0, "validation_failed", key_id="key_a", org_id="org_a") for second in range(60)]

    assert said(traffic() + loop) == []


def test_as_many_errors_from_many_callers_at_once_are_a_change() -> None:
    at_once = [
        error(number * 2.0, "internal_error", key_id=f"key_{number}", org_id=f"org_{number}") for number in range(60)
    ]

    assert columns_of(said(traffic() + at_once), "kind", "code", "level") == [("NEW", "internal_error", "code + route")]


def test_a_customer_that_asks_three_times_as_much_and_fails_as_often_is_no_change() -> None:
    busy = {"key_id": "key_a", "org_id": "org_a"}
    events = traffic(count=2_000) + [row for day in DAYS[1:] for row in failed(50, day)]
    events += failed(150, 0) + spread(4_000, 0, ok, **busy)

    assert said(events) == []


def test_a_client_that_follows_the_clock_is_no_change_on_a_day_with_more_traffic() -> None:
    events = traffic([0, 2, 3, 4, 7, 8, 9], count=1_200) + traffic([1, 5, 6, 10, 11, 12, 13, 14], count=200)
    steady = [row for day in DAYS for row in failed(48, day, key_id="key_timer", org_id="org_timer")]

    assert said(events + steady) == []


def test_the_day_before_is_compared_by_its_traffic_where_it_is_of_a_busier_weekday() -> None:
    events = traffic([1, 8], count=1_200) + traffic([day for day in DAYS if day not in (1, 8)])
    events += [row for day in DAYS[1:] for row in failed(150 if day in (1, 8) else 50, day)] + failed(150, 0)

    assert columns_of(said(events), "kind", "previous_errors", "week_before_errors") == [("UP", 150, 50)]


def test_a_day_before_that_is_like_no_other_counts_only_against_the_change() -> None:
    usual = traffic() + [row for day in DAYS[2:] for row in failed(50, day)] + failed(150, 0)

    assert columns_of(said(usual + failed(10, 1)), "kind", "errors") == [("UP", 150)]
    assert said(usual + failed(140, 1)) == []


def test_a_customer_that_comes_on_other_days_only_is_not_judged_by_one_day() -> None:
    events = traffic([0, 1]) + failed(60, 0, key_id="key_new", org_id="org_new", code="not_found")
    events += [row for day in (0, 1) for row in failed(300, day, code="not_found", key_id="key_b", org_id="org_b")]

    assert said(events) == []


def test_a_customer_that_was_there_on_neither_day_is_new() -> None:
    events = traffic() + failed(60, 0, key_id="key_new", org_id="org_new", code="not_found")
    events += [row for day in DAYS for row in failed(300, day, code="not_found", key_id="key_b", org_id="org_b")]

    assert columns_of(said(events), "kind", "org_id", "key") == [("NEW", "org_new", "key_new")]


def test_a_client_that_fails_on_some_days_without_a_pattern_is_no_change() -> None:
    events = traffic() + [row for day in (0, 2, 3, 5, 9, 11, 13) for row in failed(60, day)]

    assert said(events) == []


def test_one_cause_is_one_sentence_about_all_that_it_reaches() -> None:
    keys = [f"key_{number}" for number in range(8)]
    events = traffic() + [
        row
        for day in DAYS
        for key in keys
        for row in failed(60 if day == 0 else 15, day, key_id=key, org_id=f"org_{key}")
    ]

    assert columns_of(said(events), "kind", "level", "code", "org_id") == [
        ("UP", "code + route", "validation_failed", None)
    ]


def test_two_causes_are_two_sentences() -> None:
    events = traffic() + [row for day in DAYS for row in failed(400, day, key_id="key_b", org_id="org_b")]
    events += failed(40, 0, code="dnc_blocked") + failed(80, 0, key_id="key_c", org_id="org_c", route="/v1/numbers")

    assert sorted(columns_of(said(events), "code", "key")) == [("dnc_blocked", "key_a"), ("validation_failed", "key_c")]


def test_the_narrowest_cell_is_named_that_explains_four_fifths() -> None:
    events = traffic() + failed(80, 0) + failed(19, 0, key_id="key_b", org_id="org_b")

    assert columns_of(said(events), "level", "key") == [("code + route + org + key", "key_a")]


def test_a_cell_that_explains_less_is_not_named_for_the_whole() -> None:
    events = traffic() + failed(79, 0) + failed(22, 0, key_id="key_b", org_id="org_b")

    assert columns_of(said(events), "level", "key") == [("code + route", None)]


def test_a_day_that_is_not_over_is_compared_with_the_same_hours() -> None:
    early = [row for row in failed(300, 0) + traffic([0]) if row["ts"] < TODAY + timedelta(hours=10)]
    events = early + traffic(DAYS[1:]) + [row for day in DAYS[1:] for row in failed(100, day)]

    assert columns_of(rows(lake(events), "what_changed"), "kind", "errors", "previous_errors") == [("UP", 125, 42)]


def test_without_a_period_it_is_the_latest_day_that_has_more_than_its_first_hour() -> None:
    events = traffic() + failed(60, 0) + spread(1, 0, ok, ts=TODAY + timedelta(days=1, seconds=7))

    assert columns_of(rows(lake(events), "what_changed"), "kind", "errors") == [("NEW", 60)]


def test_a_week_is_compared_with_the_weeks_before_it() -> None:
    days = range(21)
    events = traffic(days, count=50) + [row for day in days for row in failed(30 if day < 7 else 5, day)]
    week = {"since": TODAY - timedelta(days=6), "until": TODAY + timedelta(days=1)}

    assert columns_of(said(events, **week), "kind", "errors", "previous_errors", "week_before_errors") == [
        ("UP", 210, 35, 35)
    ]


def test_a_first_day_accuses_nobody() -> None:
    (row,) = said(traffic([0]) + failed(100, 0))

    assert (row["kind"], row["code"], row["sentence"]) == (
        "NOT ENOUGH DATA",
        None,
        "Not enough data: there is nothing to compare what happened on 2026-11-02 with, neither the day before nor "
        "a week before.",
    )


def test_a_sentence_says_counts_rates_interval_and_three_requests() -> None:
    events = traffic() + [row for day in DAYS[1:] for row in failed(50, day)] + failed(150, 0)
    (row,) = said(events)

    assert row["sentence"] == (
        "validation_failed on POST /v1/messages of org_a by key_a is up: 150 in 550 requests (27.3%) on 2026-11-02, "
        "after 50 in 450 requests (11.1%) the day before and 50 in 450 requests (11.1%) a week before. "
        f"That is {row['ratio']:.2g} times as many (95 % interval {row['ratio_low']:.2g} to {row['ratio_high']:.2g}). "
        "For example req_0_149, req_0_148, req_0_147."
    )


def test_at_most_so_many_sentences_are_said() -> None:
    events = traffic() + [row for number in range(6) for row in failed(60, 0, code=f"code_{number}")]

    assert columns_of(said(events, max_sentences=4), "rank") == [(1,), (2,), (3,), (4,)]


@pytest.mark.parametrize("seed", range(3))
def test_the_counts_of_the_evidence_equal_a_second_count(seed: int) -> None:
    events = random_events(seed, count=2_000, spread_s=30_000)
    since, until = TODAY + timedelta(days=1), TODAY + timedelta(days=2)
    con = lake(events)

    found = con.execute(
        """SELECT code, method, route, org_id, key, errors, previous_errors, all_requests, previous_all_requests
        FROM what_changed(since := $since, until := $until, min_errors := 10)""",
        {"since": since.replace(tzinfo=None), "until": until.replace(tzinfo=None)},
    ).fetchall()

    assert sorted(found, key=repr) == sorted(_evidence(events, since, least=4), key=repr)


@pytest.mark.parametrize("seed", range(4))
def test_a_made_up_day_on_which_nothing_changed_is_silent(made_up: duckdb.DuckDBPyConnection, seed: int) -> None:
    assert answers(made_up, World(seed)) == []


@pytest.mark.parametrize(("level", "factor"), list(zip(LEVELS, [3.0, 1 / 3, 3.0, 1 / 3], strict=True)))
def test_a_planted_change_of_a_made_up_day_is_named_first(
    made_up: duckdb.DuckDBPyConnection, level: str, factor: float
) -> None:
    world = World(10_001)
    change = world.change(level, factor)
    assert change is not None

    assert is_named_first(made_up, answers(made_up, world), change)


@pytest.fixture(scope="module")
def made_up() -> duckdb.DuckDBPyConnection:
    return connection()


def test_the_header_describes_each_column_of_the_answer() -> None:
    (row, *_) = said(traffic() + failed(60, 0))

    assert [column.name for column in questions()["what_changed"].columns] == list(row)


def _evidence(events: list[Row], since: datetime, least: int) -> Iterable[tuple[Any, ...]]:
    """Every cell with `least` errors on the day from `since` on or the day before; no week before is known."""
    days = (since, since - timedelta(days=1))
    of_days = [[row for row in events if day <= row["ts"] < day + timedelta(days=1)] for day in days]
    counts: dict[tuple[Any, ...], list[int]] = {}
    for place, of_day in enumerate(of_days):
        for row in of_day:
            if not row["is_error"]:
                continue
            label = row.get("code") or row.get("gateway_reason") or "(no code)"
            route = (row["method"] or "", row["route"] or "")
            org, key = row["org_id"] or "", row["caller"]
            for length in range(4):
                for named in combinations(("route", "org", "key"), length):
                    if "key" in named and "org" not in named:
                        continue
                    cell = (
                        label,
                        *(route if "route" in named else (None, None)),
                        org if "org" in named else None,
                        key if "key" in named else None,
                    )
                    counts.setdefault(cell, [0, 0])[place] += 1
    for cell, (errors, previous) in counts.items():
        if max(errors, previous) >= least:
            yield (*cell, errors, previous, len(of_days[0]), len(of_days[1]))
