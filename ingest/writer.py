"""Data files of the lake: Parquet, a file per kind and day, flushed to disk and visible to nobody yet.

Knows Parquet and durability. Takes request rows only as `Redacted`; knows neither logs nor commits.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.parse import Batch
from ingest.redact import Redacted

PARTITIONS: Final = ["kind", "day"]
_ROWS_A_GROUP: Final = 1 << 17
_ROWS_A_FILE: Final = 1 << 22
# Values that differ in every row: a dictionary of them costs time and is thrown away.
_PLAIN: Final = ("ts", "request_id", "idempotency_hash", "latency_ms", "upstream_ms", "line", "byte_offset")
_SELECTIVE: Final = ("ts", "status", "code", "org_id", "key_id", "source_id")  # what readers skip row groups by
_LOOKED_UP: Final = "request_id"  # one value of all: a filter says which row groups do not have it
_FALSE_POSITIVES: Final = 0.05  # at a byte a row; one in a hundred takes two
_DELTAS: Final = {"ts": "DELTA_BINARY_PACKED", "line": "DELTA_BINARY_PACKED"}


@dataclass(frozen=True)
class DataFile:
    """A Parquet file that was written and flushed, and that no commit has made visible yet."""

    path: str
    kind: str
    day: date
    rows: int
    size: int


class Writer:
    """Data files for one commit, a file per kind and day; they stay invisible until `commit` names them."""

    def __init__(self, table: Path, ingested_on: date) -> None:
        self._table = table
        self._ingested_on = ingested_on
        self._waiting: dict[tuple[str, date], list[pa.Table]] = {}
        self._open: dict[tuple[str, date], tuple[pq.ParquetWriter, str, int]] = {}
        self._paths: list[Path] = []
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

    def add_again(self, kind: str, day: date, rows: pa.Table) -> None:
        """Takes rows of the lake's own files once more, without the partition columns."""
        self._add((kind, day), rows)

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
            self._paths.append(self._table / path)
            plain = [name for name in _PLAIN if name in rows.column_names]
            writer = pq.ParquetWriter(
                self._table / path,
                rows.schema,
                compression="zstd",
                compression_level=1,
                use_dictionary=[name for name in _leaves(rows.schema) if name not in plain],
                column_encoding={name: encoding for name, encoding in _DELTAS.items() if name in plain},
                store_schema=False,
                write_page_checksum=True,
                write_statistics=[name for name in _SELECTIVE if name in rows.column_names],
                bloom_filter_options=_bloom_filters(rows),
            )
            self._open[key] = (writer, path, 0)
        writer, path, written = self._open[key]
        writer.write_table(rows, row_group_size=2 * _ROWS_A_GROUP)
        self._open[key] = (writer, path, written + len(rows))
        if written + len(rows) >= _ROWS_A_FILE:
            self._close(key)

    def _close(self, key: tuple[str, date]) -> None:
        writer, path, rows = self._open[key]
        writer.close()
        flush(self._table / path)
        self._done.append(DataFile(path, *key, rows, (self._table / path).stat().st_size))
        del self._open[key]

    def close(self) -> list[DataFile]:
        """Writes and flushes what is left; gives every data file that was made."""
        for key in list(self._waiting):
            self._write(key)
        for key in list(self._open):
            self._close(key)
        days = {(self._table / file.path).parent for file in self._done}
        for folder in {*days, *(day.parent for day in days), self._table}:
            flush(folder)
        return self._done

    def discard(self) -> None:
        """Removes every file that was made; for a run that failed before its commit."""
        for writer, _, _ in self._open.values():
            with suppress(OSError, pa.ArrowException):
                writer.close()
        for path in self._paths:
            with suppress(OSError):  # what cannot be removed now is an orphan, which `errata maintain` removes
                path.unlink(missing_ok=True)


def _bloom_filters(rows: pa.Table) -> dict[str, dict[str, int | float]] | None:
    """What Parquet is to write Bloom filters of, for row groups as large as the first, which is `rows`."""
    if _LOOKED_UP not in rows.column_names or rows[_LOOKED_UP].null_count == len(rows):
        return None
    return {_LOOKED_UP: {"ndv": len(rows), "fpp": _FALSE_POSITIVES}}


def _by_kind_and_day(rows: pa.Table) -> Iterator[tuple[tuple[str, date], pa.Table]]:
    for day, of_day in _by(rows, "day"):
        for kind, part in _by(of_day, "kind"):
            yield (kind, day), part.drop_columns(PARTITIONS)


def _by(rows: pa.Table, name: str) -> Iterator[tuple[Any, pa.Table]]:
    """`rows` by the values of a column; without a copy where there is but one."""
    values = pc.unique(rows[name])
    for value in values:
        yield value.as_py(), rows if len(values) == 1 else rows.filter(pc.equal(rows[name], value))


def _leaves(schema: pa.Schema) -> list[str]:
    nested = {"details": ["details.list.element.field", "details.list.element.issue"]}
    return [leaf for name in schema.names for leaf in nested.get(name, [name])]


def flush(path: Path) -> None:
    """Has a file, or the names in a folder, written to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
