"""errors_by_code: every error in one row, with its denominator and the period before."""

import pytest

from analysis.lake import DEFAULT_CATALOGUE, read_catalogue
from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows
from tests.analysis.queries.pandas_oracle import SCOPES, Scope, counted, frame_of, in_order


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("seed", range(2))
def test_every_row_equals_the_pandas_count(seed: int, scope: Scope) -> None:
    events = random_events(seed)

    answer = rows(lake(events), "errors_by_code", **scope.parameters)

    assert answer == _expected(events, scope)


def test_an_error_of_the_gateway_is_a_row_of_its_own_and_never_dropped() -> None:
    con = lake(
        [
            error(0, "internal_error"),
            error(1, None, status=502, origin="gateway", gateway_reason="bad_gateway"),
            error(2, None, status=504, origin="gateway", gateway_reason="gateway_timeout"),
            error(3, None, status=404, origin="upstream"),
        ]
    )

    answer = columns_of(rows(con, "errors_by_code"), "label", "code", "origin", "gateway_reason", "errors")

    assert answer == [
        ("(no code)", None, "upstream", None, 1),
        ("bad_gateway", None, "gateway", "bad_gateway", 1),
        ("gateway_timeout", None, "gateway", "gateway_timeout", 1),
        ("internal_error", "internal_error", "upstream", None, 1),
    ]


def test_an_error_inside_http_200_counts() -> None:
    con = lake([ok(0), error(1, "validation_failed", status=200)])

    assert columns_of(rows(con, "errors_by_code"), "code", "errors", "requests", "rate") == [
        ("validation_failed", 1, 2, 0.5)
    ]


def test_the_denominator_is_every_request_in_scope_whatever_its_code() -> None:
    con = lake([ok(0), ok(1), error(2, "not_found"), error(3, "dnc_blocked")])

    answer = rows(con, "errors_by_code", for_code="not_found")

    assert columns_of(answer, "code", "errors", "share", "requests", "rate") == [("not_found", 1, 1.0, 4, 0.25)]


def test_since_is_inclusive_and_until_is_exclusive() -> None:
    con = lake([error(0, "not_found"), error(10, "not_found"), error(20, "not_found")])

    answer = rows(con, "errors_by_code", since=at(10), until=at(20))

    assert columns_of(answer, "errors", "requests", "previous_errors", "change") == [(1, 1, 1, 0.0)]


def test_without_an_until_the_previous_period_is_as_long_as_the_data_goes_on_after_since() -> None:
    con = lake(
        [error(0, "not_found"), error(50, "not_found"), error(100, "not_found"), error(140, "not_found"), ok(150)]
    )

    answer = rows(con, "errors_by_code", since=at(100))

    assert columns_of(answer, "errors", "previous_errors", "change") == [(2, 1, 1.0)]


def test_a_code_that_was_not_there_before_has_no_change() -> None:
    con = lake([ok(0), error(100, "not_found")])

    answer = rows(con, "errors_by_code", since=at(50), until=at(150))

    assert columns_of(answer, "previous_errors", "change") == [(0, None)]


def test_without_since_there_is_no_period_before() -> None:
    con = lake([error(0, "not_found")])

    assert columns_of(rows(con, "errors_by_code"), "previous_errors", "change") == [(None, None)]


def test_a_code_outside_the_catalogue_is_counted_and_marked_unknown() -> None:
    con = lake([error(0, "brand_new")])

    answer = rows(con, "errors_by_code")

    assert columns_of(answer, "code", "is_known_code", "category", "is_retryable") == [("brand_new", False, None, None)]


@pytest.mark.parametrize(
    "events",
    [pytest.param([], id="an empty lake"), pytest.param([ok(0)], id="a lake without errors")],
)
def test_without_errors_there_are_no_rows(events: list[Row]) -> None:
    assert rows(lake(events), "errors_by_code") == []


def _expected(events: list[Row], scope: Scope) -> list[Row]:
    frame = frame_of(events)
    frame["gateway_reason"] = frame["gateway_reason"].where(frame["code"].isna())
    catalogue = {entry["code"]: entry for entry in read_catalogue(DEFAULT_CATALOGUE).to_pylist()}
    answer = counted(
        frame, scope, ["code", "origin", "gateway_reason"], {"orgs": "org_id", "keys": "key"}, requests_by=[]
    )
    for row in answer:
        known = catalogue.get(row["code"], {})
        row["label"] = row["code"] or row["gateway_reason"] or "(no code)"
        row["is_known_code"] = bool(known) if row["code"] else None
        row |= {name: known.get(name) for name in ("category", "owner", "is_retryable")}
    return in_order(answer, "label", "origin")
