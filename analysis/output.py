"""Rows as a table, CSV, JSON, Markdown or Parquet, on standard output or in a file.

Knows formats and terminals. Knows no question and no lake. Text that came out of a log stays text: it cannot move the
cursor of a terminal, become a formula of a spreadsheet, or markup of a page. JSON and Parquet hold it exactly; CSV,
tables and Markdown are for people and spreadsheets, and write out what cannot be seen.
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
# Blanks of other widths, which Python does not call printable: they belong to text.
_BLANKS: Final = frozenset(
    "\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
)
# The start of what a spreadsheet computes, at the start of a cell or after what some of them end a cell with. They take
# the full-width forms for the plain ones, and some drop blanks and quotes before.
_FORMULA: Final = re.compile("(^|;)(?=[\\s\"'`]*[-=+@\uff1d\uff0b\uff0d\uff20])")
# In these no renderer of Markdown finds anything to act on. An address is a link also without brackets.
_PLAIN_MARKDOWN: Final = re.compile(r"(?!.*www\.)(?:[^\W_]|[ ./{}-]|(?<=[^\W_])_(?=[^\W_]))*", re.IGNORECASE)
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
    r"""`text` on one line, every character that cannot be seen or turns the reading direction written out: \n, \x1b."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in _BLANKS else char.encode("unicode_escape").decode() for char in text
    )


def no_formula(text: str) -> str:
    """`text` with an apostrophe before what a spreadsheet would compute, which makes it text there too."""
    return _FORMULA.sub(r"\1'", text)


def markdown_code(text: str) -> str:
    """`text` as a code span, in which nothing is markup and no address is a link.

    A span cannot hold a backtick, nor a bar in every table: such text is written in character references.
    """
    text = inert(text)
    if "`" in text or "|" in text:
        return "".join(char if char.isalnum() or char == " " else f"&#{ord(char)};" for char in text)
    return f"`{text}`" if text.strip() else text


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
    writer.writerow(map(no_formula, batches.names()))
    for row in batches.rows():
        writer.writerow(map(_csv_cell, row))


def _write_json(batches: _Batches, stream: IO[str]) -> None:
    names = batches.schema.names
    separator = "[\n"
    for row in batches.rows():
        record = json.dumps(dict(zip(names, map(plain, row), strict=True)), ensure_ascii=False)
        stream.write(separator + _json_inert(record))
        separator = ",\n"
    stream.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_markdown(batches: _Batches, stream: IO[str]) -> None:
    stream.write(f"| {' | '.join(map(_markdown_cell, batches.names()))} |\n")
    stream.write(f"|{'|'.join(' ---: ' if _is_number(field.type) else ' --- ' for field in batches.schema)}|\n")
    for row in batches.rows():
        stream.write(f"| {' | '.join(map(_markdown_cell, row))} |\n")


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


def _csv_cell(value: object) -> str:
    """A number as it is, so that -5 stays one; everything else as text that is no formula."""
    text = cell_text(value)
    return text if isinstance(value, int | float | Decimal) else no_formula(text)


def _markdown_cell(value: object) -> str:
    text = _short(value)
    has_text = isinstance(value, str | list | dict | tuple)
    return markdown_code(text) if has_text and not _PLAIN_MARKDOWN.fullmatch(text) else text


def _json_inert(record: str) -> str:
    """`record`, in which what cannot be seen can only be part of a string, with that in JSON's own escapes."""
    if record.isprintable():
        return record
    return "".join(char if char.isprintable() or char in _BLANKS else json.dumps(char)[1:-1] for char in record)


def _is_number(data_type: pa.DataType) -> bool:
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return any(is_kind(data_type) for is_kind in kinds)
