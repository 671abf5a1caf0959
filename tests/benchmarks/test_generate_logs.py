"""The generated log and its truth, checked by a reader that shares nothing with the generator."""

import gzip
import io
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import zstandard

from benchmarks.generate_logs import Plan, generate

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample_logs"
ID = re.compile(r"(?<=/messages/)m_\w+|(?<=/contacts/)(c[0-9a-f]{10}|Andr.)$|(?<=/organizations/)acct-\w+")


@dataclass(frozen=True)
class Log:
    """A folder of the generator's files, as an independent reader finds it."""

    told: dict[str, Any]
    planted: list[str]
    true_requests: list[dict[str, Any]]
    lines: dict[str, list[bytes]]
    requests: list[dict[str, Any]]  # the gateway's fields, and `code` out of the body


def read_log(folder: Path) -> Log:
    """The log in `folder`, its files from the oldest to the newest."""
    paths = [*sorted(folder.glob("access.json.log-*")), folder / "access.json.log"]
    lines = {path.name: unpacked(path).split(b"\n")[:-1] for path in paths}
    records = [parsed(line) for of_file in lines.values() for line in of_file]
    return Log(
        told=json.loads((folder / "truth.json").read_text(encoding="utf-8")),
        planted=json.loads((folder / "planted.json").read_text(encoding="utf-8")),
        true_requests=[json.loads(line) for line in unpacked(folder / "truth.ndjson.gz").splitlines()],
        lines=lines,
        requests=[record for record in records if record is not None],
    )


def unpacked(path: Path) -> bytes:
    """The bytes of a file as they were before it was rotated."""
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(path.read_bytes())).read()
    return path.read_bytes()


def parsed(line: bytes) -> dict[str, Any] | None:
    """The request of a line, None where it holds none."""
    try:
        record = json.loads(line.decode(errors="surrogateescape"))
    except ValueError:
        return None
    if not isinstance(record, dict) or "status" not in record:
        return None
    return record | {"code": code_in(record["resp_body"])}


def code_in(body: str) -> str | None:
    """The code of an envelope, also of one that is cut or encoded twice."""
    found = re.search(r'"code":"(\w+)"', body.replace('\\"', '"'))
    return found[1] if found else None


def kind_of(line: bytes) -> str:
    """What a line counts as."""
    if not line.strip():
        return "skipped"
    return "rejects" if parsed(line) is None else "requests"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Log:
    folder = tmp_path_factory.mktemp("generated")
    generate(folder, Plan(seed=11, last_day_hours=3, scale=0.1))
    return read_log(folder)


@cache
def sample() -> Log:
    return read_log(SAMPLES / "multi-day")


@pytest.fixture(scope="module", params=["generated", "sample"])
def log(request: pytest.FixtureRequest) -> Log:
    chosen = sample() if request.param == "sample" else request.getfixturevalue("generated")
    assert isinstance(chosen, Log)
    return chosen


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    plan = Plan(days=1, last_day_hours=9)
    for name in ("once", "again"):
        generate(tmp_path / name, plan)
    once, again = ({path.name: path.read_bytes() for path in (tmp_path / n).iterdir()} for n in ("once", "again"))
    assert once == again


def test_another_seed_is_another_world(tmp_path: Path) -> None:
    customers = []
    for seed in (1, 2):
        told = generate(tmp_path / str(seed), Plan(seed=seed, days=1, last_day_hours=1, scale=0.05))
        customers.append(set(told["by_org"]) - {"null"})
    assert customers[0].isdisjoint(customers[1])


def test_more_scale_is_more_customers(tmp_path: Path) -> None:
    plans = {scale: Plan(days=1, last_day_hours=1, scale=scale) for scale in (0.1, 3.0)}
    customers = {scale: len(generate(tmp_path / str(scale), plan)["by_key"]) for scale, plan in plans.items()}
    assert customers[3.0] > customers[0.1] + 50


def test_every_line_is_a_request_a_reject_or_blank(log: Log) -> None:
    counted = {name: Counter(kind_of(line) for line in lines) for name, lines in log.lines.items()}
    expected = {
        name: {"lines": len(log.lines[name])} | {kind: counts[kind] for kind in ("requests", "rejects", "skipped")}
        for name, counts in counted.items()
    }
    assert log.told["files"] == expected
    for kind in ("lines", "requests", "rejects", "skipped"):
        assert log.told[kind] == sum(counts[kind] for counts in expected.values())


def test_days_are_rotated_and_packed(log: Log) -> None:
    assert list(log.lines) == [
        "access.json.log-20261113.gz",
        "access.json.log-20261114.gz",
        "access.json.log-20261115.gz",
        "access.json.log-20261116.zst",
        "access.json.log",
    ]


def test_the_newest_file_ends_with_a_whole_line(log: Log) -> None:
    assert kind_of(log.lines["access.json.log"][-1]) == "requests"


def test_requests_have_the_fields_of_a_real_capture(log: Log) -> None:
    with gzip.open(SAMPLES / "capture" / "access.json.log.gz") as capture:
        real = json.loads(next(capture))
    fields = [(name, type(value)) for name, value in real.items()]
    seen = {tuple((name, type(value)) for name, value in request.items() if name != "code") for request in log.requests}
    assert seen == {tuple(fields)}


