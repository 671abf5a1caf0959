"""playbook: what is behind a customer's errors, who acts, and what the customer is told."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
import pytest

from analysis.judges.playbook import RULES
from tests.analysis.queries.event_lake import Row, at, columns_of, error, lake, ok, random_events, rows

KEY: Final[Row] = {"org_id": "org_a", "key_id": "key_a"}
OTHER: Final[Row] = {"org_id": "org_b", "key_id": "key_b"}
ADDRESS: Final[Row] = {"org_id": None, "key_id": None, "client_ip": "192.0.2.7"}
HASHED: Final[Row] = ADDRESS | {"key_hash": "hash_a"}
MESSAGE: Final[Row] = {"method": "GET", "route": "/v1/messages/{id}"}


# -- the numbers


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"min_errors": 1}, id="all"),
        pytest.param({}, id="enough"),
        pytest.param({"since": at(86_000), "min_errors": 2}, id="since"),
        pytest.param({"until": at(86_600), "min_errors": 2}, id="until"),
        pytest.param({"since": at(85_000), "until": at(86_900), "min_errors": 1}, id="period"),
        pytest.param({"for_org": "org_a", "min_errors": 1}, id="organisation"),
        pytest.param({"for_key": "key_3", "min_errors": 1}, id="key"),
        pytest.param({"for_route": "/v1/messages/{id}", "min_errors": 1}, id="route"),
        pytest.param({"for_code": "bad_gateway", "min_errors": 1}, id="code"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_every_number_equals_a_second_count_without_sql(seed: int, parameters: Row) -> None:
    events = random_events(seed, 800)

    found = rows(lake(events), "playbook", **parameters)

    counted = [{name: row[name] for name in NUMBERS} for row in found]
    assert counted == _counted(events, **parameters)


NUMBERS: Final = (
    *("code", "org_id", "caller", "errors", "requests", "first_seen", "last_seen", "is_over", "example_request_ids"),
)


@pytest.mark.parametrize("seed", range(4))
def test_the_branch_of_a_refused_scope_is_the_verdict_of_its_own_question(seed: int) -> None:
    con = lake(random_events(seed, 1500))
    verdicts = {
        (row["caller"], row["org_id"], f"{row['method'] or ''} {row['route'] or ''}".strip()): row["verdict"]
        for row in rows(con, "scope_misuse")
    }

    told = [(evidence, branch) for evidence, branch in _with_evidence(con) if "scope" in evidence["code"]]

    assert told
    assert [branch for _, branch in told] == [
        {
            "probing": "probing",
            "personal key": "personal key",
            "regression": "lost the grant",
            "wrong key": "another key of the org may",
            "missing grant": "never granted",
        }[verdicts[row["caller"], row["org_id"], row["route"]]]
        for row, _ in told
    ]


@pytest.mark.parametrize("seed", range(4))
def test_the_branch_of_a_rejected_key_is_the_verdict_of_its_own_question(seed: int) -> None:
    con = lake(row for row in random_events(seed, 1500) if row.get("key_hash") != "both")
    verdicts = {(row["caller"], row["org_id"]): row["verdict"] for row in rows(con, "rejected_keys")}

    told = [(row, branch) for row, branch in _with_evidence(con) if row["code"] == "invalid_api_key"]

    assert told
    assert [branch for _, branch in told] == [
        {
            "retired": "retired key still calling",
            "never worked": "never worked",
            "works again": "works again",
            "not enough data": "not enough data",
        }[verdicts[row["caller"], row["org_id"]]]
        for row, _ in told
    ]


# -- the branches


def refused(code: str | None, count: int = 5, *, step_s: float = 60, **fields: Any) -> list[Row]:
    """So many errors of one key, a minute apart."""
    status = {"status": 422} if code in ("approval_required", "insufficient_credits", "opted_out") else {}
    return [
        error(step_s * number, code, **{"request_id": f"req_{number:02}"} | KEY | status | fields)
        for number in range(count)
    ]


def passed(count: int, *, from_s: float = -3600, **fields: Any) -> list[Row]:
    """So many successes, a second apart."""
    return [ok(from_s + number, **KEY | fields) for number in range(count)]


def naming(*fields: str | None) -> list[Row]:
    """Refusals that name these fields, one each."""
    named = [None if field is None else [{"field": field, "issue": "is wrong"}] for field in fields]
    return [error(60 * number, "validation_failed", details=details, **KEY) for number, details in enumerate(named)]


def quoting(*messages: str) -> list[Row]:
    """Keys that the message of the rejection quotes, from one address."""
    return [error(number, "invalid_api_key", message=message, **ADDRESS) for number, message in enumerate(messages)]


def asking_for(*paths: str, **fields: Any) -> list[Row]:
    """Requests for what is not there, one each."""
    return [error(60 * number, "not_found", path=path, **KEY | MESSAGE | fields) for number, path in enumerate(paths)]


def sending_to(*recipients: str | None, code: str = "dnc_blocked") -> list[Row]:
    """Refused sends to these recipients, one each."""
    return [
        error(60 * number, code, status=422, recipient_hash=recipient, **KEY)
        for number, recipient in enumerate(recipients)
    ]


def faults_of_all(*callers: Row) -> list[Row]:
    return [event for caller in callers for event in refused("internal_error", **caller)]


IDS: Final = [f"/v1/messages/m_{number:02}" for number in range(20)]
CALLERS: Final = [{"org_id": f"org_{number}", "key_id": f"key_{number}"} for number in range(3)]
READS: Final = [ok(-number, **KEY | MESSAGE | {"path": path}) for number, path in enumerate(IDS[:10], start=1)]
OTHER_READS: Final = [ok(-number, **OTHER | MESSAGE | {"path": "/v1/messages/z"}) for number in range(1, 3)]

BRANCHES: Final = [
    ("validation_failed", naming(*["to[0]", "to[3]", "to[9]", "to", "from"]), "several fields", "client"),
    ("validation_failed", naming("to[0]", "to[3]", "to[9]", "to[]", "from"), "one field", "client"),
    ("validation_failed", naming("to", "to", "to", None, None), "not enough data", "client"),
    ("validation_failed", naming(*[None] * 5), "not enough data", "client"),
    ("missing_api_key", refused("missing_api_key", **ADDRESS), "no key sent", "client"),
    (
        "invalid_api_key",
        [*passed(1, **HASHED), *refused("invalid_api_key", **HASHED)],
        "retired key still calling",
        "client",
    ),
    ("invalid_api_key", refused("invalid_api_key"), "retired key still calling", "client"),
    ("invalid_api_key", refused("invalid_api_key", **HASHED), "never worked", "client"),
    ("invalid_api_key", [*refused("invalid_api_key"), *passed(1, from_s=900)], "works again", "client"),
    ("invalid_api_key", [*refused("invalid_api_key"), *passed(1, from_s=150)], "not enough data", "client"),
    ("invalid_api_key", [*refused("invalid_api_key"), *passed(1, from_s=90)], "retired key still calling", "client"),
    ("invalid_api_key", [*refused("invalid_api_key", **ADDRESS), ok(30, **ADDRESS)], "not enough data", "client"),
    (
        "invalid_api_key",
        refused("invalid_api_key", **HASHED | {"key_hash": "placeholder-a"}),
        "placeholder key",
        "client",
    ),
    ("invalid_api_key", quoting(*[f"unknown key sk_{n}…x" for n in range(5)]), "guessed keys", "platform"),
    ("invalid_api_key", quoting(*[f"unknown key sk_{n % 4}…x" for n in range(8)]), "never worked", "client"),
    ("insufficient_scope", refused("insufficient_scope"), "never granted", "client"),
    ("insufficient_scope", [*passed(1), *refused("insufficient_scope")], "lost the grant", "account_team"),
    (
        "insufficient_scope",
        [*passed(1, key_id="key_z"), *refused("insufficient_scope")],
        "another key of the org may",
        "client",
    ),
    (
        "insufficient_scope",
        [error(n, "insufficient_scope", **KEY | {"route": f"/v1/r{n}"}) for n in range(5)],
        "probing",
        "platform",
    ),
    (
        "insufficient_scope",
        [error(n, "insufficient_scope", **KEY | {"route": f"/v1/r{n % 4}"}) for n in range(5)],
        "never granted",
        "client",
    ),
    (
        "insufficient_scope",
        [*[error(n, "insufficient_scope", **KEY | {"route": f"/v1/r{n}"}) for n in range(5)], *passed(1)],
        "never granted",
        "client",
    ),
    (
        "insufficient_scope",
        [*refused("insufficient_scope"), error(999, "scope_invalid", **KEY)],
        "personal key",
        "client",
    ),
    ("scope_invalid", refused("scope_invalid"), "personal key", "client"),
    ("not_found", [*READS, *asking_for(*IDS)], "own ids that are gone", "client"),
    ("not_found", [*READS[:9], *asking_for(*IDS)], "ids that never worked", "client"),
    ("not_found", [*OTHER_READS, *asking_for(*IDS)], "ids that never worked", "client"),
    ("not_found", [*OTHER_READS, *asking_for(*IDS[:5] * 2)], "same ids again and again", "client"),
    ("not_found", asking_for(*IDS), "ids that never worked", "client"),
    ("not_found", asking_for(*IDS[:7] * 2), "route that nobody succeeds on", "client"),
    ("not_found", asking_for(*IDS[:8] * 2), "ids that never worked", "client"),
    ("not_found", [*OTHER_READS, *asking_for(*IDS[:9])], "not enough data", "client"),
    (
        "not_found",
        [*passed(10, route="/v1/next"), *refused("not_found", 10, route="/v1/next", path="/v1/next")],
        "often nothing there",
        "client",
    ),
    (
        "not_found",
        [*passed(9, route="/v1/next"), *refused("not_found", 10, route="/v1/next", path="/v1/next")],
        "not enough data",
        "client",
    ),
    ("idempotency_in_progress", refused("idempotency_in_progress", status=409), "asked again while running", "client"),
    ("idempotency_key_reused", refused("idempotency_key_reused", status=409), "one key for many bodies", "client"),
    ("approval_required", refused("approval_required"), "not approved yet", "account_team"),
    ("approval_required", [*refused("approval_required"), *passed(1, from_s=900)], "approved since", "client"),
    ("approval_required", [*passed(1), *refused("approval_required")], "approval withdrawn", "account_team"),
    (
        "approval_required",
        [*passed(1), *refused("approval_required", step_s=1), *passed(1, from_s=30)],
        "not enough data",
        "account_team",
    ),
    ("insufficient_credits", refused("insufficient_credits"), "out of credits", "account_team"),
    ("insufficient_credits", [*refused("insufficient_credits"), *passed(1, from_s=900)], "topped up since", "client"),
    (
        "insufficient_credits",
        [*refused("insufficient_credits", idempotency_hash="one"), *passed(1, from_s=500)],
        "not enough data",
        "account_team",
    ),
    ("dnc_blocked", sending_to(*["a"] * 6), "same recipients again", "client"),
    ("dnc_blocked", sending_to(*["a"] * 5), "few recipients", "client"),
    ("dnc_blocked", sending_to(*[f"{number}" for number in range(20)]), "many recipients", "client"),
    ("dnc_blocked", sending_to("a", "b", None, None, None), "not enough data", "client"),
    ("opted_out", sending_to(*["a"] * 6, code="opted_out"), "same recipients again", "client"),
    ("opted_out", sending_to(*[f"{number}" for number in range(20)], code="opted_out"), "many recipients", "client"),
    ("rate_limited", refused("rate_limited", 6, step_s=2, retry_after_s=30.0), "calls inside Retry-After", "client"),
    (
        "rate_limited",
        refused("rate_limited", 6, step_s=31, retry_after_s=30.0),
        "steady load above the limit",
        "client",
    ),
    ("rate_limited", refused("rate_limited", 6, step_s=1.9), "burst", "client"),
    ("rate_limited", refused("rate_limited", 6, step_s=2), "steady load above the limit", "client"),
    ("rate_limited", refused("rate_limited", 6, step_s=61), "now and then", "client"),
    ("internal_error", faults_of_all(*CALLERS), "platform fault for many", "platform"),
    (
        "internal_error",
        [*refused("internal_error"), *passed(20, **OTHER)],
        "this customer's requests alone",
        "platform",
    ),
    ("internal_error", [*refused("internal_error"), *passed(19, **OTHER)], "not enough data", "platform"),
    (
        "internal_error",
        [*refused("internal_error"), *passed(95), *passed(190, **OTHER), *refused("internal_error", 10, **OTHER)],
        "platform fault now and then",
        "platform",
    ),
    ("internal_error", [*refused("internal_error", **ADDRESS), *passed(20, **OTHER)], "not enough data", "platform"),
    ("bad_gateway", refused(None, status=502, gateway_reason="bad_gateway"), "not enough data", "platform"),
    (
        "client_closed_request",
        refused(None, status=499, gateway_reason="client_closed_request"),
        "client hung up",
        "client",
    ),
    ("no_route", refused(None, status=404, gateway_reason="no_route"), "no such route", "client"),
    (
        "bad_request",
        refused(None, status=400, gateway_reason="bad_request"),
        "request that the gateway refuses",
        "client",
    ),
    ("too_many_requests", refused(None, status=429, gateway_reason="too_many_requests", step_s=1), "burst", "client"),
    ("brand_new", refused("brand_new", status=418), "no rule for this code", "client"),
    ("brand_new", refused("brand_new", status=503), "not enough data", "platform"),
    ("418", refused(None, status=418), "no rule for this code", "client"),
    ("internal_error", refused("internal_error", org_id=None, key_id=None), "not enough data", "platform"),
]


@pytest.mark.parametrize(
    ("code", "events", "branch", "owner"), BRANCHES, ids=[f"{code}-{branch}" for code, _, branch, _ in BRANCHES]
)
def test_the_data_tell_the_branch_and_who_acts(code: str, events: list[Row], branch: str, owner: str) -> None:
    found = rows(lake(events), "playbook", for_code=code)

    assert {(row["branch"], row["owner"]) for row in found} == {(branch, owner)}


@pytest.mark.parametrize(
    ("branch", "verdict"),
    [
        ("own ids that are gone", "stale references"),
        ("same ids again and again", "stale references"),
        ("route that nobody succeeds on", "typo'd route"),
    ],
)
def test_the_branch_of_what_is_not_found_agrees_with_its_own_question(branch: str, verdict: str) -> None:
    found = [rows(lake(events), "enumeration") for _, events, told, _ in BRANCHES if told == branch]

    assert {row["verdict"] for answer in found for row in answer} == {verdict}


def test_every_code_of_the_catalogue_has_a_rule_and_each_of_its_branches_a_case() -> None:
    con = lake()
    codes = {code for (code,) in con.execute("SELECT code FROM catalogue").fetchall()}

    assert codes <= RULES.keys()
    assert codes <= {code for code, _, _, _ in BRANCHES}


@pytest.mark.parametrize("name", ["brand_new", "internal_error", "rate_limited", "approval_required"])
def test_below_five_errors_there_is_not_enough_data(name: str) -> None:
    found = rows(lake(refused(name, 4, status=422)), "playbook", min_errors=1)

    assert columns_of(found, "branch", "evidence") == [("not enough data", "4 errors, fewer than 5")]


def test_fewer_errors_than_asked_for_are_left_out() -> None:
    con = lake([*refused("rate_limited", 5), *refused("internal_error", 4)])

    assert columns_of(rows(con, "playbook"), "code") == [("rate_limited",)]
    assert columns_of(rows(con, "playbook", min_errors=4), "code") == [("rate_limited",), ("internal_error",)]


# -- the near misses


def test_workers_that_were_refused_side_by_side_had_been_told_nothing() -> None:
    beside = refused("rate_limited", 6, step_s=0.01, retry_after_s=30.0, latency_ms=500.0)

    assert columns_of(rows(lake(beside), "playbook"), "branch") == [("burst",)]


def test_an_address_that_every_refusal_names_is_no_recipient() -> None:
    events = [
        error(number, "opted_out", status=422, recipient_hash="support", org_id=f"org_{org}", key_id=f"k_{org}")
        for org in range(5)
        for number in range(6)
    ]

    assert {row["branch"] for row in rows(lake(events), "playbook")} == {"not enough data"}


def test_the_long_list_of_a_busy_sender_is_not_taken_for_the_same_recipients() -> None:
    blocked = sending_to(*[f"{number % 15}" for number in range(20)])

    assert columns_of(rows(lake([*blocked, *passed(231)]), "playbook"), "branch") == [("few recipients",)]
    assert columns_of(rows(lake([*blocked, *passed(230)]), "playbook"), "branch") == [("same recipients again",)]


def test_faults_of_two_customers_at_a_time_are_not_those_of_many() -> None:
    con = lake(faults_of_all(*CALLERS[:2]))

    assert {row["branch"] for row in rows(con, "playbook")} == {"not enough data"}


# -- what is told


def test_the_sentence_says_what_happens_since_when_how_often_and_what_to_do() -> None:
    con = lake([*passed(95), *refused("insufficient_scope")])

    (row,) = rows(con, "playbook")

    assert row["evidence"] == "5 refused on POST /v1/messages, where it succeeded before"
    assert row["sentence"] == (
        "The key key_a of organisation org_a was answered insufficient_scope 5 times from 2026-11-02 09:00:00 UTC to "
        "2026-11-02 09:04:00 UTC, on POST /v1/messages, in 100 requests there. The key was allowed to use POST "
        "/v1/messages before. Find out why the scope was taken away, and grant it again if that was a mistake. "
        "Example request ids: req_04, req_03, req_02."
    )


def test_the_sentence_starts_from_what_the_catalogue_tells_clients() -> None:
    (row,) = rows(lake(refused("idempotency_in_progress", status=409, idempotency_hash="one")), "playbook")

    assert "Wait for the Retry-After or a second and ask again." in row["sentence"]
    assert row["evidence"] == "5 refused, 1 key"


def test_the_sentence_says_that_it_is_over() -> None:
    (row,) = rows(lake([*refused("rate_limited"), *passed(1, from_s=900)]), "playbook")

    assert row["is_over"]
    assert "It has succeeded there since." in row["sentence"]


def test_a_success_elsewhere_does_not_end_it() -> None:
    con = lake([*refused("rate_limited"), *passed(1, from_s=900, route="/v1/numbers")])

    assert columns_of(rows(con, "playbook"), "is_over") == [(False,)]


def test_who_is_not_named_is_told_so() -> None:
    (row,) = rows(lake(refused("internal_error", org_id=None, key_id=None)), "playbook")

    assert row["sentence"].startswith("A caller that the log does not name was answered internal_error 5 times")
    assert row["evidence"] == "the log does not name the caller"


def _with_evidence(con: Any) -> Iterable[tuple[Row, str]]:
    """The rows of the macro with their branches."""
    evidence: pa.Table = con.sql("FROM playbook()").to_arrow_table()
    return zip(evidence.to_pylist(), (row["branch"] for row in rows(con, "playbook")), strict=True)


def _counted(
    events: list[Row],
    since: datetime | None = None,
    until: datetime | None = None,
    for_org: str | None = None,
    for_key: str | None = None,
    for_code: str | None = None,
    for_route: str | None = None,
    min_errors: int = 5,
) -> list[Row]:
    known = [row for row in events if until is None or row["ts"] < until]
    current = [row for row in known if since is None or row["ts"] >= since]
    cells: dict[tuple[str, str | None, str], list[Row]] = {}
    for row in current:
        answer = row.get("code") or row.get("gateway_reason") or str(row["status"])
        if (
            row["is_error"]
            and for_org in (None, row["org_id"])
            and for_key in (None, row["caller"])
            and for_code in (None, answer)
            and for_route in (None, row["route"])
        ):
            cells.setdefault((answer, row["org_id"], row["caller"]), []).append(row)
    answer_rows = []
    for (answer, org_id, caller), failed in cells.items():
        if len(failed) < min_errors:
            continue
        own = [row for row in known if (row["org_id"], row["caller"]) == (org_id, caller)]
        places = {(row["method"], row["route"]) for row in failed}
        failed.sort(key=lambda row: row["request_id"])
        failed.sort(key=lambda row: row["ts"], reverse=True)
        last_seen = failed[0]["ts"]
        last_places = [(row["route"] is None, row["route"], row["method"]) for row in failed if row["ts"] == last_seen]
        _, route, method = min(last_places)
        answer_rows.append(
            {
                "code": answer,
                "org_id": org_id,
                "caller": caller,
                "errors": len(failed),
                "requests": sum(
                    (row["method"], row["route"]) in places for row in own if since is None or row["ts"] >= since
                ),
                "first_seen": failed[-1]["ts"],
                "last_seen": last_seen,
                "is_over": any(
                    not row["is_error"] and row["ts"] > last_seen and (row["method"], row["route"]) == (method, route)
                    for row in own
                ),
                "example_request_ids": [row["request_id"] for row in failed[:3]],
            }
        )
    return sorted(
        answer_rows,
        key=lambda row: (-row["errors"], row["code"], row["org_id"] is None, row["org_id"] or "", row["caller"]),
    )
