"""One request's story: the facts that it is told from, and the words."""

from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

import analysis
from analysis.explain import Attempt, Explanation, explain, story
from ingest.schema import BadInput
from tests.analysis.conftest import NINE, Row, WriteLake


def after(seconds: float, request_id: str, **fields: object) -> Row:
    """A request that ended `seconds` after nine and took a tenth of a second; its line is its place in time."""
    ts = NINE + timedelta(seconds=seconds)
    return {"ts": ts, "request_id": request_id, "latency_ms": 100.0, "line": int(seconds * 10) + 1_000_000} | fields


def limited(seconds: float, request_id: str, **fields: object) -> Row:
    return after(seconds, request_id, status=429, code="rate_limited", retry_after_s=30.0, **fields)


def explained(lake: Path, request_id: str) -> Explanation:
    return explain(analysis.connect(lake), request_id)


def ids(attempts: tuple[Attempt, ...]) -> list[str | None]:
    return [attempt.request_id for attempt in attempts]


STORM: Final = [
    after(-3600, "long_before"),
    limited(0, "first"),
    limited(1, "second"),
    after(2, "other_path", path="/v1/other", route="/v1/other"),
    after(2, "other_caller", key_id="key_b"),
    limited(32, "third"),
    after(100, "success"),
    after(2000, "later"),
]


def test_the_attempts_are_those_of_the_same_caller_method_and_path(write_lake: WriteLake) -> None:
    explanation = explained(write_lake(STORM), "second")

    assert ids(explanation.attempts) == ["long_before", "first", "second", "third", "success", "later"]
    assert explanation.attempts[explanation.position] == Attempt(
        request_id="second",
        started=NINE + timedelta(seconds=0.9),
        ended=NINE + timedelta(seconds=1),
        status=429,
        code="rate_limited",
        is_error=True,
        retry_after_s=30.0,
        gap_s=0.9,
    )


@pytest.mark.parametrize(
    ("mine", "other"),
    [
        pytest.param({"key_id": "x"}, {"key_id": None, "key_hash": "x"}, id="key id"),
        pytest.param({"key_id": None, "key_hash": "x"}, {"key_id": "k", "key_hash": "x"}, id="fingerprint"),
        pytest.param(
            {"key_id": None, "client_ip": "192.0.2.1"}, {"key_id": "k", "client_ip": "192.0.2.1"}, id="client address"
        ),
    ],
)
def test_a_caller_is_its_key_else_its_fingerprint_else_its_address(
    write_lake: WriteLake, mine: Row, other: Row
) -> None:
    lake = write_lake([after(0, "first", **mine), after(1, "other", **other), after(2, "second", **mine)])

    assert ids(explained(lake, "first").attempts) == ["first", "second"]


def test_a_chain_runs_from_failure_to_failure_until_a_success_or_a_pause(write_lake: WriteLake) -> None:
    explanation = explained(write_lake(STORM), "second")

    assert ids(explanation.attempts[slice(*explanation.chain)]) == ["first", "second", "third", "success"]


@pytest.mark.parametrize(
    ("seconds", "retry_after_s", "chain"),
    [
        pytest.param(300.1, None, ["first", "second"], id="300 s"),
        pytest.param(300.2, None, ["first"], id="longer"),
        pytest.param(400.1, 100.0, ["first", "second"], id="four times Retry-After"),
        pytest.param(400.2, 100.0, ["first"], id="longer than four times Retry-After"),
    ],
)
def test_a_pause_ends_a_chain(
    write_lake: WriteLake, seconds: float, retry_after_s: float | None, chain: list[str]
) -> None:
    lake = write_lake([after(0, "first", status=503, retry_after_s=retry_after_s), after(seconds, "second")])

    explanation = explained(lake, "first")

    assert ids(explanation.attempts[slice(*explanation.chain)]) == chain


def test_an_idempotency_key_tells_two_sends_on_one_path_apart(write_lake: WriteLake) -> None:
    lake = write_lake(
        [
            limited(0, "mine", idempotency_hash="1"),
            limited(1, "other", idempotency_hash="2"),
            limited(2, "none"),
            after(40, "mine_again", idempotency_hash="1"),
        ]
    )

    assert ids(explained(lake, "mine").attempts) == ["mine", "mine_again"]
    assert ids(explained(lake, "none").attempts) == ["none"]


@pytest.mark.parametrize(
    ("seconds", "is_honoured"),
    [(0.5, False), (29.7, False), (29.75, True), (30.0, True), (90_000, None)],
    ids=["at once", "early", "within the tolerance", "in time", "after more than a day"],
)
def test_retry_after_counts_from_the_end_of_the_response_to_the_next_start(
    write_lake: WriteLake, seconds: float, is_honoured: bool | None
) -> None:
    lake = write_lake([limited(0, "first"), after(seconds, "second", latency_ms=None)])

    assert explained(lake, "first").is_retry_after_honoured is is_honoured


