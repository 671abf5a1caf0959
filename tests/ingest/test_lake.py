"""The lake's table: what a commit makes visible, who loses a race, and what is said of damage."""

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

import analysis
from ingest import lake as lakes
from ingest.parse import Lanes
from ingest.run import ingest
from ingest.schema import (
    DAILY,
    PARTITION_COLUMNS,
    REJECTS,
    REQUESTS,
    SCHEMA_VERSION,
    SOURCES,
    VERSION_PROPERTY,
    BadInput,
    LakeDamaged,
    arrow_schema,
    table_path,
    table_schema,
)
from ingest.source import Source
from ingest.writer import Writer
from tests.ingest.logs import KEY, SECOND, combined_line, error_line, json_line, log, rejects, requests, steps

DAY: Final = 86_400
NEW: Final = {
    "first.log": [json_line(request_id="a"), error_line("rate_limited", 429), b"{", json_line(msec=SECOND + DAY)],
    "second.log": [combined_line(), combined_line(status=404), combined_line(request="-", status=400)],
}

Fill = Callable[..., Path]


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """Ingests logs of these lines, by name, into one lake in one run; gives the lake."""

    def run(logs: dict[str, list[bytes]]) -> Path:
        sources = []
        for name, lines in logs.items():
            (tmp_path / name).write_bytes(log(lines))
            sources.append(Source(name, tmp_path / name))
        list(ingest(sources, tmp_path / "lake", KEY))
        return tmp_path / "lake"

    return run


def log_files(lake: Path) -> list[Path]:
    """The commits of the lake's table, in their order."""
    return sorted((table_path(lake) / "_delta_log").glob("*.json"))


def test_the_table_has_the_columns_of_the_contract_partitioned_by_kind_and_day(fill: Fill) -> None:
    table = DeltaTable(str(table_path(fill(NEW))))

    assert pa.schema(table.schema().to_arrow()) == table_schema()
    assert table.metadata().partition_columns == arrow_schema(PARTITION_COLUMNS).names
    assert table.protocol().min_reader_version == 1


def test_every_file_has_the_columns_of_its_kind_with_their_types(fill: Fill) -> None:
    lake = fill(NEW)

    files = {path: pq.ParquetFile(path).schema_arrow for path in table_path(lake).rglob("*.parquet")}

    expected = {"ok": REQUESTS, "error": REQUESTS, "reject": REJECTS, "source": SOURCES, "daily": DAILY}
    found = {path: path.parent.parent.name.removeprefix("kind=") for path in files}
    assert set(found.values()) == set(expected)
    for path, schema in files.items():
        columns = [(field.name, plain(field.type)) for field in schema]
        assert columns == [(field.name, field.type) for field in expected[found[path]]]


def plain(kind: pa.DataType) -> pa.DataType:
    """`kind` without a name for the items of a list, which Parquet gives and the contract does not."""
    return pa.list_(kind.value_type) if pa.types.is_list(kind) else kind


def test_rows_lie_under_their_kind_and_the_day_of_their_response(fill: Fill) -> None:
    lake = fill(NEW)

    [ingested_on] = {step["ingested_at"].date() for step in steps(lake)}
    assert {
        tuple(part.split("=")[1] for part in path.relative_to(table_path(lake)).parts[:2])
        for path in table_path(lake).rglob("*.parquet")
    } == {
        ("ok", "2026-11-23"),
        ("ok", "2026-11-24"),
        ("error", "2026-11-23"),
        ("reject", str(ingested_on)),
        ("source", str(ingested_on)),
        ("daily", "2026-11-23"),
        ("daily", "2026-11-24"),
    }


def test_one_run_is_one_commit_of_rows_rejects_and_ledger(fill: Fill) -> None:
    lake = fill(NEW)

    [_, commit] = log_files(lake)
    assert commit.read_text(encoding="utf-8").count('"add":') == len(list(table_path(lake).rglob("*.parquet")))
    table = DeltaTable(str(table_path(lake)))
    for step in steps(lake):
        assert table.transaction_version(step["fingerprint"]) == step["to_byte"]


