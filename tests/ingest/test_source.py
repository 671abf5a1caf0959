"""Bytes of sources, whatever holds them: compression is told by content, lines are those of `bytes.split`."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import socket
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Final

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ingest import source
from ingest.schema import BadInput
from ingest.source import Chunk, Overlong, Reader, Source, expand, replayable, stored_hash

TEXT: Final = b"".join(b"line %d\n" % number for number in range(200))
BYTES: Final = st.lists(st.sampled_from([b"\n", b"\r\n", b"\r", b"\0", b"\xff", b"a", b"bc", b"d" * 9, b"e" * 40])).map(
    b"".join
)


def stored(folder: Path, data: bytes, name: str = "access.log") -> Source:
    """`data` as a file in `folder`."""
    path = folder / name
    path.write_bytes(data)
    return Source(str(path), path)


@contextmanager
def opened(given: Source) -> Iterator[Reader]:
    """A reader of `given` that is closed again."""
    reader = Reader(given)
    try:
        yield reader
    finally:
        reader.close()


def raw(chunk: Chunk) -> list[bytes]:
    """The lines of `chunk`, their ends included."""
    return [chunk.data[start:end].tobytes() for start, end in zip(chunk.starts, chunk.starts[1:], strict=False)]


def read(given: Source) -> tuple[bytes, bool]:
    """Everything in `given`, and whether it was cut."""
    with opened(given) as reader:
        return b"".join(line for chunk in reader.chunks(1) for line in raw(chunk)), reader.is_cut


@contextmanager
def bounds(*, chunk: int, head: int = 16, longest: int = 1 << 24) -> Iterator[None]:
    """Small bounds, so that small data cross them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "CHUNK_BYTES", chunk)
        patch.setattr(source, "HEAD_BYTES", head)
        patch.setattr(source, "LONGEST_LINE", longest)
        yield


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize(
    ("held", "compression", "is_cut"),
    [
        (TEXT, "none", False),
        (gzip.compress(TEXT), "gzip", False),
        (gzip.compress(TEXT[:700]) + gzip.compress(b"") + gzip.compress(TEXT[700:]), "gzip", False),
        (gzip.compress(TEXT) + b"\0" * 512, "gzip", False),
        (gzip.compress(TEXT) + b"garbage", "gzip", True),
        (zstd(TEXT), "zstd", False),
        (zstd(TEXT[:700]) + zstd(TEXT[700:]), "zstd", False),
        (bz2.compress(TEXT), "bzip2", False),
        (bz2.compress(TEXT[:700]) + bz2.compress(TEXT[700:]), "bzip2", False),
        (bz2.compress(TEXT) + b"garbage", "bzip2", True),
        (lzma.compress(TEXT), "xz", False),
        (lzma.compress(TEXT[:700]) + b"\0" * 8 + lzma.compress(TEXT[700:]), "xz", False),
        (lzma.compress(TEXT) + b"garbage", "xz", True),
        (gzip.compress(gzip.compress(TEXT)), "gzip+gzip", False),
        (zstd(lzma.compress(TEXT)), "zstd+xz", False),
        (("\ufeff" + TEXT.decode()).encode("utf-16-le"), "utf-16-le", False),
        (gzip.compress(("\ufeff" + TEXT.decode()).encode("utf-16-be")), "gzip+utf-16-be", False),
    ],
    ids=[
        "plain",
        "gzip",
        "gzip of several members",
        "gzip padded with zeros",
        "gzip with garbage behind it",
        "zstd",
        "zstd of several frames",
        "bzip2",
        "bzip2 of several streams",
        "bzip2 with garbage behind it",
        "xz",
        "xz of several padded streams",
        "xz with garbage behind it",
        "gzip twice",
        "xz within zstd",
        "UTF-16",
        "UTF-16 within gzip",
    ],
)
@pytest.mark.parametrize("name", ["access.log", "access.log.gz", "access.log.zst"])
def test_compression_is_told_by_content_and_not_by_name(
    tmp_path: Path, name: str, held: bytes, compression: str, is_cut: bool
) -> None:
    given = stored(tmp_path, held, name)

    with opened(given) as reader:
        assert reader.compression == compression
        assert reader.head == TEXT
    assert read(given) == (TEXT, is_cut)


