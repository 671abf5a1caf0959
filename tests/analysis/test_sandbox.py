"""The sandbox of the console: what gets out of it (nothing), what an honest query gives, and each of its limits."""

import ctypes
import json
import os
import sys
import tempfile
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pytest
from deltalake import write_deltalake

import analysis
from analysis import sandbox
from analysis.sandbox import LimitMet, Limits, run_query
from analysis.sandbox_grammar import TABLE_FUNCTIONS, Grammar, function_names
from ingest.schema import BadInput, LakeDamaged, table_path, table_schema
from tests.analysis.queries.event_lake import error, ok, source

# An honest query is never to meet a limit, however busy the machine; an endless one is to meet it soon.
ROOMY: Final = Limits(time_s=120)
SHORT: Final = Limits(time_s=2)
LIMITS: Final = {"too much time": SHORT, "too much memory": Limits(time_s=120, memory_mb=256)}

NO_TABLE: Final = "there is no table "
NO_TABLE_FUNCTION: Final = "cannot be used in the console"
NO_FUNCTION: Final = "cannot be used in the console"
NO_QUERY: Final = "only a query can be run"
ONE: Final = "expected one statement, found "
NO_SYNTAX: Final = "syntax error"
MEMORY: Final = "the memory limit of 256 MB"
TIME: Final = "the time limit of 2 s"

