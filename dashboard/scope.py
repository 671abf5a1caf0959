"""What part of the lake a page is about: the period, the filters and the time zone, all of them in the address."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import available_timezones

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from analysis import Question, questions
from analysis.moments import utc_moment, zone_named
from dashboard import address
from dashboard.notice import BadInput
from dashboard.snapshot import Snapshot


@dataclass(frozen=True)
class Filter:
    """A filter of every page: what a person reads, the questions' parameter, and where its values are found."""

    label: str
    help: str
    parameter: str
    question: str
    column: str


FILTERS: Final = {
    "org": Filter("Organisation", "The id of one organisation.", "for_org", "errors_by_org", "org_id"),
    "key": Filter(
        "Key", "One caller: a key's id or fingerprint, or a client's address.", "for_key", "errors_by_key", "key"
    ),
    "code": Filter("Code", "One error code.", "for_code", "errors_by_code", "code"),
    "route": Filter("Route", "One route, its ids folded: /v1/messages/{id}.", "for_route", "errors_by_route", "route"),
}
"""By the name in the address."""

NAMES: Final = ("period", "since", "until", "tz", *FILTERS)
"""The parameters of the address that every page shares."""

FIELDS: Final = {"period", "tz", *FILTERS}
"""Every field of the scope; the period brings its own two moments along."""

PARAMETERS: Final = {"since", "until", "tz", *(one.parameter for one in FILTERS.values())}
"""The parameters of questions that the scope gives."""

_PERIODS: Final = {
    "24h": "Last 24 hours",
    "7d": "Last 7 days",
    "30d": "Last 30 days",
    "today": "Today",
    "yesterday": "Yesterday",
    "all": "All data",
    "custom": "From ... until ...",
}
_LENGTHS: Final = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30)}
_MOMENT: Final = (
    "2026-11-01, 2026-11-01T10:00, today, yesterday, or a look-back such as 6h or 7d; in the time zone chosen."
)
_FORMAT: Final = "%Y-%m-%d %H:%M"
_MOST_CHOICES: Final = 500
_FIELDS_A_ROW: Final = 4


@dataclass(frozen=True)
class Scope:
    """The part of the lake that is asked about. `since` and `until` are naive and in UTC, as the questions take them.

    `filters` are by name in the address. `data_through` is the latest request there is, None in a lake without one.
    """

    since: datetime | None
    until: datetime | None
    zone: str
    filters: Mapping[str, str]
    data_through: datetime | None

    def parameters(self, question: Question) -> dict[str, object]:
        """Those of the scope's values that the question takes, by its parameters' names."""
        taken = {parameter.name for parameter in question.parameters}
        offered = {"since": self.since, "until": self.until, "tz": self.zone}
        offered |= {FILTERS[name].parameter: text for name, text in self.filters.items()}
        return {name: offer for name, offer in offered.items() if name in taken and offer is not None}

    def unused(self, question: Question) -> list[str]:
        """Labels of the filters that are set and that the question does not take."""
        taken = fields_of(question)
        return [FILTERS[name].label for name in self.filters if name not in taken]

    def previous(self) -> "Scope | None":
        """The equally long period before this one; None where this one has no start or no end."""
        end = self._end()
        if self.since is None or end is None:
            return None
        try:
            return replace(self, since=self.since - (end - self.since), until=self.since)
        except OverflowError:
            return None

    def period(self) -> str:
        """The period in words, in the scope's zone."""
        end = self._end()
        if self.since is None:
            return f"Everything up to {self.local(end)}" if end else "All data"
        return f"{self.local(self.since)} to {self.local(end) if end else 'now'}"

    def local(self, moment: datetime) -> str:
        """A moment (naive means UTC) as wall-clock time of the scope's zone."""
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        try:
            return aware.astimezone(zone_named(self.zone)).strftime(_FORMAT)
        except OverflowError:
            return moment.strftime(_FORMAT)

    def _end(self) -> datetime | None:
        """`until`, else the latest request; None where it came before `since`."""
        end = self.until or (self.data_through and self.data_through.astimezone(UTC).replace(tzinfo=None))
        return None if end and self.since and end <= self.since else end


