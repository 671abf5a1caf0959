"""idempotency_misuse: who uses Idempotency-Keys wrongly, and who repeats sends without one."""

import random
from typing import Any, Final

import pytest
from statsmodels.stats.proportion import proportion_confint

from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows

WAITS_S: Final = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
Z3: Final = 0.0026997960632601866  # two-sided, of three standard deviations


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({}, id="all"),
        pytest.param({"since": at(86_000)}, id="since"),
        pytest.param({"until": at(2 * 86_000)}, id="until"),
        pytest.param({"for_org": "org_a"}, id="organisation"),
        pytest.param({"for_key": "key_3"}, id="key"),
        pytest.param({"for_route": "/v1/messages"}, id="route"),
        pytest.param(
            {"min_events": 1, "min_share": 0.3, "longest_wait_s": 60.0, "poll_s": 50.0, "min_estimated": 5},
            id="thresholds",
        ),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_every_row_equals_a_second_count_without_sql(seed: int, parameters: Row) -> None:
    events = _random_events(seed)

    assert rows(lake(events), "idempotency_misuse", **parameters) == _expected(events, **parameters)


def test_the_second_count_meets_every_verdict() -> None:
    answers = [row for seed in range(3) for row in _expected(_random_events(seed))]

    assert {row["verdict"] for row in answers} == {
        *("constant key across bodies", "polling in progress", "concurrent duplicates", "retried without a key"),
        *("occasional", "keys not logged"),
    }


@pytest.mark.parametrize("keys", [1, 3], ids=["one key for everything", "keys that change their bodies"])
def test_keys_that_come_with_another_body_are_constant(keys: int) -> None:
    con = lake([_reused(number, idempotency_hash=f"key_{number % keys}") for number in range(6)])

    assert columns_of(rows(con, "idempotency_misuse"), "verdict", "events", "share", "idempotency_keys") == [
        ("constant key across bodies", 6, 1.0, keys)
    ]


@pytest.mark.parametrize(("events", "verdict"), [(2, "occasional"), (3, "constant key across bodies")])
def test_fewer_than_three_events_are_occasional(events: int, verdict: str) -> None:
    con = lake([_reused(number) for number in range(events)])

    assert columns_of(rows(con, "idempotency_misuse"), "verdict", "events") == [(verdict, events)]


@pytest.mark.parametrize(("sends", "verdict"), [(297, "constant key across bodies"), (298, "occasional")])
def test_less_than_one_in_a_hundred_requests_is_occasional(sends: int, verdict: str) -> None:
    sent = [_sent(10 + number, idempotency_hash=f"own_{number}") for number in range(sends)]
    con = lake([*(_reused(number) for number in range(3)), *sent])

    assert columns_of(rows(con, "idempotency_misuse"), "verdict", "requests") == [(verdict, sends + 3)]


def test_asking_again_and_again_faster_than_once_a_second_is_polling() -> None:
    con = lake(_asked_again(gap_s=0.9, times=8))

    assert columns_of(rows(con, "idempotency_misuse"), "verdict", "events", "polls", "duplicates", "waited") == [
        ("polling in progress", 8, 7, 1, 0)
    ]


def test_asking_again_once_a_second_as_told_is_not_polling() -> None:
    con = lake(_asked_again(gap_s=1.0, times=8))

    assert columns_of(rows(con, "idempotency_misuse"), "verdict", "polls", "duplicates", "waited") == [
        ("occasional", 0, 1, 7)
    ]


def test_a_retry_or_two_too_soon_for_a_key_is_not_polling() -> None:
    events = [
        row for number in range(4) for row in _asked_again(gap_s=0.5, times=3, key=f"key_{number}", at_s=60 * number)
    ]

    assert columns_of(rows(lake(events), "idempotency_misuse"), "verdict", "polls", "duplicates") == [
        ("concurrent duplicates", 8, 4)
    ]


