"""The contract between the lake and everything that reads it.

Knows the name, type, unit and meaning of every column. Knows no gateway, no question and no engine but Arrow's types:
the Arrow schemas, the views and the data dictionary in the docs are derived from the tables below.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """One column of the lake: its name, Arrow type, unit (empty where it has none) and meaning.

    `since` is the version of the lake's schema that brought it; `before` is its value in the rows of older lakes.
    """

    name: str
    type: pa.DataType
    unit: str
    meaning: str
    since: int = 1
    before: int | None = None


UTC_MICROSECONDS: Final = pa.timestamp("us", tz="UTC")
DETAILS: Final = pa.list_(pa.struct([("field", pa.string()), ("issue", pa.string())]))

REQUEST_COLUMNS: Final = (
    Column("ts", UTC_MICROSECONDS, "UTC", "when the response ended; where a format logs the start, start + latency"),
    Column("request_id", pa.string(), "", "the API's id of the request, from the envelope or else from the gateway"),
    Column("org_id", pa.string(), "", "organisation of the caller, where the gateway logs it"),
    Column("key_id", pa.string(), "", "id of the API key, where the gateway logs it; never the key"),
    Column(
        "key_hash",
        pa.string(),
        "",
        "keyed fingerprint (HMAC-SHA-256, 16 hex digits) of the key that was presented; placeholder- before it where "
        "it was no key but a name or an example of one: YOUR_API_KEY",
    ),
    Column("client_ip", pa.string(), "", "address of the client as the gateway saw it"),
    Column("user_agent", pa.string(), "", "User-Agent of the client, redacted"),
    Column("method", pa.string(), "", "HTTP method"),
    Column("route", pa.string(), "", "path with its ids folded: /v1/messages/{id}"),
    Column(
        "path",
        pa.string(),
        "",
        "path without query, own org_id as {org_id}; with personal data: its route, # and a keyed hash",
    ),
    Column("status", pa.int16(), "", "HTTP status that the client was sent"),
    Column("code", pa.string(), "", "error code of the envelope; null where the response had none"),
    Column("message", pa.string(), "", "message of the envelope, redacted"),
    Column("docs_url", pa.string(), "", "docs_url of the envelope"),
    Column("details", DETAILS, "", "details of the envelope as (field, issue) pairs, redacted"),
    Column("retry_after_s", pa.float64(), "s", "Retry-After header of the response"),
    Column("idempotency_hash", pa.string(), "", "keyed fingerprint of the Idempotency-Key header"),
    Column(
        "recipient_hash",
        pa.string(),
        "",
        "keyed fingerprint of the recipient that an error names: the only phone number or e-mail address in its "
        "message, or else in its details, or what the gateway logs; null for none, for several, and for successes",
        since=3,
    ),
    Column("latency_ms", pa.float64(), "ms", "from the first byte of the request to the end of the response"),
    Column("upstream_ms", pa.float64(), "ms", "time the API itself took, last try"),
    Column("response_bytes", pa.int64(), "bytes", "bytes sent to the client"),
    Column("origin", pa.string(), "", "who made the response: upstream (the API) or gateway (the proxy)"),
    Column(
        "gateway_reason", pa.string(), "", "why the gateway answered itself: bad_gateway, client_closed_request, ..."
    ),
    Column(
        "body_state", pa.string(), "", "what the log holds of an error's body: whole, truncated, absent or undecodable"
    ),
    Column("gateway", pa.string(), "", "log format that the row was read with"),
    Column("host", pa.string(), "", "Host that was asked"),
    Column("source_id", pa.string(), "", "the source in the ledger that the row came from"),
    Column("line", pa.int64(), "", "line of the record in its decompressed source, from 1"),
)

REJECT_COLUMNS: Final = (
    Column("source_id", pa.string(), "", "the source in the ledger"),
    Column("line", pa.int64(), "", "line in the decompressed source, from 1"),
    Column("byte_offset", pa.int64(), "bytes", "where the line starts in the decompressed source"),
    Column("byte_length", pa.int64(), "bytes", "length of the line without its end"),
    Column("reason", pa.string(), "", "why it is no request: not_json, not_an_object, no_status, no_timestamp, ..."),
    Column(
        "code",
        pa.string(),
        "",
        "error code of a record whose time or status is unusable; null for other rejects",
        since=2,
    ),
)

SOURCE_COLUMNS: Final = (
    Column("source_id", pa.string(), "", "short form of the fingerprint"),
    Column("fingerprint", pa.string(), "", "SHA-256 of the head of the decompressed content"),
    Column("head_bytes", pa.int64(), "bytes", "how much of the head the fingerprint covers"),
    Column("name", pa.string(), "", "path it was read from, redacted; - for standard input"),
    Column("stored_hash", pa.string(), "", "SHA-256 of size, head and tail as stored: tells an unchanged file unread"),
    Column(
        "compression",
        pa.string(),
        "",
        "none, or the layers from the outside: gzip, bzip2, xz, zstd, deflate, utf-16-le, joined by +",
    ),
    Column("gateway", pa.string(), "", "log format that was decided on"),
    Column("decision", pa.string(), "", "why: detected with its share of the votes, --format, or --mapping"),
    Column("first_line", pa.int64(), "", "first line of this step; a grown source has a step per ingest"),
    Column("to_line", pa.int64(), "", "line to go on with: the next step starts there", since=2),
    Column("from_byte", pa.int64(), "bytes", "where this step started in the decompressed source"),
    Column("to_byte", pa.int64(), "bytes", "where it ended: the next step starts here"),
    Column(
        "tail_hash",
        pa.string(),
        "",
        "SHA-256 of the bytes before to_byte: a grown source has the same",
    ),
    Column(
        "lines",
        pa.int64(),
        "",
        "lines read, one with several records counted for each = requests + duplicates + rejects + skipped + removed",
    ),
    Column("requests", pa.int64(), "", "rows added to requests; negative in the step of a retention or an erasure"),
    Column("errors", pa.int64(), "", "those of them that are errors"),
    Column("rejects", pa.int64(), "", "lines that are no readable request; negative where they were removed again"),
    Column("skipped", pa.int64(), "", "blank lines, comments, control messages and the further lines of a record"),
    Column(
        "duplicates",
        pa.int64(),
        "",
        "requests left out because the lake holds the same one, with the same request_id, moment and everything else",
        since=2,
        before=0,
    ),
    Column("removed", pa.int64(), "", "rows that a retention or an erasure took away", since=2, before=0),
    Column("is_cut", pa.bool_(), "", "the compressed stream ended before its end marker, or was refused as a bomb"),
    Column("first_ts", UTC_MICROSECONDS, "UTC", "earliest request of this step"),
    Column("last_ts", UTC_MICROSECONDS, "UTC", "latest request of this step"),
    Column("ingested_at", UTC_MICROSECONDS, "UTC", "when the step was committed"),
    Column("secret_id", pa.string(), "", "one-way id of the secret behind the fingerprints of this step", since=2),
)

DAILY_SINCE: Final = 3
"""The version of the lake's schema that brought the counts."""
DAILY_COLUMNS: Final = (
    Column("org_id", pa.string(), "", "organisation of the caller"),
    Column("key_id", pa.string(), "", "id of the API key"),
    Column("key_hash", pa.string(), "", "keyed fingerprint of the key that was presented"),
    Column("client_ip", pa.string(), "", "address of the client"),
    Column("method", pa.string(), "", "HTTP method"),
    Column("route", pa.string(), "", "path with its ids folded"),
    Column(
        "successes", pa.int64(), "", "requests of the day and of all of these that are no errors", since=DAILY_SINCE
    ),
    Column("first_ts", UTC_MICROSECONDS, "UTC", "earliest of them"),
    Column("last_ts", UTC_MICROSECONDS, "UTC", "latest of them"),
)

