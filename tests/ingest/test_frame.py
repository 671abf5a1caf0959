"""Records of a source and where they are, wherever it is cut into chunks and wherever reading goes on again."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest import frame, source
from ingest.frame import Frame, Part, parts
from ingest.source import Reader, Source
from tests.ingest.wrapping import STAMP, cri, docker

WHOLE: Final = 1 << 20
LINES, WRAPPED, DOCUMENTS = Frame(), Frame("wrapped", 1), Frame("documents")


@dataclass(frozen=True)
class Place:
    """A record as a part gives it: its bytes, line and byte in the source, its length there, and when it came in."""

    data: bytes
    line: int
    offset: int
    length: int
    received_us: int | None


def cri_line(text: str, tag: str = "F", stream: str = "stdout") -> bytes:
    return f"{STAMP} {stream} {tag} {text}".encode()


def docker_line(text: str, stream: str = "stdout") -> bytes:
    return json.dumps({"log": text, "stream": stream, "time": STAMP}, separators=(",", ":")).encode()


@contextmanager
def bounds(*, chunk: int, longest: int = 1 << 24, tail: int = 1 << 12) -> Iterator[None]:
    """Small bounds, so that small data cross them."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (source, frame):
            patch.setattr(module, "CHUNK_BYTES", chunk)
            patch.setattr(module, "LONGEST_LINE", longest)
            patch.setattr(module, "TAIL_BYTES", tail)
        patch.setattr(source, "HEAD_BYTES", 16)
        yield


def parts_of(path: Path, given: Frame) -> list[Part]:
    with closing(Reader(Source("held", path))) as reader:
        return list(parts(reader, given, 1))


def rest_of(path: Path, given: Frame, last: Part) -> list[Part]:
    """What follows the part `last`, for a run that goes on there."""
    with closing(Reader(Source("held", path))) as reader:
        reader.skip(last.byte_end)
        return list(parts(reader, given, last.next_line))


def stored(factory: pytest.TempPathFactory, data: bytes) -> Path:
    path = factory.getbasetemp() / "frame.log"
    path.write_bytes(data)
    return path


def places(found: list[Part]) -> list[Place]:
    """Every record of `found`; of a part without places each line is one."""
    return [place for part in found for place in places_of(part)]


def places_of(part: Part) -> list[Place]:
    chunk = part.records
    held = [chunk.data[start:end].tobytes() for start, end in zip(chunk.starts, chunk.starts[1:], strict=False)]
    if part.places is None:
        return [
            Place(data.removesuffix(b"\n"), chunk.first_line + index, chunk.byte_offset + int(start), len(data), None)
            for index, (data, start) in enumerate(zip(held, chunk.starts[:-1], strict=True))
        ]
    return [
        Place(data.removesuffix(b"\n"), int(line), int(offset), int(length), received_us)
        for data, line, offset, length, received_us in zip(
            held,
            part.places.lines,
            part.places.offsets,
            part.places.lengths,
            part.places.received_us,
            strict=True,
        )
    ]


PIECES: Final = st.sampled_from(
    [
        *(cri_line("a"), cri_line("b", "P"), cri_line("c", "P", "stderr"), cri_line("d", "F", "stderr"), cri_line("")),
        *(docker_line("e\n"), docker_line("f"), docker_line("g", "stderr"), docker_line("h\n", "stderr")),
        *(b'{"records":[{"i":1},{"i":2}]}', b'{"records":[]}', b"", b"\r", b"\xff\0", b"{", b"no wrapper"),
        *(cri_line("é", "P"), docker_line("\udcc3".encode("utf-8", "replace").decode()), b"# comment"),
    ]
)
VALUES: Final = st.sampled_from(
    [
        *(
            b'{"a":1}',
            b'{"b":"}{"}',
            b'{\n  "c": {\n    "d": [1, 2]\n  }\n}',
            b'{"torn":"x',
            b'{"e":',
            b"[",
            b"]",
            b",\n",
        ),
        *(
            b"\n",
            b" ",
            b"\r\n",
            b"\\n",
            b"garbage",
            b"\xff",
            b'{"\xe9\xff":"\xc3\xa9"}',
            b"}",
            b'{"f":"\n"}',
            b"{}",
            b"\n{",
        ),
    ]
)
LOGS: Final[dict[Frame, st.SearchStrategy[bytes]]] = {
    LINES: st.lists(PIECES, max_size=12).map(b"\n".join),
    WRAPPED: st.lists(PIECES, max_size=12).map(b"\n".join),
    DOCUMENTS: st.lists(VALUES, max_size=12).map(b"".join),
}


