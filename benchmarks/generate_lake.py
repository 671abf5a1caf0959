"""Writes a lake of many requests without a log: the same files, ledger and commit as an ingest and `maintain` leave.

    python -m benchmarks.generate_lake --requests 100_000_000 --days 30 --out DIR

A twentieth are errors: of every code, most of them from few callers, in chains of attempts; each day has a storm.
The same arguments give the same rows.
"""

import hashlib
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import click
import duckdb
import pyarrow as pa

import analysis
from analysis.lake import DEFAULT_CATALOGUE, read_catalogue
from ingest import lake as lakes
from ingest.maintain import ORDERS
from ingest.schema import REQUESTS, SOURCES, table_path
from ingest.writer import DataFile, Writer

ERROR_SHARE: Final = 0.05
ORGS: Final = 5000
KEYS: Final = 12_000
_ROWS_A_BATCH: Final = 1 << 17
_BYTES_A_LINE: Final = 500

# method, route, status of a success; with {id} the path names one object of many
ROUTES: Final = (
    ("POST", "/v1/messages", 201),
    ("GET", "/v1/messages/{id}", 200),
    ("GET", "/v1/messages", 200),
    ("POST", "/v1/contacts", 201),
    ("GET", "/v1/contacts/{id}", 200),
    ("GET", "/v1/numbers", 200),
    ("PATCH", "/v1/contacts/{id}", 200),
    ("POST", "/v1/campaigns", 201),
    ("GET", "/v1/organizations/{id}/usage", 200),
    ("DELETE", "/v1/contacts/{id}", 204),
)


@dataclass(frozen=True)
class Trouble:
    """Errors of one code (None: the gateway's own), `share` of all, in chains of so many `attempts` on average, from
    so many `callers`, some of them more than others. A storm keeps to one hour of the day.
    """

    code: str | None
    share: float
    callers: int
    attempts: float
    gap_s: float = 20.0
    recovers: float = 0.0
    is_storm: bool = False


TROUBLES: Final = (
    Trouble("rate_limited", 0.30, 600, 3, recovers=0.8),
    Trouble("validation_failed", 0.17, 3000, 1.5),
    Trouble("not_found", 0.13, 800, 2),
    Trouble("internal_error", 0.05, 8000, 2, recovers=0.9),
    Trouble("internal_error", 0.06, 60, 80, gap_s=0.05, recovers=0.5, is_storm=True),
    Trouble("insufficient_credits", 0.07, 150, 6, gap_s=120),
    Trouble("invalid_api_key", 0.06, 300, 4),
    Trouble("missing_api_key", 0.03, 400, 2),
    Trouble("insufficient_scope", 0.03, 200, 2),
    Trouble("scope_invalid", 0.01, 80, 2),
    Trouble("idempotency_in_progress", 0.02, 100, 3, gap_s=1, recovers=0.9),
    Trouble("idempotency_key_reused", 0.01, 40, 2),
    Trouble("approval_required", 0.02, 60, 5, gap_s=600),
    Trouble("dnc_blocked", 0.01, 500, 1),
    Trouble("opted_out", 0.01, 500, 1),
    Trouble(None, 0.02, 8000, 2, recovers=0.9),
)

_TABLES: Final = f"""
-- hash(i, salt) of two salts would differ in the same bits for every i.
CREATE MACRO salted(i, salt) AS hash((hash(i) >> 8) + salt);
CREATE MACRO uniform(i, salt) AS salted(i, salt) / 18446744073709551616.0;
CREATE MACRO draw(i, salt, below) AS (salted(i, salt) % below)::BIGINT;
-- Few of many, as traffic is: the share of number n falls as 1 / n.
CREATE MACRO few_of(i, salt, many) AS floor(pow(many, uniform(i, salt)))::BIGINT;
CREATE MACRO word(i, salt) AS lpad(lower(hex(salted(i, salt))), 16, '0');

CREATE TABLE callers AS
SELECT
    number AS caller_number,
    'org_' || word(if(number <= {ORGS}, number, few_of(number, 1, {ORGS})), 2)[:10] AS org_id,
    'key_' || word(number, 3)[:12] AS key_id,
    word(number, 4) AS key_hash,
    '10.' || number // 256 || '.' || number % 256 || '.' AS network,
    few_of(number, 5, 4) AS addresses,
    'client-' || few_of(number, 6, 30) || '/' || 1 + draw(number, 7, 4) || '.' || draw(number, 8, 10) AS user_agent,
    draw(number, 9, 10) < 6 AS sends_idempotency_key
FROM range(1, {KEYS} + 1) AS numbers(number);

CREATE TABLE routes (route_number BIGINT, method VARCHAR, route VARCHAR, success_status SMALLINT);
CREATE TABLE troubles (
    trouble BIGINT, code VARCHAR, share DOUBLE, callers BIGINT, attempts DOUBLE, gap_s DOUBLE, recovers DOUBLE,
    is_storm BOOLEAN
);
"""