@pytest.mark.parametrize(
    "compressed",
    [gzip.compress, zstd, bz2.compress, lzma.compress, lambda data: gzip.compress(zstd(data))],
    ids=["gzip", "zstd", "bzip2", "xz", "zstd within gzip"],
)
@pytest.mark.parametrize("missing", [1, 8, 60], ids="{} bytes missing".format)
def test_of_a_stream_that_was_cut_what_decodes_is_kept(
    tmp_path: Path, compressed: Callable[[bytes], bytes], missing: int
) -> None:
    text, is_cut = read(stored(tmp_path, compressed(TEXT)[:-missing]))

    assert TEXT.startswith(text)
    assert is_cut


def test_all_that_stands_before_the_cut_of_a_gzip_stream_is_kept(tmp_path: Path) -> None:
    whole = gzip.compress(TEXT)
    packer = zlib.compressobj(wbits=31)
    flushed = packer.compress(TEXT) + packer.flush(zlib.Z_SYNC_FLUSH)

    assert read(stored(tmp_path, whole[:-8])) == (TEXT, True)
    assert read(stored(tmp_path, flushed)) == (TEXT, True)


def test_a_bomb_is_read_up_to_a_bound_and_says_so(tmp_path: Path) -> None:
    endless = stored(tmp_path, gzip.compress(b"x" * (1 << 24)))

    with opened(replace(endless, most_bytes=1 << 20)) as reader:
        chunks = list(reader.chunks(1))

    assert (len(chunks), reader.is_cut) == (1, True)
    assert 1 << 20 < reader.position < 1 << 23
    assert reader.refused == (
        "unpacks to more than 250 times its size, as a decompression bomb does; "
        f"reading stopped after {reader.position:,} bytes"
    )


def test_a_stream_that_is_cut_is_not_refused(tmp_path: Path) -> None:
    with opened(stored(tmp_path, gzip.compress(TEXT)[:-9])) as reader:
        assert reader.skip(1 << 20)
        assert (reader.is_cut, reader.refused) == (True, "")


def test_a_source_of_which_nothing_may_be_read_is_bad_input(tmp_path: Path) -> None:
    packed = b"a"
    for _ in range(5):
        packed = gzip.compress(packed)
    given = stored(tmp_path, packed)

    with pytest.raises(BadInput) as raised:
        Reader(given)
    assert str(raised.value) == f"{given.name}: is compressed more than 4 times; decompress it first"


@pytest.mark.parametrize(
    ("held", "is_growing"),
    [(TEXT, True), (("\ufeff" + TEXT.decode()).encode("utf-16-le"), True), (gzip.compress(TEXT), False)],
    ids=["plain", "UTF-16", "gzip"],
)
def test_a_file_may_grow_unless_it_is_compressed(tmp_path: Path, held: bytes, is_growing: bool) -> None:
    with opened(stored(tmp_path, held)) as reader:
        assert reader.is_growing == is_growing


@pytest.mark.parametrize(
    ("behind", "passed"),
    [
        (b"\nb\n", b"\n"),
        (b" \t\r\nb\n", b" \t\r\n"),
        (b"", b""),
        (b"  ", b"  "),
        (b" b\n", b""),
        (b" " * (1 << 20) + b"\n", b""),
    ],
    ids=["a line end", "blanks and a line end", "nothing", "blanks", "more of the line", "blanks without an end"],
)
def test_a_line_end_that_came_later_is_passed(tmp_path: Path, behind: bytes, passed: bytes) -> None:
    with opened(stored(tmp_path, b"a" + behind)) as reader:
        reader.skip(1)
        assert reader.skip_line_end() == passed
        assert reader.position == 1 + len(passed)
        assert reader.take(1 << 21) == behind[len(passed) :]


@pytest.mark.parametrize(
    "held",
    [b"", b"\x1f\x8b", gzip.compress(TEXT)[:10], zstd(TEXT)[:4], gzip.compress(b"")],
    ids=["nothing", "two bytes", "a gzip header", "a zstd magic", "an empty member"],
)
def test_a_source_without_content_has_no_lines(tmp_path: Path, held: bytes) -> None:
    text, _ = read(stored(tmp_path, held))

    assert text == b""


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("hole", [source.HEAD_BYTES, 3 << 20, 20 << 20], ids=["a head", "3 MiB", "an overlong line"])
def test_a_hole_that_fills_the_head_is_left_out(tmp_path: Path, hole: int, pack: Callable[[bytes], bytes]) -> None:
    with opened(stored(tmp_path, pack(b"\0" * hole + TEXT))) as reader:
        assert reader.head == TEXT[: source.HEAD_BYTES]
        assert b"".join(line for part in reader.chunks(1) for line in raw(part)) == TEXT


