"""Clients that look like trouble and are none: busy, sequential, new, or sharing an address."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from random import Random
from typing import Final

from benchmarks.traffic.calls import (
    ADD_CONTACT,
    CAMPAIGN,
    DNC,
    LIST_MESSAGES,
    NUMBERS,
    READ_CONTACT,
    READ_MESSAGE,
    SEND,
    USAGE,
    Call,
    Client,
    key_of,
)
from benchmarks.traffic.clients import Maker, asking, backing_off, insisting, sending, sending_carefully
from benchmarks.traffic.clock import HOUR, MINUTE, SECOND, Window, bursts, daily, every, steady
from benchmarks.traffic.everyday import go_on_for_a_working_week, in_turn
from benchmarks.traffic.stage import Stage


def busy(stage: Stage) -> None:
    """A large honest batch job, and a dashboard that lists messages once a second for hours."""
    rng = stage.rng("busy")
    start_ms = stage.at(3, "02:00") + rng.randrange(2 * HOUR)
    night = Window(start_ms, start_ms + 8 * MINUTE)
    batch = stage.customer("large_batch_job", "ledger-export/11.0")
    per_second = rng.uniform(5.0, 9.0)
    stage.play(steady(rng, night, per_second), sending_carefully(batch, rng, mistakes=1.5), backing_off(rng))
    dashboard = stage.customer("dashboard_each_second", "wallboard/3.1")
    hours = Window(stage.at(3, "13:30"), stage.at(3, "15:30"))
    stage.play(every(rng, hours, SECOND, jitter_ms=30), asking(dashboard, LIST_MESSAGES, args="limit=10"))
    for client, window in ((batch, night), (dashboard, hours)):
        name = client.persona.replace("_", " ")
        stage.plant_near_miss(name, "retry_storms", "storm", client, window=window)
        stage.plant_near_miss(name, "retry_discipline", "immediate", client, window=window)
    stage.plant_near_miss("large batch job", "enumeration", "probe", batch, window=night)


def own_ids_in_order(stage: Stage) -> None:
    """Readers of their own ids, counted up: one finds nearly all, the other works off a list of which many are gone."""
    rng = stage.rng("own ids in order")
    for persona, gone, hours in (("walks_its_own_ids", rng.uniform(0.03, 0.08), 1), ("stale_list", 0.35, 10)):
        client = stage.customer(persona, "archive-sync/0.9")
        go_on_for_a_working_week(stage, client, 40)
        window = Window(stage.at(1, "10:00"), stage.at(1, "10:00") + hours * HOUR)
        stage.play(steady(rng, window, 0.25 / hours), own_messages(client, 900_000 + hours * 10_000, rng, gone))
        stage.plant_near_miss(persona.replace("_", " "), "enumeration", "probe", client, window=window)


def own_messages(client: Client, first: int, rng: Random, gone: float) -> Maker:
    """Own messages in the order of their numbers from `first` on, a share of them deleted."""
    numbers = count(first)

    def make_call() -> Call:
        owner = None if rng.random() < gone else key_of(client).org.org_id
        return Call(client, READ_MESSAGE, f"/v1/messages/m_{next(numbers)}", owner=owner)

    return make_call


def behind_one_address(stage: Stage) -> None:
    """An office of four customers: one has a key that was retired, one forgot its key, and two only work."""
    rng = stage.rng("behind one address")
    office = [stage.customer(f"office_{number}", "axios/1.7.7") for number in range(4)]
    office = [replace(client, ip=office[0].ip) for client in office]
    for client in office:
        go_on_for_a_working_week(stage, client, 80)
    old_key = replace(stage.key("office retired", key_of(office[1]).org), retired_ms=stage.at(3, "08:00"))
    forgotten = replace(office[1], persona="office_retired_key", key=old_key, user_agent="report-mailer/1.1")
    stage.play(every(rng, stage.window, rng.randrange(15, 60) * MINUTE, jitter_ms=MINUTE), asking(forgotten, NUMBERS))
    codes = ("invalid_api_key",)
    stage.plant(
        "retired in an office", "rejected_keys", "retired", forgotten, window=stage.since(3, "08:00"), codes=codes
    )
    mistyped = [f"sk_test_{rng.getrandbits(128):032x}" for _ in range(3)]
    for day, presented in zip((0, 1, 3), mistyped, strict=True):
        client = replace(office[2], persona="office_mistyped_key", key=None, presented=presented)
        calls = bursts(rng, [stage.at(day, "09:00") + rng.randrange(6 * HOUR)], 3, 2 * MINUTE)
        stage.play(calls, asking(client, NUMBERS))
        stage.plant_near_miss("mistyped keys", "rejected_keys", "guessing", client, window=stage.window)
    for client in office:
        stage.plant_near_miss("office", "rejected_keys", "guessing", client, window=stage.window)


def newcomer(stage: Stage) -> None:
    """A developer who asks for much that the new key may not, and works with what it may; and one given its grant."""
    rng = stage.rng("newcomer")
    scopes = frozenset({"messages:read", "messages:write", "numbers:read"})
    developer = stage.customer("newcomer", "insomnia/10.1")
    developer = replace(developer, key=replace(key_of(developer), scopes=scopes))
    tried = [asking(developer, endpoint) for endpoint in (DNC, USAGE, ADD_CONTACT)]
    contact = Call(developer, READ_CONTACT, "/v1/contacts/c0000000001", owner=key_of(developer).org.org_id)
    tried += [lambda: contact, lambda: Call(developer, CAMPAIGN, CAMPAIGN.route, content=1)]
    stage.play(bursts(rng, [stage.at(0, "14:00")], 3 * len(tried), HOUR), in_turn(tried))
    works = [asking(developer, LIST_MESSAGES), asking(developer, NUMBERS), sending(developer, rng)]
    stage.play(daily(rng, stage.window, 60), in_turn(works))
    stage.plant_near_miss("newcomer", "scope_misuse", "probing", developer, window=stage.window)
    codes = ("insufficient_scope",)
    window = stage.between(0, "14:00", "15:00")
    stage.plant("newcomer without grants", "scope_misuse", "missing grant", developer, window=window, codes=codes)


def orderly_duplicates(stage: Stage) -> None:
    """A form submitted twice that then asks every two seconds, as it was told, and a key that is rightly used again."""
    rng = stage.rng("orderly duplicates")
    client = stage.customer("asks_as_told", "checkout-form/2.8")
    numbers = count(2)
    go_on_for_a_working_week(stage, client, 40)

    def submit() -> Call:
        number = next(numbers) // 2
        return Call(client, CAMPAIGN, CAMPAIGN.route, content=number, idempotency_key=f"submit-{number}")

    asks = insisting(rng, "idempotency_in_progress", tries=6, gap_ms=(1900, 2600))
    stage.play(bursts(rng, daily(rng, stage.window, 12), 2, 900), submit, asks)
    stage.plant_near_miss("asks as told", "idempotency_misuse", "polling in progress", client, window=stage.window)

    again = stage.customer("same_key_same_body", "outbox/1.0")
    once = Call(again, SEND, SEND.route, content=7, idempotency_key="outbox-7")
    stage.play(every(rng, stage.window, rng.randrange(10, 30) * MINUTE), lambda: once)
    stage.plant_near_miss(
        "same key, same body", "idempotency_misuse", "constant key across bodies", again, window=stage.window
    )


def skewed_clock(stage: Stage) -> None:
    """A client whose own clock is an hour late: what it schedules lies in the past."""
    rng = stage.rng("skewed clock")
    client = stage.customer("clock_an_hour_late", "kiosk/4.4")
    go_on_for_a_working_week(stage, client, 60)
    late = Call(client, SEND, SEND.route, faults=(("send_at", "in the past"),))
    numbers = count(1)
    moments = every(rng, stage.window, 50 * MINUTE, jitter_ms=20 * MINUTE)
    stage.play(moments, lambda: replace(late, content=next(numbers)))
    stage.plant_near_miss("clock an hour late", "retry_discipline", "futile repeats", client, window=stage.window)


def ordinary_list(stage: Stage) -> None:
    """A campaign to a list of which three in a hundred have opted out, each of them once."""
    rng = stage.rng("ordinary list")
    client = stage.customer("ordinary_list", "newsletter/5.5")
    go_on_for_a_working_week(stage, client, 50)
    recipients = stage.strangers("ordinary list", 60)
    client = replace(client, key=replace(key_of(client), org=replace(key_of(client).org, opted_out=recipients)))
    send, left = sending(client, rng), iter(recipients)
    window = stage.between(3, "09:30", "10:10")

    def make_call() -> Call:
        return replace(send(), recipient=next(left, "") if rng.random() < 0.03 else "")

    stage.play(steady(rng, window, rng.uniform(0.4, 0.6)), make_call)
    stage.plant_near_miss("three in a hundred", "blocked_resends", "spike", client, window=window)
    stage.plant_near_miss("three in a hundred", "blocked_resends", "repeats", client, window=window)


SCENES: Final[tuple[Callable[[Stage], None], ...]] = (
    busy,
    own_ids_in_order,
    behind_one_address,
    newcomer,
    orderly_duplicates,
    skewed_clock,
    ordinary_list,
)
