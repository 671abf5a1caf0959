"""Which times of many faults are incidents, of which route, and of the platform or of one customer alone."""

from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa
from scipy.stats import binom, poisson

Row = dict[str, Any]

_MOMENT: Final = pa.timestamp("us", "UTC")
SCHEMA: Final = pa.schema(
    {
        "started_at": _MOMENT,
        "peaked_at": _MOMENT,
        "ended_at": _MOMENT,
        "duration_s": pa.float64(),
        "verdict": pa.string(),
        "method": pa.string(),
        "route": pa.string(),
        "origin": pa.string(),
        "reasons": pa.list_(pa.string()),
        "faults": pa.int64(),
        "requests": pa.int64(),
        "fault_rate": pa.float64(),
        "expected": pa.float64(),
        "usual_rate": pa.float64(),
        "p_value": pa.float64(),
        "orgs_hit": pa.int64(),
        "orgs_active": pa.int64(),
        "share_of_orgs": pa.float64(),
        "callers_hit": pa.int64(),
        "top_customer": pa.string(),
        "top_customer_share": pa.float64(),
        "repeat_share": pa.float64(),
        "request_ids": pa.list_(pa.string()),
    }
)
_MOSTLY: Final = 0.8
_SELDOM: Final = 0.25


def judge(evidence: pa.Table, parameters: Mapping[str, Any]) -> pa.Table:
    """The incidents, those with most faults first; columns as in the question's header."""
    rows = [row for row in map(_with_statistics, evidence.to_pylist()) if row["p_value"] <= parameters["max_p"]]
    for row in rows:
        row["verdict"] = _verdict(row, parameters)
    return pa.Table.from_pylist(rows, SCHEMA)


def _with_statistics(row: Row) -> Row:
    faults, requests = row["faults"], row["requests"]
    usual_rate = row["usual_faults"] / row["usual_requests"] if row["usual_requests"] else 0.0
    is_of_route = _is_of_route(row)
    upstream_share = row["upstream_faults"] / faults
    p_values = (poisson.sf(faults - 1, row["expected"]), binom.sf(faults - 1, requests, usual_rate))
    return row | {
        "method": row["method"] if is_of_route else None,
        "route": row["route"] if is_of_route else None,
        "origin": "upstream" if upstream_share >= _MOSTLY else "gateway" if upstream_share <= 1 - _MOSTLY else "mixed",
        "fault_rate": faults / requests,
        "usual_rate": usual_rate,
        "p_value": float(max(p_values)),
        "share_of_orgs": row["orgs_hit"] / row["orgs_active"] if row["orgs_active"] else None,
        "top_customer_share": row["top_customer_faults"] / faults,
        "repeat_share": row["repeats"] / faults,
    }


def _is_of_route(row: Row) -> bool:
    """Does one route fail, and hardly any other?"""
    others = row["requests"] - row["route_requests"]
    others_rate = (row["faults"] - row["route_faults"]) / others if others else 0.0
    rate = row["route_faults"] / row["route_requests"]
    return bool(row["route_faults"] >= _MOSTLY * row["faults"] and others_rate < _SELDOM * rate)


def _verdict(row: Row, parameters: Mapping[str, Any]) -> str:
    """One customer, where it has most of the faults and those of the others may be chance."""
    if row["top_customer_share"] < parameters["min_customer_share"]:
        return "platform"
    faults = row["faults"] - row["top_customer_faults"]
    requests = row["requests"] - row["top_customer_requests"]
    p_values = (poisson.sf(faults - 1, row["expected"]), binom.sf(faults - 1, requests, row["usual_rate"]))
    is_hit = faults >= parameters["min_faults"] and max(p_values) <= parameters["max_p"]
    return "platform" if is_hit else "one customer"
