"""`errata check` finds what is broken in a lake, says so in a line, and mends what can be mended."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import analysis
from errata import cli
from ingest import lake as lakes
from ingest.check import Fault, check
from ingest.mend import mend
from ingest.run import ingest
from ingest.schema import BadInput, table_path
from ingest.source import Source
from ingest.writer import Writer
from tests.ingest.logs import KEY, SECOND, error_line, json_line, log, requests

DAY_S: Final = 86_400
LOGS: Final = {
    "a.log": [json_line(request_id=f"a{n}", msec=SECOND + n * DAY_S) for n in range(2)] + [b"{", error_line("x", 400)],
    "b.log": [json_line(request_id=f"b{n}", msec=SECOND + n) for n in range(3)]
    + [error_line("y", 404, org_id="org_b")],
}


def added(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).write_bytes(log(LOGS[name]))
    list(ingest([Source(name, folder / name) for name in names], folder / "lake", KEY))


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Two sources in a commit each, exported."""
    for name in LOGS:
        added(tmp_path, [name])
    analysis.export(tmp_path / "lake")
    return tmp_path / "lake"


def checked(lake: Path, **options: bool) -> list[Fault]:
    with lakes.writing(lake):
        return check(lake, **options).faults


def found(lake: Path, **options: bool) -> list[str]:
    """Each fault in words, with paths from the lake on."""
    return [str(fault).replace(f"{lake}", "LAKE") for fault in checked(lake, **options)]


def mended(lake: Path) -> list[str]:
    with lakes.writing(lake):
        told = [line.replace(f"{lake}", "LAKE") for line in mend(lake)]
    analysis.export(lake)
    return told


def of_kind(lake: Path, kind: str) -> Path:
    return sorted(table_path(lake).glob(f"kind={kind}/*/*.parquet"))[0]


def commit(lake: Path, version: int) -> Path:
    return table_path(lake) / "_delta_log" / f"{version:020}.json"


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_a_whole_lake_has_no_fault(lake: Path) -> None:
    with lakes.writing(lake):
        result = check(lake, is_deep=True)

    assert (result.faults, result.files, result.rows, result.sources) == ([], 11, 10, 2)


@pytest.mark.parametrize("data", [b"", b"\n", b'{"commitInfo":{}}\n{"add":{"pa'], ids=["empty", "blank", "torn"])
def test_a_last_commit_that_was_torn_is_set_aside_and_its_source_ingested_again(
    lake: Path, tmp_path: Path, data: bytes
) -> None:
    before = [{**row, "day": None} for row in requests(lake)]
    commit(lake, 2).write_bytes(data)

    [fault] = checked(lake)
    assert fault.is_damage
    assert str(fault).endswith(": what it added is not in the lake.")
    assert mended(lake)[0].startswith(
        "LAKE/table/_delta_log/00000000000000000002.json: moved to LAKE/damaged; this commit is "
    )

    assert {row["source_id"] for row in requests(lake)} < {row["source_id"] for row in before}
    added(tmp_path, list(LOGS))
    assert [{**row, "day": None} for row in requests(lake)] == before
    analysis.export(lake)
    assert found(lake) == []


def test_what_the_torn_commit_had_written_is_an_orphan(lake: Path) -> None:
    commit(lake, 2).write_bytes(b"")

    told = mended(lake)

    assert len(told) == 5
    assert all(line.endswith("removed; it belongs to no commit; a killed run left it") for line in told[1:])
    assert found(lake) == []


@pytest.mark.parametrize(
    ("damage", "place", "what"),
    [
        (lambda lake: commit(lake, 1).unlink(), "/00000000000000000001.json", "this commit is missing"),
        (lambda lake: commit(lake, 1).write_bytes(b""), "/00000000000000000001.json", "this commit is empty"),
        (
            lambda lake: shutil.rmtree(table_path(lake) / "_delta_log"),
            "",
            "expected the log of a Delta table, found none",
        ),
    ],
    ids=["a commit is missing", "an earlier commit is empty", "the log is gone"],
)
def test_what_only_a_backup_can_mend_is_said(lake: Path, damage: Callable[[Path], Any], place: str, what: str) -> None:
    damage(lake)

    assert found(lake) == [
        f"LAKE/table/_delta_log{place}: {what}. Restore it from a backup, or ingest the logs into a new lake."
    ]
    before = sorted(path for path in lake.rglob("*"))
    with lakes.writing(lake):
        assert list(mend(lake)) == []
    assert sorted(path for path in lake.rglob("*")) == before


