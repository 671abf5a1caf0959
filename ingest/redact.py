"""The only door to the lake: `Door.redact` takes canonical rows and gives the one type that the lake's writer accepts.

Keys become keyed fingerprints (HMAC-SHA-256, RFC 2104); secrets, e-mail addresses and phone numbers in text are masked.
Knows the shapes of secrets; knows no gateway.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from duckdb.func import SPECIAL
from duckdb.sqltypes import VARCHAR

from ingest.canonical import MACROS
from ingest.formats import MISSING
from ingest.prepared import Prepared, quoted
from ingest.schema import DETAILS, REQUESTS
from ingest.settings import ClientIp

_CREDENTIAL: Final = (
    r"\b[A-Za-z]{2,8}_(?:live|test|prod|sandbox)_[A-Za-z0-9]{4,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{30,}|\bgh[pousr]_[A-Za-z0-9]{20,}"
    r"|\bxox[abeprs]-[A-Za-z0-9-]{8,}|\bwhsec_[A-Za-z0-9+/=]{8,}|\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"
    r"|eyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){0,2}"
    r"|(?i:\b(?:bearer|basic)(?: |%20|\+)+[A-Za-z0-9+/=._~-]{6,})"
)
_NAMED: Final = r"(?i:key|token|secret|passw(?:or)?d|pwd|signature|credential)s?"
_QUOTE: Final = r"\\*(?:[\"']|%22|%27|\\x22)?"
_ASSIGNED: Final = rf"({_NAMED}{_QUOTE}(?: |%20)?(?:=|:|%3[ADad])(?: |%20)?{_QUOTE})[^\s\"'&,;<>)]{{4,}}"
_USER_INFO: Final = r"(://|%3A%2F%2F)[^/\s@\"'<>]+?(@|%40)"
_EMAIL: Final = r"[A-Za-z0-9._%+'-]+(?:@|%40)[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"
_GAP: Final = r"(?:[ ().\x{2D}/\x{A0}]|%20|%28|%29|%2D)"
_E164: Final = rf"(?:\+|%2[Bb]|\b00){_GAP}?[1-9](?:{_GAP}{{0,2}}[0-9]){{6,14}}"
_DIGITS: Final = r"(^|[^A-Za-z0-9])[0-9]{10,}(?:\b|_)"
_NATIONAL: Final = (
    rf"(^|[^A-Za-z0-9])(?:[0-9]{{1,2}}{_GAP})?(?:\(|%28)?[0-9]{{3}}{_GAP}{{1,2}}[0-9]{{3}}{_GAP}[0-9]{{4}}"
    rf"|(^|[^A-Za-z0-9])0[0-9]{{1,4}}{_GAP}{{1,2}}[0-9]{{2,4}}(?:{_GAP}?[0-9]{{2,4}}){{1,3}}"
)
_ADDRESS: Final = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]*"
# One cheap look decides for most values that nothing can be in them.
_SUSPICIOUS: Final = (
    r"@|%|[0-9][0-9 ().\x{2D}/\x{A0}]{5,}[0-9]|_(?:live|test|prod|sandbox)_|AKIA|ASIA|AIza|gh[pousr]_|xox|whsec_|SG\."
    r"|eyJ"
    rf"|(?i:bearer|basic)(?: |\+)|{_NAMED}\\*(?:[\"']|x22)? ?[=:]"
)
_MASKS: Final = (
    (_USER_INFO, r"\1[secret]\2"),
    (_CREDENTIAL, "[secret]"),
    (_ASSIGNED, r"\1[secret]"),
    (_EMAIL, "[email]"),
    (_E164, "[phone]"),
    (_NATIONAL, r"\1\2[phone]"),
    (_DIGITS, r"\1[phone]"),
)
_UNSAFE_ID: Final = rf"@|%|^\+|\s|{_CREDENTIAL}|(?i:bearer|basic) |{_NAMED}=|^(?:{_NATIONAL})$"
_UNSAFE_PATH: Final = (
    rf"[^A-Za-z0-9/_.~{{}}-]|(?:^|[^A-Za-z0-9])[0-9]{{10,15}}(?:[^A-Za-z0-9]|$)|{_NATIONAL}|{_CREDENTIAL}"
)


@dataclass(frozen=True)
class Redacted:
    """Request rows that may enter the lake: the columns of `REQUESTS`, then `day` and `kind`. Only `Door` makes one."""

    rows: pa.Table


def install(con: duckdb.DuckDBPyConnection, key: bytes) -> None:
    """Creates the masking macros and the keyed fingerprint in `con`."""
    masked = "value"
    for pattern, replacement in _MASKS:
        masked = f"regexp_replace({masked}, {quoted(pattern)}, {quoted(replacement)}, 'g')"
    inner, outer = (_blob(bytes(byte ^ pad for byte in key.ljust(64, b"\0"))) for pad in (0x36, 0x5C))
    con.execute(f"""
        CREATE OR REPLACE MACRO keyed_hash(value) AS
            left(sha256({outer} || unhex(sha256({inner} || encode(value)))), 16);
        CREATE OR REPLACE MACRO redact_text(value) AS
            CASE WHEN regexp_matches(value, {quoted(_SUSPICIOUS)}) THEN {masked} ELSE value END;
        CREATE OR REPLACE MACRO redact_id(value) AS
            CASE WHEN regexp_matches(value, {quoted(_UNSAFE_ID)}) OR length(value) > 128
                THEN '#' || keyed_hash(value) ELSE value END;
        CREATE OR REPLACE MACRO redact_path(value, folded) AS
            CASE WHEN regexp_matches(value, {quoted(_UNSAFE_PATH)})
                THEN route_of(value, folded) || '#' || left(keyed_hash(value), 12) ELSE value END;
        CREATE OR REPLACE MACRO redact_code(value) AS
            left(regexp_replace(redact_text(value), '[^A-Za-z0-9_.:/#\\[\\]-]', '?', 'g'), 64);
        CREATE OR REPLACE MACRO redact_url(value) AS redact_text(split_part(split_part(value, '?', 1), '@', -1));
        CREATE OR REPLACE MACRO key_hash(value) AS
            keyed_hash(regexp_replace(value, '^(?i:bearer|basic|token|apikey) +', ''));
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
        if client_ip == "truncate":
            con.create_function("network_of", _network_of, [VARCHAR], VARCHAR, null_handling=SPECIAL)
        self._queries: dict[str, Prepared] = {}

    def redact(self, canonical: pa.Table, constants: dict[str, str]) -> Redacted:
        """`canonical`, rows of `canonical_sql` or `plain_sql`, redacted; `constants` are the same in every row."""
        columns = {name: canonical[name] for name in canonical.column_names}
        for given, made in self._made.items():
            if given in columns:
                columns |= self._by_value(given, canonical[given].combine_chunks(), made)
        if "details" in columns:
            columns["details"] = self._details(canonical["details"].combine_chunks())
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
        """`values` as each column that is made of them; a cheap look decides whether any of them needs masking."""
        is_missing = pc.is_in(values, value_set=_MISSING)
        present = pc.if_else(is_missing, pa.scalar(None, pa.string()), values) if pc.any(is_missing).as_py() else values
        suspect = _SUSPECT.get(name)
        if suspect and not pc.any(pc.match_substring_regex(present, suspect)).as_py():
            return [present]
        if name not in self._queries:
            self._queries[name] = Prepared(self._con, f"mask_{name}", _TEXTS, partial(_mask_sql, self._made[name]))
        rows = self._queries[name].run(pa.table({"value": present}))
        return [column.combine_chunks() for column in rows.columns]

    def _details(self, given: pa.Array) -> pa.Array:
        if given.null_count == len(given):
            return given.cast(DETAILS)
        if "details" not in self._queries:
            self._queries["details"] = Prepared(self._con, "mask_details", _DETAILS, _details_sql)
        indices = pa.array(np.flatnonzero(given.is_valid()), pa.int64())
        rows = self._queries["details"].run(pa.table({"value": given.take(indices).cast(DETAILS)}))
        places = np.full(len(given), -1)
        places[indices] = np.arange(len(indices))
        return rows["value"].combine_chunks().cast(DETAILS).take(pa.array(places, mask=places < 0))


