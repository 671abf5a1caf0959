"""What a page says when it cannot show what was asked. Text that came from elsewhere is never markup here."""

import re

import streamlit as st

from analysis import BadInput, LakeDamaged
from analysis.output import inert

__all__ = ["BadInput", "LakeDamaged", "caution", "trouble"]


def trouble(error: BadInput | LakeDamaged) -> None:
    """One message: whose turn it is, and below it what the error says."""
    title = "The lake is damaged." if isinstance(error, LakeDamaged) else "This cannot be answered as it is asked."
    st.error(f"{title}  \n{_literal(str(error))}", icon=":material/error:")


def caution(title: str, message: str) -> None:
    """A remark on a page that can be shown: `title` in our words, and below it `message` as it is."""
    st.warning(f"{title}  \n{_literal(message)}", icon=":material/warning:")


def _literal(text: str) -> str:
    """`text` as a Markdown code span, in which nothing is markup, an icon or a link."""
    line = inert(text)
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {line} {fence}"
