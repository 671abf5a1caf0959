"""blocked_resends: who sends to people that are blocked or have opted out, again and again or from a stale list."""

import random
from collections import Counter
from datetime import datetime, timedelta
from statistics import median
from typing import Any, Final

import pytest

from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows

CODES: Final = ("dnc_blocked", "opted_out")
DAY: Final = 86_400


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({}, id="all"),
        pytest.param({"since": at(86_000)}, id="since"),
        pytest.param({"until": at(2 * 86_000)}, id="until"),
        pytest.param({"for_org": "org_a"}, id="organisation"),
        pytest.param({"for_key": "key_3"}, id="key"),
        pytest.param({"for_route": "/v1/messages"}, id="route"),
        pytest.param({"min_resends": 2, "again_share": 0.5}, id="repeats"),
        pytest.param(
            {"min_spike_recipients": 2, "spike_window_s": 600, "min_usual_hours": 3, "spike_factor": 1.5}, id="spike"
        ),
        pytest.param({"max_occasional_share": 0.3, "min_sends": 40, "min_contact_orgs": 2}, id="other thresholds"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_every_row_equals_a_second_count_without_sql(seed: int, parameters: Row) -> None:
    events = _random_refusals(seed)

    assert rows(lake(events), "blocked_resends", **parameters) == _expected(events, **parameters)


def test_the_random_events_meet_every_verdict() -> None:
    verdicts = Counter(
        row["verdict"]
        for seed in range(3)
        for parameters in (
            {},
            {"min_spike_recipients": 2, "spike_factor": 1.0},
            {"max_occasional_share": 0.5},
            {"min_sends": 60},
        )
        for row in rows(lake(_random_refusals(seed)), "blocked_resends", **parameters)
    )

    assert set(verdicts) == {"repeats", "spike", "steady", "occasional", "not enough data"}


def test_a_client_that_sends_to_the_same_recipients_again_and_again_repeats() -> None:
    con = lake([_refused(number, recipient_hash=f"r{number % 2}") for number in range(8)])

    names = ("verdict", "refused", "recipients", "resends", "most_to_one", "share")
    assert columns_of(rows(con, "blocked_resends"), *names) == [("repeats", 8, 2, 6, 4, 1.0)]


@pytest.mark.parametrize(("resends", "verdict"), [(4, "occasional"), (5, "repeats")])
def test_fewer_resends_are_no_repeats(resends: int, verdict: str) -> None:
    refused = [_refused(number, recipient_hash="r") for number in range(resends + 1)]

    assert _verdicts(refused + _passed(100, 200)) == [verdict]


@pytest.mark.parametrize(
    ("passed", "verdict"),
    [pytest.param(235, "repeats", id="one send in fifty"), pytest.param(286, "occasional", id="fewer")],
)
def test_some_resends_among_many_sends_are_as_in_every_list(passed: int, verdict: str) -> None:
    # Ten recipients, five of them twice: 5 of 15 refused sends are resends.
    refused = [_refused(number * 10_000, recipient_hash=f"r{number % 10}") for number in range(15)]

    assert _verdicts(refused + _passed(200_000, passed)) == [verdict]


def test_a_weekly_list_that_keeps_those_who_opted_out_repeats_however_long_it_is() -> None:
    weeks = [
        _refused(week * 7 * DAY + number, recipient_hash=f"r{number}", code="opted_out")
        for week in range(5)
        for number in range(4)
    ]

    assert _verdicts(weeks + _passed(100, 2000)) == ["repeats"]


def test_a_list_of_which_many_are_blocked_is_a_spike() -> None:
    con = lake([*_list(20), *_passed(30, 60)])

    names = ("verdict", "peak_recipients", "peak_started_at", "peak_share", "resends")
    assert columns_of(rows(con, "blocked_resends"), *names) == [("spike", 20, at(0), 0.25, 0)]


@pytest.mark.parametrize(
    ("count", "passed", "verdict"),
    [
        pytest.param(19, 60, "steady", id="too few recipients"),
        pytest.param(20, 181, "steady", id="too small a share"),
        pytest.param(20, 180, "spike", id="just enough"),
        pytest.param(36, 1164, "occasional", id="three in a hundred, as in every list"),
    ],
)
def test_a_few_on_a_list_are_no_spike(count: int, passed: int, verdict: str) -> None:
    assert _verdicts(_list(count) + _passed(30, passed)) == [verdict]


def test_a_list_that_is_sent_over_more_than_the_window_is_no_spike() -> None:
    # 3,600 s hold 19 of them.
    assert _verdicts([_refused(number * 200, recipient_hash=f"r{number}") for number in range(40)]) == ["steady"]


def test_a_list_in_which_some_stand_twice_is_still_a_spike() -> None:
    twice = [_refused(1000 + number, recipient_hash=f"r{number}") for number in range(12)]

    assert _verdicts([*_list(30), *twice]) == ["spike"]


def test_a_long_list_of_which_each_is_tried_four_times_repeats() -> None:
    tries = [_refused(10 * number + again, recipient_hash=f"r{number}") for number in range(30) for again in range(4)]

    assert _verdicts(tries) == ["repeats"]


@pytest.mark.parametrize(("hours", "verdict"), [(22, "spike"), (24, "steady")])
def test_what_is_usual_for_the_caller_is_no_spike(hours: int, verdict: str) -> None:
    # A list of another 20 recipients with 20 who take it, each hour: usual once there are enough hours to say so.
    lists = [
        event
        for hour in range(hours)
        for number in range(20)
        for event in (
            _refused(hour * 3600 + number, recipient_hash=f"r{hour}-{number}"),
            _sent(hour * 3600 + 60 + number),
        )
    ]

    assert _verdicts(lists) == [verdict]


def test_a_list_is_a_spike_beside_days_of_clean_sends() -> None:
    clean = [_sent(hour * 3600 + number) for hour in range(48) for number in range(10)]

    assert _verdicts([*clean, *_list(25)]) == ["spike"]


def test_a_refusal_now_and_then_is_occasional() -> None:
    con = lake([_refused(0, recipient_hash="a"), _refused(DAY, recipient_hash="b"), *_passed(100, 98)])

    names = ("verdict", "share", "refused_days", "known", "resends")
    assert columns_of(rows(con, "blocked_resends"), *names) == [("occasional", 0.02, 2, 2, 0)]


@pytest.mark.parametrize(
    ("refused", "passed", "verdict"),
    [(1, 18, "not enough data"), (1, 19, "occasional"), (1, 0, "not enough data"), (3, 37, "steady")],
)
def test_few_sends_are_not_enough_data(refused: int, passed: int, verdict: str) -> None:
    events = [_refused(number, recipient_hash=f"r{number}") for number in range(refused)]

    assert _verdicts(events + _passed(100, passed)) == [verdict]


@pytest.mark.parametrize(("passed", "verdict"), [(0, "not enough data"), (1000, "occasional")])
def test_without_recipients_in_the_log_only_the_share_is_judged(passed: int, verdict: str) -> None:
    con = lake([_refused(number) for number in range(40)] + _passed(100, passed))

    names = ("verdict", "known", "recipients", "resends", "most_to_one", "peak_recipients", "peak_share")
    assert columns_of(rows(con, "blocked_resends"), *names) == [(verdict, 0, 0, 0, None, 0, None)]


@pytest.mark.parametrize(("orgs", "verdict"), [(4, "repeats"), (5, "not enough data")])
def test_an_address_that_most_refusals_of_all_name_is_a_contact_and_no_recipient(orgs: int, verdict: str) -> None:
    events = [
        _refused(number, recipient_hash="support", org_id=f"org_{org}", key_id=f"key_{org}")
        for org in range(orgs)
        for number in range(30)
    ]

    assert _verdicts(events) == [verdict] * orgs


def test_a_recipient_that_few_of_many_organisations_send_to_is_one() -> None:
    shared = [
        _refused(number, recipient_hash="r", org_id=f"org_{org}", key_id=f"key_{org}")
        for org in range(5)
        for number in range(6)
    ]
    others = [_refused(0, recipient_hash=f"r{org}", org_id=f"other_{org}", key_id=f"k_{org}") for org in range(5)]

    verdicts = Counter(_verdicts(shared + others))

    assert verdicts == {"repeats": 5, "not enough data": 5}


def test_whoever_was_told_over_another_key_of_the_organisation_was_told() -> None:
    told = [_refused(0, key_id="key_b", recipient_hash="r")]
    again = [_refused(10 + number, key_id="key_a", recipient_hash="r") for number in range(5)]

    names = ("caller", "verdict", "resends", "share", "org_share")
    assert columns_of(rows(lake(told + again), "blocked_resends"), *names) == [
        ("key_a", "repeats", 5, 1.0, 5 / 6),
        ("key_b", "not enough data", 0, 1.0, 1 / 6),
    ]


def test_what_another_organisation_was_told_does_not_count() -> None:
    others = [_refused(0, org_id="org_b", key_id="key_b", recipient_hash="r")]
    own = [_refused(10, recipient_hash="r")]

    assert columns_of(rows(lake(others + own), "blocked_resends"), "resends") == [(0,), (0,)]


def test_what_was_told_before_since_counts_and_is_not_shown() -> None:
    con = lake([_refused(0, recipient_hash="r", request_id="old"), _refused(100, recipient_hash="r", request_id="new")])

    names = ("refused", "resends", "first_seen", "example_request_ids")
    assert columns_of(rows(con, "blocked_resends", since=at(50)), *names) == [(1, 1, at(100), ["new"])]


def test_sends_at_the_same_time_were_not_told_of_each_other() -> None:
    together = [_refused(0.5, recipient_hash="r", latency_ms=500.0) for _ in range(6)]

    assert columns_of(rows(lake(together), "blocked_resends"), "resends", "most_to_one") == [(0, 6)]


def test_reads_and_what_is_sent_elsewhere_are_no_sends() -> None:
    reads = [ok(number, org_id="org_a", key_id="key_a", method="GET") for number in range(50)]

    assert columns_of(rows(lake([_refused(0, recipient_hash="r"), *reads]), "blocked_resends"), "sends") == [(1,)]


def test_a_caller_without_organisation_stands_for_itself() -> None:
    alone = [_refused(number, org_id=None, key_id="key_x", recipient_hash="r") for number in range(6)]
    other = [_refused(3, org_id=None, key_id="key_y", recipient_hash="r")]

    names = ("org_id", "caller", "verdict", "org_share")
    assert columns_of(rows(lake(alone + other), "blocked_resends"), *names) == [
        (None, "key_x", "repeats", 1.0),
        (None, "key_y", "not enough data", 1.0),
    ]


def test_the_examples_are_resends_first() -> None:
    con = lake(
        [
            _refused(0, recipient_hash="a", request_id="first"),
            _refused(1, recipient_hash="a", request_id="again"),
            _refused(2, recipient_hash="b", request_id="b"),
            _refused(3, recipient_hash="c", request_id="c"),
        ]
    )

    assert columns_of(rows(con, "blocked_resends"), "example_request_ids") == [(["again", "c", "b"],)]


def test_other_refusals_are_none_of_it() -> None:
    assert rows(lake([error(0, "rate_limited"), error(1, "validation_failed")]), "blocked_resends") == []


def _refused(seconds: float, code: str = "dnc_blocked", **fields: Any) -> Row:
    return error(seconds, code, status=422, **{"org_id": "org_a", "key_id": "key_a"} | fields)


def _sent(seconds: float) -> Row:
    return ok(seconds, status=202, org_id="org_a", key_id="key_a")


def _passed(seconds: float, count: int) -> list[Row]:
    return [_sent(seconds) for _ in range(count)]


def _list(count: int) -> list[Row]:
    return [_refused(number, recipient_hash=f"r{number}") for number in range(count)]


def _verdicts(events: list[Row]) -> list[str]:
    return [row["verdict"] for row in rows(lake(events), "blocked_resends")]


def _random_refusals(seed: int) -> list[Row]:
    """Random events of which some errors are refusals of a few recipients, or of one that the log does not name."""
    choose = random.Random(f"recipients {seed}")
    events = random_events(seed, count=500)
    for event in events:
        if event.get("code") in {"dnc_blocked", "not_found", "invalid_api_key", "scope_invalid"}:
            event["code"] = choose.choice(CODES)
            recipient = choose.choice([None, *(f"r{number}" for number in range(8))])
            event["recipient_hash"] = recipient and f"{recipient} of {event['org_id']}"
            if choose.random() < 0.1:
                event["recipient_hash"] = "contact"
    return events


def _expected(
    events: list[Row],
    since: datetime | None = None,
    until: datetime | None = None,
    for_org: str | None = None,
    for_key: str | None = None,
    for_route: str | None = None,
    min_resends: int = 5,
    again_share: float = 0.75,
    spike_window_s: int = 3600,
    min_spike_recipients: int = 20,
    spike_factor: float = 3.0,
    min_usual_hours: int = 24,
    min_sends: int = 20,
    max_occasional_share: float = 0.05,
    min_contact_orgs: int = 5,
) -> list[Row]:
    told = [row for row in events if row.get("code") in CODES and (until is None or row["ts"] < until)]
    accounts: dict[str, set[tuple[str, str]]] = {}
    for row in told:
        accounts.setdefault(row.get("recipient_hash") or "", set()).add(_account(row))
    everyone = {_account(row) for row in told}
    contacts = {
        recipient for recipient, of in accounts.items() if len(of) >= min_contact_orgs and 2 * len(of) > len(everyone)
    }
    routes = {(row["method"], row["route"]) for row in told}
    asked = [row for row in told if for_org in (None, row["org_id"]) and for_route in (None, row["route"])]
    for row in asked:
        recipient = row.get("recipient_hash")
        row["recipient"] = None if recipient in contacts else recipient
    current = [row for row in asked if since is None or row["ts"] >= since]
    sent = [
        row
        for row in events
        if (row["method"], row["route"]) in routes
        and (since is None or row["ts"] >= since)
        and (until is None or row["ts"] < until)
        and for_org in (None, row["org_id"])
        and for_route in (None, row["route"])
    ]
    answer = []
    for org_id, caller in {(row["org_id"], row["caller"]) for row in current if for_key in (None, row["caller"])}:
        own = [row for row in current if (row["org_id"], row["caller"]) == (org_id, caller)]
        sends = [row for row in sent if (row["org_id"], row["caller"]) == (org_id, caller)]
        of_org = sends if org_id is None else [row for row in sent if row["org_id"] == org_id]
        known = [row for row in own if row["recipient"]]
        resends = [row for row in known if _was_told(row, asked)]
        counts = Counter(row["recipient"] for row in known)
        window = timedelta(seconds=spike_window_s)
        fresh = sorted(row["ts"] for row in known if _is_fresh(row, asked, window))
        times = [(sum(end - window <= moment <= end for moment in fresh), end) for end in fresh]
        peak, end = min(times, key=lambda found: (-found[0], found[1]), default=(0, None))
        began = None if end is None else min(moment for moment in fresh if end - window <= moment)
        hours = Counter(_hour(row["ts"]) for row in sends)
        refused_in = Counter(_hour(row["ts"]) for row in sends if row.get("code") in CODES)
        usual_share = peak_share = None
        if began is not None and end is not None and peak >= min_spike_recipients:
            usual_share = median(refused_in[hour] / count for hour, count in hours.items())
            touched = [hour for hour in hours if _hour(began) <= hour <= _hour(end)]
            peak_share = sum(refused_in[hour] for hour in touched) / sum(hours[hour] for hour in touched)
        share = len(own) / len(sends)
        is_unusual = len(hours) < min_usual_hours or (peak_share or 0) >= spike_factor * (usual_share or 0)
        if len(resends) >= min_resends and len(resends) >= again_share * len(known):
            verdict = "repeats"
        elif peak >= min_spike_recipients and (peak_share or 0) >= 0.1 and is_unusual:
            verdict = "spike"
        elif len(resends) >= max(min_resends, 0.2 * len(known), 0.02 * len(sends)):
            verdict = "repeats"
        elif len(sends) < min_sends:
            verdict = "not enough data"
        elif share <= max_occasional_share:
            verdict = "occasional"
        else:
            verdict = "not enough data" if 2 * len(known) < len(own) else "steady"
        examples = sorted(own, key=lambda row: row["request_id"])
        examples.sort(key=lambda row: (row in resends, row["ts"]), reverse=True)
        answer.append(
            {
                "org_id": org_id,
                "caller": caller,
                "verdict": verdict,
                "refused": len(own),
                "codes": sorted({row["code"] for row in own}),
                "sends": len(sends),
                "share": share,
                "org_share": len(own) / len(of_org),
                "known": len(known),
                "recipients": len(counts),
                "resends": len(resends),
                "most_to_one": max(counts.values(), default=None),
                "peak_recipients": peak,
                "peak_started_at": began,
                "peak_share": peak_share,
                "usual_share": usual_share,
                "refused_days": len({row["day"] for row in own}),
                "first_seen": min(row["ts"] for row in own),
                "last_seen": max(row["ts"] for row in own),
                "example_request_ids": [row["request_id"] for row in examples[:3]],
            }
        )
    last = ("occasional", "not enough data")
    return sorted(
        answer,
        key=lambda row: (row["verdict"] in last, -row["refused"], row["org_id"] or "~", row["caller"] or "~"),
    )


def _account(row: Row) -> tuple[str, str]:
    return ("org", row["org_id"]) if row["org_id"] else ("caller", row["caller"])


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _start(row: Row) -> datetime:
    started: datetime = row["ts"] - timedelta(milliseconds=row["latency_ms"] or 0)
    return started


def _was_told(row: Row, refusals: list[Row]) -> bool:
    """Whether the account was refused the recipient by the time the send began; gateways log milliseconds."""
    return any(
        earlier["ts"] <= _start(row) + timedelta(milliseconds=1)
        for earlier in refusals
        if earlier is not row
        and (_account(earlier), earlier["recipient"]) == (_account(row), row["recipient"])
        and (_start(earlier), earlier["ts"], earlier["request_id"]) <= (_start(row), row["ts"], row["request_id"])
    )


def _is_fresh(row: Row, refusals: list[Row], window: timedelta) -> bool:
    """Whether the caller was not refused the recipient in as long before."""
    same = [
        earlier
        for earlier in refusals
        if (earlier["org_id"], earlier["caller"], earlier["recipient"])
        == (row["org_id"], row["caller"], row["recipient"])
    ]
    before = [earlier for earlier in same if (earlier["ts"], earlier["request_id"]) < (row["ts"], row["request_id"])]
    return not before or row["ts"] - max(earlier["ts"] for earlier in before) > window