@pytest.mark.parametrize("later_s", [0.0, 0.004, 0.9], ids=["at once", "a moment later", "before the answer"])
def test_requests_that_do_not_wait_for_the_first_answer_are_duplicates(later_s: float) -> None:
    events = [row for number in range(3) for row in _twice(60 * number, later_s, key=f"key_{number}")]

    assert columns_of(
        rows(lake(events), "idempotency_misuse"), "verdict", "events", "duplicates", "idempotency_keys"
    ) == [("concurrent duplicates", 3, 3, 3)]


def test_three_parallel_requests_are_two_duplicates_and_no_poll() -> None:
    events = []
    for number in range(3):
        events += [
            _sent(60 * number + 0.08, latency_ms=80.0, idempotency_hash=f"key_{number}"),
            _in_progress(60 * number + 0.007, latency_ms=3.0, idempotency_hash=f"key_{number}"),
            _in_progress(60 * number + 0.013, latency_ms=5.0, idempotency_hash=f"key_{number}"),
        ]

    assert columns_of(rows(lake(events), "idempotency_misuse"), "verdict", "duplicates", "polls") == [
        ("concurrent duplicates", 6, 0)
    ]


def test_a_client_that_gave_up_waiting_is_no_concurrent_duplicate() -> None:
    events = [row for number in range(4) for row in _twice(60 * number, 5.0, key=f"key_{number}", took_s=8.0)]

    assert columns_of(rows(lake(events), "idempotency_misuse"), "verdict", "duplicates", "waited") == [
        ("occasional", 0, 4)
    ]


def test_a_log_without_keys_says_so() -> None:
    con = lake([_in_progress(number, idempotency_hash=None) for number in range(9)])

    assert columns_of(rows(con, "idempotency_misuse"), "verdict", "events", "idempotency_keys", "polls") == [
        ("keys not logged", 9, None, None)
    ]


def test_sends_that_come_again_after_faults_without_a_key_are_an_estimate() -> None:
    con = lake(_outage(retry_s=3.0))

    assert columns_of(rows(con, "idempotency_misuse"), "verdict", "events", "requests", "is_estimate", "within_s") == [
        ("retried without a key", 30, 30, True, 4.0)
    ]


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(lambda: _outage(retry_s=None), id="that gives up"),
        pytest.param(lambda: _outage(retry_s=3.0, method="GET"), id="that reads"),
        pytest.param(lambda: _outage(retry_s=3.0, idempotency_hash="own"), id="that has a key"),
        pytest.param(lambda: _outage(retry_s=3.0, code="rate_limited"), id="that was limited"),
        pytest.param(lambda: _outage(retry_s=3.0, faults=19), id="with few faults"),
        pytest.param(lambda: _outage(retry_s=3.0, gateway="keyless"), id="of whose keys the log says nothing"),
        pytest.param(lambda: _bursts(), id="that sends in bursts"),
    ],
)
def test_nothing_is_said_of_a_client(events: Any) -> None:
    assert rows(lake(events()), "idempotency_misuse") == []


def test_retries_on_a_path_that_names_an_object_are_counted() -> None:
    path: Row = {"route": "/v1/messages/{id}/cancel", "path": "/v1/messages/7/cancel", "idempotency_hash": None}
    con = lake([_reused(1000), *(_fault(4 * number, **path) for number in range(5))])

    answer = [row for row in rows(con, "idempotency_misuse") if row["verdict"] != "occasional"]

    assert columns_of(answer, "verdict", "events", "requests", "is_estimate") == [
        ("retried without a key", 4, 5, False)
    ]


def test_the_examples_are_the_three_latest() -> None:
    con = lake([_reused(number, request_id=f"req_{number}") for number in range(5)])

    assert columns_of(rows(con, "idempotency_misuse"), "example_request_ids", "first_seen", "last_seen") == [
        (["req_4", "req_3", "req_2"], at(0), at(4))
    ]


def _sent(seconds: float, **fields: Any) -> Row:
    return ok(seconds, **{"key_id": "key_a", "org_id": "org_a", "gateway": "edge"} | fields)


