"""Compressed streams member by member, up to the very place where they are cut."""

import gzip
import io
import tracemalloc
from collections.abc import Callable
from typing import Final

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ingest.unpack import Unpacked, compression

Packer = Callable[[bytes], bytes]


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def bare(data: bytes) -> bytes:
    """gzip without the time of writing, so that a failing case fails again."""
    return gzip.compress(data, mtime=0)


PACKERS: Final = {"gzip": bare, "zstd": zstd}
MEMBERS: Final = st.lists(st.binary(max_size=40), min_size=1, max_size=4)


def unpacked(packed: bytes, how: str, size: int = 1 << 16) -> tuple[bytes, bool]:
    """What `packed` holds, read `size` bytes at a time, and whether it is cut."""
    stream = Unpacked(io.BytesIO(packed), how)
    view = memoryview(bytearray(size))
    found = bytearray()
    try:
        while count := stream.readinto(view):
            found += view[:count]
    except EOFError:
        return bytes(found), True
    return bytes(found), False


@pytest.mark.parametrize(
    ("magic", "name"),
    [
        (bare(b"a"), "gzip"),
        (zstd(b"a"), "zstd"),
        (b"\x1f\x8b", "gzip"),
        (b"\x1f", "none"),
        (b'{"a":1}', "none"),
        (b"PK\x03\x04", "none"),
        (b"", "none"),
    ],
)
def test_how_a_stream_is_compressed_is_told_by_its_first_bytes(magic: bytes, name: str) -> None:
    assert compression(magic) == name


@pytest.mark.parametrize("how", PACKERS)
@given(members=MEMBERS, size=st.integers(1, 100))
def test_members_come_out_as_they_went_in_whatever_is_read_at_once(how: str, members: list[bytes], size: int) -> None:
    packed = b"".join(PACKERS[how](member) for member in members)

    assert unpacked(packed, how, size) == (b"".join(members), False)


@pytest.mark.parametrize("how", PACKERS)
@given(members=MEMBERS, place=st.integers(0, 200))
def test_a_cut_is_noticed_unless_it_falls_between_members(how: str, members: list[bytes], place: int) -> None:
    packed = [PACKERS[how](member) for member in members]
    cut = b"".join(packed)[:place]

    found, is_cut = unpacked(cut, how)

    ends = {len(b"".join(packed[:count])) for count in range(len(packed) + 1)}
    assert b"".join(members).startswith(found)
    assert is_cut == (len(cut) not in ends)


@pytest.mark.parametrize("how", PACKERS)
@given(packed=st.binary(max_size=60))
def test_garbage_ends_a_stream_and_nothing_else(how: str, packed: bytes) -> None:
    found, is_cut = unpacked(PACKERS[how](b"before") + b"\x01" + packed, how)

    assert (found[:6], is_cut) == (b"before", True)


def test_a_gzip_stream_may_be_padded_with_zeros() -> None:
    assert unpacked(bare(b"a") + b"\0" * 700 + bare(b"b") + b"\0" * 7, "gzip") == (b"ab", False)


def test_a_gzip_bomb_is_unpacked_a_piece_at_a_time() -> None:
    stream = Unpacked(io.BytesIO(bare(b"\0" * (1 << 26))), "gzip")
    view = memoryview(bytearray(1 << 16))

    tracemalloc.start()
    try:
        assert stream.readinto(view) == len(view)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1 << 21
