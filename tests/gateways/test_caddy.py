"""What Caddy logs as the documentation tells it, and what becomes of it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.gateways.api import PRESENTED_KEY, Address, call_all
from tests.gateways.conftest import Told, assert_kept, needs, running
from tests.gateways.rows import rows

_TOLD: Final = Told("caddy", rows(), ("latency_ms",))

pytestmark = needs("caddy", "/usr/bin/caddy")


def test_a_log_of_caddy_gives_the_requests_that_it_met_and_has_no_key(
    api: Address, gateway: Address, tmp_path: Path
) -> None:
    with _caddy(tmp_path, gateway, api):
        began = call_all(gateway)

    log = tmp_path / "log"
    assert PRESENTED_KEY not in log.read_text()
    assert_kept(_TOLD, log, began)


@contextmanager
def _caddy(folder: Path, gateway: Address, api: Address) -> Iterator[None]:
    """Caddy between `gateway` and `api`, told by the documentation what to log."""
    configuration = folder / "Caddyfile"
    configuration.write_text(f"""
{{
    admin off
}}
http://:{gateway[1]} {{
    bind {gateway[0]}
    reverse_proxy {api[0]}:{api[1]}
{_TOLD.configuration(folder)}
}}
""")
    command = ["/usr/bin/caddy", "run", "--adapter", "caddyfile", "--config", str(configuration)]
    with running(command, gateway, folder, stop=signal.SIGTERM):
        yield
