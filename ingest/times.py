"""Moments in time, as gateways write them, in UTC microseconds.

Knows how servers, proxies and log libraries write a timestamp; knows neither which of them wrote a log nor the names of
fields.
"""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, Literal

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MONTHS: Final = {
    "Jan": "01",
    "Feb": "02",
    "Mar": "03",
    "Apr": "04",
    "May": "05",
    "Jun": "06",
    "Jul": "07",
    "Aug": "08",
    "Sep": "09",
    "Oct": "10",
    "Nov": "11",
    "Dec": "12",
}


def micros(text: str, zone: tzinfo = UTC) -> int | None:
    """Microseconds from 1970 in UTC to the moment that `text` names; None for anything else, also for a bare number.

    Reads RFC 3339 and the looser ISO 8601 of log libraries, the Common Log Format, the dates of HTTP (RFC 9110) and of
    mail (RFC 5322), asctime, Go's `Time.String`, and the dates with slashes of nginx's error log and of KrakenD. A time
    without an offset is one of `zone`. Digits beyond microseconds are dropped, as DuckDB drops them. A leap second is
    the last microsecond of the second before it, and so of the day that is written.
    """
    if text[2:3] == "/" == text[6:7] and text[11:12] == ":":
        offset = text[20:].replace(" +", "+").replace(" -", "-")
        written = f"{text[7:11]}-{_MONTHS.get(text[3:6])}-{text[:2]}T{text[12:20]}{offset}"
    else:
        written = text
    # Of what is not matched `fromisoformat` takes more than a date and a time, and passes over garbage in a fraction.
    if _ISO_8601.fullmatch(written):
        try:
            moment = datetime.fromisoformat(written)
            return ((moment if moment.tzinfo else moment.replace(tzinfo=zone)) - _EPOCH) // _MICROSECOND
        except ValueError:
            pass  # a leap second, an offset of days, or an impossible date
    return _micros_of_any_form(text, zone)


def epoch_unit(value: float) -> Literal["s", "ms", "us", "ns"]:
    """The unit in which `value` is a time after 1970, by its magnitude: right for the years from 1973 to 5138."""
    magnitude = abs(value)
    return "s" if magnitude < 1e11 else "ms" if magnitude < 1e14 else "us" if magnitude < 1e17 else "ns"


_ISO_8601: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d(?::?\d\d)?)?", re.ASCII)
_CLOCK: Final = r"(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?"
# Go repeats the offset by name, and may add the reading of a monotonic clock.
_OFFSET: Final = (
    r"(?P<offset> ?(?:[Zz]|UTC|GMT|(?P<sign>[+-])(?P<hours>\d\d)(?::?(?P<minutes>\d\d))?"
    r"(?: (?:[A-Z]{3,5}|[+-]\d\d(?:\d\d)?))?(?: m=[+-][0-9.]+)?))?"
)
_FORMS: Final = tuple(
    re.compile(form, re.ASCII)
    for form in (
        rf"(?P<year>\d{{4}})-(?P<month>\d\d)-(?P<day>\d\d)[Tt ]{_CLOCK}{_OFFSET}",
        rf"(?P<day>\d\d?)/(?P<month>[A-Za-z]{{3}})/(?P<year>\d{{4}}):{_CLOCK}{_OFFSET}",
        rf"(?P<year>\d{{4}})/(?P<month>\d\d)/(?P<day>\d\d)(?: -)? {_CLOCK}{_OFFSET}",
        rf"(?:[A-Za-z]{{3}}, )?(?P<day>\d\d?) (?P<month>[A-Za-z]{{3}}) (?P<year>\d{{4}}) {_CLOCK}{_OFFSET}",
        rf"[A-Za-z]{{3}} (?P<month>[A-Za-z]{{3}}) (?P<day>[ \d]?\d) {_CLOCK} (?P<year>\d{{4}})",
    )
)


def _micros_of_any_form(text: str, zone: tzinfo) -> int | None:
    found = next((match for form in _FORMS if (match := form.fullmatch(text.strip()))), None)
    if found is None:
        return None
    part = found.groupdict(default="0")
    is_leap_second = part["second"] == "60"
    try:
        moment = datetime(
            int(part["year"]),
            int(_MONTHS.get(part["month"].title(), part["month"])),
            int(part["day"]),
            int(part["hour"]),
            int(part["minute"]),
            59 if is_leap_second else int(part["second"]),
            999_999 if is_leap_second else int(part["fraction"][:6].ljust(6, "0")),
        )
    except ValueError:
        return None
    has_offset = part.get("offset", "0") != "0"
    offset = timedelta(hours=int(part.get("hours", 0)), minutes=int(part.get("minutes", 0)))
    moment = moment.replace(tzinfo=UTC if has_offset else zone)
    return (moment - _EPOCH + (offset if part.get("sign") == "-" else -offset)) // _MICROSECOND
