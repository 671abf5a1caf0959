"""The sample logs against the truth that lies beside them: to the last request, and without a secret."""

import gzip
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
import pytest

from ingest.run import Step, ingest
from ingest.schema import table_path
from ingest.source import expand
from tests.ingest.logs import KEY, Row, rejects, requests, steps

SAMPLES: Final = Path(__file__).parents[2] / "sample_logs"
CAPTURE: Final = SAMPLES / "capture"
MULTI_DAY: Final = SAMPLES / "multi-day"


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_truth(path: Path) -> list[Row]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def lake_of(factory: pytest.TempPathFactory, *paths: Path) -> tuple[Path, list[Step]]:
    """A lake with the logs at `paths`, and what became of them."""
    lake = factory.mktemp("samples") / "lake"
    return lake, list(ingest(expand([str(path) for path in paths]), lake, KEY))


@pytest.fixture(scope="module")
def json_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with the capture's JSON log."""
    return lake_of(tmp_path_factory, CAPTURE / "access.json.log.gz")[0]


@pytest.fixture(scope="module")
def combined_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with the capture's combined log."""
    return lake_of(tmp_path_factory, CAPTURE / "access.combined.log.gz")[0]


@pytest.fixture(scope="module")
def multi_day_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with the generated days."""
    return lake_of(tmp_path_factory, *sorted(MULTI_DAY.glob("access.json.log*")))[0]


@pytest.fixture(scope="module")
def truth() -> list[Row]:
    """What the clients of the capture did."""
    return read_truth(CAPTURE / "truth.ndjson.gz")


def tally(rows: Iterable[Row], *names: str) -> dict[Any, int]:
    """How many of `rows` have which value, or values, under `names`."""
    return dict(
        Counter(row.get(names[0]) if len(names) == 1 else tuple(row.get(name) for name in names) for row in rows)
    )


def test_every_request_of_the_capture_has_the_code_status_org_and_key_of_the_truth(
    json_lake: Path, truth: list[Row]
) -> None:
    by_id = {row["request_id"]: row for row in truth if "request_id" in row}

    found = {row["request_id"]: row for row in requests(json_lake) if row["request_id"]}

    assert {
        request_id: (row["code"], row["status"], row["org_id"], row["key_id"]) for request_id, row in found.items()
    } == {
        request_id: (row.get("code"), row["status"], row.get("org"), row.get("key_id"))
        for request_id, row in by_id.items()
    }


def test_the_counts_of_the_capture_are_those_of_its_summary(json_lake: Path, truth: list[Row]) -> None:
    summary = read_json(CAPTURE / "summary.json")
    rows = requests(json_lake)
    errors = [row for row in rows if row["code"]]

    # A client that hung up has no status; the gateway gave its own.
    by_status = summary["by_status"] | {"499": summary["by_status"]["null"]}
    del by_status["null"]
    assert len(rows) == summary["requests"]
    assert len(errors) == summary["envelope_errors"]
    assert tally(errors, "code") == summary["by_code"]
    assert {str(status): count for status, count in tally(rows, "status").items()} == by_status
    for column, name in (("org_id", "by_org"), ("key_id", "by_key")):
        counts = {key: dict(sorted(tally(of_key, "code").items())) for key, of_key in grouped(errors, column).items()}
        assert counts == {key: dict(sorted(codes.items())) for key, codes in summary[name].items()}


def grouped(rows: Iterable[Row], column: str) -> dict[str, list[Row]]:
    """`rows` by the text of their value in `column`."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row[column] or "null"), []).append(row)
    return found


def test_what_the_gateway_answered_itself_is_told_apart(json_lake: Path, truth: list[Row]) -> None:
    unnamed = [row for row in requests(json_lake) if row["request_id"] is None]

    assert tally(unnamed, "status", "gateway_reason", "origin", "code") == {
        (499, "client_closed_request", "gateway", None): 8,
        (504, "gateway_timeout", "gateway", None): 5,
        (400, "bad_request", "gateway", None): 3,
        (502, "bad_gateway", "gateway", None): 1,
        (414, "uri_too_long", "gateway", None): 1,
    }
    assert len(unnamed) == len([row for row in truth if "request_id" not in row])