def test_an_attempt_that_was_under_way_did_not_ignore_the_answer(write_lake: WriteLake) -> None:
    lake = write_lake([limited(0, "first"), limited(0.05, "under_way"), after(40, "second")])

    explanation = explained(lake, "first")

    assert (explanation.waited_s, explanation.is_retry_after_honoured) == (39.9, True)
    assert "429 rate_limited  under_way  sent before that answer\n" in story(explanation)


@pytest.mark.parametrize(
    ("fields", "confidence"),
    [
        ({"idempotency_hash": "1"}, "high"),
        ({"method": "GET"}, "medium"),
        ({"method": "POST"}, "low"),
        ({"method": None}, "low"),
    ],
    ids=["key", "GET", "POST", "no method"],
)
def test_the_confidence_says_how_surely_attempts_belong_together(
    write_lake: WriteLake, fields: Row, confidence: str
) -> None:
    assert explained(write_lake([after(0, "first", **fields)]), "first").intent_confidence == confidence


def test_nobody_asked_to_wait_is_not_judged(write_lake: WriteLake) -> None:
    lake = write_lake([after(0, "first", status=500, code="internal_error"), after(1, "second")])

    assert explained(lake, "first").is_retry_after_honoured is None


def test_a_success_is_found_however_much_later(write_lake: WriteLake) -> None:
    lake = write_lake([limited(0, "first"), after(86_400 * 9, "at_last"), after(86_400 * 10, "again")])

    explanation = explained(lake, "first")

    assert explanation.success is not None
    assert explanation.success.request_id == "at_last"
    assert ids(explanation.attempts) == ["first"]


def test_an_id_that_several_requests_have_is_explained_for_the_first_error(write_lake: WriteLake) -> None:
    lake = write_lake([after(-5, "twice"), limited(5, "twice"), limited(0, "twice"), after(9, "other")])

    explanation = explained(lake, "twice")

    assert (explanation.rows_with_this_id, explanation.request["ts"]) == (2, NINE)


def test_of_equal_moments_each_attempt_is_itself(write_lake: WriteLake) -> None:
    lake = write_lake([limited(0, "a", line=1), limited(0, "b", line=2), limited(0, "c", line=3)])

    assert [explained(lake, name).position for name in ("a", "b", "c")] == [0, 1, 2]


def test_a_storm_shows_the_nearest_thousand_on_either_side(write_lake: WriteLake) -> None:
    lake = write_lake([limited(number / 10, f"req_{number}") for number in range(2500)])

    attempts = explained(lake, "req_1250").attempts

    assert (len(attempts), attempts[0].request_id, attempts[-1].request_id) == (2000, "req_251", "req_2250")


def test_an_id_that_is_not_there_is_told(write_lake: WriteLake) -> None:
    with pytest.raises(BadInput, match="no request in the lake has the id 'nope'"):
        explained(write_lake(STORM), "nope")


