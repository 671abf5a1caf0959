"""errors_by_key: every key with errors, and all keyless traffic as a row of its own."""

import pytest

from tests.analysis.queries.event_lake import Row, columns_of, error, lake, ok, random_events, rows
from tests.analysis.queries.pandas_oracle import SCOPES, Scope, counted, errors_of, frame_of, in_order, none_if_missing


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("seed", range(2))
def test_every_row_equals_the_pandas_count(seed: int, scope: Scope) -> None:
    events = random_events(seed)

    answer = rows(lake(events), "errors_by_key", **scope.parameters)

    assert answer == _expected(events, scope)


def test_keyless_traffic_is_one_visible_row_whatever_its_addresses() -> None:
    con = lake(
        [
            error(0, "missing_api_key", client_ip="192.0.2.1"),
            error(1, "missing_api_key", client_ip="192.0.2.2"),
            ok(2, client_ip="192.0.2.3"),
        ]
    )

    answer = columns_of(rows(con, "errors_by_key"), "key", "org_id", "errors", "requests", "client_ips")

    assert answer == [(None, None, 2, 3, 2)]


def test_a_key_that_the_gateway_does_not_know_is_told_apart_by_its_fingerprint() -> None:
    con = lake(
        [
            error(0, "invalid_api_key", key_hash="aaaa"),
            error(1, "invalid_api_key", key_hash="bbbb"),
            error(2, "not_found", key_id="key_1", key_hash="aaaa"),
        ]
    )

    assert columns_of(rows(con, "errors_by_key"), "key", "errors") == [("aaaa", 1), ("bbbb", 1), ("key_1", 1)]


def test_every_key_is_listed_however_many_there_are() -> None:
    con = lake([error(number, "not_found", key_id=f"key_{number}") for number in range(1000)])

    assert len(rows(con, "errors_by_key")) == 1000


def _expected(events: list[Row], scope: Scope) -> list[Row]:
    frame = frame_of(events)
    answer = counted(frame, scope, ["key"], {"codes": "code", "orgs": "org_id", "client_ips": "client_ip"})
    errors = errors_of(frame, scope).dropna(subset=["org_id"])
    last = {none_if_missing(key): max(orgs) for key, orgs in errors.groupby("key", dropna=False)["org_id"]}
    return in_order([row | {"org_id": last.get(row["key"])} for row in answer], "key")
