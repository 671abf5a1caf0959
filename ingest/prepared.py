"""A query that DuckDB plans once and runs over one Arrow table after another.

Planning takes 20 ms for the query that parses a chunk, and there are many chunks. Knows DuckDB; knows no log.
"""

from collections.abc import Callable

import duckdb
import pyarrow as pa


class Prepared:
    """A prepared statement over the Arrow table of the moment; it holds that table until the next run."""

    def __init__(
        self, con: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema, query: Callable[[str], str]
    ) -> None:
        """`query` is given the name of a relation with `schema`, and gives the SQL to run over it."""
        self._con = con
        self._name = name
        self._query = query
        self._table = schema.empty_table()
        self._is_planned = False

    def run(self, table: pa.Table) -> pa.Table:
        """The result of the query over `table`, in its order; raises what DuckDB raises."""
        if not self._is_planned:
            self._con.register(f"{self._name}_input", self)
            self._con.execute(f"PREPARE {self._name} AS {self._query(f'{self._name}_input')}")
            self._is_planned = True
        self._table = table
        return self._con.sql(f"EXECUTE {self._name}").to_arrow_table()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The table of the moment, asked for by DuckDB at each execution (the Arrow PyCapsule interface)."""
        return self._table.__arrow_c_stream__(requested_schema)


def quoted(text: str) -> str:
    """`text` as a literal of SQL, for what cannot be a parameter: patterns, names of keys and units of a format."""
    return "'" + text.replace("'", "''") + "'"
