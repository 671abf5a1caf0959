"""runs: errors of one caller that follow each other closely."""

import pytest

from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events


@pytest.mark.parametrize("seed", range(3))
def test_every_run_equals_a_second_walk_without_sql(seed: int) -> None:
    events = random_events(seed, count=500, spread_s=200)

    names = ("caller", "client_ip", "answer", "started_at", "ended_at", "errors")
    found = columns_of(_runs(events, max_gap_s=20), *names)

    assert set(found) == set(_expected(events, max_gap_s=20))
    assert len(found) == len(set(found))


def test_a_run_says_how_long_and_how_dense_it_was() -> None:
    events = [
        error(second, "not_found", key_id="key_a", client_ip="192.0.2.1", org_id="org_a", request_id=f"r{second}")
        for second in (0, 0.2, 0.9, 1.5, 9)
    ]

    first, second = _runs([*events, ok(0.5, key_id="key_a")], max_gap_s=1)

    assert first == {
        "caller": "key_a",
        "client_ip": "192.0.2.1",
        "org_id": "org_a",
        "answer": "not_found",
        "routes": 1,
        "started_at": at(0),
        "ended_at": at(1.5),
        "errors": 4,
        "peak_per_second": 3,
        "request_ids": ["r0", "r0.2", "r0.9"],
    }
    assert columns_of([second], "started_at", "errors") == [(at(9), 1)]


def _runs(events: list[Row], *, max_gap_s: float) -> list[Row]:
    con = lake(events)
    sql = f"FROM runs(NULL, NULL, NULL, NULL, NULL, {max_gap_s}) ORDER BY started_at, ended_at, caller, answer"
    found: list[Row] = con.sql(sql).to_arrow_table().to_pylist()
    return found


def _expected(events: list[Row], *, max_gap_s: float) -> list[tuple[object, ...]]:
    answers: dict[tuple[object, ...], list[Row]] = {}
    for row in sorted((row for row in events if row["is_error"]), key=lambda row: row["ts"]):
        answer = row.get("code") or row.get("gateway_reason") or str(row["status"])
        answers.setdefault((row["caller"], row.get("client_ip"), answer), []).append(row)
    runs = []
    for who, rows in answers.items():
        starts = [0] + [
            place
            for place in range(1, len(rows))
            if (rows[place]["ts"] - rows[place - 1]["ts"]).total_seconds() > max_gap_s
        ]
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            runs.append((*who, rows[start]["ts"], rows[end - 1]["ts"], end - start))
    return runs
