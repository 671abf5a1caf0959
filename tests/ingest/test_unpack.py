"""Compressed streams member by member, up to the very place where they are cut or go too far."""

import bz2
import gzip
import io
import lzma
import tracemalloc
import zlib
from collections.abc import Callable
from random import Random
from typing import Final, Literal

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ingest.unpack import BOMB_BYTES, BOMB_RATIO, Expected, Refused, Unpacked, compression
from ingest.unpack import unpacked as layers

Packer = Callable[[bytes], bytes]


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def bare(data: bytes) -> bytes:
    """gzip without the time of writing, so that a failing case fails again."""
    return gzip.compress(data, mtime=0)


PACKERS: Final[dict[str, Packer]] = {"gzip": bare, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstd}
MEMBERS: Final = st.lists(st.binary(max_size=40), min_size=1, max_size=4)


def held(packed: bytes) -> io.BufferedReader:
    """`packed` as a file."""
    return io.BufferedReader(io.BytesIO(packed))


def unpacked(packed: bytes, how: str, size: int = 1 << 16, expected: Expected | None = None) -> tuple[bytes, bool]:
    """What `packed` holds, read `size` bytes at a time, and whether it is cut."""
    stream = Unpacked(held(packed), how, expected)
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
        (bz2.compress(b"a"), "bzip2"),
        (bz2.compress(b""), "bzip2"),
        (lzma.compress(b"a"), "xz"),
        (b"\x5a\x2a\x4d\x18\x01\0\0\0?" + zstd(b"a"), "zstd"),
        (b"\x1f\x8b", "gzip"),
        (b"\x1f", "none"),
        (b"BZh9 is how bzip2 starts\n", "none"),
        ("\ufeffa".encode("utf-16-le"), "utf-16-le"),
        ("\ufeffa".encode("utf-16-be"), "utf-16-be"),
        ("\ufeff日a".encode("utf-16-le"), "utf-16-le"),
        ("\ufeff日a".encode("utf-16-be"), "utf-16-be"),
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
        ("\ufeffa".encode("utf-32-le"), "none"),
        ("\ufeffa".encode(), "none"),
        (b"\xff\xfe is no UTF-8\n", "none"),
        (b"\xff\xfe\n\xc3\xa9\n", "none"),
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


@pytest.mark.parametrize("how", PACKERS)
def test_a_stream_may_be_padded_with_zeros(how: str) -> None:
    pack = PACKERS[how]

    assert unpacked(pack(b"a") + b"\0" * 700 + pack(b"b") + b"\0" * 8, how) == (b"ab", False)


def test_a_zstd_frame_that_is_to_be_skipped_holds_nothing() -> None:
    skipped = b"\x50\x2a\x4d\x18\x03\0\0\0..."

    assert unpacked(skipped + zstd(b"a") + skipped + zstd(b"b") + skipped, "zstd") == (b"ab", False)


@given(
    hows=st.lists(st.sampled_from(list(PACKERS)), max_size=4),
    data=st.binary(max_size=40).map(lambda data: b"." + data),
    size=st.integers(1, 60),
)
def test_what_was_packed_more_than_once_comes_out_as_it_was(hows: list[str], data: bytes, size: int) -> None:
    packed = data
    for how in hows:
        packed = PACKERS[how](packed)

    stream, names = layers(held(packed))

    assert names == ("+".join(reversed(hows)) or "none")
    parts = iter(lambda: stream.read(size), b"")
    assert b"".join(parts) == data
    assert stream.tell() == len(packed)


def test_what_is_packed_ever_again_is_refused() -> None:
    packed = b"a"
    for _ in range(5):
        packed = bare(packed)

    with pytest.raises(Refused, match="is compressed more than 4 times; decompress it first"):
        layers(held(packed))


