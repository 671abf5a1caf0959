"""The facts of a report: one period of a lake, asked once, for every format and every rule.

Knows which questions make a report and in which order. Every number is an answer to a question or a sum over its rows,
so that `errata ask` gives the same.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Final

import duckdb

from analysis.damage import lake_errors
from analysis.findings import CODE_PREFIX, Finding, Rule, findings
from analysis.notable import SUBJECTS, Notable, notable
from analysis.period import Period, data_begins, data_through
from analysis.section import Section, Topic, ask, options
from analysis.unread import unread

DEFINITION_OF_ERROR: Final = (
    "An error is a response with an HTTP status of 400 or above, or with an error code in its body. "
    "Every rate is errors / requests."
)

DEFINITION_OF_FAULTS: Final = (
    "Rate limited: status 429, or a code that comes with it. Platform faults: codes that the platform owns and, "
    "without a known code, a status of 500 or above. Client errors: every other error."
)

# Rules on these count the rows of the question; on the others what was found.
_ROWS: Final = ("rate_limit_hot_spots", "scope_misuse")
_SILENCE_WORTH_A_NOTE: Final = timedelta(hours=1)
_IS_MET: Final = """
SELECT $code IN (SELECT code FROM catalogue)
    OR EXISTS (SELECT 1 FROM errors WHERE code = $code OR gateway_reason = $code)
