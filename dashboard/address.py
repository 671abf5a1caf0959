"""Widgets whose state is the page's address, so that what is seen can be reloaded, shared and gone back to.

The address wins: a widget shows what it says, changing the widget changes it. Values are handed out as the text that
stands there; whether that can be used is judged where it is used, so that a hand-written address gets a message.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import streamlit as st

from dashboard.notice import BadInput

_FLAGS: Final = {"true": True, "false": False}


def text(name: str, label: str, **options: Any) -> str:
    """The text of the parameter `name`, empty where there is none, from a field with the options of st.text_input."""
    _show(name, value(name))
    st.text_input(label, key=_key(name), on_change=_write, args=(name,), **options)
    return value(name)


def choice(
    name: str, label: str, options: Mapping[str, str], *, default: str, resets: Sequence[str] = (), **more: Any
) -> str:
    """The parameter `name`, chosen from the keys of `options`, which are shown as their values; else `default`.

    Choosing takes the parameters `resets` out of the address. A hand-written address may hold none of the options.
    """
    chosen = value(name) or default
    _show(name, chosen if chosen in options else default)
    st.selectbox(
        label,
        list(options),
        format_func=lambda option: options[option],
        key=_key(name),
        on_change=_write,
        args=(name, default, resets),
        **more,
    )
    return chosen


def suggestion(name: str, label: str, options: Sequence[str], *, default: str | None = None, **more: Any) -> None:
    """The parameter `name`, in a field that takes one of `options` or any other text; else `default`."""
    found = value(name) or default
    _show(name, found)
    known = list(options) if found is None or found in options else [found, *options]
    st.selectbox(
        label,
        known,
        index=None,
        accept_new_options=True,
        key=_key(name),
        on_change=_write,
        args=(name, default),
        **more,
    )


def number(name: str, label: str, *, is_whole: bool, **options: Any) -> str:
    """The text of the parameter `name`, empty where there is none, from a field for numbers."""
    found: float | None = None
    with suppress(ValueError):
        found = int(value(name)) if is_whole else float(value(name))
    _show(name, found)
    st.number_input(
        label, value=None, step=1 if is_whole else None, key=_key(name), on_change=_write, args=(name,), **options
    )
    return value(name)


def flag(name: str, label: str, *, default: bool = False, **options: Any) -> bool:
    """The parameter `name`, true or false in the address, from a switch. Raises BadInput where it is neither."""
    found = value(name).lower()
    is_on = _FLAGS.get(found, default)
    _show(name, is_on)
    st.toggle(label, key=_key(name), on_change=_write, args=(name, default), **options)
    if found and found not in _FLAGS:
        raise BadInput(f"{name} has value {found[:40]!r}; expected true or false")
    return is_on


def value(name: str) -> str:
    """The text of the parameter `name` without spaces around it, empty where there is none."""
    return str(st.query_params.get(name, "")).strip()


def _key(name: str) -> str:
    return f"address-{name}"


def _show(name: str, shown: object) -> None:
    st.session_state[_key(name)] = shown


def _write(name: str, default: object = None, resets: Sequence[str] = ()) -> None:
    """Writes the widget's value to the address; a default is left out, so that addresses stay short."""
    chosen = st.session_state[_key(name)]
    for other in resets:
        st.query_params.pop(other, None)
    if chosen in (default, None, ""):
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = str(chosen).lower() if isinstance(chosen, bool) else str(chosen)
