"""Killed at any moment, a command has done whole steps of its work or none, and the next one goes on from there."""

import os
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

import duckdb
from deltalake import DeltaTable

from ingest.schema import table_path
from tests.crash.growing import Growing
from tests.crash.held import ids_in, left_behind
from tests.crash.warm import Running, Warm
from tests.ingest.logs import rejects, requests

KILLS: Final = 80
# Some kills come early, others between the writing of a file and its commit, which lie some 10 ms apart.
_MOST_CHANGES: Final = {"ingest": 14, "maintain": 12, "export": 6}
_MOMENT_S: Final = 0.01
_EARLY_S: Final = 0.3


def kill_after_changes(running: Running, folder: Path, changes: int, moment_s: float) -> None:
    """Kills a command `moment_s` after so many changes of what folders below `folder` hold, or when it has ended."""
    before = listing_times(folder)
    while changes and not running.has_ended(within_s=0.001):
        now = listing_times(folder)
        changes -= now != before
        before = now
    running.has_ended(within_s=moment_s)
    running.kill()


def listing_times(folder: Path) -> list[int]:
    """When the folders below `folder` last got or lost a file."""
    times = []
    folders = [str(folder)]
    while folders:
        with suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
            found = [entry for entry in entries if entry.is_dir()]
            times += [entry.stat().st_mtime_ns for entry in found]
            folders += [entry.path for entry in found]
    return times


def commits(lake: Path) -> int:
    """The number of the lake's last commit."""
    return max(int(path.stem) for path in (table_path(lake) / "_delta_log").glob("*.json"))


def uncommitted(lake: Path) -> set[Path]:
    """Data files that no commit names, and drafts of exports."""
    named = {Path(file) for file in DeltaTable(str(table_path(lake))).file_uris()}
    return {*table_path(lake).rglob("*.parquet"), *(lake.parent / "exports").glob(".*.draft")} - named


def rows_in(lake: Path) -> list[str]:
    """All requests and rejects, but for what depends on when their source was read for the first time."""
    of_run = {"source_id", "day"}
    rows = [*requests(lake), *rejects(lake)]
    return sorted(str({name: value for name, value in row.items() if name not in of_run}) for row in rows)


def exported_ids(folder: Path) -> list[str]:
    """The request ids in an export, sorted."""
    with duckdb.connect() as con:
        sql = "SELECT request_id FROM read_parquet($files) ORDER BY request_id"
        rows = con.execute(sql, {"files": f"{folder}/*/*.parquet"}).fetchall()
    return [id_ for (id_,) in rows]


def test_a_command_that_is_killed_at_any_moment_has_done_whole_steps(
    logs: Growing, commands: Warm, tmp_path: Path
) -> None:
    lake, exports = tmp_path / "lake", tmp_path / "exports"
    exports.mkdir()
    run = {
        "ingest": ("ingest", logs.folder, "--lake", lake),
        "maintain": ("maintain", "--lake", lake, "--keep-successes", 2, "--grace", 0),
        "export": ("export", exports / "all", "--lake", lake),
    }
    met = {command: Counter[str]() for command in run}
    seen: dict[str, list[str]] = {}
    logs.grow(2)
    assert commands.run(*run["ingest"]).code == 0

    while sum(kinds["killed"] for kinds in met.values()) < KILLS:
        command = logs.chance.choices(list(run), weights=[3, 2, 1])[0]
        logs.grow(2)
        shutil.rmtree(exports / "all", ignore_errors=True)
        before, files = commits(lake), uncommitted(lake)
        changes = logs.chance.randrange(_MOST_CHANGES[command])
        running = commands.start(*run[command], sources_a_commit=1)
        moment_s = logs.chance.uniform(0, _MOMENT_S if changes else _EARLY_S)
        kill_after_changes(running, exports if command == "export" else lake, changes, moment_s)
        ended = running.wait()

        found, kept = ids_in(lake), logs.kept()
        lasting = {name: [id_ for id_ in ids if id_ not in logs.expiring] for name, ids in found.items()}
        # Whole lines of each log from its first one on, in their order, and never fewer than before.
        assert lasting == {name: kept[name][: len(ids)] for name, ids in lasting.items()}
        assert {name: lasting.get(name, [])[: len(ids)] for name, ids in seen.items()} == seen
        assert all(len({*ids}) == len(ids) and {*logs.written[name]}.issuperset(ids) for name, ids in found.items())
        if (exports / "all").exists():
            assert exported_ids(exports / "all") == sorted(id_ for ids in found.values() for id_ in ids)
        assert (ended.code, "Traceback" in ended.said) in {(-9, False), (0, False)}
        seen = lasting
        met[command]["killed" if ended.code else "ended"] += 1
        met[command]["killed between commits"] += bool(ended.code and commits(lake) > before)
        met[command]["killed with files uncommitted"] += bool(ended.code and uncommitted(lake) - files)

    logs.finish()
    shutil.rmtree(exports / "all", ignore_errors=True)
    assert [commands.run(*run[command]).code for command in ("ingest", "maintain", "export")] == [0, 0, 0]
    assert ids_in(lake) == logs.kept()
    assert exported_ids(exports / "all") == sorted(id_ for ids in logs.kept().values() for id_ in ids)
    assert (left_behind(lake), [path.name for path in exports.iterdir()]) == ([], ["all"])
    assert commands.run("check", "--deep", "--lake", lake).code == 0
    undisturbed = tmp_path / "undisturbed"
    assert commands.run("ingest", logs.folder, "--lake", undisturbed).code == 0
    assert commands.run("maintain", "--lake", undisturbed, "--keep-successes", 2).code == 0
    assert rows_in(lake) == rows_in(undisturbed)
    # Kills met work half done: otherwise nothing was tested.
    assert min(met[command]["killed between commits"] for command in ("ingest", "maintain")) > KILLS // 40
    assert min(met[command]["killed with files uncommitted"] for command in run) > KILLS // 40