"""
# The names of the numbers that a rule may ask for: of all errors, and of those of each fault.
_FAULT_VALUES: Final = {
    "any": ("errors", "error_rate"),
    "platform": ("platform_errors", "platform_error_rate"),
    "client": ("client_errors", "client_error_rate"),
    "rate_limited": ("rate_limited", "rate_limited_rate"),
}


@dataclass(frozen=True)
class Totals:
    """Requests and errors of the period and of the equally long one before; rates are None without requests."""

    requests: int
    errors: int
    previous_requests: int
    previous_errors: int

    @property
    def rate(self) -> float | None:
        """errors / requests."""
        return self.errors / self.requests if self.requests else None

    @property
    def previous_rate(self) -> float | None:
        """previous_errors / previous_requests."""
        return self.previous_errors / self.previous_requests if self.previous_requests else None


@dataclass(frozen=True)
class Digest:
    """What a report says. Moments are aware, rates are fractions and None where there were no requests.

    `notable` is what was found, in the order of a morning; `found` says that in a line, also where it is nothing.
    `faults` has a row each for rate_limited, platform and client or, without any request, none. `rejects` counts the
    lines that could not be read by reason. `values` has every number that a rule may ask for, by its name.
    """

    lake: Path
    period: Period
    made_at: datetime
    data_through: datetime | None
    totals: Totals
    notable: tuple[Notable, ...]
    faults: Section
    trend: Section
    codes: Section
    sections: tuple[Section, ...]
    rejects: Mapping[str, int]
    values: Mapping[str, float | None]
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def found(self) -> str:
        """How many findings there are, or that there is none, in a line."""
        if not self.notable:
            return f"Nothing found: {self.totals.requests:,} requests, and nothing about them needs anybody."
        return f"{len(self.notable):,} finding{'' if len(self.notable) == 1 else 's'}."


_FAULTS: Final = Topic("errors_by_fault", "Whose fault", (), "No requests in this period.", is_whole=True)
_TREND: Final = Topic("error_trend", "Over time", (), "No errors in this period.", is_whole=True)
_CODES: Final = Topic(
    "errors_by_code",
    "By code",
    ("label", "owner", "errors", "share", "rate", "orgs", "keys", "previous_errors", "change"),
    "No errors in this period.",
    is_whole=True,
)
_MORNING: Final = (
    Topic(
        "what_changed",
        "What changed",
        ("kind", "code", "method", "route", "org_id", "key", "errors", "previous_errors", "week_before_errors"),
        "Nothing changed by more than such days vary.",
    ),
    Topic(
        "platform_incidents",
        "Faults of the platform",
        ("verdict", "route", "started_at", "ended_at", "faults", "fault_rate", "expected", "orgs_hit", "reasons"),
        "No more faults of the platform than usual.",
    ),
    Topic(
        "error_budget",
        "Error budget",
        ("alert", "is_burning", "window_h", "faults", "requests", "burn_rate", "threshold", "budget_left"),
        "No requests to spend a budget on.",
        is_whole=True,
    ),
    Topic(
        "blame_split",
        "Problems by whose they are",
        ("blame", "intents", "intent_share", "errors", "error_share", "callers", "orgs", "code", "route"),
        "No errors in this period.",
        is_whole=True,
    ),
)
_MISUSE: Final = (
    Topic(
        "rate_limit_hot_spots",
        "Rate-limit hot spots",
        (
            *("caller", "org_id", "route", "limited_per", "rate_limited", "rate", "peak_per_minute", "longest_run"),
            "retried_too_early",
        ),
        "Nobody was rate limited.",
    ),
    Topic(
        "scope_misuse",
        "Scope misuse",
        ("verdict", "caller", "org_id", "method", "route", "refused", "codes", "caller_success_rate", "sibling_key"),
        "No key was refused for lack of scope.",
    ),
)
_CUSTOMERS: Final = (
    Topic(
        "credit_outages",
        "Out of credits",
        ("verdict", "org_id", "is_open", "started_at", "ended_at", "attempts", "distinct_intents", "earlier_outages"),
        "Nobody was out of credits.",
    ),
    Topic(
        "approval_dwell",
        "Waiting for approval",
        ("state", "org_id", "first_refused_at", "waiting_days", "attempts", "keeps_trying"),
        "Nobody was refused for want of an approval.",
    ),
    Topic(
        "rejected_keys",
        "Rejected keys",
        ("verdict", "caller", "org_id", "calls", "distinct_keys", "last_success", "last_seen"),
        "No key was rejected.",
    ),
    Topic(
        "retry_discipline",
        "Retry discipline",
        ("verdict", "name", "org_id", "client", "grade", "wasted_requests", "requests", "retried_too_early"),
        "Nobody had anything to retry.",
    ),
    Topic(
        "blocked_resends",
        "Sends to the blocked",
        ("verdict", "caller", "org_id", "refused", "sends", "share", "recipients", "resends", "codes"),
        "Nobody sent to a blocked recipient.",
    ),
    Topic(
        "enumeration",
        "Ids tried",
        ("verdict", "caller", "org_id", "route", "not_found", "distinct_ids", "longest_run", "other_tenants_ids"),
        "Nobody asked for what does not exist.",
    ),
    Topic(
        "contract_drift",
        "Our own contract",
        ("drift", "code", "method", "route", "errors", "share", "expected", "found", "history"),
        "Every error kept the contract.",
    ),
)
_COUNTED: Final = (
    Topic(
        "errors_by_org",
        "Organisations with the most errors",
        ("org_id", "errors", "share", "requests", "rate", "codes", "keys", "previous_errors", "change"),
        "No organisation met an error.",
    ),
    Topic(
        "errors_by_key",
        "Keys with the most errors",
        ("key", "org_id", "errors", "share", "requests", "rate", "codes", "previous_errors", "change"),
        "No key met an error.",
    ),
    Topic(
        "errors_by_route",
        "Routes with the most errors",
        ("method", "route", "errors", "share", "requests", "rate", "orgs", "previous_errors", "change"),
        "No route answered with an error.",
    ),
)
_STORMS: Final = Topic(
    "retry_storms",
    "Retry storms",
    (
        *("severity", "trigger_code", "route", "started_at", "ended_at", "amplification", "peak_per_second"),
        *("culprit", "culprit_share"),
    ),
    "No retry storm.",
    is_whole=True,
)


def digest(
    con: duckdb.DuckDBPyConnection,
    period: Period,
    *,
    lake: Path,
    catalog: Path | None = None,
    rules: Iterable[Rule] = (),
    top: int = 10,
    now: datetime,
) -> Digest:
    """The facts of `period`, with at most `top` rows a section (-1: all), and those of `rules` that hold.

    `lake` and `catalog` are where `con` was connected to, for the commands that give the same numbers. Raises as
    `analysis.answer` does.
    """
    where = options(lake, catalog)

    def asked(*topics: Topic, most: int = -1) -> list[Section]:
        return [ask(con, topic, period, options=where, top=most) for topic in topics]

    faults, trend, codes, storms = asked(_FAULTS, _TREND, _CODES, _STORMS)
    sections = [*asked(*_MORNING), storms, *asked(*_MISUSE, *_CUSTOMERS), *asked(*_COUNTED, most=top)]
    sources, rejects = unread(con, period, options=where, top=top)
    told = notable({section.question: section.rows for section in sections})
    values = _values(faults, codes, sections) | {
        "retry_storms": len({row["incident"] for row in storms.rows}),
        "rejects": sum(rejects.values()),
        "findings": len(told),
    }
    values |= {
        subject.question: sum(finding.question == subject.question for finding in told)
        for subject in SUBJECTS
        if subject.question not in values
    }
    return Digest(
        lake=lake,
        period=period,
        made_at=now.astimezone(period.since.tzinfo),
        data_through=data_through(con),
        totals=Totals(
            requests=max((row["requests"] for row in faults.rows), default=0),
            errors=sum(row["errors"] for row in faults.rows),
            previous_requests=max((row["previous_requests"] for row in faults.rows), default=0),
            previous_errors=sum(row["previous_errors"] for row in faults.rows),
        ),
        notable=told,
        faults=faults,
        trend=trend,
        codes=codes,
        sections=(*(section.first(top) for section in sections), sources),
        rejects=rejects,
        values=values,
        notes=tuple(_notes(con, period)),
        findings=findings(rules, values),
    )


def codes_never_met(con: duckdb.DuckDBPyConnection, rules: Iterable[Rule]) -> list[str]:
    """The codes of `rules` that neither the catalogue nor any error of the lake has: probably a typing error."""
    names = [rule.name.removeprefix(CODE_PREFIX) for rule in rules if rule.name.startswith(CODE_PREFIX)]
    with lake_errors():
        return [name for name in names if con.execute(_IS_MET, {"code": name}).fetchall() == [(False,)]]


def _values(faults: Section, codes: Section, sections: Iterable[Section]) -> dict[str, float | None]:
    requests = max((row["requests"] for row in faults.rows), default=0)
    errors = dict.fromkeys(_FAULT_VALUES, 0) | {row["fault"]: row["errors"] for row in faults.rows}
    values: dict[str, float | None] = {"requests": requests}
    for fault, (count, rate) in _FAULT_VALUES.items():
        number = sum(errors.values()) if fault == "any" else errors[fault]
        values |= {count: number, rate: number / requests if requests else None}
    values["unknown_codes"] = sum(row["is_known_code"] is False for row in codes.rows)
    values |= {section.question: section.row_count for section in sections if section.question in _ROWS}
    for row in codes.rows:
        name = CODE_PREFIX + row["label"]
        values[name] = (values.get(name) or 0) + row["errors"]
    return values


def _notes(con: duckdb.DuckDBPyConnection, period: Period) -> Iterator[str]:
    """What a reader must know before comparing: where the lake does not cover the periods."""
    begins, through = data_begins(con), data_through(con)
    if begins is None or through is None:
        yield "The lake holds no requests."
        return
    zone = period.since.tzinfo
    if not period.is_over:
        yield "The period is not over: requests may still come in."
    elif period.until - through > _SILENCE_WORTH_A_NOTE:
        yield f"The data ends at {_told(through, zone)}, before the end of the period."
    if begins > period.since:
        yield f"The data begins at {_told(begins, zone)}: there is nothing to compare the period with."
    elif begins > period.previous_since + _SILENCE_WORTH_A_NOTE:
        yield f"The data begins at {_told(begins, zone)}, within the period before, so its counts are too low."


def _told(moment: datetime, zone: tzinfo | None) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M %Z}"
