"""The command `errata dashboard`: where the pages are served, and that nobody else gets at them."""

import logging
import os
import socket
import sys
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from dashboard import AUTH_VARIABLE, CATALOG_VARIABLE, LAKE_VARIABLE

if TYPE_CHECKING:
    from dashboard.access import Access

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
    "server.enableAgentApi": "false",
    "server.enableCORS": "true",
    "server.enableXsrfProtection": "true",
    "server.enableStaticServing": "false",
    "server.fileWatcherType": "none",
    "server.showEmailPrompt": "false",
    # Else a header could say who somebody is.
    "server.trustedUserHeaders": "{}",
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
@click.option(
    "--auth",
    type=click.Path(path_type=Path),
    envvar=AUTH_VARIABLE,
    help=f"Ask people to sign in; FILE says where, and who may. Also {AUTH_VARIABLE}.",
    metavar="FILE",
)
@click.option("--insecure", is_flag=True, help="Serve at an address that others can reach, without sign-in.")
@click.option("--no-browser", is_flag=True, help="Do not open a browser.")
def dashboard(
    lake: Path, catalog: Path | None, port: int, address: str, auth: Path | None, insecure: bool, no_browser: bool
) -> None:
    """Open the dashboard in a browser; ctrl-C stops it.

    It shows the lake as it is at each look: there is no need to restart it after an ingest.
    """
    from dashboard.access import is_loopback, read_access

    is_local = is_loopback(address)
    if auth is not None and insecure:
        raise Refused("--auth asks people to sign in and --insecure lets everybody in; keep one of them")
    if auth is None and not insecure and not is_local:
        raise Refused(
            f"--address {address} can be reached from other machines; give --auth FILE, so that people sign in, "
            "or pass --insecure to show the lake to everybody"
        )
    access = None if auth is None else read_access(auth)
    _check_port(address, port)
    os.environ[LAKE_VARIABLE] = str(lake.absolute())
    if catalog is not None:
        os.environ[CATALOG_VARIABLE] = str(catalog.absolute())
    if auth is not None:
        os.environ[AUTH_VARIABLE] = str(auth.absolute())
    host = f"[{address}]" if ":" in address else address
    opened = f"http://{host}:{port}" if access is None else access.address
    is_opened_here = access is None or is_loopback(access.host)
    settings = _SETTINGS | {
        "server.address": address,
        "server.port": str(port),
        "server.headless": str(no_browser or not is_opened_here).lower(),
    }
    flags = [f"--{name}={value}" for name, value in settings.items()]
    flags += [f"--server.allowedHosts={name}" for name in _host_names(address, access, is_local=is_local)]
    if auth is not None and access is not None:
        flags += [f"--secrets.files={auth.absolute()}", f"--browser.serverAddress={access.host}"]
    click.echo(f"dashboard of {lake} at {opened} - ctrl-C stops it", err=True)
    _serve(flags)


def _host_names(address: str, access: "Access | None", *, is_local: bool) -> set[str]:
    """The names by which the dashboard may be asked for; none where any name may be that of this machine.

    A page elsewhere could otherwise give its own name our address and read along (DNS rebinding).
    """
    if access is None:
        return {*_LOOPBACK_NAMES, address} if is_local else set()
    return {*_LOOPBACK_NAMES, address, access.host}


class _InertRecord(logging.LogRecord):
    """A line of the server's log. Who asks for a page has a hand in the text, and must have none in the terminal."""

    def getMessage(self) -> str:  # noqa: N802 - the name is that of the standard library
        from analysis.output import inert

        return inert(super().getMessage())


def _serve(flags: list[str]) -> None:
    """Runs Streamlit until it is stopped; what it prints is narration."""
    from streamlit.web.cli import main

    logging.setLogRecordFactory(_InertRecord)
    with redirect_stdout(sys.stderr):
        main(["run", str(_APP), *flags], prog_name="streamlit", standalone_mode=False)


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