PARTITION_COLUMNS: Final = (
    Column("kind", pa.string(), "", "ok, error, reject, source or daily"),
    Column("day", pa.date32(), "UTC", "day of ts; for rejects and sources the day they were ingested"),
)

CATALOGUE_COLUMNS: Final = (
    Column("code", pa.string(), "", "the error code"),
    Column("http_status", pa.int16(), "", "status that the code comes with"),
    Column("is_retryable", pa.bool_(), "", "a retry of the unchanged request may succeed"),
    Column("category", pa.string(), "", "client, authorization, pacing, account, recipient or platform"),
    Column("owner", pa.string(), "", "who acts: client, account_team or platform"),
    Column("meaning", pa.string(), "", "what the code says"),
    Column("client_action", pa.string(), "", "what the client should do"),
)


SCHEMA_VERSION: Final = 3
"""The version of the lake's schema that is written; a lake says which one it has in `VERSION_PROPERTY`."""
VERSION_PROPERTY: Final = "errata.schemaVersion"

_ALL_COLUMNS: Final = (*PARTITION_COLUMNS, *REQUEST_COLUMNS, *REJECT_COLUMNS, *SOURCE_COLUMNS, *DAILY_COLUMNS)


def arrow_schema(columns: tuple[Column, ...]) -> pa.Schema:
    """The Arrow schema of `columns`, every field nullable."""
    return pa.schema([pa.field(column.name, column.type) for column in columns])


