"""How each gateway's records are laid out: one TOML file a format, and the same form for a user's own mapping.

Knows the names of fields and their units. Knows neither how a record is parsed nor what becomes of it.
"""

import re
import tomllib
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from ingest.schema import BadInput

FIELDS: Final = (
    "ts",
    "started",
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
    "recipient",
    "latency_ms",
    "transfer_ms",
    "upstream_ms",
    "upstream_status",
    "answered_by",
    "gateway_reason",
    "response_bytes",
    "host",
    "code",
    "body",
)
"""What a record may say before it is canonical.

`api_key` is the presented key, `recipient` the number or address that an error is about (or a hash of it),
`request_line` METHOD PATH PROTOCOL, `started` the begin of the request beside its end, `transfer_ms` a part of the
latency that `latency_ms` leaves out, `answered_by` a word for who made the response, and `gateway_reason` the gateway's
own word for why it answered itself.
"""

_DURATIONS: Final = ("ms", "s", "us", "ns", "duration")
UNITS: Final[dict[str, tuple[str, ...]]] = {
    "ts": ("epoch", "s", "ms", "us", "ns", "iso8601", "clf"),
    "latency_ms": _DURATIONS,
    "transfer_ms": _DURATIONS,
    "upstream_ms": _DURATIONS,
    "client_ip": ("ip", "address"),
    "path": ("target", "bare"),
}
"""The units of a field, the default first. `ts` may also be a pattern of strptime; `started` is in the unit of `ts`.

`duration` is a number with its unit behind it (4.5ms), `address` an IP with a port or a list whose first is the client,
`bare` a path without its leading slash.
"""

CONFIDENCES: Final = ("certain", "high", "medium", "low")
"""How surely a signature names its format; the surest are asked first."""

MISSING: Final = ("", "-")
"""What gateways write for a value that is not there, unless a format says otherwise."""

FieldPath = tuple[str | int, ...]
"""The keys that lead to a value of a JSON record; a number is a place in a list, from 0."""


@dataclass(frozen=True)
class Signature:
    """What a JSON record of a format has: every path of `all_of`, one of each group of `any_of`,
    and the texts of `equals`."""

    all_of: tuple[FieldPath, ...] = ()
    any_of: tuple[tuple[FieldPath, ...], ...] = ()
    equals: tuple[tuple[FieldPath, str], ...] = ()


