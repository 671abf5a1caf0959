"""A source -> redacted rows, rejects and progress. Pure: it depends on the bytes, the format and the secret alone.

Clean records go through the vectorised lane; those it refuses go through the careful lane, and both meet before
redaction. Knows neither the lake nor its ledger.
"""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest import careful, fast
from ingest.canonical import MACROS, canonical_sql, plain_sql
from ingest.detect import Detection
from ingest.formats import Format
from ingest.frame import Part, parts
from ingest.prepared import Prepared
from ingest.redact import Door, Redacted, install, mask_codes
from ingest.schema import REJECTS
from ingest.settings import ClientIp
from ingest.source import TAIL_BYTES, Chunk, Reader


@dataclass(frozen=True)
class Batch:
    """Rows of one part of a source: redacted requests in any number of tables, and rejects with the schema `REJECTS`.

    `extra` counts records beyond one a line that only the careful lane could tell apart.
    """

    requests: tuple[Redacted, ...]
    rejects: pa.Table
    extra: int = 0


@dataclass
class Progress:
    """How far a source was read, counted as it goes: lines = requests + duplicates + rejects + skipped.

    `to_byte` is where the next run goes on. `is_cut` says that the compressed stream ended too early, `refused` why the
    rest of it was not unpacked, and `waits` that an unended last line was left for the next run.
    """

    to_byte: int
    next_line: int
    tail: bytes = b""
    lines: int = 0
    requests: int = 0
    errors: int = 0
    skipped: int = 0
    duplicates: int = 0
    rejects: dict[str, int] = field(default_factory=dict)
    first_us: int | None = None
    last_us: int | None = None
    is_cut: bool = False
    refused: str = ""
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

    def __init__(self, key: bytes, layout: Format, client_ip: ClientIp) -> None:
        self._con = duckdb.connect(config={"threads": 1, "memory_limit": "400MB", "autoload_known_extensions": False})
        self._con.execute("SET TimeZone = 'UTC'; SET enable_external_access = false")
        # Pushed down, a filter on fields of a record would parse the record once more for each of them.
        self._con.execute("SET disabled_optimizers = 'filter_pushdown'")
        self._con.execute(MACROS)
        install(self._con, key)
        self._door = Door(self._con.cursor(), client_ip)
        self._layout = layout
        self._groups = 0  # the first lines tell
        self._refuses_most = False
        self._careful: dict[str, Prepared] = {}
        self._clean = self._pair(is_clean=True)
        self._tolerant = self._pair(is_clean=False)
        self._fast = self._clean

    def _pair(self, *, is_clean: bool) -> tuple[Prepared, Prepared]:
        """The query for plain successes, and the one for whatever else there is."""
        name = "clean" if is_clean else "tolerant"

        def successes(lines: str) -> str:
            found = fast.successes_sql(self._layout, lines, is_clean=is_clean, groups=self._groups)
            return plain_sql(self._layout, found)

        def records(lines: str) -> str:
            found = fast.records_sql(self._layout, lines, is_clean=is_clean, groups=self._groups)
            return canonical_sql(self._layout, found)

        return (
            Prepared(self._con, f"{name}_successes", _LINES, successes),
            Prepared(self._con, name, _LINES, records),
        )

    def close(self) -> None:
        """Closes the connection, which its prepared statements would keep alive in a circle."""
        self._con.close()

    def parse(self, part: Part, source_id: str) -> Batch:
        """The requests of `part`, redacted, and its rejects."""
        chunk = part.records
        lines = _lines(chunk)
        self._groups = self._groups or fast.groups_at_once(self._con, self._layout, lines)
        tables: list[tuple[Format, pa.Table]] = []
        if self._refuses_most and self._refuses(lines.slice(0, _PROBED)):
            refused = lines["line"].to_pylist()
        else:
            successes, rows = self._swiftly(chunk, lines)
            is_refused = _is_refused(rows)
            refused = rows.filter(is_refused)["line"].to_pylist()
            tables = [(self._layout, successes), (self._layout, rows.filter(pc.invert(is_refused)))]
        self._refuses_most = len(refused) > len(lines) / 2
        found, refusals, extra = self._careful_rows(part, refused)
        tables += found
        requests = tuple(
            self._door.redact(_placed(table, part), {"gateway": layout.name, "source_id": source_id})
            for layout, table in tables
            if len(table)
        )
        return Batch(requests, _rejects(part, refusals, source_id), extra)

    def _refuses(self, lines: pa.Table) -> bool:
        """Whether the vectorised lane refuses most of `lines`, and is better not asked for the others."""
        return 2 * (pc.sum(_is_refused(self._tolerant[1].run(lines))).as_py() or 0) > len(lines)

    def _swiftly(self, chunk: Chunk, lines: pa.Table) -> tuple[pa.Table, pa.Table]:
        """As `_fast_rows`, whatever the lines."""
        try:
            return self._fast_rows(chunk, lines)
        except duckdb.InvalidInputException:
            # A source with one broken line has more of them: stay with the queries that bear them.
            self._fast = self._tolerant
            return self._fast_rows(chunk, lines)

    def _fast_rows(self, chunk: Chunk, lines: pa.Table) -> tuple[pa.Table, pa.Table]:
        """The plain successes, and the canonical rows of all other lines: few, in most logs."""
        find_successes, read_others = self._fast
        successes = find_successes.run(lines)
        is_other = np.ones(len(chunk), np.bool_)
        is_other[successes["line"].to_numpy() - chunk.first_line] = False
        return successes, read_others.run(lines.take(pa.array(np.flatnonzero(is_other))))

    def _careful_rows(
        self, part: Part, lines: list[int]
    ) -> tuple[list[tuple[Format, pa.Table]], list[careful.Refusal], int]:
        """Canonical rows of `lines` by format, the ones that are no request after all, and how many more records than
        lines there were.
        """
        refusals: list[careful.Refusal] = []
        by_format: dict[str, tuple[Format, list[pa.Table]]] = {}
        extra = 0
        for at in range(0, len(lines), _BLOCK):
            found = [self._read(part, line) for line in lines[at : at + _BLOCK]]
            extra += sum(max(0, len(items) - 1) for items in found)
            refusals += [item for items in found for item in items if isinstance(item, careful.Refusal)]
            records: dict[str, list[careful.Record]] = {}
            for items in found:
                for item in items:
                    if isinstance(item, careful.Record):
                        records.setdefault(item.layout.name, []).append(item)
            for name, of_format in records.items():
                tables = by_format.setdefault(name, (of_format[0].layout, []))[1]
                tables.append(careful.records_table(of_format))
        canonical = []
        for layout, tables in by_format.values():
            rows = self._canonical(layout, pa.concat_tables(tables))
            unusable = rows.filter(rows["reject_reason"].is_valid()).select(["line", "reject_reason", "code"])
            refusals += [careful.Refusal(*row.values()) for row in unusable.to_pylist()]
            canonical.append((layout, rows.filter(rows["reject_reason"].is_null())))
        return canonical, refusals, extra

    def _read(self, part: Part, line: int) -> list[careful.Record | careful.Refusal]:
        index = line - part.records.first_line
        received_us = part.places.received_us[index] if part.places else None
        return careful.read(part.records.line(index), line, self._layout, received_us)

    def _canonical(self, layout: Format, records: pa.Table) -> pa.Table:
        """The canonical rows of records of one format, which the careful lane read."""
        if layout.name not in self._careful:
            read = careful.as_read(layout)
            self._careful[layout.name] = Prepared(
                self._con,
                f"careful_{len(self._careful)}",
                careful.RECORDS,
                lambda rows: canonical_sql(read, careful.RECORDS_SQL.format(rows)),
            )
        return self._careful[layout.name].run(records)


