"""Whom an error is about: the one phone number or e-mail address that was masked in what the error says.

Knows the masks of `ingest.shapes`. What it gives is personal: the door makes keyed fingerprints of it.
"""

import re
from collections.abc import Iterable
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

SEVERAL: Final = ""
"""Stands for more than one recipient, or for one that other masks beside it leave unclear."""

_MASK: Final = r"\[(?:phone|email)\]"
_SPLIT: Final = re.compile(_MASK)

MACRO: Final = r"""
CREATE OR REPLACE MACRO normalised_recipient(value) AS CASE
    WHEN contains(value, '@') THEN lower(trim(value, ' <>"'''))
    WHEN regexp_matches(value, '^\+[1-9][0-9]{6,14}(?:[^0-9]|$)') THEN regexp_extract(value, '^\+[0-9]+')
    WHEN regexp_matches(value, '[\pL_]') THEN value
    ELSE regexp_replace(regexp_replace(trim(value), '^(?:00|\+)', '+'), '[^0-9+]', '', 'g')
END;
"""
"""One way to write a recipient: an address in lower case, the digits of a number with its + (or 00), else as it is.

Behind a number without gaps, a number in the next words is none of its digits.
"""


def masked_recipients(masked: pa.Array, plain: pa.Array) -> pa.Array:
    """The number or address behind the only such mask in each text of `masked`, null where there is none.

    `plain` is as `shapes.masked_and_plain` gives it. `SEVERAL` where there is more than one.
    """
    found = pa.nulls(len(masked), pa.string())
    is_personal = pc.and_(pc.is_valid(plain), pc.match_substring_regex(masked, _MASK).fill_null(False))
    if not pc.any(is_personal).as_py():
        return found
    pairs = zip(*(texts.filter(is_personal).to_pylist() for texts in (masked, plain)), strict=True)
    return pc.replace_with_mask(found, is_personal, pa.array([_recipient(*pair) for pair in pairs], pa.string()))


def only_recipient(found: Iterable[str | None]) -> str | None:
    """The one recipient of several texts, None where none of them has one, `SEVERAL` where they have more."""
    distinct = {recipient for recipient in found if recipient is not None}
    return distinct.pop() if len(distinct) == 1 else (SEVERAL if distinct else None)


def _recipient(masked: str, plain: str) -> str:
    before, after, *further = _SPLIT.split(masked)
    # Around a mask that is the only one, the text is as it was.
    if further or not (plain.startswith(before) and plain.endswith(after)):
        return SEVERAL
    return plain[len(before) : len(plain) - len(after)]