def _refused(seconds: float, code: str, **fields: Any) -> Row:
    given = {"key_id": "key_a", "org_id": "org_a", "gateway": "edge", "status": 409, "idempotency_hash": "key_1"}
    return error(seconds, code, **given | fields)


def _reused(seconds: float, **fields: Any) -> Row:
    return _refused(seconds, "idempotency_key_reused", **fields)


def _in_progress(seconds: float, **fields: Any) -> Row:
    return _refused(seconds, "idempotency_in_progress", **fields)


def _fault(seconds: float, code: str = "internal_error", **fields: Any) -> Row:
    return _refused(seconds, code, **{"status": 429 if code == "rate_limited" else 500} | fields)


def _twice(seconds: float, later_s: float, key: str, took_s: float = 1.0) -> list[Row]:
    """A send that takes `took_s`, and the same one `later_s` after its start, refused in 10 ms."""
    return [
        _sent(seconds + took_s, latency_ms=took_s * 1000, idempotency_hash=key),
        _in_progress(seconds + later_s + 0.01, idempotency_hash=key),
    ]


def _asked_again(gap_s: float, times: int, key: str = "key_1", at_s: float = 0.0) -> list[Row]:
    """A send, its duplicate at once, and requests under the same key, each `gap_s` after the refusal before it."""
    began_s = [at_s + 0.005 + number * (gap_s + 0.01) for number in range(times)]
    refused = [_in_progress(began + 0.01, idempotency_hash=key) for began in began_s]
    return [_sent(at_s + 60, latency_ms=60_000.0, idempotency_hash=key), *refused]


def _outage(retry_s: float | None, faults: int = 30, code: str = "internal_error", **fields: Any) -> list[Row]:
    """Sends without a key, one a minute, that succeed; then as many that fail, each sent again after `retry_s`."""
    fields = {"idempotency_hash": None, "key_id": "key_b"} | fields
    events = [_fault(-9000, idempotency_hash="of another", key_id="key_c", gateway="edge")]
    for number in range(30):
        events.append(_sent(60 * number, **fields))
    for number in range(faults):
        seconds = 1800 + 60 * number
        events.append(_fault(seconds, code, **fields))
        if retry_s is not None:
            events.append(_sent(seconds + retry_s + 0.01, **fields))
    return events


def _bursts() -> list[Row]:
    """Ten sends within a second, every five minutes, whatever became of those before; half of them fail."""
    events = [_fault(-9000, idempotency_hash="of another", key_id="key_c")]
    for burst in range(8):
        for number in range(10):
            make = _fault if (burst + number) % 2 else _sent
            events.append(make(300 * burst + number / 10, idempotency_hash=None, key_id="key_b"))
    return events


def _random_events(seed: int) -> list[Row]:
    choose = random.Random(seed)
    events = []
    for row in random_events(seed, count=400, spread_s=900):
        made: Row = {"gateway": choose.choice(["edge", "edge", "inner"])}
        if row.get("code") in (
            "validation_failed",
            "missing_api_key",
            "insufficient_scope",
            "not_found",
            "dnc_blocked",
        ):
            made |= {"code": choose.choice(["idempotency_in_progress", "idempotency_key_reused"]), "status": 409}
        if made["gateway"] == "inner":
            made["idempotency_hash"] = None
        events.append(row | made)
    made_up = _outage(3.0)
    for number in range(6):
        at_s = choose.randrange(900)
        made_up += [
            row | {"key_id": "key_d", "caller": "key_d"} for row in _twice(at_s, choose.random() * 3, f"d{number}")
        ]
        times = choose.randrange(2, 9)
        polled = _asked_again(choose.random() * 1.2, times, key=f"e{number}", at_s=at_s)
        made_up += [row | {"key_id": "key_e", "caller": "key_e"} for row in polled]
    return [*events, *(row | {"request_id": f"made_up_{number}"} for number, row in enumerate(made_up))]


