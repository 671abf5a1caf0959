"""DuckDB's complaints about the lake's own files, in words for the person who has to act."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import duckdb

from ingest.schema import LakeDamaged

_LAKE_FILE: Final = re.compile(r"""["'](/.+/kind=\w+/day=[^/]+/[^/]+\.parquet)["']""")


@contextmanager
def lake_errors() -> Iterator[None]:
    """Raises LakeDamaged, naming the file, where DuckDB finds one of the lake's data files missing or torn.

    Every other error of DuckDB passes unchanged.
    """
    try:
        yield
    except duckdb.Error as error:
        file = _LAKE_FILE.search(str(error))
        if file:
            found = f"{file[1]}: this data file of the lake is missing or cannot be read"
        elif type(error) is duckdb.Error:
            # A torn Parquet header reaches Python as the base class, with the parser's words and no file.
            found = f"a data file of the lake is corrupt ({str(error).strip()})"
        else:
            raise
        raise LakeDamaged(
            f"{found}; run the command again in case files were just compacted, else see what `errata check` says of it"
        ) from error


def said(error: duckdb.Error) -> str:
    """What DuckDB says about SQL, on one line: without the class of the error and the excerpt of the text."""
    text = re.split(r"\n\s*\n?LINE \d+:", str(error))[0]
    return " ".join(re.sub(r"^[A-Z][\w -]*? Error: ", "", text).split())
