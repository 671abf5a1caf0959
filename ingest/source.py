"""Where raw log bytes come from: files, folders, globs and standard input, plain, gzip or zstd.

Knows compression, line ends and byte offsets. Knows nothing of what a line says.
"""

import glob
import hashlib
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.schema import BadInput
from ingest.unpack import Unpacked, compression

HEAD_BYTES: Final = 1 << 16
TAIL_BYTES: Final = 1 << 12
CHUNK_BYTES: Final = 24 << 20
LONGEST_LINE: Final = 1 << 24
_STANDARD_INPUT: Final = "-"


@dataclass(frozen=True)
class Source:
    """One log as it is stored. A stream, a pipe or standard input, can be read once and is whole when it ends."""

    name: str
    path: Path
    is_stream: bool = False

    @property
    def stored_bytes(self) -> int:
        """Size as stored, compressed or not; 0 for a stream, and for a file that is gone."""
        with suppress(OSError):
            return 0 if self.is_stream else self.path.stat().st_size
        return 0


@dataclass(frozen=True)
class Overlong:
    """A line over `LONGEST_LINE`, which nobody holds: its length without its end, and its last bytes with it."""

    byte_length: int
    tail: bytes


@dataclass(frozen=True)
class Chunk:
    """Whole lines of a source: `starts[i]` to `starts[i + 1]` is line `first_line + i` within `data`, its end included.

    `byte_offset` is where `data` starts in the decompressed source. An overlong line has a chunk of its own, in which
    it is empty.
    """

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    first_line: int
    byte_offset: int
    overlong: Overlong | None = None

    @property
    def tail(self) -> bytes:
        """The last `TAIL_BYTES` bytes of the lines, fewer where they are shorter."""
        if self.overlong:
            return self.overlong.tail
        end = int(self.starts[-1])
        return self.data[max(0, end - TAIL_BYTES) : end].tobytes()

    @property
    def byte_end(self) -> int:
        """Where the lines end in the decompressed source."""
        length = self.overlong.byte_length + self.is_ended if self.overlong else int(self.starts[-1])
        return self.byte_offset + length

    @property
    def is_ended(self) -> bool:
        """Whether the last line has its end; only the last line of a source may have none."""
        return self.tail.endswith(b"\n")

    def __len__(self) -> int:
        return len(self.starts) - 1

    def line(self, index: int) -> bytes:
        """The bytes of one line without its end."""
        return self.data[self.starts[index] : self.starts[index + 1]].tobytes().rstrip(b"\r\n")

    def text(self) -> pa.StringArray:
        """The lines as Arrow strings without a copy, line ends included; the caller has checked that they are UTF-8."""
        offsets = pa.py_buffer(self.starts.astype(np.int32))
        return pa.Array.from_buffers(pa.utf8(), len(self), [None, offsets, pa.py_buffer(self.data)])


def expand(paths: Sequence[str], lake: Path | None = None) -> list[Source]:
    """The sources that `paths` name: files, all files below folders, globs, and - for standard input, each once.

    Hidden files and those of `lake` are left out of folders and globs. Raises BadInput for a path that names nothing.
    """
    inside = lake.resolve() if lake else None
    try:
        names = dict.fromkeys(name for given in paths for name in _names(given, inside))
        return [Source(name, Path(name), is_stream=not Path(name).is_file()) for name in names]
    except OSError as error:
        raise BadInput(f"{error.filename}: cannot be read: {error.strerror}") from error