@pytest.mark.parametrize("data", [b"", b"PAR1torn"], ids=["empty", "torn"])
def test_a_broken_checkpoint_is_set_aside_and_the_log_read_without_it(lake: Path, data: bytes) -> None:
    before = requests(lake)
    lakes.checkpoint(lake)
    [checkpoint] = (table_path(lake) / "_delta_log").glob("*.checkpoint.parquet")
    checkpoint.write_bytes(data)

    assert found(lake) == [
        "LAKE/table/_delta_log/00000000000000000002.checkpoint.parquet: this checkpoint cannot be read."
    ]
    mended(lake)

    assert found(lake) == []
    assert requests(lake) == before


def test_a_data_file_that_is_gone_is_taken_out_and_what_it_held_counted(lake: Path, tmp_path: Path) -> None:
    gone = of_kind(lake, "ok")
    rows = pq.ParquetFile(gone).metadata.num_rows
    gone.unlink()

    assert found(lake) == [f"{str(gone).replace(str(lake), 'LAKE')}: this data file is missing."]
    told = mended(lake)

    assert told[0].endswith("taken out of the lake; this data file is missing")
    assert told[1].endswith(
        f".log: {rows} rows are lost and counted as removed; to have them back, ingest the log into a new lake"
    )
    assert found(lake) == []
    assert len(requests(lake)) == 7 - rows
    health = (
        analysis.connect(lake).execute("SELECT bool_and(is_conserved), sum(removed) FROM ingest_health()").fetchall()
    )
    assert health == [(True, rows)]


def test_a_data_file_of_another_size_is_set_aside(lake: Path) -> None:
    torn = of_kind(lake, "error")
    torn.write_bytes(torn.read_bytes()[:-100])

    assert len(found(lake)) == 1
    mended(lake)

    assert found(lake) == []
    assert (lake / "damaged" / torn.name).exists()


def test_a_flipped_bit_is_found_by_a_deep_check_alone(lake: Path) -> None:
    file = of_kind(lake, "ok")
    column = pq.ParquetFile(file).metadata.row_group(0).column(0)
    last = column.data_page_offset + column.total_compressed_size - column.total_compressed_size // 4
    overwrite(file, last, bytes([file.read_bytes()[last] ^ 1]))

    assert found(lake) == []
    [told] = found(lake, is_deep=True)
    assert "this data file cannot be read" in told


def test_rows_that_the_ledger_does_not_know_are_found(lake: Path) -> None:
    source = of_kind(lake, "ok")
    copy = source.with_name("copy.parquet")
    shutil.copy(source, copy)
    rows = pq.ParquetFile(copy).read()
    writer = Writer(table_path(lake), lakes.day_of(source))
    writer.add_again("ok", lakes.day_of(source), rows)
    lakes.commit(lake, writer.close())
    copy.unlink()
    analysis.export(lake)

    [told] = found(lake)
    assert " requests, expected " in told
    assert told.endswith("Restore it from a backup, or ingest the logs into a new lake.")


def test_what_a_killed_run_left_is_no_damage(lake: Path) -> None:
    orphan = of_kind(lake, "ok").with_name("orphan.parquet")
    orphan.write_bytes(b"half")

    [fault] = checked(lake)
    assert not fault.is_damage
    assert check(lake, is_alone=False).faults == []
    mended(lake)
    assert not orphan.exists()


def test_an_export_that_fell_behind_is_written_again(lake: Path, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(log([*LOGS["a.log"], json_line(request_id="new")]))
    list(ingest([Source("a.log", tmp_path / "a.log")], lake, KEY))

    [fault] = checked(lake)
    assert str(fault) == f"{lake}/errata.duckdb: is not of the present lake."
    result = CliRunner().invoke(cli, ["check", "--repair", "--lake", str(lake)])
    assert (result.exit_code, result.stdout) == (0, "")
    assert found(lake) == []


def test_the_command_says_what_is_wrong_and_ends_with_3(lake: Path) -> None:
    whole = CliRunner().invoke(cli, ["check", "--lake", str(lake)])
    assert (whole.exit_code, whole.stdout) == (0, "")
    assert whole.stderr == f"{lake}: whole, 10 rows of 2 sources in 11 files\n"

    gone = of_kind(lake, "error")
    gone.unlink()
    broken = CliRunner().invoke(cli, ["check", "--lake", str(lake)])

    assert (broken.exit_code, broken.stdout) == (3, f"damaged: {gone}: this data file is missing.\n")
    assert broken.stderr == f"{lake}: 1 faults; --repair mends what can be mended\n"


def test_a_check_beside_a_run_that_writes_passes_over_its_files(lake: Path) -> None:
    of_kind(lake, "ok").with_name("being written.parquet").write_bytes(b"half")

    with lakes.writing(lake):
        result = CliRunner().invoke(cli, ["check", "--lake", str(lake)])

    assert (result.exit_code, result.stdout) == (0, "")


def test_no_lake_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected a lake, found none"):
        check(tmp_path / "none")
