"""Compressed bytes as they were before, up to the place where the stream is cut: a copy may be taken in mid-write.

Knows gzip and zstd, each of one member or of many. Knows no lines.
"""

from collections.abc import Callable
from typing import BinaryIO, Final, Protocol

import zstandard
from isal import igzip_lib

_MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
# One zstd byte can stand for 32 KiB, and a piece is unpacked at once.
_PIECE: Final = {"gzip": 1 << 17, "zstd": 1 << 12}
_MOST_AT_ONCE: Final = 1 << 18


def compression(magic: bytes) -> str:
    """How a stream that starts with `magic` is compressed: none, gzip or zstd."""
    return next((name for start, name in _MAGIC.items() if magic.startswith(start)), "none")


class _Member(Protocol):
    """What unpacks one gzip member or zstd frame."""

    eof: bool
    unused_data: bytes

    def unpack(self, packed: bytes) -> bytes:
        """What `packed` holds, or the start of it; call again with nothing for more."""


class _GzipMember:
    def __init__(self) -> None:
        self._stream = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)

    @property
    def eof(self) -> bool:
        return self._stream.eof