def test_of_zeros_alone_nothing_is_left(tmp_path: Path) -> None:
    with opened(stored(tmp_path, b"\0" * (3 << 20))) as reader:
        assert (reader.head, list(reader.chunks(1))) == (b"", [])


@given(data=BYTES, chunk=st.integers(1, 50), head=st.integers(1, 50), is_packed=st.booleans())
def test_lines_are_those_of_split_wherever_chunks_end(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, chunk: int, head: int, is_packed: bool
) -> None:
    given = stored(tmp_path_factory.getbasetemp(), gzip.compress(data) if is_packed else data)

    with bounds(chunk=chunk, head=head), opened(given) as reader:
        chunks = list(reader.chunks(1))

    lines = (data if data[:head].strip(b"\0") else data.lstrip(b"\0")).split(b"\n")
    ended = [line + b"\n" for line in lines[:-1]]
    assert [line for part in chunks for line in raw(part)] == ended + ([lines[-1]] if lines[-1] else [])
    number, offset = 1, 0
    for part in chunks:
        assert (part.first_line, part.byte_offset) == (number, offset)
        number, offset = number + len(part), offset + sum(map(len, raw(part)))


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\r\nb\r\n", [b"a", b"b"]),
        (b"a\rb\n", [b"a\rb"]),
        (b"a\0b\n", [b"a\0b"]),
        (b"\xff\xfe\n\xc3\xa9\n", [b"\xff\xfe", b"\xc3\xa9"]),
        (b"a\nb", [b"a", b"b"]),
        (b"\n\na\n", [b"", b"", b"a"]),
        (b"a\x0bb\x0cc\x1cd\xc2\x85e\n", [b"a\x0bb\x0cc\x1cd\xc2\x85e"]),
    ],
    ids=[
        "LF",
        "CR LF",
        "a lone CR",
        "NUL",
        "not UTF-8",
        "no end of the last line",
        "blank",
        "ends that only Unicode has",
    ],
)
def test_a_line_ends_with_a_line_feed_and_with_nothing_else(tmp_path: Path, data: bytes, lines: list[bytes]) -> None:
    with opened(stored(tmp_path, data)) as reader:
        assert [part.line(index) for part in reader.chunks(1) for index in range(len(part))] == lines


def test_lines_as_text_are_the_lines_with_their_ends(tmp_path: Path) -> None:
    with opened(stored(tmp_path, "a\nä\n\n😀".encode())) as reader:
        assert [text for part in reader.chunks(1) for text in part.text().to_pylist()] == ["a\n", "ä\n", "\n", "😀"]


@given(data=st.binary(max_size=300), sizes=st.lists(st.integers(0, 120), max_size=4), head=st.integers(1, 60))
def test_moving_on_gives_the_bytes_before_the_place(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, sizes: list[int], head: int
) -> None:
    # Not as the start of a compressed stream, which these bytes would not go on with.
    data = b"." + data
    given = stored(tmp_path_factory.getbasetemp(), data)
    position = 0

    with bounds(chunk=32, head=head), opened(given) as reader:
        for size in sizes:
            assert reader.skip(size) == data[position : position + size]
            position = min(position + size, len(data))
        assert b"".join(line for part in reader.chunks(1) for line in raw(part)) == data[position:]


def test_an_unchanged_file_has_the_same_hash_and_any_other_another(tmp_path: Path) -> None:
    first = stored_hash(stored(tmp_path, TEXT, "first"))

    assert stored_hash(stored(tmp_path, TEXT, "renamed")) == first
    others = [TEXT + b"\n", b"x" + TEXT[1:], TEXT[:-1] + b"x", gzip.compress(TEXT), b""]
    hashes = {stored_hash(stored(tmp_path, other, "other")) for other in others}
    assert len(hashes - {first}) == len(others)


