"""retry_storms: when clients multiplied a fault of the platform, and which of them did not back off."""

import math
import random
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any

import pytest

from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, random_events, rows
from tests.analysis.queries.outage import (
    OUTAGE,
    SPAN,
    arrivals,
    at_once,
    bulk_sender,
    client,
    doubling,
    limited,
    never,
)


def test_a_client_that_loops_on_a_fault_is_the_culprit() -> None:
    choose = random.Random(1)
    events = [
        *client(choose, "looper", arrivals(choose, 0.6), at_once),
        *client(choose, "bystander", arrivals(choose, 30), never),
    ]

    answer = rows(lake(events), "retry_storms")

    assert columns_of(
        answer, "incident", "severity", "trigger_code", "method", "route", "culprit", "culprit_share"
    ) == [(1, "severe", "internal_error", "POST", "/v1/messages", "looper", 1.0)]


def test_the_excess_of_a_loop_is_at_most_what_it_repeats_and_not_much_less() -> None:
    choose = random.Random(2)
    events = client(choose, "looper", [60.0, 61.0, 62.0], at_once)
    failed = sum(row["is_error"] for row in events)

    [(excess,)] = columns_of(rows(lake(events), "retry_storms"), "culprit_excess")

    assert 0.9 * failed < excess <= failed


def test_a_client_that_backs_off_is_not_a_retry_storm() -> None:
    choose = random.Random(3)
    events = client(choose, "patient", arrivals(choose, 20), doubling(choose))

    assert rows(lake(events), "retry_storms") == []


def test_a_client_that_backs_off_with_idempotency_keys_is_not_a_retry_storm() -> None:
    choose = random.Random(4)
    events = client(choose, "patient", arrivals(choose, 20), doubling(choose), has_idempotency_keys=True)

    assert rows(lake(events), "retry_storms") == []


def test_clients_that_back_off_are_not_named_beside_one_that_loops() -> None:
    choose = random.Random(5)
    events = client(choose, "looper", arrivals(choose, 0.6), at_once)
    for number in range(5):
        starts = arrivals(choose, 15)
        events += client(choose, f"patient_{number}", starts, doubling(choose), has_idempotency_keys=number % 2 == 0)

    assert columns_of(rows(lake(events), "retry_storms"), "culprit") == [("looper",)]


def test_a_client_that_only_goes_on_asking_through_the_outage_is_not_a_retry_storm() -> None:
    choose = random.Random(6)
    events = client(choose, "busy", arrivals(choose, 60), never)

    assert rows(lake(events), "retry_storms") == []


def test_a_bulk_sender_that_keeps_its_pace_is_not_a_retry_storm() -> None:
    assert rows(lake(bulk_sender(random.Random(7), "sender")), "retry_storms") == []


def test_a_client_that_asks_by_the_clock_is_not_a_retry_storm() -> None:
    choose = random.Random(8)
    events = client(choose, "ticker", [SPAN[0] + 0.05 * number for number in range(700)], never)

    assert rows(lake(events), "retry_storms") == []


def test_a_client_whose_rate_limit_lets_the_first_of_many_through_is_not_a_retry_storm() -> None:
    choose = random.Random(9)
    events = limited(choose, "limited", arrivals(choose, 30), per_second=12)

    assert rows(lake(events), "retry_storms") == []


def test_a_client_that_sends_in_volleys_is_not_a_retry_storm() -> None:
    choose = random.Random(19)
    volleys = [second + choose.uniform(0, 0.05) for second in range(45, 80) for _ in range(20)]

    assert rows(lake(client(choose, "volleys", volleys, never)), "retry_storms") == []


@pytest.mark.parametrize("pause_s", [0.0005, 0.004, 0.03, 0.06, 0.09])
def test_a_loop_is_told_wherever_its_pause_lies_below_the_tight_gap(pause_s: float) -> None:
    choose = random.Random(20)
    events = client(choose, "looper", [60.0, 60.7, 61.1], lambda: iter([pause_s] * 1000))

    assert columns_of(rows(lake(events), "retry_storms"), "culprit") == [("looper",)]


def test_a_loop_on_a_rate_limit_is_not_the_platforms_fault() -> None:
    events = [error(0.02 * number, "rate_limited", key_id="looper", latency_ms=10.0) for number in range(500)]

    assert rows(lake(events), "retry_storms") == []


def test_a_loop_that_is_too_short_is_not_a_storm() -> None:
    choose = random.Random(10)
    events = client(choose, "looper", [60.0], at_once, outage=(60.0, 60.5))

    assert rows(lake(events), "retry_storms") == []


