"""What every test may rely on: nothing that errata keeps for a person is read from or written to their home."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

# No test depends on how long anything takes.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The environment of someone who has never run errata. `XDG_CACHE_HOME` stays: browsers are installed there."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ERRATA_KEY_FILE", str(home / "fingerprint.key"))
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
            patch.setenv(name, str(home / name.lower()))
        for name in ("ERRATA_LAKE", "ERRATA_CATALOG", "ERRATA_AUTH"):
            patch.delenv(name, raising=False)
        yield