def test_standard_input_can_be_read_more_than_once_and_compressed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    piped = io.TextIOWrapper(io.BytesIO(gzip.compress(TEXT)))
    monkeypatch.setattr("sys.stdin", piped)

    with replayable(expand(["-"])) as [given]:
        assert [read(given), read(given)] == [(TEXT, False)] * 2
        assert stored_hash(given) == stored_hash(given)
    assert not piped.buffer.closed


def test_a_named_pipe_can_be_read_more_than_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = Thread(target=pipe.write_bytes, args=(TEXT,))
    writer.start()

    with replayable(expand([str(pipe)])) as [given]:
        assert (given.name, given.stored_bytes) == (str(pipe), 0)
        assert [read(given), read(given)] == [(TEXT, False)] * 2
    writer.join()


def test_what_is_kept_of_a_stream_is_private_and_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(TEXT)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with replayable(expand(["-"])) as [given]:
        assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600]
        assert given.path.parent == tmp_path

    assert list(tmp_path.iterdir()) == []


def test_a_file_needs_no_keeping(tmp_path: Path) -> None:
    given = stored(tmp_path, TEXT)

    with replayable([given]) as sources:
        assert sources == [given]


Content = list[tuple[str, bytes]]
BUNDLE: Final[Content] = [
    ("var/log/access.log", TEXT),
    ("./var/log/access.log.1.gz", gzip.compress(b"one\n", mtime=0)),
    ("../../etc/passwd", b"two\n"),
    ("empty.log", b""),
]
READ: Final = {
    "var/log/access.log": TEXT,
    "./var/log/access.log.1.gz": b"one\n",
    "../../etc/passwd": b"two\n",
    "empty.log": b"",
}


def tar(content: Content) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def zipped(content: Content) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content:
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return file.getvalue()


ARCHIVERS: Final[dict[str, Callable[[Content], bytes]]] = {
    "zip": zipped,
    "tar": tar,
    "tar within gzip": lambda content: gzip.compress(tar(content), mtime=0),
    "tar within bzip2": lambda content: bz2.compress(tar(content)),
    "tar within xz": lambda content: lzma.compress(tar(content)),
    "tar within zstd": lambda content: zstd(tar(content)),
    "zip within gzip": lambda content: gzip.compress(zipped(content), mtime=0),
}


def told(sources: list[Source]) -> dict[str, bytes | str]:
    """What each source holds, or why it cannot be read."""
    return {found.name: _held(found) for found in sources}


def _held(found: Source) -> bytes | str:
    try:
        return read(found)[0]
    except BadInput as error:
        return str(error).removeprefix(f"{found.name}: ")


def told_of(given: Source) -> dict[str, bytes | str]:
    """The same of the logs that `given` is or holds, their names without its own."""
    with replayable([given]) as sources:
        return {name.removeprefix(given.name): data for name, data in told(sources).items()}


@pytest.mark.parametrize("name", ["bundle", "access.log"])
@pytest.mark.parametrize("archiver", ARCHIVERS)
def test_each_member_of_an_archive_is_a_source(tmp_path: Path, archiver: str, name: str) -> None:
    given = stored(tmp_path, ARCHIVERS[archiver](BUNDLE), name)

    with replayable([given]) as sources:
        assert [source.name for source in sources] == [f"{given.name}!{name}" for name, _ in BUNDLE]
        assert [source.is_stream for source in sources] == [False] * 4
        for _ in range(2):
            assert told(pickle.loads(pickle.dumps(sources))) == {
                f"{given.name}!{name}": data for name, data in READ.items()
            }


@pytest.mark.parametrize("archiver", ARCHIVERS)
def test_a_member_does_not_grow(tmp_path: Path, archiver: str) -> None:
    with replayable([stored(tmp_path, ARCHIVERS[archiver](BUNDLE))]) as sources, opened(sources[0]) as reader:
        assert not reader.is_growing
        assert not reader.is_cut
        assert reader.stored_position() <= sources[0].stored_bytes


@pytest.mark.parametrize("archiver", ARCHIVERS)
def test_archives_in_archives_are_opened(tmp_path: Path, archiver: str) -> None:
    pack = ARCHIVERS[archiver]
    inner = pack([("a.log", b"a\n"), ("b.log", b"b\n")])
    given = stored(tmp_path, pack([("first", inner), ("deep", pack([("second", inner)])), ("c.log", b"c\n")]))

    assert told_of(given) == {
        "!first!a.log": b"a\n",
        "!first!b.log": b"b\n",
        "!deep!second!a.log": b"a\n",
        "!deep!second!b.log": b"b\n",
        "!c.log": b"c\n",
    }


