"""What brings the files of an older lake to the present version of the schema.

Knows no version by its number: which columns a file lacks, and what stands for them, is in the contract.
"""

from pathlib import Path

from ingest import lake as lakes
from ingest.schema import KINDS, SCHEMA_VERSION, VERSION_PROPERTY, table_path
from ingest.writer import DataFile, Writer


def upgrade(lake: Path) -> None:
    """Rewrites what an older version of errata wrote, in one commit; the caller holds the writer lock.

    Only files of kinds that have gained columns are rewritten, a row group at a time. Killed at any moment, it leaves
    the lake readable, and the next run begins it again. Raises NotWritten, LakeDamaged.
    """
    table = lakes.open_table(lake)
    version = lakes.version_of(table, table_path(lake))
    if version == SCHEMA_VERSION:
        return
    changed = {kind for kind, columns in KINDS.items() if any(column.since > version for column in columns)}
    if changed & {"ok", "daily"}:
        changed |= {"ok", "daily"}  # a commit counts the successes in it
    files: list[DataFile] = []
    try:
        for kind in sorted(changed - {"daily"}):
            for path in lakes.paths_of(table, kind):
                files += _rewritten(lake, kind, path)
    except BaseException:
        lakes.discard(lake, files)
        raise
    lakes.commit(lake, files, replaced=[("kind", "in", sorted(changed))])
    set_version(lake)


def set_version(lake: Path) -> None:
    """States that all files of the lake have the present version of the schema."""
    properties = {VERSION_PROPERTY: str(SCHEMA_VERSION)}
    with lakes.writes(lake):
        lakes.open_table(lake).alter.set_table_properties(properties, raise_if_not_exists=False)
        lakes.flush_log(table_path(lake))


def _rewritten(lake: Path, kind: str, path: Path) -> list[DataFile]:
    """The rows of a data file, in their order, in files of the present schema."""
    day = lakes.day_of(path)
    writer = Writer(table_path(lake), day)
    with lakes.filling(lake, writer):
        for rows in lakes.row_groups_of(path):
            writer.add_again(kind, day, lakes.in_schema(rows, KINDS[kind]))
        return writer.close()
