"""rejected_keys: which keys the API refuses, and whether they are retired, placeholders, guessed or just wrong."""

import random
import re
from collections import Counter
from datetime import datetime
from typing import Any

import pytest

from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows

HOUR, DAY = 3_600, 86_400


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({}, id="all"),
        pytest.param({"since": at(86_000)}, id="since"),
        pytest.param({"until": at(2 * 86_000)}, id="until"),
        pytest.param({"for_org": "org_a"}, id="organisation"),
        pytest.param({"for_key": "key_3"}, id="key"),
        pytest.param({"for_route": "/v1/messages"}, id="route"),
        pytest.param({"min_calls": 8, "min_guessed_keys": 2, "max_tries_per_key": 1}, id="thresholds"),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_every_row_equals_a_second_count_without_sql(seed: int, parameters: Row) -> None:
    events = _with_rejections(seed)

    assert rows(lake(events), "rejected_keys", **parameters) == _expected(events, **parameters)


def test_a_key_that_worked_and_still_calls_is_retired() -> None:
    con = lake([ok(0, key_hash="f00d"), *(_rejected(DAY + n, key_hash="f00d") for n in range(3))])

    answer = rows(con, "rejected_keys")

    assert columns_of(answer, "caller", "verdict", "told_apart_by", "calls", "last_success", "days") == [
        ("f00d", "retired", "key_hash", 3, at(0), 1)
    ]


def test_a_success_before_since_still_makes_it_retired() -> None:
    con = lake([ok(0, key_id="key_a"), *(_rejected(DAY + n, key_id="key_a") for n in range(3))])

    assert columns_of(rows(con, "rejected_keys", since=at(DAY)), "verdict", "last_success") == [("retired", at(0))]


def test_a_key_is_known_by_its_fingerprint_where_the_rejection_names_no_key_id() -> None:
    con = lake([ok(0, key_id="key_a", key_hash="f00d"), *(_rejected(n, key_hash="f00d") for n in (1, 2, 3))])

    assert columns_of(rows(con, "rejected_keys"), "caller", "verdict") == [("f00d", "retired")]


def test_a_rejected_key_whose_organisation_the_api_names_was_retired_before_the_data_began() -> None:
    con = lake([_rejected(number, key_id="key_a", org_id="org_a") for number in range(3)])

    assert columns_of(rows(con, "rejected_keys"), "org_id", "verdict", "last_success") == [("org_a", "retired", None)]


@pytest.mark.parametrize(
    ("others_org", "verdict"),
    [
        pytest.param(None, "retired", id="where no organisations are logged, the key_id alone says so"),
        pytest.param("org_b", "never worked", id="where they are, the key_id may be a part of the key"),
    ],
)
def test_a_key_id_without_an_organisation(others_org: str | None, verdict: str) -> None:
    con = lake(
        [
            *(_rejected(number, key_id="key_a") for number in range(3)),
            error(9, "not_found", key_id="key_b", org_id=others_org),
        ]
    )

    assert columns_of(rows(con, "rejected_keys"), "caller", "verdict") == [("key_a", verdict)]


@pytest.mark.parametrize(("calls", "verdict"), [(2, "not enough data"), (3, "never worked")])
def test_one_wrong_key_never_worked_once_it_has_called_often_enough(calls: int, verdict: str) -> None:
    con = lake([_rejected(number, key_hash="f00d") for number in range(calls)])

    assert columns_of(rows(con, "rejected_keys"), "verdict", "distinct_keys", "calls") == [(verdict, 1, calls)]


def test_a_key_that_succeeds_after_its_last_rejection_works_again() -> None:
    con = lake([ok(0, key_id="key_a"), *(_rejected(n, key_id="key_a") for n in range(1, 20)), ok(60, key_id="key_a")])

    assert columns_of(rows(con, "rejected_keys"), "verdict", "last_success") == [("works again", at(60))]


