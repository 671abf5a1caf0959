"""What every page is drawn from, and the links that lead from one page to the next."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import streamlit as st

from analysis import questions
from dashboard.scope import FILTERS, Scope, kept
from dashboard.snapshot import Snapshot

OVERVIEW: Final = "overview"
REQUEST: Final = "request"
CONSOLE: Final = "console"

# Columns of answers by the filter that a value of theirs can be.
_FILTER_OF: Final = {
    "org_id": "org",
    "culprit_org_id": "org",
    "key": "key",
    "key_id": "key",
    "key_hash": "key",
    "caller": "key",
    "culprit": "key",
    "code": "code",
    "route": "route",
}
_NEXT_QUESTIONS: Final = {
    "error_trend": "Over time",
    "errors_by_code": "By code",
    "errors_by_org": "By organisation",
    "errors_by_key": "By key",
    "errors_by_route": "By route",
}
_MOST_REQUESTS: Final = 3


@dataclass(frozen=True)
class View:
    """The lake, the part of it that is asked about, and the pages that can be linked to, by question or name."""

    snapshot: Snapshot
    scope: Scope
    pages: Mapping[str, st.Page]

    def ask(self, name: str, **more: object) -> pa.Table:
        """The answer to the question `name` about the scope, with `more` of its parameters."""
        return self.snapshot.answer(name, **self.scope.parameters(questions()[name]) | more)

    def link(self, page: str, label: str, *, query: Mapping[str, str], icon: str | None = None) -> None:
        """A link to `page` with the parameters `query`; the label is ours, never data."""
        st.page_link(self.pages[page], label=label, query_params=dict(query), icon=icon)


def follow(view: View, row: Mapping[str, Any]) -> None:
    """Where one can go from a row of an answer: the questions about what it names, and the requests it names."""
    filters = _filters(row)
    requests = _requests(row)
    if not filters and not requests:
        st.caption("This row names no organisation, key, code, route or request to follow.")
        return
    with st.container(border=True):
        if filters:
            for cell, (name, text) in zip(st.columns(len(filters)), filters.items(), strict=True):
                with cell:
                    st.caption(FILTERS[name].label)
                    st.code(text, language=None)
            with st.container(horizontal=True, vertical_alignment="center"):
                st.caption("Its errors", width="content")
                for page, label in _NEXT_QUESTIONS.items():
                    view.link(page, label, query=kept(**filters), icon=":material/arrow_forward:")
        for cell, request_id in zip(st.columns(_MOST_REQUESTS), requests, strict=False):
            with cell:
                st.caption("Request")
                st.code(request_id, language=None)
                view.link(REQUEST, "Explain it", query=kept(id=request_id), icon=":material/arrow_forward:")


def leads_on(columns: Iterable[str]) -> bool:
    """Can rows with these columns name something to follow?"""
    return any(column in _FILTER_OF or _names_requests(column) for column in columns)


def _filters(row: Mapping[str, Any]) -> dict[str, str]:
    """The filters that a row's values make, the first column winning; a NULL makes none."""
    found: dict[str, str] = {}
    for column, value in row.items():
        name = _FILTER_OF.get(column)
        if name is not None and isinstance(value, str):
            found.setdefault(name, value)
    return found


def _requests(row: Mapping[str, Any]) -> list[str]:
    """The ids of the requests that a row names, each once."""
    found: dict[str, None] = {}
    for column, value in row.items():
        if _names_requests(column):
            values = value if isinstance(value, list) else [value]
            found |= dict.fromkeys(text for text in values if isinstance(text, str))
    return list(found)


def _names_requests(column: str) -> bool:
    return column.endswith(("request_id", "request_ids"))
