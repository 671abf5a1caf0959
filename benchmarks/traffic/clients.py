"""How clients go about it: when they call again after a failure, and the traffic of an ordinary integration."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from random import Random
from typing import Final

from benchmarks.traffic.calls import (
    ADD_CONTACT,
    DNC,
    LIST_MESSAGES,
    NUMBERS,
    READ_CONTACT,
    READ_MESSAGE,
    SEND,
    USAGE,
    Call,
    Client,
    Endpoint,
    key_of,
)
from benchmarks.traffic.clock import SECOND
from benchmarks.traffic.simulation import Pacing, Process, Reply, Simulation

Maker = Callable[[], Call]

SDK_USER_AGENTS: Final = (
    "textwire-python/2.7.1 (CPython 3.12.4; Linux)",
    "textwire-python/2.6.0 (CPython 3.10.12; Linux)",
    "textwire-node/2.9.4 (node 22.11.0)",
    "textwire-java/1.14.0 (OpenJDK 21.0.4)",
    "textwire-php/4.2.0 (PHP 8.3.12)",
    "textwire-go/0.18.3",
    "okhttp/4.12.0",
    "python-requests/2.32.3",
    "Faraday v2.12.0",
)
BODY_MISTAKES: Final = (
    (("to", "not an E.164 number"),),
    (("text", "required"),),
    (("from", "not a number of this organization"),),
    (("send_at", "in the past"),),
    (("to", "not an E.164 number"), ("text", "longer than 1600 characters")),
)


def play(sim: Simulation, moments: Iterator[int], make_call: Maker, pacing: Pacing) -> Process:
    """Send a call at each moment, whatever became of the ones before; each failure is chased on its own."""
    for moment in moments:
        yield moment
        reply = sim.send(make_call())
        if reply.status >= 400:
            sim.start(chase(sim, reply, pacing))


def work_off(sim: Simulation, moments: Iterator[int], make_call: Maker, pacing: Pacing) -> Process:
    """One worker with a queue: a call that fails holds up those behind it for as long as it is chased."""
    for moment in moments:
        yield moment
        yield from chase(sim, sim.send(make_call()), pacing)


def chase(sim: Simulation, reply: Reply, pacing: Pacing) -> Process:
    """Send the same call again for as long as it fails and `pacing` says when."""
    while reply.status >= 400 and (wait_ms := pacing(reply)) is not None:
        yield reply.end_ms + wait_ms
        reply = sim.send(reply.call, retry_of=reply)


def giving_up(_reply: Reply) -> int | None:
    """Never call again."""
    return None


def backing_off(rng: Random, *, tries: int = 3, first_ms: int = 500) -> Pacing:
    """Call again after what may pass, doubling the wait, with jitter, and never before Retry-After is over."""

    def wait_ms(reply: Reply) -> int | None:
        if reply.attempt >= tries or not (reply.status in (429, 499) or reply.status >= 500):
            return None
        retry_after_s = reply.refusal.retry_after_s if reply.refusal else None
        if retry_after_s is not None:
            return retry_after_s * SECOND + rng.randrange(50, 900)
        return int(first_ms * 2 ** (reply.attempt - 1) * rng.uniform(0.8, 1.25))

    return wait_ms


def insisting(rng: Random, *codes: str, tries: int, gap_ms: tuple[int, int]) -> Pacing:
    """Call again after any of `codes` at a gap that never grows, whatever Retry-After says."""

    def wait_ms(reply: Reply) -> int | None:
        if reply.attempt >= tries or reply.refusal is None or reply.refusal.code not in codes:
            return None
        return rng.randint(*gap_ms)

    return wait_ms


def asking(client: Client, endpoint: Endpoint, *, args: str = "", timeout_ms: int | None = None) -> Maker:
    """The same question about the client's own organisation, again and again."""
    owner = client.key.org.org_id if client.key else None
    call = Call(client, endpoint, path_of(endpoint, owner or ""), args=args, owner=owner, timeout_ms=timeout_ms)
    return lambda: call


def sending(
    client: Client, rng: Random, recipients: tuple[str, ...] = (), *, blocked: float = 0.0, job: str = ""
) -> Maker:
    """A new message each time; a share of `blocked` goes to `recipients`. A `job` names its Idempotency-Keys."""
    numbers = count(rng.randrange(10**6))

    def make_call() -> Call:
        recipient = rng.choice(recipients) if rng.random() < blocked else ""
        number = next(numbers)
        idempotency_key = f"{job}-{number}" if job else ""
        return Call(client, SEND, SEND.route, recipient=recipient, content=number, idempotency_key=idempotency_key)

    return make_call


def sending_carefully(client: Client, rng: Random, *, mistakes: float = 1.0) -> Maker:
    """New messages, now and then with a wrong field or to somebody who does not want it."""
    org = key_of(client).org
    make_fine_call = sending(client, rng, job="job" if client.user_agent.startswith("textwire-") else "")

    def make_call() -> Call:
        call, chance = make_fine_call(), rng.random()
        if chance < 0.0045 * mistakes:
            return replace(call, recipient=rng.choice(org.opted_out))
        if chance < 0.006 * mistakes:
            return replace(call, recipient=rng.choice(org.do_not_contact))
        return replace(call, faults=rng.choice(BODY_MISTAKES)) if chance < 0.01 * mistakes else call

    return make_call


def ordinary(sim: Simulation, client: Client, rng: Random) -> Maker:
    """The mix of a working integration, with the few mistakes that every one of them makes."""
    send = sending_carefully(client, rng)
    makers: dict[Maker, int] = {
        send: 54,
        asking(client, LIST_MESSAGES): 8,
        asking(client, LIST_MESSAGES, args="limit=100&status=failed"): 6,
        lambda: message_read(sim, client, rng): 15,
        lambda: contact_added(client, rng): 5,
        lambda: contact_read(client, rng): 5,
        asking(client, NUMBERS): 4,
        asking(client, USAGE): 2,
        asking(client, DNC): 1,
    }
    choices, weights = tuple(makers), tuple(makers.values())
    return lambda: rng.choices(choices, weights)[0]()


def contact_added(client: Client, rng: Random) -> Call:
    """A new contact, one of a hundred without its phone number."""
    faults = (("phone", "required"),) if rng.random() < 0.01 else ()
    return Call(client, ADD_CONTACT, ADD_CONTACT.route, faults=faults)


def contact_read(client: Client, rng: Random) -> Call:
    """A look at a contact, one of a hundred gone."""
    owner = None if rng.random() < 0.01 else key_of(client).org.org_id
    return Call(client, READ_CONTACT, path_of(READ_CONTACT, f"c{rng.getrandbits(40):010x}"), owner=owner)


def message_read(sim: Simulation, client: Client, rng: Random, *, mistakes: float = 1.0) -> Call:
    """A look at one of the latest own messages, now and then at one that was deleted long ago."""
    org_id = key_of(client).org.org_id
    own = sim.api.sent.get(org_id)
    if not own or rng.random() < 0.012 * mistakes:
        return Call(client, READ_MESSAGE, f"/v1/messages/m_{rng.randrange(2_000, 39_000)}", owner=None)
    return Call(client, READ_MESSAGE, f"/v1/messages/m_{rng.choice(own)}", owner=org_id)


def path_of(endpoint: Endpoint, identifier: str) -> str:
    """The endpoint's path for one resource."""
    return endpoint.route.replace("{id}", identifier)
