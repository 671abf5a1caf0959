"""Ad-hoc SQL of people who are not the operator: a query in a process of its own that can read the views and no more.

Knows the limits, the child process and what an end of it means. What the child gives up is in `sandbox_rights`, which
SQL it takes in `sandbox_grammar`. `errata sql` does not go this way: it is the operator's own shell.
"""

import atexit
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Final, cast

import duckdb
import pyarrow as pa

from analysis.damage import lake_errors, said
from analysis.lake import VIEWS, SnapshotFiles, catalogue_of, snapshot_files, write_database
from analysis.question import macro_names
from analysis.sandbox_rights import NOGROUP
from ingest.schema import BadInput, LakeDamaged

MOST_AT_ONCE: Final = 4
"""Queries that run at the same time in one process; one more is refused."""

_MOST_CHARACTERS: Final = 50_000
_KEPT_DATABASES: Final = 4 * MOST_AT_ONCE
_HEADER_BYTES: Final = 1 << 16
_LOOK_UP_S: Final = 0.2
_ROOT: Final = Path(__file__).parents[1]
_CHILD: Final = (sys.executable, "-P", "-s", "-m", "analysis.sandbox_child")
# All that the child is told of this process: where its own code is. The last three keep the libraries that it loads
# from starting threads, which would keep the rights that their process gives up.
_ENVIRONMENT: Final = {
    "PYTHONPATH": str(_ROOT),
    "PYTHONDONTWRITEBYTECODE": "1",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "OPENBLAS_NUM_THREADS": "1",
}

_slots: Final = threading.BoundedSemaphore(MOST_AT_ONCE)
_building: Final = threading.Lock()


@dataclass(frozen=True)
class Limits:
    """The most that one query may take: time from start to end, memory, rows, and bytes of the rows."""

    time_s: float = 15.0
    memory_mb: int = 1024
    rows: int = 10_000
    result_mb: int = 32


@dataclass(frozen=True)
class Answer:
    """The rows of a query; `truncated_at` is their number where there were more, else None."""

    rows: pa.Table
    truncated_at: int | None
    elapsed_s: float


class LimitMet(BadInput):
    """A query was ended at one of its limits; the message names it."""


