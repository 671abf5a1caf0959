"""A DuckDB connection over hand-made or random events: the views' columns as tables, and every macro installed.

Rows come back as plain dicts, so that a test compares whole answers.
"""

import atexit
import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, Final

import duckdb
import pyarrow as pa

import analysis
from analysis.lake import DEFAULT_CATALOGUE, read_catalogue
from ingest.schema import DAILY, PARTITION_COLUMNS, REJECTS, REQUESTS, SOURCES, arrow_schema

Row = dict[str, Any]

MORNING: Final = datetime(2026, 11, 2, 9, tzinfo=UTC)

_PARTITION: Final = list(arrow_schema(PARTITION_COLUMNS))
_CALLER: Final = [pa.field("caller", pa.string()), pa.field("is_error", pa.bool_())]
_CELL: Final = ("org_id", "key_id", "key_hash", "client_ip", "method", "route")
_SCHEMAS: Final = {
    "requests": pa.schema([*_PARTITION, *REQUESTS, *_CALLER]),
    "daily_successes": pa.schema([*_PARTITION, *DAILY, _CALLER[0]]),
    "sources": pa.schema([*_PARTITION, *SOURCES]),
    "rejects": pa.schema([*_PARTITION, *REJECTS]),
}
_FOUND: Final = {
    "method": "POST",
    "route": "/v1/messages",
    "path": "/v1/messages",
    "latency_ms": 10.0,
    "origin": "upstream",
    "source_id": "first",
}
_STATUSES: Final = {
    "validation_failed": 400,
    "missing_api_key": 401,
    "invalid_api_key": 403,
    "insufficient_scope": 403,
    "scope_invalid": 403,
    "not_found": 404,
    "dnc_blocked": 422,
    "rate_limited": 429,
    "internal_error": 500,
}


def at(seconds: float) -> datetime:
    """The moment `seconds` after MORNING."""
    return MORNING + timedelta(seconds=seconds)


def ok(seconds: float, **fields: Any) -> Row:
    """A request that succeeded, its response ended `seconds` after MORNING."""
    return _request(seconds, {"status": 200} | fields)


def error(seconds: float, code: str | None, **fields: Any) -> Row:
    """A request that failed with `code`, its response ended `seconds` after MORNING."""
    return _request(seconds, {"status": _STATUSES.get(code or "", 500), "code": code, "body_state": "whole"} | fields)


def source(source_id: str, **fields: Any) -> Row:
    """One step of the ledger."""
    counts = dict.fromkeys(("lines", "requests", "errors", "rejects", "skipped", "duplicates", "removed"), 0)
    step: Row = {"source_id": source_id, "name": f"{source_id}.log", "ingested_at": at(86_400)} | counts | fields
    return step | {"to_line": step["first_line"] + step["lines"] if "first_line" in step else None}


def daily_successes(events: Iterable[Row]) -> list[Row]:
    """The counts that a lake of `events` holds; those of even and of odd seconds came with two ingests."""
    moments: dict[tuple[Any, ...], list[datetime]] = {}
    for row in events:
        if row["kind"] == "ok":
            part = row["ts"].second % 2
            moments.setdefault((part, row["day"], *(row.get(name) for name in _CELL)), []).append(row["ts"])
    return [
        {"kind": "daily", "day": day, "successes": len(of_cell), "first_ts": min(of_cell), "last_ts": max(of_cell)}
        | dict(zip(_CELL, cell, strict=True))
        for (_, day, *cell), of_cell in moments.items()
    ]


def lake(
    events: Iterable[Row] = (), *, sources: Sequence[Row] | None = None, rejects: Sequence[Row] = ()
) -> duckdb.DuckDBPyConnection:
    """A connection over `events`; `sources` defaults to one ledger step that spans them."""
    rows = list(events)
    if sources is None:
        moments = [row["ts"] for row in rows]
        sources = [source("first", first_ts=min(moments), last_ts=max(moments))] if moments else []
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.execute(f"ATTACH '{_empty_lake()}' AS empty_lake (READ_ONLY)")
    con.execute("COPY FROM DATABASE empty_lake TO memory")
    con.execute("DETACH empty_lake")
    _insert(con, "requests", rows)
    _insert(con, "daily_successes", [row | {"caller": _caller(row)} for row in daily_successes(rows)])
    _insert(con, "sources", sources)
    _insert(con, "rejects", rejects)
    return con


def _insert(con: duckdb.DuckDBPyConnection, name: str, rows: Sequence[Row]) -> None:
    if rows:
        con.register("arriving", pa.Table.from_pylist(list(rows), _SCHEMAS[name]))
        con.execute(f"INSERT INTO {name} SELECT * FROM arriving")
        con.unregister("arriving")