def read(data_through: datetime | None) -> Scope:
    """The scope that the address means, its presets counted back from `data_through`; BadInput says what is wrong."""
    tz = address.value("tz") or "UTC"
    zone = zone_named(tz)
    # To the minute, so that a relative period is the same question, and its answer kept, for as long.
    now = datetime.now(UTC).replace(second=0, microsecond=0)

    def moment(name: str, text: str) -> datetime | None:
        return utc_moment(text, name=name, zone=zone, now=now) if text else None

    since: datetime | None = None
    until: datetime | None = None
    match address.value("period") or _default_period():
        case "custom":
            since, until = moment("since", address.value("since")), moment("until", address.value("until"))
        case _ if address.value("since") or address.value("until"):
            raise BadInput("the address has period beside since or until; keep one of them")
        case "today":
            since = moment("since", "today")
        case "yesterday":
            since, until = moment("since", "yesterday"), moment("until", "today")
        case length if length in _LENGTHS:
            since = data_through and _end_of_hour(data_through) - _LENGTHS[length]
        case unknown if unknown != "all":
            raise BadInput(f"period has value {unknown[:40]!r}; expected one of {', '.join(_PERIODS)}")
    if since and until and since >= until:
        raise BadInput(
            f"since is {since:{_FORMAT}}, until is {until:{_FORMAT}} (UTC); expected the first to be earlier"
        )
    filters = {name: address.value(name) for name in FILTERS if address.value(name)}
    return Scope(since, until, tz, filters, data_through)


def choices(fields: set[str], scope: Scope, snapshot: Snapshot) -> dict[str, list[str]]:
    """By filter among `fields`, the values that met errors in the period, those with the most first."""
    found = {}
    for name in FILTERS.keys() & fields:
        one = FILTERS[name]
        rows = snapshot.answer(one.question, **replace(scope, filters={}).parameters(questions()[one.question]))
        values = dict.fromkeys(value for value in rows[one.column].to_pylist() if value is not None)
        found[name] = list(values)[:_MOST_CHOICES]
    return found


def fields_of(question: Question) -> set[str]:
    """The fields that the question takes, by their names in the address; the time zone is for reading any answer."""
    taken = {parameter.name for parameter in question.parameters}
    filters = {name for name, one in FILTERS.items() if one.parameter in taken}
    return filters | {"tz"} | ({"period"} if "since" in taken else set())


def draw(fields: set[str], offered: Mapping[str, Sequence[str]]) -> None:
    """Draws `fields`, which change the address; `offered` is what each filter proposes."""
    cells = iter(st.columns(_FIELDS_A_ROW))
    if "period" in fields:
        _draw_period(cells)
    with next(cells):
        local = st.context.timezone
        first = dict.fromkeys([local, "UTC"] if local else ["UTC"])
        zones = [*first, *sorted(available_timezones() - set(first))]
        told = "An IANA name; that of your browser is on top."
        address.suggestion("tz", "Time zone", zones, default="UTC", help=told)
    filters = {name: one for name, one in FILTERS.items() if name in fields}
    if filters:
        for cell, (name, one) in zip(st.columns(_FIELDS_A_ROW), filters.items(), strict=False):
            with cell:
                address.suggestion(name, one.label, offered.get(name, ()), placeholder="all", help=one.help)


def _draw_period(cells: Iterator[DeltaGenerator]) -> None:
    with next(cells):
        told = "The last hours and days are counted back from the last request in the lake, today from the clock."
        default = _default_period()
        period = address.choice("period", "Period", _PERIODS, default=default, resets=("since", "until"), help=told)
    if period == "custom":
        with next(cells):
            address.text("since", "From", placeholder="the first request", help=_MOMENT)
        with next(cells):
            address.text("until", "Until", placeholder="the last request", help=f"Not included. {_MOMENT}")


def kept(*without: str, **changed: str) -> dict[str, str]:
    """The scope's part of the address with `changed` parameters and `without` others: what a link carries along."""
    found = {name: address.value(name) for name in NAMES if address.value(name)} | changed
    return {name: text for name, text in found.items() if name not in without}


def _default_period() -> str:
    return "custom" if address.value("since") or address.value("until") else "24h"


def _end_of_hour(moment: datetime) -> datetime:
    """The end of the hour that holds `moment`, naive: the buckets of the last 24 hours are whole hours."""
    start = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0, tzinfo=None)
    return start + timedelta(hours=1)
