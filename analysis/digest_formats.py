"""A digest as Markdown, as one HTML file and as JSON.

Knows formats and how a number is written for people. Text that came out of a log stays text in each of them: no markup,
no link, no formula, no control character. The three hold the same numbers.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, Final

import jinja2
import pandas as pd
import vl_convert
from markupsafe import Markup

from analysis.chart import chart
from analysis.digest import DEFINITION_OF_ERROR, DEFINITION_OF_FAULTS, Digest, Section
from analysis.output import cell_text, inert, plain
from analysis.question import find

_TEMPLATES: Final = Path(__file__).with_name("templates")
_CHART_WIDTH: Final = 720
_DRAWN: Final = ("error_trend", "errors_by_code")

_TITLES: Final = {
    "label": "Code",
    "org_id": "Organisation",
    "client_ips": "IPs",
    "previous_errors": "Before",
    "change": "Change",
}
_FAULT_TITLES: Final = {
    "platform": "Platform faults",
    "rate_limited": "Rate limited (429)",
    "client": "Client errors",
}
_FRACTIONS: Final = ("rate", "share", "previous_rate", "share_of_caller")
_NAMES: Final = frozenset({"label", "code", "org_id", "key", "caller", "method", "route"})
_OWN_WORDS: Final = frozenset({"owner", "verdict", "limited_per"})
# Beyond ten times as many, a percentage is no longer read as a multiple.
_MOST_PERCENT: Final = 9.0
_MARKDOWN: Final = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {mark: f"\\{mark}" for mark in ("\\", "|", "`", "*", "_", "[", "]")}
)


@dataclass(frozen=True)
class Cell:
    """What a table shows of one value. A name is text that came out of a log; `fraction` is drawn as a bar."""

    text: str
    is_number: bool = False
    is_name: bool = False
    fraction: float | None = None


def as_markdown(digest: Digest) -> str:
    """GitHub-flavoured Markdown: headings and tables, no HTML."""
    return _markdown().get_template("report.md").render(_words(digest))


def as_html(digest: Digest) -> str:
    """One self-contained page: its style and its charts are inside, it runs no script and loads nothing."""
    style = (_TEMPLATES / "report.css").read_text("utf-8")
    style_hash = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    charts = {
        section.question: _drawn(section, digest, "stacked" if section is digest.trend else None)
        for section in (digest.trend, digest.codes, *digest.sections)
        if section.question in _DRAWN
    }
    return (
        _html()
        .get_template("report.html")
        .render(
            _words(digest),
            style=Markup(style),  # noqa: S704 - our own file
            style_hash=style_hash,
            charts=charts,
        )
    )


def as_json(digest: Digest) -> str:
    """The same facts for programs.

    Moments are ISO 8601 in UTC, rates and shares are fractions, what is unknown is null::

        {"lake", "period": {"since", "until", "tz", "is_over", "previous_since"}, "made_at", "data_through",
         "definition_of_error", "definition_of_faults", "notes": [text],
         "totals": {"requests", "errors", "rate", "previous_requests", "previous_errors", "previous_rate"},
         "values": {name: number}, "findings": [{"rule", "name", "value", "limit"}],
         "sections": {question: {"heading", "command", "row_count", "rows": [{column: value}]}}}

    `values` are the numbers that --fail-on knows. A section has the columns of its question, and the first rows of
    `row_count`. Keys may be added, none is renamed or removed.
    """
    document = {
        "lake": str(digest.lake),
        "period": {
            "since": digest.period.since,
            "until": digest.period.until,
            "tz": digest.period.tz,
            "is_over": digest.period.is_over,
            "previous_since": digest.period.previous_since,
        },
        "made_at": digest.made_at,
        "data_through": digest.data_through,
        "definition_of_error": DEFINITION_OF_ERROR,
        "definition_of_faults": DEFINITION_OF_FAULTS,
        "notes": digest.notes,
        "totals": {
            "requests": digest.totals.requests,
            "errors": digest.totals.errors,
            "rate": digest.totals.rate,
            "previous_requests": digest.totals.previous_requests,
            "previous_errors": digest.totals.previous_errors,
            "previous_rate": digest.totals.previous_rate,
        },
        "values": digest.values,
        "findings": [
            {"rule": found.rule.text, "name": found.rule.name, "value": found.value, "limit": found.rule.limit}
            for found in digest.findings
        ],
        "sections": {
            section.question: {
                "heading": section.heading,
                "command": section.command,
                "row_count": section.row_count,
                "rows": section.rows,
            }
            for section in (digest.faults, digest.trend, digest.codes, *digest.sections)
        },
    }
    # "<" as an escape too: the text may be pasted into a page.
    return json.dumps(plain(_in_utc(document)), indent=2).replace("<", "\\u003c") + "\n"


FORMATS: Final[Mapping[str, Callable[[Digest], str]]] = {
    "markdown": as_markdown,
    "html": as_html,
    "json": as_json,
}


def _words(digest: Digest) -> dict[str, Any]:
    """What both templates are given."""
    zone = digest.period.since.tzinfo
    return {
        "digest": digest,
        "definition": DEFINITION_OF_ERROR,
        "definition_of_faults": DEFINITION_OF_FAULTS,
        "faults": [row for name in _FAULT_TITLES for row in digest.faults.rows if row["fault"] == name],
        "fault_titles": _FAULT_TITLES,
        "freshness": _freshness(digest),
        "heads": lambda section: [Cell(_title(name), name in _numbers_of(section)) for name in section.columns],
        "cells": lambda section: [[_cell(name, row, zone) for name in section.columns] for row in section.rows],
        "percent": _percent,
        "change": _change,
        "moment": lambda moment: f"{moment.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}",
    }


def _cell(name: str, row: Mapping[str, Any], zone: tzinfo | None) -> Cell:
    value = row[name]
    if name == "change":
        return Cell(_change(row), is_number=True)
    if name in _FRACTIONS:
        return Cell(_percent(value), is_number=True, fraction=value if name == "share" else None)
    if value is None:
        return Cell("(none)" if name in _NAMES else "")
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    if isinstance(value, int):
        return Cell(f"{value:,}", is_number=True)
    if isinstance(value, float):
        return Cell(f"{value:,.1f}", is_number=True)
    if isinstance(value, datetime):
        return Cell(f"{value.astimezone(zone):%Y-%m-%d %H:%M:%S}")
    text = ", ".join(map(cell_text, value)) if isinstance(value, list) else cell_text(value)
    return Cell(_no_formula(text), is_name=name not in _OWN_WORDS)


def _numbers_of(section: Section) -> set[str]:
    return {
        name
        for name in section.columns
        if name == "change" or any(isinstance(row[name], int | float) for row in section.rows)
    }


def _title(name: str) -> str:
    return _TITLES.get(name) or name.replace("_", " ").capitalize()


def _percent(fraction: float | None) -> str:
    """A fraction in per cent with one digit after the point or, below 0.1 %, with two that count."""
    if fraction is None:
        return "unknown"
    return f"{fraction:.1%}" if fraction >= 0.001 or fraction == 0 else f"{fraction * 100:.2g}%"


def _change(row: Mapping[str, Any]) -> str:
    """How much more than before: "+12%", "35 times", "same", "new" where there were none."""
    before, now = row["previous_errors"], row["errors"]
    if not before:
        return "new" if now else ""
    if now / before - 1 > _MOST_PERCENT:
        return f"{now / before:,.0f} times"
    return "same" if now == before else f"{now / before - 1:+.0%}"


def _freshness(digest: Digest) -> str:
    """How long before the report the data ends: "8 min", "6 d 13 h"."""
    if digest.data_through is None:
        return ""
    minutes = max(int((digest.made_at - digest.data_through).total_seconds() // 60), 0)
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def _drawn(section: Section, digest: Digest, kind: str | None = None) -> Markup | None:
    """The section's chart as SVG in the colour of the text around it; None where there is nothing to draw."""
    marks = chart(
        find(section.question), pd.DataFrame(list(section.rows)), kind=kind, tz=digest.period.tz, ink="currentColor"
    )
    if marks is None:
        return None
    svg: str = vl_convert.vegalite_to_svg(marks.properties(width=_CHART_WIDTH).to_dict())
    # Ids are of the whole page, and each chart counts its clips from 1.
    svg = re.sub(r'(id="|url\(#)clip', rf"\1{section.question}_clip", svg)
    return Markup(re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg, count=2))  # noqa: S704 - vl-convert escapes what it draws


def _no_formula(text: str) -> str:
    """`text` so that a spreadsheet that a table is pasted into does not compute it."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _markdown() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        finalize=_markdown_text,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - the format is Markdown, and `finalize` escapes it
    )
    environment.filters["code"] = _markdown_code
    return environment


def _html() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inert"] = inert
    return environment


def _markdown_text(value: object) -> object:
    return value if isinstance(value, Markup | int) else inert(str(value)).translate(_MARKDOWN)


def _markdown_code(text: str) -> Markup:
    """`text` as a code span, in which nothing is markup and no address is a link.

    A span cannot hold a backtick, nor a bar in every table: such text is written in character references.
    """
    text = inert(text)
    if "`" in text or "|" in text:
        written = "".join(char if char.isalnum() or char == " " else f"&#{ord(char)};" for char in text)
    else:
        written = f"`{text}`"
    return Markup(written)  # noqa: S704 - inert Markdown


def _in_utc(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, Mapping):
        return {key: _in_utc(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_in_utc(item) for item in value]
    return value
