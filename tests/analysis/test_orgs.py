"""A connection for some organisations: what it answers is what a lake of their rows alone would answer."""

import random
import re
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pytest
from deltalake import write_deltalake

import analysis
from analysis.explain import explain
from analysis.lake import DEFAULT_CATALOGUE, VIEWS, read_catalogue
from analysis.period import data_begins, data_through
from ingest.lake import create
from ingest.schema import BadInput, table_path, table_schema
from tests.analysis.conftest import NINE, Row, WriteLake
from tests.analysis.queries.event_lake import at, daily_successes, error, ok, random_events, source
from tests.analysis.queries.outage import arrivals, at_once, client

# Of the ledger, which tells of all organisations.
ABOUT_SOURCES: Final = {"ingest_health"}
NAMES: Final = sorted(analysis.questions().keys() - ABOUT_SOURCES)
OWN: Final = frozenset({"org_a", "org_b"})
# Of callers that the log names no organisation of.
ABOUT_NOBODY: Final = {"keyless_callers", "unattributed"}
# It compares days, and these hold too few: that it sees no more than others do is shown by its macro below.
ABOUT_CHANGES: Final = {"what_changed"}
STRANGER: Final = "somebody else"


def ledger(events: list[Row]) -> Row:
    """A step that spans `events`."""
    moments = [row["ts"] for row in events]
    return source("first", requests=len(events), first_ts=min(moments), last_ts=max(moments))


def every_code(org_id: str) -> list[Row]:
    """A key of `org_id` that meets each code of the catalogue thirty times in two hours, and succeeds before that."""
    known = {"org_id": org_id, "key_id": f"key_{org_id}", "client_ip": "192.0.2.9", "user_agent": f"{org_id}-sdk/1.0"}
    catalogue = read_catalogue(DEFAULT_CATALOGUE).to_pylist()
    statuses = {entry["code"]: entry["http_status"] for entry in catalogue}
    met = [
        error(
            number * 240 + place,
            code,
            status=status,
            request_id=f"{org_id}_{code}_{number}",
            idempotency_hash=f"{code}_{number % 3}",
            route="/v1/messages/{id}" if code == "not_found" else "/v1/messages",
            path=f"/v1/messages/{number}" if code == "not_found" else "/v1/messages",
            details=[{"field": "to", "issue": "required"}] if code == "validation_failed" else None,
            recipient_hash="somebody" if code in ("dnc_blocked", "opted_out") else None,
            retry_after_s=30.0 if code == "rate_limited" else None,
            **known,
        )
        for place, (code, status) in enumerate(statuses.items())
        for number in range(30)
    ]
    return [*(ok(-3_600 + number, request_id=f"{org_id}_{number}", **known) for number in range(60)), *met]


def write_table(lake: Path, rows: list[Row]) -> None:
    """Makes `lake` of `rows`."""
    create(lake)
    table = pa.Table.from_pylist([*rows, *daily_successes(rows)], schema=table_schema())
    write_deltalake(table_path(lake), table, mode="append", partition_by=["kind", "day"])


@pytest.fixture(scope="module")
def connections(tmp_path_factory: pytest.TempPathFactory) -> tuple[duckdb.DuckDBPyConnection, ...]:
    """The whole of a lake, what OWN see of it, and a lake that holds nothing else."""
    choose = random.Random(1)
    # Others come first and last, so that the ends of the data differ too, and loop in the same outage.
    events = [
        ok(-90_000, org_id="org_c", key_id="key_c"),
        *random_events(seed=3),
        *(event for org_id in ("org_a", "org_b", "org_c") for event in every_code(org_id)),
        *client(choose, "looper", arrivals(choose, 0.6), at_once),
        *client(choose, "other looper", arrivals(choose, 0.6), at_once, org_id="org_c"),
        error(300_000, "rate_limited", org_id=None),
    ]
    lakes = {
        "shared": events,
        "alone": [row for row in events if row["org_id"] in OWN],
    }
    folder = tmp_path_factory.mktemp("orgs")
    for name, rows in lakes.items():
        write_table(folder / name, [*rows, {"kind": "source", "day": NINE.date()} | ledger(rows)])
    return (
        analysis.connect(folder / "shared"),
        analysis.connect(folder / "shared", orgs=OWN),
        analysis.connect(folder / "alone"),
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({}, id="all"),
        pytest.param({"since": at(60)}, id="since"),
        pytest.param({"since": at(0), "until": at(2 * 86_400)}, id="since and until"),
        pytest.param({"for_org": "org_a"}, id="own organisation"),
        pytest.param({"for_org": "org_c"}, id="other organisation"),
    ],
)
def test_the_answer_is_that_of_a_lake_without_the_others(
    connections: tuple[duckdb.DuckDBPyConnection, ...], name: str, asked: dict[str, Any]
) -> None:
    known = {parameter.name for parameter in analysis.questions()[name].parameters}
    asked = {parameter: value for parameter, value in asked.items() if parameter in known}
    whole, restricted, alone = (analysis.answer(con, name, **asked).to_arrow_table().to_pylist() for con in connections)

    assert restricted == alone
    if name in ABOUT_CHANGES:
        return
    assert restricted != whole or asked.get("for_org") == "org_a"
    assert bool(restricted) is (asked.get("for_org") != "org_c" and name not in ABOUT_NOBODY)