def test_a_lake_that_is_read_stays_as_it_was_while_more_is_ingested(fill: Fill) -> None:
    lake = fill({"first.log": NEW["first.log"]})
    reading = analysis.connect(lake)
    assert reading.execute("SELECT count(*) FROM requests").fetchall() == [(3,)]

    fill({"second.log": NEW["second.log"]})

    assert reading.execute("SELECT count(*), count(DISTINCT source_id) FROM requests").fetchall() == [(3, 1)]
    assert reading.execute("SELECT count(*) FROM sources").fetchall() == [(1,)]
    assert analysis.connect(lake).execute("SELECT count(*) FROM requests").fetchall() == [(6,)]


def test_what_was_written_without_a_commit_is_not_there(fill: Fill, lanes: Lanes) -> None:
    lake = fill(NEW)
    before = requests(lake)

    writer = Writer(table_path(lake), date(2026, 11, 23))
    writer.add_steps(pa.Table.from_pylist([steps(lake)[0] | {"source_id": "other"}], schema=SOURCES))
    files = writer.close()

    assert (requests(lake), len(steps(lake))) == (before, 2)
    lakes.commit(lake, files, {"other": 1})
    assert (requests(lake), len(steps(lake))) == (before, 3)


def test_a_run_that_fails_before_its_commit_leaves_no_file(fill: Fill) -> None:
    lake = fill(NEW)
    before = sorted(table_path(lake).rglob("*.parquet"))

    writer = Writer(table_path(lake), date(2026, 11, 23))
    writer.add_steps(SOURCES.empty_table())
    writer.close()
    writer.discard()

    assert sorted(table_path(lake).rglob("*.parquet")) == before


def opened(lake: Path) -> DeltaTable:
    return DeltaTable(str(table_path(lake)))


def commit_of(table: DeltaTable, name: str, offset: int) -> None:
    """Commits an empty step of the source `name` from the version that `table` was opened at."""
    path = f"kind=source/day=2026-11-23/{name}-{offset}.parquet"
    file = Path(table.table_uri.removeprefix("file://")) / path
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(SOURCES.empty_table(), file)
    table.create_write_transaction(
        [AddAction(path, file.stat().st_size, {"kind": "source", "day": "2026-11-23"}, 0, True, "{}")],
        "append",
        table_schema(),
        partition_by=["kind", "day"],
        commit_properties=CommitProperties(max_commit_retries=10, app_transactions=[Transaction(name, offset, None)]),
    )


def test_of_two_commits_of_one_source_the_second_is_refused(fill: Fill) -> None:
    lake = fill(NEW)
    first, second = opened(lake), opened(lake)

    commit_of(first, "same", 10)
    with pytest.raises(CommitFailedError, match="Concurrent transaction failed"):
        commit_of(second, "same", 20)

    assert opened(lake).transaction_version("same") == 10
    assert len(log_files(lake)) == 3


def test_two_commits_of_different_sources_are_both_taken(fill: Fill) -> None:
    lake = fill(NEW)
    first, second = opened(lake), opened(lake)

    commit_of(first, "one", 10)
    commit_of(second, "another", 20)

    assert (opened(lake).transaction_version("one"), opened(lake).transaction_version("another")) == (10, 20)


def test_of_two_compactions_of_one_version_the_second_is_refused(tmp_path: Path) -> None:
    rows = pa.table({"day": ["a"] * 2, "value": [1, 2]})
    for _ in range(2):
        write_deltalake(tmp_path / "table", rows, mode="append", partition_by=["day"])
    first, second = DeltaTable(str(tmp_path / "table")), DeltaTable(str(tmp_path / "table"))

    first.optimize.compact()
    with pytest.raises(CommitFailedError):
        second.optimize.compact()

    values = [
        row
        for file in DeltaTable(str(tmp_path / "table")).file_uris()
        for row in pq.ParquetFile(file).read().to_pylist()
    ]
    assert sorted(row["value"] for row in values) == [1, 1, 2, 2]


