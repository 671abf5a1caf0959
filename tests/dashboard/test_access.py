"""The file that says who may look: what it can mean, what it cannot, and whom it lets in."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from analysis import BadInput
from dashboard.access import Access, NotAllowed, Person, is_loopback, read_access

AUTH: Final = """\
[auth]
redirect_uri = "https://errata.example.com/oauth2callback"
cookie_secret = "0123456789abcdef0123456789abcdef"
client_id = "errata"
client_secret = "told to nobody"
server_metadata_url = "https://id.example.com/.well-known/openid-configuration"
"""
ACCESS: Final = """\
[access]
emails = ["Ann@example.com"]
domains = ["Customer.example"]
"""
ORGANISATIONS: Final = """\
[access.organisations]
"ann@example.com" = "all"
"customer.example" = ["org_a", "org_b"]
"cas@customer.example" = ["org_c"]
"""
VERIFIED: Final = {"email_verified": True}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file with a mode; gives its path."""

    def written(text: str, mode: int = 0o600) -> Path:
        path = tmp_path / "auth.toml"
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return path

    return written


def test_a_file_says_where_people_sign_in_and_who_may(write: Write) -> None:
    assert read_access(write(AUTH + ACCESS + ORGANISATIONS)) == Access(
        address="https://errata.example.com",
        emails=frozenset({"ann@example.com"}),
        domains=frozenset({"customer.example"}),
        orgs={
            "ann@example.com": None,
            "customer.example": frozenset({"org_a", "org_b"}),
            "cas@customer.example": frozenset({"org_c"}),
        },
        trusts_unmarked_emails=False,
    )


@pytest.mark.parametrize(
    ("email", "orgs"),
    [
        pytest.param("ann@example.com", None, id="all"),
        pytest.param("ANN@EXAMPLE.COM", None, id="in capitals"),
        pytest.param("bob@customer.example", frozenset({"org_a", "org_b"}), id="by domain"),
        pytest.param("cas@customer.example", frozenset({"org_c"}), id="a person before the domain"),
    ],
)
def test_who_may_sees_the_organisations_of_the_file(write: Write, email: str, orgs: frozenset[str] | None) -> None:
    access = read_access(write(AUTH + ACCESS + ORGANISATIONS))

    assert access.person(VERIFIED | {"email": email}) == Person(email, orgs)


def test_the_file_of_the_documentation_can_be_used(write: Write) -> None:
    text = (Path(__file__).parents[2] / "docs" / "dashboard-access.md").read_text("utf-8")
    example = text.partition("```toml\n")[2].partition("```")[0]

    access = read_access(write(example))

    assert access.person(VERIFIED | {"email": "somebody@example.com"}).orgs is None
    assert access.person(VERIFIED | {"email": "ann@partner.example"}).orgs == frozenset({"org_42", "org_43"})


def test_without_organisations_everybody_who_may_sees_all(write: Write) -> None:
    access = read_access(write(AUTH + ACCESS))

    assert access.person(VERIFIED | {"email": "bob@customer.example"}).orgs is None


@pytest.mark.parametrize(
    "email",
    [
        "bob@example.com",
        "bob@sub.customer.example",
        "bob@customer.example.evil.example",
        "bob@evilcustomer.example",
        "customer.example",
        "@customer.example",
        "ann@example.com@evil.example",
        "evil@evil.example@customer.example",
        "ann@example.com ",
        "ann@example.com\n",
        "an\u006e\u0301@example.com",
        "ann@e\u212aample.com",
        "bob@\uff43ustomer.example",
        "",
        None,
        ["ann@example.com"],
        True,
    ],
    ids=repr,
)
def test_who_is_not_on_the_list_may_not(write: Write, email: object) -> None:
    access = read_access(write(AUTH + ACCESS))

    with pytest.raises(NotAllowed):
        access.person(VERIFIED | {"email": email})