@pytest.mark.parametrize("orgs", [OWN, frozenset({"org_a"}), frozenset()], ids=["two", "one", "none"])
def test_no_view_and_no_macro_tells_of_others(write_lake: WriteLake, orgs: frozenset[str]) -> None:
    texts = dict.fromkeys(("request_id", "key_id", "client_ip", "user_agent", "route", "path", "message"), STRANGER)
    theirs = [error(number, "rate_limited", org_id=org, **texts) for number, org in enumerate([STRANGER, None, ""])]
    events = [*theirs, *random_events(seed=4)]
    lake = write_lake(
        events, rejects=[{"source_id": STRANGER, "reason": STRANGER}], sources=[source(STRANGER, name=STRANGER)]
    )
    con = analysis.connect(lake, orgs=orgs)
    macros = con.execute(
        "SELECT function_name, len(parameters) FROM duckdb_functions() "
        "WHERE function_type = 'table_macro' AND NOT internal "
        "AND parameters[1] IN ('since', 'about', 'until') ORDER BY 1"
    ).fetchall()
    calls = {name: f"{name}({'' if name in NAMES else ', '.join(['NULL'] * count)})" for name, count in macros}
    told = {view: con.sql(f"FROM {view}").to_arrow_table().to_pylist() for view in VIEWS}
    told |= {name: con.sql(f"FROM {call}").to_arrow_table().to_pylist() for name, call in calls.items()}

    assert set(told) >= {*VIEWS, *NAMES, "requests_in_scope", "request_counts", "errors_with_previous"}
    assert STRANGER not in repr(told)
    assert {row["org_id"] for row in told["requests"]} == {row["org_id"] for row in told["errors"]} == orgs
    assert (told["rejects"], told["sources"], len(told["catalogue"])) == ([], [], 14)


@pytest.mark.parametrize("name", sorted(ABOUT_SOURCES))
def test_a_question_about_sources_has_no_answer(write_lake: WriteLake, name: str) -> None:
    lake = write_lake([{}], sources=[{"name": "a.log"}], rejects=[{"line": 1}])

    assert analysis.answer(analysis.connect(lake, orgs=frozenset({"org_a"})), name).fetchall() == []


def test_the_data_begin_and_end_with_the_own_requests(write_lake: WriteLake) -> None:
    lake = write_lake(
        [{"ts": NINE + timedelta(hours=hour), "org_id": org} for hour, org in enumerate(("org_b", "org_a", "org_b"))],
        sources=[{"first_ts": NINE, "last_ts": NINE + timedelta(hours=2)}],
    )

    con, nobodys = (analysis.connect(lake, orgs=orgs) for orgs in (frozenset({"org_a"}), frozenset[str]()))

    assert (data_begins(con), data_through(con)) == (NINE + timedelta(hours=1), NINE + timedelta(hours=1))
    assert (data_begins(nobodys), data_through(nobodys)) == (None, None)


def test_a_request_of_another_organisation_is_explained_as_one_that_does_not_exist(write_lake: WriteLake) -> None:
    lake = write_lake([{"request_id": "req_a"}, {"request_id": "req_b", "org_id": "org_b"}])
    con = analysis.connect(lake, orgs=frozenset({"org_a"}))

    assert explain(con, "req_a").request["org_id"] == "org_a"
    with pytest.raises(BadInput, match=re.escape("no request in the lake has the id 'req_b'")):
        explain(con, "req_b")


@pytest.mark.parametrize("org", ["o'rg", "') OR TRUE --", '"', "größe", "a,b", "NULL"])
def test_an_organisation_may_have_any_name(write_lake: WriteLake, org: str) -> None:
    lake = write_lake([{"org_id": org, "status": 500}, {"org_id": "org_a"}, {"org_id": None}])

    con = analysis.connect(lake, orgs=frozenset({org}))

    assert con.sql("SELECT org_id FROM requests UNION ALL SELECT org_id FROM errors").fetchall() == [(org,), (org,)]


def test_a_case_of_another_letter_is_another_organisation(write_lake: WriteLake) -> None:
    lake = write_lake([{"org_id": "org_a"}, {"org_id": "ORG_A"}, {"org_id": "org_a "}])

    assert analysis.connect(lake, orgs=frozenset({"org_a"})).sql("SELECT org_id FROM requests").fetchall() == [
        ("org_a",)
    ]


@pytest.mark.parametrize("orgs", [OWN, frozenset({"org_a"})], ids=["two", "one"])
@pytest.mark.parametrize(
    "trap",
    [
        pytest.param("CASE WHEN message = '{}' THEN error(message) ELSE true END", id="an error of one's own"),
        pytest.param("CASE WHEN message = '{}' THEN message::INTEGER ELSE 1 END = 1", id="a cast"),
        pytest.param("coalesce(message, '') <> '{}' OR message::INTEGER = 1", id="a cast in an alternative"),
    ],
)
def test_a_condition_that_fails_on_the_rows_of_others_does_not_meet_them(
    write_lake: WriteLake, orgs: frozenset[str], trap: str
) -> None:
    theirs = [error(number, "not_found", org_id="org_c", message=STRANGER) for number in range(5000)]
    lake = write_lake([*theirs, error(0, "not_found", org_id="org_a")])
    asked = f"SELECT org_id FROM requests WHERE {trap.format(STRANGER)} AND status > 0"

    assert analysis.connect(lake, orgs=orgs).sql(asked).fetchall() == [("org_a",)]
    with pytest.raises(duckdb.Error, match=STRANGER):
        analysis.connect(lake).sql(asked).fetchall()
