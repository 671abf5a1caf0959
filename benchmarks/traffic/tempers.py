"""An afternoon on which one endpoint fails most calls, and clients of every temper at it.

Rates, pauses and hours depend on the seed: a rule that fits one afternoon does not fit the next.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from random import Random
from typing import Final

from benchmarks.traffic.api import Outage
from benchmarks.traffic.calls import SEND, Call, Client, Endpoint
from benchmarks.traffic.clients import Maker, backing_off, sending
from benchmarks.traffic.clock import DAY, HOUR, MINUTE, SECOND, Window, bursts, every, steady
from benchmarks.traffic.everyday import go_on_for_a_working_week
from benchmarks.traffic.simulation import Pacing, Reply
from benchmarks.traffic.stage import Stage

# A template of its own, so that what happens here happens to nobody else.
ADD_TEMPLATE: Final = Endpoint("POST", "/v1/templates", "contacts:write", 27, 201, 130)


def failing_afternoon(stage: Stage) -> None:
    """Two hours of faults, and the tempers: doubling, even, shrinking, clockwork, at once, and capped at a minute."""
    rng = stage.rng("failing afternoon")
    start_ms = stage.at(3, "17:00") + rng.randrange(90) * MINUTE
    outage = Window(start_ms, start_ms + rng.randrange(80, 120) * MINUTE)
    stage.sim.api.outages.append(Outage(outage, ADD_TEMPLATE, rng.uniform(0.7, 0.85)))
    codes = ("internal_error",)
    stage.plant("templates fail for hours", "platform_incidents", "platform fault", window=outage, codes=codes)
    for persona, verdict, pacing in (
        ("doubles_its_pause", "exponential", after_faults(rng, growing(rng, 1000, rng.uniform(1.9, 3.0)), tries=6)),
        ("pauses_evenly", "fixed", after_faults(rng, around(rng, rng.randrange(1500, 6000), 0.12), tries=5)),
        ("pauses_less_and_less", "collapsing", after_faults(rng, growing(rng, 9000, rng.uniform(0.25, 0.4)), tries=5)),
        ("pauses_by_the_clock", "lockstep", after_faults(rng, around(rng, rng.randrange(2, 9) * SECOND, 0.0), tries=6)),
        ("hardly_pauses", "immediate", after_faults(rng, around(rng, rng.randrange(60, 400), 0.3), tries=4)),
    ):
        client = adding_templates(stage, persona, outage, rng.uniform(0.03, 0.1), pacing)
        stage.plant(verdict, "retry_discipline", verdict, client, window=outage, codes=codes)
        if verdict == "exponential":
            stage.plant_near_miss("patient client", "retry_storms", "storm", client, window=outage)
    capped = after_faults(rng, growing(rng, 1000, 2.0, most_ms=MINUTE), tries=14)
    patient = adding_templates(stage, "polite_for_hours", outage, 0.03, capped)
    parallel = adding_templates(stage, "parallel_backoff", outage, 0.3, after_faults(rng, growing(rng, 900, 2.0)))
    for client in (patient, parallel):
        name = client.persona.replace("_", " ")
        stage.plant_near_miss(name, "retry_storms", "storm", client, window=outage)
        stage.plant_near_miss(name, "retry_discipline", "fixed", client, window=outage)
        stage.plant_near_miss(name, "retry_discipline", "immediate", client, window=outage)


def adding_templates(stage: Stage, persona: str, outage: Window, per_second: float, pacing: Pacing) -> Client:
    """A new customer that works as all do, and adds templates before, in and after the outage."""
    client = stage.customer(persona, f"{persona.replace('_', '-')}/1.4")
    rng = stage.rng(f"templates of {persona}")
    go_on_for_a_working_week(stage, client, 60)
    around_it = Window(outage.start_ms - 20 * MINUTE, outage.end_ms + 20 * MINUTE)
    stage.play(steady(rng, around_it, per_second), templates(client), pacing)
    return client


def templates(client: Client) -> Maker:
    """New templates, each under its own Idempotency-Key."""
    numbers = count(1)
    call = Call(client, ADD_TEMPLATE, ADD_TEMPLATE.route)

    def make_call() -> Call:
        number = next(numbers)
        return replace(call, content=number, idempotency_key=f"{client.persona}-{number}")

    return make_call


def futile_repeats(stage: Stage) -> None:
    """A body that fails validation is sent again under its Idempotency-Key, as if that could help."""
    rng = stage.rng("futile repeats")
    client = stage.customer("repeats_what_is_invalid", "form-relay/2.2")
    go_on_for_a_working_week(stage, client, 50)
    send = sending(client, rng, job="form")
    calls = bursts(rng, every(rng, stage.window, 5 * HOUR, jitter_ms=HOUR), rng.randrange(4, 9), 3 * MINUTE)
    pause = around(rng, rng.randrange(2000, 20_000), 0.3)
    again = after(rng, pause, "validation_failed", tries=rng.randrange(3, 6))
    stage.play(calls, lambda: replace(send(), faults=(("text", "required"),)), again)
    codes = ("validation_failed",)
    stage.plant(
        "invalid sends repeated", "retry_discipline", "futile repeats", client, window=stage.window, codes=codes
    )


def unsafe_repeats(stage: Stage) -> None:
    """Sends without an Idempotency-Key that are repeated after faults, slowly and with a growing pause."""
    rng = stage.rng("unsafe repeats")
    start_ms = stage.at(1, "09:00") + rng.randrange(8 * 60) * MINUTE
    outage = Window(start_ms, start_ms + 12 * MINUTE)
    stage.sim.api.outages.append(Outage(outage, SEND, 0.8))
    stage.plant(
        "sends fail on Saturday", "platform_incidents", "platform fault", window=outage, codes=("internal_error",)
    )
    for persona, job, tries in (("repeats_without_a_key", "", 4), ("repeats_with_a_key", "safe", 4)):
        client = stage.customer(persona, "ktor-client/3.0.1")
        go_on_for_a_working_week(stage, client, 50)
        calls = steady(rng, Window(outage.start_ms - HOUR, outage.end_ms + HOUR), 0.05)
        stage.play(calls, sending(client, rng, job=job), backing_off(rng, tries=tries, first_ms=3000))
        if job:
            stage.plant_near_miss(
                "repeated under a key", "idempotency_misuse", "retried without a key", client, window=outage
            )
        else:
            codes = ("internal_error",)
            stage.plant(
                "repeated without a key",
                "idempotency_misuse",
                "retried without a key",
                client,
                window=outage,
                codes=codes,
            )


def tight_loops(stage: Stage) -> None:
    """Two outages of sends: loops of unequal tightness, beside clients that wait and clients that give up."""
    rng = stage.rng("tight loops")
    for day, clock in ((2, "15:00"), (4, "11:00")):
        start_ms = stage.at(day, clock) + rng.randrange(60) * MINUTE
        outage = Window(start_ms, start_ms + rng.randrange(40, 200) * SECOND)
        stage.sim.api.outages.append(Outage(outage, SEND, rng.uniform(0.85, 0.98)))
        codes = ("internal_error",)
        stage.plant("sends fail shortly", "platform_incidents", "platform fault", window=outage, codes=codes)
        around_it = Window(start_ms - 5 * MINUTE, outage.end_ms + 5 * MINUTE)
        loop_ms = rng.randrange(3, 60)
        looper = stage.customer(f"loops_at_once_{day}", "notify-loop/0.2")
        polite = stage.customer(f"waits_in_the_outage_{day}", "textwire-go/0.18.3")
        resigned = stage.customer(f"gives_up_in_the_outage_{day}", "bulk-sender/2.0")
        for client, per_second, job, pacing in (
            (looper, 1.5, rng.choice(("loop", "")), after_faults(rng, around(rng, loop_ms, 0.2), tries=40)),
            (polite, 2.0, "polite", after_faults(rng, growing(rng, 400, 2.2), tries=8)),
            (resigned, rng.uniform(8, 14), "", after_faults(rng, around(rng, 1, 0.0), tries=1)),
        ):
            go_on_for_a_working_week(stage, client, 40)
            stage.play(steady(rng, around_it, per_second), sending(client, rng, job=job), pacing)
        stage.plant("loop at once", "retry_storms", "storm", looper, window=outage, codes=codes)
        for client in (polite, resigned):
            stage.plant_near_miss(client.persona, "retry_storms", "storm", client, window=outage)
            stage.plant_near_miss(client.persona, "retry_discipline", "tight loop", client, window=outage)


def after(rng: Random, pause: Callable[[Reply], int], *codes: str, tries: int) -> Pacing:
    """Call again after any of `codes` when `pause` says, up to `tries` times."""

    def wait_ms(reply: Reply) -> int | None:
        if reply.attempt >= tries or reply.refusal is None or reply.refusal.code not in codes:
            return None
        return pause(reply)

    return wait_ms


def after_faults(rng: Random, pause: Callable[[Reply], int], *, tries: int = 8) -> Pacing:
    """Call again after an internal_error when `pause` says, and after what the gateway answers itself."""
    return after(rng, pause, "internal_error", tries=tries)


def growing(rng: Random, first_ms: int, factor: float, *, most_ms: int = DAY) -> Callable[[Reply], int]:
    """A pause that is multiplied each time, up to `most_ms`, with a tenth of jitter."""
    return lambda reply: int(min(most_ms, first_ms * factor ** (reply.attempt - 1)) * rng.uniform(0.9, 1.1))


def around(rng: Random, pause_ms: int, jitter: float) -> Callable[[Reply], int]:
    """One pause, up to `jitter` of it longer or shorter."""
    return lambda _reply: int(pause_ms * rng.uniform(1 - jitter, 1 + jitter))


SCENES: Final[tuple[Callable[[Stage], None], ...]] = (
    failing_afternoon,
    futile_repeats,
    unsafe_repeats,
    tight_loops,
)
