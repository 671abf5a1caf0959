"""What clients do wrong with a key that is good: ids, Idempotency-Keys, recipients, and sends before the approval."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Final

from benchmarks.traffic.calls import (
    CAMPAIGN,
    NUMBERS,
    READ_MESSAGE,
    Call,
    Client,
    key_of,
    unknown_route,
)
from benchmarks.traffic.clients import Maker, asking, insisting, sending
from benchmarks.traffic.clock import DAY, HOUR, MINUTE, SECOND, bursts, daily, every, steady
from benchmarks.traffic.everyday import go_on_for_a_working_week, in_turn
from benchmarks.traffic.stage import Stage


def enumeration(stage: Stage) -> None:
    """Ids counted up and ids of others, against references that are only stale and a route that is only misspelt."""
    rng, window = stage.rng("enumeration"), stage.between(2, "01:00", "01:45")
    codes = ("not_found",)
    walker = stage.customer("enumerator", "python-httpx/0.27.2")
    numbers = iter(range(1_200, 39_000))
    stage.play(every(rng, window, 9 * SECOND, jitter_ms=3 * SECOND), lambda: read_number(walker, next(numbers)))
    others = every(rng, window, 70 * SECOND, jitter_ms=9 * SECOND)
    stage.play(others, lambda: read_number(walker, rng.choice(stage.sim.api.read or [(7, "")])[0]))
    stage.plant("ids counted up", "enumeration", "probe", walker, window=window, codes=codes)

    archive = stage.customer("stale_references", "archive-export/1.2")
    deleted = [partial(read_number, archive, number) for number in rng.sample(range(2_000, 39_000), 9)]
    stage.play(
        bursts(rng, every(rng, stage.window, 4 * HOUR, jitter_ms=MINUTE), len(deleted), 9 * SECOND), in_turn(deleted)
    )
    go_on_for_a_working_week(stage, archive, 70)
    stage.plant("deleted messages", "enumeration", "stale references", archive, window=stage.window, codes=codes)

    typist, office = stage.customer("typo_route", "HTTPie/3.2.3"), stage.between(0, "09:00", "12:00")
    misspelt = unknown_route("POST", "/v1/message")
    stage.play(steady(rng, office, 30 / 3 / 3600), lambda: Call(typist, misspelt, misspelt.route))
    go_on_for_a_working_week(stage, typist, 40)
    stage.plant("misspelt route", "enumeration", "typo'd route", typist, window=office, codes=codes)


def read_number(client: Client, number: int) -> Call:
    """A look at a message that is not the client's own."""
    return Call(client, READ_MESSAGE, f"/v1/messages/m_{number}", owner=None)


def idempotency(stage: Stage) -> None:
    """One Idempotency-Key for everything, a queue that delivers twice, and a client that asks five times a second."""
    rng = stage.rng("idempotency")
    constant = stage.customer("constant_idempotency_key", "billing-bot/2.6")
    send = sending(constant, rng)
    stage.play(
        every(rng, stage.window, 25 * MINUTE, jitter_ms=4 * MINUTE),
        lambda: replace(send(), idempotency_key="invoice-mailer"),
    )
    twice = stage.customer("delivered_twice", "queue-consumer/0.9 (at-least-once)")
    deliveries = bursts(rng, daily(rng, stage.window, 60), 2, 70)
    stage.play(deliveries, repeated(campaigns(twice, "delivery"), 2))
    poller = stage.customer("polls_in_progress", "campaign-ui/3.3")
    clicks = bursts(rng, daily(rng, stage.window, 16), 2, 70)
    polling = insisting(rng, "idempotency_in_progress", tries=40, gap_ms=(150, 240))
    stage.play(clicks, repeated(campaigns(poller, "click"), 2), polling)
    for client, verdict, code in (
        (constant, "constant key across bodies", "idempotency_key_reused"),
        (twice, "concurrent duplicates", "idempotency_in_progress"),
        (poller, "polling in progress", "idempotency_in_progress"),
    ):
        name = client.persona.replace("_", " ")
        stage.plant(name, "idempotency_misuse", verdict, client, window=stage.window, codes=(code,))


def campaigns(client: Client, name: str) -> Maker:
    """New campaigns, each with its own Idempotency-Key."""
    numbers = count(1)

    def make_call() -> Call:
        number = next(numbers)
        return Call(client, CAMPAIGN, CAMPAIGN.route, content=number, idempotency_key=f"{name}-{number}")

    return make_call


def repeated(make_call: Maker, times: int) -> Maker:
    """Each call several times."""

    def calls() -> Iterator[Call]:
        while True:
            call = make_call()
            yield from (call,) * times

    stream = calls()
    return lambda: next(stream)


def unwanted_messages(stage: Stage) -> None:
    """A campaign to an old list, and a loop that sends to the blocked until somebody stops it."""
    rng, window = stage.rng("recipients"), stage.between(3, "08:00", "08:15")
    blaster = stage.customer("opted_out_blast", "autumn-campaign/1.1")
    go_on_for_a_working_week(stage, blaster, 70)
    opted_out = stage.strangers("opted out", 600)
    blaster = replace(blaster, key=replace(key_of(blaster), org=replace(key_of(blaster).org, opted_out=opted_out)))
    stale_list = sending(blaster, rng, opted_out, blocked=0.38)
    stage.play(steady(rng, window, 0.8), stale_list)
    stage.plant("old list", "blocked_resends", "spike", blaster, window=window, codes=("opted_out",))

    resender = stage.customer("dnc_resender", "appointment-reminder/3.0")
    go_on_for_a_working_week(stage, resender, 90)
    blocked = sending(resender, rng, key_of(resender).org.do_not_contact[:3], blocked=1.0)
    rounds = bursts(rng, every(rng, stage.window, 4 * HOUR, jitter_ms=10 * MINUTE), 4, MINUTE)
    stage.play(rounds, blocked, insisting(rng, "dnc_blocked", tries=4, gap_ms=(1900, 2100)))
    codes = ("dnc_blocked",)
    stage.plant("blocked recipients", "blocked_resends", "repeats", resender, window=stage.window, codes=codes)
    stage.plant("futile repeats", "retry_discipline", "futile repeats", resender, window=stage.window, codes=codes)


def unapproved(stage: Stage) -> None:
    """One customer that sends before its approval on Monday, and one that is still waiting."""
    rng, codes = stage.rng("approval"), ("approval_required",)
    for persona, first, approved_ms in (
        ("approved_on_monday", stage.at(0, "09:00"), stage.at(3, "11:00")),
        ("still_unapproved", stage.at(1, "12:00"), stage.window.end_ms + 30 * DAY),
    ):
        client = stage.customer(persona, "onboarding-wizard/1.0")
        key = key_of(client)
        client = replace(client, key=replace(key, org=replace(key.org, approved_ms=approved_ms)))
        window = replace(stage.window, start_ms=min(first, stage.window.end_ms))
        stage.play(daily(rng, window, 45, weekend=0.8), sending(client, rng))
        stage.play(daily(rng, window, 25, weekend=0.8), asking(client, NUMBERS))
        waiting = replace(window, end_ms=min(approved_ms, window.end_ms))
        stage.plant(persona.replace("_", " "), "approval_dwell", "waiting", client, window=waiting, codes=codes)


SCENES: Final[tuple[Callable[[Stage], None], ...]] = (
    enumeration,
    idempotency,
    unwanted_messages,
    unapproved,
)
