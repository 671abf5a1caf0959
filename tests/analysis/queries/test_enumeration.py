"""enumeration: who asks for what does not exist, and whether that is a probe, stale references or a typo."""

import random
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

import pytest

from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows

ROUTE: Final = "/v1/messages/{id}"


def _missed(seconds: float, name: str, **fields: Any) -> Row:
    path = f"/v1/messages/{name}"
    own = {"key_id": "key_a", "org_id": "org_a", "method": "GET", "route": ROUTE, "path": path}
    return error(seconds, "not_found", **own | fields)


def _found(name: str, seconds: float = 0, **fields: Any) -> Row:
    """A success on the message `name`, of somebody else unless `fields` say so."""
    path = f"/v1/messages/{name}"
    others = {"key_id": "key_b", "org_id": "org_b", "method": "GET", "route": ROUTE, "path": path}
    return ok(seconds, **others | fields)


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({}, id="all"),
        pytest.param({"since": at(86_000)}, id="since"),
        pytest.param({"until": at(2 * 86_000)}, id="until"),
        pytest.param({"for_org": "org_a"}, id="organisation"),
        pytest.param({"for_key": "seeker_1"}, id="key"),
        pytest.param({"for_route": ROUTE}, id="route"),
        pytest.param(
            {"min_not_found": 4, "min_run": 3, "max_gap": 1, "min_other_tenants": 2, "max_probe_success": 0.5},
            id="thresholds",
        ),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_every_row_equals_a_second_count_without_sql(seed: int, parameters: Row) -> None:
    events = _with_seekers(seed)

    assert rows(lake(events), "enumeration", **parameters) == _expected(events, **parameters)


@pytest.mark.parametrize(("count", "verdict"), [(9, "not enough data"), (10, "probe")])
def test_ids_that_are_counted_up_are_a_probe_on_tens_of_requests(count: int, verdict: str) -> None:
    con = lake([_found("1"), *(_missed(number, str(1200 + number)) for number in range(count))])

    assert columns_of(rows(con, "enumeration"), "caller", "verdict", "not_found") == [("key_a", verdict, count)]


@pytest.mark.parametrize(
    ("ids", "run"),
    [
        pytest.param(range(100, 120), 20, id="each"),
        pytest.param(range(100, 200, 5), 20, id="every fifth"),
        pytest.param(range(100, 220, 6), 1, id="every sixth"),
        pytest.param([*range(100, 112), *range(900, 908)], 12, id="in two parts"),
        pytest.param(reversed(range(100, 120)), 20, id="downwards"),
    ],
)
def test_the_longest_run_is_of_ids_near_to_one_another(ids: Iterable[int], run: int) -> None:
    con = lake([_found("1"), *(_missed(second, f"m_{number}") for second, number in enumerate(ids))])

    assert columns_of(rows(con, "enumeration"), "longest_run") == [(run,)]


def test_ids_of_other_shapes_are_no_run() -> None:
    shapes = [f"/v1/messages/{prefix}{n}" for prefix in "abcd" for n in range(5)]
    con = lake([_found("1"), *(_missed(n, "", path=path) for n, path in enumerate(shapes))])

    assert columns_of(rows(con, "enumeration"), "longest_run", "distinct_ids") == [(5, 20)]


def test_a_path_that_was_masked_has_no_number() -> None:
    con = lake([_found("1"), *(_missed(n, "", path=f"/v1/messages/{{id}}#{n}") for n in range(20))])

    assert columns_of(rows(con, "enumeration"), "longest_run", "distinct_ids") == [(0, 20)]


@pytest.mark.parametrize(("others", "verdict"), [(4, "not enough data"), (5, "probe")])
def test_ids_that_only_others_reach_are_a_probe(others: int, verdict: str) -> None:
    theirs = [_found(f"x{number}", org_id="org_b", key_id="key_b") for number in "abcde"]
    own = [ok(number, key_id="key_a", org_id="org_a", route="/v1/numbers") for number in range(30)]
    sought = [_missed(number, f"x{'abcdefghijklmnopq'[number + 5 - others]}") for number in range(12)]

    assert columns_of(rows(lake(theirs + own + sought), "enumeration"), "verdict", "other_tenants_ids") == [
        (verdict, others)
    ]


