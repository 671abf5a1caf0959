"""A mapping to start with, for a log of JSON records in no known format: which of their fields look like what.

Judges values by their form and gives none of them, nor a name that may be personal data itself.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Final

from ingest.formats import FieldPath
from ingest.json_text import object_of
from ingest.times import epoch_unit, micros

_DEEPEST: Final = 4
_MOST_OTHERS: Final = 40
_EARLIEST_S: Final = 946_684_800  # 2000-01-01
_LATEST_S: Final = 4_102_444_800  # 2100-01-01
_PER_SECOND: Final = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"})
_NAME: Final = re.compile(r"[@:]?[A-Za-z_][A-Za-z0-9_.-]{0,39}")


def draft(records: list[str], masked: Callable[[str], str]) -> str:
    """The text of a mapping file for `records`; empty where none of them is a JSON object.

    A column that nothing looks like has a path to be filled in; fields whose use is not to be seen are named in a
    comment. Fields with names that `masked` changes are left out.
    """
    found: dict[FieldPath, list[Any]] = defaultdict(list)
    for record in records:
        for path, value in _leaves(object_of(record)):
            if masked(written(path)) == written(path):
                found[path].append(value)
    # A name that few records have may be a value, such as the name of a customer.
    values = {path: items for path, items in found.items() if 2 * len(items) >= len(records)}
    if not values:
        return ""
    columns = {column: _likeliest(values, is_like) for column, is_like in _LIKE.items()}
    lines = ["[columns]"]
    for column, path in columns.items():
        if path or column in {"ts", "status"}:
            lines.append(f"{column} = {_quoted(written(path)) if path else '...'}")
    others = [written(path) for path in values if path not in columns.values()]
    if others:
        more = f" and {len(others) - _MOST_OTHERS:,} more" if len(others) > _MOST_OTHERS else ""
        lines.append(f"# also there: {', '.join(others[:_MOST_OTHERS])}{more}")
    return "\n".join(lines)


def written(path: FieldPath) -> str:
    """`path` as a format file writes it."""
    parts = (f"[{key}]" if isinstance(key, int) else "." + key.replace(".", "\\.") for key in path)
    return "".join(parts).removeprefix(".")


def _quoted(path: str) -> str:
    return f"'{path}'" if "\\" in path else f'"{path}"'


def _leaves(value: Any, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Any]]:
    """The values in an object that are neither objects nor lists, each with its path."""
    if not isinstance(value, dict) or len(path) == _DEEPEST:
        return
    for key, item in value.items():
        if not _NAME.fullmatch(key):
            continue
        if isinstance(item, dict):
            yield from _leaves(item, (*path, key))
        elif not isinstance(item, list):
            yield (*path, key), item


def _likeliest(values: dict[FieldPath, list[Any]], is_like: Callable[[Any], bool]) -> FieldPath:
    """The field that most records have and whose every value `is_like`; empty where there is none."""
    found = [path for path, items in values.items() if all(map(is_like, items))]
    return max(found, key=lambda path: len(values[path]), default=())


def _is_time(value: Any) -> bool:
    if isinstance(value, str) and micros(value) is not None:
        return True
    number = _number(value)
    return number is not None and _EARLIEST_S <= number / _PER_SECOND[epoch_unit(number)] <= _LATEST_S


def _is_status(value: Any) -> bool:
    number = _number(value)
    return number is not None and number == int(number) and 100 <= number <= 599


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e20 else None


def _is_method(value: Any) -> bool:
    return isinstance(value, str) and value.upper() in _METHODS


def _is_target(value: Any) -> bool:
    return isinstance(value, str) and re.match(r"/|https?://", value) is not None


_LIKE: Final[dict[str, Callable[[Any], bool]]] = {
    "ts": _is_time,
    "status": _is_status,
    "method": _is_method,
    "path": _is_target,
}
