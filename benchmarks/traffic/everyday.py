"""The traffic that is fine: ordinary customers, and busy ones that look worse than they are."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Final

from benchmarks.traffic.calls import DNC, LIST_MESSAGES, NUMBERS, USAGE, Client, key_of
from benchmarks.traffic.clients import (
    SDK_USER_AGENTS,
    Maker,
    asking,
    backing_off,
    giving_up,
    message_read,
    ordinary,
    sending,
    sending_carefully,
)
from benchmarks.traffic.clock import HOUR, MINUTE, SECOND, bursts, daily, every, steady
from benchmarks.traffic.simulation import Pacing
from benchmarks.traffic.stage import Stage

CUSTOMERS: Final = 28


def customers(stage: Stage) -> None:
    """Most of the traffic: few errors, by the clocks of four zones; their number grows with the scale."""
    for number in range(max(2, round(CUSTOMERS * stage.scale))):
        rng = stage.rng(f"customer {number}")
        org = stage.org(f"customer {number}")
        for name in ("production", "worker")[: rng.choice((1, 1, 2))]:
            user_agent = rng.choice(SDK_USER_AGENTS)
            client = stage.client("ordinary", stage.key(f"customer {number} {name}", org), user_agent)
            has_retries = user_agent.startswith("textwire-")
            go_on_for_a_working_week(stage, client, 210 * rng.lognormvariate(0.0, 0.7), has_retries=has_retries)


def go_on_for_a_working_week(
    stage: Stage, client: Client, per_day: float, *, weekend: float = 0.3, has_retries: bool = True
) -> None:
    """Let `client` work as an ordinary integration does, from the first day to the last."""
    rng = stage.rng(f"week of {key_of(client).key_id}")
    pacing: Pacing = backing_off(rng) if has_retries else giving_up
    moments = daily(rng, stage.window, per_day, zone_h=rng.choice((-8, -5, 0, 1)), weekend=weekend)
    stage.play(moments, ordinary(stage.sim, client, rng), pacing)


def busy_batch_job(stage: Stage) -> None:
    """Three messages a second for six minutes, within the limit and with hardly a mistake."""
    rng, window = stage.rng("batch"), stage.between(1, "05:00", "05:06")
    client = stage.customer("busy_batch_job", "textwire-java/1.14.0 (OpenJDK 21.0.4)")
    stage.play(steady(rng, window, 3.0), sending_carefully(client, rng, mistakes=0.4), backing_off(rng))
    stage.plant_near_miss("busy batch job", "retry_storms", "storm", client, window=window)


def neighbours_behind_one_address(stage: Stage) -> None:
    """Two customers of one office building."""
    first = stage.customer("nat_neighbour", "okhttp/4.12.0")
    second = replace(stage.customer("nat_neighbour_2", "textwire-php/4.2.0 (PHP 8.3.12)"), ip=first.ip)
    for client in (first, second):
        go_on_for_a_working_week(stage, client, 160)
    stage.plant_near_miss(
        "two customers behind one address", "rejected_keys", "guessing", first, second, window=stage.window
    )


def patient_poller(stage: Stage) -> None:
    """The status of one message, once a second until it is delivered."""
    rng, window = stage.rng("poller"), stage.between(0, "13:00", "13:08")
    client = stage.customer("patient_poller", "textwire-go/0.18.3")
    stage.play(iter([window.start_ms - MINUTE]), sending(client, rng))
    stage.play(every(rng, window, SECOND, jitter_ms=25), lambda: message_read(stage.sim, client, rng, mistakes=0.0))
    stage.plant_near_miss("poller at one a second", "retry_storms", "storm", client, window=window)


def parallel_dashboard(stage: Stage) -> None:
    """A page that asks six questions at once, every quarter of an hour."""
    rng = stage.rng("dashboard")
    client = stage.customer(
        "parallel_dashboard", "Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0"
    )
    questions = [asking(client, endpoint) for endpoint in (USAGE, DNC, NUMBERS)]
    questions += [asking(client, LIST_MESSAGES, args=f"limit=25&page={page}") for page in (1, 2, 3)]
    moments = bursts(rng, every(rng, stage.window, HOUR // 2, jitter_ms=2 * MINUTE), len(questions), 40)
    stage.play(moments, in_turn(questions))
    stage.plant_near_miss(
        "parallel requests of one page", "idempotency_misuse", "concurrent duplicates", client, window=stage.window
    )


def in_turn(makers: Sequence[Maker]) -> Maker:
    """Calls of each maker in turn, over and over."""
    turns = cycle(makers)
    return lambda: next(turns)()


SCENES: Final[tuple[Callable[[Stage], None], ...]] = (
    customers,
    busy_batch_job,
    neighbours_behind_one_address,
    patient_poller,
    parallel_dashboard,
)
