"""The stretch of time that a report is about: a day of a zone, or any two moments.

Knows when a day begins and ends in a zone, and which day was the last one with data. Knows no question.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Final

import duckdb

from analysis.damage import lake_errors
from analysis.moments import utc_moment, zone_named
from ingest.schema import BadInput

_LAST_REQUEST_BEFORE: Final = (
    "SELECT epoch_us(max(ts)) FROM requests WHERE day <= $moment::DATE AND ts < utc_moment($moment)"
)
_DATA_BEGINS: Final = "SELECT epoch_us(data_begins())"
_DATA_THROUGH: Final = "SELECT epoch_us(data_through())"
_MICROSECOND: Final = timedelta(microseconds=1)
_SPILL_OVER: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Period:
    """[since, until), both aware and in the zone `tz`. `is_over` is false while requests may still come in."""

    since: datetime
    until: datetime
    tz: str
    is_over: bool = True

    @property
    def previous_since(self) -> datetime:
        """First moment of the equally long period before."""
        since = self.since.astimezone(UTC)
        return (since - (self.until.astimezone(UTC) - since)).astimezone(self.since.tzinfo)

    @property
    def bounds(self) -> dict[str, datetime]:
        """`since` and `until` as the questions take them."""
        return {"since": self.since, "until": self.until}

    @property
    def label(self) -> str:
        """2026-11-16 for a day, else its two moments to the minute; with the zone."""
        if written(self.since) + written(self.until) == f"{self.since:%F}{self.until:%F}":
            is_day = self.until.date() - self.since.date() == timedelta(days=1)
            return f"{self.since:%F} ({self.tz})" if is_day else f"{self.since:%F} to {self.until:%F} ({self.tz})"
        is_of_one_day = self.until.date() == self.since.date()
        until = f"{self.until:%H:%M}" if is_of_one_day else f"{self.until:%F %H:%M}"
        return f"{self.since:%F %H:%M} to {until} ({self.tz})"


def day_of(con: duckdb.DuckDBPyConnection, day: str | None, *, tz: str = "UTC", now: datetime) -> Period:
    """The period of one day of the zone `tz`: 2026-11-16, today, yesterday.

    Without `day`, the latest day before today that has requests beyond its first hour: what a log of the day before
    ends with does not make a day. It is today where all requests are of today, and yesterday where there are none.

    Today ends with the last request there is, so that the period before is as long. Raises BadInput for what is no day.
    """
    zone = zone_named(tz)
    first = _latest_day(con, zone, now) if day is None else _moment(day, "--day", zone, now)
    try:
        start, end = (_moment(first.date() + timedelta(days=more), "--day", zone, now) for more in (0, 1))
    except OverflowError:
        raise BadInput(f"--day has value {day!r}; expected a day that ends before the year 10000") from None
    if first != start:
        raise BadInput(f"--day has value {day!r}; expected a day such as 2026-11-16 or yesterday, or give --since")
    if end <= now:
        return Period(start, end, tz)
    through = data_through(con)
    is_begun = through is not None and start <= through < end
    return Period(start, _just_after(through, zone) if through and is_begun else end, tz, is_over=False)


def between(con: duckdb.DuckDBPyConnection, since: str, until: str | None, *, tz: str = "UTC", now: datetime) -> Period:
    """The period from `since` up to `until`, or to the last request there is; local times of the zone `tz`."""
    zone = zone_named(tz)
    start = _moment(since, "--since", zone, now)
    through = data_through(con)
    if until is not None:
        end = _moment(until, "--until", zone, now)
    else:
        end = _just_after(through, zone) if through and start <= through else now.astimezone(zone)
    if start.astimezone(UTC) >= end.astimezone(UTC):  # of one zone, Python would compare wall clocks
        raise BadInput(f"--since is {written(start)}, --until is {written(end)}; expected the first to be earlier")
    return Period(start, end, tz, is_over=until is not None and end <= now)


def data_through(con: duckdb.DuckDBPyConnection) -> datetime | None:
    """The moment of the latest request in the lake, in UTC; None in a lake without requests."""
    return _found(con, _DATA_THROUGH)


def data_begins(con: duckdb.DuckDBPyConnection) -> datetime | None:
    """The moment of the earliest request in the lake, in UTC; None in a lake without requests."""
    return _found(con, _DATA_BEGINS)


def written(moment: datetime) -> str:
    """`moment` as the commands take it with --tz: a date where it is a midnight, else with its offset."""
    if moment.time() == time() and moment.fold == 0:
        return moment.date().isoformat()
    return moment.isoformat()


def _latest_day(con: duckdb.DuckDBPyConnection, zone: tzinfo, now: datetime) -> datetime:
    today = _moment("today", "--day", zone, now)
    last = _last_request_before(con, today)
    if last is not None:
        start = _moment(last.astimezone(zone).date(), "--day", zone, now)
        earlier = _last_request_before(con, start) if last - start < _SPILL_OVER else None
        return start if earlier is None else _moment(earlier.astimezone(zone).date(), "--day", zone, now)
    through = data_through(con)
    return today if through is not None and through >= today else _moment("yesterday", "--day", zone, now)


def _last_request_before(con: duckdb.DuckDBPyConnection, moment: datetime) -> datetime | None:
    return _found(con, _LAST_REQUEST_BEFORE, moment=moment.astimezone(UTC).replace(tzinfo=None))


def _moment(value: object, name: str, zone: tzinfo, now: datetime) -> datetime:
    """What a person wrote, as an aware datetime of `zone`."""
    return utc_moment(value, name=name, zone=zone, now=now).replace(tzinfo=UTC).astimezone(zone)


def _just_after(moment: datetime, zone: tzinfo) -> datetime:
    return (moment + _MICROSECOND).astimezone(zone)


def _found(con: duckdb.DuckDBPyConnection, sql: str, **parameters: object) -> datetime | None:
    with lake_errors():
        found = con.execute(sql, parameters or None).fetchall()[0][0]
    return None if found is None else datetime.fromtimestamp(0, UTC) + timedelta(microseconds=found)
