"""errors_by_route: every method and route with errors."""

import pytest

from tests.analysis.queries.event_lake import Row, columns_of, error, lake, ok, random_events, rows
from tests.analysis.queries.pandas_oracle import SCOPES, Scope, counted, frame_of, in_order


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("seed", range(2))
def test_every_row_equals_the_pandas_count(seed: int, scope: Scope) -> None:
    events = random_events(seed)

    answer = rows(lake(events), "errors_by_route", **scope.parameters)

    assert answer == _expected(events, scope)


def test_methods_of_one_route_are_told_apart() -> None:
    con = lake(
        [error(0, "not_found", method="GET"), ok(1, method="GET"), error(2, "dnc_blocked"), error(3, "opted_out")]
    )

    answer = columns_of(rows(con, "errors_by_route"), "method", "route", "errors", "requests", "rate", "codes")

    assert answer == [("POST", "/v1/messages", 2, 2, 1.0, 2), ("GET", "/v1/messages", 1, 2, 0.5, 1)]


def test_a_request_line_that_could_not_be_read_is_a_row_without_route() -> None:
    con = lake([error(0, None, status=400, origin="gateway", method=None, route=None, path=None)])

    assert columns_of(rows(con, "errors_by_route"), "method", "route", "errors", "rate") == [(None, None, 1, 1.0)]


def _expected(events: list[Row], scope: Scope) -> list[Row]:
    distinct = {"codes": "code", "orgs": "org_id", "keys": "key"}
    return in_order(counted(frame_of(events), scope, ["method", "route"], distinct), "route", "method")
