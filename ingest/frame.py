"""A source -> stretches of it with the records in them: lines, what lines carry, or JSON values one after another.

Knows how records are laid out in bytes. Knows no format.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ingest.documents import Document, split
from ingest.source import CHUNK_BYTES, LONGEST_LINE, TAIL_BYTES, Chunk, Reader
from ingest.unwrap import ZIPPED, Inner, join, unwrap

LayOut = Literal["lines", "wrapped", "documents"]


@dataclass(frozen=True)
class Frame:
    """How records lie in a source: every line is one, lines carry them in `layers` wrappers, or JSON values follow each
    other whatever the line ends.
    """

    lay_out: LayOut = "lines"
    layers: int = 0


@dataclass(frozen=True)
class Places:
    """Where records come from: the line and byte that each starts at, its length there, and when a wrapper received it
    (UTC epoch microseconds, None where none says).
    """

    lines: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    received_us: list[int | None]


@dataclass(frozen=True)
class Part:
    """A stretch of a source: its records as the lines of a chunk, and how far it reaches.

    `lines` counts for the law lines = requests + rejects + skipped: a line that several records start on counts for
    each. `is_ended` is False where the source stopped inside of the last record. Without `places` every line is one.
    """

    records: Chunk
    lines: int
    next_line: int
    byte_end: int
    tail: bytes
    is_ended: bool
    places: Places | None = None


def parts(reader: Reader, frame: Frame, first_line: int) -> Iterator[Part]:
    """The rest of `reader`, which stands at the start of `first_line`."""
    match frame.lay_out:
        case "lines":
            yield from map(of_lines, reader.chunks(first_line))
        case "wrapped":
            yield from _wrapped(reader, frame.layers, first_line)
        case "documents":
            yield from _documents(reader, frame.layers, first_line)


def of_lines(chunk: Chunk) -> Part:
    """The part whose every line is a record."""
    return Part(chunk, len(chunk), chunk.first_line + len(chunk), chunk.byte_end, chunk.tail, chunk.is_ended)


def _wrapped(reader: Reader, layers: int, first_line: int) -> Iterator[Part]:
    """Parts that end where no record is split: what is open at the end of one is read again with what follows."""
    rest: list[bytes] = []
    line, offset = first_line, reader.position
    for chunk in reader.chunks(first_line):
        if chunk.overlong:
            if rest:
                yield _carried(rest, layers, line, offset, is_end=True)[0]
            yield of_lines(chunk)
            rest, line, offset = [], chunk.first_line + 1, chunk.byte_end
            continue
        is_too_long = sum(map(len, rest)) > LONGEST_LINE
        part, rest = _carried(rest + _lines(chunk), layers, line, offset, is_end=is_too_long)
        line, offset = part.next_line, part.byte_end
        if part.lines:
            yield part
    if rest:
        yield replace(_carried(rest, layers, line, offset, is_end=True)[0], is_ended=False)


def _lines(chunk: Chunk) -> list[bytes]:
    """The lines of `chunk` with their ends."""
    *ended, last = chunk.data[: chunk.starts[-1]].tobytes().split(b"\n")
    lines = [line + b"\n" for line in ended]
    return [*lines, last] if last else lines


def _carried(
    lines: list[bytes], layers: int, first_line: int, offset: int, *, is_end: bool
) -> tuple[Part, list[bytes]]:
    """The part of `lines` up to the first that belongs to a record which is not whole, and the lines from there on.

    With `is_end` whoever calls gives up on what is not whole.
    """
    bare = [line.rstrip(b"\r\n") for line in lines]
    # A log that was emptied under its writer has a hole before its next line.
    joined = join([line.lstrip(b"\0") for line in bare], is_end=is_end)
    read = len(lines) if joined.open_from is None else joined.open_from
    starts = np.cumsum([0, *map(len, lines)])
    found = [
        (inner, at)
        for record, at in zip(joined.records, joined.first, strict=True)
        for inner in _inside(Inner(record, None), layers)
    ]
    at = np.array([at for _, at in found], np.int64)
    lengths = np.array([len(bare[index]) for index in at], np.int64)
    places = Places(first_line + at, offset + starts[at], lengths, [inner.received_us for inner, _ in found])
    part = Part(
        _as_chunk([inner.data for inner, _ in found]),
        read + len(at) - len(np.unique(at)),
        first_line + read,
        offset + int(starts[read]),
        _tail(lines[:read]),
        not read or lines[read - 1].endswith(b"\n"),
        places,
    )
    return part, lines[read:]


def _tail(lines: Sequence[bytes]) -> bytes:
    """The last `TAIL_BYTES` of `lines`."""
    tail = b""
    for line in reversed(lines):
        tail = line + tail
        if len(tail) >= TAIL_BYTES:
            break
    return tail[-TAIL_BYTES:]


def _inside(carrier: Inner, layers: int, *, is_unzipped: bool = False) -> list[Inner]:
    """What `carrier` holds; itself where it is no wrapper's record, or one that lost what it held."""
    found = unwrap(carrier.data, is_unzipped=is_unzipped) if layers else None
    if found is None or (found[1] and not found[1][0].data):
        return [carrier]
    return [
        deepest
        for inner in found[1]
        for deepest in _inside(
            Inner(inner.data, carrier.received_us if inner.received_us is None else inner.received_us),
            layers - 1,
            is_unzipped=is_unzipped or found[0] == ZIPPED,
        )
    ]


