"""ingest_health: whether every line was read, what is known of the errors, and when a source fell silent."""

import random
from collections import Counter
from itertools import pairwise
from statistics import median
from typing import Any

import pytest

from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, rows, source

BODY_STATES = ("whole", "truncated", "absent", "undecodable")


@pytest.mark.parametrize("parameters", [{}, {"for_source": "dense"}, {"silence_floor_s": 60, "silence_factor": 2}])
@pytest.mark.parametrize("seed", range(6))
def test_every_row_equals_a_second_count_without_sql(seed: int, parameters: Row) -> None:
    events, ledger, rejects = _random_sources(seed)

    answer = rows(lake(events, sources=ledger, rejects=rejects), "ingest_health", **parameters)

    assert answer == _expected(events, ledger, rejects, **parameters)


def test_lines_are_conserved_when_each_is_a_request_a_reject_or_skipped() -> None:
    whole = source("whole", lines=6, requests=3, rejects=2, skipped=1)
    lost = source("lost", lines=7, requests=3, rejects=2, skipped=1)

    answer = rows(lake(sources=[whole, lost]), "ingest_health")

    assert columns_of(answer, "source_id", "is_conserved") == [("lost", False), ("whole", True)]


def test_the_steps_of_a_grown_source_are_one_row() -> None:
    first = source("grown", first_line=1, lines=5, requests=5, first_ts=at(0), last_ts=at(9), is_cut=True)
    second = source(
        "grown", first_line=6, lines=2, requests=1, rejects=1, first_ts=at(10), last_ts=at(11), is_cut=False
    )

    answer = rows(lake(sources=[first, second]), "ingest_health")

    assert columns_of(answer, "lines", "requests", "rejects", "is_cut", "first_ts", "last_ts") == [
        (7, 6, 1, False, at(0), at(11))
    ]


def test_rejects_are_told_by_reason_the_most_frequent_first() -> None:
    rejects = [
        {"source_id": "first", "line": line, "reason": reason} for line, reason in enumerate(["b", "c", "a", "c"])
    ]

    answer = rows(lake(sources=[source("first", lines=4, rejects=4)], rejects=rejects), "ingest_health")

    assert columns_of(answer, "reject_reasons") == [("c 2, a 1, b 1",)]


def test_the_codes_of_rejects_are_counted_though_their_time_is_unusable() -> None:
    codes = [None, "rate_limited", "not_found", "rate_limited"]
    rejects = [{"source_id": "first", "reason": "impossible_timestamp", "code": code} for code in codes]

    answer = rows(lake(sources=[source("first", lines=4, rejects=4)], rejects=rejects), "ingest_health")

    assert columns_of(answer, "rejected_codes") == [("rate_limited 2, not_found 1",)]


def test_a_busy_source_that_pauses_for_more_than_five_minutes_fell_silent() -> None:
    con = lake([ok(second) for second in (*range(30), *range(331, 360))])

    assert columns_of(rows(con, "ingest_health"), "silences", "longest_silence_s", "longest_silence_from") == [
        (1, 302.0, at(29))
    ]


def test_a_pause_of_just_five_minutes_is_no_silence() -> None:
    con = lake([ok(second) for second in (*range(30), *range(329, 360))])

    assert columns_of(rows(con, "ingest_health"), "silences", "longest_silence_s") == [(0, None)]


def test_a_lower_floor_tells_a_pause_of_more_than_a_minute() -> None:
    con = lake([ok(second) for second in (*range(30), *range(91, 120))])

    assert columns_of(rows(con, "ingest_health", silence_floor_s=60), "silences", "longest_silence_s") == [(1, 62.0)]


def test_a_source_with_a_request_every_ten_minutes_is_not_silent_between_them() -> None:
    con = lake([ok(600.0 * number) for number in range(20)])

    assert columns_of(rows(con, "ingest_health"), "silences") == [(0,)]


def test_a_source_with_a_request_every_ten_minutes_is_silent_after_more_than_five_such_gaps() -> None:
    con = lake([ok(600.0 * number) for number in (*range(20), 26)])

    assert columns_of(rows(con, "ingest_health"), "silences", "longest_silence_s") == [(1, 4200.0)]


def test_requests_dated_after_their_ingest_are_told() -> None:
    ledger = [
        source("first", first_line=1, lines=2, last_ts=at(50), ingested_at=at(20)),
        source("first", first_line=3, lines=1, last_ts=at(60), ingested_at=at(70)),
    ]
    events = [ok(10, line=1), ok(50, line=2), ok(60, line=3)]

    assert columns_of(rows(lake(events, sources=ledger), "ingest_health"), "late_requests") == [(1,)]


def test_the_data_go_through_the_latest_request_of_all_sources() -> None:
    con = lake(sources=[source("early", first_ts=at(0), last_ts=at(1)), source("late", first_ts=at(5), last_ts=at(6))])

    answer = columns_of(rows(con, "ingest_health"), "source_id", "last_ts", "data_through")

    assert answer == [("early", at(1), at(6)), ("late", at(6), at(6))]