@pytest.mark.parametrize("how", ["utf-16-le", "utf-16-be"])
@given(text=st.text(max_size=40), pack=st.sampled_from([bytes, *PACKERS.values()]))
def test_utf16_comes_out_as_utf8_without_its_mark(how: str, text: str, pack: Packer) -> None:
    stream, names = layers(io.BufferedReader(io.BytesIO(pack(f"\ufeff.{text}".encode(how)))))

    assert names.endswith(how)
    assert b"".join(iter(lambda: stream.read(7), b"")).decode() == f".{text}"


@pytest.mark.parametrize("how", ["utf-16-le", "utf-16-be"])
@given(text=st.text(max_size=40), place=st.integers(0, 90), size=st.integers(1, 9))
def test_of_utf16_that_is_cut_whole_characters_are_kept(how: str, text: str, place: int, size: int) -> None:
    cut = text.encode(how)[:place]

    found, is_cut = unpacked(cut, how, size)

    whole = [text[:count] for count in range(len(text) + 1) if len(text[:count].encode(how)) <= len(cut)][-1]
    assert (found.decode(), is_cut) == (whole, len(whole.encode(how)) < len(cut))


@pytest.mark.parametrize(
    ("units", "text"),
    [
        ([0x61, 0xD83D, 0x62], "a\ufffdb"),
        ([0x61, 0xDE00, 0x62], "a\ufffdb"),
        ([0xD83D, 0xD83D, 0xDE00], "\ufffd😀"),
        ([0xFEFF, 0xFFFE, 0x0000], "\ufeff\ufffe\0"),
    ],
    ids=["the first of a pair", "the second of a pair", "a pair behind a first", "marks and NUL"],
)
@pytest.mark.parametrize(("how", "order"), [("utf-16-le", "little"), ("utf-16-be", "big")])
@pytest.mark.parametrize("size", [1, 100])
def test_a_broken_code_unit_becomes_a_replacement_character(
    how: str, order: Literal["little", "big"], units: list[int], text: str, size: int
) -> None:
    data = b"".join(unit.to_bytes(2, order) for unit in units)

    assert unpacked(data, how, size) == (text.encode(), False)


@pytest.mark.parametrize("how", PACKERS)
@pytest.mark.parametrize("pack", [lambda data: data, bare], ids=["", "compressed once more"])
def test_a_bomb_is_refused_and_what_was_read_stays(how: str, pack: Packer) -> None:
    packed = pack(PACKERS[how](b"\0" * (1 << 25)))
    stream, _ = layers(held(packed), most_bytes=1 << 20)
    found: list[bytes] = []

    with pytest.raises(Refused) as refused:
        found.extend(iter(lambda: stream.read(1 << 16), b""))

    length = sum(map(len, found))
    assert not b"".join(found).strip(b"\0")
    # The last step may be one piece of zstd, a byte of which is 32 KiB.
    assert 1 << 20 < length <= max(1 << 20, BOMB_RATIO * len(packed)) + (1 << 24)
    assert str(refused.value) == (
        f"unpacks to more than 250 times its size, as a decompression bomb does; reading stopped after {length:,} bytes"
    )


def test_a_bomb_that_comes_to_nothing_is_refused_too() -> None:
    packed = bare(bare(b"") * (1 << 18))
    stream = Unpacked(Unpacked(held(packed), "gzip", most_bytes=1 << 20), "gzip", most_bytes=1 << 20)

    with pytest.raises(Refused, match="as a decompression bomb does"):
        stream.readinto(memoryview(bytearray(100)))


@pytest.mark.parametrize("how", PACKERS)
def test_a_log_that_says_the_same_again_and_again_is_no_bomb(how: str) -> None:
    line = (
        '{"msec":1795431%03d.%03d,"remote_addr":"198.51.100.7","method":"GET","uri":"/health","status":200,"bytes":2}\n'
    )
    jitter = Random(1)
    log = "".join(line % divmod(number * 37 + jitter.randrange(37), 1000) for number in range(20_000)).encode()
    packed = PACKERS[how](log)
    stream, _ = layers(held(packed), most_bytes=1 << 16)

    assert 20 < len(log) / len(packed) < BOMB_RATIO
    assert b"".join(iter(lambda: stream.read(1 << 16), b"")) == log


