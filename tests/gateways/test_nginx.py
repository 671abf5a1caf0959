"""What nginx logs as the documentation tells it, or as it is installed, and what becomes of it."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from ingest.formats import formats
from tests.gateways.api import Address, call_all
from tests.gateways.conftest import Told, assert_kept, needs, running
from tests.gateways.rows import rows

_LUA: Final = "/usr/lib/nginx/modules/ngx_http_lua_module.so"
_NJS: Final = "/usr/lib/nginx/modules/ngx_http_js_module.so"
_MODULES: Final = ("/usr/lib/nginx/modules/ndk_http_module.so", _LUA, _NJS)
_TEMPORARY: Final = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

_BOTH: Final = ("latency_ms", "upstream_ms")
_ESCAPED: Final = r"sdk/2.1 \x22beta\x22 C:\x5C {x|y} Z\xC3\xBCrich"
_WITH_BODIES: Final = rows(body_state="whole", page_state="whole")
# In a text with bodies it is the body of an error alone that says the request's id.
_OF_BODIES: Final = [
    row | {"request_id": row["code"] and row["request_id"]}
    for row in rows(
        body_state="whole",
        page_state="whole",
        odd_agent=r"sdk/2.1 \"beta\" C:\\ {x|y} Zürich",
        without=("org_id", "key_id", "retry_after_s", "idempotency_hash", "host"),
    )
]

pytestmark = needs("nginx", "/usr/sbin/nginx")


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(Told("nginx-json", rows(), _BOTH), id="JSON with codes"),
        pytest.param(
            Told("nginx-json", _WITH_BODIES, _BOTH, "configure_lua"),
            marks=needs("libnginx-mod-http-lua", _LUA),
            id="JSON with bodies, by Lua",
        ),
        pytest.param(
            Told("nginx-json", _WITH_BODIES, _BOTH, "configure_njs"),
            marks=needs("libnginx-mod-http-js", _NJS),
            id="JSON with bodies, by njs",
        ),
        pytest.param(
            Told("nginx-bodylog", _OF_BODIES, ("latency_ms",)),
            marks=needs("libnginx-mod-http-lua", _LUA),
            id="text with bodies, by Lua",
        ),
        pytest.param(
            Told("nginx-combined-time", rows(odd_agent=_ESCAPED, without=("idempotency_hash", "host")), _BOTH),
            id="text with codes",
        ),
        pytest.param(
            Told(
                "combined",
                rows(
                    odd_agent=_ESCAPED,
                    without=("request_id", "org_id", "key_id", "code", "retry_after_s", "idempotency_hash", "host"),
                ),
                stock="access_log /var/log/nginx/access.log;",
            ),
            id="combined",
        ),
    ],
)
def test_a_log_of_nginx_gives_the_requests_that_it_met(
    api: Address, gateway: Address, tmp_path: Path, told: Told
) -> None:
    with _nginx(tmp_path, gateway, api, told.configuration(tmp_path)):
        began = call_all(gateway)

    assert_kept(told, tmp_path / "log", began)


def test_a_log_of_ingress_nginx_gives_the_requests_that_it_met(api: Address, gateway: Address, tmp_path: Path) -> None:
    # What the controller makes of its ConfigMap.
    (template,) = re.findall("log-format-upstream: ('.*')", formats()["ingress-nginx"].docs["configure"])
    documented = f"log_format upstreaminfo escape=json {template}; access_log {tmp_path}/log upstreaminfo;"
    with _nginx(tmp_path, gateway, api, documented):
        began = call_all(gateway)

    assert_kept(Told("nginx-json", rows(without=("user_agent", "host")), _BOTH), tmp_path / "log", began)


@contextmanager
def _nginx(folder: Path, gateway: Address, api: Address, documented: str) -> Iterator[None]:
    """nginx between `gateway` and `api`, told what to log by what is `documented`."""
    (folder / "errata.js").write_text(formats()["nginx-json"].docs["script_njs"])
    listen = f"listen {gateway[0]}:{gateway[1]};"
    moved = documented.replace("/etc/nginx", str(folder)).replace("listen 80;", listen)
    of_http, _, of_server = moved.partition("# server { }")
    server = f"server {{ {listen} location / {{ proxy_pass http://api; }}\n#{of_server}\n}}"
    configuration = folder / "nginx.conf"
    configuration.write_text(f"""
{"".join(f"load_module {module};" for module in _MODULES if Path(module).exists())}
daemon off;
master_process off;
pid {folder}/pid;
events {{}}
http {{
{"".join(f"{kind}_temp_path {folder}/{kind};" for kind in _TEMPORARY)}
upstream api {{ server {api[0]}:{api[1]}; }}
{of_http}
{"" if listen in of_http else server}
}}
""")
    command = ["/usr/sbin/nginx", "-e", "stderr", "-c", str(configuration)]
    with running(command, gateway, folder, stop=signal.SIGQUIT):
        yield
