"""Which of the requests about to be committed are there already, as their request ids prove.

The same record reaches a lake twice where a shipper sends a tail again, where logs overlap, or where two logs were
joined into a third. Knows the columns that make two rows the same record; knows no log.
"""

from collections import Counter
from pathlib import Path
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingest import lake as lakes
from ingest.forget import FORGOTTEN
from ingest.prepared import quoted
from ingest.schema import table_path
from ingest.writer import DataFile, Writer

Counts = dict[str, Counter[str]]
"""How many rows were left out, by kind (ok, error) and source_id."""

# A client may send its own id, and the same one with everything: an id of more records than this proves nothing.
_MOST_RECORDS: Final = 8
_ROWS_A_PASS: Final = 1 << 22
_RECORD: Final = (
    "request_id, ts, status, code, method, path, org_id, key_id, client_ip, user_agent, latency_ms, response_bytes"
)


def without_duplicates(lake: Path, files: list[DataFile]) -> tuple[list[DataFile], Counts]:
    """`files`, not yet committed, without the requests that the lake or an earlier one of them holds, and their counts.

    Files that had any are written anew. The caller holds the writer lock. Raises NotWritten and LakeDamaged.
    """
    table = table_path(lake)
    fresh = [file for file in files if file.kind in {"ok", "error"}]
    snapshot = lakes.open_table(lake)
    doubled: dict[Path, list[int]] = {}
    with duckdb.connect(config={"memory_limit": "600MB", "autoload_known_extensions": False}) as con:
        con.execute("SET TimeZone = 'UTC'")
        for day in sorted({file.day for file in fresh}):
            of_day = [file for file in fresh if file.day == day]
            held = [path for kind in ("ok", "error") for path in lakes.paths_of(snapshot, kind, [day.isoformat()])]
            doubled |= _doubled(con, [table / file.path for file in of_day], held, sum(file.rows for file in of_day))
    counts: Counts = {"ok": Counter(), "error": Counter()}
    kept = []
    for file in files:
        rows = doubled.get(table / file.path)
        kept += [file] if rows is None else _rewritten(lake, file, rows, counts[file.kind])
    return kept, counts


def _doubled(con: duckdb.DuckDBPyConnection, fresh: list[Path], held: list[Path], rows: int) -> dict[Path, list[int]]:
    """By file of `fresh`, the numbers of its rows that are in `held` or earlier in `fresh`."""
    con.execute(f"CREATE OR REPLACE TEMP VIEW fresh AS {_rows(fresh, is_fresh=True)}")
    seen = "FROM fresh"
    if held:
        # Records of another moment are other records: row groups are passed over by their statistics.
        [(since, until)] = con.execute("SELECT epoch_us(min(ts)), epoch_us(max(ts)) FROM fresh").fetchall()
        span = f"ts BETWEEN make_timestamptz({since}) AND make_timestamptz({until})"
        seen += f" UNION ALL {_rows(held, is_fresh=False)} WHERE {span}"
    con.execute(f"CREATE OR REPLACE TEMP VIEW seen AS {seen}")
    found: dict[Path, list[int]] = {}
    passes = 1 + rows // _ROWS_A_PASS
    for number in range(passes):
        con.execute(_SUSPECTS, {"passes": passes, "number": number})
        if con.execute("SELECT count(*) FROM suspects").fetchall() == [(0,)]:
            continue
        for file, row in con.execute(_DOUBLED, {"fresh": [str(path) for path in fresh]}).fetchall():
            found.setdefault(Path(file), []).append(row)
    return found


# Almost always nothing: eight bytes a row decide.
_SUSPECTS: Final = """
CREATE OR REPLACE TEMP TABLE suspects AS
SELECT hash(request_id) AS suspect
FROM seen
WHERE request_id IS NOT NULL
  AND hash(request_id) % $passes = $number
GROUP BY suspect
HAVING count(*) > 1
   AND bool_or(is_fresh)
"""
# What an erasure has masked was something else in the log, which may be there still.
_DOUBLED: Final = f"""
WITH suspected AS (
    SELECT * REPLACE (
        if(bool_or(contains(path, '{FORGOTTEN}')) OVER same_id, NULL, path) AS path,
        if(bool_or(contains(user_agent, '{FORGOTTEN}')) OVER same_id, NULL, user_agent) AS user_agent
    )
    FROM seen
    WHERE hash(request_id) IN (FROM suspects)
    WINDOW same_id AS (PARTITION BY request_id)
),
records AS (
    SELECT
        is_fresh,
        filename,
        row,
        request_id,
        dense_rank() OVER (PARTITION BY request_id ORDER BY {_RECORD}) AS record,
        row_number() OVER (
            PARTITION BY {_RECORD}
            ORDER BY is_fresh, list_position($fresh, filename), filename, row
        ) AS place
    FROM suspected
)
SELECT filename, row
FROM records
QUALIFY is_fresh
    AND place > 1
    AND max(record) OVER (PARTITION BY request_id) <= {_MOST_RECORDS}
"""  # noqa: S608 - names of this module


def _rows(files: list[Path], *, is_fresh: bool) -> str:
    """The columns of `_RECORD` in `files`, and where each row lies."""
    listed = ", ".join(quoted(str(path)) for path in files)
    return (
        f"SELECT {is_fresh} AS is_fresh, filename, file_row_number AS row, {_RECORD} "  # noqa: S608 - paths are quoted
        f"FROM read_parquet([{listed}], filename = true, file_row_number = true, hive_partitioning = false)"
    )


def _rewritten(lake: Path, file: DataFile, doubled: list[int], counts: Counter[str]) -> list[DataFile]:
    """`file` as another one without the rows `doubled`, which are counted by source; none where nothing is left."""
    path = table_path(lake) / file.path
    writer = Writer(table_path(lake), file.day)
    with lakes.filling(lake, writer):
        rows = pq.ParquetFile(path).read()
        counts.update(rows["source_id"].take(pa.array(doubled)).to_pylist())
        is_kept = np.ones(len(rows), np.bool_)
        is_kept[doubled] = False
        if is_kept.any():
            writer.add_again(file.kind, file.day, rows.filter(pa.array(is_kept)))
        written = writer.close()
    path.unlink()
    return written
