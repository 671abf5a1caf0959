"""What changed, as rows and sentences: the cells of the evidence, and the causes found among them in words."""

from collections.abc import Mapping
from datetime import timedelta
from itertools import islice
from typing import Any, Final

import pyarrow as pa

from analysis.causes import Cell, Change, Period, Rules, causes

BASELINES: Final = ("previous", "week_before")

SCHEMA: Final = pa.schema(
    {
        "rank": pa.int64(),
        "kind": pa.string(),
        "code": pa.string(),
        "level": pa.string(),
        "method": pa.string(),
        "route": pa.string(),
        "org_id": pa.string(),
        "key": pa.string(),
        "errors": pa.int64(),
        "requests": pa.int64(),
        "rate": pa.float64(),
        "previous_errors": pa.int64(),
        "previous_requests": pa.int64(),
        "previous_rate": pa.float64(),
        "week_before_errors": pa.int64(),
        "week_before_requests": pa.int64(),
        "week_before_rate": pa.float64(),
        "unit": pa.string(),
        "ratio": pa.float64(),
        "ratio_low": pa.float64(),
        "ratio_high": pa.float64(),
        "variance_factor": pa.float64(),
        "p_value": pa.float64(),
        "q_value": pa.float64(),
        "first_seen": pa.timestamp("us", "UTC"),
        "example_request_ids": pa.list_(pa.string()),
        "sentence": pa.string(),
    }
)


def judge(evidence: pa.Table, parameters: dict[str, Any]) -> pa.Table:
    """The changes, surest first, with the columns SCHEMA; one row that accuses nobody where there is no baseline."""
    rows = evidence.to_pylist()
    if not rows:
        return SCHEMA.empty_table()
    rules = Rules(**{name: parameters[name] for name in Rules.__dataclass_fields__})
    period = _period(rows[0])
    if not period.baselines:
        return pa.Table.from_pylist([_nothing_to_compare_with(period)], SCHEMA)
    cells = [_cell(row, period) for row in rows if row["code"] is not None]
    found = islice(causes(cells, period, rules), rules.max_sentences)
    answer = [{"rank": rank} | _row(change, period) for rank, change in enumerate(found, start=1)]
    return pa.Table.from_pylist(answer, SCHEMA)


def _period(row: Mapping[str, Any]) -> Period:
    known = [name for name in BASELINES if row[f"{name}_all_requests"]]
    return Period(
        row["period_since"],
        row["period_until"],
        row["step_days"],
        row["steps_known"],
        tuple(known),
        (row["all_requests"], *(row[f"{name}_all_requests"] for name in known)),
    )


def _cell(row: Mapping[str, Any], period: Period) -> Cell:
    known = [f"{name}_" for name in period.baselines]
    return Cell(
        row["code"],
        (row["method"], row["route"], row["org_id"], row["key"]),
        (row["errors"], *(row[f"{name}errors"] for name in known)),
        (row["bursts"], *(row[f"{name}bursts"] for name in known)),
        row["burst_size"],
        row["caller_errors"] / (1 + len(known)),
        (row["requests"] or 0, *(row[f"{name}requests"] for name in known)) if row["is_suspect"] else (),
        dict(zip(row["steps"] or (), row["minutes_of_steps"] or (), strict=True)),
        row["first_seen"],
        tuple(row["example_request_ids"] or ()),
    )


def _row(change: Change, period: Period) -> dict[str, Any]:
    cell, comparison = change.cell, change.comparison
    method, route, org_id, key = (dim or None for dim in cell.dims)
    row = {
        "kind": _kind(cell, period),
        "code": cell.code,
        "level": _level(cell),
        "method": method,
        "route": route,
        "org_id": org_id,
        "key": key,
        "unit": change.unit,
        "ratio": comparison.ratio,
        "ratio_low": comparison.low,
        "ratio_high": comparison.high,
        "variance_factor": change.variance_factor,
        "p_value": comparison.p_value,
        "q_value": change.q_value,
        "first_seen": cell.first_seen,
        "example_request_ids": list(cell.example_request_ids),
        "sentence": _sentence(change, period),
    }
    prefixes = ("", *(f"{name}_" for name in period.baselines))
    for prefix, errors, requests in zip(prefixes, cell.errors, cell.requests, strict=True):
        row |= {
            f"{prefix}errors": errors,
            f"{prefix}requests": requests,
            f"{prefix}rate": errors / requests if requests else None,
        }
    return row


