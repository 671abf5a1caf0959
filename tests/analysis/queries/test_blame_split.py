"""blame_split: whose problems the errors are, and whether the platform itself began to refuse good calls."""

from collections import Counter
from datetime import datetime
from typing import Any, Final

import pytest

from analysis import questions
from analysis.lake import DEFAULT_CATALOGUE, read_catalogue
from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows

DAY_S: Final = 86_400
CATEGORIES: Final = {row["code"]: row["category"] for row in read_catalogue(DEFAULT_CATALOGUE).to_pylist()}
SUSPECTED: Final = "platform suspected"


def customer(number: int, **fields: Any) -> Row:
    return {"key_id": f"key_{number}", "org_id": f"org_{number}", "request_id": f"req_{number}"} | fields


def customers(days: range = range(5), count: int = 12) -> list[Row]:
    """Customers that succeed four times a day."""
    return [
        ok(day * DAY_S + hour * 6 * 3_600 + number, **customer(number))
        for day in days
        for hour in range(4)
        for number in range(count)
    ]


def refusals(count: int, start_s: float = 4.4 * DAY_S, pause_s: float = 30, **fields: Any) -> list[Row]:
    """So many customers refused one after the other."""
    return [
        error(start_s + number * pause_s, **{"code": "validation_failed"} | customer(number) | fields)
        for number in range(count)
    ]


