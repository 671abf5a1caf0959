"""The pages say what is so: examples are read as they say, and every column, format, question and code is named."""

import re
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

import analysis
from docs import formats as pages
from docs import questions
from ingest.formats import FIELDS, formats, read_format
from ingest.parse import Lanes
from ingest.preview import Row, codes_from, preview
from ingest.source import Source

PAGE: Final = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
BY_HAND: Final = PAGE.partition("<!-- formats -->")[0]
EXAMPLES: Final = re.findall(r"```(?:json|text)\n(.*?)```\n\nis read by\n\n```toml\n(.*?)```", BY_HAND, re.DOTALL)


@pytest.mark.parametrize(("log", "mapping"), EXAMPLES, ids=["JSON", "text"])
def test_the_mappings_of_the_page_read_its_records(log: str, mapping: str, tmp_path: Path) -> None:
    (tmp_path / "gateway.log").write_text(log, encoding="utf-8")
    (tmp_path / "mapping.toml").write_text(mapping, encoding="utf-8")
    expected: Row = {"status": 429, "method": "POST", "path": "/v1/messages", "latency_ms": 4.0}
    expected |= {"org_id": "org_acme", "code": "rate_limited"}

    with closing(Lanes(bytes(32), 1)) as lanes:
        found = preview(Source("gateway.log", tmp_path / "gateway.log"), lanes, read_format(tmp_path / "mapping.toml"))

    [row] = found.rows
    assert {name: row[name] for name in expected} == expected
    assert f"{row['ts']:%Y-%m-%d %H:%M:%S}" == "2024-08-21 12:00:00"


def test_the_page_names_every_column_that_a_mapping_may_have() -> None:
    table = BY_HAND.partition("| column |")[2].partition("\n\n")[0]

    assert set(re.findall(r"`(\w+)`", table)) >= set(FIELDS)


def test_every_format_has_a_row_and_a_section() -> None:
    assert sorted(re.findall(r"\| \[`([\w-]+)`\]\(#", pages.table())) == sorted(formats())
    assert sorted(re.findall(r"^### ([\w-]+)$", pages.sections(), re.MULTILINE)) == sorted(formats())


def test_a_format_to_log_instead_is_one_that_says_more() -> None:
    instead = {name: layout.docs["instead"] for name, layout in formats().items() if "instead" in layout.docs}

    assert set(instead.values()) <= set(formats())
    assert [name for name, better in instead.items() if codes_from(formats()[better]) == ()] == []


def test_every_question_has_a_section_with_its_parameters_and_columns() -> None:
    sections = questions.sections().split("\n## ")

    assert [section.partition("\n")[0].removeprefix("## ") for section in sections] == list(analysis.questions())
    for question, section in zip(analysis.questions().values(), sections, strict=True):
        parameters = [parameter.name for parameter in question.parameters]
        columns = [column.name for column in question.columns]
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == parameters + columns


def test_the_table_of_codes_names_the_questions_whose_headers_name_the_code() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", questions.by_code(), re.MULTILINE))
    named = {code for question in analysis.questions().values() for code in question.codes}

    assert list(rows) == list(questions.questions_by_code())
    assert named <= rows.keys()
    assert re.findall(r"\[`(\w+)`\]", rows["insufficient_scope"]) == ["scope_misuse"]


def test_every_code_of_the_catalogue_has_its_question() -> None:
    assert [code for code, names in questions.questions_by_code().items() if not names] == []
