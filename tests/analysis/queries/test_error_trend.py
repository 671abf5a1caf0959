"""error_trend: errors and their rate per bucket of time, code by code."""

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from ingest.schema import BadInput
from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows
from tests.analysis.queries.pandas_oracle import SCOPES, Scope, errors_of, frame_of, requests_of

FLOORS = {"minute": "min", "hour": "h", "day": "D"}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(
    ("seed", "bucket", "tz"),
    [(0, "minute", "UTC"), (1, "hour", "Asia/Kolkata"), (2, "day", "UTC"), (3, "day", "America/New_York")],
)
def test_every_row_equals_the_pandas_count(seed: int, scope: Scope, bucket: str, tz: str) -> None:
    events = random_events(seed)

    answer = rows(lake(events), "error_trend", bucket=bucket, tz=tz, **scope.parameters)

    assert answer == _expected(events, scope, bucket, tz)


@pytest.mark.parametrize(
    ("length", "size"),
    [
        pytest.param(timedelta(hours=6), "minute", id="six hours"),
        pytest.param(timedelta(hours=6, seconds=1), "hour", id="more than six hours"),
        pytest.param(timedelta(days=14), "hour", id="fourteen days"),
        pytest.param(timedelta(days=14, seconds=1), "day", id="more than fourteen days"),
    ],
)
def test_the_bucket_follows_the_length_of_the_range(length: timedelta, size: str) -> None:
    con = lake([error(1, "not_found")])

    asked = rows(con, "error_trend", since=at(0), until=at(0) + length)
    spanned = rows(lake([error(0, "not_found"), ok(length.total_seconds())]), "error_trend")

    assert {row["bucket_size"] for row in asked + spanned} == {size}


def test_a_bucket_in_which_a_code_did_not_occur_says_zero() -> None:
    con = lake([error(0, "not_found"), ok(60), error(60, "dnc_blocked"), error(120, "not_found")])

    answer = rows(con, "error_trend", for_code="not_found")

    assert columns_of(answer, "bucket_start", "errors", "requests", "rate") == [
        (at(0), 1, 1, 1.0),
        (at(60), 0, 2, 0.0),
        (at(120), 1, 1, 1.0),
    ]


def test_a_bucket_without_requests_is_a_visible_gap() -> None:
    con = lake([error(0, "not_found"), error(600, "not_found")])

    assert columns_of(rows(con, "error_trend"), "bucket_start") == [(at(0),), (at(600),)]


def test_a_day_begins_at_midnight_of_the_zone() -> None:
    before = error(0, "not_found", ts=datetime(2026, 11, 2, 18, 29, 59, tzinfo=UTC))
    after = error(0, "not_found", ts=datetime(2026, 11, 2, 18, 30, tzinfo=UTC))

    answer = rows(lake([before, after]), "error_trend", bucket="day", tz="Asia/Kolkata")

    assert columns_of(answer, "bucket_start", "errors") == [
        (datetime(2026, 11, 1, 18, 30, tzinfo=UTC), 1),
        (datetime(2026, 11, 2, 18, 30, tzinfo=UTC), 1),
    ]


def test_the_hour_that_a_zone_repeats_stays_two_buckets() -> None:
    # New York sets its clocks back on 2026-11-01 at 06:00 UTC: 01:30 happens twice.
    first = error(0, "not_found", ts=datetime(2026, 11, 1, 5, 30, tzinfo=UTC))
    second = error(0, "not_found", ts=datetime(2026, 11, 1, 6, 30, tzinfo=UTC))

    answer = rows(lake([first, second]), "error_trend", bucket="hour", tz="America/New_York")

    assert columns_of(answer, "bucket_start", "errors") == [
        (datetime(2026, 11, 1, 5, tzinfo=UTC), 1),
        (datetime(2026, 11, 1, 6, tzinfo=UTC), 1),
    ]


def test_a_gateway_reason_that_is_spelled_like_a_code_stays_apart() -> None:
    con = lake([error(0, "limited"), error(1, None, status=429, origin="gateway", gateway_reason="limited")])

    assert columns_of(rows(con, "error_trend"), "label", "code", "errors") == [
        ("limited", "limited", 1),
        ("limited", None, 1),
    ]


def test_an_unknown_bucket_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match="expected minute, hour or day, got week"):
        rows(lake([ok(0)]), "error_trend", bucket="week")


def _expected(events: list[Row], scope: Scope, bucket: str, tz: str) -> list[Row]:
    frame = frame_of(events)
    starts = frame["ts"].dt.tz_convert(tz).dt.floor(FLOORS[bucket]).dt.tz_convert("UTC")
    labels = frame["code"].fillna(frame["gateway_reason"]).fillna("(no code)")
    frame = frame.assign(bucket_start=starts, label=labels)
    errors, requests = errors_of(frame, scope), requests_of(frame, scope)
    answer: list[Row] = []
    for start, asked in requests["bucket_start"].value_counts().sort_index().items():
        in_bucket = errors[errors["bucket_start"] == start]
        for label, code in sorted(set(zip(errors["label"], errors["code"].fillna(""), strict=True))):
            met = int((in_bucket["label"] == label).sum())
            answer.append(
                {
                    "bucket_start": pd.Timestamp(str(start)).to_pydatetime(),
                    "bucket_size": bucket,
                    "label": label,
                    "code": code or None,
                    "errors": met,
                    "requests": asked,
                    "rate": met / asked,
                }
            )
    return answer
