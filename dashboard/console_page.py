"""The page for SQL of one's own: a field, what there is to ask, and the answer of the sandbox.

The query stands in the address, to be shared. An address never runs one: a person presses Run.
"""

from typing import Final

import pyarrow as pa
import streamlit as st

from analysis.console import EXAMPLES, Part, Relation, relations
from analysis.sandbox import Answer, Limits
from dashboard import address, notice, table
from dashboard.notice import BadInput, LakeDamaged
from dashboard.scope import NAMES, kept
from dashboard.view import CONSOLE, View, follow, leads_on

_LIMITS: Final = Limits()
# Servers and proxies refuse longer addresses.
_LONGEST_IN_ADDRESS: Final = 4000
_FIELD: Final = "console-sql"
_STYLE: Final = f"<style>.st-key-{_FIELD} textarea {{ font-family: monospace; }}</style>"
_WRITTEN: Final = "console-written"
_TO_RUN: Final = "console-to-run"
_FOUND: Final = "console-found"


def show(view: View) -> None:
    """Draws the page."""
    _draw_field()
    to_run = st.session_state.pop(_TO_RUN, None)
    if to_run is not None:
        st.session_state.pop(_FOUND, None)
        st.session_state[_FOUND] = to_run, _run(view, to_run)
    sql, found = st.session_state.get(_FOUND, (None, None))
    if found is not None and sql == st.session_state[_WRITTEN]:
        _show_found(view, found)
    elif address.value("sql"):
        st.caption("This query has not been run. Read it, then press Run.")
    _show_examples(view)
    _show_relations()


def names() -> set[str]:
    """The parameters that the address of this page may have."""
    return {*NAMES, "sql"}


def _draw_field() -> None:
    """The form; its text is that of the address until a person changes it."""
    written = address.value("sql")
    is_elsewhere = st.session_state.get(_WRITTEN, "") != written and (written or not _is_too_long())
    if is_elsewhere or _FIELD not in st.session_state:
        st.session_state[_FIELD] = st.session_state[_WRITTEN] = written
    st.html(_STYLE)
    with st.form("console", border=False):
        st.text_area("SQL", key=_FIELD, height=220, placeholder=EXAMPLES[0].sql)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.form_submit_button(
                "Run", key="console-run", type="primary", icon=":material/play_arrow:", on_click=_take
            )
            st.text(_in_words(_LIMITS), width="stretch")


def _is_too_long() -> bool:
    return len(st.session_state.get(_WRITTEN, "")) > _LONGEST_IN_ADDRESS


def _take() -> None:
    """Has what stands in the field run, and put into the address where it is not too long for one."""
    sql = st.session_state[_FIELD].strip()
    st.session_state[_WRITTEN] = st.session_state[_TO_RUN] = sql
    if sql and not _is_too_long():
        st.query_params["sql"] = sql
    else:
        st.query_params.pop("sql", None)


def _run(view: View, sql: str) -> Answer | BadInput | LakeDamaged:
    """The answer to `sql`, or why there is none. Whatever the person does meanwhile ends the query."""
    place = st.empty()
    with place.container(horizontal=True, vertical_alignment="center"):
        st.button("Stop", icon=":material/stop:")
        told = st.empty()

    def tell(elapsed_s: float) -> None:
        told.text(f"Running: {elapsed_s:.0f} s of at most {_LIMITS.time_s:.0f} s")

    try:
        return view.snapshot.query(sql, _LIMITS, tell)
    except (BadInput, LakeDamaged) as error:
        return error
    finally:
        place.empty()


def _show_found(view: View, found: Answer | BadInput | LakeDamaged) -> None:
    if not isinstance(found, Answer):
        notice.trouble(found)
        return
    rows = _with_names_of_their_own(found.rows)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        count = f"{rows.num_rows:,} {'row' if rows.num_rows == 1 else 'rows'}"
        st.text(f"{count} in {found.elapsed_s:.1f} s", width="content")
        with st.container(horizontal=True, width="content"):
            table.downloads("console", rows)
    if found.truncated_at is not None:
        notice.caution("There are more rows than the limit.", f"Only the first {found.truncated_at:,} are here.")
    picked = table.show(
        rows,
        {},
        view.scope.zone,
        key=f"console-rows-{id(found)}",
        label="The answer",
        is_pickable=leads_on(rows.schema.names),
    )
    if picked is not None:
        follow(view, picked)


def _with_names_of_their_own(rows: pa.Table) -> pa.Table:
    """`rows`, in which no two columns have the same name: a query may give one name twice, a table may not."""
    found: list[str] = []
    for name in rows.schema.names:
        unused, number = name, 1
        while unused in found:
            unused, number = f"{name}_{number}", number + 1
        found.append(unused)
    return rows.rename_columns(found)


def _show_examples(view: View) -> None:
    with st.expander("Examples", expanded=not address.value("sql")):
        for example in EXAMPLES:
            view.link(CONSOLE, example.asks, query=kept() | {"sql": example.sql}, icon=":material/edit_note:")


def _show_relations() -> None:
    with st.expander("What there is to ask: views, and questions as tables"):
        known = {relation.name: relation for relation in relations()}
        name = st.selectbox("After FROM", list(known), format_func=lambda name: _call(known[name]))
        relation = known[name]
        st.text(relation.meaning)
        if relation.note:
            st.caption(relation.note)
        if relation.parameters:
            _show_parts(relation.parameters, "Parameters, each of them may be left out", "default")
        _show_parts(relation.columns, "Columns", "type")


def _show_parts(parts: tuple[Part, ...], title: str, of_type: str) -> None:
    rows = [{"name": part.name, of_type: part.type, "meaning": part.meaning} for part in parts]
    has_types = any(part.type for part in parts)
    shown = [name for name in ("name", of_type, "meaning") if has_types or name != of_type]
    st.caption(title)
    st.dataframe(rows, hide_index=True, height="content", column_order=shown, alt=title)


def _call(relation: Relation) -> str:
    return f"{relation.name}(...)" if relation.parameters else relation.name


def _in_words(limits: Limits) -> str:
    return (
        f"One query, which can only read. At most {limits.time_s:.0f} seconds, {limits.memory_mb:,} MB of memory, "
        f"{limits.rows:,} rows and {limits.result_mb} MB of result."
    )
