"""Streams of JSON objects, however they follow each other and wherever they are cut."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.documents import Document, is_document_stream, split

SAMPLES: Final = Path(__file__).with_name("fixtures") / "wrappers"


def whole(offset: int, data: bytes) -> Document:
    return Document(offset, data, is_whole=True)


def broken(offset: int, data: bytes) -> Document:
    return Document(offset, data, is_whole=False)


@pytest.mark.parametrize(
    ("data", "documents"),
    [
        (b"", []),
        (b" [\n, ]\r\n\xef\xbb\xbf", []),
        (b'{"a":1}\n{"b":2}\n', [whole(0, b'{"a":1}'), whole(8, b'{"b":2}')]),
        (b'{"a":1}{"b":2}', [whole(0, b'{"a":1}'), whole(7, b'{"b":2}')]),
        (b'{"a":1}\\n{"b":2}\\n', [whole(0, b'{"a":1}'), whole(9, b'{"b":2}')]),
        (b'[{"a":1},{"b":[{}]}][]\n[{}]', [whole(1, b'{"a":1}'), whole(9, b'{"b":[{}]}'), whole(24, b"{}")]),
        (b'[\n  {\n    "a": 1\n  },\n  {}\n]\n', [whole(4, b'{\n    "a": 1\n  }'), whole(24, b"{}")]),
        (
            b'{"a":"\xff\t\0"}\n{"\xc3\xbc":"}{"}{}',
            [whole(0, b'{"a":"\xff\t\0"}'), whole(12, b'{"\xc3\xbc":"}{"}'), whole(23, b"{}")],
        ),
        (
            b'{"a":"\\ud800"}{"a":' + b"1" * 5000 + b"}",
            [whole(0, b'{"a":"\\ud800"}'), whole(14, b'{"a":' + b"1" * 5000 + b"}")],
        ),
        (b'{"a":1,\n{"b":2}\n', [broken(0, b'{"a":1,'), whole(8, b'{"b":2}')]),
        (b'{"a":"b\n{"c":2}\n', [broken(0, b'{"a":"b'), whole(8, b'{"c":2}')]),
        (b'{"a":"b{"c":2}{"d":3}', [broken(0, b'{"a":"b{"c":2}'), whole(14, b'{"d":3}')]),
        (b'{"a":-,"b":[{"c":1},{"d":2}]}\n{}', [broken(0, b'{"a":-,"b":[{"c":1},{"d":2}]}'), whole(30, b"{}")]),
        (
            b'[\n  {\n    "a": -,\n    "b": [\n      {}\n    ]\n  },\n  {}\n]',
            [broken(4, b'{\n    "a": -,\n    "b": [\n      {}\n    ]\n  },'), whole(51, b"{}")],
        ),
        (
            b'starting\n2 workers {}\n{"a":1} ready\n[{}]',
            [broken(0, b"starting\n2 workers {}"), whole(22, b'{"a":1}'), broken(30, b"ready"), whole(37, b"{}")],
        ),
        (b'{"a":1}\n{"b":', [whole(0, b'{"a":1}'), broken(8, b'{"b":')]),
        (b"[1,null]", [broken(1, b"1,null]")]),
        (b'{"a":' * 100_000 + b"\n{}", [broken(0, b'{"a":' * 100_000), whole(500_001, b"{}")]),
        (b"[" * 100_000 + b"{}" + b"]" * 100_000, [whole(100_000, b"{}")]),
    ],
    ids=[
        "nothing",
        "separators alone",
        "a line each",
        "back to back",
        "line ends written as two characters",
        "arrays",
        "an indented array",
        "bytes that are no text, and braces in a string",
        "a lone surrogate and a huge number",
        "a torn line",
        "a line torn in a string",
        "an object torn among others on its line",
        "what is inside of a broken object",
        "what is inside of a broken object that is indented",
        "text between",
        "a cut end",
        "an array of no objects",
        "objects nested too deep",
        "arrays nested deep",
    ],
)
def test_objects_come_one_by_one_and_nothing_is_lost(data: bytes, documents: list[Document]) -> None:
    assert split(data, is_end=True) == (documents, len(data))


@pytest.mark.parametrize(
    ("data", "documents", "taken"),
    [
        (b'{"a":1}\n{"b":2', [whole(0, b'{"a":1}')], 8),
        (b'{"a":1}\n', [whole(0, b'{"a":1}')], 8),
        (b'[{"a":1},\n  {"b":tru', [whole(1, b'{"a":1}')], 9),
        (b'{"a":"\\u00', [], 0),
        (b'{"a":-, "b":"a long value"}', [], 0),
        (b'{"a":1} ready', [whole(0, b'{"a":1}')], 8),
        (b'{"a":-, "b":"a long value"}\n{', [broken(0, b'{"a":-, "b":"a long value"}')], 28),
    ],
    ids=[
        "an object",
        "nothing",
        "an element, which keeps its indent",
        "an escape",
        "a broken object",
        "text",
        "an object behind a broken one",
    ],
)
def test_what_may_go_on_is_left(data: bytes, documents: list[Document], taken: int) -> None:
    assert split(data, is_end=False) == (documents, taken)


def in_parts(data: bytes, cuts: list[int]) -> list[Document]:
    """The documents of `data` that comes in parts, which end at `cuts`."""
    documents: list[Document] = []
    taken = 0
    for cut in [*sorted(cuts), len(data)]:
        found, count = split(data[taken:cut], is_end=cut == len(data))
        documents += [Document(taken + document.offset, document.data, document.is_whole) for document in found]
        taken += count
    return documents


TEXT: Final = st.text(max_size=8)
VALUES: Final[st.SearchStrategy[Any]] = st.recursive(
    st.sampled_from([None, True, -1, 1.5]) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
OBJECTS: Final = st.lists(st.dictionaries(TEXT, VALUES, max_size=3), max_size=4)
LAYOUTS: Final[dict[str, Callable[[list[Any]], str]]] = {
    "a line each": lambda objects: "".join(json.dumps(found) + "\n" for found in objects),
    "back to back": lambda objects: "".join(json.dumps(found, separators=(",", ":")) for found in objects),
    "unescaped": lambda objects: "\r\n".join(json.dumps(found, ensure_ascii=False) for found in objects),
    "indented": lambda objects: "\n".join(json.dumps(found, indent="\t") for found in objects),
    "an array": json.dumps,
    "an indented array": lambda objects: json.dumps(objects, indent=4),
    "an array of an element a line": lambda objects: "[" + ",\n".join(map(json.dumps, objects)) + "]",
    "arrays back to back": lambda objects: "".join(json.dumps([found]) for found in objects),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@given(objects=OBJECTS, data=st.data())
def test_objects_come_out_of_any_layout_at_any_cut(layout: str, objects: list[Any], data: st.DataObject) -> None:
    stream = LAYOUTS[layout](objects).encode()
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=4))

    documents = in_parts(stream, cuts)

    assert [json.loads(document.data) for document in documents] == objects
    assert all(document.is_whole for document in documents)
    assert [stream[found.offset : found.offset + len(found.data)] for found in documents] == [
        found.data for found in documents
    ]


FRAGMENTS: Final = st.lists(
    st.sampled_from(
        [*'{}[],:"\\ \n\t1-', "a", "\\n", '{"a":', '{"a":1}', '{"a":"', '}{"', "true", "\ufeff", "ü", "  {"]
    )
).map("".join)


@given(stream=st.binary() | FRAGMENTS.map(str.encode), cuts=st.lists(st.integers(0, 60), max_size=4))
@example(stream=b"\0", cuts=[])
@example(stream=b'{"a":-,"b":"a long value"\n  {"a":-,"b":"a long value"}\n  {"c":1}', cuts=[28])
def test_any_bytes_give_the_same_documents_at_any_cut_and_all_of_them(stream: bytes, cuts: list[int]) -> None:
    documents = in_parts(stream, [cut for cut in cuts if cut < len(stream)])

    assert (documents, len(stream)) == split(stream, is_end=True)
    rest = bytearray(stream)
    for document in reversed(documents):
        assert rest[document.offset : document.offset + len(document.data)] == document.data
        del rest[document.offset : document.offset + len(document.data)]
    left = rest.decode("utf-8", "surrogateescape").replace("\\n", "").replace("\ufeff", "")
    assert all(character.isspace() or character in "[,]\0" for character in left)


RECORDS: Final = st.lists(
    st.dictionaries(st.text("abc", min_size=1), VALUES, min_size=1, max_size=3).map(
        lambda found: json.dumps(found).encode()
    ),
    min_size=1,
    max_size=3,
)


@given(before=RECORDS, torn=RECORDS, after=RECORDS, data=st.data())
def test_a_torn_line_hides_no_other_and_adds_none(
    before: list[bytes], torn: list[bytes], after: list[bytes], data: st.DataObject
) -> None:
    start = torn[0][: data.draw(st.integers(1, len(torn[0]) - 1))]

    documents, _ = split(b"\n".join([*before, start, *after]), is_end=True)

    assert [document.data for document in documents if document.is_whole] == [*before, *after]
    assert [document.data for document in documents if not document.is_whole] == [start.rstrip()]


@pytest.mark.parametrize("name", ["firehose_cwl_concatenated.json", "kong_httplog_batch.json", "otlp_logs.jsonl"])
def test_a_sample_comes_out_whole(name: str) -> None:
    data = (SAMPLES / name).read_bytes()

    documents, taken = split(data, is_end=False)

    assert [document.is_whole for document in documents] == [True] * OBJECTS_IN[name]
    assert taken == len(data)


OBJECTS_IN: Final = {"firehose_cwl_concatenated.json": 3, "kong_httplog_batch.json": 2, "otlp_logs.jsonl": 1}


@pytest.mark.parametrize(
    ("head", "is_stream"),
    [
        (b"", False),
        (b'{"a":1}', False),
        (b'{"a":1}\n{"b":2}\n', False),
        (b'{"a":1}\n{"b":', False),
        (b'{"a":' + b"1" * 70_000, False),
        (b'{"a":"b\n{"a":1}\n{"a":2}\n', False),
        (b'{"a":-}\n{"a":-}\n{"a":-}\n', False),
        (b'{"a":"b\n{"a":1}\n', False),
        (b'[{"a":1},{"b":2}]\n[{"c":1}]\n', False),
        (b'[{"a":1},{"b":2}]', False),
        (b'[2024-08-21T12:00:00.123Z] "GET / HTTP/1.1" 200', False),
        (b"[error] 29#0: *1 {", False),
        (b'{"a":1} trailing\n', False),
        (b'<134>Aug 21 12:00:00 gw-1 kong: {"a":1}{"b":2}', False),
        (b'{"a":1}{"b":2}', True),
        (b'{"a":1}{"b":', True),
        (b'{"a":1},{"b":2}\n', True),
        (b'{"a":1}\\n{"b":2}\\n', True),
        (b'\xef\xbb\xbf\n {\n  "a": 1\n}\n', True),
        (b'{\n  "a": {\n    "b', True),
        (b'[\n{"a":1},\n{"b":2}\n]\n', True),
        (b'[{"a":1},\n{"b":2}]\n', True),
        (b'[{"a":1},{"b":', True),
        (b"[", True),
        (b'[{"a":1}][{"b":1}]\n', True),
        (b'{"a":' * 100_000, False),
    ],
    ids=repr,
)
def test_a_stream_of_documents_is_told_from_lines(head: bytes, is_stream: bool) -> None:
    assert is_document_stream(head) is is_stream


@given(head=st.binary() | FRAGMENTS.map(str.encode))
def test_no_head_raises(head: bytes) -> None:
    assert is_document_stream(head) in (True, False)
