"""How each gateway's records are laid out: one TOML file a format, and the same form for a user's own mapping.

Knows the names of fields and their units. Knows neither how a record is parsed nor what becomes of it.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from ingest.schema import BadInput

FIELDS: Final = (
    "ts",
    "request_id",
    "org_id",
    "key_id",
    "api_key",
    "client_ip",
    "user_agent",
    "method",
    "path",
    "request_line",
    "status",
    "retry_after_s",
    "idempotency_key",
    "latency_ms",
    "upstream_ms",
    "upstream_status",
    "response_bytes",
    "host",
    "code",
    "body",
)
"""What a record may say before it is canonical: `api_key` is the presented key, `request_line` METHOD PATH PROTOCOL."""

UNITS: Final[dict[str, tuple[str, ...]]] = {
    "ts": ("epoch", "s", "ms", "us", "ns", "iso8601", "clf"),
    "latency_ms": ("ms", "s", "us", "ns"),
    "upstream_ms": ("ms", "s", "us", "ns"),
}

MISSING: Final = ("", "-")
"""What gateways write for a value that is not there, unless a format says otherwise."""

FieldPath = tuple[str, ...]


@dataclass(frozen=True)
class Format:
    """One log format.

    `columns` gives, for a field, its candidate paths in a JSON record, the first present one winning; a text format has
    `pattern` instead, whose named groups are the fields.
    `signature_any` holds groups of keys, one of each present.
    """

    name: str
    title: str
    layout: Literal["json", "text"]
    ts_is: Literal["start", "end"]
    columns: dict[str, tuple[FieldPath, ...]]
    units: dict[str, str]
    pattern: str = ""
    missing: tuple[str, ...] = MISSING
    signature_all: tuple[str, ...] = ()
    signature_any: tuple[tuple[str, ...], ...] = ()

    def has(self, field: str) -> bool:
        """Whether records of this format may carry `field`."""
        return field in self.columns

    def unit(self, field: str) -> str:
        """The unit of `field`: the first of its `UNITS` where the format names none."""
        return self.units.get(field, UNITS[field][0])


@cache
def formats() -> dict[str, Format]:
    """Every built-in format, by name, in name order."""
    folder = Path(__file__).parent
    return {path.stem: read_format(path) for path in sorted(folder.glob("*.toml"))}


def read_format(path: Path) -> Format:
    """The format that the TOML file at `path` describes; raises BadInput that names the entry at fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot read the mapping file: {getattr(error, 'strerror', None) or error}") from error
    try:
        entries = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: not a TOML file: {error}") from error
    return _format(path, entries)


def _format(path: Path, entries: dict[str, Any]) -> Format:
    known = {"title", "layout", "ts_is", "pattern", "missing", "signature", "columns", "units"}
    _refuse_unknown(path, "entry", set(entries) - known, known)
    layout = _choice(path, entries, "layout", ("json", "text"))
    pattern = str(entries.get("pattern", ""))
    columns: dict[str, tuple[FieldPath, ...]]
    if layout == "text":
        columns = {name: ((name,),) for name in _groups(path, pattern)}
    else:
        columns = {name: _paths(path, name, value) for name, value in _table(path, entries, "columns").items()}
        _refuse_clashes(path, [candidate for candidates in columns.values() for candidate in candidates])
    _refuse_unknown(path, "column", set(columns) - set(FIELDS), set(FIELDS))
    for needed in ("ts", "status"):
        if needed not in columns:
            raise BadInput(f"{path}: expected a path for the column `{needed}` under [columns], found none")
    units = _table(path, entries, "units")
    for name, unit in units.items():
        if unit not in UNITS.get(name, ()):
            raise BadInput(
                f"{path}: [units] {name} = {unit!r}; expected one of {', '.join(UNITS.get(name, ('nothing',)))}"
            )
    signature = _table(path, entries, "signature")
    any_of = signature.get("any", [])
    groups = any_of if isinstance(any_of, list) else [any_of]
    return Format(
        name=path.stem,
        title=str(entries.get("title", path.stem)),
        layout=layout,
        ts_is=_choice(path, entries, "ts_is", ("end", "start")),
        columns=columns,
        units=units,
        pattern=pattern,
        missing=_texts(path, "missing", entries.get("missing", [*MISSING])),
        signature_all=_texts(path, "[signature] all", signature.get("all", [])),
        signature_any=tuple(_texts(path, "[signature] any", group) for group in groups),
    )


def _choice(path: Path, entries: dict[str, Any], name: str, choices: tuple[str, ...]) -> Any:
    value = entries.get(name, choices[0])
    if value not in choices:
        raise BadInput(f"{path}: {name} = {value!r}; expected {' or '.join(choices)}")
    return value


def _table(path: Path, entries: dict[str, Any], name: str) -> dict[str, Any]:
    value = entries.get(name, {})
    if not isinstance(value, dict):
        raise BadInput(f"{path}: {name} = {value!r}; expected a table, [{name}]")
    return value


def _texts(path: Path, name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise BadInput(f"{path}: {name} = {value!r}; expected a list of texts")
    return tuple(value)


def _groups(path: Path, pattern: str) -> list[str]:
    try:
        groups = list(re.compile(pattern).groupindex)
        # Lines are matched by RE2, in DuckDB, and only the odd one by Python.
        pc.match_substring_regex(pa.array([""]), pattern)
    except (re.error, pa.ArrowInvalid) as error:
        raise BadInput(f"{path}: pattern is not a regular expression of RE2: {error}") from error
    return groups


def _paths(path: Path, name: str, value: object) -> tuple[FieldPath, ...]:
    candidates = value if isinstance(value, list) else [value]
    paths = tuple(_keys(candidate) for candidate in candidates if isinstance(candidate, str))
    if not paths or len(paths) < len(candidates) or not all(key for keys in paths for key in keys):
        raise BadInput(
            f"{path}: [columns] {name} = {value!r}; expected a path such as 'response.status', or a list of them"
        )
    return paths


def _keys(path: str) -> FieldPath:
    """The keys of a path; a dot within a key is written as \\. there."""
    return tuple(key.replace("\\.", ".") for key in re.split(r"(?<!\\)\.", path))


def _refuse_clashes(path: Path, paths: list[FieldPath]) -> None:
    """DuckDB reads a key either as a value or as an object, and takes keys that differ in case alone for the same."""
    keys = {keys[: end + 1] for keys in paths for end in range(len(keys))}
    parents = {keys[:end] for keys in paths for end in range(1, len(keys))}
    by_folded = {tuple(key.casefold() for key in found): found for found in sorted(keys)}
    clashes = sorted({keys for keys in paths if keys in parents} | (keys - set(by_folded.values())))
    if clashes:
        raise BadInput(
            f"{path}: [columns] '{'.'.join(clashes[0])}' is a value and leads to another, or differs from another path "
            "in case alone; name one of the two"
        )


def _refuse_unknown(path: Path, kind: str, unknown: set[str], known: set[str]) -> None:
    if unknown:
        raise BadInput(f"{path}: unknown {kind} {', '.join(sorted(unknown))}; expected {', '.join(sorted(known))}")
