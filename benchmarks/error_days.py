"""Days of traffic as tables: many customers with errors of every day, in bursts and alone, and one planted change.

Fast enough for hundreds of worlds: the rows are drawn with NumPy, for the days that are compared with all requests, for
the days before them with errors alone.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa

DAY_S: Final = 86_400
HISTORY_DAYS: Final = 15
ROUTES: Final = (
    ("POST", "/v1/messages"),
    ("GET", "/v1/messages/{id}"),
    ("GET", "/v1/messages"),
    ("POST", "/v1/campaigns"),
    ("GET", "/v1/contacts"),
    ("DELETE", "/v1/contacts/{id}"),
)
CODES: Final = (
    *("validation_failed", "insufficient_scope", "invalid_api_key", "not_found", "idempotency_in_progress"),
    *("approval_required", "dnc_blocked", "insufficient_credits", "opted_out", "rate_limited", "internal_error"),
)
FIRST_DAY: Final = datetime(2026, 10, 5, tzinfo=UTC)  # a Monday
_OFFICE_HOURS: Final = np.array([1, 1, 1, 1, 1, 2, 4, 8, 14, 18, 19, 18, 15, 17, 19, 19, 18, 15, 11, 7, 5, 4, 2, 1])

Rows = tuple["np.ndarray", "np.ndarray", "np.ndarray", "np.ndarray"]
"""Key, route, code (or NO_CODE) and seconds since FIRST_DAY of requests."""
NO_CODE: Final = -1
LEVELS: Final = ("code", "code + route", "code + org", "code + route + org + key")


@dataclass(frozen=True)
class Plan:
    """How the world is: customers, and by how much days and errors differ from what independent chance would do."""

    orgs: int = 40
    requests_a_day: int = 25_000
    day_noise: float = 0.07
    part_in_bursts: float = 0.3
    burst_size: float = 3.0
    loops_a_day: int = 3


@dataclass(frozen=True)
class Change:
    """What is planted on the last day: the errors of a cell times `factor`. None: of all routes, orgs or keys."""

    level: str
    factor: float
    code: str
    method: str | None
    route: str | None
    org_id: str | None
    key_id: str | None
    usual_errors: float


class World:
    """Customers and the rates of their errors, drawn from `seed`; the last day is of a random weekday."""

    def __init__(self, seed: int, plan: Plan = Plan()) -> None:
        self.plan = plan
        self.rng = np.random.default_rng(seed)
        keys_of_orgs = self.rng.integers(1, 4, plan.orgs)
        self.org_of_key = np.repeat(np.arange(plan.orgs), keys_of_orgs)
        self.keys = len(self.org_of_key)
        self.is_office = self.rng.random(self.keys) < 0.7
        size = self.rng.lognormal(0, 1, self.keys)
        self.requests_of_key = plan.requests_a_day * size / size.sum()
        cells = self.rng.integers(2, 9, self.keys)
        self.key = np.repeat(np.arange(self.keys), cells)
        self.code = self.rng.integers(0, len(CODES), len(self.key))
        # A code is at home on two routes.
        self.route = (self.code + self.rng.integers(0, 2, len(self.key)) * 3) % len(ROUTES)
        self.per_day = np.minimum(self.rng.lognormal(2, 1.2, len(self.key)), 300)
        self.is_bursty = self.rng.random(len(self.key)) < plan.part_in_bursts
        self.last_day = HISTORY_DAYS + int(self.rng.integers(0, 7))
        self.factor = np.ones(len(self.key))

    def change(self, level: str, factor: float, least_errors: int = 50) -> Change | None:
        """Plants a change in a cell of the level; None where none has so many errors on such a weekday, a burst as one.

        So many with the change or without it, whichever is less.
        """
        expected = self.per_day * self._weekday(self.last_day)[self.key]
        independent = np.where(self.is_bursty, expected / self.plan.burst_size, expected) * min(factor, 1.0)
        places = {
            "code": self.code,
            "code + route": self.code * 10 + self.route,
            "code + org": self.code * 1000 + self.org_of_key[self.key],
            "code + route + org + key": (self.code * 10 + self.route) * 1000 + self.key,
        }[level]
        candidates = [place for place in np.unique(places) if independent[places == place].sum() >= least_errors]
        if not candidates:
            return None
        place = self.rng.choice(candidates)
        is_planted = places == place
        self.factor[is_planted] = factor
        index = int(np.argmax(is_planted))
        method, route = ROUTES[self.route[index]] if "route" in level else (None, None)
        org = self.org_of_key[self.key[index]]
        return Change(
            level,
            factor,
            CODES[self.code[index]],
            method,
            route,
            f"org_{org}" if "org" in level else None,
            f"key_{self.key[index]}" if "key" in level else None,
            float(expected[is_planted].sum()),
        )

    def fill(self, con: duckdb.DuckDBPyConnection) -> None:
        """Replaces the requests and sources of `con` by those of this world."""
        days = range(self.last_day - HISTORY_DAYS + 1, self.last_day + 1)
        parts = [self._errors(day) for day in days]
        parts += [self._loops(day) for day in days]
        parts += [self._successes(day) for day in (self.last_day - 7, self.last_day - 1, self.last_day)]
        key, route, code, seconds = (np.concatenate([part[column] for part in parts]) for column in range(4))
        microseconds = (FIRST_DAY.timestamp() + seconds) * 1e6
        arriving = pa.table(
            {
                "key": key,
                "org": self.org_of_key[key],
                "route": route,
                "code": code,
                "ts": pa.array(microseconds.astype("int64"), pa.timestamp("us", "UTC")),
            }
        )
        con.register("arriving", arriving)
        con.execute("DELETE FROM requests")
        con.execute("DELETE FROM sources")
        con.execute(
            """INSERT INTO requests BY NAME
            SELECT
                CASE WHEN code = -1 THEN 'ok' ELSE 'error' END AS kind,
                ts::DATE AS day,
                ts,
                'req_' || row_number() OVER () AS request_id,
                'org_' || org AS org_id,
                'key_' || key AS key_id,
                $methods[route + 1] AS method,
                $routes[route + 1] AS route,
                CASE WHEN code = -1 THEN 200 ELSE 400 END AS status,
                CASE WHEN code <> -1 THEN $codes[code + 1] END AS code,
                'key_' || key AS caller,
                code <> -1 AS is_error
            FROM arriving""",
            {"methods": [method for method, _ in ROUTES], "routes": [route for _, route in ROUTES], "codes": CODES},
        )
        con.execute("INSERT INTO sources BY NAME SELECT min(ts) AS first_ts, max(ts) AS last_ts FROM requests")
        con.unregister("arriving")

    def _weekday(self, day: int) -> np.ndarray:
        """How busy each key is on a day, relative to its working days."""
        return np.where(self.is_office & (day % 7 >= 5), 0.3, 1.0)

    def _errors(self, day: int) -> Rows:
        noise = self.rng.lognormal(0, self.plan.day_noise, self.keys)[self.key]
        noise *= self.rng.lognormal(0, self.plan.day_noise, len(self.key))
        mean = self.per_day * self._weekday(day)[self.key] * noise
        if day == self.last_day:
            mean = mean * self.factor
        bursts = self.rng.poisson(np.where(self.is_bursty, mean / self.plan.burst_size, mean))
        cell = np.repeat(np.arange(len(self.key)), bursts)
        sizes = np.where(self.is_bursty[cell], self.rng.geometric(1 / self.plan.burst_size, len(cell)), 1)
        seconds = np.repeat(self._seconds(day, self.key[cell]), sizes)
        cell = np.repeat(cell, sizes)
        return self.key[cell], self.route[cell], self.code[cell], seconds + self.rng.uniform(0, 60, len(cell))

    def _loops(self, day: int) -> Rows:
        """Clients that repeat one request for two minutes."""
        cell = self.rng.integers(0, len(self.key), self.plan.loops_a_day)
        sizes = self.rng.integers(20, 80, len(cell))
        seconds = np.repeat(self._seconds(day, self.key[cell]), sizes)
        cell = np.repeat(cell, sizes)
        return self.key[cell], self.route[cell], self.code[cell], seconds + self.rng.uniform(0, 120, len(cell))

    def _successes(self, day: int) -> Rows:
        noise = self.rng.lognormal(0, self.plan.day_noise, self.keys)
        key = np.repeat(np.arange(self.keys), self.rng.poisson(self.requests_of_key * self._weekday(day) * noise))
        route = self.rng.integers(0, len(ROUTES), len(key))
        return key, route, np.full(len(key), NO_CODE), self._seconds(day, key)

    def _seconds(self, day: int, key: np.ndarray) -> np.ndarray:
        """A moment of the day for each of the keys, in its hours."""
        office = self.rng.choice(24, len(key), p=_OFFICE_HOURS / _OFFICE_HOURS.sum())
        hour = np.where(self.is_office[key], office, self.rng.integers(0, 24, len(key)))
        return np.asarray(day * DAY_S + hour * 3600 + self.rng.uniform(0, 3480, len(key)))