_MISSING: Final = pa.array(MISSING)
_TEXTS: Final = pa.schema([pa.field("value", pa.string())])
_DETAILS: Final = pa.schema([pa.field("value", DETAILS)])


def _mask_sql(made: dict[str, str], values: str) -> str:
    columns = (f"{mask} AS {name}" for name, mask in made.items())
    return f"SELECT {', '.join(columns)} FROM (SELECT value, with_plain_ids_folded(value) AS folded FROM {values})"  # noqa: S608 - names of this module


def _details_sql(values: str) -> str:
    masked = "list_transform(value, lambda d: {'field': redact_text(d.field), 'issue': redact_text(d.issue)})"
    return f"SELECT {masked} AS value FROM {values}"  # noqa: S608 - names of this module


_MADE: Final = {
    "request_id": {"request_id": "redact_id(value)"},
    "org_id": {"org_id": "redact_id(value)"},
    "key_id": {"key_id": "redact_id(value)"},
    "presented_key": {"key_hash": "key_hash(value)"},
    "user_agent": {"user_agent": "redact_text(value)"},
    "method": {"method": "http_method(value)"},
    "path": {"route": "route_of(value, folded)", "path": "redact_path(value, folded)"},
    "code": {"code": "redact_code(value)"},
    "message": {"message": "redact_text(value)"},
    "docs_url": {"docs_url": "redact_url(value)"},
    "idempotency_key": {"idempotency_hash": "keyed_hash(value)"},
    "host": {"host": "redact_text(value)"},
    "gateway_reason": {"gateway_reason": "redact_text(value)"},
}
"""Canonical column: the columns of the contract that are made from it, each with the expression that masks it."""

