"""The lanes of the tests of ingest, for these as well."""

from tests.ingest.conftest import lanes

__all__ = ["lanes"]
