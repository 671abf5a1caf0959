"""How an answer becomes cells: types that a browser shows, units, and files that are safe to open."""

from datetime import UTC, datetime
from io import BytesIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from streamlit.testing.v1 import AppTest

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


def a_table() -> None:
    """What AppTest runs: one row of every kind of column."""
    from datetime import UTC, datetime
    from decimal import Decimal

    import pyarrow as pa

    from dashboard import table

    row = {
        "org_id": None,
        "route": None,
        "errors": Decimal(12),
        "rate": 0.125,
        "first_seen": datetime(2026, 11, 2, 23, tzinfo=UTC),
        "codes": ["not_found", "opted_out"],
        "details": [{"field": "to[]", "issue": "<b>"}],
    }
    table.show(pa.Table.from_pylist([row]), {}, "Asia/Kolkata", key="rows", label="rows", first=["org_id"])


def test_cells_hold_what_a_person_reads() -> None:
    shown = AppTest.from_function(a_table).run().dataframe[0].value

    assert [list(codes) for codes in shown.pop("codes")] == [["not_found", "opted_out"]]
    assert shown.to_dict("records") == [
        {
            "org_id": "(none)",
            "route": None,
            "errors": 12,
            "rate": 12.5,
            "first_seen": pd.Timestamp("2026-11-03 04:30"),
            "details": '[{"field": "to[]", "issue": "<b>"}]',
        }
    ]
