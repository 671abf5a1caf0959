"""Writes what the code already says into the documentation: questions, columns, commands, formats, dependencies.

`python -m docs` writes them; `python -m docs --check` exits with 1 and names each part that is out of step.
"""

import sys
import tomllib
from pathlib import Path
from typing import Final

import click

import errata
from docs import formats, questions, redaction
from ingest.schema import (
    CATALOGUE_COLUMNS,
    DAILY_COLUMNS,
    PARTITION_COLUMNS,
    REJECT_COLUMNS,
    REQUEST_COLUMNS,
    SOURCE_COLUMNS,
    Column,
)

_ROOT: Final = Path(__file__).parent.parent


_DAILY: Final = (
    "The successes in `requests`, counted, for whoever needs how many there were and not each of them. It also has "
    "`kind`, `day` and `caller`. A count may be in several rows, one for each ingest of the day that brought some: sum "
    "`successes`, take the least `first_ts` and the greatest `last_ts`."
)


def dictionary() -> str:
    """Every column of every view, with type, unit and meaning."""
    derived = (
        "`requests` and `errors` also have `kind` and `day`, `caller` (key_id, else key_hash, else client_ip) and "
        "`is_error`; `errors` has `is_known_code`, `is_retryable`, `category` and `owner` from the catalogue."
    )
    tables = (
        ("Views `requests` and `errors`", REQUEST_COLUMNS, derived),
        ("View `daily_successes`", DAILY_COLUMNS, _DAILY),
        ("View `rejects`", REJECT_COLUMNS, "Lines that are no readable request. Their text is not kept."),
        ("View `sources`", SOURCE_COLUMNS, "The ledger: a row for each time that something new of a source was read."),
        ("View `catalogue`", CATALOGUE_COLUMNS, "The error catalogue, joined when a question is asked."),
        ("Partitions", PARTITION_COLUMNS, "The folders of the Delta table; every view has both columns."),
    )
    return "\n\n".join(f"## {title}\n\n{note}\n\n{_columns(columns)}" for title, columns, note in tables)


def _columns(columns: tuple[Column, ...]) -> str:
    rows = [f"| `{column.name}` | {column.type} | {column.unit} | {column.meaning} |" for column in columns]
    return "\n".join(["| column | type | unit | meaning |", "|---|---|---|---|", *rows])


def commands() -> str:
    """The help of every command, as it is printed."""
    parent = click.Context(errata.cli, info_name="errata", max_content_width=100, terminal_width=100)
    parts = [f"## errata\n\n```text\n{errata.cli.get_help(parent)}\n```"]
    for name in errata.cli.list_commands(parent):
        command = errata.cli.get_command(parent, name)
        if command is not None:
            ctx = click.Context(command, info_name=name, parent=parent, max_content_width=100, terminal_width=100)
            parts.append(f"## errata {name}\n\n```text\n{command.get_help(ctx)}\n```")
    return "\n\n".join(parts)


def dependencies() -> str:
    """Every dependency and why it is there, from the comments of pyproject.toml."""
    text = (_ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    names = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    reasons = {line.split('"')[1]: line.partition("#")[2].strip() for line in text.splitlines() if '",' in line}
    return "\n".join(["| package | why |", "|---|---|", *(f"| {name} | {reasons[name]} |" for name in names)])


_PARTS: Final = {
    ("README.md", "questions"): questions.table,
    ("README.md", "codes"): questions.by_code,
    ("docs/questions.md", "definitions"): questions.sections,
    ("docs/data-dictionary.md", "dictionary"): dictionary,
    ("docs/commands.md", "commands"): commands,
    ("README.md", "format-count"): formats.count,
    ("docs/formats.md", "formats"): formats.table,
    ("docs/formats.md", "sections"): formats.sections,
    ("docs/redaction.md", "shapes"): redaction.shapes,
    ("docs/redaction.md", "planted"): redaction.table,
    ("docs/architecture.md", "dependencies"): dependencies,
}
"""File and marker: what stands between `<!-- MARKER -->` and `<!-- /MARKER -->` there."""


def main(arguments: list[str]) -> int:
    """The exit code: 1 where `--check` found a part out of step, else 0."""
    stale = []
    for (name, marker), make in _PARTS.items():
        path = _ROOT / name
        text = path.read_text()
        before, start, rest = text.partition(f"<!-- {marker} -->\n")
        _, end, after = rest.partition(f"<!-- /{marker} -->")
        if not (start and end):
            raise SystemExit(f"{name}: expected the markers <!-- {marker} --> and <!-- /{marker} -->")
        wanted = f"{before}{start}{make()}\n{end}{after}"
        if wanted != text:
            stale.append(f"{name}: {marker}")
            if "--check" not in arguments:
                path.write_text(wanted)
    for part in stale:
        print(f"{part} {'is out of step; run make docs' if '--check' in arguments else 'written'}", file=sys.stderr)
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
