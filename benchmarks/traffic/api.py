"""What the simulated API answers. Knows no gateway, no log and no client's motives."""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from benchmarks.traffic.calls import READ_MESSAGE, SEND, STATUS, Call, Endpoint, Refusal, key_of
from benchmarks.traffic.clock import MINUTE, SECOND, Window

UNKEYED_PER_MINUTE: Final = 20


FAULT: Final = Refusal("internal_error", "Something went wrong on our side. Support can find it by the request id.")


@dataclass(frozen=True)
class Outage:
    """A window in which the API fails a share of the calls of one endpoint, with whatever `refusal` says."""

    window: Window
    endpoint: Endpoint
    share: float
    refusal: Refusal = FAULT


@dataclass(frozen=True)
class Drift:
    """A window in which the API breaks its contract in one way when it answers one endpoint with `code`.

    `way` is status (then `status` is sent), no_request_id, docs_url, no_envelope or no_retry_after.
    """

    window: Window
    endpoint: Endpoint
    code: str
    way: str
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API sends back, and how long it took."""

    refusal: Refusal | None
    latency_ms: int


class Api:
    """Answers calls in the order of their start, and remembers what its answers depend on."""

    def __init__(self, rng: Random) -> None:
        self.outages: list[Outage] = []
        self.drifts: list[Drift] = []
        self.sent: dict[str, deque[int]] = {}  # the latest message numbers of each organisation
        self.read: deque[tuple[int, str]] = deque(maxlen=500)  # messages that their owners have read, with the owner
        self._rng = rng
        self._message_number = 40_000
        self._minutes: dict[str, tuple[int, int]] = {}
        self._bodies: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()

    def answer(self, call: Call, now_ms: int) -> Answer:
        """What the API says to `call` when it arrives at `now_ms`."""
        refusal = self._drifted(call, self._refusal(call, now_ms), now_ms)
        latency_ms = self._latency_ms(call, refusal)
        if refusal is None:
            self._remember(call, now_ms + latency_ms)
        return Answer(refusal, latency_ms)

    def seconds_until_allowed(self, bucket: str, per_minute: int, now_ms: int) -> int | None:
        """None while fewer than `per_minute` came in this minute, else the whole seconds to the next one."""
        minute = now_ms // MINUTE
        counted, calls = self._minutes.get(bucket, (minute, 0))
        calls = calls + 1 if counted == minute else 1
        self._minutes[bucket] = (minute, calls)
        return None if calls <= per_minute else (minute + 1) * 60 - now_ms // SECOND

    def body_under(self, call: Call) -> tuple[int, int] | None:
        """(content, end of its processing) of the accepted call with this call's key and Idempotency-Key."""
        return self._bodies.get((key_of(call.client).key_id, call.idempotency_key))

    def fault(self, call: Call, now_ms: int) -> Refusal | None:
        """What the API answers where this call meets an outage, or the rare fault of a quiet day."""
        met = next((o for o in self.outages if o.endpoint is call.endpoint and now_ms in o.window), None)
        share, refusal = (met.share, met.refusal) if met else (0.0004, FAULT)
        return refusal if self._rng.random() < share else None

    def _drifted(self, call: Call, refusal: Refusal | None, now_ms: int) -> Refusal | None:
        for drift in self.drifts:
            if refusal and refusal.code == drift.code and call.endpoint is drift.endpoint and now_ms in drift.window:
                retry_after_s = None if drift.way == "no_retry_after" else refusal.retry_after_s
                return replace(refusal, drift=drift.way, status=drift.status, retry_after_s=retry_after_s)
        return refusal

    def _refusal(self, call: Call, now_ms: int) -> Refusal | None:
        for check in CHECKS:
            if (refusal := check(self, call, now_ms)) is not None:
                return refusal
        return None

    def _latency_ms(self, call: Call, refusal: Refusal | None) -> int:
        if refusal is None:
            median = float(call.endpoint.latency_ms)
        elif refusal.code == "internal_error":
            median = 210.0
        else:
            median = 1.5 if STATUS[refusal.code] in (401, 403, 429) else 6.0
        return int(self._rng.lognormvariate(0.0, 0.45) * median)

    def _remember(self, call: Call, end_ms: int) -> None:
        if call.idempotency_key:
            self._bodies.setdefault((key_of(call.client).key_id, call.idempotency_key), (call.content, end_ms))
            if len(self._bodies) > 20_000:
                self._bodies.popitem(last=False)
        if call.endpoint is SEND:
            self._message_number += 1
            self.sent.setdefault(key_of(call.client).org.org_id, deque(maxlen=50)).append(self._message_number)
        elif call.endpoint is READ_MESSAGE and call.owner is not None:
            self.read.append((int(call.path.rsplit("_", 1)[1]), call.owner))


def _planned(_api: Api, call: Call, _now_ms: int) -> Refusal | None:
    return call.refusal


def _address_limit(api: Api, call: Call, now_ms: int) -> Refusal | None:
    if call.client.key is not None or call.client.presented:
        return None
    wait_s = api.seconds_until_allowed(call.client.ip, UNKEYED_PER_MINUTE, now_ms)
    message = f"Unauthenticated requests from one address are limited to {UNKEYED_PER_MINUTE} a minute."
    return None if wait_s is None else Refusal("rate_limited", message, retry_after_s=wait_s)


