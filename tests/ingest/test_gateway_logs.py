"""250 consecutive lines of nine real gateways, each read by a few lines of Python here and compared row by row."""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from ingest.run import Step, ingest
from ingest.source import Source
from tests.ingest.logs import KEY, Row, requests

LOGS: Final = Path(__file__).parent / "fixtures" / "gateways"
REQUEST: Final = re.compile(r'"([A-Z]+) ([^ "]+)')  # HAProxy cuts a line that is too long


def expected(status: Any, method: Any, target: Any, latency_ms: float, **ids: Any) -> Row:
    """A row: what every one of these logs says, and ids that are None where a log has none."""
    return {
        "status": int(status),
        "method": method,
        "target": str(target).partition("?")[0],
        "latency_ms": latency_ms,
        "request_id": ids.get("request_id"),
        "org_id": ids.get("org_id"),
        "key_id": ids.get("key_id"),
        "code": ids.get("code"),
    }


def ids_of(record: dict[str, Any]) -> Row:
    """The ids that a flat record names."""
    return {name: None if record[name] in ("", "-") else record[name] for name in ("request_id", "org_id", "key_id")}


def code_of(body: Any) -> str | None:
    """The code of an envelope, as text or as an object."""
    if isinstance(body, dict):
        return str(body["code"])
    # A body may be cut, but these say their code at once.
    start = re.match(r'\{\s*"object":\s*"error",\s*"code":\s*"(\w+)"', body or "")
    return start and start[1]


def apache(line: str) -> Row:
    # Its escapes are those of C, which JSON does not know.
    record = json.loads(re.sub(r"\\x(..)", r"\\u00\1", line))
    return expected(record["status"], record["method"], record["uri"], record["duration_us"] / 1e3, **ids_of(record))


def caddy(line: str) -> Row:
    record = json.loads(line)
    headers = {name: values[0] for name, values in record["resp_headers"].items()}
    request = record["request"]
    return expected(
        record["status"],
        request["method"],
        request["uri"],
        record["duration"] * 1e3,
        request_id=headers["X-Request-Id"],
        org_id=headers.get("X-Org-Id"),
        key_id=headers.get("X-Key-Id"),
        code=code_of(record.get("resp_body")),
    )


def envoy_json(line: str) -> Row:
    record = json.loads(line)
    code = code_of(record["response_body"])
    return expected(
        record["response_code"], record["method"], record["path"], record["duration"], **ids_of(record), code=code
    )


def envoy_text(line: str) -> Row:
    request, after = REQUEST.search(line), line.split('" ', 1)[1].split(" ")
    assert request
    return expected(after[0], request[1], request[2], float(after[4]))


def haproxy(line: str) -> Row:
    request, words = REQUEST.search(line), line.split("] ", 1)[1].split(" ")
    assert request
    captured = re.findall(r"\{([^}]*)\}", line)[1].split("|")
    ids = {name: value or None for name, value in zip(("request_id", "org_id", "key_id"), captured, strict=True)}
    return expected(words[3], request[1], request[2], float(words[2].split("/")[-1]), **ids)


def nginx(record: dict[str, Any]) -> Row:
    body = record["resp_body"]
    code = code_of(body) if not body.startswith("<") else None
    return expected(
        record["status"], record["method"], record["uri"], record["request_time"] * 1e3, **ids_of(record), code=code
    )


def ecs(line: str) -> Row:
    record = json.loads(json.loads(line)["log"])
    request, response = record["http"]["request"], record["http"]["response"]
    return expected(
        response["status_code"],
        request["method"],
        record["url"]["original"],
        record["event"]["duration_s"] * 1e3,
        request_id=request["id"],
        org_id=record["labels"]["org_id"],
        key_id=record["labels"]["key_id"],
        code=code_of(record.get("error_body")),
    )


def pino(line: str) -> Row:
    record = json.loads(line)
    headers = record["res"]["headers"]
    return expected(
        record["res"]["statusCode"],
        record["req"]["method"],
        record["req"]["url"],
        record["responseTime"],
        request_id=headers["x-request-id"],
        org_id=headers.get("x-org-id"),
        key_id=headers.get("x-key-id"),
        code=code_of(record.get("errorBody")),
    )


def traefik(line: str) -> Row:
    record = json.loads(line)
    return expected(
        record["DownstreamStatus"],
        record["RequestMethod"],
        record["RequestPath"],
        record["Duration"] / 1e6,
        request_id=record.get("downstream_X-Request-Id"),
        org_id=record.get("downstream_X-Org-Id"),
        key_id=record.get("downstream_X-Key-Id"),
    )


def of_each_line(read: Callable[[str], Row]) -> Callable[[list[str]], Iterator[Row]]:
    """`read` for every line."""
    return lambda lines: map(read, lines)


def in_cri(lines: list[str]) -> Iterator[Row]:
    """nginx JSON in the lines of a container runtime, which splits some records."""
    begun = ""
    for line in lines:
        _, _, tag, text = line.split(" ", 3)
        begun += text
        if tag == "F":
            yield nginx(json.loads(begun))
            begun = ""


READ: Final[dict[str, tuple[str, Callable[[list[str]], Iterator[Row]]]]] = {
    "apache.json.log": ("apache-json-start", of_each_line(apache)),
    "caddy-2.11.json.log": ("caddy", of_each_line(caddy)),
    "envoy.json.log": ("envoy-json", of_each_line(envoy_json)),
    "envoy.default.log": ("envoy-text", of_each_line(envoy_text)),
    "haproxy-httplog.rsyslog.log": ("haproxy-http-user-agent", of_each_line(haproxy)),
    "nginx-json.cri.log": ("nginx-json", in_cri),
    "nginx-njs.docker.log": ("ecs-seconds", of_each_line(ecs)),
    "node.pino.log": ("pino", of_each_line(pino)),
    "traefik.json.log": ("traefik-json", of_each_line(traefik)),
}


@pytest.mark.parametrize("name", READ)
def test_every_request_of_a_real_gateway_is_read(name: str, tmp_path: Path) -> None:
    layout, read = READ[name]
    path = LOGS / f"{name}.gz"
    lines = gzip.decompress(path.read_bytes()).decode().removesuffix("\n").split("\n")
    wanted = list(read(lines))

    [step] = ingest([Source(name, path)], tmp_path / "lake", KEY)

    assert told(step) == (layout, len(lines), len(wanted), {}, len(lines) - len(wanted))
    rows = requests(tmp_path / "lake")
    for row, want in zip(rows, wanted, strict=True):
        path_is_kept = "#" not in row["path"] and "{org_id}" not in row["path"]
        found = {column: row[column] for column in want if column != "target"}
        target = {"target": row["path"] if path_is_kept else want["target"]}
        assert found | target == want | {"latency_ms": pytest.approx(want["latency_ms"], rel=1e-9)}
    assert {row["gateway"] for row in rows} == {layout}


def told(step: Step) -> tuple[str, int, int, dict[str, int], int]:
    """What an ingest says of a source: its format, lines, requests, rejects by reason, and skipped lines."""
    progress = step.progress
    return step.layout, progress.lines, progress.requests, progress.rejects, progress.skipped