def test_archives_are_opened_to_some_depth(tmp_path: Path) -> None:
    given = stored(tmp_path, zipped([("1", tar([("2", zipped([("3", tar([("4", b"")])), ("a.log", b"a\n")]))]))]))

    assert told_of(given) == {
        "!1!2!3": "lies in 3 archives and is one itself; unpack it first",
        "!1!2!a.log": b"a\n",
    }


@pytest.mark.parametrize("archiver", ["zip", "tar"])
def test_what_no_folder_would_give_is_left_out_of_archives(tmp_path: Path, archiver: str) -> None:
    names = [
        *["a.log", ".hidden", "./.hidden", ".git/a.log", "b/.c/a.log", "__MACOSX/._a.log", "b/__MACOSX/a.log"],
        *["a.log~", "#a.log#", "b/._a.log", "b\\.c\\a.log", "b/.../a.log", "./b/../c.log", "folder/"],
    ]
    given = stored(tmp_path, ARCHIVERS[archiver]([(name, b"") for name in names]))

    assert list(told_of(given)) == ["!a.log", "!./b/../c.log"]


@pytest.mark.parametrize("archiver", ["zip", "tar"])
def test_an_archive_without_logs_is_an_empty_source(tmp_path: Path, archiver: str) -> None:
    given = stored(tmp_path, ARCHIVERS[archiver]([(".hidden", b"a")]))

    assert told_of(given) == {"": b""}


@pytest.mark.parametrize("archiver", ARCHIVERS)
def test_an_archive_may_come_on_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archiver: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(ARCHIVERS[archiver](BUNDLE))))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with replayable(expand(["-"])) as sources:
        assert told(sources) == {f"-!{name}": data for name, data in READ.items()}
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert list(tmp_path.iterdir()) == []


def test_what_is_unpacked_of_archives_is_private_and_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(kept))
    given = stored(tmp_path, gzip.compress(tar([*BUNDLE, ("inner", lzma.compress(tar(BUNDLE)))])))

    with replayable([given]) as sources:
        assert {source.path.parent for source in sources} == {kept}
        assert [path.stat().st_mode & 0o777 for path in kept.iterdir()] == [0o600] * 2

    assert list(kept.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "access.log"}


@pytest.mark.parametrize("archiver", ["zip", "tar"])
def test_what_can_be_read_in_place_is_not_copied(tmp_path: Path, archiver: str) -> None:
    given = stored(tmp_path, ARCHIVERS[archiver](BUNDLE))

    with replayable([given]) as sources:
        assert {source.path for source in sources} == {given.path}


def test_a_place_that_is_too_small_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    given = stored(tmp_path, gzip.compress(tar(BUNDLE)))

    assert told_of(given) == {
        "": f"cannot be kept in {tmp_path / 'missing'} while it is read: No such file or directory. "
        "Set TMPDIR to another place."
    }


def test_a_member_that_is_encrypted_leaves_the_others_alone(tmp_path: Path) -> None:
    archive = bytearray(zipped([("a.log", b"a\n"), ("b.log", b"b\n")]))
    archive[archive.index(b"PK\1\2") + 8] |= 1

    given = stored(tmp_path, bytes(archive))

    assert told_of(given) == {"!a.log": "is encrypted; unpack the zip with its password first", "!b.log": b"b\n"}
    with replayable([given]) as sources, pytest.raises(BadInput, match="is encrypted"):
        stored_hash(sources[0])


def test_a_member_that_is_damaged_leaves_the_others_alone(tmp_path: Path) -> None:
    archive = bytearray(zipped([("a.log", b"a\n"), ("b.log", b"b\n")]))
    # No block of deflate is of the third type.
    archive[30 + len("a.log")] = 0b111

    given = stored(tmp_path, bytes(archive))

    assert told_of(given) == {"!a.log": "is damaged: nothing of it can be decompressed", "!b.log": b"b\n"}