def test_bodies_that_were_logged_as_raw_gzip_are_read_all_the_same(json_lake: Path) -> None:
    summary = read_json(CAPTURE / "summary.json")

    codes = tally([row for row in requests(json_lake) if row["code"]], "code")

    readable = summary["by_code_readable_in_json_log"]
    assert sum(codes.values()) == sum(readable.values()) + summary["error_bodies_gzipped"]
    assert tally([row for row in requests(json_lake) if row["kind"] == "error"], "body_state") == {
        "whole": 5626,
        "absent": 12,
        "truncated": 1,
    }


def test_times_of_the_capture_are_the_ends_of_its_responses(json_lake: Path) -> None:
    summary = read_json(CAPTURE / "summary.json")

    times = [row["ts"].strftime("%Y-%m-%dT%H:%M:%S.%fZ") for row in requests(json_lake)]

    assert (min(times), max(times)) == (summary["first_line_end"], summary["last_line_end"])


def test_the_combined_log_of_the_same_traffic_has_the_same_requests_without_codes(
    json_lake: Path, combined_lake: Path
) -> None:
    # Not their paths and agents: the JSON log has nginx's $uri, in which /v1/../etc is /etc, and no \\x22 for a quote.
    names = ("line", "status", "client_ip", "response_bytes")

    rows, others = requests(combined_lake), requests(json_lake)

    assert [row["ts"].replace(microsecond=0) for row in others] == [row["ts"] for row in rows]
    assert [[row[name] for name in names] for row in rows] == [[row[name] for name in names] for row in others]
    assert tally(rows, "code") == {None: len(rows)}
    errors = [row for row in rows if row["kind"] == "error"]
    assert set(tally(errors, "origin")) == {"upstream", "gateway"}
    assert tally(errors, "body_state") == {"absent": len(errors)}


def test_the_days_have_the_counts_of_their_truth(multi_day_lake: Path) -> None:
    told = read_json(MULTI_DAY / "truth.json")
    rows = requests(multi_day_lake)

    assert (len(rows), len(rejects(multi_day_lake))) == (told["requests"], told["rejects"])
    for column, name in (
        ("day", "by_day"),
        ("code", "by_code"),
        ("status", "by_status"),
        ("org_id", "by_org"),
        ("key_id", "by_key"),
    ):
        found = {
            key: {
                "requests": len(of_key),
                "errors": len([row for row in of_key if row["kind"] == "error"]),
                "codes": dict(sorted(tally([row for row in of_key if row["code"]], "code").items())),
            }
            for key, of_key in grouped(rows, column).items()
        }
        assert found == told[name]


def test_the_files_of_the_days_have_the_lines_of_their_truth(multi_day_lake: Path) -> None:
    told = read_json(MULTI_DAY / "truth.json")

    found = {
        Path(step["name"]).name: {name: step[name] for name in ("lines", "requests", "rejects", "skipped")}
        for step in steps(multi_day_lake)
    }

    assert found == told["files"]


def test_every_request_of_the_days_is_that_of_the_truth(multi_day_lake: Path) -> None:
    by_id = tally(read_truth(MULTI_DAY / "truth.ndjson.gz"), "request_id", "status", "code")

    found = tally(requests(multi_day_lake), "request_id", "status", "code")

    assert found == by_id


@pytest.mark.parametrize("folder", [CAPTURE, MULTI_DAY], ids=["capture", "multi-day"])
def test_nothing_that_was_planted_is_anywhere_in_the_lake(
    folder: Path, json_lake: Path, combined_lake: Path, multi_day_lake: Path
) -> None:
    planted = read_json(folder / "planted.json")

    lakes = [json_lake, combined_lake] if folder == CAPTURE else [multi_day_lake]
    files = [path for lake in lakes for path in table_path(lake).rglob("*") if path.is_file()]
    decoded = "\n".join(str(pq.ParquetFile(path).read().to_pydict()) for path in files if path.suffix == ".parquet")
    written = b"\n".join(path.read_bytes() for path in files)

    assert len(decoded) > 1_000_000
    assert [secret for secret in planted if secret in decoded or secret.encode() in written] == []