# By kind: the name of the attack, its SQL and what is said of it. {lake} and {outside} are folders with files to read
# and to destroy, {file} is a data file of the lake, which the engine may read for the views.
ATTACKS: Final[dict[str, list[tuple[str, str, str]]]] = {
    "reading files": [
        ("a path as a table", "FROM '/etc/passwd'", NO_TABLE),
        ("a path as a quoted name", 'SELECT * FROM "{outside}/secret.csv"', NO_TABLE),
        ("a data file of the lake", "FROM '{file}'", NO_TABLE),
        ("read_parquet of a data file", "FROM read_parquet('{file}')", NO_TABLE_FUNCTION),
        ("read_parquet of many", "FROM read_parquet(['{file}', '{file}'], filename = true)", NO_TABLE_FUNCTION),
        ("parquet_scan", "FROM parquet_scan('{file}')", NO_TABLE_FUNCTION),
        ("parquet_metadata", "FROM parquet_metadata('{file}')", NO_TABLE_FUNCTION),
        ("parquet_schema", "FROM parquet_schema('{file}')", NO_TABLE_FUNCTION),
        ("parquet_bloom_probe", "FROM parquet_bloom_probe('{file}', 'org_id', 'org_b')", NO_TABLE_FUNCTION),
        ("read_csv", "FROM read_csv('{outside}/secret.csv')", NO_TABLE_FUNCTION),
        ("read_csv_auto", "FROM read_csv_auto('{outside}/*.csv')", NO_TABLE_FUNCTION),
        ("read_text", "SELECT content FROM read_text('{outside}/secret.csv')", NO_TABLE_FUNCTION),
        ("read_blob", "SELECT content FROM read_blob('/proc/self/environ')", NO_TABLE_FUNCTION),
        ("read_json", "FROM read_json('{outside}/secret.json')", NO_TABLE_FUNCTION),
        ("read_ndjson_objects", "FROM read_ndjson_objects('{outside}/secret.json')", NO_TABLE_FUNCTION),
        ("read_duckdb", "FROM read_duckdb('{lake}/errata.duckdb')", NO_TABLE_FUNCTION),
        ("sniff_csv", "FROM sniff_csv('{outside}/secret.csv')", NO_TABLE_FUNCTION),
        ("glob", "FROM glob('{lake}/**')", NO_TABLE_FUNCTION),
        ("a column of the files", "SELECT filename FROM requests", "not found in FROM clause"),
        ("a number of the files' rows", "SELECT file_row_number FROM requests", "not found in FROM clause"),
    ],
    "reading files from within": [
        ("a scalar subquery", "SELECT (SELECT content FROM read_text('/etc/passwd'))", NO_TABLE_FUNCTION),
        ("EXISTS", "SELECT 1 WHERE EXISTS (FROM glob('/root/*'))", NO_TABLE_FUNCTION),
        (
            "an argument of a macro",
            "FROM errors_by_code(for_org := (SELECT content FROM read_text('/x')))",
            NO_FUNCTION,
        ),
        ("LATERAL", "FROM range(1) AS r(i), LATERAL (FROM read_text('/etc/passwd'))", NO_TABLE_FUNCTION),
        ("ORDER BY", "FROM errors ORDER BY (SELECT size FROM read_blob('/etc/passwd'))", NO_TABLE_FUNCTION),
        ("LIMIT", "FROM errors LIMIT (SELECT size FROM read_blob('/etc/passwd'))", NO_TABLE_FUNCTION),
        ("a condition of a join", "FROM errors a JOIN errors b ON (SELECT true FROM glob('/*'))", NO_TABLE_FUNCTION),
        ("VALUES", "VALUES ((SELECT content FROM read_text('/etc/passwd')))", NO_TABLE_FUNCTION),
        ("a recursive CTE", "WITH RECURSIVE t AS (SELECT 1 UNION FROM glob('/*')) FROM t", NO_TABLE_FUNCTION),
        ("a lambda", "SELECT list_transform([1], lambda x: (SELECT size FROM read_blob('/x')))", NO_TABLE_FUNCTION),
        ("the source of a pivot", "PIVOT read_csv('/etc/passwd') ON a IN ('b') USING count(*)", NO_TABLE_FUNCTION),
        ("the source of an unpivot", "UNPIVOT '/etc/passwd' ON a INTO NAME n VALUE v", NO_TABLE),
        ("DESCRIBE", "DESCRIBE SELECT * FROM '{file}'", NO_TABLE),
        ("SUMMARIZE", "SUMMARIZE FROM read_csv('/etc/passwd')", NO_TABLE_FUNCTION),
        ("a window", "SELECT sum((SELECT size FROM read_blob('/x'))) OVER () FROM errors", NO_TABLE_FUNCTION),
        ("a positional join", "FROM errors POSITIONAL JOIN '{file}'", NO_TABLE),
        ("a type", "SELECT CAST((SELECT content FROM read_text('/x')) AS ENUM('a'))", NO_TABLE_FUNCTION),
        ("FILTER", "SELECT count(*) FILTER (WHERE EXISTS (FROM glob('/*'))) FROM errors", NO_TABLE_FUNCTION),
    ],
    "writing files": [
        ("COPY a query", "COPY (SELECT 1) TO '{outside}/new.csv'", NO_QUERY),
        ("COPY a view", "COPY requests TO '{file}' (FORMAT parquet)", NO_QUERY),
        ("COPY over a data file", "COPY (SELECT 1) TO '{file}' (FORMAT csv, USE_TMP_FILE false)", NO_QUERY),
        ("COPY a folder", "COPY requests TO '{lake}/table' (FORMAT parquet, PARTITION_BY (day), OVERWRITE)", NO_QUERY),
        ("COPY FROM", "COPY catalogue FROM '{outside}/secret.csv'", NO_QUERY),
        ("COPY to a program", "COPY (SELECT 1) TO '/dev/stdout'", NO_QUERY),
        ("COPY in a CTE", "WITH a AS (COPY (SELECT 1) TO '{file}') SELECT 1", NO_QUERY),
        ("COPY in a CTE of a subquery", "SELECT * FROM (WITH a AS (COPY requests TO '{file}') FROM a)", NO_QUERY),
        ("COPY in a materialized CTE", "WITH a AS MATERIALIZED (COPY (SELECT 1) TO '{file}') FROM a", NO_QUERY),
        ("COPY explained", "EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}' (USE_TMP_FILE false)", NO_QUERY),
        ("COPY described", "DESCRIBE COPY (SELECT 1) TO '{file}'", NO_SYNTAX),
        ("EXPORT DATABASE", "EXPORT DATABASE '{outside}/dump'", NO_QUERY),
        ("IMPORT DATABASE", "IMPORT DATABASE '{outside}'", NO_QUERY),
        ("COPY FROM DATABASE", "COPY FROM DATABASE memory TO other", NO_QUERY),
    ],
    "databases and extensions": [
        ("ATTACH", "ATTACH '{lake}/errata.duckdb' AS other", NO_QUERY),
        ("ATTACH a new one", "ATTACH '{outside}/new.duckdb'", NO_QUERY),
        ("DETACH", "DETACH memory", NO_QUERY),
        ("USE", "USE memory", NO_QUERY),
        ("INSTALL", "INSTALL httpfs", NO_QUERY),
        ("INSTALL from elsewhere", "FORCE INSTALL spatial FROM 'http://192.0.2.1/'", NO_QUERY),
        ("LOAD", "LOAD '{outside}/evil.duckdb_extension'", NO_QUERY),
        ("CREATE SECRET", "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')", NO_QUERY),
    ],
    "settings": [
        ("SET", "SET enable_external_access = true", NO_QUERY),
        ("SET GLOBAL", "SET GLOBAL memory_limit = '100GB'", NO_QUERY),
        ("RESET", "RESET lock_configuration", NO_QUERY),
        ("PRAGMA", "PRAGMA memory_limit = '100GB'", NO_QUERY),
        ("PRAGMA of a table", "PRAGMA table_info('requests')", NO_QUERY),
        ("SET VARIABLE", "SET VARIABLE a = (SELECT content FROM read_text('/etc/passwd'))", NO_QUERY),
        ("getvariable", "SELECT getvariable('a')", NO_FUNCTION),
        ("current_setting", "SELECT current_setting('allowed_paths')", NO_FUNCTION),
    ],
    "the environment": [
        ("getenv", "SELECT getenv('ERRATA_KEY_FILE')", NO_FUNCTION),
        ("getenv as a method", "SELECT 'HOME'.getenv()", NO_FUNCTION),
        ("getenv of a schema", "SELECT system.main.getenv('HOME')", NO_FUNCTION),
        ("version", "SELECT version()", NO_FUNCTION),
        ("a variable of Python", "FROM request", NO_TABLE),
        ("a module of Python", "FROM json", NO_TABLE),
    ],
    "the network": [
        ("http", "FROM 'http://192.0.2.1/a.csv'", NO_TABLE),
        ("https", "FROM read_parquet('https://192.0.2.1/a.parquet')", NO_TABLE_FUNCTION),
        ("s3", "FROM 's3://bucket/a.parquet'", NO_TABLE),
        ("Hugging Face", "FROM 'hf://datasets/a/b.parquet'", NO_TABLE),
    ],
    "several statements": [
        ("two queries", "SELECT 1; SELECT 2", ONE),
        ("a query and a COPY", "FROM errors; COPY (SELECT 1) TO '{file}'", ONE),
        ("after a comment", "SELECT 1 /* ' */; SET threads = 99 -- '", ONE),
        ("after a comment to the end of the line", "SELECT 1 -- ;\n; ATTACH '{outside}/new.duckdb'", ONE),
        ("out of the subquery", "SELECT 1) ; COPY (SELECT 1) TO '{file}' --", NO_SYNTAX),
        ("behind a NUL", "SELECT 1\x00; COPY (SELECT 1) TO '{file}'", ONE),
        ("a comment alone", "-- SELECT 1", ONE),
        ("PREPARE", "PREPARE p AS SELECT 1", NO_QUERY),
        ("EXECUTE", "EXECUTE p", NO_QUERY),
        ("CALL", "CALL pragma_version()", NO_QUERY),
        ("a parameter", "SELECT $path", "cannot be used in the console"),
        ("BEGIN", "BEGIN TRANSACTION", NO_QUERY),
        ("EXPLAIN", "EXPLAIN FROM requests", NO_QUERY),
    ],
    "changing the database": [
        ("CREATE TABLE", "CREATE TABLE t AS SELECT 1", NO_QUERY),
        ("CREATE TEMP TABLE", "CREATE TEMP TABLE t AS FROM '{file}'", NO_QUERY),
        ("CREATE VIEW", "CREATE OR REPLACE VIEW requests AS FROM '{file}'", NO_QUERY),
        ("CREATE MACRO", "CREATE TEMP MACRO f(x) AS TABLE FROM read_text(x)", NO_QUERY),
        ("CREATE SEQUENCE", "CREATE TEMP SEQUENCE s", NO_QUERY),
        ("DROP", "DROP VIEW requests", NO_QUERY),
        ("ALTER", "ALTER TABLE catalogue ADD COLUMN a INT", NO_QUERY),
        ("INSERT", "INSERT INTO catalogue SELECT * FROM catalogue", NO_QUERY),
        ("INSERT in a CTE", "WITH a AS (INSERT INTO catalogue FROM catalogue RETURNING *) FROM a", NO_QUERY),
        ("UPDATE", "UPDATE catalogue SET owner = 'me'", NO_QUERY),
        ("DELETE in a CTE", "WITH a AS (DELETE FROM catalogue RETURNING *) FROM a", NO_QUERY),
        ("MERGE", "MERGE INTO catalogue USING errors USING (code) WHEN MATCHED THEN DELETE", NO_QUERY),
        ("DELETE in a subquery", "FROM (DELETE FROM catalogue RETURNING *)", NO_SYNTAX),
        ("TRUNCATE", "TRUNCATE catalogue", NO_QUERY),
        ("CHECKPOINT", "FORCE CHECKPOINT", NO_QUERY),
        ("VACUUM", "VACUUM ANALYZE catalogue", NO_QUERY),
        ("SELECT INTO", "SELECT 1 INTO t", NO_SYNTAX),
    ],
    "the catalogue of the database": [
        ("duckdb_settings", "FROM duckdb_settings()", NO_TABLE_FUNCTION),
        ("duckdb_views", "SELECT sql FROM duckdb_views", NO_TABLE),
        ("TABLE", "TABLE duckdb_tables", NO_TABLE),
        ("information_schema", "FROM information_schema.tables", NO_TABLE),
        ("pg_catalog", "FROM pg_catalog.pg_views", NO_TABLE),
        ("sqlite_master", "FROM sqlite_master", NO_TABLE),
        ("a view by its full name", "FROM main.requests", NO_TABLE),
        ("duckdb_secrets", "FROM duckdb_secrets()", NO_TABLE_FUNCTION),
        ("which_secret", "FROM which_secret('s3://bucket/a', 's3')", NO_TABLE_FUNCTION),
        ("SHOW TABLES", "SHOW TABLES", "SHOW cannot be used"),
        ("SHOW ALL TABLES", "FROM (SHOW ALL TABLES)", "SHOW cannot be used"),
        ("DESCRIBE all", "DESCRIBE", "SHOW cannot be used"),
        ("pg_get_viewdef", "SELECT pg_get_viewdef(1)", NO_FUNCTION),
        ("a table of the past", "FROM catalogue AT (VERSION => 1)", NO_TABLE),
        ("a CTE's name outside of it", "FROM (WITH pg_views AS (SELECT 1) FROM pg_views), pg_views", NO_TABLE),
        ("a CTE's name before it", "WITH a AS (FROM pg_views), pg_views AS (SELECT 1) FROM a", NO_TABLE),
        ("a CTE's own name", "WITH pg_views AS (FROM pg_views) FROM pg_views", NO_TABLE),
        ("a path as a CTE's name", "SELECT (WITH \"{file}\" AS (SELECT 1) SELECT 1) FROM '{file}'", NO_TABLE),
    ],
    "SQL from text": [
        ("query", "FROM query('FROM ''/etc/passwd''')", NO_TABLE_FUNCTION),
        ("query_table", "FROM query_table('/etc/passwd')", NO_TABLE_FUNCTION),
        ("query_table of views", "FROM query_table(['requests', 'pg_views'])", NO_TABLE_FUNCTION),
        ("a serialized statement", "FROM json_execute_serialized_sql('{}')", NO_TABLE_FUNCTION),
        ("text into a statement", "SELECT json_deserialize_sql('{}')", NO_FUNCTION),
        ("an address in memory", "FROM arrow_scan(1, 2, 3)", NO_TABLE_FUNCTION),
        ("an address of a frame", "FROM pandas_scan(140000000)", NO_TABLE_FUNCTION),
        ("a scan by name", "FROM seq_scan('requests')", NO_TABLE_FUNCTION),
        ("a plan", "SELECT json_serialize_plan('FROM ''{file}''')", NO_FUNCTION),
        ("a pivot of unknown values", "PIVOT errors ON code USING count(*)", NO_QUERY),
        ("a function's name in capitals", "FROM READ_TEXT('/etc/passwd')", NO_TABLE_FUNCTION),
        ("a function's name in quotes", "FROM \"read_text\"/**/('/etc/passwd')", NO_TABLE_FUNCTION),
        ("a function's name full-width", "FROM \uff52ead_text('/etc/passwd')", NO_TABLE_FUNCTION),
        ("a view's name with a Cyrillic letter", "FROM request\u0455", NO_TABLE),
        ("a view's name with a zero-width space", "FROM req\u200buests", NO_TABLE),
    ],
    "functions with effects": [
        ("nextval", "SELECT nextval('s')", NO_FUNCTION),
        ("setseed", "SELECT setseed(0.5)", NO_FUNCTION),
        ("sleep_ms", "SELECT sleep_ms(100000)", NO_FUNCTION),
        ("pg_sleep", "SELECT pg_sleep(100)", NO_FUNCTION),
        ("write_log", "SELECT write_log('a')", NO_FUNCTION),
        ("error", "SELECT error('a')", NO_FUNCTION),
        ("statistics of a file", "SELECT stats(message) FROM requests", NO_FUNCTION),
        ("an outer resource", "FROM create_external_resource('a', 'b')", NO_TABLE_FUNCTION),
        ("enable_logging", "FROM enable_logging()", NO_TABLE_FUNCTION),
        ("checkpoint", "FROM force_checkpoint()", NO_TABLE_FUNCTION),
    ],
    "too much memory": [
        ("repeat", "SELECT length(repeat('x', 2000000000))", MEMORY),
        ("a list", "SELECT len(range(4000000000))", MEMORY),
        ("an aggregate", "SELECT list(i) FROM range(1000000000) AS r(i)", MEMORY),
        ("a group", "SELECT i, count(*) FROM range(1000000000) AS r(i) GROUP BY i", MEMORY),
    ],
    "too much time": [
        ("a range", "SELECT sum(hash(i)) FROM range(1000000000000) AS r(i)", TIME),
        ("a recursion", "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t", TIME),
        ("a cross join", "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000000) c", TIME),
        ("lpad", "SELECT length(lpad('x', 2000000000, 'y'))", f"{TIME}|{MEMORY}"),
        ("regular expressions", "FROM range(1000000000) AS r(i) WHERE regexp_matches(repeat('a', i), '(a*)*b')", TIME),
    ],
    "too much text": [
        ("parentheses", f"SELECT {'(' * 20_000}1{')' * 20_000}", "expression depth|nested too deeply|broke"),
        ("lists", f"SELECT {'[' * 900}1{']' * 900}", "nested too deeply"),
        ("a sum", f"SELECT 1{'+1' * 20_000}", "expression depth"),
        ("characters", f"SELECT '{'x' * 60_000}'", "at most 50,000 can be run"),
        ("half a character", "SELECT '\ud800'", "half of a character"),
    ],
}

