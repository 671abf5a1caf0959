"""Lanes that all tests share: to plan their queries takes longer than any of the tests."""

from collections.abc import Iterator

import pytest

from ingest.parse import Lanes
from tests.ingest.logs import KEY


@pytest.fixture(scope="session")
def lanes() -> Iterator[Lanes]:
    """Lanes with the secret `KEY`."""
    made = Lanes(KEY, threads=1)
    yield made
    made.close()