def test_letters_that_only_look_alike_are_others(write: Write) -> None:
    access = read_access(write(AUTH + '[access]\nemails = ["kim@example.com"]'))

    with pytest.raises(NotAllowed, match="is not among those who may see"):
        access.person(VERIFIED | {"email": "\u212aim@example.com"})  # the Kelvin sign, whose small letter is k


MARKS = [
    pytest.param({"email_verified": True}, True, True, id="verified"),
    pytest.param({"email_verified": "true"}, True, True, id="verified, as text"),
    pytest.param({"email_verified": False}, False, False, id="not verified"),
    pytest.param({"email_verified": "false"}, False, False, id="not verified, as text"),
    pytest.param({"email_verified": 1}, False, False, id="a number"),
    pytest.param({"email_verified": ""}, False, False, id="empty"),
    pytest.param({}, False, True, id="no mark"),
    pytest.param({"email_verified": None}, False, True, id="null"),
]


@pytest.mark.parametrize(("claims", "by_default", "when_unmarked_are_trusted"), MARKS)
def test_an_address_has_to_be_verified(
    write: Write, claims: dict[str, object], by_default: bool, when_unmarked_are_trusted: bool
) -> None:
    may = {}
    for setting in ("", "trust_unmarked_emails = true\n"):
        access = read_access(write(AUTH + ACCESS + setting))
        try:
            may[setting] = access.person(claims | {"email": "ann@example.com"}).email is not None
        except NotAllowed:
            may[setting] = False

    assert list(may.values()) == [by_default, when_unmarked_are_trusted]


def without(key: str) -> str:
    """AUTH without the line of `key`."""
    return re.sub(rf"^{key} = .*\n", "", AUTH, flags=re.MULTILINE)


def changed(key: str, value: str) -> str:
    """AUTH with another `value` for `key`, as TOML."""
    return re.sub(rf"^{key} = .*$", f"{key} = {value}", AUTH, flags=re.MULTILINE)


