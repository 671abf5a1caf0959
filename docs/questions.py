"""The questions as the documentation shows them: what each answers, which is for which code, and its definitions."""

import csv
from collections.abc import Iterable
from typing import Final

import analysis
from analysis.lake import DEFAULT_CATALOGUE
from analysis.question import Question

_PAGE: Final = "docs/questions.md"


def table() -> str:
    """What each question answers, by name."""
    return _table(("question", "what it answers"), ((_link(question), question.asks) for question in _all()))


def by_code() -> str:
    """The questions that are the answer for each code of the default catalogue."""
    return _table(
        ("code", "question"), ((f"`{code}`", ", ".join(names)) for code, names in questions_by_code().items())
    )


def questions_by_code() -> dict[str, list[str]]:
    """For every code of the default catalogue, in its order, links to the questions that are the answer for it."""
    with DEFAULT_CATALOGUE.open(encoding="utf-8", newline="") as file:
        codes = [row["code"] for row in csv.DictReader(file)]
    return {code: [_link(question) for question in _all() if code in question.codes] for code in codes}


def sections() -> str:
    """A section for each question: what it asks, its parameters with their defaults, and its columns."""
    return "\n\n".join(map(_section, _all()))


def _all() -> Iterable[Question]:
    return analysis.questions().values()


def _link(question: Question) -> str:
    return f"[`{question.name}`]({_PAGE}#{question.name})"


def _section(question: Question) -> str:
    codes = f" The answer for {', '.join(f'`{code}`' for code in question.codes)}." if question.codes else ""
    return "\n\n".join(
        (
            f"## {question.name}",
            f"{question.title}. {question.asks}{codes}",
            _table(
                ("parameter", "default", "meaning"),
                ((f"`{name.name}`", f"`{name.default}`", name.meaning) for name in question.parameters),
            ),
            _table(("column", "meaning"), ((f"`{name.name}`", name.meaning) for name in question.columns)),
        )
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in (" | ".join(head), *lines)).replace(
        "\n", f"\n{'|---' * len(head)}|\n", 1
    )
