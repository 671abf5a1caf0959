"""Records out of what carried them: the lines of container runtimes, syslog and log shippers, and JSON around records.

Takes off one layer, and puts records together again that lie on several lines. Knows no gateway's format; whoever calls
asks the formats first, since the export of CloudWatch is no more than a time before the record.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from ingest import audit
from ingest.json_text import DECODER
from ingest.wrappers import ZIPPED, Inner, epoch_us, fluent_text, from_array, from_object, iso_us, text_bytes

__all__ = ["ZIPPED", "Inner", "Joined", "join", "unwrap"]

Unwrapped = tuple[str, list[Inner]]


def unwrap(record: bytes, *, is_unzipped: bool = False) -> Unwrapped | None:
    """The wrapper's name and what it held; None where `record` is no wrapper's. Never raises, whatever the bytes.

    An empty list: a control message, which holds no record. Bytes that a wrapper holds as they are stay as they are.
    What came out of the wrapper `ZIPPED` `is_unzipped`, and is not unzipped once more: a line would hold millions.
    """
    start = record[:1]
    if start in _BLANK:
        record = record.removeprefix(b"\xef\xbb\xbf").lstrip()
        start = record[:1]
    try:
        for held in _UNZIPPED_OBJECT if is_unzipped and start == b"{" else _BY_START.get(start, _TEXTS):
            found = held(record)
            if found is not None:
                return found
    except (ValueError, RecursionError, OverflowError):
        return None
    return None


_BLANK: Final = frozenset({b"\xef", b" ", b"\t", b"\r", b"\n"})


def _one(name: str, data: bytes, received_us: int | None) -> Unwrapped:
    return name, [Inner(data.removesuffix(b"\n"), received_us)]


def _stamp_us(stamp: bytes) -> int | None:
    return iso_us(stamp.decode("ascii", "replace"))


_DOCKER_START: Final = b'{"log":"'
_DOCKER_AFTER: Final = b'","stream":"'
_DOCKER_REST: Final = re.compile(
    rb'","stream":"(stdout|stderr)",(?:"attrs":\{(?:[^"{}]|"(?:[^"\\]|\\.)*")*\},)?"time":"([^"\\]*)"\}\s*', re.DOTALL
)


def _docker_line(record: bytes) -> Unwrapped | None:
    """A line as Docker lays it out, in half the time that reading its JSON takes; None for another."""
    end = record.find(_DOCKER_AFTER, len(_DOCKER_START)) if record.startswith(_DOCKER_START) else -1
    rest = _DOCKER_REST.fullmatch(record, end) if end > 0 else None
    received_us = _stamp_us(rest[2]) if rest else None
    text = _unescaped(record[len(_DOCKER_START) : end]) if received_us is not None else None
    return None if text is None else ("docker", [Inner(text, received_us)])


def _unescaped(inside: bytes) -> bytes | None:
    """The text that the inside of a JSON string stands for; None where more is escaped in it than quotes."""
    inside = inside.removesuffix(b"\\n")
    quotes = inside.count(b'\\"')
    is_plain = inside.count(b'"') == quotes and inside.count(b"\\") == quotes
    return inside.translate(None, b"\\") if is_plain else None


def _json_object(record: bytes, *, is_unzipped: bool = False) -> Unwrapped | None:
    value = DECODER.decode(record.decode("utf-8", "surrogateescape"))
    return from_object(value, is_unzipped=is_unzipped) if isinstance(value, dict) else None


def _json_array(record: bytes) -> Unwrapped | None:
    value = DECODER.decode(record.decode("utf-8", "surrogateescape"))
    return from_array(value) if isinstance(value, list) else None


def _cri(record: bytes) -> Unwrapped | None:
    fields = record.split(b" ", 3)
    if len(fields) < 3 or fields[1] not in _STREAMS or not _is_cri_tag(fields[2]):
        return None
    received_us = _stamp_us(fields[0])
    return None if received_us is None else _one("cri", fields[3] if len(fields) == 4 else b"", received_us)


_STREAMS: Final = (b"stdout", b"stderr")


def _is_cri_tag(tag: bytes) -> bool:
    return tag in (b"F", b"P") or tag.startswith((b"F:", b"P:"))


_ISO: Final = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)"
# RFC 3164, 4.1, with the stamp of rsyslog's file format as well.
_SYSLOG_3164: Final = re.compile(
    rb"(<(?:\d\d?|1[0-8]\d|19[01])>)?"
    rb"(?:(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ 0-3]\d \d\d:\d\d:\d\d|(" + _ISO + rb")) "
    rb'(?:([^\s"{\[\]]{0,254}[^\s"{\[\]:]) )?'
    rb'(?:([^\s"{:\[\]]{1,64})(?:\[[^\s\]]{1,32}\]: ?|: |:$)|(?(1)(?=\{)|(?!)))'
)
# Applications log a time, a level and a colon as well.
_LEVELS: Final = (
    *(b"trace", b"debug", b"info", b"notice", b"warn", b"warning"),
    *(b"err", b"error", b"crit", b"critical", b"fatal", b"panic"),
)
# RFC 5424, 6. A bracket inside the quotes of a parameter should be escaped, and not everyone does.
_SYSLOG_5424: Final = re.compile(
    rb"<(?:\d\d?|1[0-8]\d|19[01])>1 (-|" + _ISO + rb") \S{1,255} \S{1,48} \S{1,128} \S{1,32} "
    rb'(?:-|(?:\[[^\s=\]"]{1,32}(?: [^\s=\]"]{1,32}="(?:[^"\\]|\\.)*+")*+\])++)(?: (?:\xef\xbb\xbf)?|$)',
    re.DOTALL,
)


def _syslog_3164(record: bytes) -> Unwrapped | None:
    header = _SYSLOG_3164.match(record)
    if header is None:
        return None
    priority, stamp, host, tag = header.groups(b"")
    if not (priority or host) or host.lower() in _LEVELS or tag.lower() in _LEVELS:
        return None
    return _one("syslog_3164", record[header.end() :], _stamp_us(stamp))


def _syslog_5424(record: bytes) -> Unwrapped | None:
    header = _SYSLOG_5424.match(record)
    return _one("syslog_5424", record[header.end() :], _stamp_us(header[1])) if header else None


_FLUENTD: Final = re.compile(rb"([^\t ]{19,40})\t[^\s\"]{1,255}\t(?=\{)")
_FLUENT_BIT: Final = re.compile(
    rb'[^\s"{}\[\]]{1,255}: \[(?:(\d{1,12}(?:\.\d{1,9})?)|\[(\d{1,12}(?:\.\d{1,9})?), ?\{[^{}]*\}\]), ?(\{.*\})\]\s*',
    re.DOTALL,
)


def _fluentd(record: bytes) -> Unwrapped | None:
    header = _FLUENTD.match(record)
    received_us = _stamp_us(header[1]) if header else None
    if header is None or received_us is None:
        return None
    return "fluentd", [Inner(_fluent_record(record[header.end() :]), received_us)]


def _fluent_bit(record: bytes) -> Unwrapped | None:
    line = _FLUENT_BIT.fullmatch(record)
    if not line:
        return None
    received_us = epoch_us(float(line[1] or line[2]), 1)
    return "fluent_bit", [Inner(_fluent_record(line[3]), received_us)]


def _fluent_record(record: bytes) -> bytes:
    """A record of Fluent's as the line that it stands for, or else as it is."""
    try:
        value = DECODER.decode(record.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return record
    text = fluent_text(value)
    return record.removesuffix(b"\n") if text is None else text_bytes(text)


_EXPORTED: Final = re.compile(rb"(?:(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)|(1\d{12})) (?=\S)")


def _cloudwatch_export(record: bytes) -> Unwrapped | None:
    header = _EXPORTED.match(record)
    if not header:
        return None
    received_us = _stamp_us(header[1]) if header[1] else epoch_us(int(header[2]), 1000)
    return None if received_us is None else _one("cloudwatch_export", record[header.end() :], received_us)


def _modsecurity(record: bytes) -> Unwrapped | None:
    found = audit.as_json(record)
    return None if found is None else ("modsecurity", [Inner(found, None)])


_Held = Callable[[bytes], Unwrapped | None]
_TEXTS: Final[tuple[_Held, ...]] = (_syslog_3164, _fluent_bit)
_BY_START: Final[dict[bytes, tuple[_Held, ...]]] = {
    b"": (),
    b"{": (_docker_line, _json_object),
    b"[": (_json_array,),
    b"-": (_modsecurity, *_TEXTS),
    b"<": (_syslog_5424, _syslog_3164),
    **{b"%d" % digit: (_cri, _fluentd, _syslog_3164, _cloudwatch_export, _fluent_bit) for digit in range(10)},
}
_UNZIPPED_OBJECT: Final[tuple[_Held, ...]] = (_docker_line, partial(_json_object, is_unzipped=True))


@dataclass(frozen=True, slots=True)
class Joined:
    """The lines of a part of a log with split records put together again. `records[i]` starts on line `first[i]` of the
    part. From line `open_from` on (None: nowhere) a record is not whole yet.
    """

    records: list[bytes]
    first: list[int]
    open_from: int | None


def join(lines: Sequence[bytes], *, is_end: bool) -> Joined:
    """The records on `lines`, which are without their ends: the chunks of Docker and CRI are joined, stream by stream,
    and the lines of an entry of ModSecurity's audit log.

    Joined chunks are a line of the same wrapper, with the header of the last; joined lines keep the line ends between
    them. Whoever calls gives the lines from `open_from` on again with more after them, or says with `is_end` that no
    more follow: then a record that is not whole is given as it is. So is one that does not end within
    `MOST_OPEN_BYTES` of lines.
    """
    if not any(line.startswith(audit.START) for line in lines):
        return _with_chunks_joined(lines, is_end=is_end)
    records: list[bytes] = []
    first: list[int] = []
    behind, open_from = 0, None
    for start, end in audit.entries(lines, is_end=is_end, most_bytes=MOST_OPEN_BYTES):
        records += lines[behind:start]
        first += range(behind, start)
        if end is None:
            behind, open_from = len(lines), start
            break
        records.append(b"\n".join(lines[start:end]))
        first.append(start)
        behind = end
    records += lines[behind:]
    first += range(behind, len(lines))
    joined = _with_chunks_joined(records, is_end=is_end)
    open_from = open_from if joined.open_from is None else first[joined.open_from]
    return Joined(joined.records, [first[index] for index in joined.first], open_from)


def _with_chunks_joined(lines: Sequence[bytes], *, is_end: bool) -> Joined:
    splits = {index for index, line in enumerate(lines) if _may_be_split(line)}
    if not splits:
        return Joined(list(lines), list(range(len(lines))), None)
    records: list[bytes | None] = list(lines)
    opened: dict[bytes, _Opened] = {}
    closed: list[_Opened] = []
    for index, line in enumerate(lines):
        if not opened and index not in splits:
            continue
        for stream in [stream for stream, record in opened.items() if record.passed > MOST_OPEN_BYTES]:
            closed.append(opened.pop(stream))
        chunk = _chunk(line)
        if chunk and (chunk.stream in opened or not chunk.is_last):
            record = opened.setdefault(chunk.stream, _Opened(index, index))
            record.chunks.append(chunk)
            record.last = index
            records[index] = None
            if chunk.is_last:
                closed.append(opened.pop(chunk.stream))
        for record in opened.values():
            record.passed += len(line)
    if is_end:
        closed += opened.values()
        opened = {}
    for record in closed:
        records[record.first] = record.line()
    open_from = _open_from(opened.values(), closed)
    whole = [(index, record) for index, record in enumerate(records[:open_from]) if record is not None]
    return Joined([record for _, record in whole], [index for index, _ in whole], open_from)


MOST_OPEN_BYTES: Final = 1 << 24
"""A container that dies inside a record never ends it; that must not hold up the log behind it for good."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    stream: bytes
    is_last: bool
    before: bytes
    text: bytes
    after: bytes


@dataclass(slots=True)
class _Opened:
    """A record that is not known to be whole: its first and last lines, and the bytes of lines since it began."""

    first: int
    last: int
    passed: int = 0
    chunks: list[_Chunk] = field(default_factory=list)

    def line(self) -> bytes:
        end = self.chunks[-1]
        return b"".join([end.before, *(chunk.text for chunk in self.chunks), end.after])


def _open_from(opened: Iterable[_Opened], closed: Iterable[_Opened]) -> int | None:
    """The first line that has to be given again: of an open record, and of those that lines of it lie between."""
    open_from = min((record.first for record in opened), default=None)
    for record in sorted(closed, key=lambda record: record.last, reverse=True):
        if open_from is not None and record.first < open_from <= record.last:
            open_from = record.first
    return open_from


def _may_be_split(line: bytes) -> bool:
    """Whether a line may be a chunk that is not the last of its record; cheap, since every line is asked."""
    if line.startswith(_DOCKER_START):
        end = line.find(b'\\n","stream":"')
        return end < 0 or line[end - 1 : end] == b"\\"
    return b" P" in line[26:46] and line[:1].isdigit()


def _chunk(line: bytes) -> _Chunk | None:
    return _docker_chunk(line) if line.startswith(_DOCKER_START) else _cri_chunk(line)


def _docker_chunk(line: bytes) -> _Chunk | None:
    end = line.find(_DOCKER_AFTER, len(_DOCKER_START))
    rest = _DOCKER_REST.fullmatch(line, end) if end > 0 else None
    if rest is None or _stamp_us(rest[2]) is None:
        return None
    text = line[len(_DOCKER_START) : end]
    backslashes = len(text) - 1 - len(text[:-1].rstrip(b"\\"))
    return _Chunk(b"docker " + rest[1], text.endswith(b"n") and backslashes % 2 == 1, _DOCKER_START, text, line[end:])


def _cri_chunk(line: bytes) -> _Chunk | None:
    fields = line.split(b" ", 3)
    if len(fields) < 3 or fields[1] not in _STREAMS or not _is_cri_tag(fields[2]) or _stamp_us(fields[0]) is None:
        return None
    text = fields[3] if len(fields) == 4 else b""
    return _Chunk(fields[1], fields[2].startswith(b"F"), b" ".join([*fields[:3], b""]), text, b"")
