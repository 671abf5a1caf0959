"""The connection over a lake and the exported database: what they hold, and what they say of damage."""

import re
import stat
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final

import duckdb
import pytest
from deltalake import DeltaTable

import analysis
from analysis.lake import DEFAULT_CATALOGUE, VIEWS, read_catalogue, snapshot_files
from analysis.question import macro_names
from ingest.schema import (
    CATALOGUE_COLUMNS,
    DAILY,
    PARTITION_COLUMNS,
    REJECTS,
    REQUESTS,
    SOURCES,
    BadInput,
    LakeDamaged,
    arrow_schema,
    table_path,
)
from tests.analysis.conftest import NINE, WriteLake

PARTITION: Final = arrow_schema(PARTITION_COLUMNS).names
OF_REQUESTS: Final = [*PARTITION, *REQUESTS.names, "caller", "is_error"]
COLUMNS: Final = {
    "requests": OF_REQUESTS,
    "errors": [*OF_REQUESTS, "is_known_code", "is_retryable", "category", "owner"],
    "daily_successes": [*PARTITION, *DAILY.names, "caller"],
    "rejects": [*PARTITION, *REJECTS.names],
    "sources": [*PARTITION, *SOURCES.names],
    "catalogue": [column.name for column in CATALOGUE_COLUMNS],
}
HEADER: Final = ",".join(COLUMNS["catalogue"])


def test_the_views_hold_what_the_lake_holds(write_lake: WriteLake) -> None:
    lake = write_lake(
        [
            {"request_id": "req_1"},
            {"request_id": "req_2", "status": 429, "code": "rate_limited", "key_id": None, "key_hash": "f00d"},
            {"request_id": "req_3", "status": 502, "key_id": None, "client_ip": "192.0.2.1"},
            {"request_id": "req_4", "status": 400, "code": "brand_new"},
        ],
        rejects=[{"line": 7, "reason": "not_json"}],
        sources=[{"name": "a.log", "lines": 5}],
    )

    con = analysis.connect(lake)

    assert con.execute("SELECT request_id, caller, is_error, kind, day FROM requests ORDER BY ALL").fetchall() == [
        ("req_1", "key_a", False, "ok", date(2026, 11, 2)),
        ("req_2", "f00d", True, "error", date(2026, 11, 2)),
        ("req_3", "192.0.2.1", True, "error", date(2026, 11, 2)),
        ("req_4", "key_a", True, "error", date(2026, 11, 2)),
    ]
    assert con.execute(
        "SELECT request_id, code, is_known_code, is_retryable, category, owner FROM errors ORDER BY request_id"
    ).fetchall() == [
        ("req_2", "rate_limited", True, True, "pacing", "client"),
        ("req_3", None, False, None, None, None),
        ("req_4", "brand_new", False, None, None, None),
    ]
    assert con.execute("SELECT line, reason FROM rejects").fetchall() == [(7, "not_json")]
    assert con.execute("SELECT name, lines FROM sources").fetchall() == [("a.log", 5)]
    assert con.execute("SELECT count(*) FROM catalogue").fetchall() == [(14,)]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("requests", [[], [{}, {"status": 500}]], ids=["empty lake", "some rows"])
def test_the_columns_are_those_of_the_contract(
    write_lake: WriteLake, requests: list[dict[str, object]], view: str
) -> None:
    con = analysis.connect(write_lake(requests))

    assert con.sql(f"FROM {view}").columns == COLUMNS[view]


def test_the_columns_have_the_same_types_in_an_empty_lake(write_lake: WriteLake) -> None:
    empty = analysis.connect(write_lake(name="empty"))
    full = analysis.connect(
        write_lake([{}, {"status": 500}], rejects=[{"line": 1}], sources=[{"lines": 1}], name="full")
    )

    assert {view: empty.sql(f"FROM {view}").types for view in VIEWS} == {
        view: full.sql(f"FROM {view}").types for view in VIEWS
    }


def test_moments_are_shown_in_utc_whatever_the_machine_is_set_to(write_lake: WriteLake) -> None:
    con = analysis.connect(write_lake([{"ts": NINE}]))

    assert con.cursor().execute("SELECT ts::VARCHAR FROM requests").fetchall() == [("2026-11-02 09:00:00+00",)]


