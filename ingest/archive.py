"""What a tar or a zip holds: where each member lies and how it is packed there. Reads headers only, and trusts none.

Knows both formats as far as logs need them, with what tar calls pax and GNU and what zip calls zip64. Knows nothing of
what a member holds; the name of a member is text here and never a path.
"""

import re
import stat
import struct
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Final

from ingest.unpack import Expected

_BLOCK: Final = 512
_LONGEST_HEADER: Final = 1 << 20
_MOST_ZEROS: Final = 2048  # blocks between two archives in one file; writers fill up to 20 of them, or as they are told
_CUT_TAR: Final = "is a tar that is cut; the members before the cut are read"
_NOWHERE: Final = 1 << 62  # no file is as long, and no arithmetic on it leaves 64 bits
_REGULAR: Final = {b"0", b"\0", b"7"}
_WITHOUT_DATA: Final = {b"1", b"2", b"3", b"4", b"5", b"6"}

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_ENTRY: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_END64: Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR: Final = struct.Struct("<4sIQI")
_END_REACH: Final = _END.size + 0xFFFF
_ENCRYPTED, _SIZES_FOLLOW, _IS_UTF8 = 1 << 0, 1 << 3, 1 << 11
_PACKED_WITH: Final = {0: "stored", 8: "deflate", 12: "bzip2", 93: "zstd", 95: "xz"}
_UNREAD: Final = {9: "Deflate64", 14: "LZMA", 98: "PPMd", 99: "AES encryption"}


class Damaged(Exception):  # noqa: N818 - named for what it says to a person
    """An archive cannot be read any further; the message says why and goes on after its name."""


@dataclass(frozen=True)
class Member:
    """A regular file in an archive: bytes `start` to `start + stored_bytes` of it, packed as `ingest.unpack` names it.

    `problem` says why it cannot be read, in words that go on after its name; then the place means nothing.
    """

    name: str
    start: int = 0
    stored_bytes: int = 0
    packed_with: str = "stored"
    expected: Expected = field(default_factory=lambda: Expected(0))
    problem: str = ""


def archive_format(head: bytes) -> str:
    """What a file is that starts with `head`, of which 512 bytes are enough: tar, zip or none."""
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return "zip"
    block = head[:_BLOCK]
    is_old = len(block) == _BLOCK and block[:1] > b"\0" and _has_tar_checksum(block)
    return "tar" if is_old or block[257:262] == b"ustar" else "none"


def members(file: BinaryIO, size: int, form: str) -> Iterator[Member]:
    """The regular files in the archive of `size` bytes that `file` is; folders, links and devices are left out.

    Raises Damaged, after what can be found was given, where there is more that cannot.
    """
    return _tar_members(file, size) if form == "tar" else _zip_members(file, size)


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    if not 0 <= at < _NOWHERE:
        return b""
    file.seek(at)
    return file.read(size)


