"""Where the command serves, and what it refuses."""

import socket
from contextlib import closing

import pytest
from click.testing import CliRunner

from dashboard.cli import dashboard


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_an_address_that_others_can_reach_is_refused(address: str) -> None:
    result = CliRunner().invoke(dashboard, ["--address", address])

    assert result.exit_code == 2
    assert result.output == (
        f"Error: --address {address} can be reached from other machines and the dashboard has no login; "
        "serve at 127.0.0.1 behind a proxy that asks who it is, or pass --insecure\n"
    )


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
