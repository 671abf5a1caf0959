"""The door that every run of a page goes through first: nothing of the lake is read before it has let somebody in.

Knows sign-in as Streamlit does it, and what is drawn for who stays outside. Who may enter is `dashboard.access`.
"""

import os
from pathlib import Path
from typing import Final, NoReturn

import streamlit as st

from analysis import BadInput
from analysis.output import inert
from dashboard import AUTH_VARIABLE
from dashboard.access import NotAllowed, Person, read_access

_TITLE: Final = "errata"


def admitted() -> Person:
    """Who is looking. Where sign-in is asked for and this is nobody who may, draws what to do and ends the run.

    The file is read at every run: who is taken off its lists is outside from the next click on.
    """
    path = os.environ.get(AUTH_VARIABLE)
    if not path:
        return Person()
    try:
        access = read_access(Path(path))
    except BadInput:
        _refuse(
            "Nobody can be let in: the file that says who may is not usable. Tell the person who runs the dashboard."
        )
    claims = st.user.to_dict()
    if claims.get("is_logged_in") is not True:
        st.title(_TITLE, anchor=False)
        st.button("Sign in", on_click=st.login, type="primary")
        st.stop()
    try:
        return access.person(claims)
    except NotAllowed as refusal:
        _refuse(str(refusal))


def draw_way_out(person: Person) -> None:
    """Who is signed in, and a button that ends it."""
    if person.email is not None:
        st.divider()
        st.text(inert(person.email))
        _sign_out()


def _refuse(reason: str) -> NoReturn:
    st.title(_TITLE, anchor=False)
    st.text(inert(reason))
    _sign_out()
    st.stop()


def _sign_out() -> None:
    st.button("Sign out", on_click=st.logout)
