"""The first page: how much fails, since when, for whom, and how far the data reach."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import streamlit as st

from analysis import Chart, questions
from analysis.chart import chart
from dashboard import address, drawing, table
from dashboard.scope import NAMES, Scope, kept
from dashboard.view import OVERVIEW, View, follow

_PACED: Final = "rate_limited"
_ERROR: Final = "Requests that were answered with an error envelope or a status of 400 and above."
_PLATFORM_ERROR: Final = (
    "Errors that the platform owns by the catalogue, or without a known code a status of 500 and above / requests."
)
_PACED_ERROR: Final = "Requests that were refused for their pace: status 429, or a code that comes with it."
_MOST_ROWS: Final = 8
_LOW: Final = 160
_UNREAD: Final = ("name", "lines", "rejects", "reject_reasons", "truncated_bodies", "undecodable_bodies", "is_cut")
_MOVER_MEANINGS: Final = {
    "errors": "errors in the period",
    "before": "errors in the equally long period before it",
    "difference": "errors - before",
    "change": "errors / before - 1; empty where there were none before",
}


@dataclass(frozen=True)
class Totals:
    """Requests and errors of one period."""

    requests: int
    errors: int
    platform_errors: int
    paced_errors: int

    @property
    def rate(self) -> float | None:
        """errors / requests"""
        return self.errors / self.requests if self.requests else None

    @property
    def platform_rate(self) -> float | None:
        """platform_errors / requests"""
        return self.platform_errors / self.requests if self.requests else None


def show(view: View) -> None:
    """Draws the page."""
    _say_what_is_counted(view.scope)
    with st.container(horizontal=True):
        without_paced = address.flag(
            "without_429", "Set 429s aside", help="Leaves rate-limited requests out of the errors on this page."
        )
        is_logarithmic = address.flag("log", "Logarithmic", help="Draws counts on a logarithmic scale.")
    faults = view.ask("errors_by_fault")
    if faults.num_rows == 0:
        st.info("There are no requests in this period.", icon=":material/search_off:")
        view.link(OVERVIEW, "Show all data", query={"period": "all"})
    else:
        _show_totals(_totals(faults, "", without_paced), _totals(faults, "previous_", without_paced))
        _show_trend(view, without_paced, is_logarithmic)
        _show_movers(view, without_paced)
    _show_what_was_read(view)


def names() -> set[str]:
    """The parameters that the address of this page may have."""
    return {*NAMES, "without_429", "log"}


def _say_what_is_counted(scope: Scope) -> None:
    sentences = [f"{scope.period()} ({scope.zone})."]
    if scope.data_through is not None:
        age = datetime.now(UTC) - scope.data_through
        sentences.append(f"Data through {scope.local(scope.data_through)}, {in_words(age)} ago.")
    if before := scope.previous():
        sentences.append(f"Arrows compare with {before.period()}.")
    st.caption(" ".join(sentences))


def in_words(age: timedelta) -> str:
    """A length of time in its largest whole unit."""
    minutes = max(0, int(age.total_seconds() // 60))
    for unit, size in (("day", 24 * 60), ("hour", 60)):
        if minutes >= size:
            return f"{minutes // size:,} {unit}{'s' if minutes >= 2 * size else ''}"
    return f"{minutes} min"


def _totals(faults: pa.Table, prefix: str, without_paced: bool) -> Totals:
    """The totals of the period, or with the prefix "previous_" of the one before it: zeros where there is none."""
    rows = {row["fault"]: row for row in faults.to_pylist()}
    requests = rows["client"][f"{prefix}requests"] or 0
    errors = {fault: row[f"{prefix}errors"] or 0 for fault, row in rows.items()}
    paced = errors.pop(_PACED)
    return Totals(requests, sum(errors.values()) + (0 if without_paced else paced), errors["platform"], paced)


def _show_totals(now: Totals, before: Totals) -> None:
    cells = st.columns(5)
    with cells[0]:
        told = "Every request, whatever its answer."
        _count("Requests", now.requests, before.requests, told, is_good=None)
    with cells[1]:
        _count("Errors", now.errors, before.errors, _ERROR, is_good=False)
    with cells[2]:
        _rate("Error rate", now.rate, before.rate, "Errors / requests.")
    with cells[3]:
        _rate("Platform error rate", now.platform_rate, before.platform_rate, _PLATFORM_ERROR)
    with cells[4]:
        _count("Rate limited (429)", now.paced_errors, before.paced_errors, _PACED_ERROR, is_good=False)


def _count(label: str, now: int, before: int | None, told: str, *, is_good: bool | None) -> None:
    change = f"{now / before - 1:+,.1%}" if before else None
    _metric(label, now, change, told, is_good=is_good)


def _rate(label: str, now: float | None, before: float | None, told: str) -> None:
    change = f"{100 * (now - before):+.2f} points" if now is not None and before is not None else None
    _metric(label, "none" if now is None else f"{now:.2%}", change, told, is_good=False)


def _metric(label: str, now: float | str, change: str | None, told: str, *, is_good: bool | None) -> None:
    """A number and how it changed; `is_good` says whether more is better, None that it is neither."""
    has_moved = change is not None and change.strip("+-.0 %points") != ""
    st.metric(
        label,
        now,
        change,
        format="localized",
        delta_color="off" if is_good is None or not has_moved else "normal" if is_good else "inverse",
        delta_arrow="auto" if has_moved else "off",
        help=told,
        border=True,
        height="stretch",
    )


def _show_trend(view: View, without_paced: bool, is_logarithmic: bool) -> None:
    question = questions()["error_trend"]
    frame = drawing.frame(view.ask("error_trend"))
    if without_paced:
        frame = frame[~frame["label"].isin(view.snapshot.paced_labels())]
    if frame.empty:
        st.success("No errors in this period.", icon=":material/check_circle:")
        return
    st.subheader("Errors over time")
    errors = chart(question, frame, kind="stacked", tz=view.scope.zone, log_scale=is_logarithmic)
    drawing.show(errors, "Errors over time by code")
    st.subheader("Error rate over time")
    rates = frame.groupby("bucket_start").agg(errors=("errors", "sum"), requests=("requests", "first")).reset_index()
    rates["rate"] = rates["errors"] / rates["requests"]
    rate = replace(question, chart=Chart("line", "bucket_start", "rate"))
    drawing.show(chart(rate, rates, tz=view.scope.zone), "Error rate over time", height=_LOW)


def _show_movers(view: View, without_paced: bool) -> None:
    st.subheader("Most errors" if view.scope.previous() is None else "Largest changes against the period before")
    by_code, by_org = st.columns(2)
    with by_code:
        st.caption("By code")
        picked = _pick(_movers(view, "errors_by_code", "label", without_paced), "label", "Errors by code", view)
        if picked is not None:
            # Errors without a code are labelled by what the gateway did, which is no filter.
            codes = view.ask("errors_by_code")["code"].to_pylist()
            follow(view, {"code": picked["label"] if picked["label"] in codes else None})
    with by_org:
        st.caption("By organisation")
        picked = _pick(
            _movers(view, "errors_by_org", "org_id", without_paced), "org_id", "Errors by organisation", view
        )
        if picked is not None:
            follow(view, picked)


def _pick(rows: pa.Table, column: str, label: str, view: View) -> dict[str, Any] | None:
    if rows.num_rows == 0:
        st.caption(f"{label}: none.")
        return None
    key = f"movers-{column}-{hash(str(view.scope))}"
    return table.show(rows, _MOVER_MEANINGS, view.scope.zone, key=key, label=label, first=[column])


def _movers(view: View, name: str, column: str, without_paced: bool) -> pa.Table:
    """One row per value of `column`: its errors and, where there is a period before, how they moved since."""
    now = _counts(view, name, column, without_paced)
    earlier = view.scope.previous()
    if earlier is None:
        most = sorted(now, key=lambda value: (-now[value], str(value)))[:_MOST_ROWS]
        return pa.table({column: most, "errors": [now[value] for value in most]})
    before = _counts(replace(view, scope=earlier), name, column, without_paced)
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


def _counts(view: View, name: str, column: str, without_paced: bool) -> dict[str | None, int]:
    """Errors by the value of `column` in the answer to the question `name`, without those that have none."""
    counts = _errors(view.ask(name), column)
    asked = view.scope.filters.get("code")
    for code in view.snapshot.paced_labels() if without_paced else ():
        if asked in (None, code):
            for value, errors in _errors(view.ask(name, for_code=code), column).items():
                counts[value] -= errors
    return {value: errors for value, errors in counts.items() if errors}


def _show_what_was_read(view: View) -> None:
    """What of the logs is missing in every number of the page. Last, because it looks at all there is."""
    sources = view.snapshot.answer("ingest_health")
    st.subheader("What was read")
    if sources.num_rows == 0:
        st.caption("Nothing yet.")
        return
    lines, requests, rejects, skipped, errors, whole = (
        pc.sum(sources[name]).as_py() for name in ("lines", "requests", "rejects", "skipped", "errors", "whole_bodies")
    )
    st.caption(
        f"{lines:,} lines of {sources.num_rows:,} sources: {requests:,} requests, {rejects:,} lines rejected, "
        f"{skipped:,} skipped. Of {errors:,} errors, {whole:,} have their whole body in the log."
    )
    view.link("ingest_health", "Every source", query=kept(), icon=":material/arrow_forward:")
    unread = sources.filter(
        pc.or_(pc.greater(sources["rejects"], 0), pc.or_(sources["is_cut"], pc.invert(sources["is_conserved"])))
    )
    if unread.num_rows:
        meanings = {column.name: column.meaning for column in questions()["ingest_health"].columns}
        shown = unread.select(_UNREAD).sort_by([("rejects", "descending")]).slice(0, _MOST_ROWS)
        told = "Sources that were not wholly read"
        table.show(shown, meanings, view.scope.zone, key="unread", label=told, is_pickable=False)


def _errors(rows: pa.Table, column: str) -> dict[str | None, int]:
    counts: dict[str | None, int] = {}
    for row in rows.select([column, "errors"]).to_pylist():
        counts[row[column]] = counts.get(row[column], 0) + row["errors"]
    return counts
