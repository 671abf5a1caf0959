"""Signing in with a real identity provider and a real browser: who sees what, and that nobody else sees anything."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from itsdangerous import URLSafeTimedSerializer
from playwright.sync_api import BrowserContext, Page, WebSocket, expect

import analysis
from tests.dashboard.conftest import drawn, end, free_port, look, started, turn_to, two_days, write

PROVIDER: Final = Path(__file__).with_name("oidc")
PEOPLE: Final[dict[str, dict[str, object]]] = {
    "ann": {"email": "Ann@Example.com", "email_verified": True},
    "bob": {"email": "bob@customer.example", "email_verified": True},
    "cas": {"email": "cas@customer.example", "email_verified": True},
    "eve": {"email": "eve@example.com.evil.example", "email_verified": True},
    "mal": {"email": "ann@example.com", "email_verified": False},
    "nat": {"email": "ann@example.com"},
    "zoe": {},
}
SECRET: Final = "a secret of a test, which signs its cookies"
FILE: Final = """\
[auth]
redirect_uri = "{address}/oauth2callback"
cookie_secret = "{secret}"
client_id = "errata"
client_secret = "told to nobody"
server_metadata_url = "{provider}/.well-known/openid-configuration"

[access]
emails = [{emails}]
domains = ["customer.example"]

