"""Counts beside those of the truth: requests by code, status, organisation and key, storms, and retries.

What a log cannot know is told beside the difference, not guessed: a body that the gateway cut or kept packed, a client
that hung up.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb

import analysis
from benchmarks.verdicts.true_requests import TrueRequests

# `retry_discipline` judges what follows rate_limited; what else was told to wait is known by its Idempotency-Key.
EARLY_ELSEWHERE: Final = """
    FROM attempts(NULL, NULL, NULL, NULL, NULL)
    WHERE gap_s < failed_retry_after_s AND intent_confidence = 'high' AND failed_code <> 'rate_limited'
"""
STORMS: Final = """
    FROM runs(NULL, NULL, NULL, NULL, NULL, 1)
    WHERE errors >= 50 AND errors >= 10 * (epoch(ended_at) - epoch(started_at))
"""


@dataclass(frozen=True)
class Count:
    """One number of the truth, that of errata, and why they differ."""

    name: str
    true: int
    found: int
    note: str = ""

    @property
    def difference(self) -> float:
        """In per cent of the truth."""
        return 100 * (self.found - self.true) / self.true if self.true else float(self.found != self.true) * 100


def counts(con: duckdb.DuckDBPyConnection, true: TrueRequests) -> Iterator[Count]:
    """Requests, and those of them in the wrong cell, by what the truth says of each."""
    yield Count("requests", len(true.requests), _one(con, "SELECT count(*) FROM requests"))
    logged = Counter(
        con.execute(
            "SELECT request_id, status, code, org_id, key_id FROM requests WHERE request_id IS NOT NULL"
        ).fetchall()
    )
    known = [request for request in true.requests if request.request_id]
    for number, name in enumerate(("status", "code", "org_id", "key_id"), start=1):
        found = Counter({(row[0], row[number]): count for row, count in logged.items()})
        names = {"org_id": "org"}
        wanted = Counter((request.request_id, getattr(request, names.get(name, name))) for request in known)
        yield Count(f"requests with the true {name}", len(known), (found & wanted).total(), _unreadable(con, name))
    yield Count(
        "requests that the gateway answered itself",
        len(true.requests) - len(known),
        _one(con, "SELECT count(*) FROM requests WHERE request_id IS NULL"),
    )


def retries(con: duckdb.DuckDBPyConnection, true: TrueRequests) -> Iterator[Count]:
    """Retries before Retry-After had passed, and of codes that no retry helps."""
    retryable = {code for (code,) in con.execute("SELECT code FROM catalogue WHERE is_retryable").fetchall()}
    early = [
        r for r in true.retries if r.earlier.code == "rate_limited" and r.gap_s < (r.earlier.retry_after or 0) - 0.25
    ]
    futile = [r for r in true.retries if r.earlier.code and r.earlier.code not in retryable | {"internal_error"}]
    manners = analysis.answer(con, "retry_discipline").to_arrow_table().to_pylist()
    for name, retries_of_it, column in (
        ("retries of rate_limited before Retry-After", early, "retried_too_early"),
        ("retries of non-retryable codes", futile, "futile_repeats"),
    ):
        keyless = sum(not retry.earlier.idempotency_key for retry in retries_of_it)
        unnamed = sum(not retry.later.request_id for retry in retries_of_it)
        note = f"{keyless} without an Idempotency-Key, {unnamed} of which the gateway's own answer names no key"
        yield Count(name, len(retries_of_it), sum(row[column] for row in manners), note)


def storms(con: duckdb.DuckDBPyConnection, folder: Path) -> Iterator[Count]:
    """The storms of a capture's summary, one by one, and how many there are."""
    summary: Mapping[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    found = con.execute(f"SELECT caller, client_ip, answer, errors {STORMS}").fetchall()
    runs = Counter(found)
    told = Counter((s["key_id"], s["client_ip"], s["code"], s["requests"]) for s in summary["storms"])
    yield Count("storms", told.total(), runs.total())
    yield Count("storms equal to the last request", told.total(), (runs & told).total())
    yield Count(
        "requests in storms",
        sum(key[3] * count for key, count in told.items()),
        sum(key[3] * count for key, count in runs.items()),
    )
    early, futile = _misused(con)
    yield Count("retries before Retry-After, by its summary", summary["retries"]["before_retry_after_elapsed"], early)
    yield Count("retries of non-retryable codes, by its summary", summary["retries"]["of_non_retryable"], futile)


def _misused(con: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """Retries that came too early, and those that no answer could change."""
    manners = analysis.answer(con, "retry_discipline").to_arrow_table().to_pylist()
    early = sum(row["retried_too_early"] for row in manners) + _one(con, f"SELECT count(*) {EARLY_ELSEWHERE}")
    return early, sum(row["futile_repeats"] for row in manners)


def _unreadable(con: duckdb.DuckDBPyConnection, name: str) -> str:
    """How many error bodies the log does not hold in a form that can be read, for the codes that are missing."""
    if name != "code":
        return ""
    states = con.execute(
        """
        SELECT body_state, count(*)
        FROM requests WHERE is_error AND code IS NULL AND request_id IS NOT NULL
        GROUP BY body_state ORDER BY body_state
        """
    ).fetchall()
    unread = ", ".join(f"{count} with a {state} body" for state, count in states)
    return f"without a code: {unread}" if unread else ""


def _one(con: duckdb.DuckDBPyConnection, sql: str) -> int:
    ((number,),) = con.execute(sql).fetchall()
    return int(number)