def run_query(
    lake: Path,
    sql: str,
    *,
    catalog: Path | None = None,
    orgs: frozenset[str] | None = None,
    limits: Limits = Limits(),
    while_waiting: Callable[[float], None] = lambda elapsed_s: None,
) -> Answer:
    """What the one query `sql` gives over the views that `analysis.connect` has for `catalog` and `orgs`.

    `while_waiting` is called several times a second with the seconds that have passed; what it raises ends the query.
    Raises LimitMet where the query met a limit, BadInput where it is no query, names anything but the views and macros,
    or is refused by DuckDB, and what `analysis.connect` raises for the lake itself.
    """
    if not sql.strip():
        raise BadInput("there is no SQL to run; write a query such as FROM errors LIMIT 10")
    if not sql.isascii() and any("\ud800" <= char <= "\udfff" for char in sql):
        raise BadInput("the SQL holds half of a character; type it again")
    if len(sql) > _MOST_CHARACTERS:
        raise BadInput(f"the SQL has {len(sql):,} characters; at most {_MOST_CHARACTERS:,} can be run")
    files = snapshot_files(lake)
    database = _view_database(files, catalogue_of(lake, catalog), orgs)
    threads = max(1, (os.cpu_count() or 1) // 2)
    request = {
        "sql": sql,
        "database": str(database),
        "files": sorted(path for paths in files.by_kind.values() for path in paths),
        "relations": VIEWS,
        "macros": sorted(macro_names()),
        "threads": threads,
        "cpu_s": math.ceil(limits.time_s * (threads + 1)),
        "memory_bytes": limits.memory_mb << 20,
        "rows": limits.rows,
        "result_bytes": limits.result_mb << 20,
    }
    if not _slots.acquire(blocking=False):
        raise LimitMet(f"{MOST_AT_ONCE} queries are running already, which is the limit; run it again in a moment")
    try:
        return _answer(request, limits, while_waiting)
    finally:
        _slots.release()


def _answer(request: dict[str, Any], limits: Limits, while_waiting: Callable[[float], None]) -> Answer:
    started = time.monotonic()
    output, status = _run_child(request, limits.time_s, while_waiting)
    elapsed_s = time.monotonic() - started
    if output is None or status == -signal.SIGXCPU:
        raise LimitMet(f"the query met the time limit of {limits.time_s:g} s; ask for fewer days, or join fewer rows")
    if len(output) > request["result_bytes"] + _HEADER_BYTES:
        raise _too_large(limits)
    header, _, stream = output.partition(b"\n")
    try:
        answer = json.loads(header)
        if "error" in answer:
            raise _failure(answer, limits)
        is_truncated = bool(answer["is_truncated"])
        rows = pa.ipc.open_stream(stream).read_all()
        rows.validate(full=True)
    except (ValueError, KeyError, OSError, pa.ArrowException) as error:
        # A huge value that the address space has no room for can end the engine without a word.
        raise LimitMet(f"the query broke the engine off; most often it needs more than {_memory(limits)}") from error
    return Answer(rows, rows.num_rows if is_truncated else None, elapsed_s)


def _failure(answer: dict[str, str], limits: Limits) -> Exception:
    """The error that the child's header tells of, for a person."""
    match answer["error"]:
        case "not allowed":
            return BadInput(" ".join(answer["message"].split()))
        case "memory":
            return LimitMet(f"the query needs more than {_memory(limits)}; ask for fewer days or columns")
        case "result":
            return _too_large(limits)
    kind = getattr(duckdb, answer["error"], duckdb.Error)
    error: duckdb.Error = kind(answer["message"])
    try:
        with lake_errors():
            raise error
    except duckdb.Error:
        return BadInput(said(error))
    except LakeDamaged as damage:
        return damage


def _too_large(limits: Limits) -> LimitMet:
    return LimitMet(
        f"the result has more bytes than the limit of {limits.result_mb:,} MB; ask for fewer columns or rows"
    )


def _memory(limits: Limits) -> str:
    return f"the memory limit of {limits.memory_mb:,} MB"


def _run_child(
    request: dict[str, Any], most_s: float, while_waiting: Callable[[float], None]
) -> tuple[bytes | None, int]:
    """What a child process answers to `request`, None where that takes longer than `most_s`, and its exit status.

    It and whatever it started are gone afterwards.
    """
    with tempfile.TemporaryFile() as file:
        file.write(json.dumps(request).encode())
        file.seek(0)
        process = subprocess.Popen(  # noqa: S603 - our own program
            _CHILD,
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    with process:
        try:
            most_bytes = request["result_bytes"] + _HEADER_BYTES
            output = _read(cast("IO[bytes]", process.stdout), most_s, most_bytes, while_waiting)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # before it is waited for: its number is still its own
    return output, process.returncode


def _read(stream: IO[bytes], most_s: float, most_bytes: int, while_waiting: Callable[[float], None]) -> bytes | None:
    """All that `stream` gives until it ends or has given more than `most_bytes`; None after `most_s` seconds."""
    started = time.monotonic()
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    found = bytearray()
    while (elapsed_s := time.monotonic() - started) < most_s:
        if not poll.poll(1000 * min(_LOOK_UP_S, most_s - elapsed_s)):
            while_waiting(elapsed_s)
            continue
        chunk = os.read(stream.fileno(), 1 << 20)
        found += chunk
        if not chunk or len(found) > most_bytes:
            return bytes(found)
    return None


def _view_database(files: SnapshotFiles, catalogue: pa.Table, orgs: frozenset[str] | None) -> Path:
    """A database with the views over `files`, made when first asked for: that takes longer than most queries."""
    held = (sorted(files.by_kind.items()), files.version, catalogue.to_pydict(), orgs if orgs is None else sorted(orgs))
    with _building:
        if not _folder().is_dir():  # a machine may clear its folder for temporary files
            _folder.cache_clear()
        path = _folder() / f"{sha256(repr(held).encode()).hexdigest()}.duckdb"
        if not path.exists():
            draft = path.with_suffix(".draft")
            draft.unlink(missing_ok=True)
            write_database(draft, files, catalogue, orgs)
            _let_nobody_read(draft, 0o640)
            draft.replace(path)
        os.utime(path)
        latest = sorted(path.parent.glob("*.duckdb"), key=lambda kept: kept.stat().st_mtime_ns, reverse=True)
        for old in latest[_KEPT_DATABASES:]:
            old.unlink()
    return path


@cache
def _folder() -> Path:
    """Where this process keeps its view databases until it ends."""
    folder = tempfile.TemporaryDirectory(prefix="errata-console-")
    atexit.register(folder.cleanup)
    _let_nobody_read(Path(folder.name), 0o750)
    return Path(folder.name)


def _let_nobody_read(path: Path, mode: int) -> None:
    """Lets the child in where it is to be nobody, because this process is root."""
    if os.geteuid() == 0:
        os.chown(path, -1, NOGROUP)
        path.chmod(mode)