def test_while_one_run_writes_another_is_told_to_wait(fill: Fill) -> None:
    lake = fill(NEW)

    with lakes.writing(lake), pytest.raises(BadInput) as raised, lakes.writing(lake):
        pass

    assert str(raised.value) == (
        f"{lake}: another errata (process {os.getpid()}) is writing to it; "
        "try again when it has finished, or wait longer with --wait SECONDS"
    )
    with lakes.writing(lake):
        pass


def test_an_empty_last_commit_is_damage_and_not_an_older_lake(fill: Fill) -> None:
    lake = fill(NEW)
    last = log_files(lake)[-1]
    last.write_bytes(b"")

    with pytest.raises(LakeDamaged) as raised:
        lakes.open_table(lake)

    remedy = f"run `errata check --repair --lake {lake}`"
    assert str(raised.value) == f"{last}: this commit is empty; {remedy}"


def test_after_the_empty_commit_was_deleted_the_sources_are_ingested_again(fill: Fill) -> None:
    lake = fill(NEW)
    before = [{**row, "day": None} for row in requests(lake)]
    log_files(lake)[-1].unlink()

    assert requests(lake) == []
    assert [{**row, "day": None} for row in requests(fill(NEW))] == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda commits: commits[0].unlink(),
        lambda commits: commits[0].write_bytes(b"{"),
        lambda commits: commits[-1].write_bytes(commits[-1].read_bytes()[:100]),
    ],
    ids=["a commit is missing", "a commit is garbage", "the last commit is cut"],
)
def test_a_damaged_log_is_named_in_one_line(fill: Fill, damage: Callable[[list[Path]], Any]) -> None:
    lake = fill(NEW)
    damage(log_files(lake))

    with pytest.raises(LakeDamaged) as raised:
        lakes.open_table(lake)

    told = str(raised.value)
    assert told.startswith(str(table_path(lake) / "_delta_log"))
    assert told.endswith(f"run `errata check --repair --lake {lake}`")
    assert "\n" not in told


def test_a_table_without_its_log_is_damage_and_not_a_new_lake(fill: Fill) -> None:
    lake = fill(NEW)
    for path in (table_path(lake) / "_delta_log").iterdir():
        path.unlink()

    with pytest.raises(LakeDamaged, match="expected the log of a Delta table, found none; restore it from a backup"):
        fill(NEW)


@pytest.mark.parametrize("left", ["table", "table/_delta_log", "table/_delta_log/_commit_7.json.tmp"])
def test_a_lake_whose_making_was_cut_short_is_made_again(fill: Fill, tmp_path: Path, left: str) -> None:
    path = tmp_path / "lake" / left
    path.parent.mkdir(parents=True)
    path.touch() if path.suffix else path.mkdir()

    assert len(requests(fill(NEW))) == 6


def test_a_place_that_no_lake_can_be_in_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(BadInput) as raised:
        lakes.create(tmp_path / "file" / "lake")

    assert (
        str(raised.value)
        == f"{tmp_path}/file/lake: cannot be written to: Not a directory. Choose another folder with --lake."
    )


@pytest.mark.parametrize("name", ["a lake", "été", "a+b", "50% off", "it's", "a&b=c;d#e"])
def test_a_lake_may_have_any_name_that_its_engines_can_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.log").write_bytes(log(NEW["first.log"]))
    source = Source("a.log", tmp_path / "a.log")

    first = list(ingest([source], tmp_path / name, KEY))
    again = list(ingest([replace(source, name="b.log")], tmp_path / name, KEY))

    assert [step.outcome for step in first + again] == ["added", "known"]
    assert len(requests(tmp_path / name)) == 3