@st.composite
def logs(draw: st.DrawFn) -> tuple[Frame, bytes]:
    """A log of some frame, with an end of its last line or without."""
    given_frame = draw(st.sampled_from([*LOGS]))
    # Not as the start of a compressed stream.
    return given_frame, b"\n" + draw(LOGS[given_frame]) + draw(st.sampled_from([b"", b"\n"]))


@given(log=logs(), chunk=st.integers(1, 120))
def test_records_and_their_places_are_the_same_wherever_chunks_end(
    tmp_path_factory: pytest.TempPathFactory, log: tuple[Frame, bytes], chunk: int
) -> None:
    path = stored(tmp_path_factory, log[1])

    with bounds(chunk=WHOLE):
        whole = parts_of(path, log[0])
    with bounds(chunk=chunk):
        cut = parts_of(path, log[0])

    assert places(cut) == places(whole)
    assert sum(part.lines for part in cut) == sum(part.lines for part in whole)
    assert [part.next_line for part in cut[-1:]] == [part.next_line for part in whole[-1:]]


@given(log=logs(), chunk=st.integers(1, 120), tail=st.integers(1, 40))
def test_reading_goes_on_behind_any_part_as_if_it_had_never_stopped(
    tmp_path_factory: pytest.TempPathFactory, log: tuple[Frame, bytes], chunk: int, tail: int
) -> None:
    given_frame, data = log
    path = stored(tmp_path_factory, data)
    with bounds(chunk=chunk, tail=tail):
        found = parts_of(path, given_frame)

        passed = b""
        for number, part in enumerate(found, 1):
            rest = rest_of(path, given_frame, part)
            assert places(rest) == places(found[number:])
            # What stands behind a document on its line is a line of its own then.
            is_inside = data[part.byte_end - 1 : part.byte_end] != b"\n"
            lines = sum(each.lines for each in found[number:])
            assert sum(each.lines for each in rest) in ({lines, lines + 1} if is_inside else {lines})
            assert part.next_line == 1 + data[: part.byte_end].count(b"\n") + (
                part is found[-1] and given_frame.lay_out != "documents" and not data.endswith(b"\n")
            )
            passed = (passed + part.tail)[-tail:]
            assert passed == data[: part.byte_end][-tail:]


@given(log=logs(), chunk=st.integers(1, 120))
def test_a_line_counts_once_or_for_each_record_that_starts_on_it(
    tmp_path_factory: pytest.TempPathFactory, log: tuple[Frame, bytes], chunk: int
) -> None:
    path = stored(tmp_path_factory, log[1])

    with bounds(chunk=chunk):
        found = parts_of(path, log[0])

    starting = Counter(place.line for place in places(found))
    read = range(1, found[-1].next_line) if found else ()
    assert sum(part.lines for part in found) == sum(max(1, starting[line]) for line in {*read, *starting})


@given(log=logs(), chunk=st.integers(1, 120))
def test_a_record_stands_where_its_place_says(
    tmp_path_factory: pytest.TempPathFactory, log: tuple[Frame, bytes], chunk: int
) -> None:
    path = stored(tmp_path_factory, log[1])

    with bounds(chunk=chunk):
        found = places(parts_of(path, log[0]))

    lines = log[1].split(b"\n")
    starts = [sum(len(line) + 1 for line in lines[:number]) for number in range(len(lines))]
    for place in found:
        start = starts[place.line - 1]
        if log[0].lay_out == "documents":
            assert log[1][place.offset : place.offset + place.length] == place.data
            assert start <= place.offset <= start + len(lines[place.line - 1])
        elif log[0].lay_out == "wrapped":
            assert (place.offset, place.length) == (start, len(lines[place.line - 1].rstrip(b"\r")))
        else:
            assert place.offset == start


