"""What a person writes for a moment, as UTC. Knows words, ISO 8601 and look-backs; knows no question."""

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ingest.schema import BadInput

_LOOK_BACK: Final = re.compile(r"(\d{1,5})([mhdw])")
_UNITS: Final = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_DAYS_AGO: Final = {"today": 0, "yesterday": 1}


def utc_moment(value: object, *, name: str, zone: tzinfo = UTC, now: datetime | None = None) -> datetime:
    """`value` as a naive datetime in UTC, which is how the questions take `since` and `until`.

    A date is its first moment. Without an offset of its own, `value` is a local time of `zone`. Text may be today,
    yesterday, now, 2026-11-01, 2026-11-01T10:00 (with or without offset) or a look-back from now: 30m, 24h, 7d, 2w.
    Raises BadInput for anything else, with `name`, what the moment is for. `now` is aware and defaults to the clock.
    """
    try:
        moment = _moment(value, (now or datetime.now(UTC)).astimezone(zone))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        return moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise BadInput(
            f"{name} has value {str(value)[:40]!r}; expected a date or time: "
            "2026-11-01, 2026-11-01T10:00, today, yesterday, now, or a look-back such as 24h or 7d"
        ) from None


def zone_named(name: str) -> tzinfo:
    """The time zone with the IANA name `name`; BadInput where there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadInput(f"there is no time zone {name!r}; write an IANA name such as UTC or Europe/Berlin") from None


def _moment(value: object, now: datetime) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    text = str(value).strip().lower()
    if text == "now":
        return now
    if text in _DAYS_AGO:
        return datetime.combine(now.date() - timedelta(days=_DAYS_AGO[text]), time())
    if look_back := _LOOK_BACK.fullmatch(text):
        return now.astimezone(UTC) - int(look_back[1]) * _UNITS[look_back[2]]
    return datetime.fromisoformat(text.upper())
