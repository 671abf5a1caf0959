"""How each gateway's records are laid out: one TOML file a format, and the same form for a user's own mapping.

Knows the names of fields and their units. Knows neither how a record is parsed nor what becomes of it.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

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
    `pattern` instead, whose named groups are the fields. `has_same_keys`: every record of a log has the same keys.
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
    has_same_keys: bool = False
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
    known = {"title", "layout", "ts_is", "pattern", "missing", "same_keys", "signature", "columns", "units"}
    _refuse_unknown(path, "entry", set(entries) - known, known)
    layout = _choice(path, entries, "layout", ("json", "text"))
    pattern = entries.get("pattern", "")
    columns: dict[str, tuple[FieldPath, ...]]
    if layout == "text":
        columns = {name: ((name,),) for name in _groups(path, pattern)}
    else:
        columns = {name: _paths(path, name, value) for name, value in entries.get("columns", {}).items()}
    _refuse_unknown(path, "column", set(columns) - set(FIELDS), set(FIELDS))
    for needed in ("ts", "status"):
        if needed not in columns:
            raise BadInput(f"{path}: expected a path for the column `{needed}` under [columns], found none")
    units = entries.get("units", {})
    for name, unit in units.items():
        if unit not in UNITS.get(name, ()):
            raise BadInput(
                f"{path}: [units] {name} = {unit!r}; expected one of {', '.join(UNITS.get(name, ('nothing',)))}"
            )
    signature = entries.get("signature", {})
    return Format(
        name=path.stem,
        title=str(entries.get("title", path.stem)),
        layout=layout,
        ts_is=_choice(path, entries, "ts_is", ("end", "start")),
        columns=columns,
        units=units,
        pattern=pattern,
        has_same_keys=bool(entries.get("same_keys", False)),
        missing=tuple(entries.get("missing", MISSING)),
        signature_all=tuple(signature.get("all", ())),
        signature_any=tuple(tuple(group) for group in signature.get("any", ())),
    )


def _choice(path: Path, entries: dict[str, Any], name: str, choices: tuple[str, ...]) -> Any:
    value = entries.get(name, choices[0])
    if value not in choices:
        raise BadInput(f"{path}: {name} = {value!r}; expected {' or '.join(choices)}")
    return value


def _groups(path: Path, pattern: str) -> list[str]:
    try:
        return list(re.compile(pattern).groupindex)
    except re.error as error:
        raise BadInput(f"{path}: pattern is not a regular expression: {error}") from error


def _paths(path: Path, name: str, value: object) -> tuple[FieldPath, ...]:
    candidates = value if isinstance(value, list) else [value]
    if not candidates or not all(candidate and isinstance(candidate, str) for candidate in candidates):
        raise BadInput(
            f"{path}: [columns] {name} = {value!r}; expected a path such as 'response.status', or a list of them"
        )
    return tuple(tuple(re.split(r"(?<!\\)\.", str(candidate))) for candidate in candidates)


def _refuse_unknown(path: Path, kind: str, unknown: set[str], known: set[str]) -> None:
    if unknown:
        raise BadInput(f"{path}: unknown {kind} {', '.join(sorted(unknown))}; expected {', '.join(sorted(known))}")