def test_a_loop_cannot_be_told_when_the_log_keeps_whole_seconds() -> None:
    choose = random.Random(11)
    events = client(choose, "looper", arrivals(choose, 0.6), at_once)

    assert rows(lake([row | {"ts": row["ts"].replace(microsecond=0)} for row in events]), "retry_storms") == []


def test_a_loop_cannot_be_told_when_the_log_keeps_no_latency() -> None:
    choose = random.Random(11)
    events = client(choose, "looper", arrivals(choose, 0.6), at_once)

    assert rows(lake([row | {"latency_ms": None} for row in events]), "retry_storms") == []


def test_gateway_timeouts_are_a_trigger_too() -> None:
    choose = random.Random(12)
    events = client(choose, "looper", arrivals(choose, 0.6), at_once)
    made = {"code": None, "status": 504, "origin": "gateway", "gateway_reason": "gateway_timeout"}

    answer = rows(lake([row | made if row["is_error"] else row for row in events]), "retry_storms")

    assert columns_of(answer, "trigger_code", "culprit") == [("gateway_timeout", "looper")]


def test_an_idempotency_key_repeated_for_minutes_without_backing_off_is_a_slow_storm() -> None:
    choose = random.Random(13)
    events = client(
        choose, "steady", [60.0, 60.5], lambda: iter([4.0] * 100), outage=(60.0, 290.0), has_idempotency_keys=True
    )

    answer = rows(lake(events), "retry_storms")

    assert columns_of(answer, "severity", "culprit", "intent_confidence") == [("severe", "steady", "high")]


def test_clients_that_back_off_for_minutes_are_a_slow_storm_without_a_culprit() -> None:
    choose = random.Random(14)
    starts = [60.0 + number for number in range(230)]
    events = client(choose, "patient", starts, doubling(choose, 1.0), outage=(60.0, 290.0), has_idempotency_keys=True)

    answer = rows(lake(events), "retry_storms")

    assert columns_of(answer, "severity", "culprit") == [("severe", None)]


def test_a_client_that_polls_an_object_through_the_outage_is_not_a_retry_storm() -> None:
    choose = random.Random(15)
    object_path: Row = {"method": "GET", "route": "/v1/messages/{id}", "path": "/v1/messages/msg_1"}
    events = client(
        choose, "poller", [2.0 * number for number in range(300)], never, outage=(60.0, 500.0), **object_path
    )

    assert rows(lake(events), "retry_storms") == []


@pytest.mark.parametrize(("pause_s", "incidents"), [(50.0, 1), (70.0, 2)])
def test_storms_on_one_route_less_than_a_minute_apart_are_one(pause_s: float, incidents: int) -> None:
    choose = random.Random(16)
    second = (70.0 + pause_s, 72.0 + pause_s)
    events = [
        *client(choose, "looper", [68.0], at_once, outage=(68.0, 70.0)),
        *client(choose, "looper", [second[0]], at_once, outage=second),
    ]

    assert columns_of(rows(lake(events), "retry_storms"), "incident") == [(number + 1,) for number in range(incidents)]


def test_the_culprits_are_ranked_by_their_excess() -> None:
    choose = random.Random(17)
    events = [
        *client(choose, "small", [60.0], at_once),
        *client(choose, "large", [60.0, 60.5, 61.0], at_once),
    ]

    assert columns_of(rows(lake(events), "retry_storms"), "incident", "culprit") == [(1, "large"), (1, "small")]


@pytest.mark.parametrize(
    ("parameters", "culprits"),
    [
        pytest.param({"for_key": "looper_b"}, ["looper_b"], id="key"),
        pytest.param({"for_org": "org_b"}, ["looper_b"], id="organisation"),
        pytest.param({"for_route": "/v1/contacts"}, ["looper_b"], id="route"),
        pytest.param({"since": at(OUTAGE[1])}, [], id="since"),
        pytest.param({"until": at(OUTAGE[0])}, [], id="until"),
        pytest.param({}, ["looper_a", "looper_b"], id="all"),
    ],
)
def test_a_filter_keeps_the_culprits_it_names(parameters: Row, culprits: list[str]) -> None:
    choose = random.Random(18)
    contacts: Row = {"org_id": "org_b", "route": "/v1/contacts", "path": "/v1/contacts"}
    events = [
        *client(choose, "looper_a", [60.0], at_once),
        *client(choose, "looper_b", [60.1], at_once, **contacts),
    ]

    assert [row["culprit"] for row in rows(lake(events), "retry_storms", **parameters)] == culprits


