"""What a person writes for a moment, in winter, in summer and across the change of clocks."""

import re
from datetime import UTC, date, datetime
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from analysis.moments import utc_moment, zone_named
from ingest.schema import BadInput

# Half past midnight in Berlin on the day that its clocks went back: still the day before in UTC.
NOW: Final = datetime(2026, 10, 24, 22, 30, tzinfo=UTC)
BERLIN: Final = ZoneInfo("Europe/Berlin")

MOMENTS = [
    pytest.param("2026-11-01", datetime(2026, 10, 31, 23), datetime(2026, 11, 1), id="date"),
    pytest.param("2026-11-01T10:00", datetime(2026, 11, 1, 9), datetime(2026, 11, 1, 10), id="time"),
    pytest.param(
        "2026-11-01 10:00:30.5",
        datetime(2026, 11, 1, 9, 0, 30, 500_000),
        datetime(2026, 11, 1, 10, 0, 30, 500_000),
        id="fraction",
    ),
    pytest.param("2026-11-01T10:00Z", datetime(2026, 11, 1, 10), datetime(2026, 11, 1, 10), id="utc"),
    pytest.param("2026-11-01T10:00-05:00", datetime(2026, 11, 1, 15), datetime(2026, 11, 1, 15), id="offset"),
    pytest.param("today", datetime(2026, 10, 24, 22), datetime(2026, 10, 24), id="today"),
    pytest.param(" Yesterday ", datetime(2026, 10, 23, 22), datetime(2026, 10, 23), id="yesterday"),
    pytest.param("now", datetime(2026, 10, 24, 22, 30), datetime(2026, 10, 24, 22, 30), id="now"),
    pytest.param("30m", datetime(2026, 10, 24, 22), datetime(2026, 10, 24, 22), id="minutes"),
    pytest.param("24h", datetime(2026, 10, 23, 22, 30), datetime(2026, 10, 23, 22, 30), id="hours"),
    pytest.param("7d", datetime(2026, 10, 17, 22, 30), datetime(2026, 10, 17, 22, 30), id="days"),
    pytest.param("2w", datetime(2026, 10, 10, 22, 30), datetime(2026, 10, 10, 22, 30), id="weeks"),
    pytest.param(date(2026, 7, 1), datetime(2026, 6, 30, 22), datetime(2026, 7, 1), id="date object"),
    pytest.param(datetime(2026, 7, 1, 12), datetime(2026, 7, 1, 10), datetime(2026, 7, 1, 12), id="naive object"),
    pytest.param(
        datetime(2026, 7, 1, 12, tzinfo=UTC), datetime(2026, 7, 1, 12), datetime(2026, 7, 1, 12), id="aware object"
    ),
]


@pytest.mark.parametrize(("value", "in_berlin", "in_utc"), MOMENTS)
def test_a_moment_is_read_in_the_zone_of_its_writer(value: object, in_berlin: datetime, in_utc: datetime) -> None:
    assert utc_moment(value, name="since", zone=BERLIN, now=NOW) == in_berlin
    assert utc_moment(value, name="since", now=NOW) == in_utc


@pytest.mark.parametrize(
    "value", ["", "soon", "2026-13-01", "2026-02-30", "99999d", "7y", "d", "0001-01-01", 5, "2026-11-01T25:00"]
)
def test_what_is_no_moment_is_refused_with_examples(value: object) -> None:
    verdict = f"since has value {str(value)!r}; expected a date or time: 2026-11-01, 2026-11-01T10:00, today"

    with pytest.raises(BadInput, match=re.escape(verdict)):
        utc_moment(value, name="since", zone=ZoneInfo("Asia/Tokyo"), now=datetime(200, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("name", ["Mars/Base", "", "../etc/passwd", "Europe"])
def test_a_zone_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=re.escape(f"there is no time zone {name!r}; write an IANA name such as UTC")):
        zone_named(name)