def _route(_api: Api, call: Call, _now_ms: int) -> Refusal | None:
    if call.endpoint.is_known:
        return None
    return Refusal("not_found", f"There is no {call.endpoint.method} {call.path} in this API.")


def _key_present(_api: Api, call: Call, _now_ms: int) -> Refusal | None:
    if call.client.key is not None or call.client.presented:
        return None
    return Refusal("missing_api_key", "No API key was sent. Use Authorization: Bearer <key> or X-Integration-Key.")


def _key_known(_api: Api, call: Call, _now_ms: int) -> Refusal | None:
    if call.client.key is not None:
        return None
    start, end = call.client.presented[:8], call.client.presented[-4:]
    return Refusal("invalid_api_key", f"The key {start}…{end} is not known.")


def _key_retired(_api: Api, call: Call, now_ms: int) -> Refusal | None:
    key = key_of(call.client)
    if key.retired_ms is None or now_ms < key.retired_ms:
        return None
    return Refusal("invalid_api_key", f"The key {key.key_id} has expired.")


def _key_limit(api: Api, call: Call, now_ms: int) -> Refusal | None:
    key = key_of(call.client)
    wait_s = api.seconds_until_allowed(key.key_id, key.per_minute, now_ms)
    if wait_s is None:
        return None
    message = f"Key {key.key_id} may make {key.per_minute} requests a minute. Retry after {wait_s} seconds."
    return Refusal("rate_limited", message, retry_after_s=wait_s)


def _org_limit(api: Api, call: Call, now_ms: int) -> Refusal | None:
    org = key_of(call.client).org
    wait_s = api.seconds_until_allowed(org.org_id, org.per_minute, now_ms) if org.per_minute else None
    message = f"Organization {org.org_id} may make {org.per_minute} requests a minute. Retry after {wait_s} seconds."
    return None if wait_s is None else Refusal("rate_limited", message, retry_after_s=wait_s)


def _scope_level(_api: Api, call: Call, _now_ms: int) -> Refusal | None:
    if not (key_of(call.client).is_personal and call.endpoint.is_organization_only):
        return None
    return Refusal("scope_invalid", "A personal key cannot reach a resource of the whole organization.")


def _scope(_api: Api, call: Call, now_ms: int) -> Refusal | None:
    key, scope = key_of(call.client), call.endpoint.scope
    is_lost = key.lost is not None and key.lost[0] == scope and now_ms >= key.lost[1]
    if scope in key.scopes and not is_lost:
        return None
    return Refusal("insufficient_scope", f"This endpoint requires the scope {scope}.")


def _outage(api: Api, call: Call, now_ms: int) -> Refusal | None:
    return api.fault(call, now_ms)


def _validation(_api: Api, call: Call, _now_ms: int) -> Refusal | None:
    if not call.faults:
        return None
    fields = "1 field is" if len(call.faults) == 1 else f"{len(call.faults)} fields are"
    return Refusal("validation_failed", f"{fields} not valid.", call.faults)


def _existence(_api: Api, call: Call, _now_ms: int) -> Refusal | None:
    if "{id}" not in call.endpoint.route or call.owner == key_of(call.client).org.org_id:
        return None
    return Refusal("not_found", f"Nothing found at {call.path}.")


def _idempotency(api: Api, call: Call, now_ms: int) -> Refusal | None:
    earlier = api.body_under(call) if call.idempotency_key else None
    if earlier is None:
        return None
    content, end_ms = earlier
    if content != call.content:
        return Refusal("idempotency_key_reused", "This Idempotency-Key came with another body before.")
    if now_ms < end_ms:
        return Refusal("idempotency_in_progress", "The first request with this key is running.", retry_after_s=1)
    return None


def _approval(_api: Api, call: Call, now_ms: int) -> Refusal | None:
    org = key_of(call.client).org
    if not call.endpoint.is_billable or now_ms >= org.approved_ms:
        return None
    return Refusal("approval_required", f"Organization {org.org_id} is not approved for messaging yet.")


def _credits(_api: Api, call: Call, now_ms: int) -> Refusal | None:
    if not call.endpoint.is_billable or not any(now_ms in window for window in key_of(call.client).org.unfunded):
        return None
    return Refusal("insufficient_credits", "The balance of 0.00 credits is less than the 0.02 that this send costs.")


def _recipient(_api: Api, call: Call, _now_ms: int) -> Refusal | None:
    org = key_of(call.client).org
    if call.recipient in org.do_not_contact:
        return Refusal("dnc_blocked", f"{call.recipient} is on the do-not-contact list.")
    if call.recipient in org.opted_out:
        return Refusal("opted_out", f"{call.recipient} replied STOP.")
    return None


CHECKS: Final[tuple[Callable[[Api, Call, int], Refusal | None], ...]] = (
    _planned,
    _address_limit,
    _route,
    _key_present,
    _key_known,
    _key_retired,
    _key_limit,
    _org_limit,
    _scope_level,
    _scope,
    _outage,
    _validation,
    _existence,
    _idempotency,
    _approval,
    _credits,
    _recipient,
)
