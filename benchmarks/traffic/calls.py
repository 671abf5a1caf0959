"""What can be asked of the simulated API, and by whom. Knows no answer.

The error catalogue is written out again here, so that the truth does not depend on the file that is under test.
"""

from dataclasses import dataclass
from typing import Final

from benchmarks.traffic.clock import Window

STATUS: Final = {
    "validation_failed": 400,
    "missing_api_key": 401,
    "insufficient_scope": 403,
    "invalid_api_key": 403,
    "scope_invalid": 403,
    "not_found": 404,
    "idempotency_in_progress": 409,
    "idempotency_key_reused": 409,
    "approval_required": 422,
    "dnc_blocked": 422,
    "insufficient_credits": 422,
    "opted_out": 422,
    "template_rejected": 422,  # not in the catalogue: the API began to send it without telling anybody
    "rate_limited": 429,
    "internal_error": 500,
}
ALL_SCOPES: Final = frozenset(
    {"messages:write", "messages:read", "contacts:write", "contacts:read", "numbers:read", "usage:read", "dnc:read"}
    | {"campaigns:write", "webhooks:write", "billing:read", "members:read", "audit:read"}
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One operation of the API. `latency_ms` is the median of a success, `size` its response's bytes."""

    method: str
    route: str
    scope: str
    latency_ms: int = 20
    status: int = 200
    size: int = 480
    is_organization_only: bool = False
    is_billable: bool = False
    is_known: bool = True


SEND: Final = Endpoint("POST", "/v1/messages", "messages:write", 38, 201, 91, is_billable=True)
LIST_MESSAGES: Final = Endpoint("GET", "/v1/messages", "messages:read", 24, size=2210)
READ_MESSAGE: Final = Endpoint("GET", "/v1/messages/{id}", "messages:read", 9, size=304)
ADD_CONTACT: Final = Endpoint("POST", "/v1/contacts", "contacts:write", 19, 201, 118)
READ_CONTACT: Final = Endpoint("GET", "/v1/contacts/{id}", "contacts:read", 8, size=212)
NUMBERS: Final = Endpoint("GET", "/v1/numbers", "numbers:read", 12, size=655)
CAMPAIGN: Final = Endpoint("POST", "/v1/campaigns", "campaigns:write", 2600, 202, 140, is_billable=True)
USAGE: Final = Endpoint("GET", "/v1/organizations/{id}/usage", "usage:read", 70, size=870, is_organization_only=True)
REPORT: Final = Endpoint("GET", "/v1/organizations/{id}/usage", "usage:read", 20_000, is_organization_only=True)
DNC: Final = Endpoint("GET", "/v1/organizations/{id}/dnc", "dnc:read", 16, size=733, is_organization_only=True)
RAW_NUMBERS: Final = Endpoint(
    "GET", "/v1/organizations/{id}/numbers/raw", "numbers:read", 31, size=402, is_organization_only=True
)


def unknown_route(method: str, path: str) -> Endpoint:
    """What a client asks for that the API does not have."""
    return Endpoint(method, path, "", 2, is_known=False)


@dataclass(frozen=True, slots=True)
class Org:
    """A customer. `unfunded` are the windows in which its balance is too low for a send.

    `per_minute` is a limit that its keys share, in the minutes of the clock.
    """

    org_id: str
    approved_ms: int = 0
    unfunded: tuple[Window, ...] = ()
    do_not_contact: tuple[str, ...] = ()
    opted_out: tuple[str, ...] = ()
    per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A key of an organisation; `lost` is a scope with the moment from which it is no longer granted."""

    key_id: str
    org: Org
    scopes: frozenset[str] = ALL_SCOPES
    is_personal: bool = False
    per_minute: int = 1200
    retired_ms: int | None = None
    lost: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """A program that calls the API. Without `key` the API does not know `presented`, which may be empty.

    `node_skew_ms` is what the clock of the second gateway node is ahead that logs every other of its requests.
    """

    persona: str
    key: Key | None
    ip: str
    user_agent: str
    presented: str = ""
    node_skew_ms: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the API says no: an error code with what the envelope holds.

    `drift` is how the answer breaks the contract, see Drift in `api`; `status` is sent in place of the code's own.
    """

    code: str
    message: str
    details: tuple[tuple[str, str], ...] = ()
    retry_after_s: int | None = None
    drift: str = ""
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One request as its client means it; a retry is the same call again.

    `content` stands for the body: equal numbers, equal bodies. `owner` is the org_id of what the path names, None where
    nobody has it. `faults` are (field, issue) pairs that validation finds. `refusal` overrides what the API would say.
    `private` are the strings in it, or in the answer to it, that nobody may store.
    """

    client: Client
    endpoint: Endpoint
    path: str
    args: str = ""
    referer: str = ""
    recipient: str = ""
    content: int = 0
    idempotency_key: str = ""
    owner: str | None = None
    faults: tuple[tuple[str, str], ...] = ()
    refusal: Refusal | None = None
    timeout_ms: int | None = None
    is_body_encoded_twice: bool = False
    private: tuple[str, ...] = ()


def key_of(client: Client) -> Key:
    """The key that the API knows the client by; whoever asks has made sure that there is one."""
    if client.key is None:
        raise LookupError(f"{client.persona} has no key that the API knows")
    return client.key