def suspected(events: list[Row], **parameters: Any) -> list[Row]:
    return [row for row in rows(lake(events), "blame_split", **parameters) if row["blame"] == SUSPECTED]


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({}, id="all"),
        pytest.param({"since": at(86_000)}, id="since"),
        pytest.param({"until": at(2 * 86_000)}, id="until"),
        pytest.param({"for_org": "org_a"}, id="organisation"),
        pytest.param({"for_key": "key_3"}, id="key"),
        pytest.param({"for_route": "/v1/messages"}, id="route"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_every_share_equals_a_second_count_without_sql(seed: int, parameters: Row) -> None:
    events = random_events(seed, count=600)

    found = [row for row in rows(lake(events), "blame_split", **parameters) if row["blame"] != SUSPECTED]

    assert columns_of(
        found, "blame", "errors", "error_share", "intents", "intent_share", "callers", "orgs", "code", "ended_at"
    ) == _expected(events, **parameters)


@pytest.mark.parametrize(
    ("failure", "blame"),
    [
        pytest.param({"code": "validation_failed"}, "client", id="a mistake"),
        pytest.param({"code": "insufficient_scope"}, "authorization", id="a missing scope"),
        pytest.param({"code": "rate_limited"}, "pacing", id="too fast"),
        pytest.param({"code": "insufficient_credits", "status": 422}, "account", id="no credits"),
        pytest.param({"code": "dnc_blocked"}, "recipient", id="a recipient's wish"),
        pytest.param({"code": "internal_error"}, "platform", id="a fault"),
        pytest.param({"code": "brand_new", "status": 503}, "platform", id="a fault with an unknown code"),
        pytest.param({"code": "brand_new", "status": 422}, "client", id="an unknown code"),
        pytest.param({"code": None, "status": 502}, "platform", id="no envelope"),
        pytest.param({"code": None, "status": 401}, "authorization", id="401 without a code"),
        pytest.param({"code": None, "status": 429}, "pacing", id="429 without a code"),
        pytest.param({"code": None, "status": 499}, "client", id="a client that hung up"),
    ],
)
def test_an_error_is_blamed_by_its_code_or_its_status(failure: Row, blame: str) -> None:
    assert columns_of(rows(lake([error(0, **failure)]), "blame_split"), "blame") == [(blame,)]


def test_a_client_that_loops_has_one_problem() -> None:
    loop = [error(second, "validation_failed", idempotency_hash="same", key_id="key_a") for second in range(100)]
    others = [error(second, "rate_limited", idempotency_hash=f"other_{second}", key_id="key_b") for second in range(3)]

    assert columns_of(rows(lake(loop + others), "blame_split"), "blame", "errors", "intents", "intent_share") == [
        ("pacing", 3, 3, 0.75),
        ("client", 100, 1, 0.25),
    ]


def test_many_customers_refused_at_once_for_the_first_time_are_suspected_of_the_platform() -> None:
    found = suspected(customers() + refusals(10))

    assert columns_of(found, "code", "method", "route", "orgs", "orgs_active", "errors", "refused", "started_at") == [
        ("validation_failed", "POST", "/v1/messages", 10, 10, 10, 1.0, at(4.4 * DAY_S))
    ]
    assert columns_of(found, "example_request_ids") == [(["req_0", "req_1", "req_2"],)]


@pytest.mark.parametrize(("count", "bursts"), [(5, 1), (4, 0)])
def test_a_burst_has_at_least_five_organisations(count: int, bursts: int) -> None:
    assert len(suspected(customers() + refusals(count))) == bursts


def test_refusals_at_the_beginning_of_the_data_are_not_suspected() -> None:
    assert suspected(customers() + refusals(10, start_s=3_600)) == []


def test_new_customers_that_are_refused_are_not_suspected() -> None:
    assert suspected(customers(count=2) + refusals(10)) == []


def test_customers_that_met_it_a_week_ago_are_not_suspected() -> None:
    earlier = refusals(10, start_s=1.4 * DAY_S, pause_s=3_600)

    assert suspected(customers(range(12)) + earlier + refusals(10, start_s=9.4 * DAY_S)) == []


def test_refusals_hours_apart_are_not_suspected() -> None:
    assert suspected(customers() + refusals(10, pause_s=3_600)) == []


def test_single_mistakes_among_many_good_calls_are_not_suspected() -> None:
    busy = [ok(4.4 * DAY_S + number, **customer(number % 10)) for number in range(280)]

    assert suspected(customers() + busy + refusals(10)) == []


@pytest.mark.parametrize(("bystanders", "bursts"), [(20, 1), (21, 0)])
def test_a_burst_hits_a_fifth_of_the_organisations_that_ask(bystanders: int, bursts: int) -> None:
    asking = [ok(4.4 * DAY_S + 1 + number, **customer(100 + number)) for number in range(bystanders)]

    assert len(suspected(customers() + refusals(5) + asking)) == bursts


@pytest.mark.parametrize("code", ["internal_error", "rate_limited"])
def test_faults_and_limits_are_what_they_say(code: str) -> None:
    assert suspected(customers() + refusals(10, code=code)) == []


def test_a_suspicion_before_the_period_is_not_told() -> None:
    assert suspected(customers(range(9)) + refusals(10), since=at(6 * DAY_S)) == []


def test_the_header_describes_each_column_of_the_answer() -> None:
    (row, *_) = rows(lake([error(0, "not_found")]), "blame_split")

    assert [column.name for column in questions()["blame_split"].columns] == list(row)


def _expected(
    events: list[Row],
    since: datetime | None = None,
    until: datetime | None = None,
    for_org: str | None = None,
    for_key: str | None = None,
    for_route: str | None = None,
) -> list[tuple[Any, ...]]:
    failed = [
        row
        for row in events
        if row["is_error"]
        and (since is None or row["ts"] >= since)
        and (until is None or row["ts"] < until)
        and for_org in (None, row["org_id"])
        and for_key in (None, row["caller"])
        and for_route in (None, row["route"])
    ]
    by_blame: dict[str, list[Row]] = {}
    for row in failed:
        by_blame.setdefault(_blame(row), []).append(row)
    intents = {blame: len({_intent(row) for row in of_blame}) for blame, of_blame in by_blame.items()}
    answer: list[tuple[Any, ...]] = []
    for blame, of_blame in by_blame.items():
        reasons = Counter(row.get("code") or row.get("gateway_reason") or str(row["status"]) for row in of_blame)
        answer.append(
            (
                blame,
                len(of_blame),
                len(of_blame) / len(failed),
                intents[blame],
                intents[blame] / sum(intents.values()),
                len({row["caller"] for row in of_blame} - {None}),
                len({row["org_id"] for row in of_blame} - {None}),
                min(reasons, key=lambda reason: (-reasons[reason], reason)),
                max(row["ts"] for row in of_blame),
            )
        )
    return sorted(answer, key=lambda row: (-row[3], row[0]))


def _blame(row: Row) -> str:
    code, status = row.get("code"), row["status"]
    if status >= 500 or code == "internal_error":
        return "platform"
    by_status = {401: "authorization", 403: "authorization", 429: "pacing"}
    return str(CATEGORIES.get(code, by_status.get(status, "client")))


def _intent(row: Row) -> tuple[Any, ...]:
    names_object = "{" in (row["route"] or "")
    token = None if row.get("code") == "idempotency_key_reused" else row.get("idempotency_hash")
    return (
        row["caller"],
        row["method"],
        row["path"] if names_object else row["route"],
        token or row.get("recipient_hash"),
    )