# A day: `id` is unique in the lake, `moment` in seconds since midnight.
_DAY: Final = f"""
CREATE TABLE day_rows AS
WITH chains AS (
    SELECT
        troubles.*,
        {{first}} + (trouble << 32) + number AS chain,
        1 + draw(chain, 10, (2 * attempts)::BIGINT - 1) AS chain_attempts,
        -- Half of the troubles are those of the busiest callers.
        1 + (trouble % 2 * draw(trouble, 11, {KEYS}) + 3 * few_of(chain, 12, callers)) % {KEYS} AS caller_number,
        1 + draw(chain, 13, 30) AS wait_s
    FROM troubles, range((share * {{errors}} / attempts)::BIGINT) AS numbers(number)
),
attempts AS (
    SELECT
        code,
        chain,
        chain + (attempt << 44) AS id,
        caller_number,
        attempt < chain_attempts AS is_error,
        wait_s,
        if(is_storm, 3600 * (({{first}} >> 48) * 7 % 24 + uniform(chain, 14)), 86400 * uniform(chain, 14))
            + attempt * if(code = 'rate_limited', if(caller_number % 3 = 0, 0.2, 1.1) * wait_s, gap_s)
            + uniform(id, 15) * least(gap_s, 1) AS moment
    FROM chains, range(chain_attempts + (uniform(chain, 16) < recovers)::BIGINT) AS numbers(attempt)
),
drawn AS (
    SELECT id, id AS chain, few_of(id, 17, {KEYS}) AS caller_number, NULL AS code, false AS is_error, 0 AS wait_s,
        86400 * (uniform(id, 18) - 0.09 * sin(2 * pi() * uniform(id, 18))) AS moment
    FROM (SELECT {{first}} + number AS id FROM range({{successes}}) AS numbers(number))
    UNION ALL
    SELECT id, chain, caller_number, code, is_error, wait_s, moment
    FROM attempts
    WHERE moment < 86400
),
placed AS (
    SELECT *, (few_of(chain, 19, {len(ROUTES)}) + caller_number) % {len(ROUTES)} AS route_number,
        code IS NULL AND is_error AS is_gateways
    FROM drawn
)
SELECT
    if(is_error, 'error', 'ok') AS kind,
    make_timestamptz({{midnight}} + 1000 * (1000 * moment)::BIGINT) AS ts,
    'req_' || word(id, 20) || word(id, 21)[:8] AS request_id,
    CASE WHEN code IN ('missing_api_key', 'invalid_api_key') AND is_error THEN NULL ELSE org_id END AS org_id,
    CASE WHEN code IN ('missing_api_key', 'invalid_api_key') AND is_error THEN NULL ELSE key_id END AS key_id,
    CASE WHEN code = 'invalid_api_key' AND is_error THEN key_hash END AS key_hash,
    network || 1 + draw(chain, 22, addresses) AS client_ip,
    user_agent,
    method,
    route,
    replace(route, '{{{{id}}}}', if(draw(chain, 23, 3) = 0, word(caller_number, draw(chain, 24, 50)), word(chain, 25)))
        AS path,
    CASE WHEN NOT is_error THEN success_status
        WHEN is_gateways THEN 502 + 2 * draw(chain, 26, 2)
        ELSE catalogue.http_status
    END::SMALLINT AS status,
    if(is_error, code, NULL) AS code,
    CASE WHEN is_error THEN catalogue.meaning END AS message,
    CASE WHEN is_error THEN 'https://docs.example.test/errors#' || code END AS docs_url,
    CASE WHEN code = 'validation_failed' AND is_error
        THEN [{{{{'field': 'to[' || draw(chain, 27, 40) || ']', 'issue': 'not a phone number'}}}}]
    END AS details,
    CASE WHEN code IN ('dnc_blocked', 'opted_out') AND is_error THEN word(caller_number, draw(chain, 32, 20)) END
        AS recipient_hash,
    CASE WHEN code = 'rate_limited' AND is_error THEN wait_s::DOUBLE END AS retry_after_s,
    CASE WHEN method = 'POST' AND sends_idempotency_key THEN word(chain, 28) END AS idempotency_hash,
    round(3 * pow(200, uniform(id, 29))) AS latency_ms,
    greatest(latency_ms - draw(id, 30, 3), 0) AS upstream_ms,
    60 + few_of(id, 31, 2000) AS response_bytes,
    if(is_gateways, 'gateway', 'upstream') AS origin,
    CASE WHEN is_gateways THEN if(status = 502, 'bad_gateway', 'gateway_timeout') END AS gateway_reason,
    CASE WHEN is_error THEN if(is_gateways, 'absent', 'whole') END AS body_state,
    'nginx-json' AS gateway,
    'api.example.test' AS host
FROM placed
INNER JOIN callers USING (caller_number)
INNER JOIN routes USING (route_number)
LEFT JOIN catalogue USING (code)
ORDER BY ts
"""
_OF_KIND: Final = """
SELECT * EXCLUDE (kind), '{source_id}' AS source_id, rowid + 1 AS line
FROM day_rows
WHERE kind = '{kind}'
ORDER BY {order}
"""


