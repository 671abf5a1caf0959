"""Packed bytes as they were before, up to the very place where a stream is cut: logs are copied in mid-write.

Knows gzip, bzip2, xz and zstd, of one member or of many and within each other, what zip does to a member, and text in
UTF-16, which comes out as UTF-8. Refuses what unpacks to far more than a log does. Knows no lines.
"""

import codecs
import lzma
import re
import zlib
from bz2 import BZ2Decompressor
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import zstandard
from isal import igzip_lib

BOMB_BYTES: Final = 1 << 28
BOMB_RATIO: Final = 250  # logs come to a tenth or a hundredth of their size, a bomb to less than a thousandth
PEEK_BYTES: Final = 512
_MOST_LAYERS: Final = 4
_PACKED_AT_ONCE: Final = 1 << 17
_SMALL_PIECE: Final = 1 << 12
_MOST_AT_ONCE: Final = 1 << 18
_ZSTD_PIECE: Final = 1 << 9
_MOST_MEMORY: Final = 1 << 27
# The decoder holds a little more than the dictionary; the next larger dictionary has 192 MiB.
_MOST_XZ_MEMORY: Final = _MOST_MEMORY + (16 << 20)


class Refused(Exception):  # noqa: N818 - named for what it says to a person
    """A stream is not unpacked, or no further; the message says why and goes on after the name of a source."""


class Stored(Protocol):
    """What bytes are read from: a buffered file, or `Unpacked`."""

    def read(self, size: int, /) -> bytes:
        """The next `size` bytes, fewer only at the end."""

    def peek(self, size: int, /) -> bytes:
        """What `read` gives next, without moving on; may be more than `size` bytes, and fewer at the end."""

    def readinto(self, view: memoryview, /) -> int:
        """Fills `view` or the start of it; gives the bytes written, 0 at the end."""

    def tell(self) -> int:
        """How many bytes of the file have been read."""


@dataclass(frozen=True)
class Expected:
    """What an archive says of a member: its length before it was packed, and the CRC-32 where there is one."""

    length: int
    crc32: int | None = None


class _Transcoder:
    """UTF-16 to UTF-8; U+FFFD where a code unit is broken. It is at the end of a member unless inside a character."""

    needs_input = True
    unused_data = b""

    def __init__(self, encoding: str) -> None:
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")

    @property
    def eof(self) -> bool:
        return not self._decoder.getstate()[0]

    def decompress(self, data: bytes, _: int) -> bytes:
        return self._decoder.decode(data).encode()


class _Copier:
    """What zip and tar store as it is."""

    needs_input = eof = True
    unused_data = b""

    def decompress(self, data: bytes, _: int) -> bytes:
        return data


class _ZstdFrame:
    """A frame of zstd, unpacked piece by piece: the library gives all of a piece, a byte of which can be 32 KiB."""

    def __init__(self) -> None:
        self._frame = zstandard.ZstdDecompressor(max_window_size=_MOST_MEMORY).decompressobj()
        self._packed = b""
        self._passed = 0

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def needs_input(self) -> bool:
        return self._passed >= len(self._packed)

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data + self._packed[self._passed :]

    def decompress(self, data: bytes, most: int) -> bytes:
        if data:
            self._packed, self._passed = data, 0
        fresh: list[bytes] = []
        size = 0
        while size < most and not self.needs_input and not self.eof:
            try:
                fresh.append(self._frame.decompress(self._packed[self._passed : self._passed + _ZSTD_PIECE]))
            except zstandard.ZstdError:
                if not size:
                    raise
                break
            self._passed += _ZSTD_PIECE
            size += len(fresh[-1])
        return b"".join(fresh)


@dataclass(frozen=True)
class _Codec:
    """One way of packing: what unpacks a member, and what there may be but members.

    `padding` stands between and behind them (gzip manual, "Invoking gzip"; .xz file format, "Stream Padding").
    `is_single` says that what follows the first is not of the stream.
    """

    member: Callable[[], Any]
    padding: bytes = b"\0"
    is_single: bool = False


_CODECS: Final = {
    "gzip": _Codec(lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)),
    "bzip2": _Codec(BZ2Decompressor),
    "xz": _Codec(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _MOST_XZ_MEMORY)),
    "zstd": _Codec(_ZstdFrame),
    "deflate": _Codec(lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE), b"", is_single=True),
    "stored": _Codec(_Copier, b""),
    "utf-16-le": _Codec(lambda: _Transcoder("utf-16-le"), b""),
    "utf-16-be": _Codec(lambda: _Transcoder("utf-16-be"), b""),
}
_MAGIC: Final = {
    "gzip": rb"\x1f\x8b",
    "bzip2": rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)",
    "xz": rb"\xfd7zXZ\0",
    "zstd": rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",
    # The same bytes may start a broken line: a log has characters of ASCII soon, and UTF-32 starts with another mark.
    "utf-16-le": rb"\xff\xfe(?!\0\0)(?:.?\Z|(?:..)*?[\t\n\r -~]\0)",
    "utf-16-be": rb"\xfe\xff(?:.?\Z|(?:..)*?\0[\t\n\r -~])",
}
_STARTS: Final = {name: re.compile(magic, re.DOTALL) for name, magic in _MAGIC.items()}
# isal's types call its exception class an exception.
_DAMAGED: Final = (cast("type[Exception]", igzip_lib.IsalError), zstandard.ZstdError, lzma.LZMAError, OSError)


def compression(head: bytes) -> str:
    """How a stream that starts with `head` is packed: none, gzip, bzip2, xz, zstd, utf-16-le or utf-16-be."""
    return next((name for name, start in _STARTS.items() if start.match(head[:PEEK_BYTES])), "none")


