"""Answers about API errors from the lake. Knows DuckDB; knows no gateway and no screen.

con = analysis.connect(Path("lake"))
analysis.answer(con, "errors_by_code", since="yesterday").df()
"""

from analysis.lake import connect, export
from analysis.questions import Chart, Parameter, Question, ResultColumn, answer, install, questions

__all__ = [
    "Chart",
    "Parameter",
    "Question",
    "ResultColumn",
    "answer",
    "connect",
    "export",
    "install",
    "questions",
]
