"""A source -> redacted rows, rejects and progress. Pure: what it gives depends on the bytes, the format and the secret alone.

Clean records go through the vectorised lane; those it refuses go through the careful lane, and both meet before
redaction. Knows neither the lake nor its ledger.
"""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest import careful, fast
from ingest.canonical import MACROS, canonical_sql
from ingest.formats import Format
from ingest.redact import Door, Redacted, install
from ingest.schema import REJECTS
from ingest.source import TAIL_BYTES, Chunk, Reader

_ROWS_A_BATCH: Final = 1 << 14  # DuckDB gives each thread a batch at a time
_AHEAD: Final = 1
T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Rows of one chunk: redacted requests, and rejects with the schema `REJECTS`."""

    requests: Redacted
    rejects: pa.Table


@dataclass
class Progress:
    """How far a source was read, counted as it goes: lines = requests + rejects + skipped.

    `to_byte` is where the next run goes on. `waits` says that an unended last line was left for it.
    """

    to_byte: int
    next_line: int
    tail: bytes = b""
    lines: int = 0
    requests: int = 0
    errors: int = 0
    skipped: int = 0
    rejects: dict[str, int] = field(default_factory=dict)
    first_us: int | None = None
    last_us: int | None = None
    is_cut: bool = False
    waits: bool = False

    @property
    def rejected(self) -> int:
        """How many lines were rejected, for whatever reason."""
        return sum(self.rejects.values())


def connection(key: bytes, threads: int) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that parses and redacts: UTC, bounded memory, no access to files or extensions."""
    con = duckdb.connect(config={"threads": threads, "memory_limit": "600MB", "autoload_known_extensions": False})
    con.execute("SET TimeZone = 'UTC'; SET enable_external_access = false")
    con.execute(MACROS)
    install(con, key)
    return con


def parse(
    con: duckdb.DuckDBPyConnection, reader: Reader, layout: Format, source_id: str, progress: Progress
) -> Iterator[Batch]:
    """The rest of `reader`, from where it stands, as batches of about 15 MiB of log; `progress` is kept up to date.

    `con` comes from `connection`; the time unit of `layout` is settled.
    """
    door = Door(con.cursor())
    for rows, rejects in _ahead(_parsed(con, reader, layout, source_id, progress)):
        for name, value in (("gateway", layout.name), ("source_id", source_id)):
            rows = rows.append_column(name, _constant(value, len(rows)))
        yield Batch(door.redact(rows), rejects)
    progress.is_cut = reader.is_cut


