"""Why a caller was limited: the order of the causes, and the retries that no key tells, by the echo of the refusals.

The definitions are those of the question's header.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from analysis.echo import Requests, echo

Row = dict[str, Any]

_MOMENT: Final = pa.timestamp("us", tz="UTC")
_SCHEMA: Final = pa.schema(
    {
        "caller": pa.string(),
        "org_id": pa.string(),
        "cause": pa.string(),
        "started_at": _MOMENT,
        "ended_at": _MOMENT,
        "duration_s": pa.float64(),
        "rate_limited": pa.int64(),
        "requests": pa.int64(),
        "peak_per_second": pa.int64(),
        "retries": pa.int64(),
        "retry_share": pa.float64(),
        "is_estimate": pa.bool_(),
        "schedule": pa.string(),
        "schedule_share": pa.float64(),
        "sibling_key": pa.string(),
        "sibling_share": pa.float64(),
        "routes": pa.int64(),
        "route": pa.string(),
        "example_request_ids": pa.list_(pa.string()),
    }
)
_LEAST_OTHERS: Final = 10
_LONGEST_US: Final = 300_000_000
_SIBLING_SHARE: Final = 0.8
_SIBLING_TIMES: Final = 10


def judge(evidence: pa.Table, parameters: Mapping[str, object]) -> pa.Table:
    """A row for each run of refusals, in the order of the evidence; columns as in the question's header."""
    thresholds = {name: float(str(parameters[name])) for name in ("burst_s", "min_share")}
    rows = [_row(row, **thresholds) for row in evidence.to_pylist()]
    return pa.Table.from_pylist(rows, _SCHEMA)


def _row(row: Row, *, burst_s: float, min_share: float) -> Row:
    heard = _retried(row["asked"]) if row["asked"] else 0
    retries = row["retries"] + heard
    cause = "sustained" if row["duration_s"] >= burst_s else "burst"
    if row["period_s"] is not None:
        cause = "scheduled"
    elif retries >= min_share * row["rate_limited"]:
        cause = "self-inflicted"
    elif _has_noisy_sibling(row):
        cause = "noisy sibling"
    return row | {
        "cause": cause,
        "retries": retries,
        "retry_share": retries / row["rate_limited"],
        "is_estimate": heard > 0,
        "schedule": _schedule(row["period_s"], row["slot"]),
    }


def _retried(asked: Sequence[Row]) -> int:
    """How many refused requests are retries of refused ones, as far as an echo shows.

    A steady stream of fresh requests has one too: it is told by what follows the caller's other answers.
    """
    intents = {name: number for number, name in enumerate(sorted({request["intent"] for request in asked}))}
    first_us = min(request["start_us"] for request in asked)
    requests = Requests(
        intent=np.array([intents[request["intent"]] for request in asked]),
        start_us=np.array([request["start_us"] - first_us for request in asked]),
        end_us=np.array([request["end_us"] - first_us for request in asked]),
    )
    is_refused = np.array([request["answered"] == "refused" for request in asked])
    if (~is_refused).sum() < _LEAST_OTHERS:
        return 0
    found = echo(requests, is_refused, ~is_refused, np.full(len(asked), _LONGEST_US))
    if found is None:
        return 0
    refused_again = is_refused[found.pairs[:, 1]].mean()
    return round(found.retried * float(refused_again))


def _has_noisy_sibling(row: Row) -> bool:
    if row["sibling_key"] is None or row["requests"] is None:
        return False
    return bool(
        row["sibling_share"] >= _SIBLING_SHARE
        and row["sibling_refused"] > 0
        and row["sibling_requests"] >= _SIBLING_TIMES * row["requests"]
    )


def _schedule(period_s: int | None, slot: int | None) -> str | None:
    if period_s is None or slot is None:
        return None
    if period_s == 60:
        return f"{slot:02} s of every minute"
    return f"{slot // 60:02}:{slot % 60:02} of every hour"
