"""A range of the lake as plain Parquet files for other tools: a folder that is complete, or is not there.

Knows views, days and folders; knows nothing of what the rows mean.
"""

import os
import re
import shutil
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Final

import duckdb

from analysis.damage import lake_errors, said
from analysis.lake import flush
from analysis.question import literal
from ingest.schema import BadInput, NotWritten

EXPORTED: Final = ("requests", "errors")
"""The views that can be exported: those with a moment in every row."""


def export_parquet(
    con: duckdb.DuckDBPyConnection,
    out: Path,
    *,
    view: str = "requests",
    since: datetime | None = None,
    until: datetime | None = None,
) -> dict[date, int]:
    """How many rows of each day were written, to `out`/day=2026-11-01/`view`.parquet, in the order of time.

    The rows are those of the view `view` from `since` on and before `until` (naive, in UTC), with all of its columns;
    the day is in the path, where every tool for Parquet looks for it. `out` appears in one step, when all of it is on
    disk; `con` is given a limit of memory. Raises BadInput where `out` is there already, NotWritten where it cannot be
    written, and LakeDamaged.
    """
    if view not in EXPORTED:
        raise BadInput(f"{view} cannot be exported; expected {' or '.join(EXPORTED)}")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BadInput(f"{out}: is there already; name a new folder or remove it")
    draft = _draft(out)
    try:
        counts = _write(con, draft, view, since, until)
        _flush_tree(draft)
        draft.rename(out)
        flush(out.parent)
    except (OSError, duckdb.IOException, duckdb.OutOfMemoryException) as error:
        told = said(error) if isinstance(error, duckdb.Error) else error.strerror
        raise NotWritten(
            f"{out}: cannot be written: {told}. Nothing of it was kept; choose a place with room"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return counts


def _draft(out: Path) -> Path:
    """A new folder beside `out`; those that killed exports to the same place left are removed."""
    name = f".{out.name}."
    try:
        for left in out.absolute().parent.glob(f"{_literal_glob(name)}*.draft"):
            if left.is_dir() and not left.is_symlink() and not _is_running(left.name[len(name) : -len(".draft")]):
                shutil.rmtree(left, ignore_errors=True)
        draft = out.absolute().with_name(f"{name}{os.getpid()}.draft")
        draft.mkdir(mode=0o700)
        return draft
    except OSError as error:
        raise NotWritten(f"{out}: cannot be written: {error.strerror}; choose another place") from error


def _literal_glob(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def _is_running(process: str) -> bool:
    if process.isdecimal() and int(process) > 0:
        with suppress(ProcessLookupError, OverflowError):
            os.kill(int(process), 0)
            return True
    return False


def _write(
    con: duckdb.DuckDBPyConnection, draft: Path, view: str, since: datetime | None, until: datetime | None
) -> dict[date, int]:
    wanted = ["true"]
    if since:
        wanted.append(f"day >= DATE '{since.date()}' AND ts >= {_moment(since)}")
    if until:
        wanted.append(f"day <= DATE '{until.date()}' AND ts < {_moment(until)}")
    condition = " AND ".join(wanted)
    counts: dict[date, int] = {}
    spilled = draft / ".spill"
    con.execute(f"SET memory_limit = '600MB'; SET temp_directory = {literal(spilled)}")
    with lake_errors():
        counted = f"SELECT day, count(*) FROM {view} WHERE {condition} GROUP BY ALL ORDER BY day"  # noqa: S608 - checked above
        for day, rows in con.execute(counted).fetchall():
            folder = draft / f"day={day}"
            folder.mkdir()
            of_day = f"SELECT * EXCLUDE (day) FROM {view} WHERE day = DATE '{day}' AND {condition} ORDER BY ts, source_id, line"  # noqa: S608, E501 - checked above
            con.execute(f"COPY ({of_day}) TO {literal(folder / f'{view}.parquet')} (FORMAT parquet, COMPRESSION zstd)")
            counts[day] = rows
    shutil.rmtree(spilled, ignore_errors=True)
    return counts


def _moment(moment: datetime) -> str:
    return f"TIMESTAMPTZ '{moment.isoformat()}Z'"


def _flush_tree(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        flush(path)