def test_a_source_without_a_single_request_is_a_row() -> None:
    con = lake(sources=[source("empty", lines=1, rejects=1)], rejects=[{"source_id": "empty", "reason": "not_json"}])

    answer = columns_of(rows(con, "ingest_health"), "source_id", "errors", "silences", "reject_reasons")

    assert answer == [("empty", 0, 0, "not_json 1")]


def _random_sources(seed: int) -> tuple[list[Row], list[Row], list[Row]]:
    """Sources with dense, irregular, sparse and single requests, each ingested in two steps, some of them too early."""
    choose = random.Random(seed)
    scales = {"dense": (300, 1.0), "irregular": (60, 30.0), "sparse": (40, 600.0), "single": (1, 1.0)}
    events: list[Row] = []
    ledger: list[Row] = []
    rejects: list[Row] = []
    for source_id, (count, scale) in scales.items():
        seconds = 0.0
        moments = []
        for _ in range(count):
            seconds += choose.choice([0, scale * choose.random(), scale * choose.choice([1, 1, 1, 7, 70])])
            moments.append(round(seconds, 3))
        lines = list(range(1, count + 1))
        choose.shuffle(lines)
        for line, moment in zip(lines, moments, strict=True):
            fields = {"source_id": source_id, "line": line}
            if choose.random() < 0.5:
                events.append(ok(moment, **fields))
            else:
                events.append(error(moment, "not_found", **fields | {"body_state": choose.choice(BODY_STATES)}))
        cut = count // 2
        for first_line, length in ((1, cut), (cut + 1, count - cut)):
            step = [
                row["ts"] for row in events if row["source_id"] == source_id and 0 <= row["line"] - first_line < length
            ]
            reasons = [choose.choice(["not_json", "no_status"]) for _ in range(choose.randrange(3))]
            codes = [choose.choice([None, "not_found", "rate_limited"]) for _ in reasons]
            rejects += [
                {"source_id": source_id, "reason": reason, "code": code}
                for reason, code in zip(reasons, codes, strict=True)
            ]
            counts = {"lines": length, "requests": length - choose.randrange(2), "rejects": len(reasons)}
            span = {"first_ts": min(step, default=None), "last_ts": max(step, default=None)}
            ingested_at = choose.choice([at(60), at(86_400 * 30)])
            ledger.append(source(source_id, first_line=first_line, ingested_at=ingested_at, **counts, **span))
    return events, ledger, rejects


def _expected(
    events: list[Row],
    ledger: list[Row],
    rejects: list[Row],
    for_source: str | None = None,
    silence_floor_s: int = 300,
    silence_factor: int = 5,
) -> list[Row]:
    answer = []
    for source_id in sorted({step["source_id"] for step in ledger if for_source in (None, step["source_id"])}):
        steps = [step for step in ledger if step["source_id"] == source_id]
        found = sorted((row for row in events if row["source_id"] == source_id), key=lambda row: row["ts"])
        moments = [row["ts"] for row in found]
        gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(moments)]
        longest = max(silence_floor_s, 60, silence_factor * median(gaps or [0]))
        silences = [(gap, moment) for gap, moment in zip(gaps, moments, strict=False) if gap > longest]
        reasons = Counter(row["reason"] for row in rejects if row["source_id"] == source_id)
        codes = Counter(row["code"] for row in rejects if row["source_id"] == source_id and row["code"])
        bodies = Counter(row["body_state"] for row in found if row["is_error"])
        parts = ("requests", "rejects", "skipped", "duplicates", "removed")
        sums = {name: sum(step[name] for step in steps) for name in ("lines", *parts)}
        answer.append(
            sums
            | {f"{state}_bodies": bodies[state] for state in BODY_STATES}
            | {
                "source_id": source_id,
                "name": f"{source_id}.log",
                "gateway": None,
                "is_conserved": sums["lines"] == sum(sums[name] for name in parts),
                "is_cut": None,
                "reject_reasons": _in_words(reasons),
                "rejected_codes": _in_words(codes),
                "errors": sum(bodies.values()),
                "first_ts": moments[0],
                "last_ts": moments[-1],
                "silences": len(silences),
                "longest_silence_s": max(silences)[0] if silences else None,
                "longest_silence_from": max(silences)[1] if silences else None,
                "late_requests": sum(_is_late(row, steps) for row in found),
                "data_through": max(row["ts"] for row in events),
            }
        )
    return sorted(answer, key=lambda row: (row["first_ts"], row["source_id"]))


def _is_late(row: Row, steps: list[Row]) -> bool:
    step = next(step for step in steps if 0 <= row["line"] - step["first_line"] < step["lines"])
    return bool(row["ts"] > step["ingested_at"])


def _in_words(reasons: Counter[Any]) -> str | None:
    return (
        ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items(), key=lambda x: (-x[1], x[0]))) or None
    )