def test_a_reject_says_where_its_line_is_and_why_but_not_what_it_says(fill: Fill) -> None:
    lines = [json_line(), b"\xff secret of ours", b"", b'{"msec": 1795431545}', b"7"]
    lake = fill({"first.log": lines})

    starts = [sum(len(line) + 1 for line in lines[:index]) for index in range(len(lines))]
    [source] = steps(lake)
    found = [
        (row["source_id"], row["line"], row["byte_offset"], row["byte_length"], row["reason"]) for row in rejects(lake)
    ]
    assert found == [
        (source["source_id"], 2, starts[1], len(lines[1]), "not_json"),
        (source["source_id"], 4, starts[3], len(lines[3]), "no_status"),
        (source["source_id"], 5, starts[4], len(lines[4]), "not_an_object"),
    ]
    assert not any(b"secret of ours" in path.read_bytes() for path in table_path(lake).rglob("*") if path.is_file())


def test_a_chunk_at_a_time_gives_the_rows_of_the_whole(
    fill: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json_line(msec=SECOND + number, request_id=f"r{number}") for number in range(50)]
    lines[10:10] = [error_line("x", 400, retry_after="3"), b"{", error_line("y", 401, org_id="")]
    whole = requests(fill({"whole.log": lines}))

    monkeypatch.setattr("ingest.source.CHUNK_BYTES", 2000)
    monkeypatch.setattr("ingest.writer._ROWS_A_GROUP", 7)
    monkeypatch.setattr("ingest.writer._ROWS_A_FILE", 20)
    (tmp_path / "lake").rename(tmp_path / "lake of the whole")
    parts = requests(fill({"whole.log": lines}))

    assert parts == whole


def test_a_lake_of_a_later_version_is_refused_with_what_to_do(fill: Fill) -> None:
    lake = fill(NEW)
    lakes.open_table(lake).alter.set_table_properties(
        {VERSION_PROPERTY: str(SCHEMA_VERSION + 1)}, raise_if_not_exists=False
    )
    told = (
        f"{lake}: has version {SCHEMA_VERSION + 1} of the lake's schema, expected {SCHEMA_VERSION} or an earlier one; "
        "use the errata that wrote it, or a later one"
    )

    for read in (lakes.open_table, analysis.connect):
        with pytest.raises(BadInput) as raised:
            read(lake)
        assert str(raised.value) == told


def test_a_run_waits_for_another_and_says_so_once(fill: Fill) -> None:
    lake = fill(NEW)
    told: list[str] = []
    held = lakes.writing(lake)
    held.__enter__()

    def free(line: str) -> None:
        told.append(line)
        held.__exit__(None, None, None)

    with lakes.writing(lake, wait_s=60, told=free):
        pass

    assert told == [f"{lake}: another errata (process {os.getpid()}) is writing to it; waiting up to 60 s"]


def test_a_new_lake_is_for_its_owner_alone(fill: Fill) -> None:
    assert stat.S_IMODE(fill(NEW).stat().st_mode) == 0o700


def test_a_folder_that_was_made_for_a_lake_keeps_its_mode(fill: Fill, tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake").chmod(0o750)

    assert stat.S_IMODE(fill(NEW).stat().st_mode) == 0o750


def test_a_row_group_tells_which_request_ids_it_does_not_have(fill: Fill) -> None:
    lake = fill(NEW)

    for path in table_path(lake).rglob("kind=ok/*/*.parquet"):
        ids = {id_ for id_ in pq.read_table(path, columns=["request_id"])["request_id"].to_pylist() if id_}
        looked_up = [*ids, *(f"req_other_{n}" for n in range(100))]
        with duckdb.connect() as con:
            sql = "SELECT bloom_filter_excludes FROM parquet_bloom_probe($file, 'request_id', $id)"
            passed = [
                id_ for id_ in looked_up if con.execute(sql, {"file": str(path), "id": id_}).fetchall() == [(False,)]
            ]
        assert ids <= {*passed}
        assert len(passed) < len(ids) + 30