MISTAKES = [
    pytest.param(AUTH, "access is missing; docs/dashboard-access.md has a file to start with", id="no access"),
    pytest.param(ACCESS, "auth is missing", id="no auth"),
    pytest.param("auth = 1\naccess = 2", "expected a section [auth], found a number or a date", id="no section"),
    pytest.param(AUTH + ACCESS + "[other]", "other is not known; there are: auth, access", id="another section"),
    *(
        pytest.param(without(key) + ACCESS, f"auth.{key} is missing", id=f"no {key}")
        for key in ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")
    ),
    pytest.param(
        changed("client_id", '""') + ACCESS, "expected auth.client_id to be a text, found nothing", id="empty"
    ),
    pytest.param(
        changed("client_secret", "7") + ACCESS,
        "expected auth.client_secret to be a text, found a number",
        id="a secret that is a number",
    ),
    pytest.param(
        AUTH.replace("client_id", "clientid") + ACCESS, "auth.client_id is missing", id="a key written otherwise"
    ),
    pytest.param(
        AUTH + "redirect_url = 1\n" + ACCESS,
        "auth.redirect_url is not known; did you mean redirect_uri?",
        id="unknown key of auth",
    ),
    pytest.param(
        AUTH + ACCESS + 'email = ["x@example.com"]', "access.email is not known; did you mean emails?", id="unknown key"
    ),
    pytest.param(
        changed("cookie_secret", '"short"') + ACCESS,
        "expected auth.cookie_secret to have at least 32 characters, found 5; make one with `openssl rand -hex 32`",
        id="a short secret",
    ),
    *(
        pytest.param(
            changed("redirect_uri", f'"{address}"') + ACCESS,
            "expected auth.redirect_uri to be an https:// address, or http:// on this machine",
            id=f"redirect to {address}",
        )
        for address in (
            "http://errata.example.com/oauth2callback",
            "errata.example.com/oauth2callback",
            "https://someone@errata.example.com/oauth2callback",
            "https://errata.example.com:port/oauth2callback",
            "https:///oauth2callback",
            "ftp://localhost/oauth2callback",
        )
    ),
    *(
        pytest.param(
            changed("redirect_uri", f'"https://errata.example.com{path}"') + ACCESS,
            "expected auth.redirect_uri to end in /oauth2callback after the host",
            id=f"redirect to {path or 'nothing'}",
        )
        for path in ("", "/", "/errata/oauth2callback", "/oauth2callback?a=b", "/oauth2callback#a")
    ),
    pytest.param(
        changed("server_metadata_url", '"http://id.example.com/"') + ACCESS,
        "expected auth.server_metadata_url to be an https:// address",
        id="a provider without TLS",
    ),
    pytest.param(
        AUTH + "[access]", "expected access.emails or access.domains to name somebody, found neither", id="nobody"
    ),
    pytest.param(AUTH + '[access]\nemails = "ann@example.com"', "a list of texts, found a text", id="no list"),
    pytest.param(AUTH + "[access]\nemails = [1]", "a list of texts, found a list with something else", id="numbers"),
    pytest.param(AUTH + '[access]\ndomains = [""]', "a list of texts, found a list with something", id="empty name"),
    pytest.param(AUTH + '[access]\nemails = ["example.com"]', "like person@example.com, found 'example.com'", id="@"),
    *(
        pytest.param(AUTH + f'[access]\ndomains = ["{name}"]', f"like example.com, found '{name}'", id=f"domain {name}")
        for name in ("a@example.com", "@example.com", "*.example.com", "*", "example.com ")
    ),
    pytest.param(
        AUTH + ACCESS + 'trust_unmarked_emails = "yes"', "to be true or false, found 'yes'", id="no true or false"
    ),
    pytest.param(
        AUTH + ACCESS + '[access.organisations]\n"ann@example.com" = "all"',
        'customer.example may sign in and is not in access.organisations; add "customer.example" = ["org_..."]',
        id="an organisation was forgotten",
    ),
    pytest.param(
        AUTH + ACCESS + ORGANISATIONS + '"custommer.example" = ["org_d"]',
        "custommer.example is in access.organisations and may not sign in",
        id="a typing error in organisations",
    ),
    pytest.param(
        AUTH + ACCESS + ORGANISATIONS + '"CUSTOMER.example" = "all"', "is in access.organisations in two", id="twice"
    ),
    pytest.param(
        AUTH + ACCESS + ORGANISATIONS.replace('["org_c"]', '"org_c"'),
        'expected access.organisations."cas@customer.example" to be a list of texts, found a text',
        id="an organisation that is no list",
    ),
    pytest.param("[auth", "expected TOML (", id="no TOML"),
]


@pytest.mark.parametrize(("text", "verdict"), MISTAKES)
def test_a_mistake_is_told_in_one_line_without_a_secret(write: Write, text: str, verdict: str) -> None:
    path = write(text)

    with pytest.raises(BadInput, match=f"^{re.escape(f'{path}: ')}.*{re.escape(verdict)}") as told:
        read_access(path)

    assert "\n" not in str(told.value)
    assert "told to nobody" not in str(told.value)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o606, 0o777], ids=oct)
def test_a_file_that_others_can_read_or_write_is_refused(write: Write, mode: int) -> None:
    path = write(AUTH + ACCESS, mode)

    with pytest.raises(
        BadInput, match=f"expected a file that others can neither read nor write, found mode {mode:03o}"
    ):
        read_access(path)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400], ids=oct)
def test_the_owner_and_the_group_of_a_service_may_read_it(write: Write, mode: int) -> None:
    assert read_access(write(AUTH + ACCESS, mode)).host == "errata.example.com"


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"auth\.toml: cannot be read \(No such file or directory\); give --auth a file"):
        read_access(tmp_path / "auth.toml")


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "auth.toml"
    path.write_bytes(b"\xff")
    path.chmod(0o600)

    with pytest.raises(BadInput, match="expected UTF-8 text, found other bytes"):
        read_access(path)


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_only_this_machine_is_local(host: str, is_local: bool) -> None:
    assert is_loopback(host) is is_local
