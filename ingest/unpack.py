"""Compressed bytes as they were before, up to the very place where a stream is cut: logs are copied in mid-write.

Knows gzip and zstd, of one member or of many. Knows no lines.
"""

from collections.abc import Callable
from typing import Any, BinaryIO, Final, cast

import zstandard
from isal import igzip_lib

_MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_MOST_AT_ONCE: Final = 1 << 18
# A piece of zstd is unpacked whole, and a byte of it can stand for 32 KiB.
_PIECE: Final = {"gzip": 1 << 17, "zstd": 1 << 12}
_MEMBER: Final[dict[str, Callable[[], Any]]] = {
    "gzip": lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP),
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
}
# isal's types call its exception class an exception.
_DAMAGED: Final = (cast("type[Exception]", igzip_lib.IsalError), zstandard.ZstdError)


def compression(magic: bytes) -> str:
    """How a stream that starts with `magic` is compressed: none, gzip or zstd."""
    return next((name for start, name in _MAGIC.items() if magic.startswith(start)), "none")


class Unpacked:
    """What a compressed stream holds; twice as fast as `igzip.IGzipFile`, which at a cut drops what it has."""

    def __init__(self, stored: BinaryIO, compressed_with: str) -> None:
        self._stored = stored
        self._compression = compressed_with
        self._member = _MEMBER[compressed_with]()
        self._is_inside = False
        self._packed = b""
        self._ready = memoryview(b"")

    def readinto(self, view: memoryview) -> int:
        """Fills `view` or the start of it; gives the bytes written, 0 at the end of the last member.

        Raises EOFError, once everything before it was given, where the stream is cut or goes on with something else.
        """
        while not self._ready:
            if self._needs_more() and not self._read():
                if self._is_inside:
                    raise EOFError("the stream ends inside a member")
                return 0
            self._unpack()
        count = min(len(view), len(self._ready))
        view[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _needs_more(self) -> bool:
        return not self._packed and bool(getattr(self._member, "needs_input", True))

    def _read(self) -> bool:
        """Reads the next piece; False where there is none."""
        self._packed = self._stored.read(_PIECE[self._compression])
        return bool(self._packed)

    def _unpack(self) -> None:
        if not self._is_inside and self._compression == "gzip":
            # Some writers pad the last block with zeros (gzip manual, "Invoking gzip").
            self._packed = self._packed.lstrip(b"\0")
        if not self._packed and not self._is_inside:
            return
        packed, self._packed = self._packed, b""
        self._is_inside = True
        most = [_MOST_AT_ONCE] if self._compression == "gzip" else []
        try:
            self._ready = memoryview(self._member.decompress(packed, *most))
        except _DAMAGED as error:
            raise EOFError(str(error)) from error
        if self._member.eof:
            self._packed = self._member.unused_data
            self._member = _MEMBER[self._compression]()
            self._is_inside = False