def _is_refused(rows: pa.Table) -> pa.ChunkedArray:
    return pc.or_(rows["is_refused"], rows["reject_reason"].is_valid())


_PROBED: Final = 500
# Of more records at a time the memory would not stay in the processor's cache.
_BLOCK: Final = 1000


class Lanes:
    """Lanes that were made, kept for the next chunk of the same layout. `threads` of them may work at the same time.

    `client_ip` is what becomes of the addresses of clients.
    """

    def __init__(self, key: bytes, threads: int, client_ip: ClientIp = "keep") -> None:
        self.threads = threads
        self._key = key
        self._client_ip = client_ip
        self._idle: list[tuple[Format, Lane]] = []
        self._lock = threading.Lock()

    def parse(self, part: Part, layout: Format, source_id: str) -> Batch:
        """As `Lane.parse`, in a lane that nobody else is using."""
        with self._lock:
            place = next((index for index, (made_for, _) in enumerate(self._idle) if made_for == layout), None)
            lane = None if place is None else self._idle.pop(place)[1]
        lane = lane or Lane(self._key, layout, self._client_ip)
        batch = lane.parse(part, source_id)
        with self._lock:
            self._idle.append((layout, lane))
        return batch

    def close(self) -> None:
        """Closes every lane; none may be at work."""
        while self._idle:
            self._idle.pop()[1].close()