def test_a_small_file_may_be_any_number_of_times_as_large_unpacked() -> None:
    assert BOMB_BYTES == 1 << 28
    assert unpacked(bare(b"a" * (1 << 22)), "gzip") == (b"a" * (1 << 22), False)


def xz_with_dictionary(size_code: int) -> bytes:
    """A stream of xz that says it needs a dictionary of (2 + the last bit) << (11 + the other bits) bytes."""
    whole = bytearray(lzma.compress(b"abc"))
    header_end = 12 + (whole[12] + 1) * 4
    # Block header: its size, flags, the filter LZMA2, the size of its properties, which are the size of the dictionary.
    assert whole[14:16] == b"\x21\x01"
    whole[16] = size_code
    whole[header_end - 4 : header_end] = zlib.crc32(whole[12 : header_end - 4]).to_bytes(4, "little")
    return bytes(whole)


def zstd_with_window(log: int) -> bytes:
    """A frame of zstd that says it needs a window of 2 to the power `log` bytes, with one raw block."""
    return b"\x28\xb5\x2f\xfd\0" + bytes([(log - 10) << 3]) + (3 << 3 | 1).to_bytes(3, "little") + b"abc"


@pytest.mark.parametrize(
    ("how", "packed"),
    [("xz", xz_with_dictionary(30)), ("zstd", zstd_with_window(27))],
    ids=["xz", "zstd"],
)
def test_a_window_of_128_mib_is_read(how: str, packed: bytes) -> None:
    assert unpacked(packed, how) == (b"abc", False)


@pytest.mark.parametrize(
    ("how", "packed"),
    [("xz", xz_with_dictionary(31)), ("zstd", zstd_with_window(28)), ("zstd", zstd_with_window(41))],
    ids=["xz of 192 MiB", "zstd of 256 MiB", "zstd of 2 TiB"],
)
def test_a_larger_window_is_refused(how: str, packed: bytes) -> None:
    with pytest.raises(Refused, match="needs more than 128 MiB of memory to decompress; do that first"):
        unpacked(packed, how)


@pytest.mark.parametrize(
    ("how", "packed", "expected", "is_cut"),
    [
        ("stored", b"abc", Expected(3), False),
        ("stored", b"abc", Expected(3, zlib.crc32(b"abc")), False),
        ("stored", b"\0\0\0", Expected(3), False),
        ("stored", b"", Expected(0, 0), False),
        ("stored", b"abc", Expected(4), True),
        ("stored", b"abc", Expected(3, 1), True),
        ("deflate", bare(b"abc")[10:-8], Expected(3, zlib.crc32(b"abc")), False),
        ("deflate", bare(b"abc")[10:-8] + b"next", Expected(3, zlib.crc32(b"abc")), False),
        ("deflate", bare(b"abc")[10:-8], Expected(2, zlib.crc32(b"abc")), True),
        ("deflate", bare(b"abc")[10:-8], Expected(3, 1), True),
    ],
    ids=[
        "a length",
        "a length and a checksum",
        "zeros that are no padding",
        "nothing",
        "another length",
        "another checksum",
        "deflate",
        "deflate with more behind it",
        "deflate of another length",
        "deflate with another checksum",
    ],
)
def test_a_member_of_an_archive_is_what_the_archive_says(
    how: str, packed: bytes, expected: Expected, is_cut: bool
) -> None:
    assert unpacked(packed, how, expected=expected) == (b"abc" if how == "deflate" else packed, is_cut)


@pytest.mark.parametrize(
    ("how", "most"),
    [("gzip", 1 << 21), ("bzip2", 1 << 21), ("xz", 1 << 24), ("zstd", 1 << 25)],
    ids=lambda value: str(value),
)
def test_a_bomb_is_unpacked_a_piece_at_a_time(how: str, most: int) -> None:
    stream = Unpacked(held(PACKERS[how](b"\0" * (1 << 26))), how)
    view = memoryview(bytearray(1 << 16))

    tracemalloc.start()
    try:
        assert stream.readinto(view) == len(view)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < most
