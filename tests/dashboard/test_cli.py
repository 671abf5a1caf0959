"""Where the command serves, and what it refuses."""

import logging
import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner

from dashboard.cli import _InertRecord, dashboard
from tests.dashboard.conftest import free_port
from tests.dashboard.test_access import ACCESS, AUTH

ROOT: Final = Path(__file__).parents[2]


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_an_address_that_others_can_reach_is_refused(address: str) -> None:
    result = CliRunner().invoke(dashboard, ["--address", address])

    assert result.exit_code == 2
    assert result.output == (
        f"Error: --address {address} can be reached from other machines; give --auth FILE, so that people sign in, "
        "or pass --insecure to show the lake to everybody\n"
    )


def test_to_ask_who_it_is_and_to_ask_nobody_is_a_contradiction(tmp_path: Path) -> None:
    result = CliRunner().invoke(dashboard, ["--auth", str(tmp_path / "auth.toml"), "--insecure"])

    assert result.exit_code == 2
    assert result.output == "Error: --auth asks people to sign in and --insecure lets everybody in; keep one of them\n"


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_file_that_cannot_be_used_ends_the_command_with_2(tmp_path: Path, address: str) -> None:
    file = tmp_path / "auth.toml"
    file.touch(mode=0o600)

    command = [sys.executable, str(ROOT / "errata.py"), "dashboard", "--auth", str(file), "--address", address]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert result.returncode == 2
    assert result.stderr == (f"errata: {file}: auth is missing; docs/dashboard-access.md has a file to start with\n")


@pytest.mark.parametrize(
    ("options", "hosts"),
    [
        pytest.param([], {"localhost", "127.0.0.1", "::1"}, id="this machine"),
        pytest.param(["--address", "127.0.0.2"], {"localhost", "127.0.0.1", "::1", "127.0.0.2"}, id="another of its"),
        pytest.param(["--address", "0.0.0.0", "--insecure"], set(), id="everybody"),
        pytest.param(
            ["--address", "0.0.0.0", "--auth", "{file}"],
            {"localhost", "127.0.0.1", "::1", "0.0.0.0", "errata.example.com"},
            id="everybody who signs in",
        ),
    ],
)
def test_the_pages_answer_to_the_names_they_are_known_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], hosts: set[str]
) -> None:
    served: list[str] = []
    monkeypatch.setattr("dashboard.cli._serve", served.extend)
    monkeypatch.setattr("os.environ", os.environ.copy())
    file = tmp_path / "auth.toml"
    file.touch(mode=0o600)
    file.write_text(AUTH + ACCESS)

    result = CliRunner().invoke(
        dashboard, ["--port", str(free_port()), *(option.format(file=file) for option in options)]
    )

    assert result.exit_code == 0, result.output
    assert {flag.partition("=")[2] for flag in served if flag.startswith("--server.allowedHosts=")} == hosts
    assert [flag for flag in served if flag.startswith("--secrets")] == [f"--secrets.files={file}"] * (
        "--auth" in options
    )


def test_what_strangers_put_into_the_servers_log_cannot_move_the_cursor() -> None:
    record = _InertRecord("server", logging.ERROR, "", 0, "Error: %s", ("\x1b[2J\x9b1A\u202e\nforged",), None)

    assert record.getMessage() == r"Error: \x1b[2J\x9b1A\u202e\nforged"


def test_a_port_that_is_taken_is_told_in_one_line() -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        result = CliRunner().invoke(dashboard, ["--port", str(port)])

    assert result.exit_code == 2
    assert result.output == (
        f"Error: port {port} of 127.0.0.1 cannot be used (Address already in use); choose another with --port\n"
    )
