"""The interactive prompt of `errata sql`: history, completion and colours around one connection.

Knows the keyboard and the screen. What a statement gives is written by `analysis.output`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
import duckdb
from prompt_toolkit import PromptSession
from prompt_toolkit.application.current import get_app
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer

from analysis.interrupt import interruptibly
from analysis.lake import VIEWS
from analysis.output import inert, write_query
from analysis.question import questions
from ingest.schema import BadInput, LakeDamaged

_HELP: Final = """\
Write SQL and end it with ;
  .tables      the views and their columns
  .questions   the questions: each is a table macro, FROM errors_by_code(since := '2026-11-01'::DATE);
  .quit        leave, as ctrl-D does
ctrl-C stops a query. Tab completes views, columns, questions and SQL words."""


def prompt(con: duckdb.DuckDBPyConnection, *, output: str | None = None, limit: int | None = None) -> None:
    """Reads statements and dot commands and writes what they give, until .quit or the end of the input."""
    session: PromptSession[str] = PromptSession(
        "errata> ",
        history=FileHistory(str(_history_file())),
        lexer=PygmentsLexer.from_filename("query.sql"),
        completer=WordCompleter(words(con), ignore_case=True),
        key_bindings=_key_bindings(),
        multiline=True,
        prompt_continuation=lambda width, line, wrapped: "...> ".rjust(width),
    )
    click.echo("Write SQL and end it with ;  .help for help", err=True)
    while True:
        try:
            text = session.prompt().strip()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if text == ".quit":
            return
        if text.startswith("."):
            _COMMANDS.get(text, _unknown)(con)
        elif text:
            _run(con, text, output, limit)


def words(con: duckdb.DuckDBPyConnection) -> list[str]:
    """What Tab completes: the views, their columns, every macro, and DuckDB's keywords in upper case."""
    found = con.execute(
        "SELECT DISTINCT column_name FROM duckdb_columns() WHERE NOT internal"
        " UNION SELECT function_name FROM duckdb_functions() WHERE NOT internal"
        " UNION SELECT upper(keyword_name) FROM duckdb_keywords()"
    ).fetchall()
    return sorted({*VIEWS, *(word for (word,) in found)})


def is_complete(text: str) -> bool:
    """Is `text` a dot command or a statement that ends in a semicolon (or nothing at all)?"""
    stripped = text.strip()
    return not stripped or stripped.startswith(".") or stripped.endswith(";")


def _run(con: duckdb.DuckDBPyConnection, text: str, output: str | None, limit: int | None) -> None:
    try:
        interruptibly(con, lambda: write_query(con, text, output, limit=limit))
    except KeyboardInterrupt:
        click.echo("query stopped", err=True)
    except (BadInput, LakeDamaged) as error:
        click.echo(inert(str(error)), err=True)


def _show_help(_: duckdb.DuckDBPyConnection) -> None:
    click.echo(_HELP)


def _show_tables(con: duckdb.DuckDBPyConnection) -> None:
    for view in VIEWS:
        click.echo(f"{view}: {', '.join(con.sql(f'FROM {view}').columns)}")


def _show_questions(_: duckdb.DuckDBPyConnection) -> None:
    for question in questions().values():
        click.echo(
            f"{question.name}({', '.join(parameter.name for parameter in question.parameters)}): {question.title}"
        )


def _unknown(_: duckdb.DuckDBPyConnection) -> None:
    click.echo(f"expected SQL or one of {' '.join(sorted([*_COMMANDS, '.quit']))}", err=True)


_COMMANDS: Final[dict[str, Callable[[duckdb.DuckDBPyConnection], None]]] = {
    ".help": _show_help,
    ".tables": _show_tables,
    ".questions": _show_questions,
}


def _key_bindings() -> KeyBindings:
    """Enter runs what is complete, and starts a new line in what is not."""
    bindings = KeyBindings()

    def has_complete_text() -> bool:
        return is_complete(get_app().current_buffer.text)

    @bindings.add("enter", filter=Condition(has_complete_text))
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    return bindings


def _history_file() -> Path:
    """The history, in the XDG state folder, readable by its owner alone: what was asked may name customers."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    path = Path(state) / "errata" / "sql_history"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.chmod(0o600)
    return path
