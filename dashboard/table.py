"""An answer as a table on the page, and as a file to take away.

Knows columns by their type and by the ending of their name, never by question.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import streamlit as st

from analysis.moments import zone_named
from analysis.output import cell_text, write_rows

_FRACTIONS: Final = {"rate", "share", "change"}
_UNITS: Final = {"_ms": "ms", "_s": "s", "_bytes": "bytes"}
# Above this the rows are sent as one scrolls, and a row cannot be picked.
_MOST_PICKABLE: Final = 100_000


def show(
    rows: pa.Table,
    meanings: Mapping[str, str],
    zone: str,
    *,
    key: str,
    label: str,
    first: Sequence[str] = (),
    moments: str = "YYYY-MM-DD HH:mm:ss",
    is_pickable: bool = True,
) -> dict[str, Any] | None:
    """Draws `rows`, moments in `zone`, with the columns' meanings as help; the row that was picked, None for none.

    The columns `first` come before the others, which keep their order.
    """
    shown = _drawable(rows, zone, first)
    look: dict[str, Any] = {
        "column_config": {
            field.name: _column(field, meanings.get(field.name), zone, moments) for field in shown.schema
        },
        "column_order": list(dict.fromkeys([*first, *shown.schema.names])),
        "hide_index": True,
        "placeholder": "",
        "alt": label,
    }
    if not is_pickable or shown.num_rows > _MOST_PICKABLE:
        st.dataframe(shown, key=key, **look)
        return None
    state = st.dataframe(shown, key=key, on_select="rerun", selection_mode="single-row", **look)
    picked = [number for number in state.selection.rows if number < rows.num_rows]
    return rows.slice(picked[0], 1).to_pylist()[0] if picked else None


def downloads(name: str, rows: pa.Table) -> None:
    """Buttons that give `rows` as files `name`: as CSV, whose cells no spreadsheet takes for a formula, and Parquet."""
    for output, mime in (("csv", "text/csv"), ("parquet", "application/vnd.apache.parquet")):
        st.download_button(
            output.upper() if output == "csv" else "Parquet",
            partial(file_bytes, rows, output),
            file_name=f"{name}.{output}",
            mime=mime,
            key=f"download-{output}",
            icon=":material/download:",
            on_click="ignore",
        )


def file_bytes(rows: pa.Table, output: str) -> bytes:
    """`rows` as a file of the format `output`, one of `analysis.output.OUTPUTS`."""
    with TemporaryDirectory() as folder, duckdb.connect() as con:
        path = Path(folder) / "rows"
        write_rows(con.from_arrow(rows), output, out=path)
        return path.read_bytes()


def words(name: str) -> str:
    """A column's name for people, its unit in parentheses: latency_ms is "latency (ms)"."""
    for suffix, unit in _UNITS.items():
        if name.endswith(suffix):
            return f"{name.removesuffix(suffix).replace('_', ' ')} ({unit})"
    return name.replace("_", " ")


def _drawable(rows: pa.Table, zone: str, first: Sequence[str]) -> pa.Table:
    """`rows` with moments in `zone`, parts of a whole in per cent, and only types that a browser shows.

    What the rows are about is never blank: traffic without an organisation or a key is a row like others.
    """
    columns: list[pa.ChunkedArray[Any]] = []
    for field, column in zip(rows.schema, rows.columns, strict=True):
        if pa.types.is_timestamp(field.type) and field.type.tz is not None:
            column = _wall_clock(column, zone)
        elif _is_fraction(field):
            column = pc.multiply(column, 100.0)
        elif pa.types.is_decimal(field.type):
            column = _number(column)
        elif _is_shown_as_text(field.type):
            column = pa.chunked_array([[cell_text(value) for value in column.to_pylist()]], pa.string())
        elif field.name in first and (pa.types.is_string(field.type) or pa.types.is_null(field.type)):
            column = pc.fill_null(column.cast(pa.string()), "(none)")
        columns.append(column)
    return pa.table(columns, names=rows.schema.names)


def _number(decimals: "pa.ChunkedArray[Any]") -> "pa.ChunkedArray[Any]":
    """`decimals`, which no browser shows, as whole numbers where all of them are, else as fractions."""
    try:
        return decimals.cast(pa.int64())
    except pa.ArrowInvalid:
        return decimals.cast(pa.float64())


def _wall_clock(moments: "pa.ChunkedArray[Any]", zone: str) -> "pa.ChunkedArray[Any]":
    """`moments` as local times of `zone`: a browser knows fewer zones than Python."""
    local = moments.to_pandas().dt.tz_convert(zone_named(zone)).dt.tz_localize(None)
    return pa.chunked_array([pa.Array.from_pandas(local, type=pa.timestamp("us"))])


def _column(field: "pa.Field[Any]", meaning: str | None, zone: str, moments: str) -> Any:
    label, kind = words(field.name), field.type
    if pa.types.is_timestamp(kind):
        return st.column_config.DatetimeColumn(f"{label} ({zone})", help=meaning, format=moments)
    if _is_fraction(field):
        form = "%+,.1f%%" if field.name.endswith("change") else "%.2f%%"
        return st.column_config.NumberColumn(label, help=meaning, format=form)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return st.column_config.NumberColumn(label, help=meaning, format="localized")
    return st.column_config.Column(label, help=meaning)


def _is_fraction(field: "pa.Field[Any]") -> bool:
    """Is the column a part of a whole, or a change of one, to be shown in per cent?"""
    return pa.types.is_floating(field.type) and not _FRACTIONS.isdisjoint(field.name.split("_"))


def _is_shown_as_text(kind: pa.DataType) -> bool:
    is_list_of_text = pa.types.is_list(kind) and pa.types.is_string(kind.value_type)
    return bool(
        (pa.types.is_nested(kind) and not is_list_of_text) or pa.types.is_interval(kind) or pa.types.is_binary(kind)
    )
