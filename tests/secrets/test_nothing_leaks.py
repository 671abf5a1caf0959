"""Secrets and personal data that are planted in every place of every format are in nothing that errata writes."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner

import analysis
import errata
from ingest.formats import formats
from ingest.run import ingest
from ingest.source import expand
from tests.ingest import wrapping
from tests.ingest.logs import KEY, NGINX_JSON, json_line, log
from tests.secrets import planted
from tests.secrets.search import found_below, found_in

NAMES: Final = {
    name: text
    for name, (text, _) in planted.PLANTED.items()
    if name in {"Stripe", "GitHub", "e-mail", "E.164", "national, North America"}
}
"""What may stand in the name of a file."""

SINCE: Final = "2024-01-01"
"""Before the requests of all samples."""

MAPPING: Final = """[columns]
ts = "when"
status = "status"
code = "said"
"""


def wrapped() -> Iterator[tuple[str, bytes]]:
    """Records with everything planted in them, in all that carries records, by the name of that."""
    lines = [
        json_line(uri=f"/v1/{text}", user_agent=text, request_id=text, status=400, resp_body=json.dumps(body))
        for text in (planted.TOGETHER, *(text for text, _ in planted.PLANTED.values()))
        for body in [{"object": "error", "code": text, "message": text, "docs_url": text, "details": {"to": text}}]
    ]
    lines += [b"Authorization: " + planted.TOGETHER.encode()]
    wraps = (
        *(wrapping.cri, wrapping.docker, wrapping.docker_lossy, wrapping.journald, wrapping.syslog_3164),
        *(wrapping.syslog_5424, wrapping.crlf, wrapping.marked, wrapping.utf_16),
    )
    yield from ((wrap.__name__, wrap(lines)) for wrap in wraps)
    documents = (wrapping.json_array, wrapping.json_array_on_one_line, wrapping.indented, wrapping.indented_array)
    yield from ((wrap.__name__, wrap(lines[:-1])) for wrap in (*documents, wrapping.back_to_back))
    yield from ((name, pack(wrapping.plain(lines))) for name, pack in wrapping.PACKERS.items())


@dataclass(frozen=True)
class Written:
    """Where everything is that errata wrote, and the lake in it; `logs` is what it read."""

    folder: Path
    lake: Path
    logs: Path


def run(folder: Path, name: str, *arguments: str | Path, code: set[int] | None = None) -> None:
    """Runs `errata` with `arguments` and keeps what it says below `folder`."""
    done = CliRunner().invoke(errata.cli, [str(argument) for argument in arguments], obj=errata.export)
    problem = f"{type(done.exception).__name__}: {done.exception}" if done.exception else ""
    (folder / f"{name}.out").write_bytes(done.stdout_bytes)
    (folder / f"{name}.err").write_bytes(done.stderr_bytes + problem.encode())
    assert done.exit_code in (code or {0}), problem


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """What errata wrote of logs with something planted everywhere: the lake, and what every command said."""
    base = tmp_path_factory.mktemp("planted")
    logs, folder = base / "logs", base / "written"
    folder.mkdir()
    (logs / "formats").mkdir(parents=True)
    for name, layout in formats().items():
        (logs / "formats" / f"{name}.log").write_bytes(log(planted.lines(layout)))
    for number, (name, content) in enumerate(wrapped()):
        (logs / f"{number} {name}.log").write_bytes(content)
    for number, text in enumerate(NAMES.values()):
        (logs / f"{text}.log").write_bytes(log([json_line(request_id=f"req_{number}")]))
        (logs / f"not a log {text}.log").write_bytes(text.encode() * 3)
        (logs / f"{text}.gz").write_bytes(b"\x1f\x8b" + text.encode())
    mapping = logs / f"{NAMES['Stripe']}.toml"
    mapping.write_text(MAPPING)
    own = logs / "own.jsonl"
    own.write_text(json.dumps({"when": "2026-11-23T11:00:00Z", "status": 400, "said": planted.TOGETHER}) + "\n")
    lake = folder / "lake"
    run(folder, "ingest", "ingest", logs, "--lake", lake, code={4})
    run(folder, "ingest-again", "ingest", logs, "--lake", lake, code={4})
    run(folder, "ingest-mapping", "ingest", own, "--lake", folder / "own", "--mapping", mapping)
    for output in ("text", "json"):
        chosen = logs if output == "json" else logs / "formats"
        run(folder, f"detect-{output}", "detect", chosen, "--output", output, code={0, 4})
    for suffix in ("md", "html", "json"):
        run(
            folder,
            f"report-{suffix}",
            "report",
            "--lake",
            lake,
            "--since",
            "2000-01-01",
            "--out",
            folder / f"r.{suffix}",
        )
    for name, question in analysis.questions().items():
        since = ["--since", SINCE] if "since" in {parameter.name for parameter in question.parameters} else []
        run(folder, f"ask-{name}", "ask", name, "--lake", lake, *since, "--output", "json")
    for view in ("requests", "errors", "rejects", "sources"):
        for suffix in ("csv", "json", "md", "parquet"):
            out = folder / f"{view}.{suffix}"
            run(folder, f"sql-{view}-{suffix}", "sql", f"FROM {view}", "--lake", lake, "--out", out)
    run(folder, "sql-table", "sql", "FROM errors", "--lake", lake, "--output", "table", "--limit", "300")
    run(folder, "status", "status", "--lake", lake)
    ids = (
        analysis.connect(lake).execute("SELECT request_id FROM errors WHERE request_id IS NOT NULL LIMIT 5").fetchall()
    )
    for number, (request_id,) in enumerate(ids):
        run(folder, f"explain-{number}", "explain", request_id, "--lake", lake)
    return Written(folder, lake, logs)


def test_nothing_that_is_planted_is_in_anything_that_errata_wrote(written: Written) -> None:
    assert found_below(written.folder) == {}


def test_what_was_planted_was_read(written: Written) -> None:
    # A log that is not understood leaks nothing, and shows nothing.
    con = analysis.connect(written.lake)
    gateways = {gateway for (gateway,) in con.execute("SELECT DISTINCT gateway FROM requests").fetchall()}
    masks = {
        mask: con.execute("SELECT count(*) > 20 FROM errors WHERE contains(message, ?)", [mask]).fetchone()
        for mask in ("[secret]", "[phone]", "[email]", "[encoded]")
    }

    assert set(formats()) - gateways <= WITHOUT_STATUS | EXTENDING
    assert masks == dict.fromkeys(masks, (True,))


WITHOUT_STATUS: Final = {name for name, layout in formats().items() if layout.lacks}
"""Formats whose records are no requests."""
EXTENDING: Final = {"traefik-clf", "trafficserver-extended"}
"""Formats whose lines are of the one that they extend, once something stands behind a field."""


def test_everything_that_is_planted_is_in_the_logs(written: Written) -> None:
    assert set().union(*found_below(written.logs).values()) == set(planted.PLANTED)


def test_an_open_door_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ingest.shapes.SUSPICIOUS", "ingest.redact.UNSAFE_ID", "ingest.redact.SUSPICIOUS_PATH"):
        monkeypatch.setattr(name, "\x00 in no log")
    (tmp_path / "api.log").write_bytes(log(planted.lines(NGINX_JSON)))

    list(ingest(expand([str(tmp_path / "api.log")]), tmp_path / "lake", KEY))
    analysis.export(tmp_path / "lake")

    found = found_below(tmp_path / "lake")
    assert set().union(*found.values()) == set(planted.PLANTED)


@pytest.mark.parametrize("encode", planted.ENCODINGS.values(), ids=planted.ENCODINGS)
@pytest.mark.parametrize("name", planted.PLANTED)
def test_the_search_sees_through_every_encoding(name: str, encode: planted.Encode) -> None:
    text, _ = planted.PLANTED[name]

    assert name in found_in(f"before {encode('12' + text + '!')} after".encode())