def test_a_key_that_is_rejected_now_and_then_is_not_retired_by_the_last_of_it() -> None:
    events = [ok(number, key_id="key_a") for number in range(0, 100, 2)]
    con = lake(events + [_rejected(number, key_id="key_a") for number in (9, 31, 55, 99)])

    assert columns_of(rows(con, "rejected_keys"), "verdict", "calls") == [("not enough data", 4)]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"key_hash": "placeholder-f00d"}, id="a marked fingerprint"),
        pytest.param({"message": "The key YOUR_API…_KEY is not known."}, id="masked"),
        pytest.param({"message": "The key <your-ap…key> is not known."}, id="masked within its first word"),
        pytest.param({"message": "The API key provided (undefine…ined) is not valid."}, id="an empty variable, masked"),
        pytest.param({"message": "The API key provided (null…null) is not valid."}, id="null, masked"),
        pytest.param({"message": "Incorrect API key provided: your-api-*****here."}, id="with stars"),
        pytest.param({"message": "No such key: 'undefined'"}, id="quoted"),
    ],
)
def test_the_name_or_an_example_of_a_key_is_a_placeholder(fields: Row) -> None:
    assert columns_of(rows(lake([_rejected(0, **fields)]), "rejected_keys"), "verdict") == [("placeholder",)]


@pytest.mark.parametrize(
    "message",
    [
        "Your API key is not valid.",
        "The key must not be null or undefined; for example see the documentation...",
        "The API key provided (sk_test_…4b61) is not valid.",
        "The key nullable…1f3a is not known.",
        'Header "api_key" holds no valid key.',
    ],
)
def test_a_message_about_keys_is_no_placeholder(message: str) -> None:
    con = lake([_rejected(number, message=message) for number in range(3)])

    assert columns_of(rows(con, "rejected_keys"), "verdict") == [("never worked",)]


def test_a_placeholder_that_once_worked_is_a_key_like_any_other() -> None:
    con = lake([ok(0, key_hash="placeholder-1"), *(_rejected(n, key_hash="placeholder-1") for n in (1, 2, 3))])

    assert columns_of(rows(con, "rejected_keys"), "verdict") == [("retired",)]


@pytest.mark.parametrize(("keys", "verdicts"), [(4, {"not enough data"}), (5, {"guessing"})])
def test_many_keys_from_one_address_are_guesses(keys: int, verdicts: set[str]) -> None:
    con = lake([_rejected(number, key_hash=f"hash_{number}", client_ip="192.0.2.9") for number in range(keys)])

    assert {row["verdict"] for row in rows(con, "rejected_keys")} == verdicts


def test_guesses_are_one_row_of_their_address() -> None:
    con = lake([_rejected(number, key_hash=f"hash_{number}", client_ip="192.0.2.9") for number in range(40)])

    assert columns_of(rows(con, "rejected_keys"), "caller", "told_apart_by", "distinct_keys", "calls") == [
        ("192.0.2.9", "key_hash", 40, 40)
    ]


def test_guesses_are_told_apart_by_what_the_message_quotes() -> None:
    con = lake(
        [_rejected(n, message=f"The key sk_live_…{n:04x} is not known.", client_ip="192.0.2.9") for n in range(6)]
    )

    assert columns_of(rows(con, "rejected_keys"), "verdict", "told_apart_by", "distinct_keys") == [
        ("guessing", "message", 6)
    ]


def test_messages_that_differ_in_something_else_are_no_guesses() -> None:
    con = lake(
        [_rejected(number, message=f"Invalid key. Request {number}", client_ip="192.0.2.9") for number in range(9)]
    )

    assert columns_of(rows(con, "rejected_keys"), "verdict", "told_apart_by", "distinct_keys") == [
        ("never worked", None, None)
    ]


def test_a_few_wrong_keys_that_call_all_day_are_no_guesses() -> None:
    con = lake([_rejected(number, key_hash=f"hash_{number % 6}", client_ip="192.0.2.9") for number in range(24)])

    assert columns_of(rows(con, "rejected_keys"), "caller", "verdict") == [
        (f"hash_{number}", "never worked") for number in range(6)
    ]


def test_wrong_keys_of_an_office_with_as_many_good_ones_are_no_guesses() -> None:
    good = [ok(number, key_hash=f"good_{number}", client_ip="192.0.2.9") for number in range(5)]
    bad = [_rejected(number, key_hash=f"bad_{number}", client_ip="192.0.2.9") for number in range(5)]

    assert {row["verdict"] for row in rows(lake(good + bad), "rejected_keys")} == {"not enough data"}


def test_retired_keys_of_one_address_are_no_guesses() -> None:
    worked = [ok(number, key_id=f"key_{number}", client_ip="192.0.2.9") for number in range(6)]
    rejected = [_rejected(9 + number, key_id=f"key_{number % 6}", client_ip="192.0.2.9") for number in range(18)]

    assert {row["verdict"] for row in rows(lake(worked + rejected), "rejected_keys")} == {"retired"}