def _start(row: Row) -> float:
    return float(row["ts"].timestamp() - (row["latency_ms"] or 0) / 1000)


def _same(one: float, other: float) -> bool:
    return abs(one - other) < 1e-7


def _expected(
    events: list[Row],
    since: Any = None,
    until: Any = None,
    for_org: str | None = None,
    for_key: str | None = None,
    for_route: str | None = None,
    min_events: int = 3,
    min_share: float = 0.01,
    longest_wait_s: float = 2.0,
    poll_s: float = 1.0,
    min_estimated: int = 20,
) -> list[Row]:
    asked = [
        row
        for row in events
        if (since is None or row["ts"] >= since)
        and (until is None or row["ts"] < until)
        and for_org in (None, row["org_id"])
        and for_key in (None, row["caller"])
        and for_route in (None, row["route"])
    ]
    telling = {row["gateway"] for row in events if row["is_error"] and row.get("idempotency_hash")}
    answer = []
    for code in ("idempotency_in_progress", "idempotency_key_reused"):
        for caller in {row["caller"] for row in asked if row.get("code") == code}:
            found = [row for row in asked if row["caller"] == caller and row.get("code") == code]
            places = {(row["method"], row["route"]) for row in found}
            total = sum(row["caller"] == caller and (row["method"], row["route"]) in places for row in asked)
            kinds = _kinds(asked, caller, longest_wait_s, poll_s) if code == "idempotency_in_progress" else {}
            in_a_row = sum(list(names).count("poll") for names in kinds.values() if list(names).count("poll") >= 3)
            flat = [name for names in kinds.values() for name in names]
            if code == "idempotency_in_progress" and not any(row["gateway"] in telling for row in found):
                verdict = "keys not logged"
            elif len(found) < min_events or len(found) < min_share * total:
                verdict = "occasional"
            elif code == "idempotency_key_reused":
                verdict = "constant key across bodies"
            elif 2 * in_a_row >= len(found):
                verdict = "polling in progress"
            else:
                verdict = "concurrent duplicates" if flat.count("duplicate") >= min_events else "occasional"
            counts = {"polls": "poll", "duplicates": "duplicate", "waited": "waited"}
            answer.append(
                {
                    "caller": caller,
                    "org_id": max((row["org_id"] for row in found if row["org_id"]), default=None),
                    "verdict": verdict,
                    "events": len(found),
                    "requests": total,
                    "share": len(found) / total,
                    "idempotency_keys": len({row["idempotency_hash"] for row in found} - {None}) or None,
                }
                | {name: flat.count(kind) if flat else None for name, kind in counts.items()}
                | {"is_estimate": False, "within_s": None}
                | _seen(found)
            )
    answer += _unsafe(asked, telling, min_events, min_estimated)
    return sorted(answer, key=lambda row: (-row["events"], row["caller"], row["verdict"], row["first_seen"]))


def _seen(found: list[Row]) -> Row:
    latest = sorted(sorted(found, key=lambda row: row["request_id"]), key=lambda row: row["ts"], reverse=True)
    return {
        "first_seen": latest[-1]["ts"],
        "last_seen": latest[0]["ts"],
        "example_request_ids": [row["request_id"] for row in latest[:3]],
    }


def _kinds(asked: list[Row], caller: str, longest_wait_s: float, poll_s: float) -> dict[str, list[str]]:
    """For each Idempotency-Key of `caller` what its refusals in progress are."""
    kinds: dict[str, list[str]] = {}
    for row in asked:
        key = row["idempotency_hash"]
        if row["caller"] != caller or row.get("code") != "idempotency_in_progress" or key is None:
            continue
        alike = [other for other in asked if other["caller"] == caller and other["idempotency_hash"] == key]
        start = _start(row)
        near = [other for other in alike if _start(other) <= start + 0.1 + 1e-7]
        served = [other for other in near if other.get("code") != "idempotency_in_progress"]
        first = max((_start(other) for other in served), default=None)
        ended = max((other["ts"].timestamp() for other in served), default=0.0)
        earliest = min(_start(other) for other in near)
        refused = [
            other["ts"].timestamp()
            for other in alike
            if other.get("code") == "idempotency_in_progress" and _start(other) < start - 1e-7
        ]
        since_first = start - (earliest if first is None else first)
        if since_first <= 0.1 + 1e-7 and start - earliest <= longest_wait_s + 1e-7:
            kind = "duplicate"
        elif refused and start - max(refused) < poll_s - 1e-7:
            kind = "poll"
        elif (
            not refused
            and first is not None
            and start - first <= longest_wait_s + 1e-7
            and ended > start - 0.001 + 1e-7
        ):
            kind = "duplicate"
        else:
            kind = "waited"
        kinds.setdefault(key, []).append(kind)
    return kinds