HONEST: Final = {
    "FROM first": "FROM errors ORDER BY ts, request_id LIMIT 3",
    "an aggregate": "SELECT code, count(*) AS errors FROM errors GROUP BY ALL ORDER BY errors DESC, code",
    "every type of the contract": "SELECT * FROM requests ORDER BY ts, request_id",
    "VALUES": "VALUES (1, 'a'), (2, NULL)",
    "a semicolon and a comment": "SELECT ';' AS a /* ; */ ; -- done",
    "CTEs": "WITH a AS (SELECT code FROM errors), b AS MATERIALIZED (FROM a WHERE code IS NOT NULL)"
    " SELECT code, count(*) AS n FROM b GROUP BY ALL ORDER BY ALL",
    "a CTE named like a view": "WITH requests AS (SELECT 7 AS n) FROM requests",
    "recursion": "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5)"
    " SELECT sum(n) AS s FROM t",
    "windows": "SELECT request_id, row_number() OVER (PARTITION BY org_id ORDER BY ts) AS nth,"
    " lag(status) OVER (ORDER BY ts ROWS BETWEEN 3 PRECEDING AND CURRENT ROW) AS before FROM requests ORDER BY ts",
    "a join": "SELECT e.code, c.meaning FROM errors AS e JOIN catalogue AS c USING (code) ORDER BY ALL",
    "an ASOF join": "SELECT a.request_id, b.request_id AS earlier FROM errors a ASOF JOIN requests b ON a.ts > b.ts"
    " ORDER BY ALL",
    "set operations": "(SELECT org_id FROM requests EXCEPT SELECT 'org_b') UNION BY NAME (SELECT 1 AS n) ORDER BY ALL",
    "a pivot of listed values": "PIVOT errors ON code IN ('not_found', 'rate_limited') USING count(*) GROUP BY org_id"
    " ORDER BY org_id",
    "an unpivot": "UNPIVOT (SELECT 1 AS a, 2 AS b) ON a, b INTO NAME n VALUE v",
    "lists, structs and lambdas": "SELECT list_transform([1, 2], lambda x: x + 1) AS l, {'a': 1}.a AS s,"
    " [1, 2, 3][2:] AS t, MAP {'k': 'v'} AS m, [x * 2 FOR x IN [1, 2] IF x > 1] AS c",
    "text": "SELECT 'Ab' ILIKE 'a%' AS i, 'ab' SIMILAR TO 'a.' AS s, 'ab' || 'c' AS c, substring('abc' FROM 2) AS u,"
    " trim(BOTH 'x' FROM 'xax') AS t, regexp_extract('a1', '[0-9]') AS r, 'é' COLLATE NOCASE = 'É' AS k",
    "moments": "SELECT date_trunc('hour', ts) AS hour, extract(minute FROM ts) AS minute, ts + INTERVAL 1 DAY AS later,"
    " ts AT TIME ZONE 'Asia/Tokyo' AS there, time_bucket(INTERVAL 5 MINUTES, ts) AS b FROM requests ORDER BY ts",
    "JSON": """SELECT ('{"a": [1]}'::JSON)->'a'->>0 AS a, json_extract_string('{"b": 2}', '$.b') AS b""",
    "conditions": "SELECT CASE WHEN status IN (404, 429) THEN 'x' ELSE coalesce(code, 'y') END AS c,"
    " status BETWEEN 1 AND 3 AS b, org_id IS DISTINCT FROM key_id AS d, TRY_CAST(code AS INTEGER) AS t,"
    " code = ANY (['a']) AS a FROM errors"
    " ORDER BY ALL",
    "subqueries": "SELECT (SELECT max(ts) FROM requests) AS latest, EXISTS (FROM errors WHERE status = 500) AS failed",
    "COLUMNS and EXCLUDE": "SELECT * EXCLUDE (ts) REPLACE (upper(code) AS code)"
    " FROM (SELECT ts, code, status FROM errors) ORDER BY ALL",
    "GROUPING SETS and QUALIFY": "SELECT org_id, status, count(*) AS n FROM requests GROUP BY ROLLUP (org_id, status)"
    " QUALIFY row_number() OVER (ORDER BY org_id, status) < 9 ORDER BY ALL",
    "the functions of tables": "SELECT unnest(generate_series(1, 3)) AS a, b.range AS b FROM range(2) AS b"
    " ORDER BY ALL",
    "DESCRIBE": "DESCRIBE errors",
    "SUMMARIZE": "SELECT column_name, min, max FROM (SUMMARIZE requests)",
    "a question with parameters": "SELECT label, errors"
    " FROM errors_by_code(since := DATE '2026-11-02', for_org := 'org_a')",
    "a question that is joined": "SELECT q.code, c.owner FROM errors_by_code() AS q"
    " LEFT JOIN catalogue AS c USING (code) ORDER BY ALL",
    "a macro of a value": "SELECT data_through() AS latest, is_rate_limited(429, NULL) AS is_limited",
}


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lake, its exported database, and files outside the lake."""
    folder = tmp_path_factory.mktemp("grounds")
    requests = [
        error(
            0, "not_found", org_id="org_a", request_id="req_0", message="mine", details=[{"field": "f", "issue": "i"}]
        ),
        error(1, "rate_limited", org_id="org_b", request_id="req_1", message="theirs", retry_after_s=1.5),
        error(2, None, org_id="org_a", request_id="req_2", origin="gateway", gateway_reason="bad_gateway"),
        *(ok(3 + number, org_id=f"org_{'ab'[number % 2]}", request_id=f"req_{3 + number}") for number in range(8)),
    ]
    moments = [row["ts"] for row in requests]
    step = {"kind": "source", "day": moments[0].date(), "first_ts": min(moments), "last_ts": max(moments)}
    rows: list[dict[str, Any]] = [*requests, source("first", lines=11, requests=11, errors=3) | step]
    lake = folder / "lake"
    table = pa.Table.from_pylist(rows, schema=table_schema())
    write_deltalake(table_path(lake), table, mode="append", partition_by=["kind", "day"])
    analysis.export(lake)
    outside = folder / "outside"
    outside.mkdir()
    (outside / "secret.csv").write_text("name,secret\nkey,hunter2\n")
    (outside / "secret.json").write_text('{"secret": "hunter2"}\n')
    return folder


def ask(grounds: Path, sql: str, **more: Any) -> sandbox.Answer:
    return run_query(grounds / "lake", sql, **{"limits": ROOMY} | more)


def aimed(sql: str, grounds: Path) -> str:
    """`sql` with the places of the grounds in it."""
    file = next((grounds / "lake").rglob("*.parquet"))
    places = {"lake": grounds / "lake", "outside": grounds / "outside", "file": file}
    for name, path in places.items():
        sql = sql.replace(f"{{{name}}}", str(path))
    return sql


def fingerprints(folder: Path) -> dict[str, str]:
    """The hash of every file in `folder`, by path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): sha256(path.read_bytes()).hexdigest() for path in files}