def _nothing_to_compare_with(period: Period) -> dict[str, Any]:
    earlier, later = _names(period)
    return {
        "rank": 1,
        "kind": "NOT ENOUGH DATA",
        "level": "all",
        "requests": period.requests[0],
        "sentence": f"Not enough data: there is nothing to compare what happened {_when(period)} with, "
        f"neither {earlier} nor {later}.",
    }


def _kind(cell: Cell, period: Period) -> str:
    now, *before = cell.errors
    if now == 0:
        return "GONE"
    if any(before):
        return "UP" if cell.is_more else "DOWN"
    return "NEW" if cell.first_seen is None or cell.first_seen >= period.since else "RETURNED"


def _level(cell: Cell) -> str:
    _, route, org_id, key = cell.dims
    named = (("route", route), ("org", org_id), ("key", key))
    return " + ".join(["code", *(name for name, dim in named if dim is not None)])


def _sentence(change: Change, period: Period) -> str:
    """Such as: validation_failed on POST /v1/messages is up: 150 errors in 612 requests (24.5 %) on 2026-11-16, ..."""
    cell, comparison, kind = change.cell, change.comparison, _kind(change.cell, period)
    said = {"NEW": "new", "RETURNED": "back", "UP": "up", "DOWN": "down", "GONE": "gone"}[kind]
    now, *before = (_counted(errors, asked) for errors, asked in zip(cell.errors, cell.requests, strict=True))
    then = " and ".join(f"{counted} {name}" for counted, name in zip(before, _baseline_names(period), strict=True))
    text = f"{_place(cell)} is {said}: {now} {_when(period)}, after {then}."
    if kind in ("UP", "DOWN"):
        text += (
            f" That is {_number(comparison.ratio)} times as many"
            f" (95 % interval {_number(comparison.low)} to {_number(comparison.high)})."
        )
    elif kind == "RETURNED" and cell.first_seen is not None:
        text += f" It was seen before, on {cell.first_seen:%Y-%m-%d}."
    elif kind == "NEW" and cell.first_seen is not None:
        text += f" First seen {cell.first_seen:%Y-%m-%d %H:%M:%S} UTC."
    if cell.example_request_ids:
        text += f" For example {', '.join(cell.example_request_ids)}."
    return text


def _place(cell: Cell) -> str:
    """Such as: validation_failed on POST /v1/messages of org_1 by key_2."""
    method, route, org_id, key = cell.dims
    words = [cell.code]
    if route is not None:
        words.append("on " + (f"{method} {route}".strip() or "no known route"))
    if org_id is not None:
        words.append(f"of {org_id or 'no known organisation'}")
    if key is not None:
        words.append(f"by {key or 'no known caller'}")
    return " ".join(words)


def _counted(errors: int, requests: int) -> str:
    if not requests:
        return "none, without any request,"
    counted = f"{errors:,}" if errors else "none"
    return f"{counted} in {requests:,} requests ({errors / requests:.1%})"


def _when(period: Period) -> str:
    """Such as: on 2026-11-16, or: from 2026-11-16 00:00 to 2026-11-16 10:00 UTC."""
    is_midnight = f"{period.since:%H%M%S}" == "000000"
    if is_midnight and period.until - period.since == timedelta(days=1):
        return f"on {period.since:%Y-%m-%d}"
    return f"from {period.since:%Y-%m-%d %H:%M} to {period.until:%Y-%m-%d %H:%M} UTC"


def _baseline_names(period: Period) -> list[str]:
    return [name for key, name in zip(BASELINES, _names(period), strict=True) if key in period.baselines]


def _names(period: Period) -> tuple[str, str]:
    days = period.step_days
    return ("the day before", "a week before") if days == 1 else (f"{days} days before", f"{2 * days} days before")


def _number(ratio: float) -> str:
    """Such as 2.1, 0.035, 140, 0 or infinitely."""
    if ratio == float("inf"):
        return "infinitely"
    return f"{ratio:,.0f}" if ratio >= 10 or ratio < 0.001 else f"{ratio:.2g}"
