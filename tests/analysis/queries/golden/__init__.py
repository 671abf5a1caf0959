"""What every question answered about the sample logs when somebody last looked: one CSV a question.

A golden file tells that an answer has changed, not that it is right. After a change that was meant,

    python -m tests.analysis.queries.golden [QUESTION...]

writes those of the questions named, or of all; read what `git diff` shows before it is committed.
"""

import csv
from collections.abc import Iterable
from datetime import date, datetime
from io import StringIO
from pathlib import Path
from typing import Final

import duckdb
import pytest

import analysis
from ingest.run import ingest
from ingest.source import Source
from tests.analysis.queries.event_lake import rows
from tests.ingest.logs import KEY

COMMAND: Final = "python -m tests.analysis.queries.golden"
ROWS: Final = 60

_FOLDER: Final = Path(__file__).parent
_ROOT: Final = _FOLDER.parents[3]
_LOGS: Final = ("capture/access.json.log.gz", "multi-day/access.json.log*")
# Of a question that has no answer without them, or none to look at.
_PARAMETERS: Final[dict[str, dict[str, object]]] = {"what_changed": {"since": "2026-11-16", "until": "2026-11-17"}}


def sample_lake(folder: Path) -> duckdb.DuckDBPyConnection:
    """A connection to a new lake in `folder` that holds the sample logs, in the same words wherever it is made."""
    logs = sorted(path for pattern in _LOGS for path in (_ROOT / "sample_logs").glob(pattern))
    lake = folder / "lake"
    list(ingest([Source(str(path.relative_to(_ROOT)), path) for path in logs], lake, KEY))
    return analysis.connect(lake)


def golden_path(question: str) -> Path:
    """Where the golden file of `question` is."""
    return _FOLDER / f"{question}.csv"


def golden_text(question: str) -> str:
    """The golden file of `question`; fails the test, in one line, where there is none."""
    path = golden_path(question)
    if not path.exists():
        pytest.fail(f"{path.relative_to(_ROOT)}: there is no golden file; run: {COMMAND} {question}", pytrace=False)
    return path.read_text("utf-8")


def answer_text(con: duckdb.DuckDBPyConnection, question: str) -> str:
    """The answer to `question` as CSV: its first ROWS rows, and how many there are where there are more.

    Floats have six significant digits, moments are in ISO 8601, and what is not there is NULL.
    """
    answer = rows(con, question, **_PARAMETERS.get(question, {}))
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(column.name for column in analysis.questions()[question].columns)
    writer.writerows(map(_cell, row.values()) for row in answer[:ROWS])
    if len(answer) > ROWS:
        writer.writerow([f"{ROWS} of {len(answer)} rows"])
    return text.getvalue()


def write(con: duckdb.DuckDBPyConnection, questions: Iterable[str]) -> None:
    """Makes the golden files of `questions` anew."""
    for question in questions:
        golden_path(question).write_text(answer_text(con, question), "utf-8")


def _cell(value: object) -> str:
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.6g}"
        case date() | datetime():
            return value.isoformat()
        case list():
            return f"[{', '.join(map(_cell, value))}]"
        case dict():
            return f"{{{', '.join(f'{name}: {_cell(field)}' for name, field in value.items())}}}"
        case _:
            return str(value)
