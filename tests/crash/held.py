"""What a lake holds, as a reader sees it that has just come."""

import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import duckdb
from deltalake import DeltaTable

from analysis.lake import snapshot_files
from analysis.question import literal
from ingest.schema import table_path

# Per source what the ledger says and what is there, where the two differ.
UNLIKE_THE_LEDGER: Final = """
WITH
    said AS (SELECT source_id, sum(requests) AS requests, sum(rejects) AS rejects FROM sources GROUP BY ALL),
    kept AS (SELECT source_id, count(*) AS requests FROM requests GROUP BY ALL),
    refused AS (SELECT source_id, count(*) AS rejects FROM rejects GROUP BY ALL)
SELECT source_id, said.requests, kept.requests, said.rejects, refused.rejects
FROM said
FULL JOIN kept USING (source_id)
FULL JOIN refused USING (source_id)
WHERE said.requests IS DISTINCT FROM coalesce(kept.requests, 0)
    OR said.rejects IS DISTINCT FROM coalesce(refused.rejects, 0)
ORDER BY ALL
"""
_OF_A_LAKE: Final = r"\.lock|errata\.duckdb|table/_delta_log/(\d{20}\.(json|checkpoint\.parquet)|_last_checkpoint)"
# The days of which not as many successes are counted as there are.
_UNLIKE_THE_COUNTS: Final = """
WITH
    counted AS (SELECT day, sum(successes) AS successes FROM daily GROUP BY ALL),
    kept AS (SELECT day, count(*) AS successes FROM successes GROUP BY ALL)
FROM counted FULL JOIN kept USING (day) WHERE counted.successes IS DISTINCT FROM kept.successes
"""
_VIEWS: Final = {
    "requests": ("ok", "error"),
    "successes": ("ok",),
    "daily": ("daily",),
    "rejects": ("reject",),
    "sources": ("source",),
}
_NONE: Final = """
SELECT '' AS source_id, '' AS request_id, 0 AS line, 0 AS requests, 0 AS rejects, 0 AS successes,
    DATE '2026-11-01' AS day
WHERE false
"""


def ids_in(lake: Path) -> dict[str, list[str]]:
    """The request ids that the lake holds by log, in the order of its lines; each source has what the ledger says,
    and each day the successes that are counted."""
    files = snapshot_files(lake).by_kind
    with duckdb.connect() as con:
        # Without macros, which take longer than all the rest.
        for view, kinds in _VIEWS.items():
            listed = ", ".join(literal(file) for kind in kinds for file in files.get(kind, []))
            con.execute(f"CREATE VIEW {view} AS {f'FROM read_parquet([{listed}])' if listed else _NONE}")
        assert con.execute(UNLIKE_THE_LEDGER).fetchall() == []
        assert con.execute(_UNLIKE_THE_COUNTS).fetchall() == []
        rows = con.execute("SELECT request_id FROM requests ORDER BY source_id, line").fetchall()
    found: dict[str, list[str]] = {}
    for (id_,) in rows:
        found.setdefault(id_.partition("_")[0], []).append(id_)
    return found


def left_behind(lake: Path) -> list[str]:
    """The files of a lake that nobody needs: data files in no snapshot, drafts, and what was to be a commit."""
    named = {unquote(uri) for uri in DeltaTable(str(table_path(lake))).file_uris()}
    files = [path for path in lake.rglob("*") if path.is_file() and str(path) not in named]
    return sorted(path.name for path in files if not re.fullmatch(_OF_A_LAKE, str(path.relative_to(lake))))
