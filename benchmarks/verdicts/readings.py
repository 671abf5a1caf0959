"""What each question's rows say of whom: the verdicts, out of the form in which the question gives them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from benchmarks.verdicts.scoring import Accusation, Span

Row = Mapping[str, Any]

# What says nothing of anybody.
NEUTRAL: Final = frozenset({"not enough data", "NOT ENOUGH DATA"})


@dataclass(frozen=True)
class Reading:
    """Where a question's rows say what, of whom and when.

    `subject` are columns of which the first that is not NULL names the subject, or, where they are a `whole`, all that
    are not NULL. `start` is empty where a verdict is of all times. `neutral` are words of its own that accuse nobody.
    `naive` is the baseline that somebody without the question would go by.
    """

    verdict: Callable[[Row], Iterable[str | None]]
    subject: tuple[str, ...]
    start: str
    end: str
    naive: str
    is_whole: bool = False
    neutral: frozenset[str] = frozenset()

    def accusations(self, question: str, rows: Iterable[Row]) -> Iterator[Accusation]:
        """All that `rows`, the answer to `question`, say of anybody."""
        for row in rows:
            for verdict in self.verdict(row):
                subject = self._subject(row)
                if verdict is not None and verdict not in NEUTRAL | self.neutral and subject:
                    span = Span(moment(row[self.start]), moment(row[self.end])) if self.start else EVER
                    yield Accusation(question, verdict, subject, span)

    def _subject(self, row: Row) -> str:
        named = [str(row[column]) for column in self.subject if row[column] is not None]
        return " ".join(named) if self.is_whole else next(iter(named), "")


def moment(value: datetime | None) -> datetime:
    """The moment in UTC; of what has not ended, one that is far off."""
    return datetime(9999, 1, 1, tzinfo=UTC) if value is None else value.astimezone(UTC)


def column(name: str) -> Callable[[Row], Iterable[str | None]]:
    """The verdict that stands in a column."""
    return lambda row: (row[name],)


def constant(verdict: str, *, where: str) -> Callable[[Row], Iterable[str | None]]:
    """One verdict, in the rows that have a value in a column."""
    return lambda row: (verdict if row[where] is not None else None,)


def limited_per(row: Row) -> Iterable[str | None]:
    """What the limit counts."""
    return (f"limited per {row['limited_per']}",)


def manners(row: Row) -> Iterable[str | None]:
    """All that `retry_discipline` says of a client; of how it backs off only where it is judged by enough failures."""
    verdicts: list[str | None] = row["verdict"].split(" + ")
    if row["judged"] < 20:
        return verdicts
    return [*verdicts, row["backoff"], "lockstep" if row["is_lockstep"] else None]


def incident(row: Row) -> Iterable[str | None]:
    """One word for every incident: when it was is what counts."""
    return ("platform fault",) if row["verdict"] == "platform" else (row["verdict"],)


def direction(row: Row) -> Iterable[str | None]:
    """Whether there are more errors than before, or fewer."""
    return ({"NEW": "more", "RETURNED": "more", "UP": "more", "DOWN": "fewer", "GONE": "fewer"}.get(row["kind"]),)


# `retry_discipline` judges the whole time that it is asked for.
EVER: Final = Span(datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))

READINGS: Final[Mapping[str, Reading]] = {
    "blocked_resends": Reading(
        column("verdict"), ("caller",), "first_seen", "last_seen", "60 s", neutral=frozenset({"occasional"})
    ),
    "contract_drift": Reading(
        column("drift"), ("code", "method", "route"), "first_seen", "last_seen", "yesterday", is_whole=True
    ),
    "enumeration": Reading(column("verdict"), ("caller",), "first_seen", "last_seen", "403"),
    "idempotency_misuse": Reading(
        column("verdict"),
        ("caller",),
        "first_seen",
        "last_seen",
        "60 s",
        neutral=frozenset({"occasional", "keys not logged"}),
    ),
    "keyless_callers": Reading(column("verdict"), ("client_ip",), "first_seen", "last_seen", "403"),
    "rejected_keys": Reading(
        column("verdict"), ("caller",), "first_seen", "last_seen", "403", neutral=frozenset({"works again"})
    ),
    "scope_misuse": Reading(column("verdict"), ("caller",), "first_seen", "last_seen", "403"),
    "retry_discipline": Reading(manners, ("name",), "", "", "60 s"),
    "retry_storms": Reading(constant("storm", where="culprit"), ("culprit",), "started_at", "ended_at", "60 s"),
    "platform_incidents": Reading(incident, ("verdict",), "started_at", "ended_at", "yesterday"),
    "rate_limit_causes": Reading(column("cause"), ("caller",), "started_at", "ended_at", "60 s"),
    "rate_limit_hot_spots": Reading(limited_per, ("caller",), "first_seen", "last_seen", "60 s"),
    "approval_dwell": Reading(
        column("state"), ("org_id", "caller"), "first_refused_at", "last_refused_at", "yesterday"
    ),
    "credit_outages": Reading(column("verdict"), ("org_id", "caller"), "started_at", "ended_at", "yesterday"),
    "what_changed": Reading(direction, ("key", "org_id", "route", "code"), "", "", "yesterday"),
    "validation_fields": Reading(
        column("verdict"),
        ("sdk", "sdk_version", "field"),
        "first_seen",
        "last_seen",
        "yesterday",
        is_whole=True,
        neutral=frozenset({"one client", "many clients", "details not readable"}),
    ),
}