@dataclass(frozen=True)
class Format:
    """One log format.

    `columns` gives, for a field, its candidate paths in a JSON record, the first that is not missing winning; a text
    format has `pattern` instead, whose named groups are the fields. A W3C log (`#Fields:`) names a column of it as the
    only key of a path. `lacks` names what no record of the format says and no row can do without: ts or status.
    `is_given` says that a person chose it, so that no record is taken for one of another format.
    Statuses in `no_response` mean that the client was gone before it was sent one. `docs` and `samples` are for people
    and tests.
    """

    name: str
    title: str
    layout: Literal["json", "text", "w3c"]
    ts_is: Literal["start", "end"]
    columns: dict[str, tuple[FieldPath, ...]]
    units: dict[str, str]
    pattern: str = ""
    missing: tuple[str, ...] = MISSING
    confidence: str = CONFIDENCES[0]
    signature: Signature = Signature()
    lacks: str = ""
    no_response: tuple[str, ...] = ()
    percent_encoded: tuple[str, ...] = ()
    by_upstream: tuple[str, ...] = ()
    by_gateway: tuple[str, ...] = ()
    time_zone: str = "UTC"
    is_given: bool = False
    docs: dict[str, str] = field(default_factory=dict, compare=False)
    samples: tuple[dict[str, Any], ...] = field(default=(), compare=False)

    @cached_property
    def keys(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The fields of a JSON record whose candidates are all keys of the record itself, each with those keys."""
        flat = ((name, paths) for name, paths in self.columns.items() if all(len(path) == 1 for path in paths))
        return tuple((name, tuple(str(path[0]) for path in paths)) for name, paths in flat)

    @cached_property
    def nested(self) -> tuple[tuple[str, tuple[FieldPath, ...]], ...]:
        """The other fields of a JSON record, each with its candidates."""
        return tuple((name, paths) for name, paths in self.columns.items() if any(len(path) > 1 for path in paths))

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
    # Tests check the patterns of these; compiling them all would take longer than reading the files.
    return {path.stem: _read(path, is_checked=False) for path in sorted(folder.glob("*.toml"))}


def read_format(path: Path) -> Format:
    """The format that the TOML file at `path` describes; raises BadInput that names the entry at fault."""
    return _read(path, is_checked=True)


def _read(path: Path, *, is_checked: bool) -> Format:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot read the mapping file: {getattr(error, 'strerror', None) or error}") from error
    try:
        entries = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: not a TOML file: {error}") from error
    if is_checked and "pattern" in entries:
        _check_pattern(path, str(entries["pattern"]))
    return _format(path, entries)


_ENTRIES: Final = frozenset(
    {
        *("title", "layout", "ts_is", "pattern", "missing", "confidence", "signature", "columns", "units", "lacks"),
        *("no_response", "percent_encoded", "answered_by", "time_zone", "docs", "samples"),
    }
)


def _format(path: Path, entries: dict[str, Any]) -> Format:
    _refuse_unknown(path, "entry", set(entries) - _ENTRIES, set(_ENTRIES))
    layout = _choice(path, entries, "layout", ("json", "text", "w3c"))
    pattern = str(entries.get("pattern", ""))
    lacks = _choice(path, entries, "lacks", ("", "ts", "status"))
    columns: dict[str, tuple[FieldPath, ...]]
    if layout == "text":
        columns = {name: ((name,),) for name in re.findall(r"\(\?P<(\w+)>", pattern)}
    else:
        read = _paths if layout == "json" else _names
        columns = {name: read(path, name, value) for name, value in _table(path, entries, "columns").items()}
    if layout == "json":
        _refuse_clashes(path, [candidate for candidates in columns.values() for candidate in candidates])
    _refuse_unknown(path, "column", set(columns) - set(FIELDS), set(FIELDS))
    for needed in ("ts", "status"):
        if needed not in columns and needed != lacks:
            raise BadInput(f"{path}: expected a path for the column `{needed}` under [columns], found none")
    answered_by = _table(path, entries, "answered_by")
    return Format(
        name=path.stem,
        title=str(entries.get("title", path.stem)),
        layout=layout,
        ts_is=_choice(path, entries, "ts_is", ("end", "start")),
        columns=columns,
        units=_units(path, entries),
        pattern=pattern,
        missing=_texts(path, "missing", entries.get("missing", [*MISSING])),
        confidence=_choice(path, entries, "confidence", CONFIDENCES),
        signature=_signature(path, _table(path, entries, "signature")),
        lacks=lacks,
        no_response=_texts(path, "no_response", entries.get("no_response", [])),
        percent_encoded=_texts(path, "percent_encoded", entries.get("percent_encoded", [])),
        by_upstream=_texts(path, "[answered_by] upstream", answered_by.get("upstream", [])),
        by_gateway=_texts(path, "[answered_by] gateway", answered_by.get("gateway", [])),
        time_zone=_time_zone(path, entries),
        docs=_table(path, entries, "docs"),
        samples=tuple(entries.get("samples", [])),
    )


def _units(path: Path, entries: dict[str, Any]) -> dict[str, str]:
    units = _table(path, entries, "units")
    for name, unit in units.items():
        if unit not in UNITS.get(name, ()) and not (name == "ts" and "%" in str(unit)):
            raise BadInput(
                f"{path}: [units] {name} = {unit!r}; expected one of {', '.join(UNITS.get(name, ('nothing',)))}"
            )
    return units


def _signature(path: Path, entries: dict[str, Any]) -> Signature:
    _refuse_unknown(path, "entry of [signature]", set(entries) - {"all", "any", "equals"}, {"all", "any", "equals"})
    any_of = entries.get("any", [])
    groups = any_of if isinstance(any_of, list) else [any_of]
    return Signature(
        tuple(map(_keys, _texts(path, "[signature] all", entries.get("all", [])))),
        tuple(tuple(map(_keys, _texts(path, "[signature] any", group))) for group in groups),
        tuple((_keys(key), str(text)) for key, text in _table(path, entries, "equals").items()),
    )


def _time_zone(path: Path, entries: dict[str, Any]) -> str:
    name = str(entries.get("time_zone", "UTC"))
    check_time_zone(name, f"{path}: time_zone")
    return name


def check_time_zone(name: str, where: str) -> None:
    """Raises BadInput, with `where` it was named, for a time zone that does not exist."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise BadInput(f"{where} = {name!r}; expected a name such as Europe/Berlin") from error


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


def _check_pattern(path: Path, pattern: str) -> None:
    try:
        re.compile(pattern)
        # Lines are matched by RE2, in DuckDB, and only the odd one by Python.
        pc.match_substring_regex(pa.array([""]), pattern)
    except (re.error, pa.ArrowInvalid) as error:
        raise BadInput(f"{path}: pattern is not a regular expression of RE2: {error}") from error


def _paths(path: Path, name: str, value: object) -> tuple[FieldPath, ...]:
    candidates = value if isinstance(value, list) else [value]
    paths = tuple(_keys(candidate) for candidate in candidates if isinstance(candidate, str))
    if not paths or len(paths) < len(candidates) or "" in {key for keys in paths for key in keys}:
        raise BadInput(
            f"{path}: [columns] {name} = {value!r}; expected a path such as 'response.status', or a list of them"
        )
    return paths


def _names(path: Path, name: str, value: object) -> tuple[FieldPath, ...]:
    """The columns of a W3C log, whose names are no paths."""
    return tuple(
        (candidate,) for candidate in _texts(path, f"[columns] {name}", value if isinstance(value, list) else [value])
    )


def _keys(path: str) -> FieldPath:
    """The keys of a path: a dot within a key is written as \\. there, a place in a list as [0] behind its key."""
    keys: list[str | int] = []
    for part in re.split(r"(?<!\\)\.", path):
        key, places = re.fullmatch(r"(.*?)((?:\[\d+\])*)", part, re.DOTALL).groups()  # type: ignore[union-attr] # matches any text
        keys += [key.replace("\\.", "."), *(int(place) for place in re.findall(r"\d+", places))]
    return tuple(keys)


def shown(path: FieldPath) -> str:
    """A path as it is written in a format's file."""
    return "".join(f"[{key}]" if isinstance(key, int) else "." + key.replace(".", "\\.") for key in path)[1:]


def _refuse_clashes(path: Path, paths: list[FieldPath]) -> None:
    """DuckDB reads a key either as a value or as an object, and takes keys that differ in case alone for the same."""
    keys = {keys[: end + 1] for keys in paths for end in range(len(keys))}
    parents = {keys[:end] for keys in paths for end in range(1, len(keys))}
    by_folded = {tuple(str(key).casefold() for key in found): found for found in sorted(keys, key=shown)}
    clashes = sorted({keys for keys in paths if keys in parents} | (keys - set(by_folded.values())), key=shown)
    if clashes:
        raise BadInput(
            f"{path}: [columns] '{shown(clashes[0])}' is a value and leads to another, or differs from another path "
            "in case alone; name one of the two"
        )


def _refuse_unknown(path: Path, kind: str, unknown: set[str], known: set[str]) -> None:
    if unknown:
        raise BadInput(f"{path}: unknown {kind} {', '.join(sorted(unknown))}; expected {', '.join(sorted(known))}")
