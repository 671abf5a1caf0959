"""The entry of the dashboard: what Streamlit runs, from top to bottom, whenever something on the page changes."""

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import streamlit as st

from analysis import questions
from dashboard import console_page, door, notice, overview, question_page, request_page, scope
from dashboard.access import Person
from dashboard.notice import BadInput, LakeDamaged
from dashboard.snapshot import lake_path, open_snapshot
from dashboard.view import CONSOLE, OVERVIEW, REQUEST, View


@dataclass(frozen=True)
class Screen:
    """One page: its name in the address, what a person reads first, and what draws it.

    `parameters` are those that its address may have, `fields` those of the scope that it shows.
    """

    name: str
    title: str
    asks: str
    show: Callable[[View], None]
    parameters: set[str]
    fields: set[str]


def screens() -> Iterator[Screen]:
    """Every page, the first one first."""
    asks = "How much fails, since when, and for whom?"
    yield Screen(OVERVIEW, "Overview", asks, overview.show, overview.names(), scope.FIELDS)
    asks = "What was one request answered, and what did its caller do around it?"
    yield Screen(REQUEST, "One request", asks, request_page.show, request_page.names(), {"tz"})
    asks = "What else is there to know? Ask in SQL, of the same views and questions."
    yield Screen(CONSOLE, "SQL", asks, console_page.show, console_page.names(), {"tz"})
    for question in questions().values():
        show, known = partial(question_page.show, question), question_page.names(question)
        yield Screen(question.name, question.title, question.asks, show, known, scope.fields_of(question))


def main() -> None:
    """Draws the links to all pages, and the page of the address, for who may see them."""
    st.set_page_config(page_title="errata", layout="wide")
    person = door.admitted()
    pages: dict[str, st.Page] = {}
    for screen in screens():
        drawn = partial(_draw, screen, pages, person)
        is_first = screen.name == OVERVIEW
        pages[screen.name] = st.Page(drawn, title=screen.title, url_path=screen.name, default=is_first)
    current = st.navigation(list(pages.values()), position="hidden")
    _link_to(pages, person)
    current.run()


def _draw(screen: Screen, pages: Mapping[str, st.Page], person: Person) -> None:
    """A page: its title, the fields of the scope and what it shows, or one message that says why not."""
    st.title(screen.title, anchor=False)
    st.text(screen.asks)
    if not lake_path().exists():
        _say_how_to_start()
        return
    problem: BadInput | LakeDamaged | None = None
    offered: dict[str, list[str]] = {}
    try:
        snapshot = open_snapshot(person.orgs)
        asked = scope.read(snapshot.data_through)
        offered = scope.choices(screen.fields, asked, snapshot)
    except (BadInput, LakeDamaged) as error:
        problem = error
    scope.draw(screen.fields, offered)
    _warn_of_unknown(screen.parameters)
    try:
        if problem is not None:
            raise problem
        screen.show(View(snapshot, asked, pages))
    except (BadInput, LakeDamaged) as error:
        notice.trouble(error)


def _link_to(pages: dict[str, st.Page], person: Person) -> None:
    """Links in the sidebar that carry the scope along, so that a filter stays set from page to page."""
    carried = scope.kept()
    with st.sidebar:
        st.header("errata", anchor=False)
        st.page_link(pages[OVERVIEW], icon=":material/space_dashboard:", query_params=carried)
        st.page_link(pages[REQUEST], icon=":material/search:", query_params=carried)
        st.page_link(pages[CONSOLE], icon=":material/terminal:", query_params=carried)
        st.caption("Questions")
        for name in questions():
            st.page_link(pages[name], query_params=carried)
        door.draw_way_out(person)


def _warn_of_unknown(known: set[str]) -> None:
    unknown = sorted(set(st.query_params) - known)
    if unknown:
        notice.caution("The address has parameters that this page does not know; they are ignored.", ", ".join(unknown))


def _say_how_to_start() -> None:
    lake = lake_path().absolute()
    st.info("No logs have been read yet. Read some, then reload this page.", icon=":material/inbox:")
    st.code(f"errata ingest /var/log/nginx/access.log* --lake {shlex.quote(str(lake))}", language="bash")


if __name__ == "__main__":
    main()