def test_a_day_predicate_reads_only_the_files_of_that_day(write_lake: WriteLake) -> None:
    lake = write_lake([{"ts": NINE + timedelta(days=day)} for day in range(5)])

    plan = analysis.connect(lake).execute("EXPLAIN ANALYZE SELECT ts FROM requests WHERE day = DATE '2026-11-04'")

    assert "Scanning Files: 1/5" in plan.fetchall()[0][1]


def test_a_bound_since_reads_only_the_files_from_that_day_on(write_lake: WriteLake) -> None:
    con = analysis.connect(write_lake([{"ts": NINE + timedelta(days=day)} for day in range(5)]))
    con.execute(
        "CREATE MACRO recent(since := NULL) AS TABLE SELECT ts FROM requests"
        " WHERE (since IS NULL OR day >= since::DATE) AND (since IS NULL OR ts >= since::TIMESTAMP AT TIME ZONE 'UTC')"
    )

    plan = con.execute("EXPLAIN ANALYZE FROM recent(since := $since::TIMESTAMP)", {"since": datetime(2026, 11, 5)})

    assert "Scanning Files: 2/5" in plan.fetchall()[0][1]


@pytest.mark.parametrize("name", ["with space", "it's", 'a "quoted" one', "st*r", "100%", "#1", "größe"])
def test_a_lake_may_have_any_name(write_lake: WriteLake, name: str) -> None:
    lake = write_lake([{"request_id": "req_1"}], name=name)

    database = analysis.export(lake)

    assert analysis.connect(lake).execute("SELECT request_id FROM requests").fetchall() == [("req_1",)]
    with duckdb.connect(str(database), read_only=True) as con:
        assert con.execute("SELECT request_id FROM requests").fetchall() == [("req_1",)]


def test_a_connection_keeps_its_snapshot_and_a_new_one_sees_what_came(write_lake: WriteLake) -> None:
    lake = write_lake([{"request_id": "req_1"}])
    before = analysis.connect(lake)
    write_lake([{"request_id": "req_2"}])

    after = analysis.connect(lake)

    assert before.execute("SELECT count(*) FROM requests").fetchall() == [(1,)]
    assert after.execute("SELECT count(*) FROM requests").fetchall() == [(2,)]


def test_rows_that_were_deleted_from_the_table_are_not_seen(write_lake: WriteLake) -> None:
    lake = write_lake([{"ts": NINE}, {"ts": NINE + timedelta(days=1)}])
    DeltaTable(table_path(lake)).delete("day < '2026-11-03'")

    assert analysis.connect(lake).execute("SELECT day FROM requests").fetchall() == [(date(2026, 11, 3),)]


# -- the exported database


def test_another_duckdb_client_asks_the_exported_database(write_lake: WriteLake) -> None:
    lake = write_lake([{"status": 429, "code": "rate_limited"}, {"status": 429, "code": "rate_limited"}, {}])

    database = analysis.export(lake)

    assert database == lake / "errata.duckdb"
    with duckdb.connect(str(database), read_only=True) as con:
        assert con.execute("SELECT code, errors, requests FROM errors_by_code()").fetchall() == [("rate_limited", 2, 3)]
        assert {view: con.sql(f"FROM {view}").columns for view in VIEWS} == COLUMNS


def test_a_database_that_is_exported_again_shows_what_was_ingested_since(write_lake: WriteLake) -> None:
    lake = write_lake([{"status": 500}])
    analysis.export(lake)
    write_lake([{"status": 500, "ts": NINE + timedelta(days=1)}])

    database = analysis.export(lake)

    with duckdb.connect(str(database), read_only=True) as con:
        assert con.execute("SELECT errors FROM errors_by_org()").fetchall() == [(2,)]


@pytest.mark.parametrize("content", [b"no database", b""], ids=["damaged", "empty"])
def test_a_database_that_cannot_be_read_is_exported_anew(write_lake: WriteLake, content: bytes) -> None:
    lake = write_lake([{"status": 500}])
    (lake / "errata.duckdb").write_bytes(content)

    database = analysis.export(lake)

    with duckdb.connect(str(database), read_only=True) as con:
        assert con.execute("SELECT errors FROM errors_by_org()").fetchall() == [(1,)]


