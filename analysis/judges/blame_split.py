"""Whose fault errors are: which bursts of first refusals are too many organisations at once to be their own doing."""

from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa
from scipy.stats import poisson

SCHEMA: Final = pa.schema(
    {
        "blame": pa.string(),
        "errors": pa.int64(),
        "error_share": pa.float64(),
        "intents": pa.int64(),
        "intent_share": pa.float64(),
        "callers": pa.int64(),
        "orgs": pa.int64(),
        "code": pa.string(),
        "method": pa.string(),
        "route": pa.string(),
        "started_at": pa.timestamp("us", "UTC"),
        "ended_at": pa.timestamp("us", "UTC"),
        "orgs_active": pa.int64(),
        "expected_orgs": pa.float64(),
        "refused": pa.float64(),
        "p_value": pa.float64(),
        "example_request_ids": pa.list_(pa.string()),
    }
)


def judge(evidence: pa.Table, parameters: Mapping[str, Any]) -> pa.Table:
    """The rows of the evidence without the bursts that may be chance; columns as in the question's header."""
    rows = []
    for row in evidence.to_pylist():
        expected = row["expected_orgs"]
        p_value = None if expected is None else float(poisson.sf(row["orgs"] - 1, expected))
        if p_value is None or p_value <= parameters["max_p"]:
            rows.append(row | {"p_value": p_value})
    return pa.Table.from_pylist(rows, SCHEMA)
