"""The first page: how much fails, since when, for whom, and how far the data reach."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import streamlit as st

from analysis import Chart, questions
from analysis.chart import chart
from dashboard import address, drawing, movers, table
from dashboard.scope import NAMES, Scope, kept
from dashboard.view import OVERVIEW, View

_ERROR: Final = "Requests that were answered with an error envelope or a status of 400 and above."
_PLATFORM_ERROR: Final = (
    "Errors that the platform owns by the catalogue, or without a known code a status of 500 and above / requests."
)
_RATE_LIMITED_MEANS: Final = "Requests that were refused for their pace: status 429, or a code that comes with it."
_MOST_ROWS: Final = 8
_LOW: Final = 160
_UNREAD: Final = ("name", "lines", "rejects", "reject_reasons", "truncated_bodies", "undecodable_bodies", "is_cut")


@dataclass(frozen=True)
class Totals:
    """Requests and errors of one period."""

    requests: int
    errors: int
    platform_errors: int
    rate_limited: int

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
        without_429 = address.flag(
            "without_429", "Set 429s aside", help="Leaves rate-limited requests out of the errors on this page."
        )
        is_logarithmic = address.flag("log", "Logarithmic", help="Draws counts on a logarithmic scale.")
    faults = view.ask("errors_by_fault")
    if faults.num_rows == 0:
        st.info("There are no requests in this period.", icon=":material/search_off:")
        view.link(OVERVIEW, "Show all data", query={"period": "all"})
    else:
        _show_totals(_totals(faults, "", without_429), _totals(faults, "previous_", without_429))
        _show_trend(view, without_429, is_logarithmic)
        movers.show(view, without_429=without_429)
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


def _totals(faults: pa.Table, prefix: str, without_429: bool) -> Totals:
    """The totals of the period, or with the prefix "previous_" of the one before it: zeros where there is none."""
    rows = {row["fault"]: row for row in faults.to_pylist()}
    requests = rows["client"][f"{prefix}requests"] or 0
    errors = {fault: row[f"{prefix}errors"] or 0 for fault, row in rows.items()}
    rate_limited = errors.pop("rate_limited")
    return Totals(
        requests, sum(errors.values()) + (0 if without_429 else rate_limited), errors["platform"], rate_limited
    )


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
        _count("Rate limited (429)", now.rate_limited, before.rate_limited, _RATE_LIMITED_MEANS, is_good=False)


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


def _show_trend(view: View, without_429: bool, is_logarithmic: bool) -> None:
    question = questions()["error_trend"]
    frame = drawing.frame(view.ask("error_trend"))
    if without_429:
        frame = frame[~frame["label"].isin(view.snapshot.rate_limited_labels())]
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
