"""Moments out of timestamps of every form, the same as the vectorised lane's engine finds."""

import calendar
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Final
from zoneinfo import ZoneInfo

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.times import epoch_unit, micros

NOON: Final = 1_724_241_600_000_000  # 2024-08-21T12:00:00Z
HOUR: Final = 3_600_000_000
LAST_SECOND: Final = 1_483_228_799_000_000  # 2016-12-31T23:59:59Z, before a leap second


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-08-21T12:00:00Z", NOON),
        ("2024-08-21t12:00:00z", NOON),
        ("2024-08-21 12:00:00", NOON),
        ("2024-08-21T12:00", NOON),
        ("2024-08-21T12:00:00.5Z", NOON + 500_000),
        ("2024-08-21T12:00:00.123Z", NOON + 123_000),
        ("2024-08-21 12:00:00,123", NOON + 123_000),
        ("2024-08-21T12:00:00.123456Z", NOON + 123_456),
        ("2024-08-21T12:00:00.1234567Z", NOON + 123_456),
        ("2024-08-21T12:00:00.123456789+00:00", NOON + 123_456),
        ("2024-08-21T14:00:00+02:00", NOON),
        ("2024-08-21T14:00:00+0200", NOON),
        ("2024-08-21T14:00:00+02", NOON),
        ("2024-08-21T06:30:00.25-0530", NOON + 250_000),
        ("2024-08-21 14:00:00 +0200", NOON),
        ("2024-08-21 12:00:00 UTC", NOON),
        ("21/Aug/2024:12:00:00 +0000", NOON),
        ("21/Aug/2024:06:30:00 -0530", NOON),
        ("21/Aug/2024:12:00:02.999", NOON + 2_999_000),
        ("21/Aug/2024:14:00:00.007 +0200", NOON + 7_000),
        ("21/aug/2024:12:00:00 +0000", NOON),
        ("1/Aug/2024:12:00:00 +0000", NOON - 20 * 24 * HOUR),
        ("2024/08/21 12:00:00", NOON),
        ("2024/08/21 12:00:00.123", NOON + 123_000),
        ("2024/08/21 - 12:00:00", NOON),
        ("Wed, 21 Aug 2024 12:00:00 GMT", NOON),
        ("Wed, 21 Aug 2024 14:00:00 +0200", NOON),
        ("21 Aug 2024 12:00:00 +0000", NOON),
        ("Wed Aug 21 12:00:00 2024", NOON),
        ("Wed Aug 21 12:00:00.123456 2024", NOON + 123_456),
        ("Thu Aug  1 12:00:00 2024", NOON - 20 * 24 * HOUR),
        ("2024-08-21 12:00:00.123 +0000 UTC", NOON + 123_000),
        ("2024-08-21 14:00:00 +0200 CEST", NOON),
        ("2024-08-21 15:30:00 +0330 +0330 m=+0.004209001", NOON),
        (" 2024-08-21T12:00:00Z\n", NOON),
        ("1969-12-31T23:59:59.9999999Z", -1),
    ],
)
def test_a_timestamp_of_any_form_gives_its_moment(text: str, moment: int) -> None:
    assert micros(text) == moment


@pytest.mark.parametrize(
    "text",
    [
        "2024-08-21T12:00:00.25",
        "2024-08-21 12:00:00,25",
        "2024-08-21T12:00:00.250",
        "21/Aug/2024:12:00:00.25",
        "2024/08/21 12:00:00.25",
        "2024/08/21 - 12:00:00.25",
        "21 Aug 2024 12:00:00.25",
        "Wed Aug 21 12:00:00.25 2024",
    ],
)
def test_a_time_without_an_offset_is_one_of_the_given_zone(text: str) -> None:
    zones = [timezone(timedelta(hours=9)), ZoneInfo("America/New_York")]

    assert [micros(text, zone) for zone in zones] == [NOON + 250_000 - 9 * HOUR, NOON + 250_000 + 4 * HOUR]


