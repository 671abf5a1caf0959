"""The lake as it was when a page was drawn: answers that are computed once and shown to everybody who asks the same.

Knows when an answer is stale: when the lake has another list of data files. Knows no page.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import streamlit as st

import analysis
from analysis.explain import Explanation
from analysis.explain import explain as explain_request
from analysis.lake import snapshot_files
from analysis.period import data_through
from analysis.sandbox import Answer, Limits, run_query
from dashboard import CATALOG_VARIABLE, LAKE_VARIABLE

# The lake's data files say when rows are new. A catalogue that was edited is seen after this time.
_KEPT_FOR: Final = "5m"
_KEPT_ANSWERS: Final = 300
# One for each set of organisations that people may see, and one for all.
_KEPT_CONNECTIONS: Final = 32


@dataclass(frozen=True)
class Snapshot:
    """One version of the lake, to be asked: all of it, or the requests of `orgs` alone.

    `version` names both, so that nothing that is kept under it can reach a person who may not see it.
    """

    con: duckdb.DuckDBPyConnection
    version: str
    orgs: frozenset[str] | None

    def answer(self, name: str, **parameters: object) -> pa.Table:
        """The rows of `analysis.answer`, and its errors."""
        return _answer(self.con, self.version, name, tuple(sorted(parameters.items())))

    @property
    def data_through(self) -> datetime | None:
        """The latest request that was ingested; None for an empty lake."""
        return _data_through(self.con, self.version)

    def rate_limited_labels(self) -> list[str]:
        """The labels of rate-limited requests: the codes that come with a 429, and that of a gateway's own refusal."""
        entries = self.con.cursor().table("catalogue").to_arrow_table().to_pylist()
        return [*(entry["code"] for entry in entries if entry["http_status"] == 429), "too_many_requests"]

    def explain(self, request_id: str) -> Explanation:
        """What `analysis.explain` tells about one request, and its errors."""
        return explain_request(self.con.cursor(), request_id)

    def query(self, sql: str, limits: Limits, while_waiting: Callable[[float], None]) -> Answer:
        """What `analysis.sandbox.run_query` gives for SQL of a person's own, and its errors; it is not kept."""
        return run_query(
            lake_path(), sql, catalog=_catalog_path(), orgs=self.orgs, limits=limits, while_waiting=while_waiting
        )


def lake_path() -> Path:
    """The folder of the lake, which the command hands over in the environment."""
    return Path(os.environ.get(LAKE_VARIABLE) or "lake")


def open_snapshot(orgs: frozenset[str] | None) -> Snapshot:
    """The lake's current version, of these organisations alone (None: all). Raises as `analysis.connect` does."""
    lake, catalog = lake_path(), _catalog_path()
    seen = None if orgs is None else sorted(orgs)
    files = repr((lake.absolute(), catalog, seen, sorted(snapshot_files(lake).by_kind.items())))
    version = sha256(files.encode()).hexdigest()
    return Snapshot(_connect(version, lake, catalog, orgs), version, orgs)


def _catalog_path() -> Path | None:
    path = os.environ.get(CATALOG_VARIABLE)
    return Path(path) if path else None


@st.cache_resource(max_entries=_KEPT_CONNECTIONS, ttl=_KEPT_FOR, show_spinner=False)
def _connect(
    version: str, _lake: Path, _catalog: Path | None, _orgs: frozenset[str] | None
) -> duckdb.DuckDBPyConnection:
    return analysis.connect(_lake, catalog=_catalog, orgs=_orgs)


# Arrow tables cannot be changed, so that pages may share them: st.cache_data would copy one for each.
@st.cache_resource(max_entries=_KEPT_ANSWERS, ttl=_KEPT_FOR, show_spinner=False)
def _answer(
    _con: duckdb.DuckDBPyConnection, version: str, name: str, parameters: tuple[tuple[str, object], ...]
) -> pa.Table:
    # A connection takes one query at a time; its cursors share the views and run side by side.
    rows: pa.Table = analysis.answer(_con.cursor(), name, **dict(parameters)).to_arrow_table()
    return rows


@st.cache_resource(max_entries=_KEPT_CONNECTIONS, show_spinner=False)
def _data_through(_con: duckdb.DuckDBPyConnection, version: str) -> datetime | None:
    return data_through(_con.cursor())
