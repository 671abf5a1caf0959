"""Bytes of sources, whatever holds them: compression is told by content, lines are those of `bytes.split`."""

import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    ],
    ids=[
        "plain",
        "gzip",
        "gzip of several members",
        "gzip padded with zeros",
        "gzip with garbage behind it",
        "zstd",
        "zstd of several frames",
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


@pytest.mark.parametrize("compressed", [gzip.compress, zstd], ids=["gzip", "zstd"])
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


@pytest.mark.parametrize(
    "held",
    [b"", b"\x1f\x8b", gzip.compress(TEXT)[:10], zstd(TEXT)[:4], gzip.compress(b"")],
    ids=["nothing", "two bytes", "a gzip header", "a zstd magic", "an empty member"],
)
def test_a_source_without_content_has_no_lines(tmp_path: Path, held: bytes) -> None:
    text, _ = read(stored(tmp_path, held))

    assert text == b""


@given(data=BYTES, chunk=st.integers(1, 50), head=st.integers(1, 50), is_packed=st.booleans())
def test_lines_are_those_of_split_wherever_chunks_end(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, chunk: int, head: int, is_packed: bool
) -> None:
    given = stored(tmp_path_factory.getbasetemp(), gzip.compress(data) if is_packed else data)

    with bounds(chunk=chunk, head=head), opened(given) as reader:
        chunks = list(reader.chunks(1))

    lines = data.split(b"\n")
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
