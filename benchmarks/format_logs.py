"""Writes a log of any format that errata reads, for measuring: the same traffic whatever the format.

A line is the format's own sample with the values of a request put where the format has them.
"""

import copy
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ingest import identify
from ingest.formats import FieldPath, Format, formats

_DRAWN: Final = 200_000
_FROM_MS: Final = {"s": 1e-3, "ms": 1.0, "us": 1e3, "ns": 1e6}


def write_log(path: Path, name: str, size: int, *, is_refused: bool = False) -> int:
    """Writes about `size` bytes of the format `name` to `path`: 5 % errors, fixed seed. Gives the number of lines.

    With `is_refused` each line starts with what makes the vectorised lane refuse it.
    """
    layout = formats()[name]
    mark = b"" if not is_refused else b"\xef\xbb\xbf" if layout.layout == "json" else b" "
    block = b"".join(mark + line.encode() + b"\n" for line in _lines(layout, random.Random(7)))
    times = max(1, round(size / len(block)))
    with path.open("wb") as file:
        for _ in range(times):
            file.write(block)
    return times * _DRAWN


def _lines(layout: Format, draw: random.Random) -> Iterator[str]:
    samples = [sample["line"] for sample in layout.samples if "row" in sample]
    good = next((line for line in samples if "rate_limit" in line), samples[0])
    for number in range(_DRAWN):
        yield _line(layout, good, _request(number, draw))


def _request(number: int, draw: random.Random) -> dict[str, Any]:
    is_error = draw.random() < 0.05
    request_id, key = f"req_{draw.getrandbits(96):024x}", draw.randrange(6000)
    envelope = {
        "object": "error",
        "code": "rate_limited",
        "message": "Too many requests for this key. Retry after 3 seconds.",
        "request_id": request_id,
        "docs_url": "https://docs.example.test/errors#rate_limited",
    }
    path = draw.choice(["/v1/messages", f"/v1/messages/msg_{draw.getrandbits(64):016x}", "/v1/contacts", "/v1/numbers"])
    return {
        "ts": 1_793_500_000_000 + number * 40 + draw.randrange(40),
        "request_id": request_id,
        "org_id": f"org_{key // 3:010d}",
        "key_id": f"key_{key:012d}",
        "client_ip": f"10.{key % 250}.{key // 250}.7",
        "user_agent": f"acme-sdk/{draw.randrange(20)}.4.1 (python 3.11; linux)",
        "method": "POST" if is_error else "GET",
        "path": path,
        "status": 429 if is_error else 200,
        "latency_ms": draw.randrange(1, 400),
        "upstream_ms": draw.randrange(1, 400),
        "retry_after_s": "3" if is_error else "",
        "response_bytes": draw.randrange(60, 1200),
        "code": "rate_limited" if is_error else "",
        "body": json.dumps(envelope) if is_error else "",
    }


def _line(layout: Format, sample: str, request: dict[str, Any]) -> str:
    return _json_line(layout, sample, request) if layout.layout == "json" else _text_line(layout, sample, request)


def _json_line(layout: Format, sample: str, request: dict[str, Any]) -> str:
    record = json.loads(sample)
    for name, value in request.items():
        for path in layout.columns.get(name, ()):
            before = identify.value_at(record, path)
            if before is not None:
                _put(record, path, _written(name, value, before, layout))
                break
    return json.dumps(record, separators=(",", ":"))


def _put(record: Any, path: FieldPath, value: Any) -> None:
    *parents, last = path
    for key in parents:
        record = record[key]
    record[last] = value


def _text_line(layout: Format, sample: str, request: dict[str, Any]) -> str:
    match = identify.matched(sample, layout)
    if match is None:
        raise ValueError(f"{layout.name}: its sample does not match its pattern")
    request = request | {"request_line": f"{request['method']} {request['path']} HTTP/1.1"}
    line, end = "", 0
    spans = sorted((match.span(name), name) for name in layout.columns if name in request and match[name])
    for (start, stop), name in spans:
        if start >= end:
            line += sample[end:start] + str(_written(name, request[name], match[name], layout))
            end = stop
    return line + sample[end:]


def _written(name: str, value: Any, before: Any, layout: Format) -> Any:
    """`value` in the type and unit that `before`, the value of the sample, has."""
    if name == "ts":
        value = _time(value, str(before), layout)
    elif name in {"latency_ms", "upstream_ms"}:
        unit = layout.unit(name)
        value = f"{value}ms" if unit == "duration" else round(value * _FROM_MS[unit], 3)
        value = int(value) if isinstance(value, float) and "." not in str(before) else value
    elif name == "body" and isinstance(before, dict):
        value = json.loads(value) if value else None
    elif name == "body" and layout.layout == "text":
        value = json.dumps(value)[1:-1]
    if isinstance(before, str):
        return value if isinstance(value, str) else str(value)
    return copy.copy(value)


def _time(value_ms: int, before: str, layout: Format) -> Any:
    unit = layout.unit("ts")
    if unit == "epoch":
        digits = len(before.partition(".")[0])
        unit = {10: "s", 13: "ms", 16: "us", 19: "ns"}.get(digits, "text")
    if unit in _FROM_MS:
        number = value_ms * _FROM_MS[unit]
        return number if unit == "s" else int(number)
    moment = datetime.fromtimestamp(value_ms / 1000, UTC)
    if before[2:3] == "/":
        return moment.strftime("%d/%b/%Y:%H:%M:%S") + (f".{value_ms % 1000:03d}" if before[20:21] == "." else " +0000")
    if "%" in unit:
        return moment.strftime(unit.replace("%g", f"{value_ms % 1000:03d}"))
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + f".{value_ms % 1000:03d}Z"
