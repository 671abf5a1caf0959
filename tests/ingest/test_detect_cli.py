"""What `errata detect` tells of a log, and what it never shows."""

import gzip
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner, Result

from ingest.detect_cli import detect
from ingest.draft import draft
from ingest.formats import formats
from tests.ingest.logs import Row, combined_line, error_line, json_line, log

ROOT: Final = Path(__file__).parents[2]
ERROR_LOG: Final = b"2026/11/23 10:59:05 [error] 7#7: *1 upstream timed out"
UNKNOWN: Final = {"when": "2026-11-23T10:59:05Z", "http": {"code": 500, "verb": "GET", "target": "/v1/x"}, "n": 1}

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `errata detect` with these arguments in an empty folder, without a secret for fingerprints."""
    (tmp_path / "logs").mkdir()
    monkeypatch.chdir(tmp_path / "logs")
    monkeypatch.setenv("ERRATA_KEY_FILE", str(tmp_path / "key"))
    return lambda *arguments, stdin=b"": CliRunner().invoke(detect, list(arguments), input=stdin)


def written(name: str, *lines: bytes) -> str:
    Path(name).write_bytes(log(lines))
    return name


def facts(run: Run, *arguments: str) -> Row:
    """What `--output json` says of one source."""
    told: Row = json.loads(run("--output", "json", *arguments).stdout)
    return told


def cri(line: bytes) -> bytes:
    return b"2026-11-23T10:59:05.250000000Z stdout F " + line


def test_a_log_is_told_in_full(run: Run) -> None:
    lines = [json_line(), error_line("rate_limited", 429, retry_after="30"), ERROR_LOG, b"# a comment"]

    told = run(written("access.log", *lines))

    assert (told.exit_code, told.stderr) == (0, "Read no more than the start of 1 log, and wrote nothing.\n")
    assert (
        told.stdout.splitlines()[:32]
        == """\
