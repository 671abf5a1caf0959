"""The secret behind keyed fingerprints: made at first use, kept outside every lake, readable by its owner alone."""

import hmac
import os
import secrets
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ingest.schema import BadInput

_BYTES = 32
_OTHERS = 0o077


def key_path() -> Path:
    """Where the secret is kept: `ERRATA_KEY_FILE`, or `errata/fingerprint.key` in the user's configuration folder."""
    given = os.environ.get("ERRATA_KEY_FILE")
    if given:
        return Path(given)
    configuration = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(configuration) / "errata" / "fingerprint.key"


def load_key(lake: Path | None = None) -> bytes:
    """The 32 secret bytes, made and stored with mode 0600 at first use, for rows that go to `lake`.

    Raises BadInput where the file is inside of `lake`, can be read by others, cannot be read or made, or is no secret.
    """
    path = key_path()
    if lake:
        _refuse_inside(lake, path)
    if not path.exists():
        _write(path, os.link)
    key, mode = _read(path)
    if mode & _OTHERS:
        raise BadInput(
            f"{path}: expected a fingerprint secret that its owner alone can read, found mode {mode:04o}; "
            f"run `chmod 600 {path}`, and `errata rotate-secret` if somebody may have read it"
        )
    return key


def rotate_key() -> tuple[str, str]:
    """Puts a new secret in the place of the present one, in one step; gives the ids of both, "" where there was none.

    A file that holds something else is left alone: raises BadInput as `load_key` does, save for a secret that others
    can read, which this is the way to be rid of.
    """
    path = key_path()
    before = secret_id(_read(path)[0]) if path.exists() else ""
    _write(path.resolve(), os.replace)
    return before, secret_id(load_key())


def secret_id(key: bytes) -> str:
    """What tells the secret `key` from another, in the ledger of a lake: 12 hex digits that do not lead back to it."""
    return hmac.digest(key, b"errata: id of the fingerprint secret", "sha256").hex()[:12]


def _refuse_inside(lake: Path, path: Path) -> None:
    # Whoever is given the lake could try keys and phone numbers against the fingerprints in it.
    if path.resolve().is_relative_to(lake.resolve()):
        raise BadInput(
            f"{path}: the fingerprint secret must not be inside of the lake {lake}, which others may be given; "
            "set ERRATA_KEY_FILE to a place outside"
        )


def _read(path: Path) -> tuple[bytes, int]:
    """The secret in the file at `path`, and the mode of the file."""
    try:
        with path.open(encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            key = bytes.fromhex(file.read())
    except OSError as error:
        raise _unkept(path, error) from error
    except ValueError:
        key = b""
    if len(key) != _BYTES:
        raise BadInput(f"{path}: expected the fingerprint secret, {2 * _BYTES} hex digits, found something else")
    return key, mode


def _write(path: Path, put: Callable[[str, Path], None]) -> None:
    """Has a new secret `put` at `path`, whole and on the disk."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(_BYTES))
                file.flush()
                os.fsync(file.fileno())
            # A link fails where another run was first; that run's secret is the one to use.
            with suppress(FileExistsError):
                put(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise _unkept(path, error) from error


def _unkept(path: Path, error: OSError) -> BadInput:
    return BadInput(
        f"{path}: cannot keep the fingerprint secret: {error.strerror}. Set ERRATA_KEY_FILE to a place that can."
    )
