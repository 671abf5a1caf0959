"""error_budget: what is left of the error budget, and the burn rates of the Google SRE workbook."""

from datetime import datetime, timedelta
from typing import Any, Final

import pytest

from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows

HOUR_S: Final = 3_600
WINDOWS: Final = (
    ("budget", 720.0, None, 1.0),
    ("fast burn", 1.0, 1 / 12, 14.4),
    ("slow burn", 6.0, 0.5, 6.0),
    ("creeping", 72.0, 6.0, 1.0),
)
NOW_S: Final = 31 * 24 * HOUR_S


def hourly(days: int = 31) -> list[Row]:
    """A thousand requests a day that succeed, and one more that ends the data."""
    step = 86.4
    return [ok(NOW_S - number * step) for number in range(1_000 * days)]


def faults(count: int, first_s: float, last_s: float) -> list[Row]:
    """`count` faults between so many seconds before the end of the data and so many."""
    step = (first_s - last_s) / count
    return [error(NOW_S - first_s + number * step, "internal_error") for number in range(count)]


def budget(events: list[Row], **parameters: Any) -> dict[str, Row]:
    return {row["alert"]: row for row in rows(lake(events), "error_budget", **parameters)}


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({}, id="all"),
        pytest.param({"until": at(86_400)}, id="until"),
        pytest.param({"for_org": "org_a"}, id="organisation"),
        pytest.param({"for_key": "key_3"}, id="key"),
        pytest.param({"for_route": "/v1/messages"}, id="route"),
        pytest.param({"objective": 0.9}, id="objective"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_every_row_equals_a_second_count_without_sql(seed: int, parameters: Row) -> None:
    events = random_events(seed, count=600)

    found = rows(lake(events), "error_budget", **parameters)

    assert [_rounded(row) for row in found] == [_rounded(row) for row in _expected(events, **parameters)]


def test_without_faults_the_whole_budget_is_left() -> None:
    found = budget(hourly())

    assert found["budget"]["budget_left"] == 1
    assert [row["is_burning"] for row in found.values()] == [False] * 4


def test_half_of_the_allowed_faults_leave_half_of_the_budget() -> None:
    found = budget(hourly() + faults(15, 20 * 24 * HOUR_S, 10 * 24 * HOUR_S))

    assert found["budget"]["budget_left"] == pytest.approx(0.5, abs=0.01)


def test_what_clients_do_wrong_costs_no_budget() -> None:
    refused = [row | {"code": "not_found", "status": 404} for row in faults(500, 5 * HOUR_S, 0.0)]

    assert budget(hourly() + refused)["budget"]["budget_left"] == 1


def test_an_outage_that_goes_on_burns_fast() -> None:
    assert budget(hourly() + faults(40, HOUR_S, 0.0))["fast burn"]["is_burning"]


def test_an_outage_that_is_over_burns_no_more() -> None:
    found = budget(hourly() + faults(40, HOUR_S, 0.5 * HOUR_S))["fast burn"]

    assert (found["burn_rate"] > 14.4, found["short_burn_rate"], found["is_burning"]) == (True, 0, False)


def test_a_creeping_fault_burns_slowly() -> None:
    found = budget(hourly() + faults(60, 72 * HOUR_S, 0.0))

    assert [name for name, row in found.items() if row["is_burning"]] == ["budget", "creeping"]


def test_days_that_are_not_known_are_said_to_be_missing() -> None:
    found = rows(lake(hourly(days=4)), "error_budget")

    assert columns_of(found, "alert", "is_whole_window") == [
        ("budget", False),
        ("fast burn", True),
        ("slow burn", True),
        ("creeping", True),
    ]


def _rounded(row: Row) -> Row:
    return {name: float(f"{value:.9g}") if isinstance(value, float) else value for name, value in row.items()}


def _expected(
    events: list[Row],
    until: datetime | None = None,
    for_org: str | None = None,
    for_key: str | None = None,
    for_route: str | None = None,
    objective: float = 0.999,
) -> list[Row]:
    end = until or max(row["ts"] for row in events) + timedelta(microseconds=1)
    asked = [
        row
        for row in events
        if row["ts"] < end
        and for_org in (None, row["org_id"])
        and for_key in (None, row["caller"])
        and for_route in (None, row["route"])
    ]

    def counted(hours: float) -> tuple[int, int]:
        inside = [row for row in asked if row["ts"] >= end - timedelta(hours=hours)]
        failed = [row for row in inside if row["is_error"]]
        return sum(row["status"] >= 500 or row.get("code") == "internal_error" for row in failed), len(inside)

    answer: list[Row] = []
    for alert, hours, short_hours, threshold in WINDOWS:
        found, requests = counted(hours)
        short_found, short_requests = counted(short_hours) if short_hours else (None, None)
        rate = found / requests if requests else None
        burn = None if rate is None else rate / (1 - objective)
        short_burn = (
            short_found / short_requests / (1 - objective) if short_requests and short_found is not None else None
        )
        is_short_burning = short_hours is None or (short_burn is not None and short_burn >= threshold)
        answer.append(
            {
                "alert": alert,
                "window_h": hours,
                "faults": found,
                "requests": requests,
                "fault_rate": rate,
                "burn_rate": burn,
                "short_window_h": short_hours,
                "short_faults": short_found,
                "short_requests": short_requests,
                "short_burn_rate": short_burn,
                "threshold": threshold,
                "is_burning": burn is not None and burn >= threshold and is_short_burning,
                "budget_left": 1 - burn if alert == "budget" and burn is not None else None,
                "is_whole_window": min(row["ts"] for row in events) <= end - timedelta(hours=hours),
            }
        )
    return answer if answer[0]["requests"] else []