# -- what gets out


@pytest.mark.parametrize(
    ("kind", "sql", "said"),
    [
        pytest.param(kind, sql, said, id=f"{kind}: {name}")
        for kind, attacks in ATTACKS.items()
        for name, sql, said in attacks
    ],
)
def test_an_attack_is_refused_and_changes_no_byte(grounds: Path, kind: str, sql: str, said: str) -> None:
    before = fingerprints(grounds)

    with pytest.raises(BadInput, match=said) as refusal:
        ask(grounds, aimed(sql, grounds), limits=LIMITS.get(kind, ROOMY))

    assert fingerprints(grounds) == before
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", ATTACKS)
def test_an_honest_query_is_answered_after_an_attack(grounds: Path, kind: str) -> None:
    with pytest.raises(BadInput):
        ask(grounds, aimed(ATTACKS[kind][0][1], grounds), limits=LIMITS.get(kind, ROOMY))

    assert ask(grounds, "SELECT count(*) AS n FROM requests").rows.to_pylist() == [{"n": 11}]


# -- honest queries


@pytest.mark.parametrize("sql", HONEST.values(), ids=HONEST)
def test_an_honest_query_gives_what_errata_sql_gives(grounds: Path, sql: str) -> None:
    expected = analysis.connect(grounds / "lake").sql(sql).to_arrow_table()

    answer = ask(grounds, sql)

    assert answer.rows == expected
    assert answer.truncated_at is None