def _tar_members(file: BinaryIO, size: int) -> Iterator[Member]:
    """See POSIX, "pax Interchange Format", and the GNU tar manual, "Basic Tar Format"."""
    at, zeros = 0, 0
    told: dict[str, str] = {}
    while zeros < _MOST_ZEROS and (header := _read(file, at, _BLOCK)):
        at += _BLOCK
        if not header.strip(b"\0"):
            zeros += 1
            continue
        zeros = 0
        if len(header) < _BLOCK or not _has_tar_checksum(header):
            raise Damaged(_tar_damage(at - _BLOCK))
        kind = header[156:157]
        length = 0 if kind in _WITHOUT_DATA else _tar_length(told.get("size") or header[124:136], at)
        if kind in {b"x", b"L", b"K", b"g"}:
            if length > _LONGEST_HEADER:
                raise Damaged(f"is a tar with a header of {length:,} bytes; the members before that are read")
            data = _read(file, at, length)
            told |= _pax(data) if kind == b"x" else {"path": _text(data)} if kind == b"L" else {}
        else:
            if kind == b"S":
                at = _after_sparse_map(file, header, at)
            name = told.get("GNU.sparse.name") or told.get("path") or _tar_name(header)
            is_sparse = kind == b"S" or any(key.startswith("GNU.sparse.") for key in told)
            if is_sparse:
                yield Member(name, problem="is stored with holes, which is not supported; pack it without --sparse")
            elif kind in _REGULAR and not name.endswith("/"):
                yield Member(name, at, max(0, min(length, size - at)), expected=Expected(length))
            told = {}
        if at + length > size:
            raise Damaged(_CUT_TAR)
        at += -(-length // _BLOCK) * _BLOCK
    if not zeros:
        raise Damaged(_CUT_TAR)


def _has_tar_checksum(header: bytes) -> bool:
    found = re.match(rb"[ \0]*([0-7]{1,8})[ \0]", header[148:156] + b" ")
    # Some old writers summed signed bytes (GNU tar manual, "Basic Tar Format").
    rest = header[:148] + b" " * 8 + header[156:]
    return found is not None and int(found[1], 8) in {sum(rest), sum(rest) - 256 * sum(byte > 0x7F for byte in rest)}


def _tar_length(given: bytes | str, at: int) -> int:
    """A length in octal digits, in binary with the highest bit set, or as pax has it in decimal digits."""
    try:
        if isinstance(given, str):
            length = int(given)
        elif given[0] & 0x80:
            length = int.from_bytes(given, "big", signed=True) + (1 << 95 if given[0] == 0x80 else 0)
        else:
            length = int(given.split(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        length = -1
    if not 0 <= length < _NOWHERE:
        raise Damaged(_tar_damage(at - _BLOCK))
    return length


def _tar_damage(at: int) -> str:
    return f"is a tar that is cut or damaged at byte {at:,}; the members before that are read"


def _tar_name(header: bytes) -> str:
    name, prefix = _text(header[:100]), _text(header[345:500])
    # GNU tar has times where POSIX has the start of a long name.
    return f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name


def _text(name: bytes) -> str:
    return name.split(b"\0")[0].decode("utf-8", "surrogateescape")


def _pax(data: bytes) -> dict[str, str]:
    """The records `LENGTH KEY=VALUE` of a pax header, as far as they are whole."""
    found, at = {}, 0
    while (digits := _PAX_LENGTH.match(data, at)) and len(digits[0]) < int(digits[1]) <= len(data) - at:
        key, _, value = data[digits.end() : at + int(digits[1])].rstrip(b"\n").partition(b"=")
        found[_text(key)] = _text(value)
        at += int(digits[1])
    return found


_PAX_LENGTH: Final = re.compile(rb"(\d{1,7}) ")


def _after_sparse_map(file: BinaryIO, header: bytes, at: int) -> int:
    is_continued = header[482:483]
    while is_continued.strip(b"\0"):
        is_continued = _read(file, at, _BLOCK)[504:505]
        at += _BLOCK
    return at


def _zip_members(file: BinaryIO, size: int) -> Iterator[Member]:
    """See PKWARE's APPNOTE.TXT."""
    found = _directory(file, size)
    if found is None:
        yield from _undirected_members(file, size)
        raise Damaged("is a zip that is cut or damaged and lists no members; those that could be found are read")
    at, end, shift = found
    # A member that lies in another one is how a small zip unpacks to petabytes.
    taken: list[tuple[int, int]] = []
    while at < end:
        entry = _read(file, at, _ENTRY.size)
        if len(entry) < _ENTRY.size or not entry.startswith(b"PK\1\2"):
            raise Damaged(f"is a zip that is damaged at byte {at:,}; the members listed before that are read")
        (_, made_by, _, flags, method, _, _, crc32, packed, length, *sizes, _, _, mode, local) = _ENTRY.unpack(entry)
        name_size, extra_size, comment_size = sizes
        names = _read(file, at + _ENTRY.size, name_size + extra_size)
        at += _ENTRY.size + name_size + extra_size + comment_size
        length, packed, local = _zip64(names[name_size:], length, packed, local)
        is_regular = stat.S_IFMT(mode >> 16) in {0, stat.S_IFREG} or made_by >> 8 != 3
        name = _zip_name(names[:name_size], flags)
        if not is_regular or name.endswith(("/", "\\")):
            continue
        start = _data_start(file, local + shift)
        member = _member(name, start or 0, packed, method, flags, Expected(length, crc32))
        if start is None or start + packed > found[0] or not _take(taken, local + shift, start + packed):
            problem = "is damaged: its place in the zip holds no member, or another one"
            member = replace(member, problem=member.problem or problem)
        yield member


def _directory(file: BinaryIO, size: int) -> tuple[int, int, int] | None:
    """Where the central directory starts and ends, and how far all is from the place that is stated; None if nowhere.

    What was put in front of a zip, a program that unpacks it, shifts all places.
    """
    reach = min(size, _END_REACH)
    tail = _read(file, size - reach, reach)
    place = tail.rfind(b"PK\5\6")
    if place < 0 or len(tail) - place < _END.size:
        return None
    end = size - reach + place
    *_, directory_size, directory, _ = _END.unpack_from(tail, place)
    locator = _read(file, max(0, end - _LOCATOR.size), _LOCATOR.size)
    if locator.startswith(b"PK\6\7"):
        end64 = _read(file, end - _LOCATOR.size - _END64.size, _END64.size)
        if end64.startswith(b"PK\6\6"):
            *_, directory_size, directory = _END64.unpack(end64)
            end -= _LOCATOR.size + _END64.size
    start = end - directory_size
    if start < 0 or (directory_size and _read(file, start, 4) != b"PK\1\2"):
        return None
    return start, end, start - directory


def _zip64(extra: bytes, length: int, packed: int, local: int) -> tuple[int, int, int]:
    """The three with those that do not fit in 32 bits taken from the extra field for them."""
    at = 0
    while len(extra) - at >= 4:
        kind, size = struct.unpack_from("<2H", extra, at)
        at += 4
        if kind == 1:
            wide = list(struct.unpack_from(f"<{min(size, len(extra) - at) // 8}Q", extra, at))
            return tuple(  # type: ignore[return-value]  # three in, three out
                wide.pop(0) if value == 0xFFFFFFFF and wide else value for value in (length, packed, local)
            )
        at += size
    return length, packed, local


def _zip_name(name: bytes, flags: int) -> str:
    if flags & _IS_UTF8:
        return name.decode("utf-8", "surrogateescape")
    # Many write UTF-8 and do not say so, and hardly anything else is UTF-8 by chance.
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("cp437")


def _data_start(file: BinaryIO, at: int) -> int | None:
    """Where the data of the member with its header at `at` start; None where there is no header."""
    header = _read(file, at, _LOCAL.size) if at >= 0 else b""
    if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
        return None
    *_, name_size, extra_size = _LOCAL.unpack(header)
    return int(at + _LOCAL.size + name_size + extra_size)


def _take(taken: list[tuple[int, int]], start: int, end: int) -> bool:
    """Adds a range to those that are taken, which are in order; False where it meets one of them."""
    place = bisect_left(taken, (start, end))
    if (place and taken[place - 1][1] > start) or (place < len(taken) and taken[place][0] < end):
        return False
    taken.insert(place, (start, end))
    return True


def _member(name: str, start: int, packed: int, method: int, flags: int, expected: Expected) -> Member:
    problem = ""
    if flags & _ENCRYPTED:
        problem = "is encrypted; unpack the zip with its password first"
    elif method not in _PACKED_WITH:
        problem = (
            f"is packed with {_UNREAD.get(method, f'method {method}')}, which is not supported; unpack the zip first"
        )
    return Member(name, start, packed, _PACKED_WITH.get(method, "stored"), expected, problem)


def _undirected_members(file: BinaryIO, size: int) -> Iterator[Member]:
    """The members of a zip without its directory, from one header to the next."""
    at = 0
    while (start := _data_start(file, at)) is not None and start <= size:
        (_, _, flags, method, _, _, crc32, packed, length, name_size, extra_size) = _LOCAL.unpack(
            _read(file, at, _LOCAL.size)
        )
        names = _read(file, at + _LOCAL.size, name_size + extra_size)
        length, packed, _ = _zip64(names[name_size:], length, packed, 0)
        at = start + packed
        if flags & _SIZES_FOLLOW and not packed:
            crc32, packed, length, at = _sizes_behind(file, start, size)
        name = _zip_name(names[:name_size], flags)
        if not name.endswith(("/", "\\")):
            packed = max(0, min(packed, size - start))
            yield _member(name, start, packed, method, flags, Expected(length, crc32))


def _sizes_behind(file: BinaryIO, start: int, size: int) -> tuple[int, int, int, int]:
    """CRC-32, packed and unpacked length of the data from `start` on, which a record behind them tells; and its end.

    Without one the data go on to the end of the file.
    """
    at = start
    while window := _read(file, at, 1 << 20):
        for mark in re.finditer(rb"PK\x07\x08", window):
            place = at + mark.start()
            record = _read(file, place, 24)
            for layout in ("<4xIII", "<4xIQQ"):
                needed = struct.calcsize(layout)
                if len(record) >= needed:
                    crc32, packed, length = struct.unpack_from(layout, record)
                    if packed == place - start:
                        return crc32, packed, length, place + needed
        at += max(len(window) - 3, 1)
    return 0, size - start, -1, size
