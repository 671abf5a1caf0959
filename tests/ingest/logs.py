"""Log lines as gateways write them, the rows that they become, and what a lake holds, read without errata."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import duckdb
import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from ingest.detect import detect
from ingest.formats import Format, formats
from ingest.frame import of_lines
from ingest.parse import Lanes
from ingest.schema import table_path
from ingest.source import Chunk

Row = dict[str, Any]

KEY: Final = bytes(range(32))
NGINX_JSON: Final = formats()["nginx-json"]
COMBINED: Final = formats()["combined"]
SECOND: Final = 1_795_431_545  # 2026-11-23 10:59:05 UTC

_RECORD: Final[Row] = {
    "msec": SECOND + 0.25,
    "remote_addr": "198.51.100.7",
    "method": "POST",
    "host": "api.example",
    "uri": "/v1/messages",
    "status": 201,
    "bytes_sent": 66,
    "request_time": 0.008,
    "upstream_time": "0.007",
    "upstream_status": "201",
    "user_agent": "sdk/1.0",
    "request_id": "req_1",
    "org_id": "org_1",
    "key_id": "key_1",
    "retry_after": "",
    "idempotency_key": "",
    "resp_body": "",
}


def record(**fields: object) -> Row:
    """A record of nginx's JSON log: a message that was sent, but for `fields`; a field of `...` is left out."""
    return {name: value for name, value in (_RECORD | fields).items() if value is not ...}


def json_line(**fields: object) -> bytes:
    """`record` as its line, without an end."""
    return json.dumps(record(**fields)).encode()


def error_line(code: str, status: int, **fields: object) -> bytes:
    """The line of a request that the API answered with the envelope of `code`."""
    envelope = {"object": "error", "code": code, "message": f"{code} it is", "request_id": "req_e", "details": None}
    return json_line(status=status, upstream_status=str(status), resp_body=json.dumps(envelope), **fields)


def combined_line(
    *, request: str = "GET /v1/messages HTTP/1.1", status: int = 200, time: str = "23/Nov/2026:10:59:05 +0000"
) -> bytes:
    """A line of nginx's and Apache's combined log."""
    return f'198.51.100.7 - - [{time}] "{request}" {status} 66 "-" "sdk/1.0"'.encode()


def log(lines: Iterable[bytes], end: bytes = b"\n") -> bytes:
    """`lines` as a log."""
    return b"".join(line + end for line in lines)


def settled(layout: Format, lines: Iterable[bytes]) -> Format:
    """`layout` with the time unit of `lines`."""
    return detect("test.log", log(lines), layout).layout


def parsed(lanes: Lanes, layout: Format, lines: list[bytes]) -> tuple[list[Row], list[tuple[int, str]]]:
    """The rows of `lines` in their order, and (line, reason) of each reject; the time unit of `layout` is settled."""
    data = np.frombuffer(log(lines), np.uint8)
    starts = np.cumsum([0, *(len(line) + 1 for line in lines)])
    batch = lanes.parse(of_lines(Chunk(data, starts, 1, 0)), layout, "source")
    rows = [row for part in batch.requests for row in part.rows.to_pylist()]
    rejects = [(reject["line"], reject["reason"]) for reject in batch.rejects.to_pylist()]
    return sorted(rows, key=lambda row: int(row["line"])), sorted(rejects)


def mapped(layout: Format, **units: str) -> Format:
    """`layout` with other units."""
    return replace(layout, units={**layout.units, **units})


def table_of(lake: Path, *kinds: str) -> pa.Table:
    """The rows of `kinds` in the lake's current snapshot, in the order of source and line, read by DuckDB."""
    files = DeltaTable(str(table_path(lake))).file_uris()
    wanted = [unquote(file) for file in files if any(f"/kind={kind}/" in file for kind in kinds)]
    if not wanted:
        return pa.table({})
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        sql = "FROM read_parquet($files, hive_partitioning = true, union_by_name = true)"
        table: pa.Table = con.sql(sql, params={"files": wanted}).to_arrow_table()
    keys = [name for name in ("source_id", "first_line", "line") if name in table.column_names]
    return table.sort_by([(name, "ascending") for name in keys])


def requests(lake: Path) -> list[Row]:
    """Every request in the lake, by source and line."""
    return list(table_of(lake, "ok", "error").to_pylist())


def rejects(lake: Path) -> list[Row]:
    """Every reject in the lake, by source and line."""
    return list(table_of(lake, "reject").to_pylist())


def steps(lake: Path) -> list[Row]:
    """The ledger of the lake, by source and first line."""
    return list(table_of(lake, "source").to_pylist())