def _is_fault(row: Row) -> bool:
    return bool(
        row["is_error"] and (row["status"] >= 500 or row["status"] == 499 or row.get("code") == "internal_error")
    )


def _unsafe(asked: list[Row], telling: set[str], min_events: int, min_estimated: int) -> list[Row]:
    """The callers whose POSTs without a key come again after faults."""
    posts = [row for row in asked if row["method"] == "POST" and not row.get("idempotency_hash") and row["caller"]]
    faults = [row for row in posts if _is_fault(row) and row["gateway"] in telling]
    answer = []
    for caller in sorted({row["caller"] for row in faults}):
        events, requests, within, counted = 0, 0, [], []
        for route in sorted({row["route"] for row in faults if row["caller"] == caller}):
            met = [row for row in faults if (row["caller"], row["route"]) == (caller, route)]
            tried = [row for row in posts if (row["caller"], row["route"]) == (caller, route)]
            best = _surplus(tried, min_estimated) if len(met) >= min_events else None
            if best:
                events, requests = events + best[0], requests + sum(_is_fault(row) for row in tried)
                within.append(best[1])
                counted += met
        if events:
            answer.append(
                {
                    "caller": caller,
                    "org_id": max((row["org_id"] for row in counted if row["org_id"]), default=None),
                    "verdict": "retried without a key" if events >= min_events else "occasional",
                    "events": events,
                    "requests": requests,
                    "share": events / requests,
                    **dict.fromkeys(("idempotency_keys", "polls", "duplicates", "waited")),
                    "is_estimate": True,
                    "within_s": max(within),
                }
                | _seen(counted)
            )
    return answer


def _surplus(tried: list[Row], min_estimated: int) -> tuple[int, float] | None:
    """The most retries that any wait tells, and that wait; POSTs of the random events name no object."""
    ends = [max(row["ts"].timestamp(), _start(row) + 1e-6) for row in tried]
    starts = [_start(row) for row in tried]
    nexts = [min((start - end for start in starts if start >= end - 1e-7), default=None) for end in ends]
    fault_ends = [end for end, row in zip(ends, tried, strict=True) if _is_fault(row)]
    after_fault = [lag for lag, row in zip(nexts, tried, strict=True) if _is_fault(row)]
    after_success = [
        lag
        for lag, end, row in zip(nexts, ends, tried, strict=True)
        if not row["is_error"] and any(abs(end - fault) <= 1800 + 1e-7 for fault in fault_ends)
    ]
    if min(len(after_fault), len(after_success)) < min_estimated:
        return None
    found = []
    for wait in WAITS_S:
        hits = [sum(lag is not None and lag <= wait + 1e-7 for lag in lags) for lags in (after_fault, after_success)]
        low = proportion_confint(hits[0], len(after_fault), alpha=Z3, method="wilson")[0]
        high = proportion_confint(hits[1], len(after_success), alpha=Z3, method="wilson")[1]
        if low > high:
            usual = hits[1] / len(after_success)
            retries = len(after_fault) * (hits[0] / len(after_fault) - usual) / (1 - usual)
            found.append((-int(retries + 0.5), wait))
    return (-min(found)[0], min(found)[1]) if found and min(found)[0] < 0 else None
