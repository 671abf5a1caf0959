"""A source -> redacted rows, rejects and progress. Pure: it depends on the bytes, the format and the secret alone.

Clean records go through the vectorised lane; those it refuses go through the careful lane, and both meet before
redaction. Knows neither the lake nor its ledger.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest import careful, fast
from ingest.canonical import MACROS, canonical_sql, plain_sql
from ingest.formats import Format
from ingest.prepared import Prepared
from ingest.redact import Door, Redacted, install
from ingest.schema import REJECTS
from ingest.source import TAIL_BYTES, Chunk, Reader


@dataclass(frozen=True)
class Batch:
    """Rows of one chunk: redacted requests in any number of parts, and rejects with the schema `REJECTS`."""

    requests: tuple[Redacted, ...]
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


_LINES: Final = pa.schema([pa.field("line", pa.int64()), pa.field("text", pa.string())])


class Lane:
    """What parses one chunk at a time: a DuckDB connection of one thread, its queries planned once, and its own door.

    The connection is in memory, in UTC, and reaches neither files nor extensions.
    """

    def __init__(self, key: bytes, layout: Format) -> None:
        self._con = duckdb.connect(config={"threads": 1, "memory_limit": "400MB", "autoload_known_extensions": False})
        self._con.execute("SET TimeZone = 'UTC'; SET enable_external_access = false")
        # Pushed down, a filter on fields of a record would parse the record once more for each of them.
        self._con.execute("SET disabled_optimizers = 'filter_pushdown'")
        self._con.execute(MACROS)
        install(self._con, key)
        self._door = Door(self._con.cursor())
        self._layout = layout
        self._careful = self._prepared("careful", careful.RECORDS, careful.RECORDS_SQL.format)
        self._clean = self._pair(is_clean=True)
        self._tolerant = self._pair(is_clean=False)
        self._fast = self._clean

    def _pair(self, *, is_clean: bool) -> tuple[Prepared, Prepared]:
        """The query for plain successes, and the one for whatever else there is."""
        name = "clean" if is_clean else "tolerant"
        successes = partial(fast.successes_sql, self._layout, is_clean=is_clean)
        records = partial(fast.records_sql, self._layout, is_clean=is_clean)
        return (
            Prepared(self._con, f"{name}_successes", _LINES, lambda lines: plain_sql(self._layout, successes(lines))),
            self._prepared(name, _LINES, records),
        )

    def _prepared(self, name: str, schema: pa.Schema, records: Callable[[str], str]) -> Prepared:
        return Prepared(self._con, name, schema, lambda rows: canonical_sql(self._layout, records(rows)))

    def close(self) -> None:
        """Closes the connection, which its prepared statements would keep alive in a circle."""
        self._con.close()

    def parse(self, chunk: Chunk, source_id: str) -> Batch:
        """The requests of `chunk`, redacted, and its rejects."""
        lines = _lines(chunk)
        try:
            successes, rows = self._fast_rows(chunk, lines)
        except duckdb.InvalidInputException:
            # A source with one broken line has more of them: stay with the queries that bear them.
            self._fast = self._tolerant
            successes, rows = self._fast_rows(chunk, lines)
        rows, refusals = self._careful_rows(chunk, rows)
        constants = {"gateway": self._layout.name, "source_id": source_id}
        requests = tuple(self._door.redact(part, constants) for part in (successes, rows) if len(part))
        return Batch(requests, _rejects(chunk, refusals, source_id))

    def _fast_rows(self, chunk: Chunk, lines: pa.Table) -> tuple[pa.Table, pa.Table]:
        """The plain successes, and the canonical rows of all other lines: few, in most logs."""
        find_successes, read_others = self._fast
        successes = find_successes.run(lines)
        is_other = np.ones(len(chunk), np.bool_)
        is_other[successes["line"].to_numpy() - chunk.first_line] = False
        return successes, read_others.run(lines.take(pa.array(np.flatnonzero(is_other))))

    def _careful_rows(self, chunk: Chunk, rows: pa.Table) -> tuple[pa.Table, list[careful.Refusal]]:
        """`rows` with the refused ones read again one by one, and the lines that are no request after all."""
        refusals: list[careful.Refusal] = []
        if pc.any(rows["is_refused"]).as_py():
            found = [
                careful.read_line(chunk.line(line - chunk.first_line), line, self._layout)
                for line in rows.filter(rows["is_refused"])["line"].to_pylist()
            ]
            refusals = [item for item in found if isinstance(item, careful.Refusal)]
            records = careful.records_table(item for item in found if isinstance(item, careful.Record))
            rows = pa.concat_tables([rows.filter(pc.invert(rows["is_refused"])), self._careful.run(records)])
        if rows["reject_reason"].null_count < len(rows):
            unusable = rows.filter(rows["reject_reason"].is_valid()).select(["line", "reject_reason"]).to_pylist()
            refusals += [careful.Refusal(row["line"], row["reject_reason"]) for row in unusable]
            rows = rows.filter(rows["reject_reason"].is_null())
        return rows, refusals


class Lanes:
    """Lanes that were made, kept for the next chunk of the same layout. `threads` of them may work at the same time."""

    def __init__(self, key: bytes, threads: int) -> None:
        self.threads = threads
        self._key = key
        self._idle: list[tuple[Format, Lane]] = []
        self._lock = threading.Lock()

    def parse(self, chunk: Chunk, layout: Format, source_id: str) -> Batch:
        """As `Lane.parse`, in a lane that nobody else is using."""
        with self._lock:
            place = next((index for index, (made_for, _) in enumerate(self._idle) if made_for == layout), None)
            lane = None if place is None else self._idle.pop(place)[1]
        lane = lane or Lane(self._key, layout)
        batch = lane.parse(chunk, source_id)
        with self._lock:
            self._idle.append((layout, lane))
        return batch

    def close(self) -> None:
        """Closes every lane; none may be at work."""
        while self._idle:
            self._idle.pop()[1].close()


def parse(reader: Reader, lanes: Lanes, layout: Format, source_id: str, progress: Progress) -> Iterator[Batch]:
    """The rest of `reader`, from where it stands, in batches of a chunk each; `progress` is kept up to date.

    The time unit of `layout` is settled.
    """
    running: deque[tuple[Future[Batch], int, int, bytes]] = deque()
    with ThreadPoolExecutor(lanes.threads) as pool:
        for chunk in reader.chunks(progress.next_line):
            if _must_wait(chunk, reader, layout):
                progress.waits = True
                break
            batch = pool.submit(lanes.parse, chunk, layout, source_id)
            running.append((batch, len(chunk), chunk.byte_end, chunk.tail))
            del chunk
            if len(running) > lanes.threads:
                yield _finished(running, progress)
        while running:
            yield _finished(running, progress)
    progress.is_cut = reader.is_cut


def _finished(running: deque[tuple[Future[Batch], int, int, bytes]], progress: Progress) -> Batch:
    """The batch that was begun first, counted into `progress`."""
    future, lines, progress.to_byte, tail = running.popleft()
    batch = future.result()
    progress.tail = (progress.tail + tail)[-TAIL_BYTES:]
    progress.lines += lines
    progress.next_line += lines
    for reason in batch.rejects["reason"].to_pylist():
        progress.rejects[reason] = progress.rejects.get(reason, 0) + 1
    for part in batch.requests:
        progress.requests += len(part.rows)
        progress.errors += pc.sum(pc.equal(part.rows["kind"], "error")).as_py() or 0
        bounds = pc.min_max(part.rows["ts"].cast(pa.int64())).as_py()
        progress.first_us = min(bounds["min"], bounds["min"] if progress.first_us is None else progress.first_us)
        progress.last_us = max(bounds["max"], bounds["max"] if progress.last_us is None else progress.last_us)
    progress.skipped = progress.lines - progress.requests - progress.rejected
    return batch


def _must_wait(chunk: Chunk, reader: Reader, layout: Format) -> bool:
    """Whether `chunk` is an unended last line that may still grow: JSON says where it ends, text does not."""
    if chunk.is_ended or not (reader.is_growing or reader.is_cut):
        return False
    is_open = chunk.overlong is not None or layout.layout == "text"
    return is_open or isinstance(careful.read_line(chunk.line(0), 0, layout), careful.Refusal)


def _lines(chunk: Chunk) -> pa.Table:
    text: pa.Array = chunk.text()
    if len(chunk.data) and chunk.data.max() > 0x7F:
        try:
            text.validate(full=True)
        except pa.ArrowInvalid:
            text = _null_where(text, _undecodable(chunk))
    numbers = pa.array(np.arange(chunk.first_line, chunk.first_line + len(chunk)))
    return pa.table({"line": numbers, "text": text})


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
    rows = []
    for refusal in refusals:
        index = refusal.line - chunk.first_line
        offset = chunk.byte_offset + int(chunk.starts[index])
        length, reason = len(chunk.line(index)), refusal.reason
        if chunk.overlong:
            length, reason = chunk.overlong.byte_length, "overlong"
        if reason is not None:
            rows.append((source_id, refusal.line, offset, length, reason))
    return pa.Table.from_pylist([dict(zip(REJECTS.names, row, strict=True)) for row in rows], schema=REJECTS)
