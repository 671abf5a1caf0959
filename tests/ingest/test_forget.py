"""An organisation or a key that is forgotten is nowhere in the lake: in no row, no history and no file."""

import gzip
import hmac
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import analysis
from errata import cli
from ingest import lake as lakes
from ingest.forget import Erasure, forget, of_key, of_org
from ingest.maintain import Retention, maintain
from ingest.run import ingest
from ingest.schema import BadInput
from ingest.source import Source
from tests.ingest.logs import KEY, SECOND, error_line, json_line, log, requests, steps

ORG: Final = "org_gone"
DAY_S: Final = 86_400


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Two sources of two days; the organisation sends in both, and others mention it."""
    lines = [
        json_line(
            request_id=f"r{number}", org_id=(ORG, "org_1", "org_gone2")[number % 3], msec=SECOND + number * DAY_S / 4
        )
        for number in range(9)
    ]
    mentions = [
        json_line(request_id="m1", uri=f"/v1/orgs/{ORG}/members", user_agent=f"sdk ({ORG},{ORG})"),
        error_line("org_not_approved", 403, key_id="key_gone", msec=SECOND + 7),
        error_line("not_found", 404, host=f"{ORG}.api.example", msec=SECOND + 8),
    ]
    for name, content in {"a.log": lines[:5] + mentions, f"{ORG}.log": lines[5:]}.items():
        (tmp_path / name).write_bytes(log(content))
        list(ingest([Source(name, tmp_path / name)], tmp_path / "lake", KEY))
    return tmp_path / "lake"


def forgotten(lake: Path, erasure: Erasure) -> list[str]:
    with lakes.writing(lake):
        told = list(forget(lake, erasure, datetime.now(UTC).date()))
    analysis.export(lake)
    return told


def written(lake: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below `lake` as bytes, those of Parquet with their values unpacked too."""
    for path in sorted(lake.rglob("*")):
        if path.is_file():
            yield path, path.read_bytes()
        if path.suffix == ".parquet":
            yield path, repr(pq.ParquetFile(path).read().to_pylist()).encode()


def found(lake: Path, word: str) -> set[str]:
    """The files of `lake` that hold `word`, alone or as the start of a longer id."""
    return {path.relative_to(lake).parts[0] for path, data in written(lake) if word.encode() in data}


def test_the_search_finds_it_before(lake: Path) -> None:
    assert found(lake, ORG) == {"table"}


def test_its_rows_are_gone_and_others_are_not(lake: Path) -> None:
    told = forgotten(lake, of_org(ORG))

    assert told[0] == "3 rows removed, 3 others had the id masked"
    rows = {row["request_id"]: row for row in requests(lake)}
    assert sorted(rows) == ["m1", "r1", "r2", "r4", "r5", "r7", "r8", "req_e"]
    assert (rows["m1"]["path"], rows["m1"]["user_agent"]) == (
        "/v1/orgs/[forgotten]/members",
        "sdk ([forgotten],[forgotten])",
    )
    assert {row["host"] for row in rows.values()} == {"api.example", "[forgotten].api.example"}
    assert {row["org_id"] for row in rows.values()} == {"org_1", "org_gone2"}
    assert {step["name"] for step in steps(lake)} == {"a.log", "[forgotten].log"}


def test_no_file_holds_it_any_more(lake: Path) -> None:
    with lakes.writing(lake):
        list(maintain(lake, Retention(), datetime.now(UTC)))  # its replaced files are history that holds it too

    forgotten(lake, of_org(ORG))

    places = [(path, data.replace(b"org_gone2", b"")) for path, data in written(lake)]
    assert [path for path, data in places if ORG.encode() in data] == []
    assert found(lake, "org_1") == {"table"}


def test_the_law_holds_and_nothing_comes_back(lake: Path, tmp_path: Path) -> None:
    forgotten(lake, of_org(ORG))

    health = analysis.connect(lake).execute(
        "SELECT lines, requests, removed, is_conserved FROM ingest_health() ORDER BY ALL"
    )
    assert health.fetchall() == [(4, 3, 1, True), (8, 6, 2, True)]
    (tmp_path / "a.gz").write_bytes(gzip.compress((tmp_path / "a.log").read_bytes()))
    given = [Source(name, tmp_path / name) for name in ("a.log", "a.gz", f"{ORG}.log")]
    assert [step.outcome for step in ingest(given, lake, KEY)] == ["known"] * 3


