"""Where raw log bytes come from: files, folders, globs, standard input and the members of archives, however packed.

Knows files, line ends and byte offsets. Knows nothing of what a line says.
"""

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from io import SEEK_CUR, SEEK_END, SEEK_SET, BufferedReader, FileIO, RawIOBase, UnsupportedOperation
from itertools import count
from pathlib import Path
from tempfile import gettempdir, mkstemp
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.archive import Damaged, Member, archive_format, members
from ingest.folder import files_below, files_matching, is_left_out
from ingest.schema import BadInput
from ingest.unpack import BOMB_BYTES, PEEK_BYTES, Refused, Stored, unpacked

HEAD_BYTES: Final = 1 << 16
TAIL_BYTES: Final = 1 << 12
CHUNK_BYTES: Final = 24 << 20
LONGEST_LINE: Final = 1 << 24
MOST_MEMBERS: Final = 100_000
_STANDARD_INPUT: Final = "-"
_DEEPEST: Final = 3
_SMALL_BYTES: Final = 1 << 20
_COPIED_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Source:
    """One log as it is stored: a file, or a member of an archive in one, which is called `ARCHIVE!MEMBER`.

    A stream, a pipe or standard input, can be read once and is whole when it ends. `problem` says why a source cannot
    be read, in words that go on after its name. `most_bytes` may it unpack to however small it is.
    """

    name: str
    path: Path
    is_stream: bool = False
    member: Member | None = None
    problem: str = ""
    most_bytes: int = BOMB_BYTES

    @property
    def stored_bytes(self) -> int:
        """Size as stored, compressed or not; 0 for a stream, and for a file that is gone."""
        if self.member:
            return self.member.stored_bytes
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
    """The sources that `paths` name: files, all files below folders, globs, and - for standard input.

    A file comes once, whatever links and paths lead to it, under the first of its names. Left out of folders are hidden
    files, backups of editors, and the folder `lake`, which is left out of globs too. Raises BadInput for a path that
    names nothing.
    """
    inside = lake.resolve() if lake else None
    sources: dict[object, Source] = {}
    for given in paths:
        try:
            for found in _named(given, inside):
                sources.setdefault(_identity(found), found)
        except OSError as error:
            raise BadInput(f"{error.filename}: cannot be read: {error.strerror}") from error
    return list(sources.values())


def _named(given: str, lake: Path | None) -> Iterator[Source]:
    path = Path(given)
    if given == _STANDARD_INPUT:
        yield Source(given, path, is_stream=True)
    elif path.is_dir():
        yield from (Source(file.name, Path(file.name), problem=file.problem) for file in files_below(path, lake))
    elif path.exists():
        yield Source(given, path, is_stream=not path.is_file())
    elif matches := files_matching(given, lake):
        yield from (Source(file.name, Path(file.name)) for file in matches)
    else:
        raise BadInput(f"{given}: expected a file, a folder or a glob that matches something, found nothing there")


def _identity(source: Source) -> object:
    if source.problem or (source.is_stream and source.name == _STANDARD_INPUT):
        return source.name
    status = source.path.stat()
    return status.st_dev, status.st_ino


@contextmanager
def replayable(sources: Iterable[Source]) -> Iterator[list[Source]]:
    """`sources` as they can be read more than once and from any place, with the members of archives in their place.

    Streams and what is packed in compressed archives are kept in temporary files as long as the context lasts. A
    member that cannot be read has its `problem`; so has the archive itself, behind its members, where not all of them
    can be found. Raises BadInput where a stream cannot be read or kept.
    """
    with ExitStack() as kept:
        streams = (_kept_stream(source, kept) if source.is_stream else source for source in sources)
        yield [found for source in streams for found in _logs(source, kept, count(1))]


def _kept_stream(stream: Source, kept: ExitStack) -> Source:
    is_standard_input = stream.name == _STANDARD_INPUT
    try:
        packed = nullcontext(sys.stdin.buffer) if is_standard_input else closing(stream.path.open("rb"))
    except OSError as error:
        raise BadInput(f"{stream.name}: cannot be read: {error.strerror}") from error
    try:
        with packed as file:
            return replace(stream, path=_kept_file(iter(lambda: file.read(_COPIED_BYTES), b""), kept))
    except OSError as error:
        raise BadInput(f"{stream.name}: {_unkept(error)}") from error


