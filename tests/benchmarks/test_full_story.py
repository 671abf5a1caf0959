"""The full story of the generator: more behaviour and more near misses, for whoever scores the verdicts."""

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.generate_logs import Plan, generate
from tests.benchmarks.test_generate_logs import read_log

PLAN = Plan(seed=5, scale=0.05, story="full")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    told = tmp_path_factory.mktemp("full")
    generate(told, PLAN)
    return told


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    return read


@pytest.fixture(scope="module")
def true_requests(folder: Path) -> list[dict[str, Any]]:
    with gzip.open(folder / "truth.ndjson.gz") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def records(folder: Path) -> list[dict[str, Any]]:
    return read_log(folder).requests


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    plan = replace(PLAN, days=1, last_day_hours=9)
    for name in ("once", "again"):
        generate(tmp_path / name, plan)
    once, again = ({path.name: path.read_bytes() for path in (tmp_path / n).iterdir()} for n in ("once", "again"))
    assert once == again


def test_every_planted_incident_comes_to_pass(told: dict[str, Any]) -> None:
    planted = [incident for incident in told["incidents"] if not incident["is_near_miss"]]
    assert [incident["name"] for incident in planted if incident["errors"] == 0] == []


def test_every_near_miss_has_requests_that_can_be_mistaken(told: dict[str, Any]) -> None:
    near_misses = [incident for incident in told["incidents"] if incident["is_near_miss"]]
    assert [incident["name"] for incident in near_misses if incident["requests"] == 0] == []
    assert len(near_misses) > 20


def test_the_truth_tells_what_was_asked_and_how_long_it_took(true_requests: list[dict[str, Any]]) -> None:
    asked = {"latency_ms", "client_ip", "method", "path", "route"}
    assert [true for true in true_requests if not asked <= true.keys()] == []


def test_the_truth_counts_its_requests(told: dict[str, Any], true_requests: list[dict[str, Any]]) -> None:
    assert len(true_requests) == told["requests"]
    codes = Counter(true["code"] for true in true_requests if "code" in true)
    assert dict(codes) == told["codes"]


@pytest.mark.parametrize(
    ("route", "code", "is_broken"),
    [
        pytest.param("POST /v1/contacts", "validation_failed", lambda line: line["status"] == 422, id="status"),
        pytest.param(
            "GET /v1/contacts/{id}",
            "not_found",
            lambda line: "request_id" not in json.loads(line["resp_body"]),
            id="no_request_id",
        ),
        pytest.param(
            "POST /v1/messages",
            "opted_out",
            lambda line: not json.loads(line["resp_body"])["docs_url"].endswith("opted_out"),
            id="docs_url",
        ),
        pytest.param("GET /v1/messages", "rate_limited", lambda line: line["retry_after"] == "", id="no_retry_after"),
    ],
)
def test_the_contract_is_broken_as_often_as_planted(
    records: list[dict[str, Any]],
    told: dict[str, Any],
    true_requests: list[dict[str, Any]],
    route: str,
    code: str,
    is_broken: Any,
) -> None:
    (drift,) = [i for i in told["incidents"] if i["question"] == "contract_drift" and i.get("route") == route]
    answers = zip(true_requests, records, strict=True)
    broken = [
        true
        for true, line in answers
        if true.get("code") == code and f"{true['method']} {true['route']}" == route and is_broken(line)
    ]
    assert len(broken) == drift["errors"] > 0
