"""The commands `ask`, `sql`, `explain` and `status`: what a person types, and nothing about how it is answered.

The engines are imported when a command runs, so that `--help` stays fast.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from analysis.question import Parameter, Question

_OUTPUTS: Final = ("table", "csv", "json", "markdown", "parquet")
_METAVARS: Final = {
    "TIMESTAMP": "MOMENT",
    "BIGINT": "INTEGER",
    "DOUBLE": "NUMBER",
    "BOOLEAN": "true|false",
    "INTERVAL": "INTERVAL",
}
# One row a source: a grown source has a ledger step per ingest, the last of which has its latest name.
_STATUS: Final = """
SELECT
    max_by(name, struct_pack(ingested_at, to_byte)) AS source,
    max_by(gateway, struct_pack(ingested_at, to_byte)) AS gateway,
    sum(lines)::BIGINT AS lines,
    sum(requests)::BIGINT AS requests,
    sum(errors)::BIGINT AS errors,
    coalesce(sum(duplicates), 0)::BIGINT AS duplicates,
    sum(rejects)::BIGINT AS rejects,
    sum(skipped)::BIGINT AS skipped,
    coalesce(sum(removed), 0)::BIGINT AS removed,
    max_by(is_cut, struct_pack(ingested_at, to_byte)) AS is_cut,
    min(first_ts) AS first_ts,
    max(last_ts) AS last_ts,
    max(ingested_at) AS ingested_at,
    source_id
FROM sources
GROUP BY source_id
ORDER BY last_ts DESC NULLS LAST, source, source_id
"""
_MOMENTS: Final = "MOMENT is 2026-11-01, 2026-11-01T10:00, today, yesterday, or a look-back such as 24h or 7d."


def _lake_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        [
            click.option(
                "--lake",
                type=click.Path(path_type=Path),
                envvar="ERRATA_LAKE",
                default=Path("lake"),
                show_default=True,
                help="Folder of the lake; also ERRATA_LAKE.",
            ),
            click.option(
                "--catalog",
                type=click.Path(path_type=Path),
                help="CSV file of the error codes, instead of the lake's or the default one.",
            ),
        ]
    ):
        command = option(command)
    return command


def _output_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        [
            click.option(
                "--output",
                type=click.Choice(_OUTPUTS),
                help="Format of the rows; csv has an apostrophe before text that a spreadsheet would compute, json and "
                "parquet are exact.  [default: the suffix of --out, else table on a terminal and csv elsewhere]",
            ),
            click.option("--out", type=click.Path(path_type=Path), help="Write to this file, not to standard output."),
            click.option(
                "--limit",
                type=click.IntRange(min=-1),
                help="Most rows to write, -1 for all.  [default: 500 for a table, else all]",
            ),
        ]
    ):
        command = option(command)
    return command


class _Questions(click.Group):
    """One command per question, with an option per parameter of its macro."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from analysis.question import questions

        return list(questions())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        from analysis.question import find

        return _question_command(find(cmd_name))


@click.group(
    cls=_Questions,
    invoke_without_command=True,
    subcommand_metavar="[NAME [OPTIONS]]",
    epilog="\b\nExample:\n  errata ask errors_by_code --since yesterday",
)
@click.pass_context
def ask(ctx: click.Context) -> None:
    """Answer one question about the errors in the lake; without NAME, list the questions.

    `errata ask NAME --help` shows what a question takes and what its columns mean.
    """
    if ctx.invoked_subcommand is None:
        from analysis.question import questions

        width = max(map(len, questions()), default=0)
        for question in questions().values():
            click.echo(f"{question.name:{width}}  {question.title}\n{'':{width}}  {question.asks}")


