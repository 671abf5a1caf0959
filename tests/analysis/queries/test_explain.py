"""explain: the events of one caller or organisation, in order."""

from typing import Any

import pytest

from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows

STORY: list[Row] = [
    ok(0, key_id="key_a", org_id="org_a", client_ip="192.0.2.1", request_id="r0"),
    error(10, "rate_limited", key_id="key_a", org_id="org_a", client_ip="192.0.2.1", request_id="r1"),
    error(20, "rate_limited", key_id="key_a", org_id="org_a", client_ip="192.0.2.1", request_id="r2"),
    ok(30, key_id="key_a", org_id="org_a", client_ip="192.0.2.1", request_id="r3"),
    error(700, "rate_limited", key_id="key_a", org_id="org_a", client_ip="192.0.2.1", request_id="r4"),
    error(800, "not_found", key_id="key_b", org_id="org_a", client_ip="192.0.2.1", request_id="r5"),
    error(900, "not_found", key_id="key_c", org_id="org_b", client_ip="192.0.2.1", request_id="r6"),
]


def test_a_key_has_its_events_in_order() -> None:
    found = rows(lake(STORY), "explain", about="key_a")

    assert columns_of(found, "started_at", "ended_at", "event", "answer", "requests", "request_ids") == [
        (at(0), at(0), "first request", "200", 1, ["r0"]),
        (at(10), at(20), "errors", "rate_limited", 2, ["r1", "r2"]),
        (at(30), at(30), "last success", "200", 1, ["r3"]),
        (at(700), at(700), "errors", "rate_limited", 1, ["r4"]),
        (at(700), at(700), "last request", "rate_limited", 1, ["r4"]),
    ]


def test_an_organisation_has_the_events_of_all_its_keys() -> None:
    found = rows(lake(STORY), "explain", about="org_a")

    assert [row["caller"] for row in found if row["event"] == "errors"] == ["key_a", "key_a", "key_b"]


@pytest.mark.parametrize(
    ("parameters", "events"),
    [
        pytest.param({"about": "r2"}, 5, id="a request stands for its caller"),
        pytest.param({}, 5, id="without a name the caller with most errors"),
        pytest.param({"about": "key_a", "until": at(25)}, 3, id="up to a moment"),
        pytest.param({"about": "key_a", "since": at(600)}, 2, id="from a moment on"),
        pytest.param({"about": "key_a", "max_gap_s": 1000}, 4, id="with longer events"),
        pytest.param({"about": "nobody"}, 0, id="nobody"),
    ],
)
def test_who_and_when_can_be_chosen(parameters: dict[str, Any], events: int) -> None:
    assert len(rows(lake(STORY), "explain", **parameters)) == events


@pytest.mark.parametrize("seed", range(3))
def test_every_error_of_a_caller_is_in_one_event(seed: int) -> None:
    events = random_events(seed)
    callers = sorted({row["caller"] for row in events if row["caller"]})
    con = lake(events)

    told = {
        caller: sum(row["requests"] for row in rows(con, "explain", about=caller) if row["event"] == "errors")
        for caller in callers
    }

    assert told == {caller: sum(row["is_error"] and row["caller"] == caller for row in events) for caller in callers}
