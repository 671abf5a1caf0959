"""The only door to the lake: `Door.redact` takes canonical rows and gives the one type that the lake's writer accepts.

Keys become keyed fingerprints (HMAC-SHA-256, RFC 2104); secrets, e-mail addresses and phone numbers in text are masked.
Of a recipient that is masked, a keyed fingerprint is kept. Knows which columns there are, and what may stand in them;
knows no gateway.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from duckdb.func import SPECIAL
from duckdb.sqltypes import VARCHAR

from ingest.formats import MISSING
from ingest.prepared import Prepared, quoted
from ingest.recipients import MACRO, masked_recipients, only_recipient
from ingest.schema import DETAILS, REQUESTS
from ingest.settings import ClientIp
from ingest.shapes import (
    LONGEST_ID,
    PLACEHOLDER_KEY,
    SUSPICIOUS_ID,
    SUSPICIOUS_PATH,
    UNSAFE_ID,
    UNSAFE_PATH,
    mask_texts,
    masked_and_plain,
)

_ADDRESS: Final = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]*"
_NO_IPV4: Final = r"[^0-9.]|[0-9]{4}|^[0-9]*(?:\.[0-9]*){0,2}$|^[0-9]*(?:\.[0-9]*){4}|^\.|\.$|\.\."


@dataclass(frozen=True)
class Redacted:
    """Request rows that may enter the lake: the columns of `REQUESTS`, then `day` and `kind`. Only `Door` makes one."""

    rows: pa.Table


def install(con: duckdb.DuckDBPyConnection, key: bytes) -> None:
    """Creates the macros that mask ids, paths and addresses, and the keyed fingerprint, in `con`."""
    is_unsafe = " OR ".join(f"regexp_matches(value, {quoted(pattern)})" for pattern in UNSAFE_PATH)
    inner, outer = (_blob(bytes(byte ^ pad for byte in key.ljust(64, b"\0"))) for pad in (0x36, 0x5C))
    con.execute(MACRO)
    con.execute(f"""
        CREATE OR REPLACE MACRO keyed_hash(value) AS
            left(sha256({outer} || unhex(sha256({inner} || encode(value)))), 16);
        CREATE OR REPLACE MACRO redact_id(value) AS
            CASE WHEN regexp_matches(value, {quoted(UNSAFE_ID)}) OR length(value) > {LONGEST_ID}
                THEN '#' || keyed_hash(value) ELSE value END;
        CREATE OR REPLACE MACRO redact_path(value, folded) AS
            CASE WHEN regexp_matches(value, {quoted(SUSPICIOUS_PATH)}) AND ({is_unsafe})
                THEN route_of(value, folded) || '#' || left(keyed_hash(value), 12) ELSE value END;
        CREATE OR REPLACE MACRO bare_key(value) AS regexp_replace(value, '^(?i:bearer|basic|token|apikey) +', '');
        CREATE OR REPLACE MACRO key_hash(value) AS
            CASE WHEN regexp_full_match(bare_key(value), {quoted(PLACEHOLDER_KEY)}) THEN 'placeholder-' ELSE '' END
            || keyed_hash(bare_key(value));
        CREATE OR REPLACE MACRO address(value) AS
            CASE WHEN length(value) <= 45 AND regexp_full_match(value, {quoted(_ADDRESS)}) THEN value END;
        CREATE OR REPLACE MACRO http_method(value) AS
            CASE WHEN regexp_full_match(value, '[A-Za-z]{{1,20}}') THEN upper(value) END;
    """)


class Door:
    """What rows pass on their way to the lake. Keeps its queries planned from one chunk to the next."""

    def __init__(self, con: duckdb.DuckDBPyConnection, client_ip: ClientIp = "keep") -> None:
        """`con` needs the macros of `install` and of `canonical.MACROS`."""
        self._con = con
        self._made = _MADE | {"client_ip": {"client_ip": _CLIENT_IPS[client_ip]}}
        self._suspect = _SUSPECT | ({"client_ip": _NO_IPV4} if client_ip == "keep" else {})
        if client_ip == "truncate":
            con.create_function("network_of", _network_of, [VARCHAR], VARCHAR, null_handling=SPECIAL)
        self._queries: dict[str, Prepared] = {}

    def redact(self, canonical: pa.Table, constants: dict[str, str]) -> Redacted:
        """`canonical`, rows of `canonical_sql` or `plain_sql`, redacted; `constants` are the same in every row."""
        columns = {name: canonical[name] for name in canonical.column_names}
        if "message" in columns:
            columns |= _said(canonical["message"], canonical["details"], canonical["recipient"])
        for given, made in self._made.items():
            if given in columns:
                columns |= self._by_value(given, columns[given].combine_chunks(), made)
        for name, mask in _TEXTS.items():
            if name in columns:
                texts = canonical[name].combine_chunks().dictionary_encode()
                columns[name] = _spread(texts, mask(_present(texts.dictionary)))
        columns |= {name: _constant(value, len(canonical)) for name, value in constants.items()}
        absent = {name: pa.nulls(len(canonical), kind) for name, kind in _ABSENT.items() if name not in columns}
        columns |= absent
        return Redacted(pa.table({name: columns[name] for name in (*REQUESTS.names, "day", "kind")}))

    def _by_value(self, name: str, given: pa.Array, made: dict[str, str]) -> dict[str, pa.Array]:
        if name == "request_id":
            # Ids differ in every row: as plain strings they cost less than as a dictionary.
            return {name: self._masked(name, given)[0]}
        encoded = given.dictionary_encode()
        masked = self._masked(name, encoded.dictionary)
        return {column: _spread(encoded, array) for column, array in zip(made, masked, strict=True)}

    def _masked(self, name: str, values: pa.Array) -> list[pa.Array]:
        """`values` as each column that is made of them; a cheap look tells which need to be masked."""
        present = _present(values)
        suspect = self._suspect.get(name)
        if suspect is None:
            return self._run(name, present)
        is_suspect = _are(suspect, present)
        if not pc.any(is_suspect).as_py():
            return [present]
        [masked] = self._run(name, present.filter(is_suspect))
        return [pc.replace_with_mask(present, is_suspect, masked)]

    def _run(self, name: str, values: pa.Array) -> list[pa.Array]:
        if name not in self._queries:
            self._queries[name] = Prepared(self._con, f"mask_{name}", _VALUES, partial(_mask_sql, self._made[name]))
        rows = self._queries[name].run(pa.table({"value": values}))
        return [column.combine_chunks() for column in rows.columns]


def _present(values: pa.Array) -> pa.Array:
    """`values` with null for what gateways write where there is no value."""
    is_missing = pc.is_in(values, value_set=_MISSING)
    return pc.if_else(is_missing, pa.scalar(None, pa.string()), values) if pc.any(is_missing).as_py() else values


def _are(suspect: str, values: pa.Array) -> pa.Array:
    """Which of `values` match, or are longer than an id may be: counted, a pattern would be slow to say so."""
    is_long = pc.greater(pc.binary_length(values), LONGEST_ID)
    return pc.or_(is_long, pc.match_substring_regex(values, suspect)).fill_null(False)


_MISSING: Final = pa.array(MISSING)
_VALUES: Final = pa.schema([pa.field("value", pa.string())])


def _mask_sql(made: dict[str, str], values: str) -> str:
    columns = (f"{mask} AS {name}" for name, mask in made.items())
    return f"SELECT {', '.join(columns)} FROM (SELECT value, with_plain_ids_folded(value) AS folded FROM {values})"  # noqa: S608 - names of this module


_MADE: Final = {
    "request_id": {"request_id": "redact_id(value)"},
    "org_id": {"org_id": "redact_id(value)"},
    "key_id": {"key_id": "redact_id(value)"},
    "presented_key": {"key_hash": "key_hash(value)"},
    "method": {"method": "http_method(value)"},
    "path": {"route": "route_of(value, folded)", "path": "redact_path(value, folded)"},
    "idempotency_key": {"idempotency_hash": "keyed_hash(value)"},
    "recipient": {"recipient_hash": "keyed_hash(normalised_recipient(value))"},
}
"""Canonical column: the columns of the contract that are made from it, each with the expression that masks it."""

_CLIENT_IPS: Final[dict[ClientIp, str]] = {
    "keep": "address(value)",
    "truncate": "network_of(address(value))",
    "hash": "'#' || keyed_hash(address(value))",
    "drop": "NULL::VARCHAR",
}
"""What the setting `client_ip` makes of an address."""

_SUSPECT: Final = {
    "request_id": SUSPICIOUS_ID,
    "org_id": SUSPICIOUS_ID,
    "key_id": SUSPICIOUS_ID,
    "method": "[^A-Z]|^.{21}",
}
"""What a value matches wherever its mask would change it, and now and then besides. Other columns are all masked."""


def mask_codes(values: pa.Array) -> pa.Array:
    """`values`, error codes of whatever was logged, as short words without secrets in them."""
    plain = pc.replace_substring_regex(mask_texts(values), r"[^A-Za-z0-9_.:/#\[\]-]", "?")
    return pc.utf8_slice_codeunits(plain, 0, 64)


def _url(values: pa.Array) -> pa.Array:
    return mask_texts(pc.replace_substring_regex(values, r"(?s)\?.*|^[^?]*@", ""))


_TEXTS: Final[dict[str, Callable[[pa.Array], pa.Array]]] = {
    "user_agent": mask_texts,
    "code": mask_codes,
    "docs_url": _url,
    "host": mask_texts,
    "gateway_reason": mask_texts,
}
"""Columns of text, each with what masks its distinct values."""


def _said(message: pa.ChunkedArray, details: pa.ChunkedArray, recipient: pa.ChunkedArray) -> dict[str, Any]:
    """What errors say, masked, and their recipients: as they are logged, else in the message, else in the details."""
    texts = message.combine_chunks().dictionary_encode()
    masked, of_texts = _masked(_present(texts.dictionary))
    lists, of_lists = _details(details.combine_chunks())
    recipients = pc.coalesce(_present(recipient), of_texts.take(texts.indices), of_lists)
    return {"message": _spread(texts, masked), "details": lists, "recipient": recipients}


def _masked(texts: pa.Array) -> tuple[pa.Array, pa.Array]:
    """`texts`, masked, and the recipient in each."""
    masked, plain = masked_and_plain(texts)
    return masked, masked_recipients(masked, plain)


def _details(given: pa.Array) -> tuple[pa.Array, pa.Array]:
    """`given`, lists of (field, issue), with either text of each masked, and the recipient in each list."""
    lists = given.cast(DETAILS)
    recipients = pa.nulls(len(lists), pa.string())
    if lists.null_count == len(lists):
        return lists, recipients
    pairs = lists.flatten()
    texts = [pc.struct_field(pairs, [place]).dictionary_encode() for place in (0, 1)]
    masked, found = zip(*(_masked(text.dictionary) for text in texts), strict=True)
    ends = np.cumsum(pc.list_value_length(lists).fill_null(0).to_numpy())
    offsets = np.concatenate(([0], ends))
    if any(of_texts.null_count < len(of_texts) for of_texts in found):
        fields, issues = (of_texts.take(text.indices).to_pylist() for of_texts, text in zip(found, texts, strict=True))
        runs = zip(offsets[:-1], ends, strict=True)
        recipients = pa.array(
            [only_recipient(fields[start:end] + issues[start:end]) for start, end in runs], pa.string()
        )
    structs = pa.StructArray.from_arrays(
        [array.take(text.indices) for array, text in zip(masked, texts, strict=True)], fields=list(DETAILS.value_type)
    )
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), structs, type=DETAILS, mask=lists.is_null()
    ), recipients


def _network_of(address: str | None) -> str | None:
    """The first address of the /24 (IPv4, also written as IPv6) or /48 (IPv6) that holds `address`, None for none."""
    if address is None:
        return None
    try:
        found = ip_address(address)
    except ValueError:
        return None
    found = getattr(found, "ipv4_mapped", None) or found
    return str(ip_network((found, 24 if found.version == 4 else 48), strict=False).network_address)


_DICTIONARY: Final = pa.dictionary(pa.int32(), pa.string())
_ABSENT: Final = {
    "code": _DICTIONARY,
    "message": _DICTIONARY,
    "docs_url": _DICTIONARY,
    "details": DETAILS,
    "recipient_hash": _DICTIONARY,
    "body_state": pa.string(),
    "gateway_reason": _DICTIONARY,
}
"""Columns that plain successes do not have, with the types in which they come from other rows."""


def _constant(value: str, length: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(length, np.int32)), pa.array([value]))


def _spread(encoded: pa.DictionaryArray, masked: pa.Array) -> pa.DictionaryArray:
    if masked.equals(encoded.dictionary):
        return encoded
    # Two values may have become one, or none, and a Parquet dictionary holds each once.
    again = masked.dictionary_encode()
    return pa.DictionaryArray.from_arrays(again.indices.take(encoded.indices), again.dictionary)


def mask_name(name: str) -> str:
    """The name of a source without secrets and personal data in it; what is no UTF-8 becomes U+FFFD."""
    readable = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return str(mask_texts(pa.array([readable]))[0].as_py())


def _blob(data: bytes) -> str:
    return "'" + "".join(f"\\x{byte:02X}" for byte in data) + "'::BLOB"
