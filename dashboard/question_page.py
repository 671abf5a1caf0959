"""The page of one question, whichever it is: its parameters, chart, table, definitions and SQL."""

from typing import Final

import pyarrow as pa
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from analysis import Parameter, Question
from analysis.chart import chart
from analysis.question import call
from dashboard import address, drawing, table
from dashboard.scope import FILTERS, NAMES, PARAMETERS, fields_of, kept
from dashboard.view import View, follow, leads_on

_MOST_OPEN: Final = 3


def show(question: Question, view: View) -> None:
    """Draws the page."""
    parameters = view.scope.parameters(question) | _own_values(question)
    rows = view.snapshot.answer(question.name, **parameters)
    _say_what_is_counted(question, view)
    if rows.num_rows == 0:
        _nothing_matches(question, view)
    else:
        drawing.show(chart(question, drawing.frame(rows), tz=view.scope.zone), question.title)
        _show_rows(question, view, rows, key=f"rows-{hash(call(question, parameters))}")
    with st.expander("Definitions"):
        meanings = [{"column": column.name, "meaning": column.meaning} for column in question.columns]
        st.dataframe(meanings, hide_index=True, height="content", alt="Definitions of the columns")
    with st.expander("SQL"):
        st.code(f"{call(question, parameters)};", language="sql")
        st.code(question.sql, language="sql")


def names(question: Question) -> set[str]:
    """The parameters that the address of the question's page may have."""
    return {*NAMES, *(parameter.name for parameter in own_parameters(question))}


def own_parameters(question: Question) -> list[Parameter]:
    """The parameters that are the question's alone, and in the address of its page only."""
    return [parameter for parameter in question.parameters if parameter.name not in PARAMETERS]


def _own_values(question: Question) -> dict[str, object]:
    own = own_parameters(question)
    if not own:
        return {}
    fold: DeltaGenerator = st.container()
    if len(own) > _MOST_OPEN:
        fold = st.expander("Parameters", expanded=any(address.value(parameter.name) for parameter in own))
    with fold.container(horizontal=True):
        entered = {parameter.name: _entered(parameter) for parameter in own}
    return {name: value for name, value in entered.items() if value != ""}


def _entered(parameter: Parameter) -> object:
    """What stands in the parameter's field; "" keeps its default."""
    label = table.words(parameter.name.removeprefix("for_")).capitalize()
    default = "" if parameter.default.upper() == "NULL" else parameter.default.strip("'")
    if parameter.sql_type in ("BIGINT", "DOUBLE"):
        return address.number(
            parameter.name,
            label,
            is_whole=parameter.sql_type == "BIGINT",
            placeholder=default,
            help=parameter.meaning,
            width=200,
        )
    if parameter.sql_type == "BOOLEAN":
        return address.flag(parameter.name, label, default=default.lower() == "true", help=parameter.meaning)
    return address.text(parameter.name, label, placeholder=default, help=parameter.meaning, width=200)


def _show_rows(question: Question, view: View, rows: pa.Table, *, key: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.text(f"{rows.num_rows:,} {'row' if rows.num_rows == 1 else 'rows'}", width="content")
        with st.container(horizontal=True, width="content"):
            table.downloads(question.name, rows)
    picked = table.show(
        rows,
        {column.name: column.meaning for column in question.columns},
        view.scope.zone,
        key=key,
        label=question.title,
        first=_first_columns(question),
        is_pickable=leads_on(rows.schema.names),
    )
    if picked is not None:
        follow(view, picked)
    elif leads_on(rows.schema.names):
        st.caption("Pick a row by its box on the left to see where it leads.")


def _first_columns(question: Question) -> list[str]:
    """What the chart shows, if there is one."""
    drawn = question.chart
    return [name for name in (drawn.x, drawn.series, drawn.y) if name] if drawn else []


def _say_what_is_counted(question: Question, view: View) -> None:
    has_period = "period" in fields_of(question)
    st.caption(f"{view.scope.period()} ({view.scope.zone})." if has_period else "All data, whatever the period.")
    if unused := view.scope.unused(question):
        st.caption(f"Not applied, because this question does not take it: {', '.join(unused)}.")


def _nothing_matches(question: Question, view: View) -> None:
    """Says so, and offers each way to ask for more."""
    st.info("No rows match.", icon=":material/search_off:")
    own = {one.name: address.value(one.name) for one in own_parameters(question) if address.value(one.name)}
    has_period = "period" in fields_of(question) and bool(view.scope.since or view.scope.until)
    taken = [name for name in view.scope.filters if name in fields_of(question)]
    with st.container(horizontal=True):
        if has_period:
            view.link(question.name, "Ask over all data", query=kept("since", "until", period="all") | own)
        for name in taken:
            view.link(question.name, f"Ask without the {FILTERS[name].label.lower()}", query=kept(name) | own)
        if own:
            view.link(question.name, "Ask with the question's defaults", query=kept())
    if not (has_period or taken or own):
        st.text("The lake holds nothing that this question looks for.")