def _kept_file(parts: Iterable[bytes], kept: ExitStack) -> Path:
    """A private temporary file of `parts`, which goes away with `kept`."""
    descriptor, name = mkstemp(prefix="errata-")
    kept.callback(Path(name).unlink, missing_ok=True)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - it is open already
            file.writelines(parts)
    except OSError:
        # Others may need the place that it does not fit in.
        Path(name).unlink()
        raise
    return Path(name)


def _unkept(error: OSError) -> str:
    return f"cannot be kept in {gettempdir()} while it is read: {error.strerror}. Set TMPDIR to another place."


def _logs(source: Source, kept: ExitStack, numbers: Iterator[int], depth: int = 0) -> Iterator[Source]:
    """`source`, or the logs in the archive that it is; `numbers` counts the members of all archives in it."""
    try:
        with closing(_opened(source)) as stored:
            stream, packed_with = _unpacked(source, stored)
            form = archive_format(stream.peek(PEEK_BYTES))
    except (BadInput, OSError):
        # Whoever reads it is told the same.
        form = "none"
    if form == "none":
        yield source
    elif depth == _DEEPEST:
        yield replace(source, problem=f"lies in {_DEEPEST} archives and is one itself; unpack it first")
    else:
        yield from _archived(source, packed_with, form, kept, numbers, depth)