@pytest.mark.parametrize(
    "text",
    ["2024-08-21T12:00:00Z", "21/Aug/2024:14:00:00 +0200", "Wed, 21 Aug 2024 12:00:00 GMT", "2024-08-21 12:00:00 UTC"],
)
def test_a_time_with_an_offset_is_not_one_of_the_given_zone(text: str) -> None:
    assert micros(text, ZoneInfo("Asia/Tokyo")) == NOON


@pytest.mark.parametrize(
    "text",
    [
        "2016-12-31T23:59:60Z",
        "2016-12-31T23:59:60.25Z",
        "2017-01-01 05:29:60+05:30",
        "31/Dec/2016:23:59:60 +0000",
        "Sat, 31 Dec 2016 23:59:60 GMT",
    ],
)
def test_a_leap_second_is_the_last_microsecond_of_its_day(text: str) -> None:
    assert micros(text) == LAST_SECOND + 999_999


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "now",
        "1724241600",
        "1724241600.123",
        "20240821T120000Z",
        "2024-08-21",
        "12:00:00",
        "2024-W34-3T12:00:00",
        "2024-08-21_12:00:00",
        "2024-08-21T12",
        "2024-08-21T12:00.5",
        "2024-08-21T12:00:00.",
        "2024-08-21T12:00:00.123456 x+00:00",
        "2024-08-21T12:00:00x+00:00",
        "2024-08-21T12:00:00+2",
        "2024-08-21T12:00:00 EST",
        "2024-08-21T12:00:00ZZ",
        "2024-08-21T12:00:00Z\0",
        "2024-02-30T12:00:00Z",
        "2023-02-29T12:00:00Z",
        "2024-13-01T12:00:00Z",
        "2024-08-21T25:00:00Z",
        "2024-08-21T12:60:00Z",
        "2024-08-21T12:00:61Z",
        "0000-01-01T00:00:00Z",
        "31/Feb/2024:12:00:00 +0000",
        "21/Ago/2024:12:00:00 +0000",
        "21/08/2024:12:00:00 +0000",
        "21/Aug/24:12:00:00 +0000",
        "21/Aug/2024_12:00:00 +0000",
        "Wed Aug 21 12:00:00",
        "٢٠٢٤-08-21T12:00:00Z",
        "٢١/Aug/2024:12:00:00 +0000",
        "2024-08-21T12:00:00\u221202:00",
        "\ud800",
    ],
    ids=ascii,
)
def test_what_is_no_timestamp_and_what_is_no_date_gives_none(text: str) -> None:
    assert micros(text) is None


@given(st.text() | st.text("0123456789-:/.,+TZ AugGMT", max_size=40))
@example("9999-12-31T23:59:59-99:99")
@example("0001-01-01T00:00:00+99:99")
@example("2024-08-21T12:00:00." + "9" * 10_000 + "Z")
def test_no_text_makes_it_raise(text: str) -> None:
    assert type(micros(text, ZoneInfo("America/New_York"))) in {int, type(None)}


