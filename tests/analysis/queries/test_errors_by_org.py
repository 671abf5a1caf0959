"""errors_by_org: every organisation with errors, and the traffic of none as a row of its own."""

import pytest

from tests.analysis.queries.event_lake import Row, columns_of, error, lake, ok, random_events, rows
from tests.analysis.queries.pandas_oracle import SCOPES, Scope, counted, frame_of, in_order


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("seed", range(2))
def test_every_row_equals_the_pandas_count(seed: int, scope: Scope) -> None:
    events = random_events(seed)

    answer = rows(lake(events), "errors_by_org", **scope.parameters)

    assert answer == _expected(events, scope)


def test_traffic_without_an_organisation_is_a_row_of_its_own() -> None:
    con = lake([error(0, "missing_api_key"), ok(1), error(2, "not_found", org_id="org_a"), ok(3, org_id="org_a")])

    answer = columns_of(rows(con, "errors_by_org"), "org_id", "errors", "requests", "rate", "share")

    assert answer == [("org_a", 1, 2, 0.5, 0.5), (None, 1, 2, 0.5, 0.5)]


def test_an_organisation_without_errors_has_no_row() -> None:
    con = lake([ok(0, org_id="org_a"), error(1, "not_found", org_id="org_b")])

    assert columns_of(rows(con, "errors_by_org"), "org_id") == [("org_b",)]


def test_the_denominator_is_the_organisations_own_traffic_whatever_the_code() -> None:
    con = lake([error(0, "not_found", org_id="org_a"), error(1, "dnc_blocked", org_id="org_a"), ok(2, org_id="org_b")])

    answer = rows(con, "errors_by_org", for_code="not_found")

    assert columns_of(answer, "org_id", "errors", "requests", "rate") == [("org_a", 1, 2, 0.5)]


def _expected(events: list[Row], scope: Scope) -> list[Row]:
    answer = counted(frame_of(events), scope, ["org_id"], {"codes": "code", "keys": "key"})
    return in_order(answer, "org_id")