[access.organisations]
{all}
"customer.example" = ["org_0"]
"cas@customer.example" = []
"""
# What only who is let in may be sent: of the lake its codes, organisations and name, of the pages their titles.
TELLING: Final = (b"rate_limited", b"org_0", b"org_1", b"key_1", b"Vault 42", b"Overview", b"Errors by code")

OFF_LIST: Final = "{} is not among those who may see this dashboard."
UNVERIFIED: Final = "The identity provider does not say that {} is verified."
BROKEN: Final = (
    "Nobody can be let in: the file that says who may is not usable. Tell the person who runs the dashboard."
)

needs_provider = pytest.mark.skipif(
    shutil.which("node") is None or not (PROVIDER / "node_modules").is_dir(),
    reason="there is no identity provider to sign in with; `make oidc` installs one",
)
pytestmark = needs_provider


@dataclass(frozen=True)
class Site:
    """A dashboard with sign-in: where it is, and the file that says who may."""

    address: str
    provider: str
    file: Path

    def write_file(self, *emails: str) -> None:
        """Allows `emails`, who see all, and customer.example."""
        text = FILE.format(
            address=self.address,
            secret=SECRET,
            provider=self.provider,
            emails=", ".join(f'"{email}"' for email in emails),
            all="\n".join(f'"{email}" = "all"' for email in emails),
        )
        self.file.touch(mode=0o600)
        self.file.write_text(text)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The dashboard of a lake of two days behind a provider that knows PEOPLE."""
    home = tmp_path_factory.mktemp("sign_in")
    port, provider_port = free_port(), free_port()
    site = Site(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{provider_port}", home / "auth.toml")
    site.write_file("ann@example.com")
    client = {
        "client_id": "errata",
        "client_secret": "told to nobody",
        "redirect_uris": [f"{site.address}/oauth2callback"],
        "post_logout_redirect_uris": [f"{site.address}/oauth2callback"],
    }
    asked = json.dumps({"port": provider_port, "client": client, "people": PEOPLE})
    provider = subprocess.Popen(
        ["node", "provider.mjs", asked], cwd=PROVIDER, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert provider.stdout is not None
    assert provider.stdout.readline() == "up\n"
    dashboard = started(write(home / "Vault 42", two_days()), port, home, "--auth", str(site.file))
    yield site
    end(dashboard)
    end(provider)


@pytest.fixture
def stranger(site: Site, window: BrowserContext, page: Page) -> Page:
    """A page of a browser in which nobody has signed in."""
    site.write_file("ann@example.com")
    window.clear_cookies()
    return page


def test_who_is_on_the_list_sees_the_pages_and_is_nobody_after_signing_out(site: Site, stranger: Page) -> None:
    page = signed_in(stranger, site, "ann")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(page.get_by_test_id("stSidebar").get_by_text("Ann@Example.com")).to_be_visible()
    page.goto(f"{site.address}/errors_by_org?period=all")
    expect(page.get_by_text("2 rows", exact=True)).to_be_visible()

    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("button", name="Yes, sign me out").click()

    assert is_outside(page)
    assert is_outside(look(page, f"{site.address}/errors_by_org?period=all"))


def test_nothing_of_the_lake_is_sent_to_who_is_not_signed_in(site: Site, stranger: Page) -> None:
    sent = listened(stranger)

    for name in ["", "overview", "request?id=req_30_1", "console?sql=FROM+errors", *analysis.questions()]:
        assert is_outside(look(stranger, f"{site.address}/{name}"))

    before = told(sent)
    signed_in(stranger, site, "ann")
    expect(drawn(stranger).get_by_role("heading", name="Overview")).to_be_visible()
    assert (before, told(sent)) == (set(), set(TELLING) - {b"Vault 42"})


@pytest.mark.parametrize(
    ("who", "said"),
    [
        pytest.param("eve", OFF_LIST.format("eve@example.com.evil.example"), id="not on the list"),
        pytest.param("mal", UNVERIFIED.format("ann@example.com"), id="not verified"),
        pytest.param("nat", UNVERIFIED.format("ann@example.com"), id="not said to be verified"),
        pytest.param("zoe", "The identity provider did not give your e-mail address.", id="no e-mail address"),
    ],
)
def test_who_is_not_on_the_list_is_told_so_and_sees_nothing(site: Site, stranger: Page, who: str, said: str) -> None:
    sent = listened(stranger)
    page = signed_in(stranger, site, who)

    expect(page.get_by_text(said)).to_be_visible()
    look(page, f"{site.address}/errors_by_code?period=all")
    expect(page.get_by_text(said)).to_be_visible()
    assert texts(page) == ["errata", said, "Sign out"]
    assert told(sent) == set()


def test_a_customer_is_sent_nothing_of_other_organisations(site: Site, stranger: Page) -> None:
    sent = listened(stranger)
    page = signed_in(stranger, site, "bob")

    look(page, f"{site.address}/?period=all")
    for question in analysis.questions().values():
        turn_to(page, question.title)
    look(page, f"{site.address}/errors_by_org?period=all")
    expect(page.get_by_text("1 row", exact=True)).to_be_visible()
    look(page, f"{site.address}/request?id=req_30_1")
    expect(page.get_by_text("no request in the lake has the id 'req_30_1'")).to_be_visible()
    look(page, f"{site.address}/console?sql=SELECT+DISTINCT+org_id,+key_id+FROM+requests")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_text("5 rows in")).to_be_visible()

    assert told(sent) == set(TELLING) - {b"Vault 42", b"org_1", b"key_1"}


@pytest.mark.parametrize(("who", "said"), [("ann", "2 rows"), ("bob", "1 row"), ("cas", "No rows match.")])
def test_what_one_person_was_shown_is_not_kept_for_another(site: Site, stranger: Page, who: str, said: str) -> None:
    look(signed_in(stranger, site, who), f"{site.address}/errors_by_org?period=all")

    expect(stranger.get_by_text(said, exact=True)).to_be_visible()


def test_a_cookie_that_was_changed_lets_nobody_in(site: Site, stranger: Page, window: BrowserContext) -> None:
    signed_in(stranger, site, "ann")
    value = next(cookie["value"] for cookie in window.cookies() if cookie["name"] == "_streamlit_user")
    place = len(value) // 4
    set_cookie(window, site, value[:place] + ("A" if value[place] != "A" else "B") + value[place + 1 :])

    assert is_outside(look(stranger, site.address))


@pytest.mark.parametrize(
    ("secret", "is_let_in"),
    [
        pytest.param("a secret of somebody else", False, id="another secret"),
        pytest.param(SECRET, True, id="the secret"),
    ],
)
def test_a_cookie_is_worth_what_its_signature_is(
    site: Site, stranger: Page, window: BrowserContext, secret: str, is_let_in: bool
) -> None:
    claims = PEOPLE["ann"] | {"origin": site.address, "is_logged_in": True, "provider": "default"}
    signed = URLSafeTimedSerializer(secret, salt="_streamlit_user").dumps(json.dumps(claims))
    set_cookie(window, site, str(signed))

    look(stranger, site.address)

    expect(stranger.get_by_role("button", name="Sign out" if is_let_in else "Sign in")).to_be_visible()


def test_who_is_taken_off_the_list_is_outside_at_the_next_click(site: Site, stranger: Page) -> None:
    page = signed_in(stranger, site, "ann")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()

    site.write_file("somebody@example.com")
    page.get_by_test_id("stSidebar").get_by_role("link", name="Errors by key").click()

    expect(page.get_by_text(OFF_LIST.format("Ann@Example.com"))).to_be_visible()
    expect(page.get_by_test_id("stSidebar").get_by_role("link")).to_have_count(0)
    assert texts(look(page, site.address)) == ["errata", OFF_LIST.format("Ann@Example.com"), "Sign out"]


def test_a_file_that_breaks_meanwhile_lets_nobody_in(site: Site, stranger: Page) -> None:
    signed_in(stranger, site, "ann")
    site.file.write_text(site.file.read_text() + "= nonsense")

    page = look(stranger, site.address)

    expect(page.get_by_text(BROKEN)).to_be_visible()
    assert texts(page) == ["errata", BROKEN, "Sign out"]


def signed_in(page: Page, site: Site, who: str) -> Page:
    """`page`, after `who` has signed in from the first page."""
    look(page, site.address).get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name=who, exact=True).click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    return drawn(page)


def set_cookie(window: BrowserContext, site: Site, value: str) -> None:
    """Gives the browser `value` as what says who has signed in."""
    window.add_cookies([{"name": "_streamlit_user", "value": value, "url": site.address}])


def is_outside(page: Page) -> bool:
    """Does the page offer to sign in, and nothing else?"""
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    return texts(page) == ["errata", "Sign in"]


def texts(page: Page) -> list[str]:
    """Every line that stands on the page."""
    _skip, *lines = drawn(page).get_by_test_id("stApp").inner_text().splitlines()
    return [line for line in lines if line]


def listened(page: Page) -> list[bytes]:
    """Everything that the server says over web sockets to `page` from now on."""
    frames: list[bytes] = []

    def listen(socket: WebSocket) -> None:
        socket.on("framereceived", lambda frame: frames.append(frame if isinstance(frame, bytes) else frame.encode()))

    page.on("websocket", listen)
    return frames


def told(frames: list[bytes]) -> set[bytes]:
    """What of TELLING was sent."""
    assert frames
    return {word for word in TELLING if any(word in frame for frame in frames)}