def _question_command(question: "Question") -> click.Command:
    columns = "".join(f"\n  {column.name}: {column.meaning}" for column in question.columns)
    takes_moments = any(parameter.sql_type == "TIMESTAMP" for parameter in question.parameters)
    example = f"errata ask {question.name}{' --since 7d' if takes_moments else ''} --output csv"

    @click.command(
        question.name,
        params=[_option(parameter) for parameter in question.parameters if parameter.name != "tz"],
        short_help=question.title,
        help=f"{question.title}. {question.asks}" + (f"\n\n{_MOMENTS}" if takes_moments else ""),
        epilog=f"\b\nResult columns:{columns}\n\n\b\nExample:\n  {example}",
    )
    @click.option("--tz", default="UTC", show_default=True, help="Time zone of the moments you write, an IANA name.")
    @_lake_options
    @_output_options
    @click.option("--show-sql", is_flag=True, help="Print the SQL instead of running it.")
    def run(
        tz: str,
        lake: Path,
        catalog: Path | None,
        output: str | None,
        out: Path | None,
        limit: int | None,
        show_sql: bool,
        **values: object,
    ) -> None:
        from analysis.interrupt import interruptibly
        from analysis.lake import connect
        from analysis.output import write_rows
        from analysis.question import answer, call

        parameters = _parameters(question, values, tz)
        if show_sql:
            click.echo(f"{question.sql.rstrip()}\n\n{call(question, parameters)};")
            return
        con = connect(lake, catalog=catalog)
        interruptibly(con, lambda: write_rows(answer(con, question.name, **parameters), output, out=out, limit=limit))

    return run


def _option(parameter: "Parameter") -> click.Option:
    default = "" if parameter.default.upper() == "NULL" else f"  [default: {parameter.default}]"
    return click.Option(
        [f"--{parameter.name.replace('_', '-')}", parameter.name],
        metavar=_METAVARS.get(parameter.sql_type, "TEXT"),
        type=click.BOOL if parameter.sql_type == "BOOLEAN" else click.STRING,
        help=parameter.meaning + default,
    )


def _parameters(question: "Question", values: dict[str, Any], tz: str) -> dict[str, object]:
    """What was given, with moments in UTC; the zone goes to the question too where it takes one."""
    from analysis.moments import utc_moment, zone_named

    zone = zone_named(tz)
    given: dict[str, object] = {"tz": tz} if any(parameter.name == "tz" for parameter in question.parameters) else {}
    for parameter in question.parameters:
        value = values.get(parameter.name)
        if value is not None:
            is_moment = parameter.sql_type == "TIMESTAMP"
            given[parameter.name] = utc_moment(value, name=f"--{parameter.name}", zone=zone) if is_moment else value
    return given


@click.command(
    epilog='\b\nExample:\n  errata sql "SELECT code, count(*) AS errors FROM errors GROUP BY ALL ORDER BY errors DESC"'
    "\n  errata sql \"FROM errors_by_code(since := '2026-11-01'::DATE)\" --output json"
)
@click.argument("query", required=False)
@_lake_options
@_output_options
def sql(
    query: str | None, lake: Path, catalog: Path | None, output: str | None, out: Path | None, limit: int | None
) -> None:
    """Run QUERY over the lake; - reads it from standard input, nothing opens a prompt.

    The views are requests, errors, rejects, sources and catalogue; every question is a table macro.
    """
    if query is None and sys.stdin.isatty():
        from analysis.lake import connect
        from analysis.prompt import prompt

        prompt(connect(lake, catalog=catalog), output=output, limit=limit)
        return
    text = sys.stdin.read() if query is None or query == "-" else query
    _write_query(text, lake, catalog, output, out, limit)


