"""The period of a report: days of zones, the day that is chosen where none is named, and what is no period."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import duckdb
import pytest

import analysis
from analysis.moments import zone_named
from analysis.period import Period, between, data_begins, data_through, day_of, written
from ingest.schema import BadInput
from tests.analysis.conftest import WriteLake

NOW: Final = datetime(2026, 11, 23, 12, tzinfo=UTC)

Requests = Callable[..., duckdb.DuckDBPyConnection]


@pytest.fixture
def requests_at(write_lake: WriteLake) -> Requests:
    """A connection over a lake with a request at each moment, and a ledger step that spans them."""

    def connect(*moments: datetime) -> duckdb.DuckDBPyConnection:
        sources = [{"first_ts": min(moments), "last_ts": max(moments)}] if moments else []
        return analysis.connect(write_lake([{"ts": moment} for moment in moments], sources=sources))

    return connect


@pytest.mark.parametrize(
    ("day", "tz", "since", "until"),
    [
        pytest.param("2026-11-16", "UTC", "2026-11-16T00:00", "2026-11-17T00:00", id="a date"),
        pytest.param("yesterday", "UTC", "2026-11-22T00:00", "2026-11-23T00:00", id="yesterday"),
        pytest.param("2026-11-16", "Europe/Berlin", "2026-11-15T23:00", "2026-11-16T23:00", id="east of UTC"),
        pytest.param("2026-11-16", "America/New_York", "2026-11-16T05:00", "2026-11-17T05:00", id="west of UTC"),
        pytest.param("2026-03-29", "Europe/Berlin", "2026-03-28T23:00", "2026-03-29T22:00", id="a day of 23 hours"),
        pytest.param("2026-10-25", "Europe/Berlin", "2026-10-24T22:00", "2026-10-25T23:00", id="a day of 25 hours"),
        pytest.param("2026-04-24", "Africa/Cairo", "2026-04-23T22:00", "2026-04-24T21:00", id="a day without midnight"),
    ],
)
def test_a_day_is_from_midnight_to_midnight_of_its_zone(
    requests_at: Requests, day: str, tz: str, since: str, until: str
) -> None:
    period = day_of(requests_at(), day, tz=tz, now=NOW)

    assert period == Period(_utc(since), _utc(until), tz)
    assert period.since.tzinfo == zone_named(tz)


@pytest.mark.parametrize(
    ("now", "day"),
    [
        pytest.param("2026-11-23T22:59", "2026-11-22", id="before midnight in Berlin"),
        pytest.param("2026-11-23T23:01", "2026-11-23", id="after midnight in Berlin"),
    ],
)
def test_yesterday_is_yesterday_of_the_zone(requests_at: Requests, now: str, day: str) -> None:
    period = day_of(requests_at(), "yesterday", tz="Europe/Berlin", now=_utc(now))

    assert written(period.since) == day


@pytest.mark.parametrize(
    ("moments", "tz", "day"),
    [
        pytest.param(["2026-11-21T23:59", "2026-11-22T01:00", "2026-11-23T10:00"], "UTC", "2026-11-22", id="yesterday"),
        pytest.param(["2026-11-16T10:00", "2026-11-17T00:59"], "UTC", "2026-11-16", id="not the end of its log"),
        pytest.param(["2026-11-16T10:00", "2026-11-17T01:00"], "UTC", "2026-11-17", id="beyond its first hour"),
        pytest.param(["2026-11-17T00:02"], "UTC", "2026-11-17", id="a few minutes are all there is"),
        pytest.param(["2026-11-16T10:00", "2026-11-23T10:00"], "UTC", "2026-11-16", id="the last one with requests"),
        pytest.param(["2026-11-23T01:00", "2026-11-23T10:00"], "UTC", "2026-11-23", id="only today has requests"),
        pytest.param([], "UTC", "2026-11-22", id="nothing at all"),
        pytest.param(["2026-11-30T10:00"], "UTC", "2026-11-23", id="only the future has requests"),
        pytest.param(["2026-11-21T23:30"], "Europe/Berlin", "2026-11-22", id="a day of the zone"),
        pytest.param(["2026-11-22T23:30"], "Europe/Berlin", "2026-11-23", id="today in the zone"),
    ],
)
def test_without_a_day_it_is_the_latest_before_today_with_requests(
    requests_at: Requests, moments: list[str], tz: str, day: str
) -> None:
    period = day_of(requests_at(*map(_utc, moments)), None, tz=tz, now=NOW)

    assert written(period.since) == day


def test_today_ends_with_the_last_request_so_that_the_period_before_is_as_long(requests_at: Requests) -> None:
    period = day_of(requests_at(_utc("2026-11-23T01:00"), _utc("2026-11-23T10:00")), "today", now=NOW)

    assert period == Period(
        _utc("2026-11-23T00:00"), _utc("2026-11-23T10:00") + timedelta(microseconds=1), "UTC", is_over=False
    )


def test_today_without_requests_is_the_whole_day(requests_at: Requests) -> None:
    period = day_of(requests_at(_utc("2026-11-16T10:00")), "today", now=NOW)

    assert period == Period(_utc("2026-11-23T00:00"), _utc("2026-11-24T00:00"), "UTC", is_over=False)


@pytest.mark.parametrize(
    ("day", "verdict"),
    [
        pytest.param("24h", "--day has value '24h'; expected a day such as 2026-11-16", id="a look-back"),
        pytest.param("2026-11-16T10:00", "--day has value '2026-11-16T10:00'; expected a day", id="a moment"),
        pytest.param("tomorow", "--day has value 'tomorow'; expected a date", id="a typing error"),
        pytest.param("9999-12-31", "expected a day that ends before the year 10000", id="the last day of all"),
    ],
)
def test_what_is_no_day_is_told(requests_at: Requests, day: str, verdict: str) -> None:
    with pytest.raises(BadInput, match=re.escape(verdict)):
        day_of(requests_at(), day, now=NOW)


def test_an_unknown_zone_is_told(requests_at: Requests) -> None:
    with pytest.raises(BadInput, match="there is no time zone 'Mars/Base'"):
        day_of(requests_at(), "yesterday", tz="Mars/Base", now=NOW)


@pytest.mark.parametrize(
    ("since", "until", "tz", "expected"),
    [
        pytest.param("2026-11-16", "2026-11-18", "UTC", ("2026-11-16T00:00", "2026-11-18T00:00", True), id="days"),
        pytest.param(
            "2026-11-16T10:00", "2026-11-16T11:30", "Europe/Berlin", ("2026-11-16T09:00", "2026-11-16T10:30", True),
            id="local times",
        ),
        pytest.param("24h", "now", "UTC", ("2026-11-22T12:00", "2026-11-23T12:00", True), id="look-back"),
        pytest.param("today", "2026-11-24", "UTC", ("2026-11-23T00:00", "2026-11-24T00:00", False), id="not over"),
        pytest.param("2026-11-22", None, "UTC", ("2026-11-22T00:00", "2026-11-23T12:00", False), id="up to now"),
        pytest.param(
            "2026-10-25T02:30", "2026-10-25T02:10+01:00", "Europe/Berlin",
            ("2026-10-25T00:30", "2026-10-25T01:10", True), id="over the hour that clocks repeat",
        ),
    ],
)  # fmt: skip
def test_a_period_is_between_two_moments(
    requests_at: Requests, since: str, until: str | None, tz: str, expected: tuple[str, str, bool]
) -> None:
    period = between(requests_at(_utc("2026-11-16T10:00")), since, until, tz=tz, now=NOW)

    # In UTC: Python calls no moment of a repeated hour equal to one of another zone.
    moments = [moment.astimezone(UTC) for moment in (period.since, period.until)]
    assert (moments, period.tz, period.is_over) == ([_utc(expected[0]), _utc(expected[1])], tz, expected[2])


def test_a_period_without_an_end_ends_with_the_last_request(requests_at: Requests) -> None:
    period = between(requests_at(_utc("2026-11-16T10:00")), "2026-11-16", None, now=NOW)

    assert period.until == _utc("2026-11-16T10:00") + timedelta(microseconds=1)


@pytest.mark.parametrize("until", ["2026-11-16", "2026-11-15"])
def test_a_period_that_ends_before_it_begins_is_told(requests_at: Requests, until: str) -> None:
    verdict = f"--since is 2026-11-16, --until is {until}; expected the first to be earlier"

    with pytest.raises(BadInput, match=re.escape(verdict)):
        between(requests_at(), "2026-11-16", until, now=NOW)


def test_the_period_before_is_as_long_in_hours_and_not_in_days() -> None:
    zone = zone_named("Europe/Berlin")
    period = Period(datetime(2026, 10, 25, tzinfo=zone), datetime(2026, 10, 26, tzinfo=zone), "Europe/Berlin")

    assert period.previous_since == datetime(2026, 10, 23, 23, tzinfo=zone)


@pytest.mark.parametrize(
    ("since", "until", "label"),
    [
        ("2026-11-16T00:00", "2026-11-17T00:00", "2026-11-16 (UTC)"),
        ("2026-11-16T00:00", "2026-11-18T00:00", "2026-11-16 to 2026-11-18 (UTC)"),
        ("2026-11-16T09:30", "2026-11-17T00:00", "2026-11-16 09:30 to 2026-11-17 00:00 (UTC)"),
        ("2026-11-16T00:00", "2026-11-16T10:59", "2026-11-16 00:00 to 10:59 (UTC)"),
    ],
)
def test_a_period_is_named_by_its_day_or_its_moments(since: str, until: str, label: str) -> None:
    assert Period(_utc(since), _utc(until), "UTC").label == label


def test_the_data_begins_and_ends_with_the_ledger(requests_at: Requests) -> None:
    first, last = _utc("2026-11-16T10:00"), _utc("2026-11-22T11:00")
    con = requests_at(first, last)

    assert (data_begins(con), data_through(con)) == (first, last)


def test_an_empty_lake_neither_begins_nor_ends(requests_at: Requests) -> None:
    con = requests_at()

    assert (data_begins(con), data_through(con)) == (None, None)


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