def _parsed(
    con: duckdb.DuckDBPyConnection, reader: Reader, layout: Format, source_id: str, progress: Progress
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """The canonical rows and the rejects of each chunk."""
    clean_query, tolerant_query = (canonical_sql(layout, fast.records_sql(layout, is_clean=clean)) for clean in (True, False))
    careful_query = canonical_sql(layout, "SELECT *, false AS is_refused FROM records")
    lane = clean_query
    for chunk in _ahead(reader.chunks(progress.next_line)):
        if _must_wait(chunk, reader, layout):
            progress.waits = True
            return
        con.register("lines", _lines(chunk))
        try:
            rows = con.sql(lane).to_arrow_table()
        except duckdb.InvalidInputException:
            # A source with one broken line has more of them: stay with the query that bears them.
            lane = tolerant_query
            rows = con.sql(lane).to_arrow_table()
        con.unregister("lines")
        rows, refusals = _careful_rows(con, chunk, layout, careful_query, rows)
        rejects = _rejects(chunk, refusals, source_id)
        _count(progress, chunk, rows, rejects)
        del chunk
        yield rows, rejects


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """`items`, made by a thread that stays up to `_AHEAD` of them in front."""
    ready: queue.Queue[T | BaseException | None] = queue.Queue(_AHEAD)
    stopped = threading.Event()

    def put(item: T | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def run() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, which raises it
            put(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


def _must_wait(chunk: Chunk, reader: Reader, layout: Format) -> bool:
    """Whether `chunk` is an unended last line that may still grow: JSON says where it ends, text does not."""
    if len(chunk) != 1 or chunk.overlong or chunk.data[-1:].tobytes() == b"\n" or not (reader.is_growing or reader.is_cut):
        return False
    return layout.layout == "text" or isinstance(careful.read_line(chunk.line(0), 0, layout), careful.Refusal)


def _careful_rows(
    con: duckdb.DuckDBPyConnection, chunk: Chunk, layout: Format, query: str, rows: pa.Table
) -> tuple[pa.Table, list[careful.Refusal]]:
    """`rows` with the refused ones read again one by one, and the lines that are no request after all."""
    refusals: list[careful.Refusal] = []
    if pc.any(rows["is_refused"]).as_py():
        found = [
            careful.read_line(chunk.line(line - chunk.first_line), line, layout)
            for line in rows.filter(rows["is_refused"])["line"].to_pylist()
        ]
        refusals = [item for item in found if isinstance(item, careful.Refusal)]
        con.register("records", careful.records_table(item for item in found if isinstance(item, careful.Record)))
        rows = pa.concat_tables([rows.filter(pc.invert(rows["is_refused"])), con.sql(query).to_arrow_table()])
        con.unregister("records")
    if rows["reject_reason"].null_count < len(rows):
        unusable = rows.filter(rows["reject_reason"].is_valid()).select(["line", "reject_reason"]).to_pylist()
        refusals += [careful.Refusal(row["line"], row["reject_reason"]) for row in unusable]
        rows = rows.filter(rows["reject_reason"].is_null())
    return rows, refusals


def _constant(value: str, length: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(length, np.int32)), pa.array([value]))


def _lines(chunk: Chunk) -> pa.Table:
    text: pa.Array = chunk.text()
    if len(chunk.data) and chunk.data.max() > 0x7F:
        try:
            text.validate(full=True)
        except pa.ArrowInvalid:
            text = _null_where(text, _undecodable(chunk))
    numbers = pa.array(np.arange(chunk.first_line, chunk.first_line + len(chunk)))
    return pa.Table.from_batches(pa.table({"line": numbers, "text": text}).to_batches(max_chunksize=_ROWS_A_BATCH))


def _undecodable(chunk: Chunk) -> npt.NDArray[np.bool_]:
    """Which lines are not UTF-8; only those with a byte over 0x7F are looked at one by one."""
    high = np.flatnonzero(chunk.data > 0x7F)
    candidates = np.unique(np.searchsorted(chunk.starts, high, side="right") - 1)
    is_bad = np.zeros(len(chunk), np.bool_)
    for index in candidates[candidates < len(chunk)]:
        try:
            chunk.line(index).decode()
        except UnicodeDecodeError:
            is_bad[index] = True
    return is_bad


def _null_where(text: pa.Array, is_null: npt.NDArray[np.bool_]) -> pa.Array:
    valid = pa.array(~is_null).buffers()[1]
    return pa.Array.from_buffers(text.type, len(text), [valid, *text.buffers()[1:]])


def _rejects(chunk: Chunk, refusals: list[careful.Refusal], source_id: str) -> pa.Table:
    overlong = {index: (offset, length) for index, offset, length in chunk.overlong}
    rows = []
    for refusal in refusals:
        index = refusal.line - chunk.first_line
        if index in overlong:
            offset, length = overlong[index]
            reason: str | None = "overlong"
        else:
            offset = chunk.byte_offset + int(chunk.starts[index])
            length, reason = len(chunk.line(index)), refusal.reason
        if reason is not None:
            rows.append((source_id, refusal.line, offset, length, reason))
    return pa.Table.from_pylist([dict(zip(REJECTS.names, row, strict=True)) for row in rows], schema=REJECTS)


def _count(progress: Progress, chunk: Chunk, rows: pa.Table, rejects: pa.Table) -> None:
    progress.lines += len(chunk)
    progress.next_line += len(chunk)
    progress.requests += len(rows)
    progress.errors += pc.sum(pc.equal(rows["kind"], "error")).as_py() or 0
    progress.skipped += len(chunk) - len(rows) - len(rejects)
    for reason in rejects["reason"].to_pylist():
        progress.rejects[reason] = progress.rejects.get(reason, 0) + 1
    progress.to_byte = chunk.byte_offset + int(chunk.starts[-1]) + sum(length + 1 for _, _, length in chunk.overlong)
    end = int(chunk.starts[-1])
    progress.tail = (progress.tail + chunk.data[max(0, end - TAIL_BYTES) : end].tobytes())[-TAIL_BYTES:]
    if len(rows):
        bounds = pc.min_max(rows["ts"].cast(pa.int64())).as_py()
        progress.first_us = min(bounds["min"], progress.first_us or bounds["min"])
        progress.last_us = max(bounds["max"], progress.last_us or bounds["max"])