def _archived(
    archive: Source, packed_with: str, form: str, kept: ExitStack, numbers: Iterator[int], depth: int
) -> Iterator[Source]:
    found: list[Source] = []
    problem = ""
    plain = archive
    try:
        if packed_with != "none":
            plain, problem = _kept_archive(archive, kept)
        with closing(_opened(plain)) as file:
            first = plain.member.start if plain.member else 0
            for member in members(file, file.seek(0, SEEK_END), form):
                if any(is_left_out(part) for part in re.split(r"[/\\]", member.name)):
                    continue
                if next(numbers) > MOST_MEMBERS:
                    raise Damaged(f"holds more than {MOST_MEMBERS:,} members; unpack it first and name a folder")
                place = replace(member, start=first + member.start)
                found.append(replace(plain, name=f"{archive.name}!{member.name}", member=place, problem=member.problem))
    except Damaged as error:
        problem = problem or str(error)
    except BadInput as error:
        problem = str(error).removeprefix(f"{archive.name}: ")
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    # Together they may unpack to no more than one source may; a small log is none too large.
    most_bytes = max(archive.most_bytes // max(1, len(found)), _SMALL_BYTES)
    for log in found:
        yield from _logs(replace(log, most_bytes=most_bytes), kept, numbers, depth + 1)
    if problem:
        yield replace(archive, problem=problem)
    elif not found:
        yield replace(archive, member=Member(""))


def _kept_archive(archive: Source, kept: ExitStack) -> tuple[Source, str]:
    """A compressed archive as a plain one in a temporary file, and what is wrong with it."""
    with closing(Reader(archive)) as reader:
        try:
            path = _kept_file(iter(lambda: reader.take(_COPIED_BYTES), b""), kept)
        except OSError as error:
            raise Damaged(_unkept(error)) from error
        cut = "is an archive that is cut or damaged; the members before that are read"
        return replace(archive, path=path, member=None), reader.refused or (cut if reader.is_cut else "")


class _Span(RawIOBase):
    """Bytes `start` to `start + size` of `file` as a file of its own, which closes `file`."""

    def __init__(self, file: FileIO, start: int, size: int) -> None:
        self._file, self._start, self._size = file, start, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        self._position = offset + {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(0, self._size - self._position)]
        self._file.seek(self._start + self._position)
        read = self._file.readinto(view) or 0
        self._position += read
        return read

    def close(self) -> None:
        self._file.close()
        super().close()


def _opened(source: Source) -> BufferedReader:
    """The bytes of `source` as they are stored. Raises BadInput where its problem is known, and OSError."""
    if source.problem:
        raise BadInput(f"{source.name}: {source.problem}")
    if source.member is None:
        return source.path.open("rb")
    file = source.path.open("rb", buffering=0)
    return BufferedReader(_Span(file, source.member.start, source.member.stored_bytes))


def _unpacked(source: Source, stored: BufferedReader) -> tuple[Stored, str]:
    """The decompressed bytes of `source`, and how they are compressed. Raises BadInput for what is refused."""
    packed_with, expected = (source.member.packed_with, source.member.expected) if source.member else ("none", None)
    try:
        return unpacked(stored, packed_with, expected, source.most_bytes)
    except Refused as refused:
        raise BadInput(f"{source.name}: {refused}") from refused


def stored_hash(source: Source) -> str:
    """SHA-256 of the size, head and tail of the file as stored: an unchanged file is known without decompressing it.

    That of a member of a zip is of its checksum too; that of a tar is as if it were a file. Raises BadInput for a
    source with a problem.
    """
    with closing(_opened(source)) as file:
        size = file.seek(0, SEEK_END)
        digest = hashlib.sha256(str(size).encode())
        if source.member and source.member.expected.crc32 is not None:
            digest.update(f"{source.member.packed_with} {source.member.expected}".encode())
        file.seek(0)
        digest.update(file.read(HEAD_BYTES))
        if size > HEAD_BYTES:
            file.seek(max(HEAD_BYTES, size - HEAD_BYTES))
            digest.update(file.read(HEAD_BYTES))
    return digest.hexdigest()


class Reader:
    """The decompressed bytes of one source, read once from start to end; a head of nothing but zeros is left out.

    `compression` names the layers that were taken off, the outermost first, as in gzip+utf-16-le; offsets are in what
    comes out. `is_cut` says, once all was read, that there is more which cannot be decompressed, and `refused` why it
    is not, where that was a choice: a decompression bomb. Raises BadInput for a source of which nothing can be read.
    """

    def __init__(self, source: Source) -> None:
        try:
            self._stored = _opened(source)
        except OSError as error:
            raise BadInput(f"{source.name}: cannot be read: {error.strerror}") from error
        try:
            self._start = 0, self._stored.peek(TAIL_BYTES)[:TAIL_BYTES]
            self._stream, self.compression = _unpacked(source, self._stored)
            is_plain = source.member is None and self.compression in {"none", "utf-16-le", "utf-16-be"}
            self.is_growing = is_plain and not source.is_stream
            self.is_cut = False
            self.refused = ""
            self._position = 0
            self._pending = b""
            self._pending = self._begin()
            self.head = self._pending[:HEAD_BYTES]
            if (hole := self._position - len(self._pending)) and self.compression == "none":
                self._start = hole, self.head[:TAIL_BYTES]
            self._position = 0
            if not self.head and (self.refused or (self.is_cut and source.member)):
                raise BadInput(f"{source.name}: {self.refused or 'is damaged: nothing of it can be decompressed'}")
        except BaseException:
            self._stored.close()
            raise

    def _begin(self) -> bytes:
        """The first bytes, behind the zeros where a whole head is zeros: a log that was emptied under its writer.

        By the head a source is known, and any two of such logs have the same hole there.
        """
        first = self.take(HEAD_BYTES)
        if first.strip(b"\0"):
            return first
        while first and not (first := first.lstrip(b"\0")):
            first = self.take(_COPIED_BYTES)
        return first + self.take(max(0, HEAD_BYTES - len(first)))

    def _fill(self, view: memoryview) -> int:
        """Reads into `view` until it is full or the source ends; gives the bytes read."""
        filled = min(len(self._pending), len(view))
        view[:filled] = self._pending[:filled]
        self._pending = self._pending[filled:]
        while filled < len(view) and not self.is_cut:
            try:
                fresh = self._stream.readinto(view[filled:])
            except (EOFError, OSError):
                # A copy taken while the gateway was writing, or garbage after the last member: keep what decoded.
                self.is_cut = True
                break
            except Refused as refused:
                self.is_cut, self.refused = True, str(refused)
                break
            if not fresh:
                break
            filled += fresh
        self._position += filled
        return filled

    def take(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end of the source."""
        buffer = bytearray(size)
        filled = self._fill(memoryview(buffer))
        return bytes(buffer[:filled])

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end of the source, which stay to be read."""
        ahead = self.take(size)
        self._pending = ahead + self._pending
        self._position -= len(ahead)
        return ahead

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
        """Moves past blanks and a line end that stand right here; gives the bytes passed, none where more follows.

        Blanks without a line end within `TAIL_BYTES` are more.
        """
        passed = b""
        while (byte := self.take(1)) in (b" ", b"\t", b"\r") and byte and len(passed) < TAIL_BYTES:
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

    def is_as_opened(self) -> bool:
        """Whether the file still starts as it did, and reaches to where it was read: none that was cut short, as
        logrotate's copytruncate does, and written anew. A member of an archive is not looked at.
        """
        try:
            descriptor = self._stored.fileno()
        except UnsupportedOperation:
            return True
        is_long_enough = os.fstat(descriptor).st_size >= self._stored.tell()
        at, start = self._start
        return is_long_enough and os.pread(descriptor, len(start), at) == start

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
