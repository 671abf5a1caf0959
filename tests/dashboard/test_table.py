"""How an answer becomes cells: types that a browser shows, units, and files that are safe to open."""

from datetime import UTC, datetime
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dashboard import drawing
from dashboard.table import file_bytes, words

ROWS = pa.table(
    {
        "org_id": ["=1+1", "@cmd", "\uff0b1", "org_a"],
        "errors": [1, 2, 3, None],
        "rate": [0.5, 0.25, None, 1.0],
        "first_seen": [datetime(2026, 11, 2, 9, tzinfo=UTC)] * 4,
    }
)


def test_no_cell_of_a_csv_file_is_a_formula() -> None:
    assert file_bytes(ROWS, "csv").decode().splitlines() == [
        "org_id,errors,rate,first_seen",
        "'=1+1,1,0.5,2026-11-02T09:00:00Z",
        "'@cmd,2,0.25,2026-11-02T09:00:00Z",
        "'\uff0b1,3,,2026-11-02T09:00:00Z",
        "org_a,,1.0,2026-11-02T09:00:00Z",
    ]


def test_a_parquet_file_holds_the_rows_as_they_are() -> None:
    assert pq.read_table(BytesIO(file_bytes(ROWS, "parquet"))).to_pylist() == ROWS.to_pylist()


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("first_seen", "first seen"),
        ("latency_ms", "latency (ms)"),
        ("longest_run_s", "longest run (s)"),
        ("response_bytes", "response (bytes)"),
        ("requests", "requests"),
    ],
)
def test_a_column_is_named_in_words_with_its_unit(name: str, label: str) -> None:
    assert words(name) == label


def test_a_chart_is_drawn_of_an_answer_that_has_lists() -> None:
    rows = pa.table({"started_at": [1], "example_request_ids": [["req_1", "req_2"]], "details": [{"field": "to"}]})

    assert drawing.frame(rows).to_dict("list") == {"started_at": [1]}
