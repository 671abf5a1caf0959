"""The story of a key or an organisation, as data and as text."""

import pytest

from analysis.history import history, history_text, kind_of
from ingest.schema import BadInput
from tests.analysis.queries.event_lake import Row, at, error, lake, ok

EVENTS: list[Row] = [
    event
    for number in range(25)
    for event in (
        error(
            number * 600,
            "rate_limited",
            key_id="key_a",
            org_id="org_a",
            retry_after_s=30.0,
            idempotency_hash=f"i{number}",
            request_id=f"r{number}a",
            user_agent="acme-sdk/2.1",
        ),
        ok(number * 600 + 1, key_id="key_a", org_id="org_a", idempotency_hash=f"i{number}", request_id=f"r{number}b"),
    )
]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("r3a", "request"),
        ("r3b", "request"),
        ("key_a", "caller"),
        ("org_a", "organisation"),
        ("key_b", "caller"),
        ("org_b", "organisation"),
    ],
)
def test_a_name_is_known_for_what_it_is(name: str, kind: str) -> None:
    con = lake([*EVENTS, ok(0, key_id="key_b", org_id="org_b")])

    assert kind_of(con, name) == kind


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(BadInput, match="nothing in the lake is called 'nobody'"):
        kind_of(lake(EVENTS), "nobody")


def test_a_key_has_totals_codes_verdicts_and_a_timeline() -> None:
    told = history(lake(EVENTS), "key_a", "caller")

    assert {name: told.totals[name] for name in ("requests", "errors", "org_ids", "callers")} == {
        "requests": 50,
        "errors": 25,
        "org_ids": ["org_a"],
        "callers": 1,
    }
    assert [(row["answer"], row["errors"]) for row in told.codes] == [("rate_limited", 25)]
    assert ("retry_discipline", "ignores Retry-After", 1) in {
        (verdict.question, verdict.word, verdict.rows) for verdict in told.verdicts
    }
    assert (told.timeline[0]["event"], told.timeline[-1]["event"]) == ("first request", "last request")


def test_the_period_limits_what_is_told() -> None:
    told = history(lake(EVENTS), "key_a", "caller", since=at(0), until=at(1000))

    assert (told.totals["requests"], [row["errors"] for row in told.codes]) == (4, [2])


@pytest.mark.parametrize(("name", "kind"), [("key_a", "caller"), ("org_a", "organisation")])
def test_the_story_says_who_what_why_when_and_what_to_do(name: str, kind: str) -> None:
    text = history_text(history(lake(EVENTS), name, kind))

    assert [line for line in text.splitlines() if line and not line.startswith(" ")] == [
        f"{name}: a caller of org_a" if kind == "caller" else f"{name}: an organisation, 1 caller",
        "What it was answered",
        "What that means",
        "When",
        "What to do",
    ]
    assert "  50 requests from 2026-11-02T09:00:00Z to 2026-11-02T13:00:01Z, 25 of them errors (50.0%)" in text
    assert "  the errors were met by acme-sdk\n" in text
    assert "  rate_limited (client acts): Wait for Retry-After" in text


def test_of_many_events_the_largest_are_told_and_the_rest_counted() -> None:
    events = [error(number * 2000, "not_found", key_id="key_a") for number in range(30)]

    text = history_text(history(lake(events), "key_a", "caller"))

    assert "  and 17 smaller events; see errata ask explain --about key_a" in text


def test_what_a_log_says_cannot_move_the_cursor() -> None:
    events = [error(0, "bad\x1b[2J", key_id="key_a")]

    assert "\x1b" not in history_text(history(lake(events), "key_a", "caller"))


def test_a_period_without_requests_is_told() -> None:
    text = history_text(history(lake(EVENTS), "key_a", "caller", since=at(10**7)))

    assert text == "key_a: a caller\n  It asked nothing in this period.\n"
