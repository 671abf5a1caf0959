"""The command `errata detect`: what an ingest would make of a log, told to a person who has never seen errata."""

import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from ingest.preview import Preview


@dataclass(frozen=True)
class Unread:
    """A log in no known format: why, and the draft of a mapping where its records are JSON."""

    problem: str
    mapping: str


_EPILOG = """\b
Examples:
  errata detect /var/log/nginx/access.log
  kubectl logs deploy/gateway | errata detect -
  errata detect exports/ --output json
  errata detect gateway.jsonl --mapping mapping.toml
  errata detect --formats
"""


@click.command(epilog=_EPILOG)
@click.argument("paths", nargs=-1, metavar="FILE...")
@click.option("--format", "format_name", metavar="NAME", help="Read all as this format; default: detect it.")
@click.option("--mapping", type=click.Path(path_type=Path), help="TOML file: columns to paths in JSON records.")
@click.option("--time-zone", metavar="NAME", help="Zone of times that carry none: Europe/Berlin; default: UTC.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Format.")
@click.option("--formats", "is_list", is_flag=True, help="List the known formats, and read nothing.")
def detect(
    paths: tuple[str, ...],
    format_name: str | None,
    mapping: Path | None,
    time_zone: str | None,
    output: str,
    is_list: bool,
) -> None:
    """Say how logs would be read, why, and what they lack.

    A FILE is what `errata ingest` takes: a file, a folder, a glob, an archive or - for standard input. No more than the
    first 64 KiB of each log is read, or 16 MiB of one whose first record is longer; nothing is written, and no lake is
    needed. Rows are shown as the lake would hold them: secrets and personal data masked.
    """
    if is_list:
        _list_formats(output)
        return
    if not paths:
        raise click.UsageError("Missing argument 'FILE...'. To see what can be read: errata detect --formats")
    count = unread = 0
    for name, found in _previews(paths, format_name, mapping, time_zone):
        told = json.dumps(_facts(name, found), default=str) if output == "json" else _text(name, found)
        click.echo("\n" + told if count and output == "text" else told)
        count += 1
        unread += isinstance(found, Unread)
    logs = "1 log" if count == 1 else f"{count:,} logs"
    click.echo(f"Read no more than the start of {logs}, and wrote nothing.", err=True)
    if unread:
        sys.exit(2 if unread == count else 4)


def _previews(
    paths: tuple[str, ...], format_name: str | None, mapping: Path | None, time_zone: str | None
) -> "Iterator[tuple[str, Preview | Unread]]":
    """The name of each source, masked, and what is to be told of it."""
    from ingest.cli import chosen
    from ingest.fingerprint import key_path, load_key
    from ingest.parse import Lanes
    from ingest.preview import mapping_draft, preview
    from ingest.redact import mask_name
    from ingest.schema import BadInput
    from ingest.source import expand, replayable

    choice = chosen(format_name, mapping, time_zone)
    sources = expand(paths)
    # The secret is made by an ingest, not by a look: without one, fingerprints are of this run alone.
    key = load_key() if os.access(key_path(), os.R_OK) else secrets.token_bytes(32)
    with closing(Lanes(key, 1)) as lanes, replayable(sources) as found:
        for source in found:
            name = mask_name(source.name)
            try:
                yield name, preview(source, lanes, choice.layout, choice.said, choice.time_zone)
            except (BadInput, OSError) as error:
                problem = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
                yield name, Unread(problem.removeprefix(f"{source.name}: "), mapping_draft(source, mask_name))


def _list_formats(output: str) -> None:
    from ingest.formats import formats
    from ingest.preview import codes_from

    for layout in formats().values():
        if output == "json":
            facts = {
                "format": layout.name,
                "title": layout.title,
                "kind": layout.docs.get("kind", ""),
                "confidence": layout.confidence,
                "code_from": codes_from(layout),
                "fields": [*layout.columns],
            }
            click.echo(json.dumps(facts))
        else:
            click.echo(f"{layout.name:{max(map(len, formats()))}}  {_CODES[codes_from(layout)]:14}  {layout.title}")
    if output == "text":
        click.echo(
            "\nThe second column says where the code of an error comes from: a field, which a header of the response\n"
            "can fill, or the body. docs/formats.md has what each gives and how to configure it.",
            err=True,
        )


_CODES: Final = {("body", "code"): "field or body", ("code",): "field", ("body",): "body", (): "no code"}


def _text(name: str, found: "Preview | Unread") -> str:
    from ingest.preview_text import text, unknown_text

    return unknown_text(name, found.problem, found.mapping) if isinstance(found, Unread) else text(name, found)


def _facts(name: str, found: "Preview | Unread") -> dict[str, Any]:
    if isinstance(found, Unread):
        return {"source": name, "problem": found.problem, "mapping": found.mapping}
    from ingest.preview_text import moment

    layout, detection, progress = found.layout, found.detection, found.progress
    return {
        "source": name,
        "compression": found.compression,
        "is_whole": found.is_whole,
        "format": layout.name,
        "title": layout.title,
        "wrappers": detection.wrappers,
        "confidence": layout.confidence,
        "decision": detection.decision,
        "votes": detection.votes,
        "alternatives": found.alternatives,
        "times": {
            "field": found.times.place,
            "unit": found.times.unit,
            "assumed_zone": found.times.zone,
            "is": found.times.marks,
            "first": moment(progress.first_us),
            "last": moment(progress.last_us),
        },
        "lines": progress.lines,
        "requests": progress.requests,
        "errors": progress.errors,
        "skipped": progress.skipped,
        "rejects": progress.rejects,
        "formats": found.formats(),
        "found": found.found(),
        "lacks": found.lacks(),
        "example": found.example(),
        "notes": layout.docs.get("notes", "").strip(),
        "configure": layout.docs.get("configure", "").strip("\n"),
    }