def test_the_organisations_of_others_are_theirs_although_their_own_paths_do_not_name_them() -> None:
    route = "/v1/organizations/{id}/usage"
    theirs = [
        _found("", key_id=org, org_id=f"org_{org}", route=route, path="/v1/organizations/{org_id}/usage")
        for org in "bcdef"
    ]
    sought = [_missed(n, "", route=route, path=f"/v1/organizations/org_{'bcdef'[n % 5]}/usage") for n in range(20)]

    assert columns_of(rows(lake(theirs + sought), "enumeration"), "verdict", "other_tenants_ids", "distinct_ids") == [
        ("probe", 5, 5)
    ]


def test_an_id_that_two_organisations_share_is_not_foreign() -> None:
    shared = [_found(f"x{n}", org_id=org, key_id=org) for n in "abcdef" for org in ("org_a", "org_b")]
    con = lake(shared + [_missed(60 + number, f"x{'abcdef'[number % 6]}") for number in range(12)])

    assert columns_of(rows(con, "enumeration"), "verdict", "own_ids", "other_tenants_ids") == [
        ("stale references", 6, 0)
    ]


@pytest.mark.parametrize(("count", "verdict"), [(19, "not enough data"), (20, "probe")])
def test_random_ids_that_are_never_found_are_a_probe_by_their_breadth(count: int, verdict: str) -> None:
    con = lake([_found("known"), *(_missed(number, _random_id(number)) for number in range(count))])

    assert columns_of(rows(con, "enumeration"), "verdict", "distinct_share") == [(verdict, 1.0)]


def test_what_else_a_probe_does_not_find_is_part_of_it() -> None:
    con = lake(
        [
            _found("known"),
            _found("", route="/v1/contacts/{id}"),
            *(_missed(number, _random_id(number)) for number in range(40)),
            _missed(50, "9", route="/v1/contacts/{id}", path="/v1/contacts/9"),
        ]
    )

    assert columns_of(rows(con, "enumeration"), "route", "verdict") == [
        (ROUTE, "probe"),
        ("/v1/contacts/{id}", "probe"),
    ]


def test_distinct_stale_ids_of_a_client_that_succeeds_elsewhere_are_left_open() -> None:
    own = [ok(number, key_id="key_a", org_id="org_a", route="/v1/numbers") for number in range(30)]
    con = lake([_found("known"), *own, *(_missed(number, _random_id(number)) for number in range(40))])

    assert columns_of(rows(con, "enumeration"), "verdict") == [("not enough data",)]


@pytest.mark.parametrize(
    ("found", "verdict"), [(19, "not enough data"), (20, "stale references"), (200, "stale references")]
)
def test_an_export_with_a_few_stale_ids_among_many_good_ones_has_stale_references(found: int, verdict: str) -> None:
    own = [_found(f"good_{number}", key_id="key_a", org_id="org_a") for number in range(found)]
    con = lake(own + [_missed(number, _random_id(number)) for number in range(20)])

    assert columns_of(rows(con, "enumeration"), "verdict", "requests") == [(verdict, found + 20)]


def test_the_same_ids_again_and_again_are_stale_references() -> None:
    con = lake([_found("known"), *(_missed(number, _random_id(number % 9)) for number in range(225))])

    assert columns_of(rows(con, "enumeration"), "verdict", "distinct_ids", "distinct_share") == [
        ("stale references", 9, 0.04)
    ]


def test_ids_that_worked_before_are_stale_references_also_in_a_row() -> None:
    worked = [_found(str(number), key_id="key_a", org_id="org_a") for number in range(20)]
    con = lake(worked + [_missed(86_400 + number, str(number)) for number in range(20)])

    answer = rows(con, "enumeration", since=at(80_000))

    assert columns_of(answer, "verdict", "own_ids", "longest_run", "requests") == [("stale references", 20, 20, 20)]


def test_ids_that_worked_for_another_key_of_the_organisation_are_stale_references() -> None:
    worked = [_found(str(number), key_id="sibling", org_id="org_a") for number in range(20)]
    con = lake(worked + [_missed(60 + number, str(number)) for number in range(20)])

    assert columns_of(rows(con, "enumeration"), "verdict", "own_ids") == [("stale references", 20)]


