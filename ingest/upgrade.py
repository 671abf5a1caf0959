"""What brings the files of an older lake to the present version of the schema.

Knows what each version added. So far these were columns of rejects and the ledger, so that requests stay as they are.
"""

from datetime import date
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

from ingest import lake as lakes
from ingest.schema import (
    REJECT_COLUMNS,
    SCHEMA_VERSION,
    SOURCE_COLUMNS,
    VERSION_PROPERTY,
    table_path,
)
from ingest.writer import Writer

_CHANGED: Final = {"reject": REJECT_COLUMNS, "source": SOURCE_COLUMNS}


def upgrade(lake: Path) -> None:
    """Rewrites what an older version of errata wrote, in one commit; the caller holds the writer lock.

    Killed at any moment, it leaves the lake readable, and the next run begins it again. Raises NotWritten, LakeDamaged.
    """
    table = lakes.open_table(lake)
    if lakes.version_of(table, table_path(lake)) == SCHEMA_VERSION:
        return
    writer = Writer(table_path(lake), date.min)
    with lakes.filling(lake, writer):
        for kind, columns in _CHANGED.items():
            for path in lakes.paths_of(table, kind):
                writer.add_again(kind, lakes.day_of(path), lakes.in_schema(pq.ParquetFile(path).read(), columns))
        files = writer.close()
    lakes.commit(lake, files, replaced=[("kind", "in", list(_CHANGED))])
    set_version(lake)


def set_version(lake: Path) -> None:
    """States that all files of the lake have the present version of the schema."""
    properties = {VERSION_PROPERTY: str(SCHEMA_VERSION)}
    with lakes.writes(lake):
        lakes.open_table(lake).alter.set_table_properties(properties, raise_if_not_exists=False)
        lakes.flush_log(table_path(lake))
