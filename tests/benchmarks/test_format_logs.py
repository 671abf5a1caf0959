"""What is measured: a log of every format that errata reads whole."""

from pathlib import Path

import pytest

from benchmarks import format_logs
from ingest.run import ingest
from ingest.source import Source


@pytest.mark.parametrize("is_refused", [False, True], ids=["read", "refused"])
@pytest.mark.parametrize(
    "name", ["nginx-json", "combined", "caddy", "kong", "traefik-json", "envoy-json", "envoy-text"]
)
def test_every_line_is_a_request(name: str, is_refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_logs, "_DRAWN", 60)
    log = tmp_path / "access.log"

    lines = format_logs.write_log(log, name, 1, is_refused=is_refused)

    [step] = ingest([Source("access.log", log)], tmp_path / "lake", bytes(32), dry_run=True)
    assert (step.layout, step.progress.lines, step.progress.requests) == (name, lines, lines)
    assert 0 < step.progress.errors < lines / 4