def test_guesses_beside_a_placeholder_and_a_wrong_key_are_a_row_of_their_own() -> None:
    guessed = [_rejected(number, key_hash=f"hash_{number}", client_ip="192.0.2.9") for number in range(9)]
    wrong = [_rejected(number, key_hash="wrong", client_ip="192.0.2.9") for number in range(5)]
    placeholder = [_rejected(0, key_hash="placeholder-1", client_ip="192.0.2.9")]

    assert columns_of(rows(lake(guessed + wrong + placeholder), "rejected_keys"), "caller", "verdict", "calls") == [
        ("192.0.2.9", "guessing", 9),
        ("wrong", "never worked", 5),
        ("placeholder-1", "placeholder", 1),
    ]


@pytest.mark.parametrize(
    ("success_s", "verdict"),
    [
        pytest.param(None, "never worked", id="nobody succeeds at the address"),
        pytest.param(0, "retired", id="the address succeeded until then"),
        pytest.param(15, "not enough data", id="it succeeds in between, with this key or another"),
        pytest.param(60, "not enough data", id="it succeeds later, with this key or another"),
    ],
)
def test_where_no_key_is_logged_the_address_speaks_for_it(success_s: float | None, verdict: str) -> None:
    successes = [] if success_s is None else [ok(success_s, key_id="key_a", client_ip="192.0.2.9")]
    con = lake(successes + [_rejected(10 * number, client_ip="192.0.2.9") for number in range(1, 5)])

    assert columns_of(rows(con, "rejected_keys"), "caller", "verdict", "told_apart_by", "distinct_keys") == [
        ("192.0.2.9", verdict, None, None)
    ]


def test_the_examples_are_the_three_latest_rejections() -> None:
    con = lake([_rejected(number, key_id="key_a", request_id=f"req_{number}") for number in range(5)])

    assert columns_of(rows(con, "rejected_keys"), "example_request_ids") == [(["req_4", "req_3", "req_2"],)]


def test_other_refusals_are_no_rejected_keys() -> None:
    assert rows(lake([error(0, "missing_api_key"), error(1, "insufficient_scope", key_id="k")]), "rejected_keys") == []


def _rejected(seconds: float, **fields: Any) -> Row:
    return error(seconds, "invalid_api_key", **fields)


def _with_rejections(seed: int) -> list[Row]:
    """Random events, a part of them turned into rejections of keys that are known, quoted, marked or nothing at all."""
    choose = random.Random(seed)
    events = [row for row in random_events(seed, count=250) if not row["is_error"] or row["code"] != "invalid_api_key"]
    events += [ok(-DAY, key_hash=f"old_{number}", client_ip=f"192.0.2.{number + 3}") for number in range(3)]
    for _ in range(120):
        number = choose.randrange(6)
        key: Row = choose.choice(
            [
                {"key_id": f"key_{number}", "org_id": choose.choice([None, "org_a"])},
                {"key_hash": f"hash_{number}"},
                {"key_hash": f"guess_{choose.randrange(40)}"},
                {"key_hash": f"old_{number}"},
                {"key_hash": f"placeholder-{number}"},
                {"message": f"The key sk_…{choose.randrange(30):04} is not known."},
                {"message": choose.choice(["The key YOUR_API…_KEY is not known.", "Not a key."])},
                {},
            ]
        )
        seconds = choose.randrange(3) * DAY + choose.randrange(-HOUR, HOUR)
        route = choose.choice(["/v1/messages", "/v1/numbers"])
        identity = {"client_ip": f"192.0.2.{choose.randrange(6)}", "request_id": f"req_{choose.randrange(99)}"}
        events.append(_rejected(seconds, route=route, **identity, **key))
    return events