def test_every_code_of_the_catalogue_and_one_more_occurs(log: Log) -> None:
    catalogue = (ROOT / "analysis" / "error_codes.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert {request["code"] for request in log.requests} - {None} == {
        "template_rejected",
        *(line.partition(",")[0] for line in catalogue),
    }


@pytest.mark.parametrize(
    ("counts", "field"),
    [
        pytest.param("by_day", lambda request: request["time"][:10], id="day"),
        pytest.param("by_code", lambda request: request["code"], id="code"),
        pytest.param("by_status", lambda request: str(request["status"]), id="status"),
        pytest.param("by_org", lambda request: request["org_id"], id="org"),
        pytest.param("by_key", lambda request: request["key_id"], id="key"),
        pytest.param(
            "by_route", lambda request: f"{request['method']} {ID.sub('{id}', request['uri'])}".strip(), id="route"
        ),
    ],
)
def test_the_counts_are_those_of_an_independent_reading(log: Log, counts: str, field: Any) -> None:
    cells: defaultdict[str, dict[str, Any]] = defaultdict(lambda: {"requests": 0, "errors": 0, "codes": Counter()})
    for request in log.requests:
        cell = cells[field(request) or "null"]
        cell["requests"] += 1
        cell["errors"] += request["status"] >= 400
        cell["codes"].update(filter(None, [request["code"]]))
    assert log.told[counts] == cells


def test_the_truth_tells_every_request_in_the_order_of_the_log(log: Log) -> None:
    true = [(t.get("request_id", ""), t["status"], t.get("code"), t["start_epoch"]) for t in log.true_requests]
    assert true == [
        (request["request_id"], request["status"], request["code"], round(request["msec"] - request["request_time"], 3))
        for request in log.requests
    ]


def test_the_truth_names_the_owners_that_the_log_names(log: Log) -> None:
    pairs = [
        ((request["org_id"], request["key_id"]), (true.get("org"), true.get("key_id")))
        for request, true in zip(log.requests, log.true_requests, strict=True)
        if request["org_id"]
    ]
    assert [logged for logged, _ in pairs] == [true for _, true in pairs]


def test_a_retry_asks_again_after_the_reply_it_retries(log: Log) -> None:
    by_seq = {true["seq"]: (true, request) for true, request in zip(log.true_requests, log.requests, strict=True)}
    asked = ("method", "uri", "args", "idempotency_key", "remote_addr")
    broken = []
    for true, request in by_seq.values():
        if "retry_of_seq" in true:
            earlier, earlier_request = by_seq[true["retry_of_seq"]]
            is_same = [request[name] for name in asked] == [earlier_request[name] for name in asked]
            is_next = (true["chain"], true["attempt"]) == (earlier["chain"], earlier["attempt"] + 1)
            if not (is_same and is_next and true["start_epoch"] > earlier_request["msec"] and earlier["status"] >= 400):
                broken.append(true)
    assert broken == []


@pytest.mark.parametrize(("persona", "shares"), [("honours_retry_after", {True}), ("ignores_retry_after", {False})])
def test_who_honours_retry_after_does_so_to_the_last_retry(generated: Log, persona: str, shares: set[bool]) -> None:
    by_seq = dict(zip((true["seq"] for true in generated.true_requests), generated.requests, strict=True))
    waited = Counter(
        true["start_epoch"] - by_seq[true["retry_of_seq"]]["msec"] >= float(by_seq[true["retry_of_seq"]]["retry_after"])
        for true in generated.true_requests
        if true["persona"] == persona and by_seq.get(true.get("retry_of_seq"), {}).get("retry_after")
    )
    assert waited.total() >= 20
    assert waited.most_common(1)[0][0] in shares


def test_every_planted_string_is_in_the_files(log: Log) -> None:
    raw = b"\n".join(line for lines in log.lines.values() for line in lines).decode(errors="replace")
    decoded = unquote(raw)
    assert [text for text in log.planted if text not in raw and text not in decoded] == []


@pytest.mark.parametrize("prefix", ["sk_live_", "ik_live_", "eyJ", "+1", "("])
def test_secrets_and_personal_data_of_every_kind_are_planted(log: Log, prefix: str) -> None:
    assert any(text.startswith(prefix) for text in log.planted)


def test_no_key_of_the_api_is_in_the_files_that_is_not_planted_or_masked(log: Log) -> None:
    raw = b"\n".join(line for lines in log.lines.values() for line in lines).decode(errors="replace")
    assert set(re.findall(r"[si]k_live_\w+", raw)) == {text for text in log.planted if "k_live_" in text[:8]}


def test_every_planted_incident_comes_to_pass(log: Log) -> None:
    planted = [incident for incident in log.told["incidents"] if not incident["is_near_miss"]]
    assert [incident["name"] for incident in planted if incident["errors"] == 0] == []
    assert len(planted) == 35


def test_damage_is_of_every_kind(log: Log) -> None:
    assert set(log.told["kinds_of_lines"]) == {"request", "blank", "cut", "error_log", "not_an_object", "no_status"}
    assert log.told["hard_to_read"] == {"body_cut": 3, "body_encoded_twice": 3, "path_not_utf8": 3}


def test_the_capture_has_a_true_request_for_every_line() -> None:
    folder = SAMPLES / "capture"
    told = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    lines = {name: len(unpacked(folder / name).splitlines()) for name in ("access.json.log.gz", "truth.ndjson.gz")}
    assert lines == {"access.json.log.gz": told["lines"], "truth.ndjson.gz": told["requests"]}
