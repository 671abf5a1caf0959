"""The secret behind keyed fingerprints: made once, private, outside every lake."""

import errno
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

import errata
from ingest.fingerprint import key_path, load_key, rotate_key, secret_id
from ingest.schema import BadInput
from ingest.secret_cli import rotate_secret
from tests.ingest.logs import json_line, log


def put(key_file: Path, content: bytes, mode: int = 0o600) -> None:
    """Writes `content` where the secret is looked for."""
    key_file.parent.mkdir()
    key_file.write_bytes(content)
    key_file.chmod(mode)


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
    put(key_file, content)

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


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o610])
def test_a_secret_that_others_may_have_read_is_refused_until_that_is_mended(key_file: Path, mode: int) -> None:
    put(key_file, b"ab" * 32, mode)

    with pytest.raises(BadInput) as raised:
        load_key()

    assert str(raised.value) == (
        f"{key_file}: expected a fingerprint secret that its owner alone can read, found mode {mode:04o}; "
        f"run `chmod 600 {key_file}`, and `errata rotate-secret` if somebody may have read it"
    )
    key_file.chmod(0o600)
    assert load_key() == bytes.fromhex("ab" * 32)


@pytest.mark.parametrize("place", ["fingerprint.key", "table/../deep/fingerprint.key"])
def test_a_secret_is_never_kept_inside_of_the_lake_that_it_is_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "lake" / "table").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "lake")
    path = tmp_path / "link" / place
    monkeypatch.setenv("ERRATA_KEY_FILE", str(path))

    with pytest.raises(BadInput) as raised:
        load_key(tmp_path / "lake")

    assert str(raised.value) == (
        f"{path}: the fingerprint secret must not be inside of the lake {tmp_path}/lake, which others may be given; "
        "set ERRATA_KEY_FILE to a place outside"
    )
    assert [file.name for file in (tmp_path / "lake").iterdir()] == ["table"]


def test_a_secret_beside_the_lake_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRATA_KEY_FILE", str(tmp_path / "lake.key"))

    assert len(load_key(tmp_path / "lake")) == 32


def test_a_rotated_secret_is_a_new_one_and_as_private(key_file: Path) -> None:
    key = load_key()

    before, after = rotate_key()

    assert (before, after) == (secret_id(key), secret_id(load_key()))
    assert before != after
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in key_file.parent.iterdir()] == ["fingerprint.key"]


def test_a_first_rotation_makes_the_secret(key_file: Path) -> None:
    assert rotate_key() == ("", secret_id(load_key()))


def test_a_secret_that_others_could_read_can_be_rotated_away(key_file: Path) -> None:
    put(key_file, b"ab" * 32, 0o644)

    before, after = rotate_key()

    assert (before, after) == (secret_id(bytes.fromhex("ab" * 32)), secret_id(load_key()))
    assert key_file.stat().st_mode & 0o777 == 0o600


def test_a_rotation_leaves_alone_what_is_no_secret(key_file: Path) -> None:
    put(key_file, b"the only copy of something else", 0o644)

    with pytest.raises(BadInput, match="expected the fingerprint secret, 64 hex digits, found something else"):
        rotate_key()

    assert (key_file.read_bytes(), key_file.stat().st_mode & 0o777) == (b"the only copy of something else", 0o644)


def test_a_rotation_that_fails_leaves_the_secret_that_there_was(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = load_key()
    monkeypatch.setattr("os.fsync", _full)

    with pytest.raises(BadInput, match="cannot keep the fingerprint secret: No space left on device"):
        rotate_key()

    assert load_key() == key
    assert [path.name for path in key_file.parent.iterdir()] == ["fingerprint.key"]


def _full(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_link_to_a_secret_stays_one_when_the_secret_is_rotated(key_file: Path) -> None:
    load_key()
    link = key_file.with_name("link.key")
    link.symlink_to(key_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ERRATA_KEY_FILE", str(link))
        _, after = rotate_key()

    assert (link.is_symlink(), secret_id(load_key())) == (True, after)


def test_the_command_asks_first_and_says_what_a_rotation_means(key_file: Path) -> None:
    first = secret_id(load_key())

    refused = CliRunner().invoke(rotate_secret, input="n\n")
    kept = secret_id(load_key())
    done = CliRunner().invoke(rotate_secret, ["--yes"])

    assert (refused.exit_code, kept) == (1, first)
    assert "Fingerprints from before will not match those from after it." in refused.stderr
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith(f"{key_file}: replaced the secret {first} by {secret_id(load_key())}.\n")
    assert "ingest the logs again into a new lake" in done.stderr


def test_the_command_says_that_there_was_nothing_to_replace(key_file: Path) -> None:
    done = CliRunner().invoke(rotate_secret, ["--yes"])

    assert (done.exit_code, done.stderr) == (
        0,
        f"{key_file}: made a secret ({secret_id(load_key())}); there was none\n",
    )


def test_a_lake_that_was_fed_with_another_secret_is_told_of(key_file: Path, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.log").write_bytes(log([json_line(request_id=f"req_{number}")]))

    def told(number: int) -> list[str]:
        arguments = ["ingest", str(tmp_path / f"{number}.log"), "--lake", str(tmp_path / "lake")]
        return CliRunner().invoke(errata.cli, arguments).stderr.splitlines()[2:]

    first, again = told(0), told(1)
    before, after = rotate_key()

    assert (first, again) == ([], [])
    assert told(2) == [
        f"{tmp_path}/lake: was fed with another fingerprint secret before ({before}; now {after}), so that "
        "callers without a key_id count twice. Set ERRATA_KEY_FILE to the old one, or ingest all logs into a new lake."
    ]