def _documents(reader: Reader, layers: int, first_line: int) -> Iterator[Part]:
    """Parts that end where a JSON value does."""
    data, line, offset, is_begun = b"", first_line, reader.position, False
    while fresh := reader.take(CHUNK_BYTES):
        data += fresh
        found = split(data, is_end=False)
        if len(data) - found[1] > LONGEST_LINE + CHUNK_BYTES:
            found = _given_up(data)
        part, is_begun = _values(data, found, layers, line, offset, is_begun=is_begun)
        if part.byte_end > offset:
            yield part
        data, line, offset = data[part.byte_end - offset :], part.next_line, part.byte_end
    if data:
        part, _ = _values(data, split(data, is_end=True), layers, line, offset, is_begun=is_begun)
        yield replace(part, is_ended=not data.strip())


def _given_up(data: bytes) -> tuple[list[Document], int]:
    """The document that `data` starts with as it is, though more may belong to it."""
    first, *others = split(data, is_end=True)[0]
    return [first], others[0].offset if others else len(data)


def _values(
    data: bytes, settled: tuple[list[Document], int], layers: int, first_line: int, offset: int, *, is_begun: bool
) -> tuple[Part, bool]:
    """The part of the `settled` documents of `data`, as `split` gives them, and whether one starts on the line in which
    it ends; `is_begun` says the same of the part before.
    """
    documents, taken = settled
    ends = np.flatnonzero(np.frombuffer(data, np.uint8, taken) == ord("\n"))
    found = [
        (inner, document)
        for document in documents
        for inner in _inside(Inner(document.data, None), layers if document.is_whole else 0)
    ]
    starts = np.array([document.offset for _, document in found], np.int64)
    lines = np.searchsorted(ends, starts)
    places = Places(
        first_line + lines,
        offset + starts,
        np.array([len(document.data) for _, document in found], np.int64),
        [inner.received_us for inner, _ in found],
    )
    begun = np.unique(np.append(lines, [0] * is_begun))
    part = Part(
        _as_chunk([inner.data for inner, _ in found]),
        len(found) + len(ends) - len(begun[begun < len(ends)]),
        first_line + len(ends),
        offset + taken,
        data[max(0, taken - TAIL_BYTES) : taken],
        True,
        places,
    )
    return part, len(ends) in begun


def _as_chunk(records: list[bytes]) -> Chunk:
    """`records` as the lines of a chunk, numbered from 0."""
    data = np.frombuffer(b"\n".join([*records, b""]), np.uint8)
    starts = np.cumsum([0, *(len(record) + 1 for record in records)])
    return Chunk(data, starts, 0, 0)
