"""The front door: one command whose sub-commands are imported when they are called.

Knows which package answers to which command, and the exit codes; does no work of its own.
"""

import re
import sys
from enum import IntEnum
from importlib import import_module
from pathlib import Path
from typing import Final

import click


class ExitCode(IntEnum):
    """What the exit code of every command means."""

    FINE = 0
    FINDINGS = 1
    BAD_INPUT = 2
    LAKE_DAMAGED = 3
    PARTLY_READ = 4


_COMMANDS: Final = {
    "ingest": ("ingest.cli:ingest", "Read gateway logs into the lake."),
    "detect": ("ingest.detect_cli:detect", "Say how logs would be read, and what they lack."),
    "ask": ("analysis.cli:ask", "Answer one question; without a name, list them."),
    "sql": ("analysis.cli:sql", "Run SQL over the lake, or open a prompt."),
    "explain": ("analysis.cli:explain", "Tell the story of a request, a key or an organisation."),
    "report": ("analysis.report:report", "Write the night's digest; exit code 1 on findings."),
    "dashboard": ("dashboard.cli:dashboard", "Open the dashboard in a browser."),
    "status": ("analysis.cli:status", "Show sources, freshness and rejects."),
    "export": ("analysis.cli:export", "Write a range of the lake as plain Parquet."),
    "check": ("ingest.maintain_cli:check", "Say whether the lake is whole, and mend it."),
    "maintain": ("ingest.maintain_cli:maintain", "Join small files, remove what is past its time."),
    "forget": ("ingest.maintain_cli:forget", "Erase an organisation or a key."),
    "rotate-secret": ("ingest.secret_cli:rotate_secret", "Make a new secret for the fingerprints of keys."),
    "demo": ("errata:demo", "Ingest the sample logs, print the report."),
}


class _Commands(click.Group):
    """Imports a sub-command's module only when that command is called or its help asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, told) for name, (_, told) in _COMMANDS.items()])


@click.group(
    cls=_Commands,
    context_settings={"max_content_width": 110},
    epilog="""\b
Examples:
  errata ingest /var/log/nginx/access.log*
  errata ask rate_limit_hot_spots --since yesterday
  errata report --day yesterday --fail-on 'retry_storms > 0'

\b
Exit codes: 0 fine, 1 findings, 2 wrong usage or unreadable input, 3 damaged lake, 4 some input could not be
read and the rest was kept.""",
)
@click.version_option(package_name="errata")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Turn API-gateway logs into answers about API errors."""
    ctx.obj = export


def export(lake: Path) -> None:
    """Brings the database for other DuckDB clients, `<lake>/errata.duckdb`, up to what was just ingested."""
    from analysis import export as export_database

    export_database(lake)


@click.command(epilog="\b\nExample:\n  errata demo")
@click.option("--lake", type=click.Path(path_type=Path), default=Path("lake"), show_default=True, help="Lake to fill.")
@click.pass_context
def demo(ctx: click.Context, lake: Path) -> None:
    """Ingest the sample logs, print the report of their last whole day, and say how to go on."""
    from analysis.report import report
    from ingest.cli import ingest

    samples = Path(__file__).with_name("sample_logs")
    logs = [str(samples / "capture" / "access.json.log.gz"), str(samples / "multi-day" / "access.json.log*")]
    ctx.invoke(ingest, paths=tuple(logs), lake=lake)
    ctx.invoke(report, lake=lake, day="2026-11-16")
    click.echo(
        f"\nThe lake is in {lake}. Go on with:\n"
        f"  errata dashboard --lake {lake}\n"
        f"  errata ask errors_by_code --lake {lake}\n"
        f"  errata sql --lake {lake}",
        err=True,
    )


def main() -> None:
    """Runs the command line; every failure that a person can mend is one line on stderr and its exit code."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.BAD_INPUT)
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        from analysis.output import inert

        click.echo(f"errata: {_NO_MEMORY if _is_of_memory(error) else inert(str(error))}", err=True)
        sys.exit(code)


def _exit_code(error: Exception) -> ExitCode | None:
    from ingest.schema import BadInput, LakeDamaged, NotWritten  # brings Arrow, which `errata --help` has no use for

    if isinstance(error, BadInput | NotWritten) or _is_of_memory(error):
        return ExitCode.BAD_INPUT
    return ExitCode.LAKE_DAMAGED if isinstance(error, LakeDamaged) else None


def _is_of_memory(error: Exception) -> bool:
    # DuckDB's class by its name: `errata --help` loads no engine.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryException"
        or _NO_THREAD.search(str(error)) is not None
    )


_NO_THREAD: Final = re.compile("can't start new thread|launch worker thread")
_NO_MEMORY: Final = (
    "expected more memory than this process may use; the lake is as its last commit left it. "
    "Free some or raise the limit (1 GiB is enough), then run the same command again."
)


if __name__ == "__main__":
    main()
