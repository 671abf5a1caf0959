"""What is worth a person's attention in the answers of a period: a sentence for each, with an id that stays.

Knows which words of which question accuse or warn, and in which order a morning reads them. Finds nothing itself.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from analysis.output import cell_text

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Notable:
    """One finding. `id` is that of the same finding tomorrow: what was found about whom, without counts and moments."""

    question: str
    id: str
    sentence: str


@dataclass(frozen=True)
class Subject:
    """How a question's rows are told.

    `word` is the column that says what was found, and `quiet` those of its words that are no news; where `only` names a
    column, a row is told where that is true. `who` are the columns that name whom; `facts` those that say how much and
    since when.
    """

    question: str
    what: str
    word: str
    who: tuple[str, ...]
    facts: tuple[str, ...] = ()
    quiet: frozenset[str] = frozenset()
    only: str | None = None


_NO_VERDICT: Final = "not enough data"

SUBJECTS: Final = (
    Subject("what_changed", "Change", "kind", ("code", "route", "org_id", "key"), quiet=frozenset({"NOT ENOUGH DATA"})),
    Subject(
        "platform_incidents",
        "Faults of the platform",
        "verdict",
        ("method", "route"),
        ("faults", "fault_rate", "started_at", "ended_at", "orgs_hit", "top_customer"),
    ),
    Subject(
        "error_budget",
        "Error budget",
        "alert",
        (),
        ("burn_rate", "threshold", "faults", "requests", "window_h"),
        only="is_burning",
    ),
    Subject(
        "blame_split",
        "Whose fault",
        "blame",
        ("code", "method", "route"),
        ("orgs", "started_at", "ended_at"),
        frozenset({"client", "authorization", "pacing", "account", "recipient", "platform"}),
    ),
    Subject("retry_storms", "Retry storm", "severity", ("method", "route", "culprit"), ("requests", "started_at")),
    Subject(
        "scope_misuse", "Scope misuse", "verdict", ("caller", "org_id"), ("method", "route", "refused", "first_seen")
    ),
    Subject(
        "credit_outages",
        "Credits",
        "verdict",
        ("org_id", "caller"),
        ("attempts", "started_at", "ended_at"),
        frozenset({_NO_VERDICT}),
    ),
    Subject(
        "approval_dwell",
        "Approval",
        "state",
        ("org_id", "caller"),
        ("attempts", "waiting_days"),
        frozenset({_NO_VERDICT, "approved", "approved again"}),
    ),
    Subject(
        "rejected_keys",
        "Rejected keys",
        "verdict",
        ("caller", "org_id"),
        ("calls", "last_seen"),
        frozenset({_NO_VERDICT, "works again", "never worked"}),
    ),
    Subject(
        "retry_discipline",
        "Retries",
        "verdict",
        ("name", "org_id"),
        quiet=frozenset({_NO_VERDICT, "well-behaved", "does not retry"}),
    ),
    Subject(
        "blocked_resends",
        "Blocked recipients",
        "verdict",
        ("caller", "org_id"),
        ("refused", "recipients", "last_seen"),
        frozenset({_NO_VERDICT, "occasional"}),
    ),
    Subject(
        "enumeration",
        "Ids tried",
        "verdict",
        ("caller", "org_id", "route"),
        ("not_found", "distinct_ids"),
        frozenset({_NO_VERDICT, "stale references", "typo'd route", "crawler"}),
    ),
    Subject("contract_drift", "Contract", "drift", ("code", "method", "route"), ("errors", "expected", "found")),
)
"""In the order of a morning: what changed, faults, customers in trouble, clients, our own contract."""


def notable(answers: Mapping[str, Iterable[Row]]) -> tuple[Notable, ...]:
    """The findings in `answers`, all rows by question, in the order of SUBJECTS; each is told once."""
    found: dict[str, Notable] = {}
    for subject in SUBJECTS:
        for finding in _told(subject, answers.get(subject.question, ())):
            found.setdefault(finding.id, finding)
    return tuple(found.values())


def _told(subject: Subject, rows: Iterable[Row]) -> Iterator[Notable]:
    for row in rows:
        word = row[subject.word]
        if word not in subject.quiet and (subject.only is None or row[subject.only]):
            who = [str(row[name]) for name in subject.who if row[name] is not None]
            # Two spellings of one list of names cannot be mistaken for each other: the parts are separated by NUL.
            name = "\0".join([subject.question, word, *who])
            identity = hashlib.sha256(name.encode()).hexdigest()[:16]
            yield Notable(subject.question, identity, row.get("sentence") or _sentence(subject, word, who, row))


def _sentence(subject: Subject, word: str, who: Iterable[str], row: Row) -> str:
    facts = [f"{name.replace('_', ' ')} {_fact(row[name])}" for name in subject.facts if row[name] is not None]
    named = ", ".join([word, *([" ".join(who)] if who else [])])
    return f"{subject.what}: {named}" + (f" ({', '.join(facts)})." if facts else ".")


def _fact(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if isinstance(value, float) else cell_text(value)