def _expected(
    events: list[Row],
    since: datetime | None = None,
    until: datetime | None = None,
    for_org: str | None = None,
    for_key: str | None = None,
    for_route: str | None = None,
    min_calls: int = 3,
    min_guessed_keys: int = 5,
    max_tries_per_key: int = 3,
) -> list[Row]:
    successes = [row for row in events if not row["is_error"] and (until is None or row["ts"] < until)]
    names_orgs = any(
        row["is_error"] and row.get("key_id") and row.get("org_id") and row["code"] != "invalid_api_key"
        for row in events
    )
    calls = [
        row | _presented(row) | {"success": _last_success(row, successes)}
        for row in events
        if row.get("code") == "invalid_api_key"
        and (since is None or row["ts"] >= since)
        and (until is None or row["ts"] < until)
        and for_org in (None, row.get("org_id"))
        and for_key in (None, row["caller"])
        and for_route in (None, row["route"])
    ]
    unknown = [row for row in calls if not row.get("org_id") and not row["is_placeholder"] and row["presented"]]
    tries = Counter((row["client_ip"], row["presented"]) for row in unknown if row["success"] is None)
    hardly_tried = {pair for pair, count in tries.items() if count <= max_tries_per_key}
    per_address = Counter(address for address, _ in hardly_tried)
    guessed = {
        (address, key)
        for address, key in hardly_tried
        if per_address[address] >= max(min_guessed_keys, 1 + len(_working_keys(address, successes)))
    }
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in calls:
        is_guessed = row in unknown and (row["client_ip"], row["presented"]) in guessed
        kind = "guessing" if is_guessed else "placeholder" if row["is_placeholder"] and not row["success"] else "key"
        if kind == "key" and not (row.get("key_id") or row.get("key_hash")):
            kind = "address"
            at_address = [one["ts"] for one in successes if one.get("client_ip") == row["client_ip"]]
            row["success"] = max(at_address, default=None)
        caller = row["client_ip"] if is_guessed else row["caller"]
        groups.setdefault((caller, row.get("org_id"), kind), []).append(row)
    answer = [_row(group, found, names_orgs, min_calls) for group, found in groups.items()]
    return sorted(answer, key=lambda row: (-row["calls"], row["caller"] or "~", row["org_id"] or "~", row["verdict"]))


def _presented(row: Row) -> Row:
    message = row.get("message") or ""
    masked = re.search(r"\w+…\w+", message)
    names = {"key_id": row.get("key_id"), "key_hash": row.get("key_hash"), "message": masked and masked[0]}
    told_apart_by = next((name for name, value in names.items() if value), None)
    is_named_so = (row.get("key_hash") or "").startswith("placeholder-") or "YOUR_API" in message
    return {
        "presented": told_apart_by and names[told_apart_by],
        "told_apart_by": told_apart_by,
        "is_placeholder": is_named_so and not row.get("org_id"),
    }


def _last_success(row: Row, successes: list[Row]) -> datetime | None:
    return max(
        (
            one["ts"]
            for one in successes
            if any(row.get(name) and row.get(name) == one.get(name) for name in ("key_id", "key_hash"))
        ),
        default=None,
    )


def _working_keys(address: str | None, successes: list[Row]) -> set[str]:
    keys = {one.get("key_id") or one.get("key_hash") for one in successes if one.get("client_ip") == address}
    return {key for key in keys if key}


def _row(group: tuple[Any, ...], found: list[Row], names_orgs: bool, min_calls: int) -> Row:
    caller, org_id, kind = group
    latest = sorted(found, key=lambda row: (row["request_id"] or "~", row.get("client_ip") or "~"))
    latest.sort(key=lambda row: row["ts"], reverse=True)
    success = max((row["success"] for row in found if row["success"]), default=None)
    since_success = sum(row["success"] is None or row["ts"] > row["success"] for row in found)
    is_known = bool(org_id) or (any(row.get("key_id") for row in found) and not names_orgs)
    verdict = kind
    if kind in ("key", "address"):
        verdict = "retired" if success or is_known else "never worked"
        if kind == "address" and success and success >= latest[-1]["ts"]:
            verdict = "not enough data"
        if since_success < min_calls:
            verdict = "not enough data"
        if kind == "key" and success and success > latest[0]["ts"]:
            verdict = "works again"
    presented = {row["presented"] for row in found} - {None}
    return {
        "caller": caller,
        "org_id": org_id,
        "verdict": verdict,
        "told_apart_by": min((row["told_apart_by"] for row in found if row["told_apart_by"]), default=None),
        "distinct_keys": len(presented) or None,
        "calls": len(found),
        "routes": len({(row["method"], row["route"]) for row in found}),
        "client_ip": latest[0].get("client_ip"),
        "client_ips": len({row.get("client_ip") for row in found} - {None}),
        "last_success": success,
        "first_seen": latest[-1]["ts"],
        "last_seen": latest[0]["ts"],
        "days": len({row["ts"].date() for row in found}),
        "example_request_ids": [row["request_id"] for row in latest[:3] if row["request_id"]],
    }