def test_a_database_whose_macros_were_changed_is_exported_anew(write_lake: WriteLake) -> None:
    lake = write_lake([{"status": 500}])
    database = analysis.export(lake)
    with duckdb.connect(str(database)) as con:
        con.execute("CREATE OR REPLACE MACRO errors_by_org() AS TABLE SELECT 0 AS errors")

    analysis.export(lake)

    with duckdb.connect(str(database), read_only=True) as con:
        assert con.execute("SELECT errors FROM errors_by_org()").fetchall() == [(1,)]


def test_the_exported_database_is_in_the_storage_format_that_old_clients_open(write_lake: WriteLake) -> None:
    database = analysis.export(write_lake())

    with duckdb.connect() as con:
        con.execute(f"ATTACH '{database}' AS exported (READ_ONLY)")
        tags = con.execute("SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = 'exported'")
        assert tags.fetchall() == [("v1.0.0+",)]


def test_every_macro_is_in_the_exported_database(write_lake: WriteLake) -> None:
    lake = write_lake()
    defined = "SELECT function_name, parameters FROM duckdb_functions() WHERE NOT internal ORDER BY ALL"

    with duckdb.connect(str(analysis.export(lake)), read_only=True) as con:
        assert con.execute(defined).fetchall() == analysis.connect(lake).execute(defined).fetchall()


