"""contract_drift: where the API breaks its own error contract, and that ordinary gateway logs break nothing."""

import random
import re
from collections import Counter
from typing import Any, Final

import pytest

import analysis
from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows

DOCS: Final = "https://docs.example.com/errors#"
CATALOGUE: Final = {
    "validation_failed": 400,
    "missing_api_key": 401,
    "insufficient_scope": 403,
    "invalid_api_key": 403,
    "scope_invalid": 403,
    "not_found": 404,
    "idempotency_in_progress": 409,
    "idempotency_key_reused": 409,
    "approval_required": 422,
    "dnc_blocked": 422,
    "insufficient_credits": 422,
    "opted_out": 422,
    "rate_limited": 429,
    "internal_error": 500,
}
CELL: Final = ("drift", "expected", "found", "gateway", "method", "route", "status", "code")


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({}, id="all"),
        pytest.param({"since": at(86_000)}, id="since"),
        pytest.param({"until": at(2 * 86_000)}, id="until"),
        pytest.param({"for_org": "org_a"}, id="organisation"),
        pytest.param({"for_key": "key_3"}, id="key"),
        pytest.param({"for_route": "/v1/messages"}, id="route"),
        pytest.param({"min_share": 0.5, "min_details": 1, "max_chance": 0.7, "same_record_s": 1000}, id="thresholds"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_every_row_equals_a_second_count_without_sql(seed: int, parameters: Row) -> None:
    events = _random_events(seed)

    assert rows(lake(events), "contract_drift", **parameters) == _expected(events, **parameters)


def test_the_second_count_meets_every_kind_of_drift_and_history() -> None:
    answers = [row for seed in range(3) for row in _expected(_random_events(seed), min_details=1, max_chance=0.7)]

    assert {row["drift"] for row in answers} == {
        *(
            "unknown code",
            "status differs from the catalogue",
            "error without an envelope",
            "envelope on a 2xx",
            "request_id missing",
        ),
        *(
            "request_id duplicated",
            "docs_url missing",
            "docs_url of another code",
            "rate_limited without Retry-After",
            "new shape of details",
        ),
    }
    assert {row["history"] for row in answers} == {"always", "new", "over", "for a while", "now and then"}


def test_errors_that_keep_the_contract_are_no_drift() -> None:
    kept = [_refused(number, code) for number, code in enumerate(CATALOGUE)]

    assert rows(lake([*kept, ok(100)]), "contract_drift") == []


@pytest.mark.parametrize(
    "event",
    [
        pytest.param({"code": None, "status": 502, "origin": "gateway", "gateway_reason": "bad_gateway"}, id="page"),
        pytest.param({"code": None, "status": 499, "origin": "gateway", "body_state": "absent"}, id="hung up"),
        pytest.param({"code": None, "status": 404, "body_state": "absent"}, id="body not logged"),
        pytest.param({"code": None, "status": 404, "body_state": "truncated"}, id="body cut"),
        pytest.param({"code": None, "status": 404, "body_state": "undecodable"}, id="body not decoded"),
        pytest.param({"code": None, "status": 404, "method": "HEAD"}, id="HEAD has no body"),
        pytest.param({"code": None, "status": 403, "upstream_ms": None}, id="the API was not asked"),
        pytest.param({"status": 499}, id="hung up after the answer"),
        pytest.param({"body_state": "truncated", "docs_url": None, "details": None}, id="envelope cut"),
        pytest.param({"body_state": "absent", "docs_url": None, "request_id": None}, id="code from a header"),
        pytest.param({"docs_url": "https://elsewhere.example/en/NOT-FOUND?v=2"}, id="docs moved"),
        pytest.param({"status": 200, "route": "/graphql"}, id="GraphQL"),
        pytest.param({"status": 207}, id="multi-status"),
    ],
)
def test_what_is_not_the_doing_of_the_api_is_no_drift(event: Row) -> None:
    con = lake([*(_refused(number) for number in range(20)), _refused(30, **event)])

    assert rows(con, "contract_drift") == []


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ({"code": "brand_new"}, ("unknown code", "a code of the catalogue", "brand_new")),
        ({"status": 400}, ("status differs from the catalogue", "status 404", "status 400")),
        ({"code": None}, ("error without an envelope", "an error envelope", "status 404 with another body")),
        ({"status": 200}, ("envelope on a 2xx", "status 404", "status 200")),
        ({"status": 302}, ("envelope on a 2xx", "status 404", "status 302")),
        ({"request_id": None}, ("request_id missing", "a request_id in the envelope", "none")),
        ({"docs_url": None}, ("docs_url missing", "a docs_url in the envelope", "none")),
        (
            {"docs_url": f"{DOCS}rate-limited"},
            ("docs_url of another code", "the docs_url of not_found", f"{DOCS}rate-limited of rate_limited"),
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_one_error_that_breaks_the_contract_is_told(event: Row, told: tuple[str, str, str]) -> None:
    usual = [_refused(number) for number in range(20)]
    con = lake([*usual, _refused(30, **{"org_id": "org_b"} | event)])

    assert columns_of(rows(con, "contract_drift"), "drift", "expected", "found", "errors", "orgs") == [(*told, 1, 1)]


def test_an_unknown_code_on_success_is_both() -> None:
    con = lake([_refused(0, "brand_new", status=200)])

    assert columns_of(rows(con, "contract_drift"), "drift", "expected", "found") == [
        ("envelope on a 2xx", "an error status", "status 200"),
        ("unknown code", "a code of the catalogue", "brand_new"),
    ]


def test_a_log_that_never_tells_upstream_times_tells_the_api_by_its_request_ids() -> None:
    fields = {"code": None, "upstream_ms": None}
    con = lake([_refused(0, **fields), _refused(1, **fields | {"request_id": None})])

    assert columns_of(rows(con, "contract_drift"), "drift", "errors") == [("error without an envelope", 1)]


def test_an_api_that_never_had_docs_urls_is_not_asked_for_them() -> None:
    con = lake([_refused(number, docs_url=None) for number in range(20)])

    assert rows(con, "contract_drift") == []


@pytest.mark.parametrize(("without", "told"), [(2, [("docs_url missing", "scope_invalid", 2)]), (3, [])])
def test_a_code_without_docs_urls_is_drift_where_nine_of_ten_envelopes_have_them(without: int, told: list[Any]) -> None:
    bare = [_refused(100 + number, "scope_invalid", docs_url=None) for number in range(without)]
    con = lake([*(_refused(number) for number in range(18)), *bare])

    assert columns_of(rows(con, "contract_drift"), "drift", "code", "errors") == told


def test_a_docs_url_that_most_errors_of_another_code_have_is_foreign() -> None:
    pages = {"not_found": "https://docs.example.com/7", "rate_limited": "https://docs.example.com/9"}
    usual = [_refused(number, code, docs_url=page) for number, (code, page) in enumerate([*pages.items()] * 5)]
    con = lake([*usual, _refused(100, docs_url=pages["rate_limited"])])

    assert columns_of(rows(con, "contract_drift"), "drift", "code", "found") == [
        ("docs_url of another code", "not_found", "https://docs.example.com/9 of rate_limited")
    ]


def test_codes_that_share_one_page_are_no_drift() -> None:
    con = lake([_refused(number, code, docs_url="https://docs.example.com/") for number, code in enumerate(CATALOGUE)])

    assert rows(con, "contract_drift") == []


def test_rate_limited_without_retry_after_counts_from_the_first_one_in_the_log() -> None:
    limited = [_refused(number, "rate_limited", retry_after_s=None) for number in (0, 100)]
    con = lake([*limited, _refused(50, "rate_limited")])

    assert columns_of(rows(con, "contract_drift"), "drift", "errors", "first_seen") == [
        ("rate_limited without Retry-After", 1, at(100))
    ]


def test_a_gateway_that_logs_no_retry_after_is_not_asked_for_it() -> None:
    limited = [_refused(number, "rate_limited", retry_after_s=None) for number in range(9)]

    assert rows(lake([*limited, _refused(20, "rate_limited", gateway="another")]), "contract_drift") == []


@pytest.mark.parametrize(
    "second",
    [
        pytest.param({"path": "/v1/contacts/2"}, id="another path"),
        pytest.param({"key_id": "key_b"}, id="another caller"),
        pytest.param({"method": "DELETE"}, id="another method"),
        pytest.param({"ts": at(6)}, id="later"),
    ],
)
def test_one_request_id_on_two_requests_is_drift(second: Row) -> None:
    con = lake([_refused(0, request_id="req_1"), _refused(0, **{"request_id": "req_1"} | second)])

    answer = rows(con, "contract_drift")

    assert {row["drift"] for row in answer} == {"request_id duplicated"}
    assert sum(row["errors"] for row in answer) == 2


@pytest.mark.parametrize(
    "second",
    [
        pytest.param({"ts": at(5)}, id="logged twice"),
        pytest.param({"gateway": "inner", "path": "/api/v1/contacts/1"}, id="behind two gateways"),
        pytest.param({"ts": at(60), "idempotency_hash": "idem"}, id="the replay of an Idempotency-Key"),
    ],
)
def test_one_request_id_on_two_records_of_one_request_is_no_drift(second: Row) -> None:
    first = {"request_id": "req_1", "idempotency_hash": second.get("idempotency_hash")}
    con = lake([_refused(0, **first), _refused(0, **{"request_id": "req_1"} | second)])

    assert rows(con, "contract_drift") == []


@pytest.mark.parametrize(
    ("details", "found"),
    [
        ([], "empty details"),
        ([{"field": "to", "issue": "required"}], "field and issue"),
        ([{"field": None, "issue": "required"}], "an issue without a field"),
        ([{"field": "to", "issue": None}], "a field without an issue"),
        ([{"field": "to", "issue": '{"max":5}'}], "JSON for an issue"),
    ],
)
def test_details_of_a_new_shape_are_drift(details: list[Row], found: str) -> None:
    con = lake([_refused(number, details=details if number >= 90 else None) for number in range(100)])

    assert columns_of(rows(con, "contract_drift"), "drift", "expected", "found", "history", "errors_before") == [
        ("new shape of details", "no details", found, "new", 90)
    ]


def test_details_that_come_now_and_then_are_no_drift() -> None:
    shape = [{"field": "to", "issue": "required"}]
    con = lake([_refused(number, details=shape if number % 20 == 19 else None) for number in range(100)])

    assert rows(con, "contract_drift") == []


@pytest.mark.parametrize(
    ("is_drifting", "history"),
    [
        pytest.param(lambda number: True, "always", id="all"),
        pytest.param(lambda number: number >= 80, "new", id="from the eightieth on"),
        pytest.param(lambda number: number < 20, "over", id="to the twentieth"),
        pytest.param(lambda number: 40 <= number < 60, "for a while", id="in the midst"),
        pytest.param(lambda number: number % 9 == 1, "now and then", id="every ninth"),
    ],
)
def test_the_history_says_whether_it_is_new(is_drifting: Any, history: str) -> None:
    con = lake([_refused(number, status=400 if is_drifting(number) else 404) for number in range(100)])

    assert columns_of(rows(con, "contract_drift"), "drift", "history") == [
        ("status differs from the catalogue", history)
    ]


def test_what_began_before_since_is_not_told_as_begun_later() -> None:
    con = lake([_refused(number, status=400 if number >= 80 else 404) for number in range(100)])

    answer = rows(con, "contract_drift", since=at(90))

    assert columns_of(answer, "errors", "of_errors", "first_seen", "began_at", "errors_before") == [
        (10, 10, at(90), at(80), 80)
    ]


def test_what_ended_before_since_is_left_out() -> None:
    con = lake([_refused(number, status=400 if number < 20 else 404) for number in range(100)])

    assert rows(con, "contract_drift", since=at(50)) == []


def test_the_sample_logs_hold_the_one_drift_that_was_planted(samples: Any) -> None:
    assert columns_of(rows(samples, "contract_drift"), "drift", "code", "history", "errors") == [
        ("unknown code", "template_rejected", "for a while", 81)
    ]


def _refused(seconds: float, code: str | None = "not_found", **fields: Any) -> Row:
    code = fields.pop("code", code)
    usual = {
        "key_id": "key_a",
        "org_id": "org_a",
        "route": "/v1/contacts/{id}",
        "path": "/v1/contacts/1",
        "method": "GET",
        "gateway": "edge",
        "upstream_ms": 5.0,
        "status": CATALOGUE.get(code or "", 404),
        "request_id": f"req_of_{seconds}_{code}",
        "docs_url": f"{DOCS}{code}",
        "retry_after_s": 1.0 if code == "rate_limited" else None,
        "body_state": "whole",
    }
    usual |= {"docs_url": None} if code is None else {}
    return error(seconds, code, **usual | fields)


def _random_events(seed: int) -> list[Row]:
    choose = random.Random(seed)
    shapes = [
        None,
        [],
        [{"field": "to", "issue": "x"}],
        [{"field": None, "issue": "x"}],
        [{"field": "to", "issue": None}],
    ]
    shapes.append([{"field": "to", "issue": "[1]"}])
    events = []
    for row in random_events(seed, count=600, spread_s=20_000):
        made: Row = {"gateway": choose.choice(["edge", "inner"]), "upstream_ms": choose.choice([None, 3.0])}
        if row["gateway_reason"] if "gateway_reason" in row else not row["is_error"]:
            events.append(row | made)
            continue
        code = row.get("code")
        is_late = row["ts"] > at(90_000)
        made["body_state"] = choose.choice(["whole", "whole", "whole", "truncated", "absent"])
        made["request_id"] = choose.choice([f"own_{choose.random()}"] * 9 + [row["request_id"], None])
        made["status"] = choose.choice([row["status"]] * 20 + [200, 207, 400, 499])
        made["method"] = choose.choice([row["method"]] * 9 + ["HEAD"])
        if code is not None:
            pages = [f"{DOCS}{code}"] * 12 + [None, f"{DOCS}not-found", "https://docs.example.com/"]
            made["docs_url"] = choose.choice(pages) if code != "opted_out" else None
            made["details"] = choose.choice(shapes) if is_late and choose.random() < 0.5 else None
        events.append(row | made)
    return events


def _shape(row: Row) -> str | None:
    if row.get("code") is None or row["body_state"] != "whole":
        return None
    if row.get("details") is None:
        return "no details"
    if not row["details"]:
        return "empty details"
    first = row["details"][0]
    if first["issue"] is None:
        return "a field without an issue"
    if first["issue"][:1] in ("{", "["):
        return "JSON for an issue"
    return "field and issue" if first["field"] else "an issue without a field"


def _words(text: str) -> set[str]:
    return set(re.findall("[a-z0-9_]+", text.replace("-", "_").lower()))


def _expected(
    events: list[Row],
    since: Any = None,
    until: Any = None,
    for_org: str | None = None,
    for_key: str | None = None,
    for_route: str | None = None,
    min_share: float = 0.9,
    min_details: int = 3,
    max_chance: float = 0.001,
    same_record_s: float = 5,
) -> list[Row]:
    errors = [row for row in events if row["is_error"] and (until is None or row["ts"] < until)]
    drifting: dict[tuple[Any, ...], list[Row]] = {}
    for row in errors:
        for drift, expected, found in _drifts(row, errors, min_share, min_details, max_chance, same_record_s):
            place = (row["gateway"], row["method"], row["route"], row["status"], row.get("code"))
            drifting.setdefault((drift, expected, found, *place), []).append(row)

    def is_in_scope(row: Row) -> bool:
        return (
            (since is None or row["ts"] >= since)
            and for_org in (None, row["org_id"])
            and for_key in (None, row["caller"])
            and for_route in (None, row["route"])
        )

    answer = []
    for cell, found_rows in drifting.items():
        scoped = [row for row in found_rows if is_in_scope(row)]
        if not scoped:
            continue
        told = dict(zip(CELL, cell, strict=True))
        has_code = told["drift"] not in ("unknown code", "error without an envelope")
        alike = [
            row
            for row in errors
            if all(row[name] == told[name] for name in ("gateway", "method", "route"))
            and (not has_code or row.get("code") == told["code"])
        ]
        began, ended = min(row["ts"] for row in found_rows), max(row["ts"] for row in found_rows)
        before = sum(row["ts"] < began for row in alike)
        after = sum(row["ts"] > ended for row in alike)
        begins, ends = ((1 - gap / len(alike)) ** len(found_rows) < max_chance for gap in (before, after))
        history = {(True, True): "for a while", (True, False): "new", (False, True): "over"}.get((begins, ends))
        named = [row for row in scoped if row["request_id"] is not None]
        latest = max((row["ts"] for row in named), default=None)
        answer.append(
            told
            | {
                "history": "always" if len(found_rows) == len(alike) else history or "now and then",
                "errors": len(scoped),
                "of_errors": sum(map(is_in_scope, alike)),
                "share": len(scoped) / sum(map(is_in_scope, alike)),
                "orgs": len({row["org_id"] for row in scoped} - {None}),
                "first_seen": min(row["ts"] for row in scoped),
                "last_seen": max(row["ts"] for row in scoped),
                "began_at": began,
                "errors_before": before,
                "example_request_id": min((row["request_id"] for row in named if row["ts"] == latest), default=None),
            }
        )
    order = ("drift", "code", "status", "route", "method", "gateway", "found")
    columns = [column.name for column in analysis.questions()["contract_drift"].columns]
    answer.sort(key=lambda row: (-row["errors"], *("~" if row[n] is None else str(row[n]) for n in order)))
    return [{name: row[name] for name in columns} for row in answer]


def _drifts(
    row: Row, errors: list[Row], min_share: float, min_details: int, max_chance: float, same_record_s: float
) -> list[tuple[str, str, str]]:
    """Every drift of one error: its kind, what was expected and what was found."""
    code, status, docs_url, gateway = row.get("code"), row["status"], row.get("docs_url"), row["gateway"]
    beside = [other for other in errors if other["gateway"] == gateway]
    is_whole = row["body_state"] == "whole"
    if code is None:
        is_upstream = row["upstream_ms"] or (row["request_id"] and not any(other["upstream_ms"] for other in beside))
        is_drift = row["origin"] == "upstream" and is_whole and row["method"] != "HEAD" and status >= 400
        told = ("error without an envelope", "an error envelope", f"status {status} with another body")
        return [told] if is_drift and is_upstream else []
    found = []
    if code not in CATALOGUE:
        found.append(("unknown code", "a code of the catalogue", code))
    if code in CATALOGUE and status >= 400 and status not in (CATALOGUE[code], 444, 460, 499):
        found.append(("status differs from the catalogue", f"status {CATALOGUE[code]}", f"status {status}"))
    if status < 400 and status != 207:
        usual = f"status {CATALOGUE[code]}" if code in CATALOGUE else "an error status"
        found.append(("envelope on a 2xx", usual, f"status {status}"))
    envelopes = [other for other in beside if other.get("code") and other["body_state"] == "whole"]
    place = (row["method"], row["route"], code)
    here = [other for other in envelopes if (other["method"], other["route"], other["code"]) == place]
    for column in ("request_id", "docs_url"):
        share = sum(bool(other.get(column)) for other in envelopes) / max(1, len(envelopes))
        if is_whole and not row.get(column) and (any(other.get(column) for other in here) or share >= min_share):
            found.append((f"{column} missing", f"a {column} in the envelope", "none"))
    if docs_url and (other_code := _owner(code, docs_url, errors)):
        found.append(("docs_url of another code", f"the docs_url of {code}", f"{docs_url} of {other_code}"))
    first = min((other["ts"] for other in beside if other.get("retry_after_s")), default=None)
    if code == "rate_limited" and not row.get("retry_after_s") and first is not None and row["ts"] >= first:
        found.append(("rate_limited without Retry-After", "a Retry-After header", "none"))
    shaped = [other for other in beside if other.get("code") == code and _shape(other)]
    alike = [other for other in shaped if _shape(other) == _shape(row)]
    if len({_shape(other) for other in shaped}) > 1 and _shape(row) and len(alike) >= min_details:
        began = min(other["ts"] for other in alike)
        before = sum(other["ts"] < began for other in shaped)
        starts: dict[str, Any] = {}
        for other in shaped:
            shape = str(_shape(other))
            starts[shape] = min(starts.get(shape, other["ts"]), other["ts"])
        counts = Counter(_shape(other) for other in shaped)
        usual = min(starts, key=lambda shape: (starts[shape], -counts[shape], shape))
        if (1 - before / len(shaped)) ** len(alike) < max_chance:
            found.append(("new shape of details", usual, str(_shape(row))))
    if row["request_id"] and row["body_state"] != "absent":
        same = [
            o for o in beside if o.get("code") and o["body_state"] != "absent" and o["request_id"] == row["request_id"]
        ]
        keys = {other["idempotency_hash"] for other in same}
        records = {(o["method"], o["path"], o["caller"], o["code"], o["status"]) for o in same}
        times = [other["ts"].timestamp() for other in same]
        is_replay = len(keys) == 1 and None not in keys
        if len(same) > 1 and not is_replay and (len(records) > 1 or max(times) - min(times) > same_record_s):
            found.append(("request_id duplicated", "a request_id of its own", "that of another request"))
    return found


def _owner(code: str, docs_url: str, errors: list[Row]) -> str | None:
    """The other code whose documentation `docs_url` is; None where it is that of `code` or of none."""
    known = {*CATALOGUE, *(row["code"] for row in errors if row.get("code"))}
    named = {name for name in known if name in _words(docs_url)}
    if named:
        return None if code in named else min(named)
    usual = {}
    for name in known:
        pages = Counter(row["docs_url"] for row in errors if row.get("code") == name and row.get("docs_url"))
        usual[name] = min(pages, key=lambda page: (-pages[page], page), default=None)
    owners = [name for name in known - {code} if usual[name] == docs_url and usual[code] != docs_url]
    own = [row["docs_url"] for row in errors if row.get("code") == code and row.get("docs_url")]
    owners += ["no code"] if any(code in _words(page) for page in own) else []
    return min(owners, default=None)
