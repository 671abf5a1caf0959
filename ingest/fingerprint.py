"""The secret behind keyed fingerprints: made at first use, kept outside every lake, readable by its owner alone."""

import hmac
import os
import secrets
import tempfile
from pathlib import Path

from ingest.schema import BadInput

_BYTES = 32


def key_path() -> Path:
    """Where the secret is kept: `ERRATA_KEY_FILE`, or `errata/fingerprint.key` in the user's configuration folder."""
    given = os.environ.get("ERRATA_KEY_FILE")
    if given:
        return Path(given)
    configuration = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(configuration) / "errata" / "fingerprint.key"


def load_key() -> bytes:
    """The 32 secret bytes, made and stored with mode 0600 at first use.

    Raises BadInput where the file cannot be read, cannot be made or holds something else.
    """
    path = key_path()
    try:
        if not path.exists():
            _create(path)
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except OSError as error:
        raise BadInput(
            f"{path}: cannot keep the fingerprint secret: {error.strerror}. Set ERRATA_KEY_FILE to a place that can."
        ) from error
    except ValueError:
        key = b""
    if len(key) != _BYTES:
        raise BadInput(f"{path}: expected the fingerprint secret, {2 * _BYTES} hex digits, found something else")
    return key


def secret_id(key: bytes) -> str:
    """What tells the secret `key` from another, in the ledger of a lake: 12 hex digits that do not lead back to it."""
    return hmac.digest(key, b"errata: id of the fingerprint secret", "sha256").hex()[:12]


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        # A link fails where another run was first; that run's secret is the one to use.
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        Path(temporary).unlink()
