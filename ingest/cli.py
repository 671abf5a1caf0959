"""The command `errata ingest`: what a person asks for, what they are told, and the exit code."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click

_EPILOG = """\b
Examples:
  errata ingest /var/log/nginx/access.log*
  zcat old.gz | errata ingest - --lake /srv/errata
  errata ingest gateway.jsonl --mapping mapping.toml --dry-run
"""


def lake_option(told: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option --lake of a command that writes to one, with `told` for its help."""
    return click.option(
        "--lake",
        type=click.Path(path_type=Path),
        envvar="ERRATA_LAKE",
        default=Path("lake"),
        show_default=True,
        show_envvar=True,
        help=told,
    )


wait_option = click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0),
    default=600,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for another errata that writes to the lake.",
)


@click.command(epilog=_EPILOG)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@lake_option("Folder of the lake; made where there is none.")
@click.option("--format", "format_name", metavar="NAME", help="Read all as this format; default: detect it.")
@click.option("--mapping", type=click.Path(path_type=Path), help="TOML file: columns to paths in JSON records.")
@click.option("--time-zone", metavar="NAME", help="Zone of times that carry none: Europe/Berlin; default: UTC.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes that parse.")
@wait_option
@click.option("--dry-run", is_flag=True, help="Parse and count, write nothing.")
@click.pass_obj
def ingest(
    export: Callable[[Path], object],
    paths: tuple[str, ...],
    lake: Path,
    format_name: str | None,
    mapping: Path | None,
    time_zone: str | None,
    jobs: int,
    wait_s: float,
    dry_run: bool,
) -> None:
    """Read gateway logs into the lake.

    A PATH is a file, a folder, a glob or - for standard input; plain or packed (gzip, bzip2, xz, zstd, tar, zip), in
    any format that `errata detect --formats` lists, bare or inside what Docker, Kubernetes, syslog, a log shipper or a
    cloud puts around it. What the lake already holds is known by its content and not read twice, so a nightly run over
    the same folder adds only what is new.
    """
    from dataclasses import replace

    from ingest.fingerprint import load_key
    from ingest.preview_text import inert
    from ingest.run import ingest as run
    from ingest.source import expand

    sources = expand(paths, lake)
    choice = chosen(format_name, mapping, time_zone)
    key = load_key(lake)
    steps = []
    with _watching(sum(source.stored_bytes for source in sources)) as watch:
        told = partial(click.echo, err=True)
        reading = run(
            sources,
            lake,
            key,
            choice=choice,
            jobs=jobs,
            dry_run=dry_run,
            wait_s=wait_s,
            watch=watch,
            told=told,
            last=lambda: export(lake),
        )
        for step in reading:
            steps.append(step)
            # A file's name is as foreign as what the file holds.
            _tell(replace(step, name=inert(step.name), reason=inert(step.reason)))
    added = [step for step in steps if step.outcome == "added"]
    unread = [step for step in steps if step.outcome == "unreadable"]
    requests = sum(step.progress.requests for step in added)
    errors = sum(step.progress.errors for step in added)
    click.echo(
        f"{'Would add' if dry_run else 'Added'} {requests:,} requests, {errors:,} of them errors, "
        f"from {len(added):,} of {len(steps):,} sources.",
        err=True,
    )
    if not dry_run:
        _tell_of_other_secrets(lake, key)
    if unread:
        sys.exit(2 if len(unread) == len(steps) else 4)
    if any(step.progress.is_cut for step in steps):
        sys.exit(4)


def _tell_of_other_secrets(lake: Path, key: bytes) -> None:
    """Warns where fingerprints in the lake were made with another secret than `key`."""
    from ingest.fingerprint import secret_id
    from ingest.lake import ledger

    present = secret_id(key)
    others = sorted(set(ledger(lake)["secret_id"].drop_null().to_pylist()) - {present})
    if others:
        click.echo(
            f"{lake}: was fed with another fingerprint secret before ({', '.join(others)}; now {present}), so that "
            "callers without a key_id count twice. Set ERRATA_KEY_FILE to the old one, or ingest all logs into a new "
            "lake.",
            err=True,
        )


def chosen(format_name: str | None, mapping: Path | None, time_zone: str | None) -> Any:
    """The `Choice` of --format, --mapping and --time-zone; raises BadInput for both of the first two, and for a name
    that stands for nothing.
    """
    from dataclasses import replace
    from difflib import get_close_matches

    from ingest.formats import check_time_zone, formats, read_format
    from ingest.redact import mask_name
    from ingest.run import Choice
    from ingest.schema import BadInput

    if format_name and mapping:
        raise BadInput("--format and --mapping exclude each other; give one")
    if time_zone:
        check_time_zone(time_zone, "--time-zone")
    if mapping:
        layout = read_format(mapping)
        layout = replace(layout, name=mask_name(layout.name))
        return Choice(layout, f"--mapping {mask_name(mapping.name)}", time_zone or "")
    if format_name:
        if format_name not in formats():
            near = get_close_matches(format_name, formats(), cutoff=0.4) or ["nginx-json", "combined"]
            told = f"no such format; expected {', '.join(near)} or another that `errata detect --formats` lists"
            raise BadInput(f"--format {format_name}: {told}")
        return Choice(formats()[format_name], f"--format {format_name}", time_zone or "")
    return Choice(time_zone=time_zone or "")


def _watching(total: int) -> Any:
    """A context that gives the function to call with progress: a bar on a terminal, nothing in a pipe."""
    if not sys.stderr.isatty():
        return nullcontext(lambda name, size: None)
    return _bar(total)


class _bar:  # noqa: N801 - a context manager, used as a function
    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> Any:
        self._progress.start()
        from ingest.preview_text import inert

        return lambda name, size: self._progress.update(
            self._task, advance=size, description=inert(Path(name).name)[-40:]
        )

    def __exit__(self, *raised: object) -> None:
        self._progress.stop()


def _tell(step: Any) -> None:
    progress = step.progress
    if step.outcome == "unreadable":
        click.echo(f"{step.name}: {step.reason}", err=True)
    elif step.outcome in {"known", "empty", "moved"}:
        click.echo(f"{step.name}: {step.reason or 'nothing new'}", err=True)
    else:
        click.echo(f"{step.name}: {progress.requests:,} requests, {progress.errors:,} errors ({step.layout})", err=True)
    if progress.duplicates:
        click.echo(f"{step.name}: {progress.duplicates:,} requests were in the lake already, by their ids", err=True)
    if progress.rejects:
        reasons = ", ".join(
            f"{count:,} {reason.replace('_', ' ')}" for reason, count in sorted(progress.rejects.items())
        )
        click.echo(
            f"{step.name}: {progress.rejected:,} of {progress.lines:,} lines rejected ({reasons}). "
            'See: errata sql "FROM rejects"',
            err=True,
        )
    if progress.is_cut:
        reason = progress.refused or "the compressed stream is cut"
        click.echo(f"{step.name}: {reason}; what it held up to there was kept", err=True)
    if progress.waits:
        click.echo(f"{step.name}: the last line has no end yet; the next run takes it", err=True)
