"""The contract of the lake: one meaning and one type for each name."""

from pathlib import Path
from typing import Final

import pytest

from ingest.schema import (
    CATALOGUE_COLUMNS,
    DAILY_COLUMNS,
    PARTITION_COLUMNS,
    REJECT_COLUMNS,
    REQUEST_COLUMNS,
    SOURCE_COLUMNS,
    BadInput,
    Column,
    arrow_schema,
    check_path,
    table_schema,
)

OF_THE_TABLE: Final = (*PARTITION_COLUMNS, *REQUEST_COLUMNS, *REJECT_COLUMNS, *SOURCE_COLUMNS, *DAILY_COLUMNS)


@pytest.mark.parametrize("column", [*OF_THE_TABLE, *CATALOGUE_COLUMNS], ids=lambda column: column.name)
def test_a_column_has_a_meaning_and_its_unit_in_its_name(column: Column) -> None:
    assert column.meaning
    for suffix, unit in (("_ms", "ms"), ("_s", "s"), ("_bytes", "bytes"), ("_byte", "bytes")):
        assert column.unit == unit or not column.name.endswith(suffix)


def test_the_table_has_every_column_of_every_kind_once() -> None:
    assert table_schema().names == list(dict.fromkeys(column.name for column in OF_THE_TABLE))


def test_a_name_that_two_kinds_have_is_of_one_type() -> None:
    types = {(column.name, str(column.type)) for column in OF_THE_TABLE}

    assert len(types) == len(table_schema())


def test_every_column_may_be_null() -> None:
    assert all(field.nullable for field in arrow_schema(OF_THE_TABLE))


@pytest.mark.parametrize("name", ["a[b]", "a|b", "a?b", "a^b", "a\\b", "50%20off", "a\nb"])
def test_a_path_that_the_engines_misread_is_refused_by_its_character(name: str) -> None:
    with pytest.raises(BadInput, match="a lake cannot be in a path with"):
        check_path(Path("/srv") / name)


@pytest.mark.parametrize("name", ["lake", "my lake", "50% off", "été", "a&b"])
def test_any_other_path_is_fine(name: str) -> None:
    check_path(Path("/srv") / name)
