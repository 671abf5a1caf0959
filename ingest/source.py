"""Where raw log bytes come from: files, folders, globs and standard input, plain, gzip or zstd.

Knows compression, line ends and byte offsets. Knows nothing of what a line says.
"""

import glob
import hashlib
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.schema import BadInput
from ingest.unpack import Unpacked, compression

HEAD_BYTES: Final = 1 << 16
TAIL_BYTES: Final = 1 << 12
CHUNK_BYTES: Final = 16 << 20
LONGEST_LINE: Final = 1 << 24


@dataclass(frozen=True)
class Source:
    """One log as it is stored; `path` is None for standard input."""

    name: str
    path: Path | None

    @property
    def stored_bytes(self) -> int:
        """Size as stored, compressed or not; 0 for standard input."""
        return self.path.stat().st_size if self.path else 0


@dataclass(frozen=True)
class Chunk:
    """Whole lines of a source: `starts[i]` to `starts[i + 1]` is line `first_line + i` within `data`, its end included.

    `byte_offset` is where `data` starts in the decompressed source. `overlong` holds (line index, byte offset, byte
    length) of lines over `LONGEST_LINE`, which are empty in `data`.
    """

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    first_line: int
    byte_offset: int
    overlong: tuple[tuple[int, int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.starts) - 1

    def line(self, index: int) -> bytes:
        """The bytes of one line without its end."""
        return self.data[self.starts[index] : self.starts[index + 1]].tobytes().rstrip(b"\r\n")

    def text(self) -> pa.StringArray:
        """The lines as Arrow strings without a copy, line ends included; the caller has checked that they are UTF-8."""
        offsets = pa.py_buffer(self.starts.astype(np.int32))
        return pa.Array.from_buffers(pa.utf8(), len(self), [None, offsets, pa.py_buffer(self.data)])


def expand(paths: Sequence[str]) -> list[Source]:
    """The sources that `paths` name: files, all files below folders, globs, and - for standard input, each once.

    Hidden files are left out of folders and globs. Raises BadInput for a path that names nothing.
    """
    found: dict[str, Source] = {}
    for given in paths:
        for name in _names(given):
            found.setdefault(name, Source(name, None if name == "-" else Path(name)))
    return list(found.values())


def _names(given: str) -> list[str]:
    if given == "-":
        return ["-"]
    path = Path(given)
    if path.is_dir():
        return sorted(
            str(file) for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path))
        )
    if path.exists():
        return [given]
    matches = sorted(name for name in glob.glob(given, recursive=True) if Path(name).is_file())  # noqa: PTH207 - keeps the user's spelling
    if not matches:
        raise BadInput(f"{given}: expected a file, a folder or a glob that matches something, found nothing there")
    return matches


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def stored_hash(source: Source) -> str | None:
    """SHA-256 of the size, head and tail of the file as stored: an unchanged file is known without decompressing it."""
    if source.path is None:
        return None
    size = source.stored_bytes
    digest = hashlib.sha256(str(size).encode())
    with source.path.open("rb") as file:
        digest.update(file.read(HEAD_BYTES))
        if size > HEAD_BYTES:
            file.seek(max(HEAD_BYTES, size - HEAD_BYTES))
            digest.update(file.read(HEAD_BYTES))
    return digest.hexdigest()


