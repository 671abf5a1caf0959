"""How a value of an answer is written for people: in a table of a report, one cell at a time.

Knows the names of columns and what a number, a rate, a change and a moment look like. Knows no markup: a cell is text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final

from analysis.output import cell_text, no_formula
from analysis.section import Section

_TITLES: Final = {
    "label": "Code",
    "org_id": "Organisation",
    "previous_errors": "Before",
    "week_before_errors": "Week before",
    "name": "Source",
    "reject_reasons": "Why",
    "rejected_codes": "Codes rejected",
    "is_cut": "Log cut",
    "truncated_bodies": "Cut bodies",
    "absent_bodies": "No body",
    "undecodable_bodies": "Undecodable",
    "caller_success_rate": "Caller's success",
    "sibling_key": "Key that may",
    "started_at": "Started",
    "ended_at": "Ended",
    "culprit_share": "Its share",
}
_FRACTIONS: Final = frozenset(
    {
        "rate",
        "share",
        "caller_success_rate",
        "culprit_share",
        "fault_rate",
        "error_share",
        "intent_share",
        "budget_left",
    }
)
# A missing one of these is a row of its own, and said to be; elsewhere nothing is an empty cell.
_WHO_OR_WHAT: Final = frozenset({"label", "org_id", "key", "caller", "method", "route", "culprit"})
# The words of errata and of the catalogue: every other text came out of a log.
_OWN_WORDS: Final = frozenset(
    {
        "owner",
        "verdict",
        "severity",
        "limited_per",
        "reject_reasons",
        "kind",
        "state",
        "drift",
        "history",
        "grade",
        "blame",
        "alert",
    }
)
# Beyond ten times as many, a percentage is no longer read as a multiple.
_MOST_PERCENT: Final = 9.0


@dataclass(frozen=True)
class Cell:
    """What a table shows of one value. A name is text that came out of a log; `fraction` is drawn as a bar."""

    text: str
    is_number: bool = False
    is_name: bool = False
    is_moment: bool = False
    fraction: float | None = None


def head(section: Section) -> list[Cell]:
    """The titles of the section's columns."""
    return [
        Cell(
            _TITLES.get(name) or name.replace("_", " ").capitalize(),
            is_number=any(cell(name, row, None).is_number for row in section.rows),
        )
        for name in section.topic.columns
    ]


def body(section: Section, zone: tzinfo | None) -> list[list[Cell]]:
    """The section's rows, moments as local times of `zone`."""
    return [[cell(name, row, zone) for name in section.topic.columns] for row in section.rows]


def cell(name: str, row: Mapping[str, Any], zone: tzinfo | None) -> Cell:
    """The column `name` of `row`. Text that a spreadsheet would take for a formula begins with an apostrophe."""
    value = row[name]
    if name == "change":
        return Cell(change(row), is_number=True)
    if name in _FRACTIONS:
        return Cell(percent(value), is_number=True, fraction=value if name == "share" else None)
    if value is None:
        return Cell("(none)" if name in _WHO_OR_WHAT else "")
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    if isinstance(value, int):
        return Cell(f"{value:,}", is_number=True)
    if isinstance(value, float):
        return Cell(f"{value:,.1f}", is_number=True)
    if isinstance(value, datetime):
        return Cell(f"{value.astimezone(zone):%Y-%m-%d %H:%M:%S}", is_moment=True)
    text = ", ".join(map(cell_text, value)) if isinstance(value, list) else cell_text(value)
    return Cell(no_formula(text), is_name=name not in _OWN_WORDS)


def percent(fraction: float | None) -> str:
    """A fraction in per cent with one digit after the point or, below 0.1 %, with two that count."""
    if fraction is None:
        return "unknown"
    return f"{fraction:.1%}" if abs(fraction) >= 0.001 or fraction == 0 else f"{fraction * 100:.2g}%"


def change(row: Mapping[str, Any]) -> str:
    """How much more than before: "+12%", "35 times", "same", "new" where there were none."""
    before, now = row["previous_errors"], row["errors"]
    if not before:
        return "new" if now else ""
    if now / before - 1 > _MOST_PERCENT:
        return f"{now / before:,.0f} times"
    return "same" if now == before else f"{now / before - 1:+.0%}"


def length(time: timedelta) -> str:
    """A length of time to the minute, or beyond a day to the hour: "8 min", "6 d 13 h"."""
    minutes = max(int(time.total_seconds() // 60), 0)
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