@click.command(
    epilog="\b\nExample:\n  errata explain req_8f3k2m\n  errata explain key_4821 --since 7d\n  errata explain org_42"
)
@click.argument("about")
@click.option("--since", metavar="MOMENT", help="Of a key or an organisation: from here on.  [default: all]")
@click.option("--until", metavar="MOMENT", help="Of a key or an organisation: before this moment.")
@click.option("--tz", default="UTC", show_default=True, help="Time zone of the moments you write, an IANA name.")
@_lake_options
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Format.")
def explain(
    about: str, since: str | None, until: str | None, tz: str, lake: Path, catalog: Path | None, output: str
) -> None:
    """Tell the story of a request, a key or an organisation.

    ABOUT is a request_id: what it was answered, what that means, and what its caller did around it. Or it is a caller
    (key_id, fingerprint of a key, address) or an org_id: what it asked, what the questions say, and when what happened.
    """
    import dataclasses
    import json

    from analysis.explain import explain as explain_request
    from analysis.explain import story
    from analysis.history import history, history_text, kind_of
    from analysis.interrupt import interruptibly
    from analysis.lake import connect
    from analysis.moments import utc_moment, zone_named
    from analysis.output import plain
    from ingest.schema import BadInput

    zone = zone_named(tz)
    first, last = (
        utc_moment(value, name=name, zone=zone) if value else None
        for name, value in (("--since", since), ("--until", until))
    )
    con = connect(lake, catalog=catalog)
    kind = interruptibly(con, lambda: kind_of(con, about))
    if kind == "request":
        if first or last:
            raise BadInput("--since and --until are for a key or an organisation; a request has its own moment")
        explanation = interruptibly(con, lambda: explain_request(con, about))
        told, text = dataclasses.asdict(explanation), story(explanation)
    else:
        lived = interruptibly(con, lambda: history(con, about, kind, since=first, until=last))
        told, text = dataclasses.asdict(lived), history_text(lived)
    click.echo(json.dumps(plain(told), indent=2) if output == "json" else text, nl=output == "json")


@click.command(epilog="\b\nExample:\n  errata status --output csv")
@_lake_options
@_output_options
def status(lake: Path, catalog: Path | None, output: str | None, out: Path | None, limit: int | None) -> None:
    """Show what the lake was fed: a row per source with its lines, rejects and freshness, the latest first."""
    _write_query(_STATUS, lake, catalog, output, out, limit)


@click.command(
    epilog="""\b
Examples:
  errata export /srv/november --since 2026-11-01 --until 2026-12-01
  errata export last-week --since 7d --view errors"""
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--since", metavar="MOMENT", help="From here on.  [default: the first request]")
@click.option("--until", metavar="MOMENT", help="Before this moment.  [default: the last request]")
@click.option("--tz", default="UTC", show_default=True, help="Time zone of the moments you write, an IANA name.")
@click.option(
    "--view",
    type=click.Choice(["requests", "errors"]),
    default="requests",
    show_default=True,
    help="Every request, or the errors with what the catalogue says of their codes.",
)
@_lake_options
def export(
    folder: Path, since: str | None, until: str | None, tz: str, view: str, lake: Path, catalog: Path | None
) -> None:
    """Write a range of the lake to FOLDER as plain Parquet, a file a day, for other tools.

    The folder appears when all of it is there. Its rows are those of the lake: secrets and personal data are masked.

    MOMENT is 2026-11-01, 2026-11-01T10:00, today, yesterday, or a look-back such as 24h or 7d.
    """
    from analysis.interrupt import interruptibly
    from analysis.lake import connect
    from analysis.moments import utc_moment, zone_named
    from analysis.parquet_export import export_parquet

    zone = zone_named(tz)
    first, last = (
        utc_moment(value, name=name, zone=zone) if value else None
        for name, value in (("--since", since), ("--until", until))
    )
    con = connect(lake, catalog=catalog)
    counts = interruptibly(con, lambda: export_parquet(con, folder, view=view, since=first, until=last))
    click.echo(f"{sum(counts.values()):,} {view} of {len(counts):,} days are in {folder}", err=True)


def _write_query(
    text: str, lake: Path, catalog: Path | None, output: str | None, out: Path | None, limit: int | None
) -> None:
    from analysis.interrupt import interruptibly
    from analysis.lake import connect
    from analysis.output import write_query

    con = connect(lake, catalog=catalog)
    interruptibly(con, lambda: write_query(con, text, output, out=out, limit=limit))
