"""Measures `errata ingest` beside bare DuckDB, and GoAccess where it is installed, in one run on one machine.

    python -m benchmarks.bench_ingest [--gb 1] [--runs 3] [--json]
    python -m benchmarks.bench_ingest --format NAME [--format NAME ...] [--refused] [--gb 1] [--runs 3]

The log is nginx NDJSON: 5 % errors with an envelope, 6,000 keys, fixed seed. Bare DuckDB reads it with `read_ndjson` and
explicit columns and writes the same columns of all requests to zstd Parquet, with no redaction, ledger or durability: that
is the peer of the ratio. "Logged columns" is the same without route, origin and the other columns that no log has.

With --format the same traffic in other formats is measured beside nginx JSON, by the byte and by the line; with --refused
every line goes through the lane for what the vectorised one refuses.
"""

import argparse
import gzip
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import duckdb
import pyarrow.parquet as pq

LINES_PER_GB: Final = 2_012_571

_LOG = """
COPY (
WITH drawn AS (
    SELECT i, draw(i, 1, 6000) AS key, draw(i, 2, 1000) AS place, draw(i, 3, 100) < 5 AS is_error, draw(i, 7, 14) + 1 AS kind,
        draw(i, 5, 400) AS latency, draw(i, 6, 20) AS sdk, draw(i, 8, 100) < 10 AS has_idempotency_key,
        1793500000000 + i * 40 + draw(i, 4, 40) AS ms, md5(i || 'request')[1:24] AS request, md5(i || 'message')[1:16] AS message
    FROM range({lines}) t(i)
),
requests AS (
    SELECT *, md5(key // 3 || 'org')[1:10] AS org, IF(place < 500, 'POST', 'GET') AS method,
        CASE WHEN place < 500 THEN '/v1/messages' WHEN place < 700 THEN '/v1/messages/msg_' || message
            WHEN place < 800 THEN '/v1/contacts' WHEN place < 900 THEN '/v1/organizations/org_' || md5(key // 3 || 'org')[1:10] || '/usage'
            ELSE '/v1/numbers' END AS uri,
        (['validation_failed', 'missing_api_key', 'insufficient_scope', 'invalid_api_key', 'scope_invalid', 'not_found',
          'idempotency_in_progress', 'idempotency_key_reused', 'approval_required', 'dnc_blocked', 'insufficient_credits',
          'opted_out', 'rate_limited', 'internal_error'])[kind] AS code,
        IF(is_error, ([400, 401, 403, 403, 403, 404, 409, 409, 422, 422, 422, 422, 429, 500])[kind], IF(place < 500, 201, 200)) AS status
    FROM drawn
)
SELECT '{{"time":"' || strftime(make_timestamp(ms * 1000), '%Y-%m-%dT%H:%M:%S+00:00') || '","msec":' || format('{{:.3f}}', ms / 1000.0)
    || ',"remote_addr":"10.' || key % 250 || '.' || key // 250 || '.7","method":"' || method
    || '","host":"api.example.test","uri":"' || uri || '","args":"","status":' || status || ',"bytes_sent":' || 60 + latency * 3
    || ',"request_time":' || format('{{:.3f}}', latency / 1000.0) || ',"upstream_time":"' || format('{{:.3f}}', greatest(latency - 1, 0) / 1000.0)
    || '","upstream_status":"' || status || '","user_agent":"acme-sdk/' || sdk || '.4.1 (python 3.11; linux)","referer":"","request_id":"req_'
    || request || '","org_id":"org_' || org || '","key_id":"key_' || md5(key || 'key')[1:12] || '","retry_after":"' || IF(status = 429, '3', '')
    || '","idempotency_key":"' || IF(has_idempotency_key, md5(i || 'idempotency'), '') || '","resp_body":"'
    || IF(is_error, '{{\\\\"object\\\\":\\\\"error\\\\",\\\\"code\\\\":\\\\"' || code || '\\\\",\\\\"message\\\\":\\\\"The request to ' || uri
        || ' failed: ' || code || '. See the documentation.\\\\",\\\\"request_id\\\\":\\\\"req_' || request
        || '\\\\",\\\\"docs_url\\\\":\\\\"https://docs.example.test/errors#' || code || '\\\\"'
        || IF(kind = 1, ',\\\\"details\\\\":[{{\\\\"field\\\\":\\\\"to[0]\\\\",\\\\"issue\\\\":\\\\"not a valid number\\\\"}}]', '') || '}}', '')
    || '"}}'
FROM requests ORDER BY i
) TO '{path}' (FORMAT csv, HEADER false, QUOTE '', ESCAPE '', DELIMITER E'\\x01')
"""

