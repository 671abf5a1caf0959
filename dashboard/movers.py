"""Which codes and organisations changed most: the period of the page beside the one before it."""

from dataclasses import replace
from typing import Any, Final

import pyarrow as pa
import streamlit as st

from dashboard import table
from dashboard.view import View, follow

_MOST_ROWS: Final = 8
_MEANINGS: Final = {
    "errors": "errors in the period",
    "before": "errors in the equally long period before it",
    "difference": "errors - before",
    "change": "errors / before - 1; empty where there were none before",
}


def show(view: View, *, without_429: bool) -> None:
    """Draws both tables; without a period before, they hold what has the most errors."""
    st.subheader("Most errors" if view.scope.previous() is None else "Largest changes against the period before")
    by_code, by_org = st.columns(2)
    with by_code:
        st.caption("By code")
        picked = _pick(_movers(view, "errors_by_code", "label", without_429), "label", "Errors by code", view)
        if picked is not None:
            # Errors without a code are labelled by what the gateway did, which is no filter.
            codes = view.ask("errors_by_code")["code"].to_pylist()
            follow(view, {"code": picked["label"] if picked["label"] in codes else None})
    with by_org:
        st.caption("By organisation")
        picked = _pick(_movers(view, "errors_by_org", "org_id", without_429), "org_id", "Errors by organisation", view)
        if picked is not None:
            follow(view, picked)


def _pick(rows: pa.Table, column: str, label: str, view: View) -> dict[str, Any] | None:
    if rows.num_rows == 0:
        st.caption(f"{label}: none.")
        return None
    key = f"movers-{column}-{hash(str(view.scope))}"
    return table.show(rows, _MEANINGS, view.scope.zone, key=key, label=label, first=[column])


def _movers(view: View, name: str, column: str, without_429: bool) -> pa.Table:
    """One row per value of `column`: its errors and, where there is a period before, how they moved since."""
    now = _counts(view, name, column, without_429)
    earlier = view.scope.previous()
    if earlier is None:
        most = sorted(now, key=lambda value: (-now[value], str(value)))[:_MOST_ROWS]
        return pa.table({column: most, "errors": [now[value] for value in most]})
    before = _counts(replace(view, scope=earlier), name, column, without_429)
    moved = {value: now.get(value, 0) - before.get(value, 0) for value in {**now, **before}}
    largest = sorted(moved, key=lambda value: (-abs(moved[value]), str(value)))[:_MOST_ROWS]
    return pa.table(
        {
            column: largest,
            "errors": [now.get(value, 0) for value in largest],
            "before": [before.get(value, 0) for value in largest],
            "difference": [moved[value] for value in largest],
            "change": [moved[value] / before[value] if value in before else None for value in largest],
        }
    )


def _counts(view: View, name: str, column: str, without_429: bool) -> dict[str | None, int]:
    """Errors by the value of `column` in the answer to the question `name`, without those that have none."""
    counts = _errors(view.ask(name), column)
    if not without_429:
        return counts
    labels = view.snapshot.rate_limited_labels()
    asked = view.scope.filters.get("code")
    for code in labels if asked is None else {asked}.intersection(labels):
        for value, errors in _errors(view.ask(name, for_code=code), column).items():
            counts[value] -= errors
    # A gateway's own refusal has no code to ask for, only its label.
    return {value: errors for value, errors in counts.items() if errors and not (column == "label" and value in labels)}


def _errors(rows: pa.Table, column: str) -> dict[str | None, int]:
    counts: dict[str | None, int] = {}
    for row in rows.select([column, "errors"]).to_pylist():
        counts[row[column]] = counts.get(row[column], 0) + row["errors"]
    return counts