access.log
  format      nginx-json: nginx access log as JSON lines (escape=json)
  why         detected: 2 of the first 3 records. Confidence: medium, other software may write such records.
  records     2 nginx-json, 1 text in no known format (of the first 3 records)
  times       `msec`, seconds since 1970; the end of the request. From 2026-11-23 10:59:05 UTC to 2026-11-23
              10:59:05 UTC
  requests    2 requests in the log, 1 error among them; 1 line skipped (blank, comments, parts of a record)
  rejects     1 of 4 lines: 1 no JSON (line 3)

  column            found in    line 2, as the lake would keep it
  ts                all         2026-11-23 10:59:05.250000 UTC
  request_id        all         req_e
  org_id            all         org_1
  key_id            all         key_1
  key_hash          never
  client_ip         all         198.51.100.7
  user_agent        all         sdk/1.0
  method            all         POST
  route             all         /v1/messages
  path              all         /v1/messages
  status            all         429
  code              all errors  rate_limited
  message           all errors  rate_limited it is
  docs_url          never
  retry_after_s     1 of 2      30.0
  idempotency_hash  never
  recipient_hash    never
  latency_ms        all         8.0
  upstream_ms       all         7.0
  response_bytes    all         66
  origin            all         upstream
  gateway_reason    never""".splitlines()
    )
    assert told.stdout.splitlines()[-1] == "  missing     nothing that errata wants of a log"


def test_a_log_in_a_wrapper_is_told_with_it(run: Run) -> None:
    told = facts(run, written("pod.log", cri(json_line()), cri(ERROR_LOG)))

    assert (told["wrappers"], told["format"], told["votes"]) == (
        ["cri"],
        "nginx-json",
        {"cri > nginx-json": 1, "cri > text": 1},
    )


def test_the_records_of_each_format_are_counted(run: Run) -> None:
    told = run(written("mixed.log", json_line(), json_line(), combined_line()))

    assert "each is read in its own format: 2 nginx-json, 1 combined" in " ".join(told.stdout.split())


@pytest.mark.parametrize(
    ("lines", "times"),
    [
        ([combined_line()], "dates like 23/Nov/2026:10:59:05 +0000; the end of the request."),
        ([json_line(msec="2026-11-23T10:59:05")], "without a zone and read as UTC; the end of the request."),
        ([json_line(msec="2026-11-23T10:59:05+01:00")], "`msec`, dates of ISO 8601; the end of the request."),
        (
            [b'{"latencies":{"request":4},"started_at":1795431545000,"tries":[],"response":{"status":200}}'],
            "`started_at`, milliseconds since 1970; the start of the request, the lake keeps the end: start + latency.",
        ),
    ],
    ids=["a date with its zone", "a date without one", "ISO 8601 with one", "an epoch of the start"],
)
def test_how_times_are_understood_is_told(run: Run, lines: list[bytes], times: str) -> None:
    told = run(written("access.log", *lines))

    assert times in " ".join(told.stdout.split())


@pytest.mark.parametrize(
    ("line", "lacks"),
    [
        (error_line("rate_limited", 429, retry_after="30"), []),
        (error_line("rate_limited", 429), ["retry_after_s"]),
        (error_line("not_found", 404), []),
        (json_line(), []),
        (json_line(status=404), ["code"]),
        (json_line(org_id="", key_id="", request_id=""), ["org_id", "key_id", "request_id"]),
        (json_line(key_id="", http_x_api_key="k-1"), []),
        (combined_line(), ["code", "org_id", "key_id", "request_id", "retry_after_s"]),
    ],
    ids=[
        "all",
        "a throttled request without Retry-After",
        "no throttled request",
        "no error, and a format that may have a code",
        "an error without a code",
        "nobody named",
        "a key that has no id",
        "a format that has none",
    ],
)
def test_what_is_wanted_and_never_there_is_missing(run: Run, line: bytes, lacks: list[str]) -> None:
    assert facts(run, written("access.log", line))["lacks"] == lacks


def test_what_is_missing_comes_with_the_configuration_that_logs_it(run: Run) -> None:
    told = run(written("access.log", json_line(status=404)))

    words = " ".join(told.stdout.split())
    assert "missing error code. Have the API answer with X-Error-Code, and the log keep them." in words
    assert "More under nginx-json in docs/formats.md." in words
    snippet = formats()["nginx-json"].docs["configure"].strip("\n").splitlines()
    assert told.stdout.splitlines()[-len(snippet) :] == [f"      {line}" for line in snippet]


def test_a_format_that_says_little_shows_the_one_to_log_instead(run: Run) -> None:
    told = run(written("access.log", combined_line()))

    assert "This logs nginx-json:" in told.stdout
    assert '"error_code":"$upstream_http_x_error_code"' in told.stdout


def test_a_guess_says_so_and_how_to_decide(run: Run) -> None:
    words = " ".join(run(written("access.log", combined_line())).stdout.split())

    assert "Confidence: low, a guess: many programs write such records." in words
    assert "If it is wrong, say so: --format NAME, or --mapping FILE for your own." in words


def test_a_format_that_was_given_decides(run: Run) -> None:
    told = facts(run, written("access.log", combined_line()), "--format", "lighttpd")

    assert (told["format"], told["decision"]) == ("lighttpd", "--format lighttpd")


def test_a_mapping_decides(run: Run) -> None:
    Path("mapping.toml").write_text('[columns]\nts = "when"\nstatus = "http.code"', encoding="utf-8")

    told = facts(run, written("app.log", json.dumps(UNKNOWN).encode()), "--mapping", "mapping.toml")

    assert (told["format"], told["requests"], told["errors"]) == ("mapping", 1, 1)
    assert told["example"]["status"] == 500


def test_rejects_are_told_with_their_reasons_and_lines(run: Run) -> None:
    broken = [b"{"] * 4 + [json_line(msec=...)]

    told = run(written("access.log", json_line(), *broken))

    assert "5 of 6 lines: 4 no JSON (lines 2, 3, 4, ...); 1 without a time (line 6)" in told.stdout


def test_a_log_of_which_every_record_is_rejected_is_told_all_the_same(run: Run) -> None:
    told = run(written("access.log", json_line(msec=...)))

    assert told.exit_code == 0
    assert "requests    none in the log" in told.stdout
    assert "missing     every record is rejected." in told.stdout


def test_no_more_than_the_head_is_read_and_no_record_is_cut(run: Run) -> None:
    lines = [json_line(request_id=f"req_{number}") for number in range(1000)]

    told = facts(run, written("access.log", *lines))

    assert (told["is_whole"], told["rejects"], told["skipped"]) == (False, {}, 0)
    assert told["requests"] == told["lines"] == log(lines)[: 1 << 16].count(b"\n")


@pytest.mark.parametrize("line", [json_line(), combined_line()], ids=["JSON", "text"])
def test_a_single_record_without_a_line_end_counts(run: Run, line: bytes) -> None:
    Path("access.log").write_bytes(line)

    assert facts(run, "access.log")["requests"] == 1


def test_standard_input_archives_and_folders_are_read(run: Run) -> None:
    Path("day").mkdir()
    Path("day/a.log.gz").write_bytes(gzip.compress(log([json_line()])))
    with tarfile.open("day/b.tar", "w") as archive:
        member = tarfile.TarInfo("b.log")
        member.size = len(log([combined_line()]))
        archive.addfile(member, io.BytesIO(log([combined_line()])))

    told = run("--output", "json", "day", "-", stdin=log([json_line()]))

    found = [json.loads(line) for line in told.stdout.splitlines()]
    assert [(source["source"], source["compression"], source["format"]) for source in found] == [
        ("day/a.log.gz", "gzip", "nginx-json"),
        ("day/b.tar!b.log", "none", "combined"),
        ("-", "none", "nginx-json"),
    ]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is empty; there is nothing to tell its format by"),
        (b"\x7fELF\x02\x01\x01\0\0\0", "a program, not a log"),
        (log([ERROR_LOG]), "none of the first 1 records is in a known format: `errata detect --formats` lists them."),
    ],
    ids=["an empty file", "a program", "an error log"],
)
def test_a_log_in_no_known_format_is_told_with_what_to_do(run: Run, data: bytes, problem: str) -> None:
    Path("odd.log").write_bytes(data)

    told = run("odd.log")

    assert told.exit_code == 2
    assert told.stdout.splitlines()[0] == "odd.log"
    assert " ".join(told.stdout.split()).startswith(f"odd.log unknown {problem}")


def test_logs_of_which_some_are_known_are_told_apart_by_the_exit_code(run: Run) -> None:
    assert run(written("good.log", json_line()), written("odd.log", ERROR_LOG)).exit_code == 4


def test_json_in_no_known_format_comes_with_the_draft_of_a_mapping(run: Run) -> None:
    told = run(written("app.log", json.dumps(UNKNOWN).encode()))

    assert told.exit_code == 2
    assert [line.strip() for line in told.stdout.splitlines()[-6:]] == [
        "[columns]",
        'ts = "when"',
        'status = "http.code"',
        'method = "http.verb"',
        'path = "http.target"',
        "# also there: n",
    ]


def test_the_draft_is_a_mapping_that_reads_the_log(run: Run) -> None:
    name = written("app.log", json.dumps(UNKNOWN).encode())
    Path("mapping.toml").write_text(facts(run, name)["mapping"], encoding="utf-8")

    example = facts(run, name, "--mapping", "mapping.toml")["example"]

    assert (example["status"], example["method"], example["path"]) == (500, "GET", "/v1/x")


@pytest.mark.parametrize(
    ("records", "mapping"),
    [
        ([{"at": 1795431545.25, "code": "200"}], '[columns]\nts = "at"\nstatus = "code"'),
        ([{"at": "soon", "code": 7}], "[columns]\nts = ...\nstatus = ...\n# also there: at, code"),
        ([{"at": 1795431545, "code": 200}, {"code": 7}], '[columns]\nts = "at"\nstatus = ...\n# also there: code'),
        (
            [{"http.code": 200, "at": 1795431545000}],
            "[columns]\nts = \"at\"\nstatus = 'http\\.code'",
        ),
        ([{"code": 200}] * 2 + [{"code": 200, "ada": 1}], '[columns]\nts = ...\nstatus = "code"'),
        ([{"ada@example.com": 1, "x" * 41: 2, "": 3, "ok": [1]}], ""),
        ([], ""),
    ],
    ids=[
        "numbers",
        "nothing alike",
        "once unlike",
        "a dot in a name",
        "a name of few",
        "names that tell too much",
        "no records",
    ],
)
def test_a_draft_names_what_looks_like_a_column(records: list[dict[str, Any]], mapping: str) -> None:
    assert draft([json.dumps(record) for record in records], lambda name: name) == mapping


SECRETS: Final = ("sk_live_Zx81kQpm", "ada@example.org", "+4915112345678", "hunter2secret", "eyJhbGciOiJIUzI1NiJ9")


@pytest.mark.parametrize("output", ["text", "json"])
@pytest.mark.parametrize(
    "line",
    [
        error_line(
            "invalid",
            422,
            uri=f"/v1/{SECRETS[1]}/{SECRETS[2]}?password={SECRETS[3]}",
            http_authorization=f"Bearer {SECRETS[4]}",
            user_agent=f"{SECRETS[0]} {SECRETS[1]}",
            org_id=SECRETS[1],
        ),
        json.dumps(UNKNOWN | {"note": SECRETS[3]} | {name: 1 for name in SECRETS if name != SECRETS[3]}).encode(),
        f"password={SECRETS[3]} {SECRETS[0]} {SECRETS[1]} {SECRETS[2]} {SECRETS[4]}".encode(),
    ],
    ids=["a known format", "unknown JSON", "unknown text"],
)
def test_no_secret_of_a_log_is_shown(run: Run, line: bytes, output: str) -> None:
    told = run("--output", output, written(f"{SECRETS[1]}.log", line))

    assert told.exception is None or isinstance(told.exception, SystemExit)
    assert [secret for secret in SECRETS if secret in told.output] == []


def test_a_log_cannot_move_the_cursor(run: Run) -> None:
    told = run(written("a\x1b[2J.log", json_line(user_agent="\x1b[31mred\u202e")))

    assert told.stdout.isascii()
    assert [char for char in told.stdout if not char.isprintable() and char != "\n"] == []
    assert r"\x1b[31mred\u202e" in told.stdout


def test_nothing_is_written_not_even_the_secret_of_fingerprints(run: Run, tmp_path: Path) -> None:
    run(written("access.log", json_line(http_x_api_key="k-1")))

    assert [path.relative_to(tmp_path).name for path in tmp_path.rglob("*")] == ["logs", "access.log"]


def test_fingerprints_are_those_of_the_lake_where_there_is_a_secret(run: Run, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(bytes(range(32)).hex(), encoding="ascii")
    (tmp_path / "key").chmod(0o600)
    name = written("access.log", json_line(http_x_api_key="k-1"))

    first, second = (facts(run, name)["example"]["key_hash"] for _ in range(2))

    assert first == second


def test_formats_are_listed(run: Run) -> None:
    told = run("--formats")

    assert [line.split()[0] for line in told.stdout.splitlines()] == list(formats())
    assert "nginx-json                 field or body   nginx access log as JSON lines" in told.stdout


def test_formats_are_listed_as_json(run: Run) -> None:
    listed = [json.loads(line) for line in run("--formats", "--output", "json").stdout.splitlines()]

    assert [found["format"] for found in listed] == list(formats())
    assert [found["code_from"] for found in listed if found["format"] == "combined"] == [[]]


def test_without_a_file_it_is_wrong_usage(run: Run) -> None:
    told = run()

    assert told.exit_code == 2
    assert "Missing argument 'FILE...'. To see what can be read: errata detect --formats" in told.stderr


def test_a_process_of_its_own_tells_the_same(run: Run) -> None:
    name = str(Path(written("access.log", json_line())).resolve())
    command = [sys.executable, "-W", "error", "-m", "errata", "detect", name]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    assert (done.returncode, done.stderr) == (0, "Read no more than the start of 1 log, and wrote nothing.\n")
    assert done.stdout == run(name).stdout
