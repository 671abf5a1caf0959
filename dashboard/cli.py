"""The command `errata dashboard`: where the pages are served, and that nobody else gets at them."""

import os
import socket
import sys
from contextlib import closing, redirect_stdout
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import click

from dashboard import CATALOG_VARIABLE, LAKE_VARIABLE

_APP: Final = Path(__file__).with_name("app.py")
_LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")

_SETTINGS: Final = {
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "none",
    "client.showErrorLinks": "false",
    "client.toolbarMode": "minimal",
    # Its files would not be safe to open in a spreadsheet; the pages have their own.
    "client.disableDataExport": "true",
    "logger.hideWelcomeMessage": "true",
    "logger.level": "warning",
    "server.enableCORS": "true",
    "server.enableXsrfProtection": "true",
    "server.enableStaticServing": "false",
    "server.fileWatcherType": "none",
    "server.showEmailPrompt": "false",
    "theme.light.primaryColor": "#3b6da6",
    "theme.dark.primaryColor": "#7fa9dc",
}


class Refused(click.ClickException):
    """The dashboard is not served as it was asked to; the message is one line."""

    exit_code = 2


@click.command(epilog="\b\nExample:\n  errata dashboard --lake /srv/errata --no-browser")
@click.option(
    "--lake",
    type=click.Path(path_type=Path),
    envvar=LAKE_VARIABLE,
    default=Path("lake"),
    show_default="./lake",
    help=f"Folder of the lake; also {LAKE_VARIABLE}.",
)
@click.option(
    "--catalog",
    type=click.Path(path_type=Path),
    help="CSV file of the error codes, instead of the lake's or the default one.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=8501, show_default=True, help="Port to serve at.")
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to serve at.")
@click.option("--insecure", is_flag=True, help="Serve at an address that others can reach: the pages have no login.")
@click.option("--no-browser", is_flag=True, help="Do not open a browser.")
def dashboard(lake: Path, catalog: Path | None, port: int, address: str, insecure: bool, no_browser: bool) -> None:
    """Open the dashboard in a browser; ctrl-C stops it.

    It shows the lake as it is at each look: there is no need to restart it after an ingest.
    """
    is_local = _is_loopback(address)
    if not is_local and not insecure:
        raise Refused(
            f"--address {address} can be reached from other machines and the dashboard has no login; "
            "serve at 127.0.0.1 behind a proxy that asks who it is, or pass --insecure"
        )
    _check_port(address, port)
    os.environ[LAKE_VARIABLE] = str(lake.absolute())
    if catalog is not None:
        os.environ[CATALOG_VARIABLE] = str(catalog.absolute())
    settings = _SETTINGS | {
        "server.address": address,
        "server.port": str(port),
        "server.headless": str(no_browser).lower(),
    }
    flags = [f"--{name}={value}" for name, value in settings.items()]
    if is_local:
        # A page elsewhere could otherwise give its own name our address and read along (DNS rebinding).
        flags += [f"--server.allowedHosts={name}" for name in {*_LOOPBACK_NAMES, address}]
    host = f"[{address}]" if ":" in address else address
    click.echo(f"dashboard of {lake} at http://{host}:{port} - ctrl-C stops it", err=True)
    _serve(flags)


def _serve(flags: list[str]) -> None:
    """Runs Streamlit until it is stopped; what it prints is narration."""
    from streamlit.web.cli import main

    with redirect_stdout(sys.stderr):
        main(["run", str(_APP), *flags], prog_name="streamlit", standalone_mode=False)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _check_port(address: str, port: int) -> None:
    """Raises Refused where nothing can be served at `port`; Streamlit would say so in many lines."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(socket.socket(family)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise Refused(
                f"port {port} of {address} cannot be used ({error.strerror}); choose another with --port"
            ) from error
