"""Entries of ModSecurity's native audit log: where they lie among lines, and what each says, as ModSecurity's own JSON.

Knows how version 2 (apache2/msc_logging.c) and libmodsecurity (src/transaction.cc) lay an entry out: sections between
marks that share a boundary drawn at random for each entry, which whoever calls the API cannot know.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

from ingest.json_text import first_wins
from ingest.wrappers import text_bytes

START: Final = b"--"
"""What every mark starts with."""

_MARK: Final = re.compile(rb"--(-?[0-9A-Za-z]{6,32}(?:--)?)-([A-Z])--")
_HEADER: Final = re.compile(rb"\[([^\]]{20,40})\] (\S{1,128}) (\S{1,64}) (\d{1,5}) (\S{1,64}) (\d{1,5})")
_STATUS_LINE: Final = re.compile(rb"(HTTP/\S{1,8}) (\d{3})(?: .*)?", re.DOTALL)
_STOPWATCH: Final = re.compile(r"\d+ (\d{1,12})\b", re.ASCII)


def entries(lines: Sequence[bytes], *, is_end: bool, most_bytes: int) -> list[tuple[int, int | None]]:
    """The first line of each entry and the line behind its last; None: more of it may follow, unless it `is_end`.

    An entry reaches to its own end mark and the blank line behind that, whatever lies between. One that has no end mark
    within `most_bytes` was torn: it reaches to the next entry, or as far as `most_bytes` do.
    """
    marks = [
        (index, mark) for index, line in enumerate(lines) if line.startswith(START) and (mark := _MARK.fullmatch(line))
    ]
    starts = [(index, mark[1]) for index, mark in marks if mark[2] == b"A" and _is_header_next(lines, index)]
    ends: dict[bytes, list[int]] = {}
    for index, mark in marks:
        if mark[2] == b"Z":
            ends.setdefault(mark[1], []).append(index)
    offsets = list(accumulate(map(len, lines), initial=0))
    found: list[tuple[int, int | None]] = []
    behind = 0
    for number, (start, boundary) in enumerate(starts):
        if start < behind:
            continue
        limit = bisect_right(offsets, offsets[start] + most_bytes)
        end = _first_behind(ends.get(boundary, []), start)
        if end is not None and end < limit:
            behind = end + 1
            is_open = behind == len(lines)
            behind += not is_open and not lines[behind]
        else:
            is_open = limit > len(lines)
            following = starts[number + 1][0] if number + 1 < len(starts) else limit
            behind = min(following, limit, len(lines))
        if is_open and not is_end:
            return [*found, (start, None)]
        found.append((start, behind))
    return found


def _is_header_next(lines: Sequence[bytes], index: int) -> bool:
    return index + 1 == len(lines) or _HEADER.fullmatch(lines[index + 1]) is not None


def _first_behind(indexes: list[int], start: int) -> int | None:
    at = bisect_right(indexes, start)
    return indexes[at] if at < len(indexes) else None


def as_json(entry: bytes) -> bytes | None:
    """The record of a whole entry in the shape of `SecAuditLogFormat JSON` of ModSecurity 2; None for anything else.

    Names of headers are spelled X-Request-Id, however the client or the server wrote them; those whose values were
    sanitised, which are nothing but stars, are left out. `audit_data.duration_us` is the second number of the
    stopwatch, which the JSON of ModSecurity does not have.
    """
    first, *lines = entry.rstrip(b"\n").split(b"\n")
    mark = _MARK.fullmatch(first)
    if mark is None or mark[2] != b"A" or lines[-1:] != [START + mark[1] + b"-Z--"]:
        return None
    sections = _sections(lines, mark[1])
    header = _HEADER.fullmatch(b"".join(sections["A"][:1]))
    if header is None:
        return None
    time, transaction_id, client, client_port, server, server_port = (_text(group) for group in header.groups())
    record = {
        "transaction": {
            "time": time,
            "transaction_id": transaction_id,
            "remote_address": client,
            "remote_port": int(client_port),
            "local_address": server,
            "local_port": int(server_port),
        },
        "request": _request(sections.get("B", [])),
        "response": _response(sections),
        "audit_data": _audit_data(_headers(sections.get("H", []))),
    }
    return text_bytes(json.dumps(record, ensure_ascii=False, separators=(",", ":")))


def _sections(lines: list[bytes], boundary: bytes) -> dict[str, list[bytes]]:
    """The lines of each section, by its letter; `lines` start inside of the first."""
    found: dict[str, list[bytes]] = {}
    section = found.setdefault("A", [])
    for line in lines:
        mark = _MARK.fullmatch(line) if line.startswith(START) else None
        if mark and mark[1] == boundary:
            section = found.setdefault(_text(mark[2]), [])
        else:
            section.append(line)
    return found


def _request(lines: list[bytes]) -> dict[str, Any]:
    return {"request_line": _text(lines[0]), "headers": _headers(lines[1:])} if lines else {}


def _response(sections: dict[str, list[bytes]]) -> dict[str, Any]:
    status_line, *headers = sections.get("F") or [b""]
    found = _STATUS_LINE.fullmatch(status_line)
    status = {"protocol": _text(found[1]), "status": int(found[2])} if found else {}
    body = {"body": _text(b"\n".join(sections["E"]))} if "E" in sections else {}
    return {**status, "headers": _headers(headers), **body}


def _audit_data(trailer: dict[str, str]) -> dict[str, Any]:
    stopwatch = _STOPWATCH.match(trailer.get("Stopwatch", ""))
    duration = {"duration_us": int(stopwatch[1])} if stopwatch else {}
    is_intercepted = trailer.get("Action", "").startswith("Intercepted")
    return {**duration, **({"action": {"intercepted": True}} if is_intercepted else {})}


def _headers(lines: list[bytes]) -> dict[str, str]:
    named = [_text(line).split(":", 1) for line in lines if b":" in line]
    return first_wins([(name.title(), value.strip()) for name, value in named if value.strip(" *")])


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
