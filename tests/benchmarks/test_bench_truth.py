"""The scoring of verdicts on hand-made ones, and the whole benchmark on the sample capture."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.bench_truth import main
from benchmarks.verdicts import behaviour
from benchmarks.verdicts.readings import Reading, column
from benchmarks.verdicts.scoring import Accusation, Expectation, Score, Span, judge
from benchmarks.verdicts.true_requests import TrueRequest, TrueRequests

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def span(start_min: float = 0, end_min: float = 10) -> Span:
    """Minutes from noon."""
    return Span(NOON + timedelta(minutes=start_min), NOON + timedelta(minutes=end_min))


def said(subject: str, verdict: str = "storm", when: Span | None = None) -> Accusation:
    return Accusation("retry_storms", verdict, subject, when or span())


def true(subject: str, verdict: str = "storm", when: Span | None = None, *, is_required: bool = True) -> Expectation:
    return Expectation("retry_storms", verdict, subject, when or span(), "planted", is_required=is_required)


@pytest.mark.parametrize(
    ("accusations", "expectations", "score"),
    [
        pytest.param([said("a")], [true("a")], Score(1, 1, 1, 1), id="right"),
        pytest.param([said("a"), said("a")], [true("a")], Score(1, 1, 1, 1), id="said twice of one incident"),
        pytest.param([said("b")], [true("a")], Score(1, 1, 0, 0), id="of somebody else"),
        pytest.param([said("a", when=span(60, 70))], [true("a")], Score(1, 1, 0, 0), id="of another hour"),
        pytest.param([said("a", when=span(10.5, 20))], [true("a")], Score(1, 1, 1, 1), id="dated a little later"),
        pytest.param([said("a", when=span(10.6, 20))], [true("a")], Score(1, 1, 0, 0), id="dated too much later"),
        pytest.param([], [true("a")], Score(1, 0, 0, 0), id="missed"),
        pytest.param([said("a"), said("b")], [true("a")], Score(1, 2, 1, 1), id="an innocent beside the culprit"),
        pytest.param([], [true("a", is_required=False)], Score(0, 0, 0, 0), id="not said, nor required"),
        pytest.param([said("a")], [true("a", is_required=False)], Score(0, 1, 1, 0), id="said, not required, and true"),
        pytest.param(
            [said("a")], [true("a"), true("a", when=span(60, 70))], Score(2, 1, 1, 1), id="one incident of two"
        ),
        pytest.param(
            [said("b", when=span(0, 1)), said("b", when=span(1440, 1441))],
            [],
            Score(0, 2, 0, 0),
            id="wrong on two days",
        ),
    ],
)
def test_what_is_said_is_measured_by_what_is_true(
    accusations: list[Accusation], expectations: list[Expectation], score: Score
) -> None:
    assert judge(accusations, expectations).overall == score


def test_a_verdict_that_is_not_the_expected_one_is_wrong_and_a_miss() -> None:
    judgement = judge([said("a", "quiet")], [true("a", "storm")])
    assert judgement.scores == {
        ("retry_storms", "quiet"): Score(0, 1, 0, 0),
        ("retry_storms", "storm"): Score(1, 0, 0, 0),
    }
    assert judgement.missed == (true("a"),)
    assert judgement.false_alarms == (said("a", "quiet"),)


def test_precision_is_of_what_was_said_and_recall_of_what_is_required() -> None:
    score = Score(expected=4, found=10, right=9, recalled=3)
    assert (score.precision, score.recall) == (0.9, 0.75)


def test_nothing_said_has_no_precision_and_nothing_required_no_recall() -> None:
    score = Score(0, 0, 0, 0)
    assert (score.precision, score.recall) == (None, None)


def test_a_row_that_accuses_nobody_is_not_read_as_an_accusation() -> None:
    reading = Reading(column("verdict"), ("key", "ip"), "first", "last", "403", neutral=frozenset({"fine"}))
    dates = {"first": NOON, "last": NOON}
    rows: list[dict[str, Any]] = [
        {"verdict": "probe", "key": "k", "ip": "198.51.100.1", **dates},
        {"verdict": "probe", "key": None, "ip": "198.51.100.1", **dates},
        {"verdict": "probe", "key": None, "ip": None, **dates},
        {"verdict": "fine", "key": "k", "ip": None, **dates},
        {"verdict": "not enough data", "key": "k", "ip": None, **dates},
        {"verdict": None, "key": "k", "ip": None, **dates},
    ]
    assert [accusation.subject for accusation in reading.accusations("enumeration", rows)] == ["k", "198.51.100.1"]


def chains(count: int, pauses_s: tuple[float, ...], code: str, retry_after: float | None = None) -> TrueRequests:
    """`count` failures with a key, a minute apart, each tried again after these pauses."""
    found: list[TrueRequest] = []
    for chain in range(count):
        start, earlier = NOON.timestamp() + 60 * chain, None
        for attempt, pause_s in enumerate((0.0, *pauses_s), start=1):
            start += pause_s + (0.1 if earlier is not None else 0)
            found.append(
                TrueRequest(
                    seq=len(found),
                    start_epoch=start,
                    latency_ms=100,
                    persona="p",
                    client_ip="198.51.100.1",
                    key_id="k",
                    request_id=f"r{len(found)}",
                    idempotency_key=f"i{chain}",
                    status=500 if code == "internal_error" else 429 if code == "rate_limited" else 422,
                    code=code,
                    retry_after=retry_after,
                    retry_of_seq=earlier,
                    chain=chain,
                    attempt=attempt,
                )
            )
            earlier = found[-1].seq
    return TrueRequests(tuple(found))


@pytest.mark.parametrize(
    ("requests", "verdicts"),
    [
        pytest.param(
            chains(30, (0.03, 0.03, 0.03), "internal_error"), {"tight loop", "immediate", "lockstep"}, id="at once"
        ),
        pytest.param(chains(30, (2.0, 2.3, 2.1), "internal_error"), {"fixed"}, id="even"),
        pytest.param(chains(30, (8.0, 3.0, 1.2), "internal_error"), {"collapsing"}, id="shrinking"),
        pytest.param(chains(30, (1.0, 2.1, 4.3), "internal_error"), {"exponential", "well-behaved"}, id="doubling"),
        pytest.param(chains(30, (0.5,), "rate_limited", 5), {"ignores Retry-After"}, id="too early"),
        pytest.param(chains(30, (5.1,), "rate_limited", 5), {"well-behaved"}, id="as told"),
        pytest.param(chains(30, (4.8,), "rate_limited", 5), {"well-behaved"}, id="as told, by another clock"),
        pytest.param(chains(30, (3.0,), "opted_out"), {"futile repeats"}, id="in vain"),
        pytest.param(chains(5, (3.0,), "opted_out"), set(), id="too few to expect anything"),
    ],
)
def test_manners_follow_from_true_chains(requests: TrueRequests, verdicts: set[str]) -> None:
    assert {item.verdict for item in behaviour.discipline(requests) if item.is_required} == verdicts


def test_the_verdicts_about_the_sample_capture_are_true() -> None:
    result = CliRunner().invoke(main, ["--seeds", "", "--json"])
    assert result.exit_code == 0, result.output
    (overall,) = [row for row in json.loads(result.output)["verdicts"] if row["question"] == "all"]
    assert overall["truth"] == "capture"
    assert overall["precision"] >= 0.99
    assert overall["recall"] >= 0.98
    assert overall["naive_precision"] < 0.5