@pytest.mark.parametrize(
    ("archive", "found"),
    [
        (
            tar(BUNDLE[:2])[: 512 + 2048],
            {"!var/log/access.log": TEXT, "": "is a tar that is cut; the members before the cut are read"},
        ),
        (
            gzip.compress(tar(BUNDLE[:1]))[:-8],
            {
                "!var/log/access.log": TEXT,
                "": "is an archive that is cut or damaged; the members before that are read",
            },
        ),
        (
            zipped(BUNDLE[:1])[:-30],
            {
                "!var/log/access.log": TEXT,
                "": "is a zip that is cut or damaged and lists no members; those that could be found are read",
            },
        ),
    ],
    ids=["tar", "tar within gzip", "zip"],
)
def test_of_a_damaged_archive_the_members_are_read_and_the_damage_is_told(
    tmp_path: Path, archive: bytes, found: dict[str, bytes | str]
) -> None:
    assert told_of(stored(tmp_path, archive)) == found


@pytest.mark.parametrize("archiver", ARCHIVERS)
@given(lengths=st.lists(st.integers(0, 1500), max_size=4), share=st.floats(0, 1))
def test_of_an_archive_that_is_cut_the_logs_are_those_of_the_whole_or_a_start_of_them(
    tmp_path_factory: pytest.TempPathFactory, archiver: str, lengths: list[int], share: float
) -> None:
    content = [(f"{number}.log", TEXT[:length]) for number, length in enumerate(lengths)]
    whole = ARCHIVERS[archiver](content)
    given = stored(tmp_path_factory.getbasetemp(), whole[: 8 + int(len(whole) * share)], f"{archiver}.cut")

    with replayable([given]) as sources:
        for found in sources:
            is_log = found.name != given.name and not found.problem
            data = told([found])[found.name] if is_log else b""
            assert isinstance(data, str) or dict(content).get(found.name.split("!")[-1], b"").startswith(data)


def test_no_more_than_so_many_members_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MOST_MEMBERS", 4)
    inner = tar([("b.log", b"b\n"), ("c.log", b"c\n"), ("d.log", b"d\n")])
    given = stored(tmp_path, zipped([("inner", inner), ("a.log", b"a\n")]))

    assert told_of(given) == {
        "!inner!b.log": b"b\n",
        "!inner!c.log": b"c\n",
        "!inner": "holds more than 4 members; unpack it first and name a folder",
        "!a.log": b"a\n",
    }


def test_members_together_unpack_to_no_more_than_a_bomb_may(tmp_path: Path) -> None:
    bomb = gzip.compress(b"x" * (1 << 23), mtime=0)
    archive = zipped([(f"{number}.gz", bomb + bytes([number])) for number in range(8)])
    given = stored(tmp_path, archive)

    with replayable([replace(given, most_bytes=1 << 23)]) as sources:
        sizes = [len(read(source)[0]) for source in sources]

    assert [source.most_bytes for source in sources] == [1 << 20] * 8
    assert max(sizes) < 5 << 20


def test_an_archive_that_is_a_bomb_is_refused_behind_what_was_read(tmp_path: Path) -> None:
    given = stored(tmp_path, gzip.compress(tar([("a.log", b"a\n"), ("endless", b"x" * (1 << 24))])))

    with replayable([replace(given, most_bytes=1 << 20)]) as [log, endless, archive]:
        assert read(log) == (b"a\n", False)
        assert len(read(endless)[0]) < 1 << 23
        assert archive.problem.startswith("unpacks to more than 250 times its size, as a decompression bomb does")


@pytest.mark.parametrize("archiver", ARCHIVERS)
def test_an_unchanged_member_has_the_same_hash_and_any_other_another(tmp_path: Path, archiver: str) -> None:
    pack = ARCHIVERS[archiver]
    archives = [
        stored(tmp_path, pack([("a.log", TEXT), ("b.log", TEXT[:-1]), ("c.log", b"x" + TEXT[1:])]), "first"),
        stored(tmp_path, pack([("new.log", b"new\n"), ("renamed.log", TEXT)]), "second"),
    ]

    with replayable(archives) as sources:
        first, second, third, new, renamed = (stored_hash(found) for found in sources)

    assert first == renamed
    assert len({first, second, third, new}) == 4


