"""The sample logs in a lake, ingested once: it takes two seconds."""

import duckdb
import pytest

from tests.analysis.queries import golden


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    """A connection to a lake of the sample logs: the five days and the capture's JSON."""
    return golden.sample_lake(tmp_path_factory.mktemp("samples"))