def write_day(lake: Path, day: date, number: int, requests: int) -> tuple[list[DataFile], dict[str, Any]]:
    """The data files of one day, not yet visible, and its row of the ledger."""
    midnight = datetime.combine(day, time(), UTC)
    fingerprint = hashlib.sha256(day.isoformat().encode()).hexdigest()
    con = duckdb.connect(config={"threads": 1, "temp_directory": str(lake / ".spill")})
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET enable_progress_bar = false")
    con.execute(_TABLES)
    con.register("catalogue", read_catalogue(DEFAULT_CATALOGUE))
    con.executemany("INSERT INTO routes VALUES (?, ?, ?, ?)", [(n, *route) for n, route in enumerate(ROUTES)])
    troubles = [(number, *vars(trouble).values()) for number, trouble in enumerate(TROUBLES)]
    con.executemany("INSERT INTO troubles VALUES (?, ?, ?, ?, ?, ?, ?, ?)", troubles)
    errors = int(requests * ERROR_SHARE)
    sizes = {"first": number << 48, "errors": errors, "successes": requests - errors}
    con.execute(_DAY.format(**sizes, midnight=int(midnight.timestamp()) * 1_000_000))
    writer = Writer(table_path(lake), day)
    for kind in ("ok", "error"):
        rows = con.sql(_OF_KIND.format(source_id=fingerprint[:16], kind=kind, order=ORDERS[kind]))
        for batch in rows.to_arrow_reader(_ROWS_A_BATCH):
            writer.add_again(kind, day, pa.table(batch).select(REQUESTS.names).cast(REQUESTS))
    told = "SELECT count(*), count(*) FILTER (kind = 'error'), epoch_us(min(ts)), epoch_us(max(ts)) FROM day_rows"
    [(lines, found, first_ts, last_ts)] = con.execute(told).fetchall()
    step = {
        "source_id": fingerprint[:16],
        "fingerprint": fingerprint,
        "head_bytes": 1 << 16,
        "name": f"access.log-{day.isoformat()}",
        "stored_hash": fingerprint,
        "compression": "none",
        "gateway": "nginx-json",
        "decision": "generated",
        "first_line": 1,
        "to_line": lines + 1,
        "from_byte": 0,
        "to_byte": lines * _BYTES_A_LINE,
        "tail_hash": fingerprint,
        "lines": lines,
        "requests": lines,
        "errors": found,
        **dict.fromkeys(("rejects", "skipped", "duplicates", "removed"), 0),
        "is_cut": False,
        "first_ts": first_ts,
        "last_ts": last_ts,
        "ingested_at": midnight + timedelta(days=1),
        "secret_id": fingerprint[:12],
    }
    return writer.close(), step


def generate(lake: Path, requests: int, first_day: date, days: int, jobs: int) -> list[dict[str, Any]]:
    """Makes the lake, in one commit; gives its ledger."""
    lakes.create(lake)
    with lakes.writing(lake), ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        waiting = [
            pool.submit(write_day, lake, first_day + timedelta(days=number), number, requests // days)
            for number in range(days)
        ]
        files: list[DataFile] = []
        ledger = []
        for number, future in enumerate(waiting):
            of_day, step = future.result()
            files += of_day
            ledger.append(step)
            click.echo(f"{number + 1} of {days} days", err=True)
        writer = Writer(table_path(lake), first_day)
        writer.add_steps(pa.Table.from_pylist(ledger, SOURCES))
        progress = {step["fingerprint"]: step["to_byte"] for step in ledger}
        lakes.commit(lake, [*files, *writer.close()], progress)
        lakes.checkpoint(lake)
    analysis.export(lake)
    return ledger


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The lake to make.")
@click.option("--requests", type=int, default=1_000_000, show_default=True)
@click.option("--days", type=click.IntRange(min=1), default=30, show_default=True)
@click.option("--first-day", type=click.DateTime(["%Y-%m-%d"]), default="2026-10-24", show_default=True)
@click.option("--jobs", type=click.IntRange(min=1), default=os.cpu_count(), show_default=True, help="Processes.")
def main(out: Path, requests: int, days: int, first_day: datetime, jobs: int) -> None:
    if out.exists():
        sys.exit(f"{out}: is there already")
    ledger = generate(out, requests, first_day.date(), days, jobs)
    told = {name: sum(step[name] for step in ledger) for name in ("requests", "errors")}
    size = sum(path.stat().st_size for path in (table_path(out)).rglob("*.parquet"))
    click.echo(f"{told['requests']:,} requests, {told['errors']:,} errors, {size / 1e9:.2f} GB in {out}", err=True)


if __name__ == "__main__":
    main()
