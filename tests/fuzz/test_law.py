"""Any bytes, and sample lines of every format that were damaged in any way, are read without raising, by the law."""

from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.parse import Lanes
from tests.fuzz.law import check_records, check_rows, seeds
from tests.ingest.wrapping import Wrap, cri, docker, journald, json_array, plain, syslog_3164

SEEDS: Final = list(seeds())
WRAPS: Final[list[Wrap]] = [plain, plain, plain, cri, docker, journald, syslog_3164, json_array]
BINARY: Final = st.binary(max_size=400)
TOKENS: Final = st.sampled_from(
    [
        *(
            b"\n",
            b"\r\n",
            b'"',
            b"\\",
            b"{",
            b"}",
            b"[",
            b"]",
            b"}{",
            b",",
            b":",
            b"-",
            b"\0",
            b"\xff",
            b"\xed\xa0\x80",
        ),
        *(
            b"null",
            b"NaN",
            b"1e999",
            b"-1",
            b"\\u0000",
            b"\\ud800",
            b"\\x22",
            b"\x1b[0m",
            b"#Fields: a b\n",
            b" ",
            b"\t",
        ),
        *(
            b"9" * 400,
            b"[" * 3000,
            b'{"a":' * 3000,
            b"\xef\xbb\xbf",
            b"<190>",
            b" stdout P ",
            b'{"log":"',
            b'"status":',
        ),
    ]
)
EDITS: Final = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 40), TOKENS | st.binary(max_size=8) | st.just(b"")), max_size=6
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Sample lines of a few formats, at times wrapped, with bytes of them replaced."""
    lines = draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=6))
    wrap = draw(st.sampled_from(WRAPS))
    data = wrap([line.rstrip(b"\n") for line in lines])
    for share, length, text in draw(EDITS):
        at = int(share * len(data))
        data = data[:at] + text + data[at + length :]
    return data


@settings(max_examples=200)
@given(data=BINARY | damaged())
def test_no_bytes_make_detection_framing_or_the_careful_lane_raise(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "records.log"
    path.write_bytes(data)

    check_records(path)


# A plan for each format that it meets takes a while.
@settings(max_examples=20)
@given(data=damaged())
def test_no_bytes_make_parsing_raise_and_all_lines_are_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, lanes: Lanes, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.log"
    path.write_bytes(data)

    check_rows(path, lanes)
