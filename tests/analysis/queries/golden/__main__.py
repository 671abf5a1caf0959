"""Writes the golden files of the questions named, or of all."""

import tempfile
from pathlib import Path

import click

import analysis
from tests.analysis.queries.golden import sample_lake, write


@click.command()
@click.argument("questions", metavar="[QUESTION]...", nargs=-1, type=click.Choice(list(analysis.questions())))
def main(questions: tuple[str, ...]) -> None:
    """Writes the golden files of each QUESTION, or of all, for you to read before you commit them."""
    with tempfile.TemporaryDirectory() as folder:
        write(sample_lake(Path(folder)), questions or analysis.questions())


if __name__ == "__main__":
    main()