@pytest.mark.parametrize("name", analysis.questions())
def test_every_question_gives_what_errata_sql_gives(grounds: Path, name: str) -> None:
    expected = analysis.connect(grounds / "lake").sql(f"FROM {name}()").to_arrow_table()

    assert ask(grounds, f"FROM {name}()").rows == expected


def test_the_person_is_told_what_is_wrong_with_the_sql(grounds: Path) -> None:
    with pytest.raises(BadInput, match=r'^Referenced column "cod" not found in FROM clause! Candidate bindings: '):
        ask(grounds, "SELECT cod FROM errors")


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("FROM errors_by_code", "errors_by_code takes parentheses; write errors_by_code()"),
        ("SELECT cuont(*) FROM errors", "the function 'cuont' cannot be used in the console; did you mean count?"),
        (
            "FROM eror_trend()",
            "the table function 'eror_trend' cannot be used in the console; did you mean error_trend?",
        ),
    ],
    ids=["a question without parentheses", "a function misspelt", "a question misspelt"],
)
def test_a_slip_is_told_with_what_was_meant(grounds: Path, sql: str, said: str) -> None:
    with pytest.raises(BadInput) as refusal:
        ask(grounds, sql)

    assert str(refusal.value) == said


def test_the_catalogue_that_is_given_is_the_one_that_is_asked(grounds: Path, tmp_path: Path) -> None:
    header = "code,http_status,is_retryable,category,owner,meaning,client_action"
    own = tmp_path / "own.csv"
    own.write_text(f"{header}\nteapot,418,false,client,client,It is one.,Ask a kettle.\n")

    assert ask(grounds, "SELECT code FROM catalogue", catalog=own).rows.to_pylist() == [{"code": "teapot"}]