def test_an_array_that_a_wrapper_holds_has_a_record_for_each_element(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b'[{"a":1},{"a":2}]\n{"a":3}\n[]\n')

    [part] = parts_of(path, WRAPPED)

    assert [(place.data, place.line) for place in places([part])] == [
        (b'{"a":1}', 1),
        (b'{"a":2}', 1),
        (b'{"a":3}', 2),
    ]
    assert (part.lines, part.next_line, part.is_ended) == (4, 4, True)


def test_no_more_layers_are_taken_off_than_there_were_in_the_head(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    once, twice = docker([b'{"a":1}']).strip(), cri(docker([b'{"a":1}']).splitlines())
    path.write_bytes(twice)

    assert [place.data for place in places(parts_of(path, WRAPPED))] == [once]
    assert [place.data for place in places(parts_of(path, Frame("wrapped", 2)))] == [b'{"a":1}']


SPLIT: Final = cri_line('{"a":', "P")
REST: Final = cri_line("1}")
LONG: Final = b"x" * 300


@pytest.mark.parametrize(
    ("data", "given_frame", "is_ended"),
    [
        (b"a\nb\n", LINES, True),
        (b"a\nb", LINES, False),
        (SPLIT + b"\n" + REST + b"\n", WRAPPED, True),
        (SPLIT + b"\n" + REST, WRAPPED, False),
        (SPLIT + b"\n", WRAPPED, False),
        (REST + b"\n" + SPLIT + b"\n", WRAPPED, False),
        (b'{"a":1}{"b":2}', DOCUMENTS, True),
        (b'{"a":1}{"b":', DOCUMENTS, False),
        (b'[{"a":1},', DOCUMENTS, True),
        (b'{"a":1}\n]\n', DOCUMENTS, True),
    ],
    ids=[
        "lines",
        "a last line without an end",
        "a split record",
        "a split record without an end",
        "half a split record",
        "half a split record behind a whole one",
        "documents",
        "half a document",
        "half an array",
        "a whole array",
    ],
)
def test_a_source_is_ended_unless_it_stops_inside_of_a_record(
    tmp_path: Path, data: bytes, given_frame: Frame, is_ended: bool
) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(data)

    assert parts_of(path, given_frame)[-1].is_ended == is_ended


@pytest.mark.parametrize(
    ("data", "given_frame", "short"),
    [
        (SPLIT + b"\n" + LONG + b"\n" + REST + b"\n", WRAPPED, [b'{"a":', b"", b"1}"]),
        (
            b"\n".join([SPLIT, *[cri_line("1", "F", "stderr")] * 10, REST]) + b"\n",
            WRAPPED,
            [b'{"a":', *[b"1"] * 10, b"1}"],
        ),
        (b'{"a":"' + LONG + b"\n" + b'{"b":1}\n' * 20, DOCUMENTS, [b'{"b":1}'] * 20),
        (b"\n" + LONG + b"\na\n", LINES, [b"", b"", b"a"]),
    ],
    ids=[
        "a split record before a line that is too long",
        "a split record that goes on for too long",
        "a document that goes on for too long",
        "a line that is too long",
    ],
)
def test_what_is_too_long_to_hold_is_given_up_and_does_not_end_the_source(
    tmp_path: Path, data: bytes, given_frame: Frame, short: list[bytes]
) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(data)

    with bounds(chunk=64, longest=200):
        found = parts_of(path, given_frame)

    assert [part.is_ended for part in found] == [True] * len(found)
    assert found[-1].byte_end == len(data)
    assert [place.data for place in places(found) if len(place.data) < 10] == short


@example(lines=[b'{"a":1}'], size=3)
@given(
    lines=st.lists(st.text(min_size=1, max_size=30).map(lambda text: json.dumps({"a": text}).encode()), min_size=1),
    size=st.integers(1, 20),
)
def test_what_a_runtime_split_comes_together_again(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], size: int
) -> None:
    for wrap in (cri, docker):
        path = stored(tmp_path_factory, wrap(lines, size))
        with bounds(chunk=100):
            assert [place.data for place in places(parts_of(path, WRAPPED))] == lines