FORMS: Final = {
    "RFC 3339": lambda moment: moment.isoformat(),
    "Common Log Format": lambda moment: moment.strftime("%d/%b/%Y:%H:%M:%S.%f %z"),
    "dates with slashes": lambda moment: moment.strftime("%Y/%m/%d - %H:%M:%S.%f%z"),
    "mail": lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S.%f %z"),
    "asctime": lambda moment: moment.astimezone(UTC).strftime("%a %b %e %H:%M:%S.%f %Y"),
    "Go": lambda moment: moment.strftime("%Y-%m-%d %H:%M:%S.%f %z CEST"),
}
ZONES: Final = st.integers(-24 * 60 + 1, 24 * 60 - 1).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@pytest.mark.parametrize("form", FORMS)
@given(moment=st.datetimes(datetime(1900, 1, 2), datetime(2999, 12, 30), timezones=ZONES))
def test_a_moment_that_is_written_down_is_found_again(form: str, moment: datetime) -> None:
    found = micros(FORMS[form](moment))

    assert found == (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


Engine = Callable[[str, list[str]], dict[str, int]]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """What the vectorised lane's engine makes of those texts that its expression over `text` reads."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")

        def read(expression: str, texts: list[str]) -> dict[str, int]:
            query = f"SELECT text, epoch_us({expression}) AS us FROM unnest(?) AS texts(text) WHERE us IS NOT NULL"
            return dict(connection.execute(query, [texts]).fetchall())

        yield read


def two(first: int, last: int) -> st.SearchStrategy[str]:
    """A number of two digits."""
    return st.integers(first, last).map("{:02}".format)


CLOCKS: Final = st.tuples(two(0, 24), two(0, 60), two(0, 61)).map(":".join)
FRACTIONS: Final = st.just("") | st.text("0123456789", min_size=1, max_size=12).map(".{}".format)
OFFSETS: Final = st.builds("{}{}{}{}".format, st.sampled_from("+-"), two(0, 99), st.sampled_from(["", ":"]), two(0, 99))
RFC_3339: Final = st.builds(
    "{:04}-{}-{}{}{}{}{}".format,
    st.integers(1, 9999),
    two(0, 13),
    two(0, 32),
    st.sampled_from("T "),
    CLOCKS.filter(lambda clock: not clock.startswith("24")),
    FRACTIONS,
    st.sampled_from(["Z", "", "+02", "-11"]) | OFFSETS,
)
COMMON_LOG: Final = st.builds(
    "{}/{}/{:04}:{} {}".format,
    two(0, 32) | st.integers(1, 9).map(str),
    st.sampled_from([*calendar.month_abbr[1:], "aug", "AUG", "Ago", "08"]),
    st.integers(1, 9999),
    CLOCKS,
    OFFSETS,
)


@given(texts=st.lists(RFC_3339, min_size=1, max_size=20))
@example(texts=["2024-08-21T12:00:00.9999999Z", "1969-12-31T23:59:59.9999999Z"])
def test_what_the_engine_reads_as_rfc_3339_is_the_same_here(engine: Engine, texts: list[str]) -> None:
    read = engine("TRY_CAST(text AS TIMESTAMPTZ)", texts)

    assert {text: micros(text) for text in read} == read


@given(texts=st.lists(COMMON_LOG, min_size=1, max_size=20))
@example(texts=["29/Feb/2024:23:59:59 -9959", "1/aug/2024:00:00:00 +0060"])
def test_what_the_engine_reads_as_common_log_format_is_the_same_here(engine: Engine, texts: list[str]) -> None:
    read = engine("try_strptime(text, '%d/%b/%Y:%H:%M:%S %z')", texts)

    assert {text: micros(text) for text in read} == read


def test_the_engine_reads_what_it_is_compared_on(engine: Engine) -> None:
    assert engine("TRY_CAST(text AS TIMESTAMPTZ)", ["2024-08-21T14:00:00.1234567+02:00"]) == {
        "2024-08-21T14:00:00.1234567+02:00": NOON + 123_456
    }
    assert engine("try_strptime(text, '%d/%b/%Y:%H:%M:%S %z')", ["21/Aug/2024:14:00:00 +0200"]) == {
        "21/Aug/2024:14:00:00 +0200": NOON
    }


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        (0, "s"),
        (1_724_241_600, "s"),
        (1_724_241_600.123, "s"),
        (-1_724_241_600, "s"),
        (99_999_999_999, "s"),
        (100_000_000_000, "ms"),
        (1_724_241_600_123, "ms"),
        (-1_724_241_600_123, "ms"),
        (100_000_000_000_000, "us"),
        (1_724_241_600_123_456, "us"),
        (100_000_000_000_000_000, "ns"),
        (1_724_241_600_123_456_789, "ns"),
        (float("inf"), "ns"),
    ],
)
def test_the_magnitude_of_an_epoch_tells_its_unit(value: float, unit: str) -> None:
    assert epoch_unit(value) == unit
