"""The page of one request: what it was answered, what that means, and what its caller did around it."""

from typing import Final

import pyarrow as pa
import streamlit as st

from analysis.explain import story
from analysis.output import cell_text
from dashboard import address, table
from dashboard.scope import NAMES
from dashboard.view import View, follow

_ATTEMPT_COLUMNS: Final = ("ended", "status", "code", "gap_s", "retry_after_s", "request_id")
_MEANINGS: Final = {
    "is_this_one": "is it the request of this page",
    "ended": "when its response ended",
    "status": "HTTP status",
    "code": "error code of the envelope",
    "gap_s": "from the end of the attempt before to the start of this one; negative where it did not wait for it",
    "retry_after_s": "how long it was asked to wait",
    "request_id": "the API's id of the attempt",
}
_AROUND: Final = 8


def show(view: View) -> None:
    """Draws the page."""
    request_id = address.text("id", "Request id", placeholder="req_...", help="As in the error's envelope.")
    if not request_id:
        st.caption("Enter the request_id that a client reported, or follow one from a question.")
        return
    explanation = view.snapshot.explain(request_id)
    st.code(story(explanation), language=None, wrap_lines=True)
    st.subheader("Attempts around it")
    first = max(0, explanation.position - _AROUND)
    attempts = [
        {name: getattr(attempt, name) for name in _ATTEMPT_COLUMNS} | {"is_this_one": number == explanation.position}
        for number, attempt in enumerate(explanation.attempts)
        if first <= number <= explanation.position + _AROUND
    ]
    picked = table.show(
        pa.Table.from_pylist(attempts),
        _MEANINGS,
        view.scope.zone,
        key=f"attempts-{request_id}",
        label="Attempts around the request",
        first=("is_this_one",),
        moments="YYYY-MM-DD HH:mm:ss.SSS",
    )
    if picked is not None:
        follow(view, picked)
    with st.expander("Every column"):
        columns = [{"column": name, "value": cell_text(value)} for name, value in explanation.request.items()]
        st.dataframe(columns, hide_index=True, height="content", alt="Every column of the request")
    follow(view, {name: value for name, value in explanation.request.items() if name != "request_id"})


def names() -> set[str]:
    """The parameters that the address of this page may have."""
    return {*NAMES, "id"}
