"""When requests start. Every moment is in whole milliseconds since 1970, UTC; nothing here knows what is asked."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
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
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment_ms % 1000:03}Z"


def day_of(moment_ms: int) -> str:
    """The UTC day of the moment: 2026-11-13."""
    return iso(moment_ms)[:10]


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
    """One arrival a period, each up to `jitter_ms` late, as a cron job or a poller makes them."""
    for moment in range(window.start_ms, window.end_ms, period_ms):
        yield moment + rng.randrange(jitter_ms + 1)


def bursts(rng: Random, moments: Iterator[int], size: int, spread_ms: int) -> Iterator[int]:
    """`size` arrivals within `spread_ms` from each moment."""
    for moment in moments:
        yield from sorted(moment + rng.randrange(spread_ms + 1) for _ in range(size))
