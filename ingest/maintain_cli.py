"""The commands that keep a lake: `maintain`, `forget` and `check`. What a person types, and what they are told."""

import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from ingest.cli import lake_option, wait_option


def _lake_options(command: Callable[..., None]) -> Callable[..., None]:
    return lake_option("Folder of the lake.")(wait_option(command))


@click.command(
    epilog="""\b
Examples:
  errata maintain --lake /srv/errata
  errata maintain --keep-successes 30 --keep-errors 400"""
)
@click.option("--keep-successes", type=click.IntRange(1), metavar="DAYS", help="Remove successes of earlier days.")
@click.option(
    "--keep-errors", type=click.IntRange(1), metavar="DAYS", help="Remove errors and rejects of earlier days."
)
@click.option(
    "--grace",
    type=click.IntRange(0, 168),
    default=24,
    show_default=True,
    metavar="HOURS",
    help="How long replaced files stay for those who opened the lake before.",
)
@_lake_options
@click.pass_obj
def maintain(
    export: Callable[[Path], object],
    keep_successes: int | None,
    keep_errors: int | None,
    grace: int,
    lake: Path,
    wait_s: float,
) -> None:
    """Join small files, remove rows past their time, and free what nobody needs.

    Run it nightly. The days to keep can stand in settings.toml in the lake, as [retention] successes_days and
    errors_days; without either everything is kept.
    """
    from ingest.maintain import Retention
    from ingest.maintain import maintain as run
    from ingest.settings import read_settings

    settings = read_settings(lake)
    retention = Retention(keep_successes or settings.successes_days, keep_errors or settings.errors_days)
    _write(lake, wait_s, export, lambda: run(lake, retention, datetime.now(UTC), grace_hours=grace))


@click.command(epilog="\b\nExamples:\n  errata forget --org org_42\n  errata forget --key key_7f --yes")
@click.option("--org", metavar="ORG", help="Its org_id.")
@click.option("--key", metavar="KEY", help="Its key_id, or its fingerprint: the key_hash of the lake. Never the key.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_lake_options
@click.pass_obj
def forget(
    export: Callable[[Path], object], org: str | None, key: str | None, yes: bool, lake: Path, wait_s: float
) -> None:
    """Erase what the lake holds of an organisation or a key, for good.

    Its rows go, its id is masked where others mention it, and so do the files that held it. It does not reach raw
    logs, exports and backups. A log that is ingested later brings it again.
    """
    from ingest.forget import forget as run
    from ingest.forget import of_key, of_org

    if (org is None) == (key is None):
        raise click.UsageError("expected one of --org and --key")
    erasure = of_org(org) if org is not None else of_key(key or "")
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is nobody to ask whether to erase it; pass --yes")
    if not yes:
        click.confirm(
            f"Erase every request of {erasure.value} from {lake}? This cannot be undone", abort=True, err=True
        )
    _write(lake, wait_s, export, lambda: run(lake, erasure, datetime.now(UTC).date()))


@click.command(epilog="\b\nExamples:\n  errata check --deep\n  errata check --repair --lake /srv/errata")
@click.option("--deep", is_flag=True, help="Read every page of every file, and not their ends alone.")
@click.option("--repair", is_flag=True, help="Mend what can be mended; broken files are moved to LAKE/damaged.")
@_lake_options
@click.pass_obj
def check(export: Callable[[Path], object], deep: bool, repair: bool, lake: Path, wait_s: float) -> None:
    """Say whether the lake is whole: its log, its files, its ledger and the rows, each against the others.

    Exit code 3 where it is damaged. Without --repair nothing is changed.
    """
    from ingest.check import Remedy
    from ingest.check import check as run
    from ingest.lake import check_there, writing
    from ingest.mend import mend
    from ingest.schema import BadInput

    told = partial(click.echo, err=True)
    check_there(lake)
    with ExitStack() as lock:
        is_alone = True
        try:
            lock.enter_context(writing(lake, wait_s=wait_s if repair else 0, told=told))
        except BadInput:
            if repair:
                raise
            is_alone = False
        if repair:
            for line in mend(lake, is_deep=deep):
                told(line)
        found = run(lake, is_deep=deep, is_alone=is_alone)
        if repair and any(fault.remedy is Remedy.EXPORT for fault in found.faults):
            export(lake)
            found = run(lake, is_deep=deep)
    for fault in found.faults:
        click.echo(f"{'damaged' if fault.is_damage else 'note'}: {fault}")
    damaged = sum(fault.is_damage for fault in found.faults)
    if not damaged:
        told(f"{lake}: whole, {found.rows:,} rows of {found.sources:,} sources in {found.files:,} files")
        return
    is_mendable = any(fault.is_damage and fault.remedy is not Remedy.NONE for fault in found.faults)
    told(f"{lake}: {damaged:,} faults" + ("; --repair mends what can be mended" if is_mendable else ""))
    sys.exit(3)


def _write(lake: Path, wait_s: float, export: Callable[[Path], object], done: Callable[[], Iterable[str]]) -> None:
    """Runs `done` under the writer lock, tells what it says, and brings the exported database up to it."""
    from ingest.lake import check_there, writing
    from ingest.upgrade import upgrade

    told = partial(click.echo, err=True)
    check_there(lake)
    with writing(lake, wait_s=wait_s, told=told):
        upgrade(lake)
        nothing = True
        for line in done():
            nothing = False
            told(line)
        export(lake)
    if nothing:
        told("nothing to do")
