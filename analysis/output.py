"""Rows as a table, CSV, JSON, Markdown or Parquet, on standard output or in a file.

Knows formats and terminals. Knows no question and no lake. Text that came out of a log stays text: it cannot move the
cursor of a terminal, become a formula of a spreadsheet, or markup of a page.
"""

import csv
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final

import click
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.damage import lake_errors, said
from ingest.schema import BadInput

OUTPUTS: Final = ("table", "csv", "json", "markdown", "parquet")
TABLE_LIMIT: Final = 500

_SUFFIXES: Final = {".csv": "csv", ".json": "json", ".md": "markdown", ".parquet": "parquet", ".txt": "table"}
# What can move a cursor, end a line or turn the reading direction: C0, C1, zero-width, bidirectional, separators.
_ACTIVE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
_NAMED: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
# Spreadsheets take the full-width forms for the plain ones.
_FORMULA: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_MARKDOWN: Final = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {mark: f"\\{mark}" for mark in ("\\", "|", "`", "*", "[", "]")}
)
_READABLE_WIDTH: Final = 20


def write_rows(
    rows: duckdb.DuckDBPyRelation, output: str | None = None, *, out: Path | None = None, limit: int | None = None
) -> None:
    """Writes `rows` to the file `out`, or to standard output.

    `output` is one of OUTPUTS; without it the suffix of `out` decides, else a table on a terminal and CSV elsewhere.
    `limit` is the most rows that are written, -1 for all; without it a table gets TABLE_LIMIT and the others all.
    Rows that were left out are told on standard error. Raises BadInput where `out` cannot be written.
    """
    chosen = output or _default_output(out)
    if limit is None:
        limit = TABLE_LIMIT if chosen == "table" else -1
    with lake_errors(), (rows.limit(limit + 1) if limit >= 0 else rows).to_arrow_reader(10_000) as reader:
        batches = _Batches(reader, limit)
        if out is not None:
            _write_file(batches, chosen, out)
        elif chosen == "parquet":
            if sys.stdout.isatty():
                raise BadInput("parquet is no text for a terminal; give --out FILE or redirect standard output")
            _write_parquet(batches, sys.stdout.buffer)
        else:
            _WRITERS[chosen](batches, sys.stdout)
            sys.stdout.flush()
    if batches.is_cut:
        click.echo(f"results truncated at --limit {limit}; pass --limit -1 for all rows", err=True)


def write_query(
    con: duckdb.DuckDBPyConnection,
    text: str,
    output: str | None = None,
    *,
    out: Path | None = None,
    limit: int | None = None,
) -> None:
    """Writes what the SQL `text` gives, as `write_rows` does. BadInput says what DuckDB says of it, on one line."""
    try:
        with lake_errors():
            rows = con.sql(text)
        if rows is None:
            raise BadInput("there is no SQL to run; write a statement such as FROM errors LIMIT 10")
        write_rows(rows, output, out=out, limit=limit)
    except duckdb.Error as error:
        raise BadInput(said(error)) from error


def inert(text: str) -> str:
    r"""`text` on one line, with every control and direction-changing character written out: \n, \x1b, \u202e."""
    return _ACTIVE.sub(lambda found: _NAMED.get(found[0]) or _escape(found[0]), text)


def cell_text(value: object) -> str:
    """One value as text: NULL is empty, a moment is ISO 8601 (with Z if it is UTC), a list or struct is JSON."""
    known = plain(value)
    if known is None:
        return ""
    return inert(known if isinstance(known, str) else json.dumps(known, ensure_ascii=False))


def plain(value: object) -> object:
    """`value` as what JSON knows: moments are ISO 8601, bytes are hex digits, NaN and infinities are None."""
    if isinstance(value, datetime):
        return (
            value.isoformat() if value.tzinfo is None else f"{value.astimezone(UTC).replace(tzinfo=None).isoformat()}Z"
        )
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, pa.MonthDayNano):
        return f"{value.months} months {value.days} days {value.nanoseconds / 1e9:g} s"
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def python_values(column: "pa.Array[Any] | pa.ChunkedArray[Any]") -> list[Any]:
    """The values of `column`; moments with a zone are aware and in UTC."""
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        # Arrow's own conversion of these imports pandas, which costs every command 0.2 s.
        column = column.cast(pa.timestamp(column.type.unit))
        return [None if moment is None else moment.replace(tzinfo=UTC) for moment in column.to_pylist()]
    return list(column.to_pylist())


