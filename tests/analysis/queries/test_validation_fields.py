"""validation_fields: which fields are sent wrong, by which software, and since which of its versions."""

import random
from collections import Counter
from itertools import pairwise
from typing import Any, Final

import pytest
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows

AGENTS: Final = {
    "sdk/1.9.0 (linux)": ("sdk", "1.9.0"),
    "sdk/1.10.0": ("sdk", "1.10.0"),
    "sdk/2.0.0-beta.1": ("sdk", "2.0.0-beta.1"),
    "sdk/2.0.0": ("sdk", "2.0.0"),
    "Other v2.12.0": ("Other", "2.12.0"),
    "word": ("word", None),
    None: (None, None),
}
IN_ORDER: Final = ("1.9.0", "1.10.0", "2.0.0-beta.1", "2.0.0")
FIELDS: Final = {"to": "to", "to[17]": "to[]", "/to/3": "to[]", None: None}
ISSUES: Final = {"required": "required", '"x" is no number': '"..." is no number', None: None}


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({}, id="all"),
        pytest.param({"since": at(86_000)}, id="since"),
        pytest.param({"until": at(2 * 86_000)}, id="until"),
        pytest.param({"for_org": "org_a"}, id="organisation"),
        pytest.param({"for_key": "key_3"}, id="key"),
        pytest.param({"for_route": "/v1/messages"}, id="route"),
        pytest.param({"min_errors": 1, "min_requests": 2, "one_client_share": 0.6}, id="thresholds"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_every_row_equals_a_second_count_without_sql(seed: int, parameters: Row) -> None:
    events = _random_events(seed)

    answer = rows(lake(events), "validation_fields", **parameters)

    assert _rounded(answer) == _rounded(_expected(events, **parameters))


def test_the_second_count_meets_every_verdict() -> None:
    answers = [row for seed in range(3) for row in _expected(_random_events(seed), min_errors=3, min_requests=10)]

    assert {row["verdict"] for row in answers} == {
        "details not readable",
        "not enough data",
        "one client",
        "since version",
        "many clients",
    }


@pytest.mark.parametrize(
    ("field", "folded"),
    [
        ("to", "to"),
        ("to[17]", "to[]"),
        ("to[17].phone", "to[].phone"),
        ("to.17", "to[]"),
        ("to.17.phone", "to[].phone"),
        ("/to/17", "to[]"),
        ("/to/17/phone", "to[].phone"),
        ("#/to/17", "to[]"),
        ("$.to[17]", "to[]"),
        ("rows[1][2]", "rows[][]"),
        ("rows.1.2", "rows[][]"),
        ("to[]", "to[]"),
        ("0", "[]"),
        ("line1", "line1"),
        ("v1.2nd", "v1.2nd"),
        (None, None),
    ],
)
def test_places_in_arrays_are_folded(field: str | None, folded: str | None) -> None:
    con = lake([_refused(0, field)])

    assert columns_of(rows(con, "validation_fields"), "field", "issue") == [(folded, "required")]


@pytest.mark.parametrize(
    ("issue", "folded"),
    [
        ('not a number: "12a"', 'not a number: "..."'),
        ('not a number: "{"a":"b"}"', 'not a number: "..."'),
        ('"one\ntwo" is no number', '"..." is no number'),
        ("'12a' is no number", '"..." is no number'),
        ("must be one of ('a', 'b')", 'must be one of ("...")'),
        ("can't be blank", "can't be blank"),
        ("longer than 1600 characters", "longer than 1600 characters"),
    ],
)
def test_values_that_an_issue_quotes_are_folded(issue: str, folded: str) -> None:
    con = lake([_refused(0, "to", issue)])

    assert columns_of(rows(con, "validation_fields"), "field", "issue") == [("to", folded)]


@pytest.mark.parametrize(
    ("agent", "sdk", "version"),
    [
        ("acme-sdk/3.2.1 (python 3.11)", "acme-sdk", "3.2.1"),
        ("Faraday v2.12.0", "Faraday", "2.12.0"),
        ("Mozilla/5.0 (compatible; Reader/1.0; +https://reader.example/bot)", "Reader", "1.0"),
        ("Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/131.0", "Mozilla", "5.0"),
        ("laptop (macOS) HTTPie/3.2.2", "HTTPie", "3.2.2"),
        ("cron/curl 7.68.0", "curl", "7.68.0"),
        ("Guzzle/7", "Guzzle", "7"),
        ("@acme/sms/1.2.3-rc.1+5", "sms", "1.2.3-rc.1+5"),
        ("no-version", "no-version", None),
        ("<script>", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_software_and_version_are_the_first_product_of_the_user_agent(
    agent: str | None, sdk: str | None, version: str | None
) -> None:
    con = lake([_refused(0, user_agent=agent)])

    assert columns_of(rows(con, "validation_fields"), "sdk", "sdk_version") == [(sdk, version)]


def test_a_request_with_a_field_in_many_places_counts_once() -> None:
    con = lake([_refused(0, "to[0]", details=_details(("to[0]", "required"), ("to[1]", "required")))])

    assert columns_of(rows(con, "validation_fields"), "field", "errors", "share") == [("to[]", 1, 1.0)]


def test_a_request_with_two_fields_counts_for_each() -> None:
    con = lake([_refused(0, details=_details(("to", "required"), ("text", "required")))])

    assert columns_of(rows(con, "validation_fields"), "field", "errors", "share") == [("text", 1, 1.0), ("to", 1, 1.0)]


@pytest.mark.parametrize("details", [None, [], [{"field": None, "issue": None}]], ids=["none", "empty", "nothing said"])
def test_refusals_without_readable_details_are_a_row_of_their_own(details: Any) -> None:
    con = lake([_refused(number, details=details) for number in range(12)])

    assert columns_of(rows(con, "validation_fields"), "field", "issue", "verdict", "errors") == [
        (None, None, "details not readable", 12)
    ]


def test_the_rate_is_of_the_requests_of_that_version_to_that_route() -> None:
    others = [
        _sent(10, user_agent="sdk/2.0.0"),
        _sent(11, method="GET"),
        _sent(12, route="/v1/contacts"),
        _sent(13, user_agent="sdk/1.0.0 (another system)"),
    ]
    con = lake([_refused(0), _sent(1), _sent(2), *others])

    assert columns_of(rows(con, "validation_fields"), "errors", "requests", "rate") == [(1, 4, 0.25)]


@pytest.mark.parametrize(("errors", "verdict"), [(9, "not enough data"), (10, "many clients")])
def test_ten_errors_are_enough_data(errors: int, verdict: str) -> None:
    con = lake([_refused(number, key_id=f"key_{number % 2}") for number in range(errors)])

    assert columns_of(rows(con, "validation_fields"), "errors", "verdict") == [(errors, verdict)]


@pytest.mark.parametrize(("of_one", "verdict"), [(8, "one client"), (7, "many clients")])
def test_a_caller_with_four_fifths_of_the_errors_is_the_one_client(of_one: int, verdict: str) -> None:
    keys = ["busy"] * of_one + ["other"] * (10 - of_one)
    con = lake([_refused(number, key_id=key) for number, key in enumerate(keys)])

    assert columns_of(rows(con, "validation_fields"), "verdict", "top_caller", "top_caller_share", "keys") == [
        (verdict, "busy", of_one / 10, 2)
    ]


def test_a_release_that_breaks_a_field_for_its_users_is_named() -> None:
    con = lake([*_release("1.9.0", requests=100), *_release("1.10.0", requests=100, errors=60)])

    assert columns_of(
        rows(con, "validation_fields"), "sdk_version", "verdict", "since_version", "previous_version", "previous_rate"
    ) == [("1.10.0", "since version", "1.10.0", "1.9.0", 0.0)]


def test_the_versions_after_a_broken_release_are_broken_since_then() -> None:
    con = lake(
        [
            *_release("1.0.0", requests=100),
            *_release("2.0.0", requests=100, errors=60),
            *_release("2.1.0", requests=100, errors=55),
        ]
    )

    assert columns_of(rows(con, "validation_fields"), "sdk_version", "verdict", "since_version") == [
        ("2.0.0", "since version", "2.0.0"),
        ("2.1.0", "since version", "2.0.0"),
    ]


def test_a_release_that_mends_the_field_ends_it() -> None:
    con = lake(
        [
            *_release("1.0.0", requests=100),
            *_release("2.0.0", requests=100, errors=60),
            *_release("2.0.1", requests=400, errors=12),
        ]
    )

    assert columns_of(rows(con, "validation_fields"), "sdk_version", "verdict", "since_version") == [
        ("2.0.0", "since version", "2.0.0"),
        ("2.0.1", "many clients", None),
    ]


def test_a_version_with_few_requests_in_between_hides_nothing() -> None:
    con = lake(
        [
            *_release("1.0.0", requests=100),
            *_release("1.0.1", requests=19),
            *_release("2.0.0", requests=100, errors=60),
        ]
    )

    assert columns_of(rows(con, "validation_fields"), "verdict", "previous_version") == [("since version", "1.0.0")]


def test_the_first_version_in_the_log_has_nothing_to_be_compared_with() -> None:
    con = lake(_release("2.0.0", requests=100, errors=60))

    assert columns_of(rows(con, "validation_fields"), "verdict", "since_version") == [("many clients", None)]


def test_a_field_that_is_sent_wrong_a_little_more_often_is_no_jump() -> None:
    con = lake([*_release("1.0.0", requests=200, errors=20), *_release("2.0.0", requests=200, errors=30)])

    assert columns_of(rows(con, "validation_fields"), "verdict", "since_version") == [
        ("many clients", None),
        ("many clients", None),
    ]


def test_another_software_with_the_same_version_is_not_compared() -> None:
    con = lake(
        [
            *_release("1.0.0", requests=100, product="other"),
            *_release("2.0.0", requests=100, errors=60),
        ]
    )

    assert columns_of(rows(con, "validation_fields"), "verdict", "since_version") == [("many clients", None)]


def test_a_jump_that_one_busy_caller_makes_is_not_laid_on_the_version() -> None:
    busy = [_refused(1000 + number, key_id="busy", user_agent="sdk/2.0.0") for number in range(30)]
    con = lake([*_release("1.0.0", requests=100), *_release("2.0.0", requests=100, errors=9), *busy])

    assert columns_of(rows(con, "validation_fields"), "verdict", "since_version", "top_caller") == [
        ("many clients", "2.0.0", "busy")
    ]


def test_the_examples_are_the_three_latest() -> None:
    con = lake([_refused(number, request_id=f"req_{number}") for number in range(5)])

    assert columns_of(rows(con, "validation_fields"), "example_request_ids", "first_seen", "last_seen") == [
        (["req_4", "req_3", "req_2"], at(0), at(4))
    ]


def test_other_refusals_are_not_counted() -> None:
    assert rows(lake([error(0, "not_found", details=_details(("id", "unknown")))]), "validation_fields") == []


def _details(*pairs: tuple[str | None, str | None]) -> list[Row]:
    return [{"field": field, "issue": issue} for field, issue in pairs]


def _refused(seconds: float, field: str | None = "to", issue: str = "required", **fields: Any) -> Row:
    given = {"key_id": "key_a", "org_id": "org_a", "user_agent": "sdk/1.0.0", "details": _details((field, issue))}
    return error(seconds, "validation_failed", **given | fields)


def _sent(seconds: float, **fields: Any) -> Row:
    return ok(seconds, **{"key_id": "key_a", "org_id": "org_a", "user_agent": "sdk/1.0.0"} | fields)


def _release(version: str, *, requests: int, errors: int = 0, product: str = "sdk") -> list[Row]:
    """Requests of one version by three callers in turn, the first `errors` of them refused."""
    who = [{"user_agent": f"{product}/{version}", "key_id": f"key_{number % 3}"} for number in range(requests)]
    return [(_refused if number < errors else _sent)(number, **caller) for number, caller in enumerate(who)]


def _random_events(seed: int) -> list[Row]:
    choose = random.Random(seed)
    events = []
    for row in random_events(seed, count=500):
        agent = choose.choice([*AGENTS, *(["sdk/1.10.0", "sdk/2.0.0"] * 4)])
        is_broken = agent == "sdk/2.0.0" and choose.random() < 0.9
        code = "validation_failed" if row["is_error"] and (is_broken or choose.random() < 0.4) else row.get("code")
        details = choose.choice(
            [None, [], [(choose.choice([*FIELDS]), choose.choice([*ISSUES])) for _ in range(choose.randrange(1, 4))]]
        )
        details = [("to", "required")] if is_broken else details
        events.append(
            row | {"user_agent": agent, "code": code, "details": None if details is None else _details(*details)}
        )
    return [row if row.get("code") else row | {"details": None} for row in events]


def _expected(
    events: list[Row],
    since: Any = None,
    until: Any = None,
    for_org: str | None = None,
    for_key: str | None = None,
    for_route: str | None = None,
    min_errors: int = 10,
    min_requests: int = 20,
    one_client_share: float = 0.8,
) -> list[Row]:
    asked = [
        row
        for row in events
        if (since is None or row["ts"] >= since)
        and (until is None or row["ts"] < until)
        and for_org in (None, row["org_id"])
        and for_key in (None, row["caller"])
        and for_route in (None, row["route"])
    ]
    requests = Counter((row["method"], row["route"], *AGENTS[row["user_agent"]]) for row in asked)
    refusals = [row for row in asked if row["is_error"] and row["code"] == "validation_failed"]
    cells: dict[tuple[Any, ...], list[Row]] = {}
    for row in refusals:
        pairs = {(FIELDS[detail["field"]], ISSUES[detail["issue"]]) for detail in row["details"] or []}
        for field, issue in pairs or {(None, None)}:
            cell = (row["method"], row["route"], field, issue, *AGENTS[row["user_agent"]])
            cells.setdefault(cell, []).append(row)
    answer = []
    for cell, found in cells.items():
        method, route, field, issue, sdk, version = cell
        total = requests[method, route, sdk, version]
        callers = Counter(row["caller"] for row in found)
        top, most = min(callers.items(), key=lambda item: (-item[1], item[0]))
        jump = _jump(cell, cells, requests, min_requests) if field or issue else None
        if not field and not issue:
            verdict = "details not readable"
        elif len(found) < min_errors:
            verdict = "not enough data"
        elif most >= one_client_share * len(found):
            verdict = "one client"
        else:
            verdict = "since version" if jump and jump["is_jump_of_others"] else "many clients"
        latest = sorted(sorted(found, key=lambda row: row["request_id"]), key=lambda row: row["ts"], reverse=True)
        answer.append(
            dict(zip(("method", "route", "field", "issue", "sdk", "sdk_version"), cell, strict=True))
            | {
                "verdict": verdict,
                "errors": len(found),
                "share": len(found) / len(refusals),
                "requests": total,
                "rate": len(found) / total,
                "since_version": jump and jump["version"],
                "previous_version": jump and jump["previous_version"],
                "previous_rate": jump and jump["previous_rate"],
                "orgs": len({row["org_id"] for row in found} - {None}),
                "keys": len(callers),
                "top_caller": top,
                "top_caller_share": most / len(found),
                "first_seen": latest[-1]["ts"],
                "last_seen": latest[0]["ts"],
                "example_request_ids": [row["request_id"] for row in latest[:3]],
            }
        )
    names = ("route", "method", "field", "issue", "sdk", "sdk_version")
    return sorted(answer, key=lambda row: (-row["errors"], *(row[name] or "~" for name in names)))


def _jump(
    cell: tuple[Any, ...],
    cells: dict[tuple[Any, ...], list[Row]],
    requests: Counter[tuple[Any, ...]],
    min_requests: int,
) -> Row | None:
    """The version that made the rate jump which `cell` still has."""
    method, route, field, issue, sdk, version = cell
    if sdk != "sdk":
        return None  # the others have one version
    kept = [name for name in IN_ORDER if requests[method, route, sdk, name] >= min_requests]
    if version not in kept:
        return None
    found: Row | None = None
    for before, after in pairwise(kept[: kept.index(version) + 1]):
        errors = [cells.get((method, route, field, issue, sdk, name), []) for name in (before, after)]
        totals = [requests[method, route, sdk, name] for name in (before, after)]
        (low, high), (new_low, new_high) = (_wilson(len(e), n) for e, n in zip(errors, totals, strict=True))
        most = max(Counter(row["caller"] for row in errors[1]).values(), default=0)
        if new_low > high:
            found = {
                "version": after,
                "previous_version": before,
                "previous_rate": len(errors[0]) / totals[0],
                "is_jump_of_others": _wilson(len(errors[1]) - most, totals[1])[0] > high,
            }
        elif new_high < low:
            found = None
    return found


def _wilson(hits: int, trials: int) -> tuple[float, float]:
    low, high = proportion_confint(hits, trials, alpha=2 * norm.sf(2.576), method="wilson")
    return float(low), float(high)


def _rounded(answer: list[Row]) -> list[Row]:
    return [{k: round(v, 12) if isinstance(v, float) else v for k, v in row.items()} for row in answer]