def test_ids_that_are_asked_for_before_they_exist_are_no_stale_references() -> None:
    early = [_missed(number, str(number // 2)) for number in range(24)]
    con = lake(early + [_found(str(number), seconds=60, key_id="key_a", org_id="org_a") for number in range(12)])

    assert columns_of(rows(con, "enumeration"), "verdict", "own_ids") == [("not enough data", 0)]


@pytest.mark.parametrize(
    ("others", "verdict"),
    [
        pytest.param([], "typo'd route", id="nobody"),
        pytest.param([_missed(0, "", key_id="key_b", route="/v1/message")], "typo'd route", id="one more"),
        pytest.param(
            [_missed(0, "", key_id=key, route="/v1/message") for key in ("key_b", "key_c")],
            "not enough data",
            id="two more",
        ),
        pytest.param([_found("", route="/v1/message")], "not enough data", id="somebody with success"),
    ],
)
def test_a_route_that_nobody_succeeds_on_is_a_typo(others: list[Row], verdict: str) -> None:
    con = lake([*others, *(_missed(number, "", route="/v1/message", path="/v1/message") for number in range(10))])

    assert columns_of(rows(con, "enumeration")[:1], "caller", "verdict") == [("key_a", verdict)]


def test_a_misspelt_route_with_numbered_ids_is_a_typo_of_a_client_that_mostly_succeeds() -> None:
    works = [ok(number, key_id="key_a", org_id="org_a") for number in range(30)]
    sought = [_missed(n, "", route="/v1/mesages/{id}", path=f"/v1/mesages/{n}") for n in range(20)]

    assert columns_of(rows(lake(works + sought), "enumeration"), "verdict") == [("typo'd route",)]
    assert columns_of(rows(lake(sought), "enumeration"), "verdict") == [("probe",)]


def test_routes_that_somebody_walks_without_a_key_are_a_crawler() -> None:
    pages = [_missed(n, "", route=page, path=page) for n, page in enumerate(("/", "/about", "/jobs") * 10)]
    keyless = [row | {"key_id": None, "org_id": None, "caller": "192.0.2.9", "client_ip": "192.0.2.9"} for row in pages]

    assert columns_of(rows(lake(keyless), "enumeration"), "caller", "verdict") == [("192.0.2.9", "crawler")] * 3
    assert columns_of(rows(lake(pages), "enumeration"), "caller", "verdict") == [("key_a", "not enough data")] * 3


def test_the_same_ids_on_one_of_many_routes_that_nobody_succeeds_on_are_no_stale_references() -> None:
    strays = [_missed(n, "", route=f"/v1/{name}", path=f"/v1/{name}") for n, name in enumerate(("jobs", "press"))]
    sought = [_missed(n, "", route="/v1/parts/{id}", path=f"/v1/parts/{n % 4}") for n in range(12)]

    assert columns_of(rows(lake(sought + strays), "enumeration")[:1], "not_found", "verdict") == [
        (12, "not enough data")
    ]


def test_below_the_minimum_no_ids_are_compared() -> None:
    con = lake([_found("1"), _missed(1, "2")])

    assert columns_of(rows(con, "enumeration"), "longest_run", "own_ids", "other_tenants_ids", "not_found_share") == [
        (None, None, None, 1.0)
    ]


def test_the_examples_are_the_three_latest() -> None:
    con = lake([_missed(number, "1", request_id=f"req_{number}") for number in range(5)])

    assert columns_of(rows(con, "enumeration"), "example_request_ids") == [(["req_4", "req_3", "req_2"],)]


def _random_id(number: int) -> str:
    """An id that is near to no other."""
    return f"{random.Random(number).getrandbits(60):015x}z"


def _with_seekers(seed: int) -> list[Row]:
    """Random events, with callers that seek ids: in a row, at random, of others, their own, and routes that are not."""
    choose = random.Random(seed)
    events = random_events(seed, count=150)
    modes: list[Callable[[int], str]] = [
        lambda number: str(100 + number),
        lambda number: str(choose.randrange(40)),
        lambda number: _random_id(choose.randrange(10_000)),
        lambda number: f"{choose.randrange(20)}/parts/{choose.randrange(300)}",
    ]
    for number in range(12):
        name_of = choose.choice(modes)
        org = choose.choice([None, "org_a", "org_b", "org_c"])
        key = choose.choice([{"key_id": f"seeker_{number}"}, {}])
        typo = f"/v1/typo_{'abcdefghijkl'[number]}"
        routes = choose.choice([[ROUTE], [ROUTE], ["/v1/parts/{id}"], [typo], ["/", f"{typo}_2", typo]])
        success_share = choose.choice([0, 0, 0.05, 0.3, 0.7])
        for step in range(choose.choice([5, 12, 40])):
            name, route = name_of(step), choose.choice(routes)
            fields = {
                "org_id": org,
                "client_ip": f"198.51.100.{number}",
                "method": "GET",
                "route": route,
                "path": route.replace("{id}", name),
                "request_id": f"req_{choose.randrange(99)}",
            }
            seconds = choose.randrange(3) * 86_400 + choose.randrange(-3_600, 3_600)
            made = ok if choose.random() < success_share else _not_found
            events.append(made(seconds, **fields | key))
    own_usage = {"method": "GET", "route": "/v1/organizations/{id}", "path": "/v1/organizations/{org_id}"}
    events += [ok(0, **own_usage, org_id=org, key_id=f"of_{org}") for org in ("org_b", "org_c")]
    for step in range(12):
        path = f"/v1/organizations/org_{'bcd'[step % 3]}"
        events.append(_not_found(step, **own_usage | {"path": path}, org_id="org_a", key_id="seeker_9", request_id="r"))
    return events


def _not_found(seconds: float, **fields: Any) -> Row:
    return error(seconds, "not_found", **fields)


def _expected(
    events: list[Row],
    since: datetime | None = None,
    until: datetime | None = None,
    for_org: str | None = None,
    for_key: str | None = None,
    for_route: str | None = None,
    min_not_found: int = 10,
    min_run: int = 8,
    max_gap: int = 5,
    min_other_tenants: int = 5,
    max_probe_success: float = 0.1,
) -> list[Row]:
    known = [row for row in events if until is None or row["ts"] < until]
    recent = [row for row in known if since is None or row["ts"] >= since]
    asked = [row for row in recent if for_org in (None, row.get("org_id")) and for_key in (None, row["caller"])]
    cells: dict[tuple[Any, ...], list[Row]] = {}
    for row in asked:
        if row.get("code") == "not_found" and row["caller"]:
            cells.setdefault(_cell(row), []).append(row)
    judged = {}
    for cell, missed in cells.items():
        caller, _, method, route = cell
        paths = {row["path"] for row in missed} - {None}
        own_requests = [row for row in asked if _cell(row) == cell]
        all_requests = [row for row in asked if row["caller"] == caller]
        seekers = {
            row["caller"]
            for row in recent
            if row.get("code") == "not_found" and (row["method"], row["route"]) == (method, route)
        } - {None}
        successes = [
            row
            for row in known
            if not row["is_error"] and route is not None and (row["method"], row["route"]) == (method, route)
        ]
        is_enough = len(missed) >= min_not_found
        owners = _owners(missed, successes) if is_enough and "{" in (route or "") else {}
        longest_run = _longest_run(owners, max_gap)
        facts: Row = {
            "not_found": len(missed),
            "distinct_ids": len(paths),
            "distinct_share": len(paths) / len(missed),
            "longest_run": longest_run if is_enough else None,
            "own_ids": sum("worked" in owner for owner in owners.values()) if is_enough else None,
            "other_tenants_ids": sum(owner == {"others"} for owner in owners.values()) if is_enough else None,
            "requests": len(own_requests),
            "not_found_share": len(missed) / len(own_requests),
            "caller_success_rate": sum(not row["is_error"] for row in all_requests) / len(all_requests),
            "callers": len(seekers),
            "route_successes": len(successes),
        }
        is_keyed = any(row.get("key_id") or row.get("key_hash") for row in missed)
        reachable = sum("own" in owner for owner in owners.values())
        is_unknown_route = not successes and (len(seekers) <= 2 or not is_keyed)
        counts_up = (
            longest_run >= max(min_run, len(paths) / 4)
            and len(paths) >= 0.5 * len(missed)
            and len(missed) >= 0.5 * len(own_requests)
            and reachable < 0.5 * len(paths)
            and (successes or facts["caller_success_rate"] <= 0.5)
        )
        is_broad = (
            len(paths) >= 20
            and 10 * len(paths) >= 9 * len(missed)
            and 10 * len(missed) >= 9 * len(own_requests)
            and not reachable
            and facts["caller_success_rate"] <= max_probe_success
            and (successes or len(seekers) > 2)
        )
        is_probe = is_enough and (facts["other_tenants_ids"] >= min_other_tenants or counts_up or is_broad)
        judged[cell] = (missed, facts, bool(is_probe), is_unknown_route, is_keyed, reachable)
    answer = []
    for cell, (missed, facts, is_probe, is_unknown_route, _, reachable) in judged.items():
        siblings = [signs for other, signs in judged.items() if other[0] == cell[0]]
        unknown_routes = sum(signs[3] for signs in siblings)
        names_object = "{" in (cell[3] or "")
        if is_probe or (any(signs[2] for signs in siblings) and not is_unknown_route):
            verdict = "probe"
        elif is_unknown_route and unknown_routes >= 3 and not any(signs[4] for signs in siblings):
            verdict = "crawler"
        elif facts["not_found"] < min_not_found:
            verdict = "not enough data"
        elif is_unknown_route:
            verdict = "typo'd route" if unknown_routes < 3 else "not enough data"
        elif names_object and 2 * facts["own_ids"] >= facts["distinct_ids"]:
            verdict = "stale references"
        elif names_object and 2 * reachable >= facts["distinct_ids"]:
            verdict = "not enough data"
        else:
            successes_there = sum(not row["is_error"] for row in asked if _cell(row) == cell)
            again = names_object and facts["distinct_share"] <= 0.5
            few = facts["not_found_share"] <= 0.5 and successes_there >= 10
            verdict = "stale references" if again or few else "not enough data"
        latest = sorted(missed, key=lambda row: row["request_id"])
        latest.sort(key=lambda row: row["ts"], reverse=True)
        seen = {"first_seen": latest[-1]["ts"], "last_seen": latest[0]["ts"]}
        examples = {"example_request_ids": [row["request_id"] for row in latest[:3]]}
        names = dict(zip(("caller", "org_id", "method", "route"), cell, strict=True))
        answer.append(names | {"verdict": verdict} | facts | seen | examples)
    kept = [row for row in answer if for_route in (None, row["route"])]
    order = ("caller", "org_id", "route", "method")
    return sorted(kept, key=lambda row: (-row["not_found"], *(row[name] or "~" for name in order)))


def _cell(row: Row) -> tuple[Any, ...]:
    return row["caller"], row.get("org_id"), row["method"], row["route"]


def _owners(missed: list[Row], successes: list[Row]) -> dict[str, set[str]]:
    """Who reached each id: "own" the caller or its organisation, "worked" if before its last miss, "others" others."""
    caller, org_id, _, _ = _cell(missed[0])
    owners: dict[str, set[str]] = {row["path"]: set() for row in missed if row["path"]}
    last_missed = {row["path"]: row["ts"] for row in sorted(missed, key=lambda row: row["ts"])}
    for row in successes:
        path = (row["path"] or "").replace("{org_id}", row.get("org_id") or "{org_id}")
        if path not in owners:
            continue
        if row["caller"] == caller or (org_id and row.get("org_id") == org_id):
            owners[path] |= {"own", "worked"} if row["ts"] < last_missed[path] else {"own"}
        if org_id and row.get("org_id") and row["org_id"] != org_id:
            owners[path].add("others")
    return owners


def _longest_run(paths: Iterable[str], max_gap: int) -> int:
    numbers: dict[str, set[int]] = {}
    for path in paths:
        found = re.findall(r"\d+", path)
        if found and "#" not in path:
            before, _, after = path.rpartition(found[-1])
            numbers.setdefault(f"{before}*{after}", set()).add(int(found[-1]))
    longest = 0
    for alike in numbers.values():
        ordered = sorted(alike)
        run = longest = max(longest, 1)
        run = 1
        for one, following in pairwise(ordered):
            run = run + 1 if following - one <= max_gap else 1
            longest = max(longest, run)
    return longest
