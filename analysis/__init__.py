"""Answers about API errors from the lake. Knows DuckDB; knows no gateway and no screen.

con = analysis.connect(Path("lake"))
analysis.answer(con, "errors_by_code", since="yesterday").df()
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.lake import connect, export
    from analysis.question import Chart, Parameter, Question, ResultColumn, answer, install, questions
    from ingest.schema import BadInput, LakeDamaged

__all__ = [
    "BadInput",
    "Chart",
    "LakeDamaged",
    "Parameter",
    "Question",
    "ResultColumn",
    "answer",
    "connect",
    "export",
    "install",
    "questions",
]


_HOMES = {
    "BadInput": "ingest.schema",
    "LakeDamaged": "ingest.schema",
    "connect": "analysis.lake",
    "export": "analysis.lake",
}


def __getattr__(name: str) -> object:
    """The public name, imported when first asked for: the engines take 0.3 s, `errata --help` may take 0.25 s."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "analysis.question")), name)
