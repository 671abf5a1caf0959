"""Accounts in trouble: a balance that runs out again and again, sends before the approval, lists of the blocked."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from benchmarks.traffic.calls import NUMBERS, key_of
from benchmarks.traffic.clients import asking, insisting, sending
from benchmarks.traffic.clock import DAY, HOUR, MINUTE, Window, bursts, every, steady
from benchmarks.traffic.everyday import go_on_for_a_working_week
from benchmarks.traffic.stage import Stage


def recurring_credits(stage: Stage) -> None:
    """A balance that is gone on three days, for hours each time, and one that is gone for a quarter of an hour."""
    rng, codes = stage.rng("recurring credits"), ("insufficient_credits",)
    for persona, days, minutes in (("runs_out_again", (0, 1, 3), (70, 300)), ("runs_out_shortly", (3,), (15, 25))):
        client = stage.customer(persona, "pos-terminal/8.0")
        starts = [stage.at(day, "09:00") + rng.randrange(8 * HOUR) for day in days]
        windows = tuple(Window(start, start + rng.randrange(*minutes) * MINUTE) for start in starts)
        key = key_of(client)
        client = replace(client, key=replace(key, org=replace(key.org, unfunded=windows)))
        go_on_for_a_working_week(stage, client, 50)
        stage.play(every(rng, stage.window, 3 * MINUTE, jitter_ms=2 * MINUTE), sending(client, rng))
        for window in windows:
            stage.plant(persona.replace("_", " "), "credit_outages", "outage", client, window=window, codes=codes)


def unapproved_blast(stage: Stage) -> None:
    """A campaign of hundreds of sends by an organisation that is not approved yet."""
    rng, codes = stage.rng("unapproved blast"), ("approval_required",)
    client = stage.customer("blasts_before_approval", "launch-day/1.0")
    key = key_of(client)
    org = replace(key.org, approved_ms=stage.window.end_ms + 30 * DAY)
    client = replace(client, key=replace(key, org=org))
    start_ms = stage.at(3, "08:00") + rng.randrange(6 * HOUR)
    stage.play(steady(rng, Window(start_ms, start_ms + 20 * MINUTE), rng.uniform(0.3, 1.0)), sending(client, rng))
    stage.play(every(rng, stage.window, 3 * HOUR, jitter_ms=HOUR), asking(client, NUMBERS))
    window = Window(start_ms, stage.window.end_ms)
    stage.plant("blast before approval", "approval_dwell", "waiting", client, window=window, codes=codes)


def blocked_lists(stage: Stage) -> None:
    """An old list of people on the do-not-contact list, and a loop over the same two of those who replied STOP."""
    rng = stage.rng("blocked lists")
    importer = stage.customer("imports_an_old_list", "crm-campaign/6.2")
    go_on_for_a_working_week(stage, importer, 90)
    start_ms = stage.at(3, "13:00") + rng.randrange(4 * HOUR)
    window = Window(start_ms, start_ms + rng.randrange(10, 25) * MINUTE)
    blocked = stage.strangers("blocked", 500)
    key = key_of(importer)
    importer = replace(importer, key=replace(key, org=replace(key.org, do_not_contact=blocked)))
    stage.play(steady(rng, window, 0.6), sending(importer, rng, blocked, blocked=rng.uniform(0.25, 0.6)))
    stage.plant("old list again", "blocked_resends", "spike", importer, window=window, codes=("dnc_blocked",))

    reminder = stage.customer("reminds_the_opted_out", "recall-robot/1.9")
    go_on_for_a_working_week(stage, reminder, 90)
    send = sending(reminder, rng, key_of(reminder).org.opted_out[:2], blocked=1.0)
    again = insisting(rng, "opted_out", tries=rng.randrange(3, 6), gap_ms=(20_000, 60_000))
    stage.play(bursts(rng, every(rng, stage.window, 6 * HOUR, jitter_ms=HOUR), 3, 5 * MINUTE), send, again)
    codes = ("opted_out",)
    stage.plant("reminders to the opted out", "blocked_resends", "repeats", reminder, window=stage.window, codes=codes)
    stage.plant("futile reminders", "retry_discipline", "futile repeats", reminder, window=stage.window, codes=codes)


SCENES: Final[tuple[Callable[[Stage], None], ...]] = (recurring_credits, unapproved_blast, blocked_lists)
