"""The lake as its one writer sees it: data files first, then one Delta commit that makes them visible together.

Knows Delta Lake, Parquet and durability. Takes request rows only as `Redacted`; knows neither logs nor questions.
"""

import fcntl
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction

from ingest.parse import Batch
from ingest.redact import Redacted
from ingest.schema import SOURCES, BadInput, LakeDamaged, check_columns, check_path, table_path, table_schema

_PARTITIONS: Final = ["kind", "day"]
_ROWS_A_GROUP: Final = 1 << 17
_ROWS_A_FILE: Final = 1 << 22
# Values that differ in every row: a dictionary of them costs time and is thrown away.
_PLAIN: Final = ("ts", "request_id", "idempotency_hash", "latency_ms", "upstream_ms", "line", "byte_offset")
_SELECTIVE: Final = ("ts", "status", "code", "org_id", "key_id", "source_id")  # what readers skip row groups by
_DELTAS: Final = {"ts": "DELTA_BINARY_PACKED", "line": "DELTA_BINARY_PACKED"}


@dataclass(frozen=True)
class DataFile:
    """A Parquet file that was written and flushed, and that no commit has made visible yet."""

    path: str
    kind: str
    day: date
    rows: int
    size: int


def create(lake: Path) -> None:
    """Makes the lake at `lake` where there is none yet; raises BadInput where it cannot be written to."""
    table = table_path(lake)
    check_path(table.resolve())
    try:
        # A run that was killed while it made the table leaves a log without a commit.
        if not any((table / "_delta_log").glob("*.json")) and not any(table.glob("kind=*")):
            # It holds who called what; a folder that is there already says itself who may read it.
            lake.mkdir(mode=0o700, parents=True, exist_ok=True)
            table.mkdir(parents=True, exist_ok=True)
            DeltaTable.create(
                str(table.resolve()),
                schema=table_schema(),
                partition_by=_PARTITIONS,
                mode="ignore",
                configuration={"delta.logRetentionDuration": "interval 7 days"},
            )
            _flush_log(table)
        if not os.access(table, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise BadInput(f"{lake}: cannot be written to: {error.strerror}. Choose another folder with --lake.") from error


@contextmanager
def writing(lake: Path) -> Iterator[None]:
    """Holds the lake's writer lock, which the kernel frees when its holder dies; BadInput while another run has it."""
    with (lake / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadInput(f"{lake}: another errata is writing to this lake; wait until it has finished") from error
        yield


def open_table(lake: Path) -> DeltaTable:
    """A fresh handle on the lake's table; raises LakeDamaged where its log cannot be read."""
    table = table_path(lake)
    log = table / "_delta_log"
    try:
        commits = sorted(log.glob("*.json"))
        if commits and commits[-1].stat().st_size == 0:
            raise LakeDamaged(f"{commits[-1]}: this commit is empty; delete it and ingest the last sources again")
        found = DeltaTable(str(table.resolve()))
        check_columns(table, (field.name for field in found.schema().fields))
        return found
    except TableNotFoundError:
        raise LakeDamaged(f"{log}: expected the log of a Delta table, found none; restore it from a backup") from None
    except (DeltaError, OSError, ValueError) as error:
        told = " ".join(str(error).split())[:200]
        raise LakeDamaged(f"{log}: cannot be read ({told}); restore it from a backup") from error


def ledger(lake: Path) -> pa.Table:
    """Every ingest step of every source that the lake holds, with the schema `SOURCES`, in no order.

    Raises LakeDamaged.
    """
    files = open_table(lake).file_uris(partition_filters=[("kind", "=", "source")])
    # delta-rs gives local paths as URIs, with %20 for a space.
    return pa.concat_tables([SOURCES.empty_table(), *(_steps(unquote(file)) for file in files)])


def _steps(file: str) -> pa.Table:
    try:
        return pq.ParquetFile(file).read()
    except (pa.ArrowException, OSError) as error:
        told = " ".join(str(error).split())[:200]
        raise LakeDamaged(
            f"{file}: this part of the ledger cannot be read ({told}); restore it from a backup"
        ) from error


class Writer:
    """Data files for one commit, a file per kind and day; they stay invisible until `commit` names them."""

    def __init__(self, table: Path, ingested_on: date) -> None:
        self._table = table
        self._ingested_on = ingested_on
        self._waiting: dict[tuple[str, date], list[pa.Table]] = {}
        self._open: dict[tuple[str, date], tuple[pq.ParquetWriter, str, int]] = {}
        self._done: list[DataFile] = []

    def add(self, batch: Batch) -> None:
        """Takes the rows of one batch; writes a row group once enough rows of a kind and day have come together."""
        for requests in batch.requests:
            if not isinstance(requests, Redacted):
                raise TypeError("the lake takes request rows only as `Redacted`")
            for key, part in _by_kind_and_day(requests.rows):
                self._add(key, part)
        if len(batch.rejects):
            self._add(("reject", self._ingested_on), batch.rejects)

    def add_steps(self, steps: pa.Table) -> None:
        """Takes ledger rows with the schema `SOURCES`."""
        self._add(("source", self._ingested_on), steps)

    def _add(self, key: tuple[str, date], rows: pa.Table) -> None:
        waiting = self._waiting.setdefault(key, [])
        waiting.append(rows)
        if sum(map(len, waiting)) >= _ROWS_A_GROUP:
            self._write(key)

    def _write(self, key: tuple[str, date]) -> None:
        rows = pa.concat_tables(self._waiting.pop(key)).unify_dictionaries()
        if key not in self._open:
            kind, day = key
            path = f"kind={kind}/day={day.isoformat()}/{uuid.uuid4().hex}.parquet"
            (self._table / path).parent.mkdir(parents=True, exist_ok=True)
            plain = [name for name in _PLAIN if name in rows.column_names]
            writer = pq.ParquetWriter(
                self._table / path,
                rows.schema,
                compression="zstd",
                compression_level=1,
                use_dictionary=[name for name in _leaves(rows.schema) if name not in plain],
                column_encoding={name: encoding for name, encoding in _DELTAS.items() if name in plain},
                store_schema=False,
                write_statistics=[name for name in _SELECTIVE if name in rows.column_names],
            )
            self._open[key] = (writer, path, 0)
        writer, path, written = self._open[key]
        writer.write_table(rows, row_group_size=2 * _ROWS_A_GROUP)
        self._open[key] = (writer, path, written + len(rows))
        if written + len(rows) >= _ROWS_A_FILE:
            self._close(key)

    def _close(self, key: tuple[str, date]) -> None:
        writer, path, rows = self._open.pop(key)
        writer.close()
        _flush(self._table / path)
        self._done.append(DataFile(path, *key, rows, (self._table / path).stat().st_size))

    def close(self) -> list[DataFile]:
        """Writes and flushes what is left; gives every data file that was made."""
        for key in list(self._waiting):
            self._write(key)
        for key in list(self._open):
            self._close(key)
        for folder in {(self._table / file.path).parent for file in self._done}:
            _flush(folder)
            _flush(folder.parent)
        return self._done

    def discard(self) -> None:
        """Removes every file that was made; for a run that failed before its commit."""
        for writer, path, _ in self._open.values():
            with suppress(OSError, pa.ArrowException):
                writer.close()
            (self._table / path).unlink(missing_ok=True)
        for file in self._done:
            (self._table / file.path).unlink(missing_ok=True)


def commit(lake: Path, files: Iterable[DataFile], progress: dict[str, int]) -> None:
    """Makes `files` visible in one step, and with them the progress of their sources: fingerprint -> byte offset.

    Raises DeltaError where another writer has moved one of the same sources meanwhile; its files then stay invisible.
    """
    table = open_table(lake)
    table.create_write_transaction(
        [_add_action(lake, file) for file in files],
        "append",
        table_schema(),
        partition_by=_PARTITIONS,
        commit_properties=CommitProperties(
            max_commit_retries=10,
            app_transactions=[Transaction(name, offset, None) for name, offset in progress.items()],
        ),
    )
    _flush_log(table_path(lake))


def _add_action(lake: Path, file: DataFile) -> AddAction:
    modified = int((table_path(lake) / file.path).stat().st_mtime * 1000)
    partition = {"kind": file.kind, "day": file.day.isoformat()}
    return AddAction(file.path, file.size, partition, modified, True, json.dumps({"numRecords": file.rows}))


def _by_kind_and_day(rows: pa.Table) -> Iterator[tuple[tuple[str, date], pa.Table]]:
    for day, of_day in _by(rows, "day"):
        for kind, part in _by(of_day, "kind"):
            yield (kind, day), part.drop_columns(_PARTITIONS)


def _by(rows: pa.Table, name: str) -> Iterator[tuple[Any, pa.Table]]:
    """`rows` by the values of a column; without a copy where there is but one."""
    values = pc.unique(rows[name])
    for value in values:
        yield value.as_py(), rows if len(values) == 1 else rows.filter(pc.equal(rows[name], value))


def _leaves(schema: pa.Schema) -> list[str]:
    nested = {"details": ["details.list.element.field", "details.list.element.issue"]}
    return [leaf for name in schema.names for leaf in nested.get(name, [name])]


def _flush_log(table: Path) -> None:
    log = table / "_delta_log"
    for commit_file in sorted(log.glob("*.json"))[-1:]:
        _flush(commit_file)
    _flush(log)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
