"""The threat model claims nothing without a test: each claim names one, and each test that it names is there."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
TEXT: Final = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
TEST: Final = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
CLAIMS: Final = re.findall(r"^\| claim \| shown by \|\n\|---\|---\|\n((?:\|.*\n)+)", TEXT, re.MULTILINE)


def test_every_claim_names_a_test() -> None:
    rows = [row for claims in CLAIMS for row in claims.splitlines()]

    assert len(rows) > 30
    assert [row for row in rows if not TEST.search(row.split("|")[2])] == []


def test_every_test_that_is_named_is_there() -> None:
    named = set(TEST.findall(TEXT))

    tests = {
        (path, name)
        for path in {path for path, _ in named}
        for name in re.findall(r"^def (test_\w+)\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert named - tests == set()


def test_every_name_of_a_test_is_written_so_that_it_is_checked() -> None:
    assert len(re.findall(r"\btest_\w+\b(?!\.py)", TEXT)) == len(TEST.findall(TEXT))
