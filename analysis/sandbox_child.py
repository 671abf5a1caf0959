"""What the child process of one console query runs: it gives up its rights, checks the statement and answers it.

Reads a request, JSON, from standard input. Writes a line of JSON to standard output and, where that has no error, the
rows after it as an Arrow IPC stream. Of errata it knows the rights and the grammar alone, so that it starts fast.
"""

import io
import json
import sys
from os.path import exists
from typing import Any

import duckdb
import pyarrow as pa

from analysis.sandbox_grammar import Grammar, NotAllowedError, function_names
from analysis.sandbox_rights import give_up_rights, start_no_process

# How many processors there are: DuckDB 2.0 ends the process where these exist and may not be read.
_PROCESSOR_QUOTAS = ("/proc/self/cgroup", "/sys/fs/cgroup")
_BATCH_ROWS = 1000
_ADDRESS_SPACE_PER_MEMORY = 1.5
_STACKS_BYTES = 512 << 20


def main() -> None:
    """Answers the request of standard input."""
    request = json.load(sys.stdin.buffer)
    functions = function_names()
    give_up_rights(
        [*request["files"], request["database"], *filter(exists, _PROCESSOR_QUOTAS)],
        memory_bytes=int(request["memory_bytes"] * _ADDRESS_SPACE_PER_MEMORY) + _STACKS_BYTES,
        cpu_s=request["cpu_s"],
    )
    grammar = Grammar(frozenset(request["relations"]), frozenset(request["macros"]), functions)
    header, rows = _answered(request, grammar)
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n")
    sys.stdout.buffer.write(rows)


def _answered(request: dict[str, Any], grammar: Grammar) -> tuple[dict[str, object], bytes]:
    """The header of the answer and its rows; every failure is a header that names its kind."""
    try:
        with _locked_connection(request) as con:
            return _rows(con, _checked(con, request["sql"], grammar), request)
    except NotAllowedError as error:
        return {"error": "not allowed", "message": str(error)}, b""
    except RecursionError:
        return {"error": "not allowed", "message": "the statement is nested too deeply"}, b""
    except (MemoryError, duckdb.OutOfMemoryException):
        return {"error": "memory"}, b""
    except _ResultTooLargeError:
        return {"error": "result"}, b""
    except duckdb.Error as error:
        return {"error": type(error).__name__, "message": str(error)}, b""
    except (OSError, pa.ArrowException) as error:  # how an error in the middle of the rows comes out of Arrow
        kind = "memory" if "Out of Memory" in str(error) else "DatabaseError"
        return {"error": kind, "message": str(error)}, b""


class _ResultTooLargeError(Exception):
    """The rows take more bytes than an answer may have."""


def _locked_connection(request: dict[str, Any]) -> duckdb.DuckDBPyConnection:
    """A connection that reads the view database and the lake's files, and whose settings nobody can change."""
    con = duckdb.connect(
        request["database"],
        read_only=True,
        config={
            "threads": request["threads"],
            "memory_limit": f"{request['memory_bytes']}B",
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        },
    )
    con.execute("SET GLOBAL TimeZone = 'UTC'")
    con.execute("SET GLOBAL allowed_paths = ?", [request["files"]])
    con.execute("SET GLOBAL enable_external_access = false")
    con.execute("SET GLOBAL lock_configuration = true")
    con.execute("SELECT sum(number) FROM range(1) AS numbers(number)")
    start_no_process()
    return con


def _checked(con: duckdb.DuckDBPyConnection, sql: str, grammar: Grammar) -> str:
    """The text of the one statement of `sql`, after the grammar and the binder have taken it."""
    statements = con.extract_statements(sql)
    if len(statements) != 1:
        raise NotAllowedError(f"expected one statement, found {len(statements)}; run them one at a time")
    text = _without_semicolon(statements[0].query)
    serialized = con.execute("SELECT json_serialize_sql($1::VARCHAR)", [text]).fetchall()[0][0]
    grammar.check(json.loads(serialized))
    # What is no query can hide in a CTE, with the statement type of a query: the binder takes none of it in here.
    con.sql(f"SELECT * FROM (\n{text}\n)")  # noqa: S608 - the statement is the person's own
    return text


def _without_semicolon(statement: str) -> str:
    """`statement` up to the semicolon that ends it, which no subquery may have."""
    encoded = statement.encode()
    tokens = duckdb.tokenize(statement)
    ends = [at for at, kind in tokens if kind == duckdb.token_type.operator and encoded[at : at + 1] == b";"]
    return encoded[: ends[0]].decode() if ends else statement


def _rows(con: duckdb.DuckDBPyConnection, text: str, request: dict[str, Any]) -> tuple[dict[str, object], bytes]:
    """The first rows of the answer as an IPC stream, and whether there are more."""
    left, is_truncated = request["rows"], False
    sink = io.BytesIO()
    with con.sql(text).to_arrow_reader(_BATCH_ROWS) as reader, pa.ipc.new_stream(sink, reader.schema) as writer:
        for batch in reader:
            is_truncated = batch.num_rows > left
            writer.write_batch(batch.slice(0, left) if is_truncated else batch)
            left -= batch.num_rows
            if sink.tell() > request["result_bytes"]:
                raise _ResultTooLargeError
            if is_truncated:
                break
    return {"is_truncated": is_truncated}, sink.getvalue()


if __name__ == "__main__":
    main()
