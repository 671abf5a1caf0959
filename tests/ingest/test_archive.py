"""Where the members of a tar or a zip lie, with the standard library as the writer; nothing that is damaged raises."""

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.archive import Damaged, Member, archive_format, members
from ingest.unpack import Unpacked

Content = list[tuple[str, bytes]]
Archiver = Callable[[Content], bytes]
LOGS: Final[Content] = [
    ("access.log", b"a\n" * 300),
    ("./var/log/../error log", b""),
    ("d" * 90 + "/" + "n" * 120 + "/é\n.log", b"c" * 512),
    ("../../up", b"x" * 513),
]
NAMES: Final = st.lists(
    st.sampled_from(["a", "é.log", "日", "..", "with space", "d" * 99, "e" * 155, "line\nend", "\x01", "-", "😀"]),
    min_size=1,
    max_size=4,
).map("/".join)
CONTENTS: Final = st.lists(
    st.tuples(NAMES, st.integers(0, 1100).map(lambda size: b"0123456" * (size // 7) + b"-" * (size % 7))),
    max_size=4,
    unique_by=lambda member: member[0],
)


def tar(content: Content, form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def gnu_tar(content: Content) -> bytes:
    return tar(content, tarfile.GNU_FORMAT)


def zipped(content: Content, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in content:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


def streamed_zip(content: Content) -> bytes:
    """A zip as it is written to a pipe: the lengths of a member stand behind it."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    file = Pipe()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content:
            archive.writestr(name, data)
    return file.getvalue()


def stored_zip(content: Content) -> bytes:
    return zipped(content, zipfile.ZIP_STORED)


ARCHIVERS: Final[dict[str, Archiver]] = {
    "pax": tar,
    "GNU tar": gnu_tar,
    "zip": zipped,
    "zip without compression": stored_zip,
    "zip from a pipe": streamed_zip,
}


def with_checksum(header: bytes) -> bytes:
    """A header of tar with the checksum that it needs."""
    total = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    return header[:148] + b"%06o\0 " % total + header[156:]


def old_tar(content: Content) -> bytes:
    """A tar as it was before there was a mark to know it by."""
    archive = tar(content, tarfile.USTAR_FORMAT)
    return with_checksum(archive[:257] + bytes(255)) + archive[512:]


def listed(archive: bytes, form: str = "") -> tuple[list[Member], str]:
    """The members of `archive`, and why there may be more."""
    found = []
    try:
        for member in members(io.BytesIO(archive), len(archive), form or archive_format(archive)):
            found.append(member)
    except Damaged as damaged:
        return found, str(damaged)
    return found, ""


def form_of(archiver: str) -> str:
    return "zip" if "zip" in archiver else "tar"


def data_of(archive: bytes, member: Member) -> tuple[bytes, bool]:
    """What `member` holds, as far as it can be read, and whether that is all."""
    stored = io.BufferedReader(io.BytesIO(archive[member.start : member.start + member.stored_bytes]))
    stream = Unpacked(stored, member.packed_with, member.expected)
    found = b""
    try:
        found = stream.read(1 << 20)
        return found, stream.readinto(memoryview(bytearray(1))) == 0
    except EOFError:
        return found, False


@pytest.mark.parametrize("archiver", ARCHIVERS)
@given(content=CONTENTS)
def test_members_are_what_went_in(archiver: str, content: Content) -> None:
    archive = ARCHIVERS[archiver](content)

    found, problem = listed(archive, form_of(archiver))

    assert problem == ""
    assert [(member.name, data_of(archive, member)) for member in found] == [
        (name, (data, True)) for name, data in content
    ]


@pytest.mark.parametrize("archiver", ARCHIVERS)
@given(content=CONTENTS, share=st.floats(0, 1))
def test_of_an_archive_that_is_cut_members_are_what_went_in_or_a_start_of_it(
    archiver: str, content: Content, share: float
) -> None:
    archive = ARCHIVERS[archiver](content)
    cut = archive[: int(len(archive) * share)]

    found, problem = listed(cut, form_of(archiver))

    assert problem or len(found) == len(content)
    for member, (name, data) in zip(found, content, strict=False):
        read, is_whole = data_of(cut, member)
        assert name.startswith(member.name)
        assert data.startswith(read)
        assert is_whole <= (read == data)


@pytest.mark.parametrize("archiver", ARCHIVERS)
@given(content=CONTENTS, spots=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), min_size=1))
def test_no_damage_raises_or_leads_out_of_the_archive(
    archiver: str, content: Content, spots: list[tuple[float, bytes]]
) -> None:
    archive = bytearray(ARCHIVERS[archiver]([*content, ("last.log", b"last\n")]))
    for share, data in spots:
        place = int(share * (len(archive) - len(data)))
        archive[place : place + len(data)] = data

    for member in listed(bytes(archive))[0]:
        assert member.problem or 0 <= member.start <= member.start + member.stored_bytes <= len(archive)


@pytest.mark.parametrize(("form", "start"), [("tar", b"x" * 257 + b"ustar"), ("zip", b"PK\3\4"), ("zip", b"PK\5\6")])
@given(noise=st.binary(max_size=2000))
def test_noise_that_starts_as_an_archive_holds_nothing(form: str, start: bytes, noise: bytes) -> None:
    assert archive_format(start + noise) == form
    assert [member for member in listed(start + noise)[0] if not member.problem and member.stored_bytes > 2000] == []


@pytest.mark.parametrize(
    ("head", "form"),
    [
        (tar(LOGS), "tar"),
        (gnu_tar(LOGS), "tar"),
        (tar(LOGS[:1], tarfile.USTAR_FORMAT), "tar"),
        (old_tar(LOGS[:1]), "tar"),
        (zipped(LOGS), "zip"),
        (zipped([]), "zip"),
        (b"PK is how Phil Katz began", "none"),
        (b'{"status": 200}\n' * 100, "none"),
        (b"", "none"),
        (b"\0" * 1024, "none"),
    ],
)
def test_what_is_an_archive_is_told_by_its_start(head: bytes, form: str) -> None:
    assert archive_format(head) == archive_format(head[:512]) == form


@pytest.mark.parametrize(
    "kind",
    [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE],
    ids=["folder", "link", "hard link", "pipe", "character device", "block device"],
)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "GNU"])
def test_what_is_no_regular_file_in_a_tar_is_left_out(form: int, kind: bytes) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        other = tarfile.TarInfo("n" * 200)
        other.type, other.linkname = kind, "/etc/" + "p" * 200
        archive.addfile(other)
        log = tarfile.TarInfo("a.log")
        log.size = 2
        archive.addfile(log, io.BytesIO(b"a\n"))

    found, problem = listed(file.getvalue())

    assert ([member.name for member in found], problem) == (["a.log"], "")
    assert data_of(file.getvalue(), found[0]) == (b"a\n", True)


@pytest.mark.parametrize(
    ("name", "mode", "found"),
    [
        ("a.log", 0o100644, ["a.log"]),
        ("a.log", 0, ["a.log"]),
        ("folder/", 0o040755, []),
        ("folder/", 0, []),
        ("folder\\", 0, []),
        ("link", 0o120777, []),
        ("pipe", 0o010644, []),
    ],
    ids=[
        "a file",
        "a file without a mode",
        "a folder",
        "a folder without a mode",
        "a folder of Windows",
        "a link",
        "a pipe",
    ],
)
def test_what_is_no_regular_file_in_a_zip_is_left_out(name: str, mode: int, found: list[str]) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, b"" if name.endswith(("/", "\\")) else b"/etc/passwd")

    assert [member.name for member in listed(file.getvalue())[0]] == found


def test_a_tar_of_several_is_read_to_the_end() -> None:
    archive = tar(LOGS[:1]) + tar(LOGS[1:2]) + gnu_tar(LOGS[2:])

    assert [member.name for member in listed(archive)[0]] == [name for name, _ in LOGS]


def test_a_file_with_holes_is_named_and_what_comes_after_it_is_read() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, kind, sparse in [("a", b"0", {"GNU.sparse.major": "1"}), ("b", b"S", {}), ("c", b"0", {})]:
            info = tarfile.TarInfo(name)
            info.type, info.pax_headers, info.size = kind, sparse, 2
            archive.addfile(info, io.BytesIO(b"a\n"))

    found, problem = listed(file.getvalue())

    holes = "is stored with holes, which is not supported; pack it without --sparse"
    assert [(member.name, member.problem) for member in found] == [("a", holes), ("b", holes), ("c", "")]
    assert (data_of(file.getvalue(), found[2]), problem) == ((b"a\n", True), "")


DAMAGED: Final = "is a tar that is cut or damaged at byte 1,024; the members before that are read"
CUT: Final = "is a tar that is cut; the members before the cut are read"


@pytest.mark.parametrize(
    ("kind", "length", "problem"),
    [
        (b"0", b"\xff" * 12, DAMAGED),
        (b"0", b"-0000000007\0", DAMAGED),
        (b"0", b"99999999999\0", DAMAGED),
        (b"0", b"\x80\0\0\0" + b"\x7f" * 8, DAMAGED),
        (b"0", b"77777777777\0", CUT),
        (b"0", b"\x80" + (1 << 40).to_bytes(11, "big"), CUT),
        (b"x", b"00004000001\0", "is a tar with a header of 1,048,577 bytes; the members before that are read"),
    ],
    ids=["negative", "a minus sign", "no octal digits", "exabytes", "8 GiB", "1 TiB in binary", "of a header"],
)
def test_a_length_that_cannot_be_ends_a_tar(kind: bytes, length: bytes, problem: str) -> None:
    archive = tar([("first", b"1"), ("second", b"2" * 9000)])
    header = with_checksum(archive[1024:1148] + length + archive[1136:1156] + kind + archive[1157:1536])

    found, told = listed(archive[:1024] + header + archive[1536:4096])

    assert (found[0].name, told) == ("first", problem)


def test_a_length_in_binary_is_read() -> None:
    archive = tar([("a", b"abc")])
    header = with_checksum(archive[:124] + b"\x80" + (3).to_bytes(11, "big") + archive[136:512])

    [found], problem = listed(header + archive[512:])

    assert (data_of(header + archive[512:], found), problem) == ((b"abc", True), "")


@pytest.mark.parametrize(
    ("flags", "method", "problem"),
    [
        (1, 8, "is encrypted; unpack the zip with its password first"),
        (1, 99, "is encrypted; unpack the zip with its password first"),
        (0, 9, "is packed with Deflate64, which is not supported; unpack the zip first"),
        (0, 14, "is packed with LZMA, which is not supported; unpack the zip first"),
        (0, 77, "is packed with method 77, which is not supported; unpack the zip first"),
    ],
    ids=["encrypted", "encrypted with AES", "Deflate64", "LZMA", "a method nobody knows"],
)
def test_a_member_that_cannot_be_unpacked_is_named_with_the_reason(flags: int, method: int, problem: str) -> None:
    archive = bytearray(zipped([("first", b"1"), ("second", b"2")]))
    entry = archive.index(b"PK\1\2")
    archive[entry + 8 : entry + 12] = struct.pack("<2H", flags, method)

    found, told = listed(bytes(archive))

    assert [(member.name, member.problem) for member in found] == [("first", problem), ("second", "")]
    assert (data_of(bytes(archive), found[1]), told) == ((b"2", True), "")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_zip_may_pack_its_members_in_several_ways(method: int) -> None:
    archive = zipped(LOGS, method)

    assert [data_of(archive, member) for member in listed(archive)[0]] == [(data, True) for _, data in LOGS]


def test_of_members_in_one_place_the_first_is_read() -> None:
    """The bomb of David Fifield, "A better zip bomb" (2019): each member is all others too."""
    archive = zipped([("a.log", b"a\n" * 99)])
    start = archive.index(b"PK\1\2")
    entry, end = archive[start:-22], bytearray(archive[-22:])
    struct.pack_into("<2H2I", end, 8, 3, 3, 3 * len(entry), start)

    found, problem = listed(archive[:start] + 3 * entry + end)

    elsewhere = "is damaged: its place in the zip holds no member, or another one"
    assert ([member.problem for member in found], problem) == (["", elsewhere, elsewhere], "")


def test_what_stands_before_a_zip_is_no_part_of_it() -> None:
    archive = b"#!/bin/sh\nexec unzip $0\n" + zipped(LOGS)

    found = list(members(io.BytesIO(archive), len(archive), "zip"))

    assert [(member.name, data_of(archive, member)) for member in found] == [
        (name, (data, True)) for name, data in LOGS
    ]


def test_a_zip_of_more_than_four_gigabytes_says_so_elsewhere() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo("a.log")
        info.file_size = 1 << 33
        with archive.open(info, "w", force_zip64=True) as member:
            member.write(b"a\n")
    plain = bytearray(file.getvalue())
    # As a writer does it that keeps 64 bits for all: nothing but marks in the places of 32 bits.
    start, end = plain.index(b"PK\1\2"), plain.index(b"PK\5\6")
    entry = plain[start:end]
    extra = struct.pack("<2H3Q", 1, 24, 2, 2, 0)
    struct.pack_into("<2I", entry, 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", entry, 30, len(extra))
    struct.pack_into("<I", entry, 42, 0xFFFFFFFF)
    entry = entry[: 46 + len("a.log")] + extra
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(entry), start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, start + len(entry), 1)
    last = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    whole = bytes(plain[:start] + entry + end64 + locator + last)
    with zipfile.ZipFile(io.BytesIO(whole)) as oracle:
        assert oracle.read("a.log") == b"a\n"

    [found], problem = listed(whole)

    assert (found.name, data_of(whole, found), problem) == ("a.log", (b"a\n", True), "")


@pytest.mark.parametrize(
    ("stored", "flags", "name"),
    [
        ("é.log".encode(), 1 << 11, "é.log"),
        ("é.log".encode(), 0, "é.log"),
        ("é.log".encode("cp437"), 0, "é.log"),
        (b"\xff.log", 1 << 11, "\udcff.log"),
    ],
    ids=["UTF-8", "UTF-8 that is not said to be", "code page 437", "not the UTF-8 that it is said to be"],
)
def test_names_in_a_zip_are_read_as_they_were_meant(stored: bytes, flags: int, name: str) -> None:
    placeholder = "x" * len(stored)
    archive = bytearray(zipped([(placeholder, b"")]).replace(placeholder.encode(), stored))
    entry = archive.index(b"PK\1\2")
    archive[entry + 8 : entry + 10] = struct.pack("<H", flags)

    assert [member.name for member in listed(bytes(archive))[0]] == [name]


def test_a_name_in_a_tar_may_be_no_utf8() -> None:
    archive = gnu_tar([("xx.log", b"")])
    header = with_checksum(b"\xff\xfe" + archive[2:512])

    assert [member.name for member in listed(header + archive[512:])[0]] == ["\udcff\udcfe.log"]


@pytest.mark.parametrize("archiver", ["zip", "zip without compression", "zip from a pipe"])
def test_of_a_zip_without_its_directory_the_members_are_found(archiver: str) -> None:
    archive = ARCHIVERS[archiver](LOGS)
    cut = archive[: archive.index(b"PK\1\2")]

    found, problem = listed(cut)

    assert [(member.name, data_of(cut, member)) for member in found] == [(name, (data, True)) for name, data in LOGS]
    assert problem == ("is a zip that is cut or damaged and lists no members; those that could be found are read")


def test_a_directory_that_breaks_off_is_told_after_what_it_listed() -> None:
    archive = bytearray(zipped(LOGS))
    second = archive.index(b"PK\1\2", archive.index(b"PK\1\2") + 1)
    archive[second : second + 4] = b"????"

    found, problem = listed(bytes(archive))

    assert [member.name for member in found] == ["access.log"]
    assert problem == f"is a zip that is damaged at byte {second:,}; the members listed before that are read"
