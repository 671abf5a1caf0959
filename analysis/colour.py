"""The colour of a series: an error code has the same one in every chart.

Each can be seen on a white and on a black page.
"""

import re
from collections.abc import Sequence
from typing import Final
from zlib import crc32

NO_NAME: Final = "(none)"
NEUTRAL_INK: Final = "#808790"
"""Colour of text and axes that can be read on white and on black."""

# A hue per category of the default catalogue, and lightness apart within it: searched so that no two are closer than
# 0.07 in OKLab for full colour vision, protanopia, deuteranopia or tritanopia (Machado et al. 2009).
CODE_COLOURS: Final = {
    "validation_failed": "#4e7aae",
    "not_found": "#20befb",
    "idempotency_key_reused": "#1a599e",
    "missing_api_key": "#9b7ce5",
    "insufficient_scope": "#c1a1cb",
    "invalid_api_key": "#6b326c",
    "scope_invalid": "#834fce",
    "idempotency_in_progress": "#e3a906",
    "rate_limited": "#d87a2c",
    "approval_required": "#30522f",
    "insufficient_credits": "#52ac6c",
    "dnc_blocked": "#a14270",
    "opted_out": "#9e7282",
    "internal_error": "#c64938",
}

# Paul Tol's scheme "bright" without its grey, and two of "muted": https://personal.sron.nl/~pault/
_OTHER_COLOURS: Final = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999933", "#882255")
_GREY: Final = "#8a8f98"
_GREY_LABELS: Final = re.compile(r"\(none\)|\(no code\)|other \(\d+ more\)")


def colour_of(label: str) -> str:
    """The colour of an error code or of any other series, by its name; grey for the rest and for what has no name."""
    if _GREY_LABELS.fullmatch(label):
        return _GREY
    return CODE_COLOURS.get(label) or _OTHER_COLOURS[crc32(label.encode()) % len(_OTHER_COLOURS)]


def colours_of(labels: Sequence[str]) -> list[str]:
    """The colour of each label of one chart; one that is no default code steps aside for those before it."""
    taken: list[str] = []
    for label in labels:
        colour = colour_of(label)
        if colour in taken and colour in _OTHER_COLOURS:
            colour = next((other for other in _OTHER_COLOURS if other not in taken), colour)
        taken.append(colour)
    return taken
