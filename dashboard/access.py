"""Who may look at the dashboard, and at whose requests: the file of `errata dashboard --auth`, read and checked.

Knows the form of the file and what an identity provider says of a person. Knows neither pages nor the lake: what a
person may see is a set of org_ids, to which the views of a connection keep.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from analysis import BadInput

ALL: Final = "all"
"""What stands for every organisation, and for requests of none, where a list of org_ids may."""

_SECTIONS: Final = ("auth", "access")
_AUTH: Final = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")
_AUTH_OPTIONS: Final = ("client_kwargs",)
_ACCESS: Final = ("emails", "domains", "organisations", "trust_unmarked_emails")
_CALLBACK: Final = "/oauth2callback"
_SHORTEST_SECRET: Final = 32
# Nothing to others, and to the group of a service at most reading.
_FORBIDDEN_MODE: Final = 0o027


class NotAllowed(Exception):  # noqa: N818 - named for what it says to a person
    """A person who is signed in and may see nothing; the message says why, to that person."""


@dataclass(frozen=True)
class Person:
    """Who is looking, and the org_ids of the requests that may be shown: None for all. Nobody needs a name at home."""

    email: str | None = None
    orgs: frozenset[str] | None = None


@dataclass(frozen=True)
class Access:
    """Where people open the dashboard, and who of them may. Names are as `folded` gives them.

    `orgs` is by e-mail address or domain: None stands for all organisations, no entry for none. It is None where the
    file has no [access.organisations], and everybody sees all.
    """

    address: str
    emails: frozenset[str]
    domains: frozenset[str]
    orgs: Mapping[str, frozenset[str] | None] | None
    trusts_unmarked_emails: bool

    @property
    def host(self) -> str:
        """The name of the machine in `address`."""
        return urlsplit(self.address).hostname or ""

    def person(self, claims: Mapping[str, object]) -> Person:
        """The person of whom the provider says `claims`, those of an ID token. Raises NotAllowed."""
        email = claims.get("email")
        if not isinstance(email, str) or not _is_email(email):
            raise NotAllowed("The identity provider did not give your e-mail address.")
        if not self._is_verified(claims.get("email_verified")):
            raise NotAllowed(f"The identity provider does not say that {email} is verified.")
        name = folded(email)
        domain = _domain(name)
        if name not in self.emails and domain not in self.domains:
            raise NotAllowed(f"{email} is not among those who may see this dashboard.")
        if self.orgs is None:
            return Person(email, None)
        return Person(email, self.orgs[name] if name in self.orgs else self.orgs.get(domain, frozenset()))

    def _is_verified(self, mark: object) -> bool:
        """Some providers write the mark as text, and some write none."""
        return mark is True or mark == "true" or (mark is None and self.trusts_unmarked_emails)


def folded(name: str) -> str:
    """`name` without regard to the case of ASCII letters. Others stay: the Kelvin sign is no k in a mailbox."""
    return name.lower() if name.isascii() else name


def read_access(path: Path) -> Access:
    """What the file `path` says. Raises BadInput, one line with the place and the remedy, for what cannot be meant."""
    document = _document(path)
    _check_keys(path, "", document, required=_SECTIONS)
    auth, access = (_section(path, name, document[name]) for name in _SECTIONS)
    _check_keys(path, "auth", auth, required=_AUTH, optional=_AUTH_OPTIONS)
    for name in _AUTH:
        if not isinstance(auth[name], str) or not auth[name].strip():
            raise BadInput(f"{path}: expected auth.{name} to be a text, found {_found(auth[name])}")
    if len(auth["cookie_secret"]) < _SHORTEST_SECRET:
        raise BadInput(
            f"{path}: expected auth.cookie_secret to have at least {_SHORTEST_SECRET} characters, found "
            f"{len(auth['cookie_secret'])}; make one with `openssl rand -hex 32`"
        )
    _web_address(path, "auth.server_metadata_url", auth["server_metadata_url"])
    redirect = _web_address(path, "auth.redirect_uri", auth["redirect_uri"])
    if (redirect.path, redirect.query, redirect.fragment) != (_CALLBACK, "", ""):
        raise BadInput(
            f"{path}: expected auth.redirect_uri to end in {_CALLBACK} after the host, found "
            f"{auth['redirect_uri']!r}; register the same address with the provider"
        )
    return _access(path, f"{redirect.scheme}://{redirect.netloc}", access)


def is_loopback(host: str) -> bool:
    """Is `host`, a name or an address, this machine and no other?"""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _document(path: Path) -> dict[str, Any]:
    try:
        mode = path.stat().st_mode & 0o777
        if mode & _FORBIDDEN_MODE:
            raise BadInput(
                f"{path}: expected a file that others can neither read nor write, found mode {mode:03o}; "
                f"run chmod 600 on it"
            )
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); give --auth a file that can") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: expected UTF-8 text, found other bytes; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: expected TOML ({error}); correct it as docs/dashboard-access.md shows") from error


def _access(path: Path, address: str, access: dict[str, Any]) -> Access:
    _check_keys(path, "access", access, optional=_ACCESS)
    emails, domains = (_names(path, f"access.{key}", access.get(key, [])) for key in ("emails", "domains"))
    if not emails and not domains:
        raise BadInput(f"{path}: expected access.emails or access.domains to name somebody, found neither")
    if wrong := sorted(name for name in emails if not _is_email(name)):
        raise BadInput(f"{path}: expected access.emails to be like person@example.com, found {wrong[0]!r}")
    if wrong := sorted(name for name in domains if not _is_domain(name)):
        raise BadInput(f"{path}: expected access.domains to be like example.com, found {wrong[0]!r}")
    trusts_unmarked = access.get("trust_unmarked_emails", False)
    if not isinstance(trusts_unmarked, bool):
        raise BadInput(f"{path}: expected access.trust_unmarked_emails to be true or false, found {trusts_unmarked!r}")
    orgs = None
    if "organisations" in access:
        table = _section(path, "access.organisations", access["organisations"])
        orgs = {folded(name): _orgs(path, name, value) for name, value in table.items()}
        if len(orgs) < len(table):
            raise BadInput(f"{path}: a name is in access.organisations in two spellings; keep one of them")
        _check_everybody_is_mapped(path, emails, domains, orgs)
    return Access(address, emails, domains, orgs, trusts_unmarked)


def _check_everybody_is_mapped(
    path: Path, emails: frozenset[str], domains: frozenset[str], orgs: Mapping[str, object]
) -> None:
    """Raises BadInput for who is allowed and not mapped, or the other way: a typing error must not show all."""
    for name in sorted(emails | domains):
        if name not in orgs and _domain(name) not in orgs:
            raise BadInput(
                f'{path}: {name} may sign in and is not in access.organisations; add "{name}" = ["org_..."] there, '
                f'or = "{ALL}"'
            )
    for name in sorted(orgs):
        is_used = name in emails or _domain(name) in domains or any(_domain(email) == name for email in emails)
        if not is_used:
            raise BadInput(
                f"{path}: {name} is in access.organisations and may not sign in; add it to access.emails or "
                f"access.domains, or correct it"
            )


def _orgs(path: Path, name: str, value: object) -> frozenset[str] | None:
    return None if value == ALL else _names(path, f'access.organisations."{name}"', value, as_written=True)


def _names(path: Path, key: str, value: object, *, as_written: bool = False) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise BadInput(f"{path}: expected {key} to be a list of texts, found {_found(value)}")
    return frozenset(value if as_written else map(folded, value))


def _section(path: Path, name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"{path}: expected a section [{name}], found {_found(value)}")
    return value


def _check_keys(
    path: Path, section: str, table: Mapping[str, object], *, required: Iterable[str] = (), optional: Iterable[str] = ()
) -> None:
    prefix = f"{section}." if section else ""
    known = [*required, *optional]
    if missing := [key for key in required if key not in table]:
        raise BadInput(f"{path}: {prefix}{missing[0]} is missing; docs/dashboard-access.md has a file to start with")
    for unknown in sorted(table.keys() - known):
        close = get_close_matches(unknown, known, n=1)
        remedy = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
        raise BadInput(f"{path}: {prefix}{unknown} is not known; {remedy}")


def _web_address(path: Path, key: str, text: str) -> SplitResult:
    """`text` taken apart. Without TLS only this machine is asked or answered: a token or a cookie must not be read."""
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for what is no number
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    if not parts.hostname or parts.username is not None or not is_safe:
        raise BadInput(f"{path}: expected {key} to be an https:// address, or http:// on this machine, found {text!r}")
    return parts


def _is_email(text: str) -> bool:
    local, at, domain = text.rpartition("@")
    return bool(local and at) and "@" not in local and _is_domain(domain) and text.isprintable() and " " not in local


def _is_domain(text: str) -> bool:
    return bool(text) and text.isprintable() and not set(text) & set(" @/*")


def _domain(name: str) -> str:
    """What follows the @ of an e-mail address; of a domain, itself."""
    return name.rpartition("@")[2]


def _found(value: object) -> str:
    """What stands in the file, without its content, which may be a secret."""
    names = {dict: "a section", list: "a list with something else in it", str: "a text", bool: "true or false"}
    return "nothing" if value == "" else names.get(type(value), "a number or a date")