def parse(reader: Reader, lanes: Lanes, detection: Detection, source_id: str, progress: Progress) -> Iterator[Batch]:
    """The rest of `reader`, from where it stands, in batches of a part each; `progress` is kept up to date."""
    running: deque[tuple[Future[Batch], Part]] = deque()
    with ThreadPoolExecutor(lanes.threads) as pool:
        for part in parts(reader, detection.frame, progress.next_line):
            if _must_wait(part, reader, detection.layout):
                progress.waits = True
                break
            batch = pool.submit(lanes.parse, part, detection.layout, source_id)
            # The records are held by the thread that parses them, for as long as it does.
            running.append((batch, replace(part, records=_NO_RECORDS, places=None)))
            del part
            if len(running) > lanes.threads:
                yield _finished(running, progress)
        while running:
            yield _finished(running, progress)
    progress.is_cut, progress.refused = reader.is_cut, reader.refused


_NO_RECORDS: Final = Chunk(np.empty(0, np.uint8), np.zeros(1, np.int64), 0, 0)


def _finished(running: deque[tuple[Future[Batch], Part]], progress: Progress) -> Batch:
    """The batch that was begun first, counted into `progress`."""
    future, part = running.popleft()
    batch = future.result()
    progress.to_byte = part.byte_end
    progress.tail = (progress.tail + part.tail)[-TAIL_BYTES:]
    progress.lines += part.lines + batch.extra
    progress.next_line = part.next_line
    for reason in batch.rejects["reason"].to_pylist():
        progress.rejects[reason] = progress.rejects.get(reason, 0) + 1
    for redacted in batch.requests:
        progress.requests += len(redacted.rows)
        progress.errors += pc.sum(pc.equal(redacted.rows["kind"], "error")).as_py() or 0
        bounds = pc.min_max(redacted.rows["ts"].cast(pa.int64())).as_py()
        progress.first_us = min(bounds["min"], bounds["min"] if progress.first_us is None else progress.first_us)
        progress.last_us = max(bounds["max"], bounds["max"] if progress.last_us is None else progress.last_us)
    progress.skipped = progress.lines - progress.requests - progress.rejected
    return batch


def _must_wait(part: Part, reader: Reader, layout: Format) -> bool:
    """Whether the last record of `part` may still grow: JSON says where it ends, text does not."""
    if part.is_ended or not (reader.is_growing or reader.is_cut):
        return False
    chunk = part.records
    is_open = chunk.overlong is not None or layout.layout == "text" or not len(chunk)
    return is_open or any(
        isinstance(item, careful.Refusal) for item in careful.read(chunk.line(len(chunk) - 1), 0, layout)
    )


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


def _placed(table: pa.Table, part: Part) -> pa.Table:
    """`table` with the lines of the source in place of the numbers of records."""
    if part.places is None:
        return table
    lines = pa.array(part.places.lines[table["line"].to_numpy()])
    return table.set_column(table.schema.get_field_index("line"), "line", lines)


def _rejects(part: Part, refusals: list[careful.Refusal], source_id: str) -> pa.Table:
    chunk, places = part.records, part.places
    rows = []
    for refusal in refusals:
        index = refusal.line - chunk.first_line
        line, reason = refusal.line, refusal.reason
        offset, length = chunk.byte_offset + int(chunk.starts[index]), len(chunk.line(index))
        if places:
            line, offset, length = (int(place[index]) for place in (places.lines, places.offsets, places.lengths))
        if chunk.overlong:
            length, reason = chunk.overlong.byte_length, "overlong"
        if reason is not None:
            rows.append((source_id, line, offset, length, reason, refusal.code))
    table = pa.Table.from_pylist([dict(zip(REJECTS.names, row, strict=True)) for row in rows], schema=REJECTS)
    codes = mask_codes(table["code"].combine_chunks())
    return table.set_column(REJECTS.get_field_index("code"), REJECTS.field("code"), codes)