def unpacked(
    stored: Stored, packed_with: str = "none", expected: Expected | None = None, most_bytes: int = BOMB_BYTES
) -> tuple[Stored, str]:
    """The bytes below all layers of compression of `stored`, and what the layers are, from the outside: gzip+utf-16-le.

    `packed_with` is what an archive says of the outermost one; the others tell by their first bytes. Raises Refused
    where there are more than a person has use for. See `Unpacked` for what the stream raises.
    """
    layers: list[str] = []
    stream = stored
    if packed_with != "none":
        stream = Unpacked(stored, packed_with, expected, most_bytes)
        layers += [packed_with] if packed_with != "stored" else []
    while (layer := compression(stream.peek(PEEK_BYTES))) != "none":
        if len(layers) == _MOST_LAYERS:
            raise Refused(f"is compressed more than {_MOST_LAYERS} times; decompress it first")
        if layer.startswith("utf-16"):
            stream.read(2)
        stream = Unpacked(stream, layer, most_bytes=most_bytes)
        layers.append(layer)
    return stream, "+".join(layers) or "none"


class Unpacked:
    """What a compressed stream holds; twice as fast as `igzip.IGzipFile`, which at a cut drops what it has.

    Holds 16 MiB at most, and what the codec needs: no more than 128 MiB and a little.
    """

    def __init__(
        self, stored: Stored, packed_with: str, expected: Expected | None = None, most_bytes: int = BOMB_BYTES
    ) -> None:
        self._stored = stored
        self._codec = _CODECS[packed_with]
        self._member = self._codec.member()
        self._is_inside = False
        self._is_done = False
        self._packed = b""
        self._passed = 0
        self._piece_bytes = _PACKED_AT_ONCE
        self._ready = memoryview(b"")
        self._failure: Exception | None = None
        self._expected = expected
        self._most_bytes = most_bytes
        self._length = 0
        self._crc32 = 0

    def tell(self) -> int:
        """How many bytes have been read of the file that is below all layers."""
        return self._stored.tell()

    def readinto(self, view: memoryview) -> int:
        """Fills `view` or the start of it; gives the bytes written, 0 at the end of the last member.

        Raises, once everything before it was given: EOFError where the stream is cut, is damaged or goes on with
        something else; Refused where it is a bomb or needs too much memory; OSError where it cannot be read.
        """
        if not self._ready and not self._unpack(_MOST_AT_ONCE):
            if self._failure:
                raise self._failure
            return 0
        count = min(len(view), len(self._ready))
        view[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer before the end and before whatever `readinto` raises."""
        buffer = bytearray(size)
        filled = 0
        with memoryview(buffer) as view:
            while filled < size and (self._ready or self._unpack(_MOST_AT_ONCE) or not filled):
                if not (count := self.readinto(view[filled:])):
                    break
                filled += count
        return bytes(buffer[:filled])

    def peek(self, size: int) -> bytes:
        """The next `size` bytes without moving on, fewer at the end; unpacks little more than that."""
        while len(self._ready) < size and self._unpack(size):
            pass
        return bytes(self._ready[:size])

    def _unpack(self, most: int) -> bool:
        """Makes more bytes ready, about `most`; False at the end, and where there is a failure."""
        if self._failure:
            return False
        try:
            fresh = self._next(most)
        except (EOFError, OSError, Refused) as failure:
            self._failure = failure
            return False
        self._ready = memoryview(b"".join((self._ready, fresh)) if self._ready else fresh)
        return bool(fresh)

    def _next(self, most: int) -> bytes:
        if self._length > max(self._most_bytes, BOMB_RATIO * self.tell()):
            raise Refused(
                f"unpacks to more than {BOMB_RATIO} times its size, as a decompression bomb does; "
                f"reading stopped after {self._length:,} bytes"
            )
        while self._has_packed():
            fresh = self._decompressed(most)
            if fresh:
                self._length += len(fresh)
                if self._expected:
                    self._crc32 = zlib.crc32(fresh, self._crc32)
                return fresh
        self._check()
        return b""

    def _has_packed(self) -> bool:
        """Whether there is something to decompress, read now if need be."""
        while not self._is_done:
            if self._passed == len(self._packed) and (not self._is_inside or self._member.needs_input):
                self._packed, self._passed = self._stored.read(_PACKED_AT_ONCE), 0
                if not self._packed:
                    return False
            if not self._is_inside and self._packed[self._passed : self._passed + 1] == self._codec.padding:
                self._packed, self._passed = self._packed[self._passed :].lstrip(self._codec.padding), 0
            if self._is_inside or self._passed < len(self._packed):
                return True
        return False

    def _decompressed(self, most: int) -> bytes:
        piece = self._packed[self._passed : self._passed + self._piece_bytes]
        self._passed += len(piece)
        self._piece_bytes = _PACKED_AT_ONCE
        self._is_inside = True
        try:
            fresh: bytes = self._member.decompress(piece, most)
        except _DAMAGED as error:
            # Neither library has a class for it.
            if "memory" in str(error).lower():
                raise Refused(
                    f"needs more than {_MOST_MEMORY >> 20} MiB of memory to decompress; do that first"
                ) from error
            raise EOFError(str(error)) from error
        if self._member.eof:
            if unused := len(self._member.unused_data):
                self._passed -= unused
                # What is not used has been copied: of thousands of small members that would be most of the time.
                self._piece_bytes = _SMALL_PIECE
            self._is_done = self._codec.is_single
            self._member = self._codec.member()
            self._is_inside = False
        return fresh

    def _check(self) -> None:
        if self._is_inside:
            raise EOFError("the stream ends inside a member")
        if self._expected and self._length != self._expected.length:
            raise EOFError("the member has another length than its archive says")
        if self._expected and self._expected.crc32 not in {None, self._crc32}:
            raise EOFError("the member has another checksum than its archive says")
