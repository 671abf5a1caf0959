"""The windows in which accounts are refused a second time, without SQL, for the questions that tell of them."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from tests.analysis.queries.event_lake import Row, random_events

_REPLACED = ("validation_failed", "not_found", "dnc_blocked", "scope_invalid", "missing_api_key")


def events_refused_with(code: str, seed: int) -> list[Row]:
    """Random traffic in which the code is frequent; every third seed knows the organisation of every request."""
    renamed = {"code": code, "status": 422}
    events = [row | renamed if row.get("code") in _REPLACED else row for row in random_events(seed)]
    return [row | {"org_id": row["org_id"] or "org_d"} for row in events] if seed % 3 == 0 else events


def windows(events: Iterable[Row], code: str, until: datetime | None, merge_gap_s: float) -> list[Row]:
    """One row per window as `refusal_windows` has it, in no order that matters; `passed_at` None while it is open."""
    known = [row for row in events if until is None or row["ts"] < until]
    refusals = sorted((row for row in known if row.get("code") == code), key=lambda row: (_who(row), row["ts"]))
    guarded = {(row["method"], row["route"]) for row in refusals}
    found: list[Row] = []
    for account, group in groupby(refusals, key=_who):
        passes = [
            (row["ts"] - timedelta(milliseconds=row["latency_ms"] or 0), row["ts"])
            for row in known
            if _who(row) == account
            and (row["method"], row["route"]) in guarded
            and not row["is_error"]
            and 200 <= row["status"] <= 299
        ]
        parts: list[list[Row]] = []
        for row in group:
            if parts and not _is_over(parts[-1][-1], row, passes, merge_gap_s):
                parts[-1].append(row)
            else:
                parts.append([row])
        found += [_window(part, passes) for part in parts]
    return found


def is_asked_for(window: Row, since: datetime | None, for_org: Any, for_key: Any, for_route: Any) -> bool:
    """Whether the standard filters keep the window, whole."""
    return (
        (since is None or window["passed_at"] is None or window["passed_at"] > since)
        and for_org in (None, window["org_id"])
        and (for_key is None or for_key in window["callers"])
        and (for_route is None or for_route in (window["routes"] or ()))
    )


def _who(row: Row) -> tuple[str, str]:
    return row["org_id"] or "", "" if row["org_id"] else row["caller"]


def _passed_at(refusal: Row, passes: Sequence[tuple[datetime, datetime]]) -> datetime | None:
    return min((ended for started, ended in passes if started > refusal["ts"]), default=None)


def _is_over(last: Row, row: Row, passes: Sequence[tuple[datetime, datetime]], merge_gap_s: float) -> bool:
    passed_at = _passed_at(last, passes)
    return passed_at is not None and row["ts"] - passed_at >= timedelta(seconds=merge_gap_s)


def _window(part: list[Row], passes: Sequence[tuple[datetime, datetime]]) -> Row:
    first, last = part[0]["ts"], part[-1]["ts"]
    hashed = {(r["caller"], r["method"], r["route"], r["idempotency_hash"]) for r in part if r["idempotency_hash"]}
    objects = {(r["caller"], r["method"], r["path"]) for r in part if not r["idempotency_hash"] and _is_object(r)}
    others = [r for r in part if not r["idempotency_hash"] and not _is_object(r)]
    latest = sorted(part, key=lambda row: (-row["ts"].timestamp(), row["request_id"]))
    return {
        "org_id": part[0]["org_id"],
        "caller": None if part[0]["org_id"] else part[0]["caller"],
        "first_refused_at": first,
        "last_refused_at": last,
        "passed_at": _passed_at(part[-1], passes),
        "attempts": len(part),
        "distinct_intents": len(hashed) + len(objects) + len(others),
        "intent_confidence": "low" if others else "medium" if objects else "high",
        "keys": len({r.get("key_id") or r.get("key_hash") for r in part} - {None}),
        "callers": sorted({r["caller"] for r in part}),
        "routes": sorted({r["route"] for r in part if r["route"]}) or None,
        "passed_before": sum(started <= first for started, _ in passes),
        "passed_meanwhile": sum(first < started <= last for started, _ in passes),
        "example_request_ids": [row["request_id"] for row in latest[:3]],
    }


def _is_object(row: Row) -> bool:
    return "{" in (row["route"] or "")
