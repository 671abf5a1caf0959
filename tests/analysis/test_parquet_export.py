"""A range of the lake as plain Parquet: exactly its rows, in a folder that is complete or not there."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import analysis
from analysis import parquet_export
from analysis.cli import export
from analysis.parquet_export import export_parquet
from ingest.schema import BadInput, NotWritten
from tests.analysis.conftest import NINE, WriteLake

DAY: Final = timedelta(days=1)


@pytest.fixture
def lake(write_lake: WriteLake) -> Path:
    """Three days with a success and an error each, the error one hour later."""
    rows = []
    for number in range(3):
        at = NINE + number * DAY
        rows += [{"ts": at, "request_id": f"ok{number}"}]
        rows += [{"ts": at + timedelta(hours=1), "request_id": f"e{number}", "status": 429, "code": "rate_limited"}]
    return write_lake(rows)


def exported(lake: Path, out: Path, **wanted: Any) -> dict[str, int]:
    return {str(day): rows for day, rows in export_parquet(analysis.connect(lake), out, **wanted).items()}


def naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


def request_ids(out: Path) -> dict[str, list[str]]:
    """The request ids of every file of an export, in its order."""
    return {
        str(path.relative_to(out)): pq.ParquetFile(path).read()["request_id"].to_pylist()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def test_every_day_has_a_file_with_its_rows_in_the_order_of_time(lake: Path, tmp_path: Path) -> None:
    assert exported(lake, tmp_path / "out") == {"2026-11-02": 2, "2026-11-03": 2, "2026-11-04": 2}

    assert request_ids(tmp_path / "out") == {
        f"day=2026-11-0{2 + number}/requests.parquet": [f"ok{number}", f"e{number}"] for number in range(3)
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lake", "out"]


def test_another_client_reads_what_the_view_holds(lake: Path, tmp_path: Path) -> None:
    exported(lake, tmp_path / "out", view="errors")

    con = analysis.connect(lake)
    names = [name for (name,) in con.execute("SELECT column_name FROM (DESCRIBE errors)").fetchall()]
    read = f"read_parquet('{tmp_path}/out/*/*.parquet', hive_partitioning = true, hive_types = {{'day': DATE}})"
    ours, theirs = (
        con.sql(f"SELECT {', '.join(names)} FROM {place} ORDER BY ts").to_arrow_table().to_pylist()
        for place in ("errors", read)
    )
    assert theirs == ours
    assert len(theirs) == 3


@pytest.mark.parametrize(
    ("since", "until", "found"),
    [
        (NINE + DAY, None, ["ok1", "e1", "ok2", "e2"]),
        (None, NINE + DAY, ["ok0", "e0"]),
        (NINE + timedelta(minutes=1), NINE + DAY + timedelta(minutes=1), ["e0", "ok1"]),
        (NINE + 9 * DAY, None, []),
    ],
    ids=["from a moment on", "up to a moment", "between two", "nothing"],
)
def test_a_range_has_its_start_and_not_its_end(
    lake: Path, tmp_path: Path, since: datetime | None, until: datetime | None, found: list[str]
) -> None:
    exported(lake, tmp_path / "out", since=since and naive(since), until=until and naive(until))

    assert [name for names in request_ids(tmp_path / "out").values() for name in names] == found


@pytest.mark.parametrize(
    "there",
    [lambda out: out.touch(), lambda out: (out / "a").mkdir(parents=True)],
    ids=["a file", "a folder with something in it"],
)
def test_what_is_there_is_not_overwritten(lake: Path, tmp_path: Path, there: Callable[[Path], None]) -> None:
    there(tmp_path / "out")

    with pytest.raises(BadInput, match="is there already; name a new folder or remove it"):
        exported(lake, tmp_path / "out")


def test_an_export_that_fails_leaves_nothing(lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet_export, "flush", full)
    with pytest.raises(NotWritten) as raised:
        exported(lake, tmp_path / "out")

    assert str(raised.value) == (
        f"{tmp_path}/out: cannot be written: No space left on device. Nothing of it was kept; choose a place with room"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["lake"]


def test_what_a_killed_export_left_is_removed_by_the_next_one(lake: Path, tmp_path: Path) -> None:
    dead, alive = tmp_path / ".out.4194305.draft", tmp_path / f".out.{os.getppid()}.draft"
    for draft in (dead, alive):
        draft.mkdir()
        (draft / "half").touch()

    exported(lake, tmp_path / "out")

    assert sorted(path.name for path in tmp_path.iterdir()) == [alive.name, "lake", "out"]


def test_a_place_that_is_none_is_one_line(lake: Path, tmp_path: Path) -> None:
    with pytest.raises(NotWritten, match="out: cannot be written: No such file or directory; choose another place"):
        exported(lake, tmp_path / "none" / "out")


def test_the_command_says_what_is_there(lake: Path, tmp_path: Path) -> None:
    arguments = [str(tmp_path / "it's"), "--lake", str(lake), "--since", "2026-11-03", "--view", "errors"]

    result = CliRunner().invoke(export, arguments, catch_exceptions=False)

    assert (result.stderr, result.stdout) == (f"2 errors of 2 days are in {tmp_path}/it's\n", "")
    assert len(request_ids(tmp_path / "it's")) == 2
