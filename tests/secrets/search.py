"""What can be found in files by whoever has them: their bytes, and what engines read out of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tests.secrets.planted import PLANTED, needles


def found_in(content: bytes) -> set[str]:
    """The names of what is planted that `content` gives away."""
    lower = content.lower()
    return {name for name, (_, part) in PLANTED.items() if any(needle in lower for needle in needles(part))}


def found_below(folder: Path) -> dict[str, set[str]]:
    """What the files below `folder` give away, by their path there; files that give nothing away are left out."""
    found = {
        path.relative_to(folder).as_posix(): found_in(str(path).encode()) | found_in(b"\0".join(contents(path)))
        for path in folder.rglob("*")
        if path.is_file()
    }
    return {name: names for name, names in found.items() if names}


def contents(path: Path) -> Iterator[bytes]:
    """The bytes of a file, and what is packed in them: pages, dictionaries and statistics of Parquet, a database."""
    yield path.read_bytes()
    if path.suffix == ".parquet":
        file = pq.ParquetFile(path)
        yield repr([file.metadata.row_group(at).to_dict() for at in range(file.num_row_groups)]).encode()
        yield repr(file.metadata.metadata).encode()
        yield from _texts(file.read())
        texts = [field.name for field in file.schema_arrow if pa.types.is_string(field.type)]
        # A dictionary may hold what no row has.
        yield from _texts(pq.ParquetFile(path, read_dictionary=texts).read(texts))
    elif path.suffix == ".duckdb":
        with duckdb.connect(str(path), read_only=True) as con:
            yield repr(
                con.execute("SELECT sql FROM duckdb_views() UNION ALL SELECT sql FROM duckdb_tables()").fetchall()
            ).encode()
            for (table,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall():
                yield from _texts(con.sql(f'FROM "{table}"').to_arrow_table())


def _texts(table: pa.Table) -> Iterator[bytes]:
    for column in table.columns:
        for chunk in column.chunks:
            values = chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else chunk
            yield "\0".join(_flat(values.to_pylist())).encode("utf-8", "replace")


def _flat(value: Any) -> Iterator[str]:
    if isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _flat(inner)
    elif value is not None:
        yield str(value)
