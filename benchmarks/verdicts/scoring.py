"""Precision and recall of accusations against a truth. Knows neither logs nor questions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

# A truth dates a request by its start, a question mostly by its end, and gateways give up after 30 s.
SLACK = timedelta(seconds=31)


@dataclass(frozen=True)
class Span:
    """A stretch of time, both ends included."""

    start: datetime
    end: datetime

    def touches(self, other: "Span") -> bool:
        """Whether both have a moment in common, give or take how differently moments are dated."""
        return self.start <= other.end + SLACK and other.start <= self.end + SLACK


@dataclass(frozen=True)
class Accusation:
    """What a question says of a subject: a key, an address, an organisation, or what else it is about."""

    question: str
    verdict: str
    subject: str
    span: Span


@dataclass(frozen=True)
class Expectation:
    """What is true of a subject. Who says so is right; only what `is_required` is missed where nobody does.

    `reason` tells why it is true; `name` is that of the planted incident or of the behaviour.
    """

    question: str
    verdict: str
    subject: str
    span: Span
    name: str
    reason: str = ""
    is_required: bool = True

    def is_met_by(self, accusation: Accusation) -> bool:
        """Whether the accusation says this, of the same subject and of the same time."""
        same = (self.question, self.verdict, self.subject)
        said = (accusation.question, accusation.verdict, accusation.subject)
        return same == said and self.span.touches(accusation.span)


@dataclass(frozen=True)
class Score:
    """How often a verdict is right. Rows that say one thing of one subject in one incident, or day, are one."""

    expected: int
    found: int
    right: int
    recalled: int

    @property
    def precision(self) -> float | None:
        """The part of what was said that is true; None where nothing was said."""
        return self.right / self.found if self.found else None

    @property
    def recall(self) -> float | None:
        """The part of what is required that was said; None where nothing is required."""
        return self.recalled / self.expected if self.expected else None

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.expected + other.expected,
            self.found + other.found,
            self.right + other.right,
            self.recalled + other.recalled,
        )


NOTHING = Score(0, 0, 0, 0)


@dataclass(frozen=True)
class Judgement:
    """The scores by (question, verdict), and by whom or what they fall short of 1."""

    scores: Mapping[tuple[str, str], Score]
    missed: tuple[Expectation, ...]
    false_alarms: tuple[Accusation, ...]

    @property
    def overall(self) -> Score:
        """All verdicts together: the micro-average."""
        return sum(self.scores.values(), NOTHING)


def judge(accusations: Iterable[Accusation], expectations: Iterable[Expectation]) -> Judgement:
    """`accusations` measured by `expectations`: whatever is said and not expected is a false alarm."""
    expected, said = tuple(expectations), tuple(accusations)
    met: dict[Expectation, None] = {}
    false: dict[tuple[object, ...], Accusation] = {}
    for accusation in said:
        meets = [expectation for expectation in expected if expectation.is_met_by(accusation)]
        met |= dict.fromkeys(meets)
        if not meets:
            day = accusation.span.start.date()
            false.setdefault((accusation.question, accusation.verdict, accusation.subject, day), accusation)
    verdicts = {(item.question, item.verdict) for item in expected} | {(one.question, one.verdict) for one in said}
    scores = {verdict: _score(verdict, expected, met, false.values()) for verdict in sorted(verdicts)}
    missed = tuple(item for item in expected if item.is_required and item not in met)
    return Judgement(scores, missed, tuple(false.values()))


def _score(
    verdict: tuple[str, str],
    expected: Iterable[Expectation],
    met: Mapping[Expectation, None],
    false: Iterable[Accusation],
) -> Score:
    required = [item for item in expected if item.is_required and (item.question, item.verdict) == verdict]
    right = sum((item.question, item.verdict) == verdict for item in met)
    wrong = sum((item.question, item.verdict) == verdict for item in false)
    return Score(len(required), right + wrong, right, sum(item in met for item in required))
