"""What is true of a generated log: its planted incidents, in the words of the questions."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from benchmarks.verdicts.scoring import Accusation, Expectation, Span

# Whom a question accuses; every other one accuses callers.
SUBJECTS: Final[Mapping[str, str]] = {
    "approval_dwell": "org",
    "credit_outages": "org",
}
DAY: Final = timedelta(days=1)
# `behaviour` tells it of every client, planted or not, and `changes` of whatever came or went.
TOLD_OF_EVERYBODY: Final = frozenset({"retry_discipline", "what_changed"})
# What a question says in other words, by the name or the verdict of the incident.
WORDS: Final[Mapping[tuple[str, str], str]] = {
    ("approval_dwell", "approved on monday"): "approved",
    ("platform_incidents", "gateway 502"): "platform fault",
    ("keyless_callers", "misconfigured"): "misconfigured integration",
    ("validation_fields", "to[] must be a string since 3.0.0"): "since version",
}
# What a question is about where that is nobody, by the name of the incident.
MATTERS: Final[Mapping[str, str]] = {
    "recipients broken by textwire-node 3.0.0": "textwire-node 3.0.0 to[]",
    "template_rejected": "template_rejected POST /v1/messages",
}


@dataclass(frozen=True)
class NearMiss:
    """What a client is not, though it looks so."""

    name: str
    question: str
    verdict: str
    subjects: tuple[str, ...]
    span: Span

    def is_accused_by(self, accusation: Accusation) -> bool:
        """Whether the accusation falls for it."""
        about = (accusation.question, accusation.verdict) == (self.question, self.verdict)
        return about and accusation.subject in self.subjects and self.span.touches(accusation.span)


def expectations(folder: Path) -> Iterator[Expectation]:
    """One for each planted incident and whom it is about."""
    for incident in _incidents(folder):
        if incident["is_near_miss"] or incident["question"] in TOLD_OF_EVERYBODY:
            continue
        question = incident["question"]
        verdict = WORDS.get((question, incident["name"])) or WORDS.get((question, incident["verdict"]))
        name, span = incident["name"], _span(incident)
        for subject in subjects(incident):
            yield Expectation(question, verdict or incident["verdict"], subject, span, name, f"planted: {name}")


def changes(folder: Path) -> Iterator[Expectation]:
    """Which errors are more, or fewer, on the last day than on the day before, as what is planted came or went.

    Whoever names the code, the route, the organisation or the key of it is right; named must be what is planted to be.
    """
    told = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    midnight = datetime.fromisoformat(max(told["by_day"])).replace(tzinfo=UTC)
    today, yesterday = Span(midnight, midnight + DAY), Span(midnight - DAY, midnight)
    for incident in _incidents(folder):
        if incident["is_near_miss"]:
            continue
        now, before = (_overlap(_span(incident), day) for day in (today, yesterday))
        verdict = "more" if now >= 2 * before else "fewer" if before >= 2 * now else None
        is_named = incident["question"] == "what_changed"
        if is_named:
            verdict = "more"
        if verdict is None or now == before:
            continue
        route = incident.get("route", "").partition(" ")[2]
        whom = (
            incident["key_ids"] if is_named else (*incident["key_ids"], *incident["org_ids"], *incident["client_ips"])
        )
        for subject in dict.fromkeys([*whom, *([] if is_named else [*incident["codes"], *([route] if route else [])])]):
            yield Expectation("what_changed", verdict, subject, today, "change", "came or went", is_named)


def _overlap(span: Span, day: Span) -> timedelta:
    """How much of the day it lasts."""
    return max(min(span.end, day.end) - max(span.start, day.start), timedelta(0))


def near_misses(folder: Path) -> Iterator[NearMiss]:
    """Those that are planted."""
    for incident in _incidents(folder):
        if incident["is_near_miss"]:
            named = tuple(subjects(incident))
            yield NearMiss(incident["name"], incident["question"], incident["verdict"], named, _span(incident))


def subjects(incident: Mapping[str, Any]) -> list[str]:
    """Whom the question should name: organisations, or else the keys or, without one, the addresses."""
    if incident["name"] in MATTERS:
        return [MATTERS[incident["name"]]]
    if incident["question"] == "platform_incidents":
        return ["platform"]
    if incident["question"] == "contract_drift":
        return [" ".join([*incident["codes"], incident["route"]])]
    if SUBJECTS.get(incident["question"]) == "org":
        return list(incident["org_ids"])
    return list(incident["key_ids"] or incident["client_ips"])


def _incidents(folder: Path) -> list[dict[str, Any]]:
    incidents: list[dict[str, Any]] = json.loads((folder / "truth.json").read_text(encoding="utf-8"))["incidents"]
    return incidents


def _span(incident: Mapping[str, Any]) -> Span:
    """From its first error to its last, or where it has none, its window."""
    first, last = incident["first"] or incident["start"], incident["last"] or incident["end"]
    return Span(datetime.fromisoformat(first), datetime.fromisoformat(last))