def test_a_member_of_a_tar_has_the_hash_of_the_file_that_it_was(tmp_path: Path) -> None:
    file = stored(tmp_path, TEXT)

    with replayable([stored(tmp_path, tar([("a.log", TEXT)]), "a.tar")]) as [member]:
        assert stored_hash(member) == stored_hash(file)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.log", "a.log", "old/c.log.gz", "old/deep/d.txt", ".hidden.log", "old/.swp/e.log", ".git/f.log"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(TEXT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["b.log"], ["b.log"]),
        (["."], ["a.log", "b.log", "old/c.log.gz", "old/deep/d.txt"]),
        (["old"], ["old/c.log.gz", "old/deep/d.txt"]),
        (["*.log"], ["a.log", "b.log"]),
        (["old/*"], ["old/c.log.gz"]),
        (["**/*.log*"], ["a.log", "b.log", "old/c.log.gz"]),
        (["b.log", "*.log", "b.log"], ["b.log", "a.log"]),
        (["-", "b.log", "-"], ["-", "b.log"]),
        ([".hidden.log"], [".hidden.log"]),
        ([".git"], [".git/f.log"]),
    ],
    ids=[
        "a file",
        "a folder",
        "a folder below",
        "a glob",
        "a glob of files and folders",
        "a deep glob",
        "a file that is named twice",
        "standard input",
        "a hidden file that is named",
        "a hidden folder that is named",
    ],
)
def test_paths_name_sources_each_once_and_in_order(folder: Path, paths: list[str], names: list[str]) -> None:
    assert [given.name for given in expand(paths)] == names


@given(
    lengths=st.lists(st.integers(0, 60), max_size=12),
    chunk=st.integers(1, 80),
    longest=st.integers(1, 50),
    is_ended=st.booleans(),
)
def test_a_line_over_the_limit_is_held_by_nobody_wherever_it_stands(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], chunk: int, longest: int, is_ended: bool
) -> None:
    lines = [b"x" * length + b"\n" for length in lengths]
    if lines and not is_ended:
        lines[-1] = lines[-1][:-1]
    data = b"".join(lines)

    with bounds(chunk=chunk, longest=longest), opened(stored(tmp_path_factory.getbasetemp(), data)) as reader:
        chunks = list(reader.chunks(1))

    number, offset = 1, 0
    for part in chunks:
        assert (part.first_line, part.byte_offset) == (number, offset)
        of_part = lines[number - 1 : number - 1 + len(part)]
        if part.overlong:
            assert part.overlong == Overlong(len(of_part[0].rstrip(b"\n")), of_part[0])
            assert part.overlong.byte_length > longest
            assert raw(part) == [b""]
        else:
            assert raw(part) == of_part
            assert max(len(line.rstrip(b"\n")) for line in of_part) <= longest
        number, offset = number + len(part), offset + sum(map(len, of_part))
        assert (part.byte_end, part.tail, part.is_ended) == (
            offset,
            b"".join(of_part),
            of_part[-1].endswith(b"\n"),
        )
    assert (number - 1, offset) == (len([line for line in lines if line]), len(data))


def test_of_a_line_over_the_limit_the_last_bytes_are_known(tmp_path: Path) -> None:
    data = b"".join(b"%06d," % number for number in range(40_000)) + b"\nshort\n"

    with bounds(chunk=1000, longest=2000), opened(stored(tmp_path, data)) as reader:
        overlong, rest = reader.chunks(1)

    assert overlong.tail == data[: -len(b"short\n")][-source.TAIL_BYTES :]
    assert raw(rest) == [b"short\n"]


@pytest.mark.parametrize("path", ["missing.log", "*.gz", "old/deep/*.log"])
def test_a_path_that_names_nothing_is_refused_by_its_name(folder: Path, path: str) -> None:
    with pytest.raises(BadInput, match="found nothing there") as raised:
        expand(["a.log", path])

    assert str(raised.value).startswith(f"{path}: expected a file, a folder or a glob")


def test_a_path_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(BadInput, match="a: cannot be read: File name too long"):
        expand(["a" * 1000])


def test_a_file_whose_name_looks_like_a_glob_is_that_file(folder: Path) -> None:
    (folder / "log[1].gz").write_bytes(TEXT)

    assert [given.name for given in expand(["log[1].gz"])] == ["log[1].gz"]


