"""What goes wrong with the platform, with limits and with accounts, and how clients of each temper take it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random
from typing import Final

from benchmarks.traffic.api import Outage
from benchmarks.traffic.calls import REPORT, SEND, Call, Client, Refusal, key_of
from benchmarks.traffic.clients import Maker, asking, backing_off, giving_up, insisting, ordinary, sending
from benchmarks.traffic.clock import DAY, HOUR, MINUTE, SECOND, Window, bursts, daily, every, steady
from benchmarks.traffic.everyday import go_on_for_a_working_week
from benchmarks.traffic.stage import Stage


def platform_outage(stage: Stage) -> None:
    """Five minutes in which nearly every send fails, in the middle of three campaigns, and for everybody else."""
    rng, codes = stage.rng("outage"), ("internal_error",)
    outage, campaign = stage.between(3, "14:05", "14:10"), stage.between(3, "13:55", "14:20")
    stage.sim.api.outages.append(Outage(outage, SEND, 0.96))
    storm = stage.customer("retry_storm", "fanout-worker/3.4")
    polite = stage.customer("polite_backoff", "textwire-python/2.7.1 (CPython 3.12.4; Linux)")
    unsafe = stage.customer("retries_without_a_key", "Faraday v2.12.0")
    for client, per_second, job, pacing in (
        (storm, 0.8, "fan", insisting(rng, "internal_error", tries=25, gap_ms=(20, 120))),
        (polite, 0.3, "fan", backing_off(rng, tries=8, first_ms=1000)),
        (unsafe, 0.1, "", backing_off(rng, tries=4, first_ms=2000)),
    ):
        go_on_for_a_working_week(stage, client, 70)
        stage.play(steady(rng, campaign, per_second), sending(client, rng, job=job), pacing)
    stage.plant("outage of sends", "platform_incidents", "platform fault", window=outage, codes=codes)
    stage.plant("tight loop in the outage", "retry_storms", "storm", storm, window=outage, codes=codes)
    stage.plant_near_miss("backoff in the outage", "retry_storms", "storm", polite, window=campaign)
    stage.plant("tight loop after internal_error", "retry_discipline", "immediate", storm, window=outage, codes=codes)
    stage.plant("backoff after internal_error", "retry_discipline", "exponential", polite, window=outage, codes=codes)
    stage.plant(
        "sends repeated unsafely", "idempotency_misuse", "retried without a key", unsafe, window=outage, codes=codes
    )


def rate_limits(stage: Stage) -> None:
    """The same bulk job under the same limit, twice: one loop waits half a second, the other as long as it was told."""
    rng = stage.rng("rate limits")
    ignorer = limited(stage.customer("ignores_retry_after", "bulk-importer/1.9"), 60)
    honourer = limited(stage.customer("honours_retry_after", "textwire-python/2.6.0 (CPython 3.10.12; Linux)"), 60)
    for client in (ignorer, honourer):
        go_on_for_a_working_week(stage, client, 60)
    hammering = insisting(rng, "rate_limited", tries=400, gap_ms=(400, 600))
    for day, clock, messages in ((0, "10:30", 330), (3, "16:00", 150)):
        stage.queue(iter([stage.at(day, clock)] * messages), sending(ignorer, rng), hammering, workers=3)
    for day, clock in ((0, "11:00"), (3, "07:40")):
        jobs = iter([stage.at(day, clock)] * 520)
        stage.queue(jobs, sending(honourer, rng), backing_off(rng, tries=10), workers=4)
    codes = ("rate_limited",)
    loops = stage.between(0, "10:30", "10:37")
    stage.plant("loop at the limit", "rate_limit_causes", "self-inflicted", ignorer, window=loops, codes=codes)
    stage.plant(
        "Retry-After ignored", "retry_discipline", "ignores Retry-After", ignorer, window=stage.window, codes=codes
    )
    stage.plant(
        "Retry-After honoured", "retry_discipline", "honours Retry-After", honourer, window=stage.window, codes=codes
    )


def scheduled_bursts(stage: Stage) -> None:
    """Reminders that all go out on the full hour, in two seconds, under a limit that would do for the hour."""
    rng = stage.rng("scheduled bursts")
    client = limited(stage.customer("scheduled_burst", "cron-reminders/2.0"), 24)
    for day in (0, 3, 4):
        full_hours = range(stage.at(day, "06:00"), stage.at(day, "18:00"), HOUR)
        stage.play(bursts(rng, full_hours, 40, 1500), sending(client, rng))
    stage.plant(
        "reminders on the hour", "rate_limit_causes", "scheduled", client, window=stage.window, codes=("rate_limited",)
    )


def credit_outage(stage: Stage) -> None:
    """A balance that runs out on a weekend, after a short warning on Friday; nobody tops up until Sunday morning."""
    rng = stage.rng("credits")
    warning, weekend = stage.between(0, "20:00", "20:25"), Window(stage.at(1, "15:20"), stage.at(2, "09:40"))
    client = stage.customer("out_of_credits", "okhttp/4.12.0")
    key = key_of(client)
    client = replace(client, key=replace(key, org=replace(key.org, unfunded=(warning, weekend))))
    go_on_for_a_working_week(stage, client, 60)
    stage.play(every(rng, stage.window, 4 * MINUTE, jitter_ms=3 * MINUTE), sending(client, rng))
    for name, window in (("balance gone for 25 minutes", warning), ("balance gone for a weekend", weekend)):
        stage.plant(name, "credit_outages", "outage", client, window=window, codes=("insufficient_credits",))


def new_sdk_version(stage: Stage) -> None:
    """Three customers take a release that sends recipients in the wrong shape, and the fix of it in the evening."""
    clients = []
    for number, (bad, fixed) in enumerate((("08:10", "18:00"), ("08:40", "18:30"), ("10:05", "20:00"))):
        client = stage.customer(f"new_sdk_version_{number}", "textwire-node/2.9.4 (node 22.11.0)")
        bad_client = replace(client, user_agent="textwire-node/3.0.0 (node 22.11.0)")
        fixed_client = replace(client, user_agent="textwire-node/3.0.1 (node 22.11.0)")
        rng = stage.rng(client.persona)
        releases = (
            (stage.at(3, fixed), ordinary(stage.sim, fixed_client, rng)),
            (stage.at(3, bad), with_broken_sends(ordinary(stage.sim, bad_client, rng), rng)),
            (0, ordinary(stage.sim, client, rng)),
        )
        stage.play(daily(rng, stage.window, 420), released(stage, releases), backing_off(rng))
        clients.append(bad_client)
    stage.plant(
        "recipients broken by textwire-node 3.0.0",
        "validation_fields",
        "to[] must be a string since 3.0.0",
        *clients,
        window=stage.between(3, "08:10", "20:00"),
        codes=("validation_failed",),
    )


def released(stage: Stage, releases: tuple[tuple[int, Maker], ...]) -> Maker:
    """Calls of the release that is installed at the moment; `releases` are (since, its calls), newest first."""
    return lambda: next(make_call for since_ms, make_call in releases if stage.sim.now_ms >= since_ms)()


def with_broken_sends(make_call: Maker, rng: Random) -> Maker:
    """The same calls, where two of three sends carry objects for recipients."""

    def make_broken_call() -> Call:
        call = make_call()
        if call.endpoint is not SEND or rng.random() > 0.66:
            return call
        recipients = range(rng.choice((1, 1, 2)))
        return replace(call, faults=tuple((f"to[{index}]", "must be a string") for index in recipients))

    return make_broken_call


def unlisted_code(stage: Stage) -> None:
    """On Sunday the API refuses promotions with a code that no catalogue lists."""
    window = stage.between(2, "12:00", "20:00")
    refusal = Refusal("template_rejected", "The carrier rejected the template promo_autumn.")
    clients = []
    for number, user_agent in enumerate(("okhttp/4.12.0", "textwire-php/4.2.0 (PHP 8.3.12)", "Faraday v2.12.0") * 2):
        client = stage.customer(f"promoter_{number}", user_agent)
        rng = stage.rng(client.persona)
        go_on_for_a_working_week(stage, client, 110)
        promotion = Call(client, SEND, SEND.route, refusal=refusal)
        stage.play(steady(rng, window, 14 / 8 / 3600), partial(replace, promotion))
        clients.append(client)
    stage.plant(
        "template_rejected", "contract_drift", "unknown code", *clients, window=window, codes=("template_rejected",)
    )


def gateway_faults(stage: Stage) -> None:
    """A deploy that leaves the gateway alone for two minutes, a report that is too slow and a client that hangs up."""
    rng, deploy = stage.rng("gateway faults"), stage.between(0, "16:00", "16:02")
    stage.sim.deploys.append(deploy)
    stage.plant("deploy without a drain", "platform_incidents", "gateway 502", window=deploy)
    report = stage.customer("slow_report", "monthly-report/1.0")
    impatient = stage.customer("impatient_client", "textwire-mobile/7.1 (iOS 18.1)")
    months = asking(report, REPORT, args="months=36")
    stage.play(every(rng, stage.window, 30 * MINUTE, jitter_ms=MINUTE), months, giving_up)
    hurried = asking(impatient, REPORT, args="months=36", timeout_ms=10 * SECOND)
    stage.play(every(rng, stage.window, 3 * HOUR, jitter_ms=20 * MINUTE), hurried, backing_off(rng))
    nothing = Call(stage.client("scanner", None, ""), replace(SEND, method=""), "")
    stage.play(every(rng, stage.window, DAY // 2, jitter_ms=HOUR), lambda: nothing)


def limited(client: Client, per_minute: int) -> Client:
    """The client with a tight limit on its key."""
    return replace(client, key=replace(key_of(client), per_minute=per_minute))


SCENES: Final[tuple[Callable[[Stage], None], ...]] = (
    platform_outage,
    rate_limits,
    scheduled_bursts,
    credit_outage,
    new_sdk_version,
    unlisted_code,
    gateway_faults,
)