def test_an_export_replaces_the_one_before_and_leaves_nothing_else(write_lake: WriteLake) -> None:
    lake = write_lake([{}])
    analysis.export(lake)
    write_lake([{}])

    database = analysis.export(lake)

    with duckdb.connect(str(database), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM requests").fetchall() == [(2,)]
    assert sorted(path.name for path in lake.iterdir()) == ["errata.duckdb", "table"]


def test_a_client_that_holds_the_old_export_open_keeps_its_answers(write_lake: WriteLake) -> None:
    lake = write_lake([{}])
    with duckdb.connect(str(analysis.export(lake)), read_only=True) as reader:
        write_lake([{}])
        analysis.export(lake)

        assert reader.execute("SELECT count(*) FROM requests").fetchall() == [(1,)]


def test_an_export_that_fails_leaves_the_old_database(write_lake: WriteLake) -> None:
    lake = write_lake([{}])
    analysis.export(lake)
    (lake / "settings.toml").write_text('catalog = "missing.csv"')

    with pytest.raises(BadInput):
        analysis.export(lake)

    with duckdb.connect(str(lake / "errata.duckdb"), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM requests").fetchall() == [(1,)]
    assert sorted(path.name for path in lake.iterdir()) == ["errata.duckdb", "settings.toml", "table"]


# -- the catalogue


def test_the_catalogue_is_the_argument_else_the_settings_else_the_default(
    write_lake: WriteLake, tmp_path: Path
) -> None:
    lake = write_lake()
    default = analysis.connect(lake).execute("SELECT count(*) FROM catalogue").fetchall()
    (lake / "own.csv").write_text(f"{HEADER}\nteapot,418,false,client,client,It is one.,Ask a kettle.\n")
    (lake / "settings.toml").write_text('catalog = "own.csv"')
    configured = analysis.connect(lake).execute("FROM catalogue").fetchall()
    argument = tmp_path / "argument.csv"
    argument.write_text(f"{HEADER}\nslow_down,429,TRUE,pacing,client,Too fast.,Wait.\n")
    given = analysis.connect(lake, catalog=argument).execute("FROM catalogue").fetchall()

    assert default == [(14,)]
    assert configured == [("teapot", 418, False, "client", "client", "It is one.", "Ask a kettle.")]
    assert given == [("slow_down", 429, True, "pacing", "client", "Too fast.", "Wait.")]


def test_a_corrected_catalogue_reclassifies_history(write_lake: WriteLake, tmp_path: Path) -> None:
    lake = write_lake([{"status": 404, "code": "not_found"}])
    corrected = tmp_path / "codes.csv"
    corrected.write_text(DEFAULT_CATALOGUE.read_text().replace("not_found,404,false", "not_found,404,true"))

    con = analysis.connect(lake, catalog=corrected)

    assert con.execute("SELECT code, is_retryable FROM errors").fetchall() == [("not_found", True)]


CATALOGUE_MISTAKES = [
    pytest.param("code,http_status\n", ":1: expected the columns", id="columns missing"),
    pytest.param("", ":1: expected the columns", id="empty file"),
    pytest.param(f"{HEADER}\na,400,maybe,client,client,m,a\n", ":2: is_retryable has value 'maybe'", id="bad boolean"),
    pytest.param(f"{HEADER}\na,four,true,client,client,m,a\n", ":2: http_status has value 'four'", id="bad status"),
    pytest.param(f"{HEADER}\na,99,true,client,client,m,a\n", ":2: http_status has value '99'", id="status too low"),
    pytest.param(f"{HEADER}\n,400,true,client,client,m,a\n", ":2: code is empty", id="no code"),
    pytest.param(f"{HEADER}\na,400,true,client\n", ":2: owner is empty", id="too few fields"),
    pytest.param(f"{HEADER}\na,400,true,client,client,m,a,b\n", ":2: more fields than", id="too many fields"),
    pytest.param(
        f'{HEADER}\na,400,true,client,client,"m\n2",a\na,400,true,client,client,m,a\n',
        ":4: the code 'a' is there twice",
        id="duplicate code",
    ),
    pytest.param(f'{HEADER}\na,400,true,client,client,"m"x,a\n', ":2: not valid CSV", id="bad quotes"),
]


@pytest.mark.parametrize(("text", "verdict"), CATALOGUE_MISTAKES)
def test_a_mistake_in_a_catalogue_is_named_with_its_line(tmp_path: Path, text: str, verdict: str) -> None:
    path = tmp_path / "codes.csv"
    path.write_text(text)

    with pytest.raises(BadInput, match=re.escape(f"{path}{verdict}")):
        read_catalogue(path)


@pytest.mark.parametrize(
    ("settings", "verdict"),
    [
        pytest.param("catalog = 3", 'expected catalog = "PATH", found int', id="not a path"),
        pytest.param("catalog =", "expected TOML", id="not TOML"),
        pytest.param('catalog = "nowhere.csv"', "nowhere.csv: the catalogue cannot be read", id="no such file"),
    ],
)
def test_a_mistake_in_the_settings_is_named(write_lake: WriteLake, settings: str, verdict: str) -> None:
    lake = write_lake()
    (lake / "settings.toml").write_text(settings)

    with pytest.raises(BadInput, match=re.escape(verdict)):
        analysis.connect(lake)


def test_the_default_catalogue_is_valid() -> None:
    assert read_catalogue(DEFAULT_CATALOGUE).num_rows == 14


# -- a lake that is not there, or not whole


def test_a_lake_that_does_not_exist_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere: .* does not exist; make one with `errata ingest PATH\.\.\. --lake"):
        analysis.connect(tmp_path / "nowhere")


def test_a_folder_without_a_table_is_no_lake(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no table in it; make one with `errata ingest"):
        analysis.connect(tmp_path)


@pytest.mark.parametrize(
    ("name", "found"), [("b[ra]cket", "'['"), ("50%20off", "'%20'"), ("a|b", "'|'"), ("what?", "'?'")]
)
def test_a_path_that_the_engines_cannot_read_is_refused(
    write_lake: WriteLake, tmp_path: Path, name: str, found: str
) -> None:
    moved = write_lake([{}]).rename(tmp_path / name)

    with pytest.raises(BadInput, match=re.escape(f"a lake cannot be in a path with {found}; rename the folder")):
        analysis.connect(moved)


def test_a_checkpoint_makes_the_commits_before_it_unimportant(write_lake: WriteLake) -> None:
    for _ in range(3):
        lake = write_lake([{}])
    DeltaTable(table_path(lake)).create_checkpoint()
    _empty_an_earlier_commit(lake)

    assert analysis.connect(lake).execute("SELECT count(*) FROM requests").fetchall() == [(3,)]


def _lose_the_log(lake: Path) -> None:
    (lake / "table" / "_delta_log").rename(lake / "lost")


def _empty_the_last_commit(lake: Path) -> None:
    _commit(lake, 2).write_bytes(b"")


def _tear_the_last_commit(lake: Path) -> None:
    _commit(lake, 2).write_bytes(_commit(lake, 2).read_bytes()[:-40])


def _empty_an_earlier_commit(lake: Path) -> None:
    _commit(lake, 1).write_bytes(b"")


def _lose_an_earlier_commit(lake: Path) -> None:
    _commit(lake, 1).unlink()


def _commit(lake: Path, version: int) -> Path:
    return table_path(lake) / "_delta_log" / f"{version:020}.json"


@pytest.mark.parametrize(
    ("damage", "verdict"),
    [
        pytest.param(_lose_the_log, "expected the log of a Delta table, found none", id="no log"),
        pytest.param(_empty_the_last_commit, "00000000000000000002.json: this commit is empty", id="empty last commit"),
        pytest.param(_empty_an_earlier_commit, "00000000000000000001.json: this commit is empty", id="empty commit"),
        pytest.param(_tear_the_last_commit, "_delta_log: cannot be read", id="torn last commit"),
        pytest.param(_lose_an_earlier_commit, "_delta_log", id="missing commit"),
    ],
)
def test_a_damaged_log_is_told_from_an_empty_lake(
    write_lake: WriteLake, damage: Callable[[Path], None], verdict: str
) -> None:
    for _ in range(3):
        lake = write_lake([{}])
    damage(lake)

    with pytest.raises(LakeDamaged, match=re.escape(verdict)):
        analysis.connect(lake)


def _lose(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("damage", [_lose, _empty, _tear])
def test_a_damaged_data_file_is_named_when_it_is_asked_for(
    write_lake: WriteLake, damage: Callable[[Path], None]
) -> None:
    lake = write_lake([{"ts": NINE + timedelta(days=day), "status": 500} for day in range(3)])
    con = analysis.connect(lake)
    victim = Path(snapshot_files(lake).by_kind["error"][1])
    damage(victim)

    with pytest.raises(LakeDamaged, match=re.escape(f"{victim}: this data file of the lake is missing or cannot be")):
        analysis.answer(con, "errors_by_code")


def test_a_corrupt_file_that_duckdb_does_not_name_is_damage_too(write_lake: WriteLake) -> None:
    lake = write_lake([{"status": 500}])
    con = analysis.connect(lake)
    victim = Path(snapshot_files(lake).by_kind["error"][0])
    content = victim.read_bytes()
    victim.write_bytes(content[:4] + b"\xff" * 16 + content[20:])

    with pytest.raises(LakeDamaged, match="a data file of the lake is corrupt"):
        analysis.answer(con, "errors_by_code")


def test_rows_that_do_not_fit_in_memory_lie_where_nobody_else_reads_them(write_lake: WriteLake) -> None:
    con = analysis.connect(write_lake([{}]))

    ((folder,),) = con.execute("SELECT current_setting('temp_directory')").fetchall()

    assert Path(folder).stat().st_mode & 0o777 == 0o700
    assert Path.cwd() not in Path(folder).parents


def test_the_macros_are_kept_in_the_cache_of_the_user(
    write_lake: WriteLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = write_lake([{"status": 500}])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    defined = "SELECT function_name, parameters FROM duckdb_functions() WHERE NOT internal ORDER BY ALL"

    created = analysis.connect(lake).execute(defined).fetchall()

    [kept] = (tmp_path / "cache" / "errata").iterdir()
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert {name for name, _ in created} == macro_names()
    with duckdb.connect(str(kept), read_only=True) as con:
        assert con.execute(defined).fetchall() == created
        assert con.execute("SELECT count(*) FROM information_schema.tables").fetchall() == [(0,)]


@pytest.mark.parametrize("cache", ["a file", "a broken database"])
def test_a_cache_that_cannot_be_used_is_done_without(
    write_lake: WriteLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    lake = write_lake([{"status": 500}])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if cache == "a file":
        (tmp_path / "cache").touch()
    else:
        analysis.connect(lake).close()
        [kept] = (tmp_path / "cache" / "errata").iterdir()
        kept.write_bytes(b"no database")

    assert analysis.connect(lake).execute("SELECT errors FROM errors_by_org()").fetchall() == [(1,)]
    with duckdb.connect(str(analysis.export(lake)), read_only=True) as con:
        assert con.execute("SELECT errors FROM errors_by_org()").fetchall() == [(1,)]