def test_what_was_ingested_meanwhile_is_seen(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    counts = []
    for number in range(2):
        table = pa.Table.from_pylist([ok(number)], schema=table_schema())
        write_deltalake(table_path(lake), table, mode="append", partition_by=["kind", "day"])
        counts += run_query(lake, "SELECT count(*) AS n FROM requests", limits=ROOMY).rows.to_pylist()

    assert counts == [{"n": 1}, {"n": 2}]


def test_a_lake_without_rows_is_answered(tmp_path: Path) -> None:
    write_deltalake(table_path(tmp_path / "lake"), table_schema().empty_table(), partition_by=["kind", "day"])

    assert run_query(tmp_path / "lake", "FROM errors", limits=ROOMY).rows.num_rows == 0


def test_no_lake_is_told_as_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected a lake, but the folder does not exist"):
        run_query(tmp_path / "none", "SELECT 1")


def test_a_torn_data_file_is_a_damaged_lake(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    table = pa.Table.from_pylist([ok(0), error(1, "not_found")], schema=table_schema())
    write_deltalake(table_path(lake), table, partition_by=["kind", "day"])
    run_query(lake, "SELECT 1", limits=ROOMY)
    for file in lake.rglob("*.parquet"):
        file.write_bytes(b"PAR1" + bytes(200) + b"PAR1")

    with pytest.raises(LakeDamaged):
        run_query(lake, "FROM requests", limits=ROOMY)


# -- organisations


ORG_A: Final = frozenset({"org_a"})


def test_a_restricted_person_sees_their_organisations_alone(grounds: Path) -> None:
    seen = ask(grounds, "SELECT DISTINCT org_id FROM requests", orgs=ORG_A).rows.to_pylist()

    assert seen == [{"org_id": "org_a"}]


@pytest.mark.parametrize(
    "sql",
    [
        pytest.param("SELECT sum(message::INT) FROM errors WHERE org_id <> 'org_a'", id="a cast that fails"),
        pytest.param(
            "FROM errors WHERE CASE WHEN org_id <> 'org_a' THEN message::INT = 1 ELSE true END", id="a condition"
        ),
        pytest.param("FROM errors WHERE message::INT = 1 OR org_id = 'org_a' ORDER BY ts", id="before the restriction"),
        pytest.param(
            "SELECT * FROM errors AS a JOIN errors AS b ON (a.message || b.org_id)::INT = 1", id="a condition of a join"
        ),
        pytest.param("SUMMARIZE errors", id="a summary"),
        pytest.param("SELECT min(org_id) AS low, max(org_id) AS high, max(message) AS text FROM errors", id="bounds"),
        pytest.param("SELECT max(org_id) OVER (), * FROM requests", id="a window"),
        pytest.param("FROM errors_by_org()", id="a question"),
        pytest.param("FROM requests_in_scope(NULL, NULL, 'org_b', NULL, NULL)", id="a question's part"),
        pytest.param("FROM sources", id="the ledger"),
    ],
)
def test_nothing_of_another_organisation_is_told_even_by_an_error(grounds: Path, sql: str) -> None:
    try:
        told = str(ask(grounds, sql, orgs=ORG_A).rows.to_pylist())
    except BadInput as refusal:
        told = str(refusal)

    assert not any(word in told for word in ("org_b", "theirs", "req_1'", "first.log"))


def test_a_restriction_to_no_organisation_shows_nothing(grounds: Path) -> None:
    assert ask(grounds, "FROM requests", orgs=frozenset()).rows.num_rows == 0


# -- limits


def test_the_rows_beyond_the_limit_are_left_out_and_that_is_told(grounds: Path) -> None:
    limits = Limits(time_s=120, rows=5)

    assert ask(grounds, "FROM range(1, 6) AS r(n)", limits=limits).truncated_at is None
    answer = ask(grounds, "FROM range(1, 1000000000) AS r(n)", limits=limits)

    assert (answer.truncated_at, answer.rows["n"].to_pylist()) == (5, [1, 2, 3, 4, 5])


def test_a_result_of_too_many_bytes_names_the_limit(grounds: Path) -> None:
    with pytest.raises(LimitMet, match=r"^the result has more bytes than the limit of 4 MB; ask for fewer columns"):
        ask(grounds, "SELECT repeat('x', 1000000) FROM range(100)", limits=Limits(time_s=120, result_mb=4))


def test_a_query_beside_too_many_others_is_told_to_wait(grounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = threading.BoundedSemaphore(1)
    monkeypatch.setattr(sandbox, "_slots", taken)

    with taken, pytest.raises(LimitMet, match=r"^4 queries are running already, which is the limit"):
        ask(grounds, "SELECT 1")

    assert ask(grounds, "SELECT 1 AS n").rows.to_pylist() == [{"n": 1}]


def test_what_is_raised_while_it_runs_ends_a_query(grounds: Path) -> None:
    class LeftError(Exception):
        """The person has gone to another page."""

    def leave(elapsed_s: float) -> None:
        raise LeftError(elapsed_s)

    with pytest.raises(LeftError) as left:
        ask(grounds, ATTACKS["too much time"][0][1], while_waiting=leave)

    assert left.value.args[0] < ROOMY.time_s
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_query_that_was_ended_leaves_no_process(grounds: Path) -> None:
    with pytest.raises(LimitMet):
        ask(grounds, "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000000) c", limits=SHORT)

    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# -- the child process


def child_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Puts a program of `lines` into the place of the child; it imports json, os and sys, and the request is read."""
    program = tmp_path / "child.py"
    start = ["import json, os, sys", f"sys.path.insert(0, {str(Path(sandbox.__file__).parents[1])!r})"]
    program.write_text("\n".join([*start, "request = json.load(sys.stdin)", *lines]))
    monkeypatch.setattr(sandbox, "_CHILD", (sys.executable, str(program)))


def test_the_child_is_told_no_variable_of_the_environment_and_has_no_file(
    grounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERRATA_KEY_FILE", "/secret")
    told = "sorted(os.environ), [name for name in os.listdir('/proc/self/fd') if int(name) < 200], os.getcwd()"
    child_that(tmp_path, monkeypatch, f"print(json.dumps({{'error': 'not allowed', 'message': repr(({told}))}}))")

    with (tmp_path / "held open").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        with pytest.raises(BadInput) as told_by_child:
            ask(grounds, "SELECT 1")

    names = ["ARROW_DEFAULT_MEMORY_POOL", "JE_ARROW_MALLOC_CONF", "LC_ALL", "OPENBLAS_NUM_THREADS"]
    expected = ([*names, "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "TZ"], ["0", "1", "2", "3"], "/")
    assert str(told_by_child.value) == repr(expected)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        pytest.param(["os.abort()"], "broke the engine off", id="aborted"),
        pytest.param(["print('{}')"], "broke the engine off", id="an empty answer"),
        pytest.param(["print('no JSON')"], "broke the engine off", id="no answer"),
        pytest.param(
            ["print(json.dumps({'is_truncated': False}))", "print('no Arrow')"], "broke the engine off", id="no rows"
        ),
        pytest.param(["while True: print('x' * 1000)"], "more bytes than the limit", id="an endless answer"),
        pytest.param(["import time", "time.sleep(1000)"], "the time limit of 2 s", id="no end"),
        pytest.param(["os.close(1)", "import time", "time.sleep(1000)"], "broke the engine off", id="no output"),
    ],
)
def test_a_child_that_goes_wrong_is_told_in_one_line(
    grounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], said: str
) -> None:
    child_that(tmp_path, monkeypatch, *lines)

    with pytest.raises(LimitMet, match=said):
        ask(grounds, "SELECT 1", limits=SHORT)


UNGUARDED: Final = [
    ("COPY in a CTE", "WITH a AS (COPY (SELECT 1) TO '{file}') SELECT 1"),
    ("a path", "FROM '/etc/passwd'"),
    ("read_text", "FROM read_text('{outside}/secret.csv')"),
    ("read_csv", "FROM read_csv('{lake}/table/_delta_log/00000000000000000000.json')"),
    ("glob", "SELECT error('found ' || file) FROM glob('{outside}/*')"),
    ("http", "FROM read_csv('http://192.0.2.1/a.csv')"),
]


@pytest.mark.parametrize("sql", [sql for _, sql in UNGUARDED], ids=[name for name, _ in UNGUARDED])
def test_the_engine_refuses_what_the_grammar_would_let_pass(
    grounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    child_that(
        tmp_path,
        monkeypatch,
        "from analysis import sandbox_child",
        "from analysis.sandbox_grammar import Grammar",
        "Grammar.check = lambda self, tree: None",
        "sys.stdin.seek(0)",
        "sandbox_child.main()",
    )
    before = fingerprints(grounds)

    with pytest.raises(BadInput, match=r"file system|Permission|must be at the top level|does not exist|disabled"):
        ask(grounds, aimed(sql, grounds))

    assert fingerprints(grounds) == before


ON_LINUX: Final = pytest.mark.skipif(sys.platform != "linux", reason="these rights are Linux's")
WITH_LANDLOCK: Final = pytest.mark.skipif(
    sys.platform != "linux" or ctypes.CDLL(None).syscall(444, None, 0, 1) < 4, reason="this kernel has no Landlock"
)


@ON_LINUX
@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param("open('/etc/passwd')", id="to read another file", marks=WITH_LANDLOCK),
        pytest.param("os.listdir('.')", id="to list a folder", marks=WITH_LANDLOCK),
        pytest.param("os.open('readable', os.O_WRONLY | os.O_TRUNC)", id="to empty a file", marks=WITH_LANDLOCK),
        pytest.param("open('new', 'w')", id="to make a file", marks=WITH_LANDLOCK),
        pytest.param("os.unlink('readable')", id="to remove a file", marks=WITH_LANDLOCK),
        pytest.param("os.rename('readable', 'gone')", id="to rename a file", marks=WITH_LANDLOCK),
        pytest.param("socket.socket().connect(('127.0.0.1', 9))", id="to connect", marks=WITH_LANDLOCK),
        pytest.param("os.write(opened, b'x')", id="to write a file that is open"),
        pytest.param("os.setuid(os.getuid() + 1)", id="to be somebody else"),
        pytest.param("threading.Thread(target=print).start()", id="to start a thread"),
        pytest.param("os.fork()", id="to start a process"),
        pytest.param("resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))", id="to raise a limit"),
        pytest.param("bytearray(1 << 40)", id="to take much memory"),
    ],
)
def test_rights_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grounds: Path, attempt: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        readable = Path(folder) / "readable"
        readable.write_text("data")
        Path(folder).chmod(0o777)  # root becomes nobody, who could do all of it here
        readable.chmod(0o666)
        child_that(
            tmp_path,
            monkeypatch,
            "import resource, socket, threading",
            "from analysis.sandbox_rights import give_up_rights, start_no_process",
            f"os.chdir({folder!r})",
            "opened = os.open('readable', os.O_WRONLY)",
            "give_up_rights([os.path.abspath('readable')], memory_bytes=1 << 30, cpu_s=60)",
            "start_no_process()",
            "assert open('readable').read() == 'data'",
            "message = 'done'",
            "try:",
            f"    {attempt}",
            "except (OSError, RuntimeError, ValueError, MemoryError) as error:",
            "    message = f'refused: {type(error).__name__} {error}'",
            "print(json.dumps({'error': 'not allowed', 'message': message}))",
        )

        with pytest.raises(BadInput, match=r"^refused: (?!.*(Connection refused|timed out))"):
            ask(grounds, "SELECT 1")

        assert {path.name: path.read_text() for path in Path(folder).iterdir()} == {"readable": "data"}


@ON_LINUX
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(("mode", "uid"), [(0o755, 65534), (0o700, 0)], ids=["that others may read", "of root alone"])
def test_root_is_nobody_or_without_capabilities(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, grounds: Path, mode: int, uid: int
) -> None:
    child_that(
        tmp_path,
        monkeypatch,
        "from analysis.sandbox_rights import give_up_rights",
        "give_up_rights([request['files'][0]], memory_bytes=1 << 30, cpu_s=60)",
        "import ctypes",
        "data = (ctypes.c_uint32 * 6)()",
        "ctypes.CDLL(None).capget((ctypes.c_uint32 * 2)(0x20080522, 0), data)",
        "open(request['files'][0], 'rb').read()",
        "told = [os.getresuid(), os.getgroups(), list(data)]",
        "print(json.dumps({'error': 'not allowed', 'message': json.dumps(told)}))",
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(mode)
        lake = Path(folder) / "lake"
        table = pa.Table.from_pylist([ok(0)], schema=table_schema())
        write_deltalake(table_path(lake), table, partition_by=["kind", "day"])
        with pytest.raises(BadInput) as told:
            run_query(lake, "SELECT 1", limits=ROOMY)

    assert json.loads(str(told.value)) == [[uid] * 3, [], [0] * 6]


# -- the grammar


def test_every_function_that_may_be_called_is_one_of_duckdb(grounds: Path) -> None:
    found = analysis.connect(grounds / "lake").execute("SELECT DISTINCT lower(function_name) FROM duckdb_functions()")

    assert function_names() | TABLE_FUNCTIONS <= {name for (name,) in found.fetchall()}


def test_a_statement_of_a_kind_that_nobody_knows_yet_is_refused() -> None:
    grammar = Grammar(frozenset({"requests"}), frozenset(), frozenset())
    tree = {"error": False, "statements": [{"node": {"type": "SELECT_NODE", "from_table": {"type": "BRAND_NEW_REF"}}}]}

    with pytest.raises(Exception, match="brand new ref cannot be used here"):
        grammar.check(tree)