_BARE = """
import sys, duckdb
log, out, threads, which = sys.argv[1:]
con = duckdb.connect(config={"threads": int(threads)})
body = "nullif(resp_body, '')"
code = f"json_extract_string({body}, '$.code')"
derived = f''',
    regexp_replace(uri, '/[^/]*[0-9][^/]{{4,}}', '/{{id}}', 'g') AS route,
    CASE WHEN {code} IS NOT NULL OR (status < 400 AND upstream_status > '-') THEN 'upstream' ELSE 'gateway' END AS origin,
    CASE WHEN status >= 400 AND {code} IS NULL THEN CASE status WHEN 502 THEN 'bad_gateway' WHEN 504 THEN 'gateway_timeout'
        WHEN 499 THEN 'client_closed_request' ELSE 'status_' || status END END AS gateway_reason,
    CASE WHEN status >= 400 THEN IF(resp_body = '', 'absent', 'whole') END AS body_state,
    'nginx-json' AS gateway, 'source' AS source_id'''
con.execute(f'''
COPY (
    SELECT make_timestamptz((msec * 1e6)::BIGINT) AS ts, request_id, org_id, key_id, remote_addr AS client_ip, user_agent, method,
        uri AS path, status, {code} AS code, json_extract_string({body}, '$.message') AS message,
        json_extract_string({body}, '$.docs_url') AS docs_url,
        TRY(json_transform(json_extract({body}, '$.details'), '[{{"field": "VARCHAR", "issue": "VARCHAR"}}]')) AS details,
        TRY_CAST(retry_after AS DOUBLE) AS retry_after_s, idempotency_key, request_time * 1e3 AS latency_ms,
        TRY_CAST(upstream_time AS DOUBLE) * 1e3 AS upstream_ms, bytes_sent AS response_bytes, host{derived if which == "same" else ""}
    FROM read_ndjson('{log}', columns = {{msec: 'DOUBLE', remote_addr: 'VARCHAR', method: 'VARCHAR', host: 'VARCHAR', uri: 'VARCHAR',
        status: 'SMALLINT', bytes_sent: 'BIGINT', request_time: 'DOUBLE', upstream_time: 'VARCHAR', upstream_status: 'VARCHAR',
        user_agent: 'VARCHAR', request_id: 'VARCHAR', org_id: 'VARCHAR', key_id: 'VARCHAR', retry_after: 'VARCHAR',
        idempotency_key: 'VARCHAR', resp_body: 'VARCHAR'}})
) TO '{out}' (FORMAT parquet, COMPRESSION zstd)''')
"""

_WRITE = "import sys, pathlib, benchmarks.bench_ingest as b; b.write_log(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"

_WRITE_FORMAT = (
    "import sys, pathlib, benchmarks.format_logs as f; path, name, size, is_refused = sys.argv[1:]; "
    "print(f.write_log(pathlib.Path(path), name, int(size), is_refused=is_refused == '1'))"
)

_GOACCESS_FORMAT = (
    '{"time":"%dT%t+00:00","remote_addr":"%h","method":"%m","uri":"%U","status":"%s","bytes_sent":"%b",'
    '"request_time":"%T","user_agent":"%u"}'
)


