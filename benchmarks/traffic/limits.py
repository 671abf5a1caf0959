"""What makes a client meet its limit: a volley, a job that is too fast, a timer, its own retries, a sibling key."""

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from typing import Final

from benchmarks.traffic.calls import LIST_MESSAGES, NUMBERS, key_of
from benchmarks.traffic.clients import asking, backing_off, giving_up, insisting, sending
from benchmarks.traffic.clock import HOUR, MINUTE, SECOND, Window, bursts, every, steady
from benchmarks.traffic.everyday import go_on_for_a_working_week
from benchmarks.traffic.stage import Stage
from benchmarks.traffic.trouble import limited

CODES: Final = ("rate_limited",)


def causes(stage: Stage) -> None:
    """A volley and a job that is too fast, both of which give up when refused, and a timer that fires for everybody."""
    rng = stage.rng("causes")
    volley = limited(stage.customer("one_volley", "cart-checkout/1.2"), 30)
    moments = [stage.at(day, "10:00") + rng.randrange(6 * HOUR) for day in (0, 3)]
    stage.play(bursts(rng, moments, rng.randrange(70, 140), 4 * SECOND), sending(volley, rng))
    for moment in moments:
        stage.plant(
            "volley", "rate_limit_causes", "burst", volley, window=Window(moment, moment + 10 * SECOND), codes=CODES
        )

    hasty = limited(stage.customer("too_fast_a_job", "catalog-export/4.0"), 60)
    start_ms = stage.at(3, "12:00") + rng.randrange(5 * HOUR)
    job = Window(start_ms, start_ms + rng.randrange(10, 25) * MINUTE)
    stage.play(steady(rng, job, rng.uniform(3.0, 7.0)), sending(hasty, rng))
    stage.plant("job over the limit", "rate_limit_causes", "sustained", hasty, window=job, codes=CODES)

    period_ms = rng.choice((5, 10, 15)) * MINUTE
    timer = limited(stage.customer("timer_for_all", "digest-cron/0.6"), 30)
    office = [range(stage.at(day, "07:00"), stage.at(day, "12:00"), period_ms) for day in (0, 3, 4)]
    stage.play(bursts(rng, chain.from_iterable(office), rng.randrange(55, 80), 1200), sending(timer, rng))
    stage.plant("timer", "rate_limit_causes", "scheduled", timer, window=stage.window, codes=CODES)

    looper = limited(stage.customer("loops_when_limited", "etl-loader/7.7"), 40)
    go_on_for_a_working_week(stage, looper, 40)
    loop_ms = stage.at(2, "10:00") + rng.randrange(8 * HOUR)
    again = insisting(rng, "rate_limited", tries=200, gap_ms=(150, 900))
    stage.queue(iter([loop_ms] * 200), sending(looper, rng, job="load"), again, workers=2)
    loop = Window(loop_ms, loop_ms + 6 * MINUTE)
    stage.plant("loop", "rate_limit_causes", "self-inflicted", looper, window=loop, codes=CODES)
    stage.plant("loop", "retry_discipline", "ignores Retry-After", looper, window=loop, codes=CODES)


def siblings(stage: Stage) -> None:
    """Two keys of one organisation that share its limit; the export of one leaves nothing to the other."""
    rng = stage.rng("siblings")
    quiet = stage.customer("starved_sibling", "textwire-php/4.2.0 (PHP 8.3.12)")
    org = replace(key_of(quiet).org, per_minute=120)
    quiet = replace(quiet, key=replace(key_of(quiet), org=org))
    noisy = stage.client("noisy_sibling", stage.key("noisy sibling", org), "export-all/2.0")
    start_ms = stage.at(3, "11:00") + rng.randrange(4 * HOUR)
    export = Window(start_ms, start_ms + rng.randrange(15, 30) * MINUTE)
    stage.play(every(rng, stage.window, 45 * SECOND, jitter_ms=9 * SECOND), asking(quiet, NUMBERS), giving_up)
    stage.play(steady(rng, export, rng.uniform(5, 9)), asking(noisy, LIST_MESSAGES), giving_up)
    stage.plant("starved by a sibling", "rate_limit_causes", "noisy sibling", quiet, window=export, codes=CODES)
    stage.plant("export over the shared limit", "rate_limit_causes", "sustained", noisy, window=export, codes=CODES)


def honours(stage: Stage) -> None:
    """Clients that wait as long as they are told: many messages at once, and logged by two nodes of unequal clocks."""
    rng = stage.rng("honours")
    for persona, skew_ms in (("waits_for_each_message", 0), ("waits_by_two_clocks", rng.randrange(60, 180))):
        client = limited(stage.customer(persona, "queue-worker/5.1"), 50)
        client = replace(client, node_skew_ms=skew_ms)
        go_on_for_a_working_week(stage, client, 40)
        for day in (0, 3):
            start_ms = stage.at(day, "18:00") + rng.randrange(2 * HOUR)
            job = Window(start_ms, start_ms + rng.randrange(8, 14) * MINUTE)
            stage.play(steady(rng, job, 1.0), sending(client, rng, job=persona), backing_off(rng, tries=12))
        name = persona.replace("_", " ")
        stage.plant(name, "retry_discipline", "honours Retry-After", client, window=stage.window, codes=CODES)
        for question, verdict in (
            ("retry_discipline", "ignores Retry-After"),
            ("rate_limit_causes", "self-inflicted"),
        ):
            stage.plant_near_miss(name, question, verdict, client, window=stage.window)


SCENES: Final[tuple[Callable[[Stage], None], ...]] = (causes, siblings, honours)