def test_a_file_comes_once_whatever_leads_to_it(folder: Path) -> None:
    (folder / "aa.log").hardlink_to(folder / "b.log")
    (folder / "current.log").symlink_to("b.log")
    (folder / "old/link.log").symlink_to("../current.log")

    assert [given.name for given in expand(["."])] == ["a.log", "aa.log", "old/c.log.gz", "old/deep/d.txt"]
    assert [given.name for given in expand(["current.log", ".", "./current.log"])] == [
        *["current.log", "a.log", "old/c.log.gz", "old/deep/d.txt"]
    ]


def test_links_are_followed_to_files_and_folders_outside(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As in Kubernetes, where /var/log/containers holds links to /var/log/pods."""
    pods = tmp_path_factory.mktemp("pods")
    (pods / "web/nginx").mkdir(parents=True)
    (pods / "web/nginx/0.log").write_bytes(TEXT)
    (pods / "api.log").write_bytes(TEXT)
    (folder / "old/api.log").symlink_to(pods / "api.log")
    (folder / "old/web").symlink_to(pods / "web", target_is_directory=True)

    assert [given.name for given in expand(["old"])] == [
        *["old/api.log", "old/c.log.gz", "old/deep/d.txt", "old/web/nginx/0.log"]
    ]


@pytest.mark.parametrize("path", [".", "**", "**/*", "./**/*.*", "**/**"])
def test_links_that_go_in_circles_lead_nowhere(folder: Path, path: str) -> None:
    names = ["a.log", "b.log", "old/c.log.gz", "old/deep/d.txt"]
    for link, target in [
        ("aaa", "."),
        ("old/up", ".."),
        ("old/deep/up", "../.."),
        ("old/deep/top", str(folder.parent)),
        ("inside", "old/deep"),
        ("a", "z"),
        ("z", "a"),
        ("self", "self"),
    ]:
        (folder / link).symlink_to(target)

    assert [Path(given.name) for given in expand([path])] == [Path(name) for name in names]


def test_what_is_no_file_in_a_folder_is_left_out(folder: Path) -> None:
    os.mkfifo("old/pipe")
    (folder / "old/dangling").symlink_to("nowhere")
    (folder / "old/null").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("old/socket")

    assert [given.name for given in expand(["old", "old/*"])] == ["old/c.log.gz", "old/deep/d.txt"]


@pytest.mark.parametrize("name", ["a.log~", "#a.log#", ".a.log.swp", "__MACOSX"])
def test_what_an_editor_left_is_taken_only_if_it_is_named(folder: Path, name: str) -> None:
    (folder / "old" / name).write_bytes(TEXT)

    assert [given.name for given in expand(["old"])] == ["old/c.log.gz", "old/deep/d.txt"]
    assert [given.name for given in expand([f"old/{name}"])] == [f"old/{name}"]


@pytest.mark.parametrize(
    "name",
    ["-", "-x.log", "line\nend.log", "'\".log", " ", "a*b?.log", "é.log", os.fsdecode(b"\xff\xfe.log"), "#", "~a"],
)
def test_files_may_have_odd_names(folder: Path, name: str) -> None:
    (folder / "old" / name).write_bytes(TEXT)

    assert f"old/{name}" in {given.name for given in expand(["old"])}
    with replayable(expand([f"old/{name}"])) as [given]:
        assert read(given) == (TEXT, False)


def test_a_file_that_is_called_a_dash_is_not_standard_input(folder: Path) -> None:
    (folder / "-").write_bytes(TEXT)

    assert [(given.name, given.is_stream) for given in expand(["-", "."])] == [
        *[("-", True), ("-", False), ("a.log", False), ("b.log", False)],
        *[("old/c.log.gz", False), ("old/deep/d.txt", False)],
    ]


def test_a_folder_that_may_not_be_listed_is_a_source_with_the_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refusing(path: Path) -> Iterator[os.DirEntry[str]]:
        if path.name == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)

    with replayable(expand(["old"])) as sources:
        assert told(sources) == {"old/c.log.gz": TEXT, "old/deep": "cannot be listed: Permission denied"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_leaves_the_others_alone(folder: Path) -> None:
    (folder / "a.log").chmod(0)

    with replayable(expand(["*.log"])) as sources:
        assert told(sources) == {"a.log": "cannot be read: Permission denied", "b.log": TEXT}


def test_a_socket_that_is_named_cannot_be_read(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")

    with pytest.raises(BadInput) as raised, replayable(expand(["socket"])):
        pass
    assert str(raised.value) == "socket: cannot be read: No such device or address"
