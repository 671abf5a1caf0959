"""The command `errata report`: what a person asks for, where the report goes, and the exit code.

The engines are imported when the command runs, so that `--help` stays fast.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from analysis.digest import Digest

_FORMATS: Final = ("markdown", "html", "json")
_SUFFIXES: Final = {".md": "markdown", ".html": "html", ".json": "json"}
_FINDINGS: Final = 1


@click.command(
    epilog="""\b
Examples:
  errata report
  errata report --day yesterday --out night.html --out night.json
  errata report --since 24h --fail-on 'error_rate > 5%' --fail-on 'code:internal_error > 100'
  errata report --notify slack://TOKEN_A/TOKEN_B/TOKEN_C/#api --out night.html

\b
A RULE is a number, one of > >= < <= = and a limit. The numbers are
  error_rate, platform_error_rate, rate_limited_rate, client_error_rate   (5% or 0.05; no rate without requests)
  requests, errors, platform_errors, rate_limited, client_errors          (requests and errors of the period)
  code:NAME                                                               (errors of one code)
  unknown_codes                                                           (codes that the catalogue does not hold)
  retry_storms                                                            (storms, whatever the number of culprits)
  rate_limit_hot_spots, scope_misuse                                      (rows of the question)
  rejects                                                                 (lines that could not be read)
  findings                                                                (all that the report found)
  what_changed, platform_incidents, error_budget, blame_split, credit_outages, approval_dwell, rejected_keys,
  retry_discipline, blocked_resends, enumeration, contract_drift          (findings of the question)

\b
Exit codes: 0 fine, 1 a rule holds, 2 wrong usage or unreadable input, 3 damaged lake."""
)
@click.option(
    "--lake",
    type=click.Path(path_type=Path),
    envvar="ERRATA_LAKE",
    default=Path("lake"),
    show_default="./lake",
    help="Folder of the lake; also ERRATA_LAKE.",
)
@click.option(
    "--catalog",
    type=click.Path(path_type=Path),
    help="CSV file of the error codes, instead of the lake's or the default one.",
)
@click.option(
    "--day",
    metavar="DAY",
    help="2026-11-01, yesterday or today.  [default: the latest before today that has requests]",
)
@click.option("--since", metavar="MOMENT", help="Start of another period: 2026-11-01, 2026-11-01T10:00, 24h, 7d.")
@click.option("--until", metavar="MOMENT", help="End of that period, exclusive.  [default: the latest request]")
@click.option("--tz", default="UTC", show_default=True, help="Time zone of days and moments, an IANA name.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(_FORMATS),
    help="Format of the report.  [default: the suffix of --out, else markdown]",
)
@click.option(
    "--out",
    "outs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Write to this file (.md, .html or .json), not to standard output; may be repeated.",
)
@click.option(
    "--top", type=click.IntRange(min=-1), default=10, show_default=True, help="Most rows a section, -1 for all."
)
@click.option(
    "--notify",
    "notified",
    multiple=True,
    metavar="URL",
    envvar="ERRATA_NOTIFY",
    help="Send what was found to this address of Apprise (Slack, Teams, mail, webhooks, PagerDuty...), but for what "
    "it was sent in the last seven days; may be repeated. Also ERRATA_NOTIFY, where the list of processes hides it.",
)
@click.option(
    "--fail-on", "fail_on", multiple=True, metavar="RULE", help="Exit with 1 when this rule holds; may be repeated."
)
def report(
    lake: Path,
    catalog: Path | None,
    day: str | None,
    since: str | None,
    until: str | None,
    tz: str,
    format_name: str | None,
    outs: tuple[Path, ...],
    top: int,
    notified: tuple[str, ...],
    fail_on: tuple[str, ...],
) -> None:
    """Write a digest of one day: what failed, for whom, by whose fault, and what is more than the day before."""
    from datetime import UTC, datetime

    from analysis.digest import codes_never_met, digest
    from analysis.findings import read_rule
    from analysis.lake import connect
    from analysis.period import between, day_of
    from ingest.schema import BadInput

    rules = [read_rule(text) for text in fail_on]
    formats = {out: format_name or _format_of(out) for out in outs}
    if since is None and until is not None:
        raise BadInput("--until needs --since; give both, or --day")
    if since is not None and day is not None:
        raise BadInput("--day and --since exclude each other; give one")
    now = datetime.now(UTC)
    con = connect(lake, catalog=catalog)
    period = day_of(con, day, tz=tz, now=now) if since is None else between(con, since, until, tz=tz, now=now)
    facts = digest(con, period, lake=lake, catalog=catalog, rules=rules, top=top, now=now)
    _write(facts, formats, format_name or "markdown")
    for code in codes_never_met(con, rules):
        click.echo(f"errata report: no error of the lake has the code {code!r} that --fail-on names", err=True)
    _notify(facts, notified)
    for finding in facts.findings:
        click.echo(f"errata report: {finding}", err=True)
    if facts.findings:
        sys.exit(_FINDINGS)


def _notify(facts: "Digest", urls: tuple[str, ...]) -> None:
    """Each address is sent what it does not know yet; one line says what came of it."""
    if not urls:
        return
    from analysis.notify import notify

    title = f"errata, {facts.period.label}: {facts.found}"
    command = f"errata report --day {facts.period.since:%Y-%m-%d} --lake {facts.lake}"
    for url in urls:
        sent = notify(url, facts.notable, lake=facts.lake, day=facts.period.since.date(), title=title, command=command)
        click.echo(f"errata report: {sent:,} of {len(facts.notable):,} findings were new and sent", err=True)


def _format_of(out: Path) -> str:
    from ingest.schema import BadInput

    if out.suffix not in _SUFFIXES:
        raise BadInput(f"{out}: cannot tell the format from the name; give --format or one of {', '.join(_SUFFIXES)}")
    return _SUFFIXES[out.suffix]


def _write(facts: "Digest", formats: dict[Path, str], format_of_stdout: str) -> None:
    """Each file in one step, a cut one is never seen; standard output where there is no file."""
    from analysis.digest_formats import FORMATS
    from ingest.schema import BadInput

    if not formats:
        click.echo(FORMATS[format_of_stdout](facts), nl=False)
    for out, name in formats.items():
        draft = out.with_name(f".{out.name}.draft")
        try:
            # Others may write to the folder too: a link that lies there is not followed.
            draft.unlink(missing_ok=True)
            with draft.open("x", encoding="utf-8") as file:
                file.write(FORMATS[name](facts))
            draft.replace(out)
        except OSError as error:
            raise BadInput(f"{out}: cannot be written ({error.strerror}); choose another --out") from error
        finally:
            if draft.parent.is_dir():
                draft.unlink(missing_ok=True)