class Reader:
    """The decompressed bytes of one source, read once from start to end."""

    def __init__(self, source: Source) -> None:
        try:
            stored: BinaryIO = source.path.open("rb") if source.path else sys.stdin.buffer
            peekable = cast("io.BufferedReader", stored)
            if not source.path:
                peekable = io.BufferedReader(cast("io.RawIOBase", stored), 1 << 20)
            magic = peekable.peek(4)[:4]
        except OSError as error:
            raise BadInput(f"{source.name}: cannot be read: {error.strerror}") from error
        self._stored = stored
        self.compression = compression(magic)
        self._stream: Any = peekable if self.compression == "none" else Unpacked(peekable, self.compression)
        self.is_cut = False
        self.is_growing = self.compression == "none" and source.path is not None
        self._position = 0
        self._pending = b""
        self.head = self._pending = self._take(HEAD_BYTES)
        self._position = 0

    def _fill(self, view: memoryview) -> int:
        """Reads into `view` until it is full or the source ends; gives the bytes read."""
        filled = min(len(self._pending), len(view))
        view[:filled] = self._pending[:filled]
        self._pending = self._pending[filled:]
        while filled < len(view) and not self.is_cut:
            try:
                count = self._stream.readinto(view[filled:])
            except (EOFError, OSError):
                # A copy taken while the gateway was writing, or garbage after the last member: keep what decoded.
                self.is_cut = True
                break
            if not count:
                break
            filled += count
        self._position += filled
        return filled

    def _take(self, size: int) -> bytes:
        buffer = bytearray(size)
        filled = self._fill(memoryview(buffer))
        return bytes(buffer[:filled])

    def skip(self, size: int) -> bytes:
        """Moves `size` bytes on; gives the last `TAIL_BYTES` of what was passed, fewer where the source is shorter."""
        tail = b""
        while size > 0:
            passed = self._take(min(size, CHUNK_BYTES))
            if not passed:
                break
            size -= len(passed)
            tail = (tail + passed)[-TAIL_BYTES:]
        return tail

    def skip_line_end(self) -> int:
        """Moves past a line end that stands right here; gives the bytes passed, 1 or 0."""
        found = self._take(1)
        if found in (b"\n", b""):
            return len(found)
        self._pending = found + self._pending
        self._position -= 1
        return 0

    def chunks(self, first_line: int) -> Iterator[Chunk]:
        """The rest of the source in whole lines, about `CHUNK_BYTES` a chunk; an unended last line comes by itself."""
        rest = np.empty(0, np.uint8)
        while True:
            offset = self._position - len(rest)
            # NumPy asks for huge pages: bytes of this size would cost a page fault for every 4 KiB.
            buffer = np.empty(len(rest) + CHUNK_BYTES, np.uint8)
            buffer[: len(rest)] = rest
            fresh = self._fill(buffer.data[len(rest) :])
            data = buffer[: len(rest) + fresh]
            if not fresh:
                if len(rest):
                    yield Chunk(data, np.array([0, len(rest)], np.int64), first_line, offset)
                return
            starts = line_starts(data)
            end = int(starts[-1])
            rest = data[end:]
            if end:
                yield Chunk(data, starts, first_line, offset)
                first_line += len(starts) - 1
            elif len(data) > LONGEST_LINE:
                length = len(data) + self._skip_line()
                yield Chunk(data[:0], np.zeros(2, np.int64), first_line, offset, ((0, offset, length),))
                first_line, rest = first_line + 1, data[:0]

    def _skip_line(self) -> int:
        """Moves on to the end of a line that is too long to hold; gives the bytes passed, without the line end."""
        passed = 0
        while part := self._take(1 << 20):
            end = part.find(b"\n")
            if end >= 0:
                self._pending = part[end + 1 :] + self._pending
                self._position -= len(part) - end - 1
                return passed + end
            passed += len(part)
        return passed

    def stored_position(self) -> int:
        """How many bytes of the source as stored have been read."""
        return self._stored.tell() if self._stored is not sys.stdin.buffer else self._position

    def close(self) -> None:
        """Closes the files that were opened; standard input stays open."""
        if self._stored is not sys.stdin.buffer:
            self._stored.close()


def line_starts(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Where each whole line of `data` starts, and where the last one ends: n + 1 offsets for n lines."""
    is_end = data == ord("\n")
    # Looking at eight bytes at once finds the words that hold a line end in half the time of np.flatnonzero.
    whole = len(data) // 8 * 8
    words = np.flatnonzero(is_end[:whole].view(np.uint64))
    rows, columns = np.nonzero(is_end[:whole].reshape(-1, 8)[words])
    ends = np.concatenate([words[rows] * 8 + columns, np.flatnonzero(is_end[whole:]) + whole])
    starts = np.zeros(len(ends) + 1, np.int64)
    starts[1:] = ends + 1
    return starts