class _Batches:
    """The batches of a result up to a limit, and whether there were more rows."""

    def __init__(self, reader: pa.RecordBatchReader, limit: int) -> None:
        self.schema = reader.schema
        self.is_cut = False
        self._reader = reader
        self._limit = limit

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        left = self._limit
        for batch in self._read():
            if self._limit >= 0 and left < batch.num_rows:
                self.is_cut = True
                yield batch.slice(0, left)
                return
            left -= batch.num_rows
            yield batch

    def _read(self) -> Iterator[pa.RecordBatch]:
        while True:
            try:
                batch = self._reader.read_next_batch()
            except StopIteration:
                return
            except OSError as error:  # how DuckDB's own errors come out of an Arrow stream
                raise duckdb.DatabaseError(str(error)) from error
            yield batch

    def rows(self) -> Iterator[tuple[object, ...]]:
        for batch in self:
            yield from zip(*map(python_values, batch.columns), strict=True)

    def names(self) -> list[str]:
        return [inert(name) for name in self.schema.names]


def _default_output(out: Path | None) -> str:
    if out is None:
        return "table" if sys.stdout.isatty() else "csv"
    if out.suffix not in _SUFFIXES:
        raise BadInput(f"{out}: cannot tell the format from the name; give --output or one of {', '.join(_SUFFIXES)}")
    return _SUFFIXES[out.suffix]


def _write_file(batches: _Batches, output: str, out: Path) -> None:
    draft = out.with_name(f".{out.name}.draft")
    try:
        # Others may write to the folder too: a link that lies there is not followed.
        draft.unlink(missing_ok=True)
        if output == "parquet":
            with draft.open("xb") as binary:
                _write_parquet(batches, binary)
        else:
            with draft.open("x", encoding="utf-8", newline="") as text:
                _WRITERS[output](batches, text)
        draft.replace(out)
    except OSError as error:
        raise BadInput(f"{out}: cannot be written ({error.strerror}); choose another --out") from error
    finally:
        if draft.parent.is_dir():
            draft.unlink(missing_ok=True)


def _write_parquet(batches: _Batches, stream: IO[bytes]) -> None:
    try:
        with pq.ParquetWriter(stream, batches.schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)
    except pa.ArrowNotImplementedError as error:
        raise BadInput(f"a column has a type that Parquet does not know ({error}); cast it to VARCHAR") from error


def _write_csv(batches: _Batches, stream: IO[str]) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(batches.names())
    for row in batches.rows():
        writer.writerow([_no_formula(value) if isinstance(value, str) else cell_text(value) for value in row])


def _write_json(batches: _Batches, stream: IO[str]) -> None:
    names = batches.schema.names
    separator = "[\n"
    for row in batches.rows():
        record = json.dumps(dict(zip(names, map(plain, row), strict=True)), ensure_ascii=False)
        stream.write(separator + _ACTIVE.sub(lambda found: f"\\u{ord(found[0]):04x}", record))
        separator = ",\n"
    stream.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_markdown(batches: _Batches, stream: IO[str]) -> None:
    stream.write(f"| {' | '.join(name.translate(_MARKDOWN) for name in batches.names())} |\n")
    stream.write(f"|{'|'.join(' ---: ' if _is_number(field.type) else ' --- ' for field in batches.schema)}|\n")
    for row in batches.rows():
        stream.write(f"| {' | '.join(_short(value).translate(_MARKDOWN) for value in row)} |\n")


def _write_table(batches: _Batches, stream: IO[str]) -> None:
    """A table as wide as it needs to be, or a block per row where a terminal is too narrow to read it."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream, highlight=False)
    rows = [[_short(value) for value in row] for row in batches.rows()]
    names = batches.names()
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    if console.is_terminal and sum(min(width, _READABLE_WIDTH) + 2 for width in widths) > console.width:
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for number, row in enumerate(rows, start=1):
            table.add_row(Text(f"row {number}"), Text(""))
            for name, cell in zip(names, row, strict=True):
                table.add_row(Text(f"  {name}"), Text(cell))
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for name, field in zip(names, batches.schema, strict=True):
            table.add_column(Text(name), justify="right" if _is_number(field.type) else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
    if not console.is_terminal:
        console.width = sum(2 * width + 3 for width in widths)  # room for double-width characters
    console.print(table)
    if not rows:
        click.echo("no rows", err=True)


_WRITERS: Final[dict[str, Callable[[_Batches, IO[str]], None]]] = {
    "table": _write_table,
    "csv": _write_csv,
    "json": _write_json,
    "markdown": _write_markdown,
}


def _short(value: object) -> str:
    """`value` for reading: a fraction with four digits after the point or, below 0.001, with three that count."""
    known = plain(value)
    if isinstance(known, float) and not known.is_integer():
        return f"{known:.4f}".rstrip("0") if abs(known) >= 0.001 else f"{known:.3g}"
    return cell_text(known)


def _no_formula(text: str) -> str:
    text = inert(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _escape(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"


def _is_number(data_type: pa.DataType) -> bool:
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return any(is_kind(data_type) for is_kind in kinds)
