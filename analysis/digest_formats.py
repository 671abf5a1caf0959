"""A digest as Markdown, as one HTML file and as JSON.

Knows formats. Text that came out of a log stays text in each of them: no markup,
no link, no formula, no control character. The three hold the same numbers.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import jinja2
import pandas as pd
import vl_convert
from markupsafe import Markup

from analysis.cell import body, change, head, length, percent
from analysis.chart import chart
from analysis.digest import DEFINITION_OF_ERROR, DEFINITION_OF_FAULTS, Digest
from analysis.output import inert, markdown_code, plain
from analysis.question import find
from analysis.section import Section

_TEMPLATES: Final = Path(__file__).with_name("templates")
_CHART_WIDTH: Final = 720
_DRAWN: Final = ("error_trend", "errors_by_code")

_FAULT_TITLES: Final = {
    "platform": "Platform faults",
    "rate_limited": "Rate limited (429)",
    "client": "Client errors",
}
_MARKDOWN: Final = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {mark: f"\\{mark}" for mark in ("\\", "|", "`", "*", "_", "~", "[", "]")}
)


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
    page = _html().get_template("report.html")
    trusted = Markup(style)  # noqa: S704 - our own file
    return page.render(_words(digest), style=trusted, style_hash=style_hash, charts=charts)


def as_json(digest: Digest) -> str:
    """The same facts for programs.

    Moments are ISO 8601 in UTC, rates and shares are fractions, what is unknown is null::

        {"lake", "period": {"since", "until", "tz", "is_over", "previous_since"}, "made_at", "data_through",
         "definition_of_error", "definition_of_faults", "notes": [text],
         "totals": {"requests", "errors", "rate", "previous_requests", "previous_errors", "previous_rate"},
         "found": text, "notable": [{"question", "id", "sentence"}],
         "rejects": {reason: count}, "values": {name: number}, "findings": [{"rule", "name", "value", "limit"}],
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
        "found": digest.found,
        "notable": [
            {"question": found.question, "id": found.id, "sentence": found.sentence} for found in digest.notable
        ],
        "rejects": digest.rejects,
        "values": digest.values,
        "findings": [
            {"rule": found.rule.text, "name": found.rule.name, "value": found.value, "limit": found.rule.limit}
            for found in digest.findings
        ],
        "sections": {
            section.question: {
                "heading": section.topic.heading,
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
        "freshness": digest.data_through and length(digest.made_at - digest.data_through),
        "head": head,
        "body": lambda section: body(section, zone),
        "percent": percent,
        "change": change,
        "moment": lambda moment: f"{moment.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}",
    }


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


def _markdown() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        finalize=_markdown_text,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - the format is Markdown, and `finalize` escapes it
    )
    environment.filters["code"] = lambda text: Markup(markdown_code(text))  # noqa: S704 - inert Markdown
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


def _in_utc(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, Mapping):
        return {key: _in_utc(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_in_utc(item) for item in value]
    return value
