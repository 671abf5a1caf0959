"""Killed at any moment, an ingest leaves whole sources or none of them, and the next one goes on from there."""

import random
import sys
import time
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest
from deltalake import DeltaTable

import errata
from ingest import run
from ingest.schema import table_path
from tests.ingest.logs import SECOND, Row, error_line, json_line, log, rejects, requests, steps

SOURCES: Final = 6
KILLS: Final = 20
DAY: Final = 86_400


def ingest_source_by_source(logs: Path, lake: Path) -> None:
    """What the killed process does: `errata ingest`, with a commit for every source and not for every 1,000."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_SOURCES_A_COMMIT", 1)
        patch.setattr("sys.argv", ["errata", "ingest", str(logs), "--lake", str(lake)])
        errata.main()


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Small logs, each of two days with successes, errors and rejects: several files of the lake for a source."""
    folder = tmp_path / "logs"
    folder.mkdir()
    for number in range(SOURCES):
        lines = [json_line(msec=SECOND + DAY * (line % 2), request_id=f"{number}_{line}") for line in range(40)]
        lines[::5] = [error_line("rate_limited", 429, msec=SECOND + line, org_id=f"org_{number}") for line in range(8)]
        (folder / f"{number}.log").write_bytes(log([*lines, b"{", f"# {number}".encode()]))
    return folder


def begun(logs: Path, lake: Path) -> BaseProcess:
    """A process that ingests `logs`, forked from one that has the imports behind it."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, "analysis.lake"])
    process = context.Process(target=ingest_source_by_source, args=(logs, lake))
    process.start()
    return process


def commits(lake: Path) -> int:
    """How many commits the table of the lake has, the one that made it included."""
    return len(list((table_path(lake) / "_delta_log").glob("*.json")))


def by_source(lake: Path) -> dict[str, tuple[Row, list[Row], list[Row]]]:
    """The ledger row, the requests and the rejects of every source that has any of them; no times of the run."""
    if not DeltaTable.is_deltatable(str(table_path(lake))):
        return {}
    of_run = {"ingested_at", "day"}
    ledger = {
        step["source_id"]: {name: value for name, value in step.items() if name not in of_run} for step in steps(lake)
    }
    assert len(ledger) == len(steps(lake))
    rows, refused = requests(lake), [{**reject, "day": None} for reject in rejects(lake)]
    return {
        source_id: (
            ledger.get(source_id, {}),
            [row for row in rows if row["source_id"] == source_id],
            [reject for reject in refused if reject["source_id"] == source_id],
        )
        for source_id in {*ledger, *(row["source_id"] for row in rows), *(reject["source_id"] for reject in refused)}
    }


def test_an_ingest_that_is_killed_at_any_moment_has_added_whole_sources(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A new process runs the file of __main__, which other tests of the same worker may have put a script in.
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    moments = random.Random(20_261_123)
    begun(logs, tmp_path / "undisturbed").join()
    whole = by_source(tmp_path / "undisturbed")
    assert len(whole) == SOURCES
    assert sum(len(rows) for _, rows, _ in whole.values()) == SOURCES * 40

    lakes = [tmp_path / "lake 0"]
    seen: list[int] = []
    for _ in range(KILLS):
        process = begun(logs, lakes[-1])
        wanted = moments.randrange(1, SOURCES + 2)
        while process.is_alive() and commits(lakes[-1]) < wanted:
            time.sleep(0.001)
        # Between two commits of a run lie some 0.1 s: any moment of them may be the last.
        process.join(moments.uniform(0, 0.15))
        process.kill()
        process.join()

        found = by_source(lakes[-1])
        assert found == {source_id: whole[source_id] for source_id in found}
        seen.append(len(found))
        if len(found) == SOURCES:
            lakes.append(tmp_path / f"lake {len(lakes)}")

    # Some kills met an ingest half done: otherwise nothing was tested.
    assert set(seen) - {0, SOURCES}
    last = begun(logs, lakes[-1])
    last.join()
    assert last.exitcode == 0
    assert by_source(lakes[-1]) == whole
