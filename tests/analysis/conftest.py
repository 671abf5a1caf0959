"""Real lakes in a temporary folder, one commit per call, from rows that name only the columns that matter."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from ingest.lake import create
from ingest.schema import table_path, table_schema
from tests.analysis.queries.event_lake import daily_successes

Row = dict[str, Any]
WriteLake = Callable[..., Path]

NINE: Final = datetime(2026, 11, 2, 9, tzinfo=UTC)

_FOUND: Final[Row] = {
    "ts": NINE,
    "key_id": "key_a",
    "org_id": "org_a",
    "method": "POST",
    "route": "/v1/messages",
    "path": "/v1/messages",
    "origin": "upstream",
    "source_id": "s1",
}


@pytest.fixture
def write_lake(tmp_path: Path) -> WriteLake:
    """Appends rows to the lake `tmp_path / name`, which is made if need be, in one commit; gives the lake's folder."""

    def write(
        requests: Sequence[Row] = (), *, rejects: Sequence[Row] = (), sources: Sequence[Row] = (), name: str = "lake"
    ) -> Path:
        rows = [_request(row) for row in requests]
        rows += daily_successes(rows)
        rows += [{"kind": "reject", "day": NINE.date()} | row for row in rejects]
        rows += [{"kind": "source", "day": NINE.date()} | row for row in sources]
        lake = tmp_path / name
        table = pa.Table.from_pylist(rows, schema=table_schema())
        create(lake)
        write_deltalake(table_path(lake), table, mode="append", partition_by=["kind", "day"])
        return lake

    return write


def _request(fields: Row) -> Row:
    row: Row = _FOUND | {"status": 200} | fields
    is_error = row["status"] >= 400 or row.get("code") is not None
    return row | {"kind": "error" if is_error else "ok", "day": row["ts"].date()}