REQUESTS: Final = arrow_schema(REQUEST_COLUMNS)
REJECTS: Final = arrow_schema(REJECT_COLUMNS)
SOURCES: Final = arrow_schema(SOURCE_COLUMNS)
DAILY: Final = arrow_schema(DAILY_COLUMNS)

KINDS: Final = {
    "ok": REQUEST_COLUMNS,
    "error": REQUEST_COLUMNS,
    "reject": REJECT_COLUMNS,
    "source": SOURCE_COLUMNS,
    "daily": DAILY_COLUMNS,
}
"""The columns of the data files of each kind."""


def column_names(kind: str, version: int) -> list[str]:
    """The columns that data files of a kind have in a lake with that version of the schema."""
    return [column.name for column in KINDS[kind] if column.since <= version]


def table_schema() -> pa.Schema:
    """The schema of the one Delta table: the partition columns, then the columns of every kind, each once."""
    fields = {column.name: pa.field(column.name, column.type) for column in PARTITION_COLUMNS}
    for schema in (REQUESTS, REJECTS, SOURCES, DAILY):
        fields |= {field.name: field for field in schema}
    return pa.schema(list(fields.values()))


# In a local path delta-rs 1.6 panics at some of these and decodes "50%20off"; DuckDB cuts a database's path at "?".
_UNREADABLE: Final = re.compile(r"[\[\]^|?\\\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")


def check_path(path: Path) -> None:
    """Raises BadInput where the engines could not read a lake at `path`, for a character in its name."""
    if unreadable := _UNREADABLE.search(str(path)):
        raise BadInput(f"{path}: a lake cannot be in a path with {unreadable[0]!r}; rename the folder")


def lake_version(table: Path, configuration: Mapping[str, str | None], names: Iterable[str]) -> int:
    """The version of the schema that all files of a lake's table are in, from its properties and columns.

    Older lakes are read as they are. Raises BadInput for a lake that this version of errata cannot read.
    """
    stated = configuration.get(VERSION_PROPERTY) or "1"
    version = int(stated) if stated.isdecimal() else SCHEMA_VERSION + 1
    if version > SCHEMA_VERSION:
        raise BadInput(
            f"{table.parent}: has version {stated[:20]} of the lake's schema, expected {SCHEMA_VERSION} or an earlier "
            "one; use the errata that wrote it, or a later one"
        )
    expected = {column.name for column in _ALL_COLUMNS if column.since <= version}
    if missing := sorted(expected - set(names)):
        raise BadInput(
            f"{table.parent}: its table has no column {', '.join(missing)}; expected those of version {version} of the "
            "lake's schema; ingest its logs into a new lake"
        )
    return version


def table_path(lake: Path) -> Path:
    """The folder of the Delta table inside a lake."""
    return lake / "table"


def database_path(lake: Path) -> Path:
    """The exported DuckDB database inside a lake: views and macros for any DuckDB client."""
    return lake / "errata.duckdb"


class BadInput(Exception):  # noqa: N818 - named for what it says to a person
    """What a person gave cannot be used; the one-line message says what to do. Exit code 2."""


class NotWritten(Exception):  # noqa: N818 - named for what it says to a person
    """The lake could not be written to and is as it was before; the one-line message says why. Exit code 2."""


class LakeDamaged(Exception):  # noqa: N818 - named for what it says to a person
    """The lake cannot be read as it is; the one-line message says what to do. Exit code 3."""