def test_a_key_is_forgotten_by_its_id_and_by_its_fingerprint(lake: Path, tmp_path: Path) -> None:
    line = '198.51.100.7 - - [23/Nov/2026:10:59:05 +0000] "GET / HTTP/1.1" 200 1 "-" "sdk"'
    (tmp_path / "b.log").write_text(f"{line}\n")
    list(ingest([Source("b.log", tmp_path / "b.log")], lake, KEY))

    assert forgotten(lake, of_key("key_gone"))[0] == "1 rows removed, 0 others had the id masked"
    assert forgotten(lake, of_key("key_1"))[0] == "11 rows removed, 0 others had the id masked"
    assert len(requests(lake)) == 1
    assert found(lake, "key_gone") == set()


def test_a_recipient_is_no_key_and_stays_when_its_fingerprint_is_given(lake: Path, tmp_path: Path) -> None:
    envelope = {"object": "error", "code": "opted_out", "message": "+12025550146 has opted out."}
    line = json_line(status=403, request_id="refused", resp_body=json.dumps(envelope))
    (tmp_path / "b.log").write_bytes(line + b"\n")
    list(ingest([Source("b.log", tmp_path / "b.log")], lake, KEY))
    recipient = hmac.digest(KEY, b"+12025550146", "sha256").hex()[:16]

    assert forgotten(lake, of_key(recipient))[0] == "0 rows removed, 0 others had the id masked"
    assert [row["recipient_hash"] for row in requests(lake) if row["recipient_hash"]] == [recipient]


def test_what_is_not_there_is_forgotten_without_a_commit(lake: Path) -> None:
    before = lakes.open_table(lake).version()

    assert forgotten(lake, of_org("nobody"))[0] == "0 rows removed, 0 others had the id masked"
    assert lakes.open_table(lake).version() == before


def test_nothing_is_erased_where_nobody_can_be_asked(lake: Path) -> None:
    result = CliRunner().invoke(cli, ["forget", "--org", ORG, "--lake", str(lake)])

    assert result.exit_code == 2
    assert "there is nobody to ask whether to erase it; pass --yes" in result.output
    assert any(row["org_id"] == ORG for row in requests(lake))


def test_the_command_erases_and_says_what(lake: Path) -> None:
    result = CliRunner().invoke(cli, ["forget", "--org", ORG, "--lake", str(lake), "--yes"])

    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("3 rows removed, 3 others had the id masked\n")
    assert not any(row["org_id"] == ORG for row in requests(lake))


@pytest.mark.parametrize("value", ["", "  "], ids=["nothing", "blanks"])
def test_an_empty_id_is_refused(lake: Path, value: str) -> None:
    with pytest.raises(BadInput, match="expected the id to forget, found an empty one"):
        forgotten(lake, of_org(value))


@pytest.mark.parametrize("value", ["it's", "a.*", r"a\b", "x') OR true --", "ü"])
def test_an_id_is_text_and_nothing_else(lake: Path, value: str) -> None:
    assert forgotten(lake, of_org(value))[0] == "0 rows removed, 0 others had the id masked"


def test_it_can_be_stopped_and_run_again(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, calls = lakes.commit, iter(range(10))

    def stopped(*args: object, **named: object) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt
        commit(*args, **named)  # type: ignore[arg-type]  # whatever it was given

    with monkeypatch.context() as patch:
        patch.setattr(lakes, "commit", stopped)
        with pytest.raises(KeyboardInterrupt):
            forgotten(lake, of_org(ORG))
    forgotten(lake, of_org(ORG))

    assert not any(row["org_id"] == ORG for row in requests(lake))
    health = analysis.connect(lake).execute("SELECT bool_and(is_conserved) FROM ingest_health()").fetchall()
    assert health == [(True,)]


def test_a_request_whose_mention_was_masked_is_known_when_it_is_shipped_again(lake: Path, tmp_path: Path) -> None:
    forgotten(lake, of_org(ORG))
    before = requests(lake)

    mention = json_line(request_id="m1", uri=f"/v1/orgs/{ORG}/members", user_agent=f"sdk ({ORG},{ORG})")
    other = json_line(request_id="m1", uri="/v1/orgs/org_1/members", msec=SECOND + 1)
    (tmp_path / "tail.log").write_bytes(log([mention, other]))
    [told] = ingest([Source("tail.log", tmp_path / "tail.log")], lake, KEY)

    assert (told.progress.requests, told.progress.duplicates) == (1, 1)
    assert [row["request_id"] for row in requests(lake)].count("m1") == 2
    assert len(requests(lake)) == len(before) + 1