_CLIENT_IPS: Final[dict[ClientIp, str]] = {
    "keep": "address(value)",
    "truncate": "network_of(address(value))",
    "hash": "'#' || keyed_hash(address(value))",
    "drop": "NULL::VARCHAR",
}
"""What the setting `client_ip` makes of an address."""

_SUSPECT_ID: Final = (
    r"[^A-Za-z0-9_:./=-]|_live_|_test_|_prod_|_sandbox_|eyJ|AKIA|ASIA|AIza|gh[pousr]_|xox|SG\.|whsec|^.{129}"
    rf"|{_NAMED}=|^[0-9]{{1,4}}[./-][0-9./-]+$"
)
_SUSPECT: Final = {
    "request_id": _SUSPECT_ID,
    "org_id": _SUSPECT_ID,
    "key_id": _SUSPECT_ID,
    "user_agent": _SUSPICIOUS,
    "method": "[^A-Z]|^.{21}",
    "code": rf"[^A-Za-z0-9_.:/#-]|^.{{65}}|{_SUSPICIOUS}",
    "message": _SUSPICIOUS,
    "docs_url": rf"\?|{_SUSPICIOUS}",
    "host": _SUSPICIOUS,
    "gateway_reason": _SUSPICIOUS,
}
"""What a value matches wherever its mask would change it, and now and then besides. Other columns are all masked."""


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


def name_mask(key: bytes) -> Callable[[str], str]:
    """The function that masks secrets and personal data in the name of a source; what is no UTF-8 becomes U+FFFD."""
    con = duckdb.connect()
    con.execute(MACROS)
    install(con, key)

    def masked(name: str) -> str:
        readable = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if not pc.match_substring_regex(pa.array([readable]), _SUSPICIOUS)[0].as_py():
            return readable
        return str(con.execute("SELECT redact_text(?)", [readable]).fetchall()[0][0])

    return masked


def _blob(data: bytes) -> str:
    return "'" + "".join(f"\\x{byte:02X}" for byte in data) + "'::BLOB"