STORIES = [
    pytest.param(
        "second",
        """\
second: POST /v1/messages was answered 429 rate_limited at 2026-11-02T09:00:01Z after 100 ms
  by org_a, key_a
  read from line 1000010 of source s1 (unknown gateway)

What it means
  The per-IP or per-key rate limit was exceeded. (pacing; a retry may succeed)
What to do (client acts)
  Wait for Retry-After before the next request; spread the load.

What its caller did
  Attempt 2 of 4 at POST /v1/messages, each after a failure.
  Without an Idempotency-Key in the log, these may be different things that the caller wanted.
    2026-11-02T08:00:00Z  200  long_before
    2026-11-02T09:00:00Z  429 rate_limited  first  3599.9 s after the one before
  > 2026-11-02T09:00:01Z  429 rate_limited  second  0.9 s after the one before
    2026-11-02T09:00:32Z  429 rate_limited  third  30.9 s after the one before
    2026-11-02T09:01:40Z  200  success  67.9 s after the one before
    2026-11-02T09:33:20Z  200  later  1899.9 s after the one before
  It was asked to wait 30 s and came back after 30.9 s: Retry-After honoured.
  Some attempt succeeded 99 s later, at 2026-11-02T09:01:40Z (success).
""",
        id="rate limited",
    ),
    pytest.param(
        "success",
        """\
success: POST /v1/messages was answered 200 at 2026-11-02T09:01:40Z after 100 ms
  by org_a, key_a
  read from line 1001000 of source s1 (unknown gateway)

What it means
  The request succeeded.

What its caller did
  Attempt 4 of 4 at POST /v1/messages, each after a failure.
  Without an Idempotency-Key in the log, these may be different things that the caller wanted.
    2026-11-02T08:00:00Z  200  long_before
    2026-11-02T09:00:00Z  429 rate_limited  first  3599.9 s after the one before
    2026-11-02T09:00:01Z  429 rate_limited  second  0.9 s after the one before
    2026-11-02T09:00:32Z  429 rate_limited  third  30.9 s after the one before
  > 2026-11-02T09:01:40Z  200  success  67.9 s after the one before
    2026-11-02T09:33:20Z  200  later  1899.9 s after the one before
""",
        id="success",
    ),
    pytest.param(
        "gateway_made",
        """\
gateway_made: GET /v1/credits was answered 502 at 2026-11-02T09:00:00Z
  by a caller that the log does not name
  read from line 1000000 of source s1 (caddy)

What it means
  The gateway answered itself: bad_gateway.

What its caller did
  The log does not say who called.
""",
        id="gateway",
    ),
    pytest.param(
        "invalid",
        """\
invalid: POST /v1/messages was answered 400 validation_failed at 2026-11-02T09:00:00Z after 100 ms
  by key_v, 192.0.2.1, curl/8
  read from line 1000000 of source s1 (unknown gateway)

What it means
  Request body or query parameters failed validation. (client; a retry of the unchanged request will not succeed)
  Message: bad \\x1b[31mbody
  to[0]: is no number
What to do (client acts)
  Fix the fields named in details and send again; do not retry unchanged.

What its caller did
  A single attempt with one Idempotency-Key.
  > 2026-11-02T09:00:00Z  400 validation_failed  invalid
  None has succeeded since (data through 2026-11-03T00:00:00Z).
""",
        id="validation",
    ),
    pytest.param(
        "unheard_of",
        """\
unheard_of: POST /v1/messages was answered 418 teapot at 2026-11-02T09:00:00Z after 100 ms
  by org_a, key_t
  read from line 1000000 of source s1 (unknown gateway)
  2 requests have this id; this is the first

What it means
  The catalogue does not hold the code teapot.

What its caller did
  Attempt 1 of 2 at POST /v1/messages, each after a failure.
  Without an Idempotency-Key in the log, these may be different things that the caller wanted.
  > 2026-11-02T09:00:00Z  418 teapot  unheard_of
    2026-11-02T09:00:05Z  418 teapot  unheard_of  4.9 s after the one before
  It was asked to wait 5 s and came back after 4.9 s: Retry-After honoured.
  None has succeeded since (data through 2026-11-03T00:00:00Z).
""",
        id="unknown code",
    ),
    pytest.param(
        "no_body",
        """\
no_body: POST /v1/messages was answered 500 at 2026-11-02T09:00:00Z after 100 ms
  by org_a, key_n
  read from line 1000000 of source s1 (unknown gateway)

What it means
  The log holds no error code for it (body truncated).

What its caller did
  A single attempt at POST /v1/messages.
  > 2026-11-02T09:00:00Z  500  no_body
  It was asked to wait 2 s and did not come back within a day.
  None has succeeded since (data through 2026-11-03T00:00:00Z).
""",
        id="no code",
    ),
]


@pytest.mark.parametrize(("request_id", "text"), STORIES)
def test_the_story_is_told(write_lake: WriteLake, request_id: str, text: str) -> None:
    nobody = {"key_id": None, "org_id": None}
    lake = write_lake(
        [
            *STORM,
            after(
                0,
                "gateway_made",
                **nobody,
                method="GET",
                path="/v1/credits",
                status=502,
                origin="gateway",
                gateway_reason="bad_gateway",
                gateway="caddy",
                latency_ms=None,
            ),
            after(
                0,
                "invalid",
                org_id=None,
                key_id="key_v",
                client_ip="192.0.2.1",
                user_agent="curl/8",
                status=400,
                code="validation_failed",
                message="bad \x1b[31mbody",
                details=[{"field": "to[0]", "issue": "is no number"}],
                idempotency_hash="1",
            ),
            after(0, "unheard_of", key_id="key_t", status=418, code="teapot", retry_after_s=5.0),
            after(5, "unheard_of", key_id="key_t", status=418, code="teapot"),
            after(0, "no_body", key_id="key_n", status=500, body_state="truncated", retry_after_s=2.0),
        ],
        sources=[{"last_ts": NINE.replace(day=3, hour=0)}],
    )

    assert story(explained(lake, request_id)) == text