@cache
def _empty_lake() -> Path:
    """A database without rows and with every macro: to copy it takes a tenth of the time to make each macro again."""
    folder = mkdtemp(prefix="errata-tests-")
    atexit.register(rmtree, folder, ignore_errors=True)
    path = Path(folder) / "empty.duckdb"
    with duckdb.connect(path) as con:
        tables = {name: schema.empty_table() for name, schema in _SCHEMAS.items()}
        for name, table in (tables | {"catalogue": read_catalogue(DEFAULT_CATALOGUE)}).items():
            con.register("arriving", table)
            con.execute(f"CREATE TABLE {name} AS SELECT * FROM arriving")
            con.unregister("arriving")
        con.execute(
            """CREATE VIEW errors AS
            SELECT request.*, code.code IS NOT NULL AS is_known_code, code.is_retryable, code.category, code.owner
            FROM requests AS request LEFT JOIN catalogue AS code ON code.code = request.code
            WHERE request.kind = 'error'"""
        )
        analysis.install(con)
    return path


def rows(con: duckdb.DuckDBPyConnection, question: str, **parameters: object) -> list[Row]:
    """The answer to `question` as dicts in result order: None for NULL, aware datetimes in UTC."""
    found: list[Row] = analysis.answer(con, question, **parameters).to_arrow_table().to_pylist()
    return found


def columns_of(answers: Iterable[Row], *names: str) -> list[tuple[Any, ...]]:
    """Only the columns `names` of each row."""
    return [tuple(row[name] for name in names) for row in answers]


def random_events(seed: int, count: int = 400, spread_s: int = 1800) -> list[Row]:
    """Traffic of a few callers on three days, `spread_s` around one hour: with equal moments, without organisation,
    without key, with only a fingerprint, with errors that the gateway made, unknown codes and errors in HTTP 200."""
    choose = random.Random(seed)
    callers = [_random_caller(choose, number) for number in range(8)]
    return [_random_event(choose, choose.choice(callers), count, spread_s) for _ in range(count)]


def _random_caller(choose: random.Random, number: int) -> Row:
    key: Row = choose.choice(
        [
            {"key_id": f"key_{number}"},
            {"key_hash": f"hash_{number}"},
            {},
            {"key_id": f"key_{number}", "key_hash": "both"},
        ]
    )
    return key | {
        "org_id": choose.choice([None, "org_a", "org_b", "org_c"]),
        "client_ip": f"192.0.2.{choose.randrange(2)}",
        "user_agent": f"client/{number}",
    }


def _random_event(choose: random.Random, caller: Row, count: int, spread_s: int) -> Row:
    method, route = choose.choice(
        [("GET", "/v1/messages"), ("POST", "/v1/messages"), ("GET", "/v1/messages/{id}"), (None, None)]
    )
    path = route and route.replace("{id}", f"msg_{choose.randrange(5)}")
    fields = caller | {
        "method": method,
        "route": route,
        "path": path,
        "latency_ms": choose.choice([None, 0.0, 12.5, 900.0]),
        "request_id": f"req_{choose.randrange(count)}",
        "idempotency_hash": choose.choice([None, None, "idem_1", "idem_2"]),
    }
    # Whole seconds of a crowded time on each of three days: equal moments are certain, silent hours too.
    seconds = choose.randrange(3) * 86_400 + choose.randrange(-spread_s, spread_s)
    made = choose.random()
    if made < 0.5:
        return ok(seconds, **fields)
    if made < 0.9:
        code = choose.choice([*_STATUSES, "rate_limited", "internal_error", "brand_new"])
        retry_after = choose.choice([None, 1.0, 30.0]) if code == "rate_limited" else None
        return error(seconds, code, retry_after_s=retry_after, **fields)
    reason, status = choose.choice(
        [("bad_gateway", 502), ("client_closed_request", 499), (None, 404), ("limited", 429)]
    )
    origin = "gateway" if reason else "upstream"
    return error(seconds, None, status=status, origin=origin, gateway_reason=reason, **fields)


def _caller(row: Row) -> str | None:
    return row.get("key_id") or row.get("key_hash") or row.get("client_ip")


def _request(seconds: float, fields: Row) -> Row:
    row: Row = {"ts": at(seconds)} | _FOUND | fields
    is_error = row["status"] >= 400 or row.get("code") is not None
    return row | {
        "kind": "error" if is_error else "ok",
        "day": row["ts"].date(),
        "caller": _caller(row),
        "is_error": is_error,
    }
