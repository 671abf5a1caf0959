"""What HAProxy logs as the documentation tells it, and what becomes of it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.gateways.api import Address, call_all
from tests.gateways.conftest import Told, assert_kept, needs, running
from tests.gateways.rows import rows

_BOTH: Final = ("latency_ms", "upstream_ms")
_ESCAPED: Final = "sdk/2.1 #22beta#22 C:\\ #7Bx#7Cy#7D Z#C3#BCrich"

pytestmark = needs("haproxy", "/usr/sbin/haproxy")


@pytest.mark.parametrize(
    ("told", "zone"),
    [
        pytest.param(
            Told("haproxy-json", rows(body_state="whole", gateway_reason="SH--"), _BOTH),
            "Asia/Tokyo",
            id="JSON with codes and bodies",
        ),
        # Its own format has no time zone.
        pytest.param(
            Told("haproxy-http", rows(gateway_reason="SH--", without=("user_agent", "host")), _BOTH),
            "UTC",
            id="text with codes",
        ),
        pytest.param(
            Told(
                "haproxy-http-user-agent",
                rows(
                    gateway_reason="SH--",
                    odd_agent=_ESCAPED,
                    without=("code", "retry_after_s", "idempotency_hash", "host"),
                ),
                _BOTH,
            ),
            "UTC",
            id="text with user agents",
        ),
    ],
)
def test_a_log_of_haproxy_gives_the_requests_that_it_met(
    api: Address, gateway: Address, tmp_path: Path, told: Told, zone: str
) -> None:
    with _haproxy(tmp_path, gateway, api, told, zone):
        began = call_all(gateway)

    assert_kept(told, tmp_path / "stdout", began)


@contextmanager
def _haproxy(folder: Path, gateway: Address, api: Address, told: Told, zone: str) -> Iterator[None]:
    """HAProxy in time zone `zone` between `gateway` and `api`, told by the documentation what to log."""
    documented = told.configuration(folder)
    configuration = folder / "haproxy.cfg"
    configuration.write_text(f"""
defaults
    timeout connect 5s
    timeout client 30s
    timeout server 30s

{"" if "frontend api" in documented else _FRONTEND}
{documented}
    bind {gateway[0]}:{gateway[1]}
    default_backend messages

backend messages
    mode http
    server one {api[0]}:{api[1]}
""")
    command = ["/usr/sbin/haproxy", "-db", "-f", str(configuration)]
    with running(command, gateway, folder, stop=signal.SIGUSR1, zone=zone):
        yield


_FRONTEND: Final = """
global
    log stdout format raw local0

frontend api
    mode http
    log global
    option dontlognull
"""
