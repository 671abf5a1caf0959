"""Erasure: what a lake holds of one organisation or one key is gone, from its rows, its history and its files.

Knows where an id may stand in a row. A log that is ingested later may bring the id again.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

import pyarrow as pa

from ingest import lake as lakes
from ingest.maintain import ORDERS, add_all, remove_files
from ingest.prepared import quoted
from ingest.removal import Removed, replace_rows
from ingest.schema import DETAILS, REQUESTS, SOURCES, BadInput, table_path
from ingest.writer import Writer

FORGOTTEN: Final = "[forgotten]"


@dataclass(frozen=True)
class Erasure:
    """Whose rows go: those that have `value` in one of `columns`. Where it is mentioned elsewhere, it is masked."""

    value: str
    columns: tuple[str, ...]


def of_org(org_id: str) -> Erasure:
    """The erasure of an organisation."""
    return Erasure(org_id, ("org_id",))


def of_key(key: str) -> Erasure:
    """The erasure of a key, by its key_id or its fingerprint, key_hash."""
    return Erasure(key, ("key_id", "key_hash"))


def forget(lake: Path, erasure: Erasure, today: date) -> Iterator[str]:
    """Removes the rows of `erasure`, masks its mentions in others, and deletes every replaced file; tells what it did.

    Each day is a commit of its own: run it again where it was stopped. Someone who reads the lake meanwhile may have to
    ask once more, since the files go at once. The caller holds the writer lock. Raises BadInput, NotWritten,
    LakeDamaged.
    """
    if not erasure.value.strip():
        raise BadInput("expected the id to forget, found an empty one")
    rows = mentions = 0
    table = lakes.open_table(lake)
    for kind in _SCHEMAS:
        for day in sorted({lakes.day_of(path) for path in lakes.paths_of(table, kind)}):
            removed, masked = _forget_day(lake, erasure, kind, day, today)
            rows, mentions = rows + removed, mentions + masked
    yield f"{rows:,} rows removed, {mentions:,} others had the id masked"
    yield from remove_files(lake, grace_hours=0)


def _forget_day(lake: Path, erasure: Erasure, kind: str, day: date, today: date) -> tuple[int, int]:
    """How many rows of a kind and day were removed, and in how many others the id was masked."""
    paths = lakes.paths_of(lakes.open_table(lake), kind, [day.isoformat()])
    rows = f"read_parquet([{', '.join(quoted(str(path)) for path in paths)}], hive_partitioning = false)"
    schema = _SCHEMAS[kind]
    whose = [f"coalesce({name} = {quoted(erasure.value)}, false)" for name in erasure.columns if name in schema.names]
    is_own = " OR ".join(whose) or "false"
    masks = {field.name: _mask(field, erasure.value) for field in schema if field.name not in _IDS}
    is_changed = " OR ".join(f"({mask}) IS DISTINCT FROM {name}" for name, mask in masks.items() if mask != name)
    columns = ", ".join(f"{masks.get(name, name)} AS {name}" for name in schema.names)
    with lakes.spilling(lake) as con:
        counts = con.execute(
            f"SELECT source_id, count(*) FILTER ({is_own}), count(*) FILTER (NOT ({is_own}) AND ({is_changed})) "  # noqa: S608 - values are quoted
            f"FROM {rows} GROUP BY ALL"
        ).fetchall()
        removed: Removed = {kind: Counter({source_id: own_rows for source_id, own_rows, _ in counts})}
        masked = sum(row[2] for row in counts)
        if removed[kind].total() or masked:
            kept = Writer(table_path(lake), today)
            others = con.sql(f"SELECT {columns} FROM {rows} WHERE NOT ({is_own}) ORDER BY {ORDERS[kind]}")  # noqa: S608 - values are quoted
            add_all(lake, kept, kind, day, others)
            replace_rows(lake, lakes.partitions(kind, [day]), kept, removed, "erasure")
    return removed[kind].total(), masked


# Ids of others may hold the one to forget as a part, and are theirs.
_IDS: Final = ("org_id", "key_id", "key_hash", "recipient_hash", "source_id", "fingerprint")
# The ledger first: what the others lose adds steps to it.
_SCHEMAS: Final = {"source": SOURCES, "ok": REQUESTS, "error": REQUESTS}


def _mask(field: pa.Field, value: str) -> str:
    """SQL for a column with `value` masked wherever it stands as a word; the column's name where it has no text."""

    # Twice, because the blank between two mentions can be the end of one match only.
    def masked(text: str) -> str:
        pattern = f"'(^|[^A-Za-z0-9_])' || regexp_escape({quoted(value)}) || '([^A-Za-z0-9_]|$)'"
        once = f"regexp_replace({text}, {pattern}, '\\1{FORGOTTEN}\\2', 'g')"
        twice = f"regexp_replace({once}, {pattern}, '\\1{FORGOTTEN}\\2', 'g')"
        return f"CASE WHEN contains({text}, {quoted(value)}) THEN {twice} ELSE {text} END"

    if field.type == DETAILS:
        pairs = f"{{'field': {masked('d.field')}, 'issue': {masked('d.issue')}}}"
        return f"list_transform({field.name}, lambda d: {pairs})"
    return masked(field.name) if field.type == pa.string() else field.name
