"""The secret behind keyed fingerprints: made once, private, outside every lake."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ingest.fingerprint import key_path, load_key, secret_id
from ingest.schema import BadInput


@pytest.fixture
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "new" / "fingerprint.key"
    monkeypatch.setenv("ERRATA_KEY_FILE", str(path))
    return path


def test_the_secret_is_made_once_for_its_owner_alone(key_file: Path) -> None:
    umask = os.umask(0)
    try:
        key = load_key()
    finally:
        os.umask(umask)

    assert len(key) == 32
    assert (key_file.stat().st_mode & 0o777, key_file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert load_key() == key
    assert [path.name for path in key_file.parent.iterdir()] == ["fingerprint.key"]


def test_two_secrets_are_not_the_same(key_file: Path) -> None:
    first = load_key()
    key_file.unlink()

    assert load_key() != first


def test_runs_that_start_together_have_one_secret(key_file: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: load_key(), range(32)))

    assert len(keys) == 1
    assert [path.name for path in key_file.parent.iterdir()] == ["fingerprint.key"]


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        ({"ERRATA_KEY_FILE": "/etc/errata/key"}, "/etc/errata/key"),
        ({"XDG_CONFIG_HOME": "/home/ada/.cfg"}, "/home/ada/.cfg/errata/fingerprint.key"),
        ({"XDG_CONFIG_HOME": "", "HOME": "/home/ada"}, "/home/ada/.config/errata/fingerprint.key"),
    ],
    ids=["named", "in the configuration folder", "in the home"],
)
def test_the_secret_is_kept_where_a_person_says(
    environment: dict[str, str], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ERRATA_KEY_FILE")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert key_path() == Path(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"secret\n", b"00" * 31, b"00" * 33, b"zz" * 32, b"\xff" * 64],
    ids=lambda content: repr(content[:8]),
)
def test_a_file_that_holds_something_else_is_left_alone_and_named(key_file: Path, content: bytes) -> None:
    key_file.parent.mkdir()
    key_file.write_bytes(content)

    with pytest.raises(BadInput) as raised:
        load_key()

    assert str(raised.value) == f"{key_file}: expected the fingerprint secret, 64 hex digits, found something else"
    assert key_file.read_bytes() == content


def test_a_place_that_cannot_keep_it_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "below" / "fingerprint.key"
    monkeypatch.setenv("ERRATA_KEY_FILE", str(path))

    with pytest.raises(BadInput) as raised:
        load_key()

    assert str(raised.value) == (
        f"{path}: cannot keep the fingerprint secret: Not a directory. Set ERRATA_KEY_FILE to a place that can."
    )


def test_the_id_of_a_secret_tells_it_from_others_and_holds_nothing_of_it() -> None:
    key = bytes(range(32))

    assert secret_id(key) == secret_id(bytes(range(32)))
    assert re.fullmatch("[0-9a-f]{12}", secret_id(key))
    assert secret_id(key) not in key.hex()
    assert len({secret_id(bytes([number]) * 32) for number in range(100)}) == 100
