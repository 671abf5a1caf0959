"""What Apache httpd logs as the documentation tells it, or as it is installed, and what becomes of it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.gateways.api import Address, call_all
from tests.gateways.conftest import Told, assert_kept, needs, running
from tests.gateways.rows import rows

_MODULES: Final = ("mpm_event", "authz_core", "proxy", "proxy_http")

_LATENCY: Final = ("latency_ms",)
_ESCAPED: Final = r"sdk/2.1 \"beta\" C:\\ {x|y} Z\xc3\xbcrich"
_UNSAID: Final = ("request_id", "org_id", "key_id", "code", "retry_after_s", "idempotency_hash")
# As in Debian's apache2.conf.
_VIRTUAL_HOSTS: Final = r"""
LogFormat "%v:%p %h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\"" vhost_combined
CustomLog /var/log/apache2/other_vhosts_access.log vhost_combined
"""
_COMBINED: Final = r"""
LogFormat "%h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\"" combined
CustomLog /var/log/apache2/access.log combined
"""

pytestmark = needs("apache2-bin", "/usr/sbin/apache2")


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(Told("apache-json", rows(), _LATENCY), id="JSON with codes"),
        pytest.param(
            Told("apache-combined-d", rows(odd_agent=_ESCAPED, without=("idempotency_hash", "host")), _LATENCY),
            id="text with codes",
        ),
        pytest.param(
            Told("apache-vhost-combined", rows(odd_agent=_ESCAPED, without=_UNSAID), stock=_VIRTUAL_HOSTS),
            id="virtual hosts",
        ),
        pytest.param(
            Told("combined", rows(odd_agent=_ESCAPED, without=(*_UNSAID, "host")), stock=_COMBINED), id="combined"
        ),
    ],
)
def test_a_log_of_apache_gives_the_requests_that_it_met(
    api: Address, gateway: Address, tmp_path: Path, told: Told
) -> None:
    with _apache(tmp_path, gateway, api, told):
        began = call_all(gateway)

    assert_kept(told, tmp_path / "log", began)


@contextmanager
def _apache(folder: Path, gateway: Address, api: Address, told: Told) -> Iterator[None]:
    """Apache httpd between `gateway` and `api`, told by the documentation what to log."""
    modules = "\n".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in _MODULES)
    configuration = folder / "apache2.conf"
    configuration.write_text(f"""
{modules}
Listen {gateway[0]}:{gateway[1]}
ServerName api.example
User nobody
Group nogroup
DefaultRuntimeDir {folder}
PidFile {folder}/pid
ErrorLog {folder}/error.log
ProxyPass / http://{api[0]}:{api[1]}/
{told.configuration(folder)}
""")
    command = ["/usr/sbin/apache2", "-D", "FOREGROUND", "-f", str(configuration)]
    with running(command, gateway, folder, stop=signal.SIGWINCH):
        yield
