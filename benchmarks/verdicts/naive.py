"""Three ways to find culprits that need no question, for comparison: whom would they accuse?

403: whoever was refused with 401 or 403 at least 20 times. 60 s: whoever sent a request of the same method and route at
least 20 times within a minute of its failure. yesterday: whoever met an error code at least 20 times on a day, and more
often than the day before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import duckdb

FEWEST: Final = 20

BASELINES: Final[Mapping[str, str]] = {
    "403": f"""
        SELECT caller, max(org_id) AS org_id
        FROM requests WHERE status IN (401, 403)
        GROUP BY caller HAVING count(*) >= {FEWEST}
    """,
    "60 s": f"""
        SELECT caller, max(org_id) AS org_id
        FROM (
            SELECT caller, org_id, ts, lag(ts) OVER same AS previous_ts, lag(is_error) OVER same AS has_failed
            FROM requests
            WINDOW same AS (PARTITION BY caller, method, route ORDER BY ts)
        )
        WHERE has_failed AND ts - previous_ts <= INTERVAL 60 SECONDS
        GROUP BY caller HAVING count(*) >= {FEWEST}
    """,
    "yesterday": f"""
        SELECT caller, max(org_id) AS org_id
        FROM (
            SELECT caller, max(org_id) AS org_id, code, day, count(*) AS errors,
                lag(count(*)) OVER (PARTITION BY caller, code ORDER BY day) AS day_before
            FROM requests WHERE is_error GROUP BY caller, code, day
        )
        WHERE errors >= {FEWEST} AND errors > coalesce(day_before, 0)
        GROUP BY caller
    """,
}


@dataclass(frozen=True)
class Accused:
    """Whom a baseline accuses."""

    callers: frozenset[str]
    orgs: frozenset[str]

    def like(self, subjects: frozenset[str]) -> frozenset[str]:
        """Callers, or organisations where `subjects` are some."""
        return self.orgs if subjects & self.orgs and not subjects & self.callers else self.callers


def accused(con: duckdb.DuckDBPyConnection) -> dict[str, Accused]:
    """Whom each baseline accuses, by its name."""
    found = {}
    for name, sql in BASELINES.items():
        callers, orgs = zip(*con.execute(sql).fetchall() or [(None, None)], strict=True)
        found[name] = Accused(frozenset(callers) - {None}, frozenset(orgs) - {None})
    return found
