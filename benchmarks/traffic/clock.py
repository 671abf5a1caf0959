"""When requests start. Every moment is in whole milliseconds since 1970, UTC; nothing here knows what is asked."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from random import Random
from typing import Final

SECOND: Final = 1_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

# Requests of an office-hours product by local hour, relative to the mean of the day.
BY_LOCAL_HOUR: Final = (
    *(0.15, 0.10, 0.08, 0.08, 0.10, 0.20, 0.45, 0.90, 1.50, 1.85, 1.95, 1.90),
    *(1.60, 1.75, 1.95, 1.95, 1.85, 1.65, 1.30, 0.95, 0.70, 0.50, 0.32, 0.22),
)


@dataclass(frozen=True)
class Window:
    """A stretch of time; the end is not part of it."""

    start_ms: int
    end_ms: int

    def __contains__(self, moment_ms: int) -> bool:
        return self.start_ms <= moment_ms < self.end_ms


def iso(moment_ms: int) -> str:
    """The moment as people write it: 2026-11-13T10:30:00.000Z."""
    return f"{second_of(moment_ms)}.{moment_ms % SECOND:03}Z"


def second_of(moment_ms: int) -> str:
    """The moment's second: 2026-11-13T10:30:00."""
    hour, minute, second = moment_ms // HOUR % 24, moment_ms // MINUTE % 60, moment_ms // SECOND % 60
    return f"{day_of(moment_ms)}T{hour:02}:{minute:02}:{second:02}"


def day_of(moment_ms: int) -> str:
    """The moment's UTC day: 2026-11-13."""
    return _day_name(moment_ms // DAY)


@cache
def _day_name(days_since_1970: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=days_since_1970)).isoformat()


def daily(rng: Random, window: Window, per_day: float, *, zone_h: int = 0, weekend: float = 0.3) -> Iterator[int]:
    """Poisson arrivals that follow the local hour and rest at the weekend; `per_day` is a weekday's mean."""
    moment = float(window.start_ms)
    while moment < window.end_ms:
        hour = int(moment // HOUR)
        local_hour = hour + zone_h
        is_weekend = (local_hour // 24 + 3) % 7 >= 5  # 1970-01-01 was a Thursday
        per_ms = per_day / DAY * BY_LOCAL_HOUR[local_hour % 24] * (weekend if is_weekend else 1.0)
        moment += rng.expovariate(per_ms)
        if moment >= (hour + 1) * HOUR:
            moment = float((hour + 1) * HOUR)  # without memory: the next hour starts afresh at its own rate
        elif moment < window.end_ms:
            yield int(moment)


def steady(rng: Random, window: Window, per_second: float) -> Iterator[int]:
    """Poisson arrivals at one rate."""
    moment = window.start_ms + rng.expovariate(per_second / SECOND)
    while moment < window.end_ms:
        yield int(moment)
        moment += rng.expovariate(per_second / SECOND)


def every(rng: Random, window: Window, period_ms: int, *, jitter_ms: int = 0) -> Iterator[int]:
    """One arrival a period, each up to `jitter_ms` late, as a timer makes them that was started at any time."""
    for moment in range(window.start_ms + rng.randrange(period_ms), window.end_ms, period_ms):
        yield moment + rng.randrange(jitter_ms + 1)


def bursts(rng: Random, moments: Iterable[int], size: int, spread_ms: int) -> Iterator[int]:
    """`size` arrivals within `spread_ms` from each moment."""
    for moment in moments:
        yield from sorted(moment + rng.randrange(spread_ms + 1) for _ in range(size))