@contextmanager
def replayable(sources: Iterable[Source]) -> Iterator[list[Source]]:
    """`sources`, streams among them kept in temporary files as long as the context lasts: a log is read more than once.

    Raises BadInput where a stream cannot be read or kept.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(_kept(source)) if source.is_stream else source for source in sources]


@contextmanager
def _kept(stream: Source) -> Iterator[Source]:
    with NamedTemporaryFile(prefix="errata-") as file:
        try:
            with nullcontext(sys.stdin.buffer) if stream.name == _STANDARD_INPUT else stream.path.open("rb") as packed:
                shutil.copyfileobj(packed, file, 1 << 20)
            file.flush()
        except OSError as error:
            place = Path(file.name).parent
            raise BadInput(
                f"{stream.name}: cannot be kept in {place} while it is read: {error.strerror}. "
                "Set TMPDIR to another place."
            ) from error
        yield replace(stream, path=Path(file.name))


def _names(given: str, lake: Path | None) -> list[str]:
    if given == _STANDARD_INPUT:
        return [given]
    path = Path(given)
    if path.is_dir():
        return sorted(
            str(file)
            for file in path.rglob("*")
            if file.is_file() and not _is_hidden(file.relative_to(path)) and not _is_below(file, lake)
        )
    if path.exists():
        return [given]
    names = glob.glob(given, recursive=True)  # noqa: PTH207 - keeps the user's spelling
    matches = sorted(name for name in names if Path(name).is_file() and not _is_below(Path(name), lake))
    if not matches:
        raise BadInput(f"{given}: expected a file, a folder or a glob that matches something, found nothing there")
    return matches


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_below(file: Path, lake: Path | None) -> bool:
    return lake is not None and file.resolve().is_relative_to(lake)


def stored_hash(source: Source) -> str:
    """SHA-256 of the size, head and tail of the file as stored: an unchanged file is known without decompressing it."""
    size = source.path.stat().st_size
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
            self._stored = source.path.open("rb")
            magic = self._stored.peek(4)[:4]
        except OSError as error:
            raise BadInput(f"{source.name}: cannot be read: {error.strerror}") from error
        self.compression = compression(magic)
        self._stream: Any = self._stored if self.compression == "none" else Unpacked(self._stored, self.compression)
        self.is_cut = False
        self.is_growing = self.compression == "none" and not source.is_stream
        self._position = 0
        self._pending = b""
        self.head = self._pending = self.take(HEAD_BYTES)
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

    def take(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end of the source."""
        buffer = bytearray(size)
        filled = self._fill(memoryview(buffer))
        return bytes(buffer[:filled])

    def skip(self, size: int) -> bytes:
        """Moves `size` bytes on; gives the last `TAIL_BYTES` of what was passed, fewer where the source is shorter."""
        tail = b""
        while size > 0:
            passed = self.take(min(size, CHUNK_BYTES))
            if not passed:
                break
            size -= len(passed)
            tail = (tail + passed)[-TAIL_BYTES:]
        return tail

    def skip_line_end(self) -> bytes:
        """Moves past blanks and a line end that stand right here; gives the bytes passed, none where more follows."""
        passed = b""
        while (byte := self.take(1)) in (b" ", b"\t", b"\r"):
            passed += byte
        if byte in (b"\n", b""):
            return passed + byte
        self._pending = passed + byte + self._pending
        self._position -= len(passed + byte)
        return b""

    def chunks(self, first_line: int) -> Iterator[Chunk]:
        """The rest of the source in whole lines, about `CHUNK_BYTES` at a time; an unended last line comes alone."""
        rest = np.empty(0, np.uint8)
        scratch = np.empty(0, np.bool_)
        while True:
            offset = self._position - len(rest)
            # NumPy asks for huge pages: bytes of this size would cost a page fault for every 4 KiB.
            buffer = np.empty(len(rest) + CHUNK_BYTES, np.uint8)
            buffer[: len(rest)] = rest
            fresh = self._fill(buffer.data[len(rest) :])
            data = buffer[: len(rest) + fresh]
            if len(scratch) < len(data):
                scratch = np.empty(len(data) + CHUNK_BYTES // 8, np.bool_)
            starts = line_starts(data, scratch) if fresh else np.array([0, len(data)], np.int64)
            end = int(starts[-1])
            rest = data[end:]
            if end:
                yield from _bounded(data, starts, first_line, offset)
                first_line += len(starts) - 1
            elif len(data) > LONGEST_LINE:
                yield self._overlong(data, first_line, offset)
                first_line, rest = first_line + 1, data[:0]
            if not fresh:
                return

    def _overlong(self, start: npt.NDArray[np.uint8], first_line: int, offset: int) -> Chunk:
        """The line that starts with `start` and is too long to hold; moves on to its end."""
        length, tail = len(start), start[-TAIL_BYTES:].tobytes()
        while not tail.endswith(b"\n") and (part := self.take(1 << 20)):
            end = part.find(b"\n") + 1 or len(part)
            self._pending = part[end:] + self._pending
            length, tail = length + end, (tail + part[:end])[-TAIL_BYTES:]
        self._position = offset + length
        return _overlong(length, tail, first_line, offset)

    @property
    def position(self) -> int:
        """How many bytes of the decompressed source have been passed."""
        return self._position

    def stored_position(self) -> int:
        """How many bytes of the source as stored have been read."""
        return self._stored.tell()

    def close(self) -> None:
        """Closes the file that was opened."""
        self._stored.close()


def _bounded(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], first_line: int, offset: int
) -> Iterator[Chunk]:
    """The lines of `data` as one chunk, or as more where a line is overlong."""
    first = 0
    for index in np.flatnonzero(np.diff(starts) > LONGEST_LINE):
        start, end = int(starts[index]), int(starts[index + 1])
        is_ended = data[end - 1] == ord("\n")
        if end - start - is_ended > LONGEST_LINE:
            yield from _part(data, starts[first : index + 1], first_line + first, offset)
            tail = data[max(start, end - TAIL_BYTES) : end].tobytes()
            yield _overlong(end - start, tail, first_line + int(index), offset + start)
            first = int(index) + 1
    yield from _part(data, starts[first:], first_line + first, offset)


def _part(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], first_line: int, offset: int) -> Iterator[Chunk]:
    if len(starts) > 1:
        start = int(starts[0])
        yield Chunk(data[start:], starts - start, first_line, offset + start)


def _overlong(length: int, tail: bytes, line: int, offset: int) -> Chunk:
    found = Overlong(length - tail.endswith(b"\n"), tail)
    return Chunk(np.empty(0, np.uint8), np.zeros(2, np.int64), line, offset, found)


def line_starts(data: npt.NDArray[np.uint8], scratch: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Where each whole line of `data` starts, and where the last one ends: n + 1 offsets for n lines.

    `scratch` is overwritten and at least as long as `data`: memory that is fresh each time costs more than the search.
    """
    is_end = np.equal(data, ord("\n"), out=scratch[: len(data)])
    # Looking at eight bytes at once finds the words that hold a line end in half the time of np.flatnonzero.
    whole = len(data) // 8 * 8
    words = np.flatnonzero(is_end[:whole].view(np.uint64))
    rows, columns = np.nonzero(is_end[:whole].reshape(-1, 8)[words])
    ends = np.concatenate([words[rows] * 8 + columns, np.flatnonzero(is_end[whole:]) + whole])
    starts = np.zeros(len(ends) + 1, np.int64)
    starts[1:] = ends + 1
    return starts