@dataclass(frozen=True)
class Run:
    """One process from start to end: wall and CPU seconds, peak resident memory in MiB."""

    wall_s: float
    cpu_s: float
    peak_mib: int


@dataclass(frozen=True)
class Row:
    """A line of the table: medians of the runs, and the ratio of wall times to bare DuckDB on the same file."""

    what: str
    wall_s: float
    spread_s: float
    cpu_s: float
    mb_per_s: float
    peak_mib: int
    ratio: float | None


def write_log(path: Path, lines: int) -> None:
    """Writes the log of `lines` requests to `path`; the same bytes every time."""
    con = duckdb.connect()
    con.execute("CREATE MACRO draw(i, salt, below) AS (hash(i * 1000003 + salt) % below)::BIGINT")
    con.execute(_LOG.format(lines=lines, path=str(path).replace("'", "''")).replace("\\\\", "\\"))


def run(command: list[str]) -> Run:
    """Runs `command` to its end, its output thrown away; raises CalledProcessError where it fails."""
    before = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    wall = time.perf_counter() - before
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024)


def measure(log: Path, size: int, runs: int, folder: Path, *, with_goaccess: bool) -> tuple[list[Row], Path]:
    """The rows for one file, its tools run in turn so that a slow minute hits them alike, and the lake that was made."""
    lake, threads = folder / "lake", str(os.cpu_count() or 1)
    errata = [sys.executable, "-m", "errata", "ingest", str(log), "--lake", str(lake)]
    bare = [sys.executable, "-c", _BARE, str(log), str(folder / "bare.parquet"), threads]
    commands: dict[str, tuple[list[str], Callable[[], None]]] = {
        "bare DuckDB": ([*bare, "same"], lambda: None),
        "- logged columns": ([*bare, "logged"], lambda: None),
        "errata": (errata, lambda: shutil.rmtree(lake, ignore_errors=True)),
    }
    found: dict[str, list[Run]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, (command, prepare) in commands.items():
            prepare()
            taken = run(command)
            if turn:  # the first turn warms the page cache
                found[name].append(taken)
    if with_goaccess:
        command = ["goaccess", str(log), f"--log-format={_GOACCESS_FORMAT}", "--date-format=%Y-%m-%d"]
        found["GoAccess"] = [run([*command, "--time-format=%H:%M:%S", "-o", str(folder / "goaccess.json")])]
    base = statistics.median(taken.wall_s for taken in found["bare DuckDB"])
    return [_row(f"{name}, {log.suffix or log.name}", taken, size, base) for name, taken in found.items()], lake


def measure_format(name: str, size: int, runs: int, folder: Path, *, is_refused: bool) -> tuple[Run, int, int]:
    """The median run of errata over a log of the format `name`, and the log's bytes and lines."""
    log, lake = folder / "access.log", folder / "lake"
    # A child's peak memory starts from its parent's, so the parent stays small.
    told = subprocess.run(
        [sys.executable, "-c", _WRITE_FORMAT, str(log), name, str(size), str(int(is_refused))],
        check=True,
        capture_output=True,
        text=True,
    )
    taken = []
    for turn in range(runs + 1):
        shutil.rmtree(lake, ignore_errors=True)
        one = run([sys.executable, "-m", "errata", "ingest", str(log), "--lake", str(lake)])
        if turn:  # the first turn warms the page cache
            taken.append(one)
    return sorted(taken, key=lambda one: one.wall_s)[len(taken) // 2], log.stat().st_size, int(told.stdout)


def print_formats(names: list[str], size: int, runs: int, folder: Path, *, is_refused: bool) -> None:
    """Prints how long errata takes for each format, and the ratios to nginx JSON by the byte and by the line."""
    print(f"{'':26}{'wall s':>8}{'CPU s':>8}{'MB/s':>8}{'lines/s':>10}{'peak MiB':>10}{'a byte':>8}{'a line':>8}")
    base: tuple[float, float] | None = None
    for name in dict.fromkeys(["nginx-json", *names]):
        taken, length, lines = measure_format(name, size, runs, folder, is_refused=is_refused)
        by_byte, by_line = taken.wall_s / length, taken.wall_s / lines
        base = base or (by_byte, by_line)
        print(
            f"{name:26}{taken.wall_s:8.2f}{taken.cpu_s:8.2f}{length / 1e6 / taken.wall_s:8.0f}"
            f"{lines / taken.wall_s:10,.0f}{taken.peak_mib:10}{by_byte / base[0]:8.2f}{by_line / base[1]:8.2f}",
            flush=True,
        )


def _row(what: str, runs: list[Run], size: int, base: float) -> Row:
    walls = [taken.wall_s for taken in runs]
    wall = statistics.median(walls)
    cpu = statistics.median(taken.cpu_s for taken in runs)
    peak = max(taken.peak_mib for taken in runs)
    return Row(what, wall, max(walls) - min(walls), cpu, size / 1e6 / wall, peak, wall / base)


def bytes_a_row(lake: Path) -> dict[str, float]:
    """Bytes of Parquet for each success and each error in `lake`."""
    result = {}
    for kind in ("ok", "error"):
        files = [str(path) for path in (lake / "table" / f"kind={kind}").rglob("*.parquet")]
        rows = sum(pq.read_metadata(file).num_rows for file in files)
        result[kind] = sum(Path(file).stat().st_size for file in files) / rows
    return result


def main() -> None:
    """Prints the table, or the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=1.0, help="size of the log")
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each tool; GoAccess runs once")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--format", action="append", metavar="NAME", help="measure this format beside nginx JSON")
    parser.add_argument("--refused", action="store_true", help="with --format: no line for the vectorised lane")
    parser.add_argument("--folder", type=Path, help="where to work (default: a new temporary folder)")
    options = parser.parse_args()
    lines = int(options.gb * LINES_PER_GB)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        os.environ["ERRATA_KEY_FILE"] = str(folder / "fingerprint.key")
        if options.format:
            size = int(options.gb * 1e9)
            print_formats(options.format, size, options.runs, folder, is_refused=options.refused)
            return
        log = folder / "access.ndjson"
        # A child's peak memory starts from its parent's, so the parent stays small.
        subprocess.run([sys.executable, "-c", _WRITE, str(log), str(lines)], check=True, stdout=subprocess.DEVNULL)
        size = log.stat().st_size
        packed = folder / "access.gz"
        with log.open("rb") as plain, gzip.open(packed, "wb", compresslevel=6) as target:
            shutil.copyfileobj(plain, target, 1 << 24)
        rows, lake = measure(log, size, options.runs, folder, with_goaccess=shutil.which("goaccess") is not None)
        packed_rows, _ = measure(packed, size, options.runs, folder, with_goaccess=False)
        rows += packed_rows
        machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        versions = {package: version(package) for package in ("duckdb", "deltalake", "pyarrow")}
        densities = bytes_a_row(lake)
        if options.json:
            found = {"machine": machine, "versions": versions, "lines": lines, "bytes": size, "bytes_a_row": densities}
            print(json.dumps(found | {"rows": [asdict(row) for row in rows]}, indent=1))
            return
        print(f"{machine}; {', '.join(f'{package} {number}' for package, number in versions.items())}")
        print(f"{lines:,} lines, {size / 1e6:,.0f} MB; median of {options.runs} runs\n")
        print(f"{'':24}{'wall s':>8}{'spread':>8}{'CPU s':>8}{'MB/s':>8}{'peak MiB':>10}{'ratio':>8}")
        for row in rows:
            print(
                f"{row.what:24}{row.wall_s:8.2f}{row.spread_s:8.2f}{row.cpu_s:8.2f}{row.mb_per_s:8.0f}"
                f"{row.peak_mib:10}{row.ratio:8.2f}"
            )
        print(f"\nbytes a row: {densities['ok']:.1f} for a success, {densities['error']:.1f} for an error")


if __name__ == "__main__":
    main()
