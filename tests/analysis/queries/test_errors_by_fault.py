"""errors_by_fault: platform faults, rate limiting and client errors apart, with denominators and the period before."""

from typing import Any

import pytest

from analysis.lake import DEFAULT_CATALOGUE, read_catalogue
from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows
from tests.analysis.queries.pandas_oracle import SCOPES, Scope, errors_of, frame_of, none_if_missing, requests_of


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("seed", range(2))
def test_every_row_equals_the_pandas_count(seed: int, scope: Scope) -> None:
    events = random_events(seed)

    answer = rows(lake(events), "errors_by_fault", **scope.parameters)

    assert answer == _expected(events, scope)


@pytest.mark.parametrize(
    ("failure", "fault"),
    [
        pytest.param(error(0, "internal_error"), "platform", id="a code that the platform owns"),
        pytest.param(error(0, "internal_error", status=200), "platform", id="the same inside HTTP 200"),
        pytest.param(error(0, None, status=502), "platform", id="a 5xx without a code"),
        pytest.param(error(0, "brand_new", status=503), "platform", id="a 5xx whose code is unknown"),
        pytest.param(error(0, "dnc_blocked", status=500), "client", id="a 5xx whose code the client owns"),
        pytest.param(error(0, "rate_limited"), "rate_limited", id="a 429"),
        pytest.param(error(0, "rate_limited", status=503), "rate_limited", id="the code of a 429 with another status"),
        pytest.param(error(0, None, status=429), "rate_limited", id="a 429 without a code"),
        pytest.param(error(0, "insufficient_credits"), "client", id="a code that the account team owns"),
        pytest.param(error(0, None, status=499), "client", id="a client that hung up"),
        pytest.param(error(0, "brand_new", status=400), "client", id="a 4xx whose code is unknown"),
    ],
)
def test_an_error_is_one_fault(failure: Row, fault: str) -> None:
    answer = rows(lake([failure]), "errors_by_fault")

    assert [row["fault"] for row in answer if row["errors"]] == [fault]


def test_a_period_without_errors_still_has_its_denominators() -> None:
    con = lake([error(0, "internal_error"), ok(1), ok(100), ok(101), ok(102)])

    answer = rows(con, "errors_by_fault", since=at(100), until=at(200))

    assert columns_of(answer, "fault", "errors", "requests", "rate", "previous_errors", "previous_requests") == [
        ("client", 0, 3, 0.0, 0, 2),
        ("platform", 0, 3, 0.0, 1, 2),
        ("rate_limited", 0, 3, 0.0, 0, 2),
    ]


def _expected(events: list[Row], scope: Scope) -> list[Row]:
    frame = frame_of(events).assign(status=[row["status"] for row in events])
    owners = {entry["code"]: entry for entry in read_catalogue(DEFAULT_CATALOGUE).to_pylist()}
    frame["fault"] = [_fault(row, owners.get(row.code)) for row in frame.itertuples()]
    errors, requests = errors_of(frame, scope), requests_of(frame, scope)
    before: Scope | None = None
    if scope.since is not None:
        until = scope.until or max(scope.since, frame["ts"].max().to_pydatetime())
        before = Scope(scope.since - (until - scope.since), scope.since, scope.wanted)
    previous = None if before is None else errors_of(frame, before)
    previous_requests = None if before is None else len(requests_of(frame, before))
    if not len(requests) + (previous_requests or 0):
        return []
    answer = []
    for fault in ("client", "platform", "rate_limited"):
        found = errors[errors["fault"] == fault]
        earlier = None if previous is None else int((previous["fault"] == fault).sum())
        answer.append(
            {
                "fault": fault,
                "errors": len(found),
                "share": len(found) / len(errors) if len(errors) else None,
                "requests": len(requests),
                "rate": len(found) / len(requests) if len(requests) else None,
                "first_seen": none_if_missing(found["ts"].min()),
                "last_seen": none_if_missing(found["ts"].max()),
                "previous_errors": earlier,
                "previous_requests": previous_requests,
                "previous_rate": earlier / previous_requests if earlier is not None and previous_requests else None,
                "change": len(found) / earlier - 1 if earlier else None,
            }
        )
    return sorted(answer, key=lambda row: (-row["errors"], row["fault"]))


def _fault(row: Any, known: dict[str, Any] | None) -> str:
    if row.status == 429 or (known is not None and known["http_status"] == 429):
        return "rate_limited"
    is_platform = row.status >= 500 if known is None else known["owner"] == "platform"
    return "platform" if is_platform else "client"