@pytest.mark.parametrize(
    "thresholds",
    [
        pytest.param({}, id="defaults"),
        pytest.param({"min_requests": 10, "min_rate": 2, "tight_gap_s": 0.5}, id="low"),
        pytest.param({"open_amplification": 1.05, "open_minutes": 1, "severe_amplification": 3.0}, id="slow"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_every_row_equals_a_second_count_without_sql(seed: int, thresholds: Row) -> None:
    events = _random_traffic(seed)

    assert rows(lake(events), "retry_storms", **thresholds) == _expected(events, **thresholds)


@pytest.mark.parametrize("seed", range(2))
def test_random_events_equal_a_second_count_without_sql(seed: int) -> None:
    events = random_events(seed, count=600, spread_s=20)
    thresholds: Row = {"min_requests": 3, "min_rate": 1, "tight_gap_s": 2.0, "open_minutes": 1}

    assert rows(lake(events), "retry_storms", **thresholds) == _expected(events, **thresholds)


def _random_traffic(seed: int) -> list[Row]:
    """A few clients of every kind; some loops begin late, so that episodes and storms have different bounds."""
    choose = random.Random(seed)
    events = [
        *client(choose, "looper", arrivals(choose, 0.2), at_once),
        *client(choose, "late", [choose.uniform(61, 64)], at_once, org_id="org_b"),
        *client(choose, "keyed", arrivals(choose, 0.2), at_once, has_idempotency_keys=True),
        *client(choose, "patient", arrivals(choose, 6), doubling(choose)),
        *client(choose, "keyed_patient", arrivals(choose, 6), doubling(choose), has_idempotency_keys=True),
        *client(choose, "busy", arrivals(choose, 15), never),
        *client(choose, "second_route", [62.0, 63.0], at_once, method="GET", route=None, path=None),
        *limited(choose, "limited", arrivals(choose, 15), per_second=6),
    ]
    choose.shuffle(events)
    return events


def _expected(
    events: list[Row],
    min_requests: int = 50,
    min_rate: int = 10,
    tight_gap_s: float = 0.1,
    open_amplification: float = 1.3,
    open_minutes: int = 3,
    severe_amplification: float = 2.0,
) -> list[Row]:
    storms = []
    for (method, route), asked in _grouped(events, "method", "route").items():
        repeats = _repeats(asked)
        suspicions = _bursts(asked, min_requests, min_rate)
        suspicions += _slow(asked, repeats, min_requests, open_amplification, open_minutes)
        for episode in _episodes(suspicions):
            storm = _storm(asked, repeats, episode, round(tight_gap_s * 1e6), min_requests)
            storms += [{"method": method, "route": route} | storm] if storm else []
    storms.sort(key=lambda storm: (storm["from"], storm["method"] or "~", storm["route"] or "~"))
    answer = []
    for number, storm in enumerate(storms, start=1):
        start, end = storm["from"], storm["to"]
        asked = [
            row
            for row in events
            if (row["method"], row["route"]) == (storm["method"], storm["route"]) and start <= _end(row) <= end
        ]
        seconds = Counter(_end(row) // 1_000_000 for row in asked)
        faults = Counter(_fault(row) for row in asked if _is_fault(row))
        excess = sum(storm["excess"].values())
        amplification = len(asked) / max(len(asked) - excess, 1)
        incident = {
            "incident": number,
            "severity": "severe" if amplification >= severe_amplification else "open",
            "trigger_code": max(faults, key=lambda fault: (faults[fault], fault)),
            "method": storm["method"],
            "route": storm["route"],
            "started_at": _moment(start),
            "peaked_at": _moment(max(seconds, key=lambda second: (seconds[second], -second)) * 1_000_000),
            "ended_at": _moment(end),
            "requests": len(asked),
            "requests_per_second": len(asked) / max((end - start) / 1e6, 1),
            "peak_per_second": max(seconds.values()),
            "amplification": amplification,
        }
        named = sorted(storm["culprits"], key=lambda caller: (-storm["excess"][caller], caller))
        answer += [incident | _culprit(asked, caller, storm, excess) for caller in named or [None]]
    return answer


def _culprit(asked: list[Row], caller: str | None, storm: Row, excess: int) -> Row:
    names = ("culprit_org_id", "culprit_requests", "culprit_excess", "culprit_share", "culprit_tightness")
    if caller is None:
        return dict.fromkeys(("culprit", *names, "intent_confidence", "example_request_ids"))
    own = [row for row in asked if row["caller"] == caller]
    failed = sorted((row for row in own if _is_fault(row)), key=lambda row: (_end(row), row["request_id"]))
    keyed = sum(row.get("idempotency_hash") is not None for row in failed)
    known = sum(row.get("idempotency_hash") is not None or "{" in (row["route"] or "") for row in failed)
    return {
        "culprit": caller,
        "culprit_org_id": max((row["org_id"] for row in own if row["org_id"]), default=None),
        "culprit_requests": len(own),
        "culprit_excess": storm["excess"][caller],
        "culprit_share": storm["excess"][caller] / excess if excess else None,
        "culprit_tightness": storm["tightness"].get(caller),
        "intent_confidence": "high" if 2 * keyed >= len(failed) else "medium" if 2 * known >= len(failed) else "low",
        "example_request_ids": [row["request_id"] for row in failed[:3]],
    }


def _repeats(asked: list[Row]) -> list[Row]:
    """Failed attempts with the idempotency key of an earlier failure: end, gap and growth of the gap."""
    repeats = []
    failed = [row for row in asked if _is_fault(row) and row.get("idempotency_hash") is not None]
    for attempts in _grouped(failed, "caller", "intent_path", "idempotency_hash").values():
        gap_before: int | None = None
        for failure, attempt in pairwise(sorted(attempts, key=lambda row: (_start(row), _end(row)))):
            gap = _start(attempt) - _end(failure)
            if -1000 <= gap <= max(300, 4 * (failure.get("retry_after_s") or 0)) * 1e6:
                growth = gap / gap_before if gap_before else None
                repeats.append({"caller": attempt["caller"], "end": _end(attempt), "gap": gap, "growth": growth})
                gap_before = gap
    return repeats


def _bursts(asked: list[Row], min_requests: int, min_rate: int) -> list[Row]:
    bursts = []
    for (caller,), failed in _grouped((row for row in asked if _is_fault(row)), "caller").items():
        run: list[Row] = []
        for row in [*sorted(failed, key=_end), None]:
            if row is not None and (not run or _end(row) - _end(run[-1]) <= 1_000_000):
                run.append(row)
                continue
            start, end = min(map(_start, run)), _end(run[-1])
            if len(run) >= min_requests and len(run) * 1e6 >= min_rate * (end - _end(run[0])):
                bursts.append({"caller": caller, "from": start, "to": end})
            run = [row] if row is not None else []
    return bursts


def _slow(
    asked: list[Row], repeats: list[Row], min_requests: int, open_amplification: float, open_minutes: int
) -> list[Row]:
    failed = _grouped((row for row in asked if _is_fault(row)), "minute")
    repeated = Counter(repeat["end"] // 60_000_000 for repeat in repeats)
    amplified = sorted(
        minute
        for (minute,), attempts in failed.items()
        if repeated[minute] and len(attempts) >= open_amplification * (len(attempts) - repeated[minute])
    )
    slow = []
    runs: dict[int, list[int]] = defaultdict(list)
    for minute in amplified:
        runs[minute - amplified.index(minute)].append(minute)
    for minutes in runs.values():
        attempts = [row for minute in minutes for row in failed[(minute,)]]
        if len(minutes) >= open_minutes and len(attempts) >= min_requests:
            slow.append({"caller": None, "from": min(map(_start, attempts)), "to": max(map(_end, attempts))})
    return slow


def _episodes(suspicions: list[Row]) -> list[list[Row]]:
    episodes: list[list[Row]] = []
    for suspicion in sorted(suspicions, key=lambda row: (row["from"], row["to"])):
        if episodes and suspicion["from"] <= max(row["to"] for row in episodes[-1]) + 60_000_000:
            episodes[-1].append(suspicion)
        else:
            episodes.append([suspicion])
    return episodes


def _storm(asked: list[Row], repeats: list[Row], episode: list[Row], tight_us: int, min_requests: int) -> Row | None:
    start, end = min(row["from"] for row in episode), max(row["to"] for row in episode)
    around = [row for row in asked if start - 120_000_000 <= _end(row) <= end + 120_000_000]
    failed = Counter(row["caller"] for row in around if _is_fault(row) and start <= _end(row) <= end)
    tightness = {}
    culprits = set()
    for caller in {row["caller"] for row in episode} - {None}:
        measured = _tightness([row for row in around if row["caller"] == caller], start, end, tight_us)
        if measured is not None:
            tightness[caller], surplus, expected = measured
            if tightness[caller] >= 0.5 and surplus >= 4 * math.sqrt(expected):
                culprits.add(caller)
    for caller, attempts in failed.items():
        own = [repeat for repeat in repeats if repeat["caller"] == caller and start <= repeat["end"] <= end]
        growths = [repeat["growth"] for repeat in own if repeat["growth"] is not None]
        if 2 * len(own) >= attempts and 5 * len(own) >= min_requests:
            gap = median(repeat["gap"] for repeat in own)
            if median(growths) < 1.5 if growths else gap < 1_000_000:
                culprits.add(caller)
    bounds = [row for row in episode if row["caller"] is None or row["caller"] in culprits]
    if not bounds:
        return None
    start, end = min(row["from"] for row in bounds), max(row["to"] for row in bounds)
    inside = [row for row in around if start <= _end(row) <= end]
    repeated = Counter(repeat["caller"] for repeat in repeats if start <= repeat["end"] <= end)
    excess = dict(repeated)
    for caller in culprits:
        faults = sum(_is_fault(row) for row in inside if row["caller"] == caller)
        echo = math.floor(faults * min(max(tightness.get(caller, 0), 0), 1) + 0.5)
        excess[caller] = max(repeated[caller], echo)
    present = {row["caller"] for row in inside}
    return {
        "from": start,
        "to": end,
        "culprits": culprits & present,
        "tightness": tightness,
        "excess": {caller: count for caller, count in excess.items() if caller in present},
    }


def _tightness(own: list[Row], start: int, end: int, tight_us: int) -> tuple[float, float, float] | None:
    """How tight the loop of one caller is, with the surplus of its best stretch and what chance would put there."""
    if all(_end(row) % 1_000_000 == 0 for row in own) or all(_end(row) == _start(row) for row in own):
        return None
    answered: dict[bool, list[tuple[Row, list[int]]]] = {True: [], False: []}
    for attempts in _grouped(own, "intent_path", "idempotency_hash").values():
        starts = sorted(map(_start, attempts))
        for row in attempts:
            if not row["is_error"] or (_is_fault(row) and start <= _end(row) <= end):
                answered[_is_fault(row)].append((row, starts))
    after_fault, after_success = (_best_stretch(answered[is_fault], tight_us) for is_fault in (True, False))
    if after_fault is None:
        return None
    surplus, expected, faults, more_after = after_fault
    pace = 0.0
    if after_success is not None and after_success[2] >= 10:
        pace = max(after_success[0] / after_success[2], 0)
    return min(surplus / faults - pace, 1 + more_after), surplus, expected


def _best_stretch(answered: list[tuple[Row, list[int]]], tight_us: int) -> tuple[float, float, int, float] | None:
    """Surplus over chance and chance itself of the best stretch; answers; how many more begin after one than before."""
    begun: Counter[int] = Counter()
    around = balance = 0
    for row, starts in answered:
        nearby = slice(bisect_left(starts, _end(row) - 2 * tight_us), bisect_right(starts, _end(row) + 2 * tight_us))
        moments = [moment - _end(row) for moment in starts[nearby]]
        around += len(moments)
        if _start(row) >= _end(row) - 2 * tight_us:
            moments.remove(_start(row) - _end(row))
        begun.update((moment + 1000) // 2000 for moment in moments if -1000 <= moment < tight_us - 1000)
        balance += sum(-1000 <= moment < tight_us - 1000 for moment in moments)
        balance -= sum(-tight_us - 1000 <= moment < -1000 for moment in moments)
    if not begun:
        return None
    answers = len(answered)
    by_chance = around / answers * 500 / tight_us
    stretches = []
    for first in begun:
        for last in begun:
            if first <= last:
                expected = answers * by_chance * (last - first + 1)
                surplus = sum(count for step, count in begun.items() if first <= step <= last) - expected
                stretches.append((-surplus, first, last, expected))
    best = min(stretches)
    return -best[0], best[3], answers, balance / answers


def _grouped(events: Iterable[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in events:
        path = row["path"] if "{" in (row["route"] or "") else row["route"]
        derived = row | {"intent_path": path, "minute": _end(row) // 60_000_000}
        groups[tuple(derived.get(name) for name in names)].append(row)
    return groups


def _is_fault(row: Row) -> bool:
    return row["status"] >= 500 or row.get("code") == "internal_error"


def _fault(row: Row) -> str:
    return row.get("code") or row.get("gateway_reason") or str(row["status"])


def _end(row: Row) -> int:
    return int((row["ts"] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))


def _start(row: Row) -> int:
    return _end(row) - round((row["latency_ms"] or 0) * 1000)


def _moment(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
