"""Callers without a good key: scanners, crawlers, forgotten and guessed keys; and ids that are tried at random."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Final

from benchmarks.traffic.calls import (
    ADD_CONTACT,
    DNC,
    LIST_MESSAGES,
    NUMBERS,
    READ_CONTACT,
    USAGE,
    Call,
    key_of,
    unknown_route,
)
from benchmarks.traffic.clients import asking, path_of, sending
from benchmarks.traffic.clock import HOUR, MINUTE, Window, daily, every, steady
from benchmarks.traffic.credentials import PROBED, crawl
from benchmarks.traffic.everyday import go_on_for_a_working_week, in_turn
from benchmarks.traffic.stage import Stage

EXPLOITED: Final = (
    *(f"/{name}.php" for name in ("xmlrpc", "wp-login", "phpinfo", "shell", "config", "setup", "info", "test")),
    *(f"/{name}" for name in (".env", ".git/HEAD", ".aws/credentials", "actuator/env", "server-status", "debug")),
    *(f"/{name}/" for name in ("phpmyadmin", "adminer", "solr/admin", "manager/html", "cgi-bin", "jenkins")),
    *(f"/{site}/{name}" for site in ("old", "test", "staging") for name in ("backup.zip", "dump.sql", "config.bak")),
    *(f"/{version}/api-docs" for version in ("v1", "v2", "v3")),
)
PAGES: Final = ("/", "/robots.txt", "/sitemap.xml", "/docs", "/pricing", "/v1/messages", "/v1/numbers", "/blog")


def keyless(stage: Stage) -> None:
    """A scanner in a hurry, a crawler that takes its time, and an integration that never sends its key."""
    rng, codes = stage.rng("more keyless"), ("missing_api_key", "not_found", "rate_limited")
    scanner = stage.client("vulnerability_scanner", None, "Mozilla/5.0 zgrab/0.x")
    start_ms = stage.at(2, "20:00") + rng.randrange(3 * HOUR)
    scan = Window(start_ms, start_ms + 10 * MINUTE)
    paths = [partial(crawl, scanner, path) for path in rng.sample(EXPLOITED, len(EXPLOITED))]
    stage.play(islice(steady(rng, scan, rng.uniform(0.2, 4.0)), len(paths)), in_turn(paths))
    stage.plant("scanner", "keyless_callers", "scanner", scanner, window=scan, codes=codes)

    crawler = stage.client(
        "slow_crawler", None, "Mozilla/5.0 (compatible; SeedlingBot/2.0; +https://seedling.example/b)"
    )
    pages = [partial(crawl, crawler, path) for path in PAGES]
    visits = every(rng, stage.window, rng.randrange(10, 40) * MINUTE, jitter_ms=5 * MINUTE)
    stage.play(visits, in_turn(pages))
    stage.plant("slow crawler", "keyless_callers", "crawler", crawler, window=stage.window, codes=codes)

    unset = stage.client("key_never_set", None, "textwire-node/2.9.4 (node 22.11.0)")
    stage.play(every(rng, stage.window, rng.randrange(5, 30) * MINUTE, jitter_ms=MINUTE), sending(unset, rng))
    misconfigured = ("keyless_callers", "misconfigured")
    stage.plant("key never set", *misconfigured, unset, window=stage.window, codes=("missing_api_key",))


def rejected(stage: Stage) -> None:
    """Keys that went out of use and are still called with, once a minute and twice a day, and keys guessed slowly."""
    rng, codes = stage.rng("more rejected"), ("invalid_api_key",)
    for persona, day, clock, period_ms in (
        ("revoked_and_busy", 3, "15:00", MINUTE),
        ("expired_and_seldom", 1, "00:00", 5 * HOUR),
    ):
        client = stage.customer(persona, "sync-agent/3.3")
        old_key = replace(stage.key(f"{persona} old", stage.org(persona)), retired_ms=stage.at(day, clock))
        old = replace(client, key=old_key)
        stage.play(every(rng, stage.window, period_ms, jitter_ms=period_ms // 4), asking(old, LIST_MESSAGES))
        stage.plant(
            persona.replace("_", " "), "rejected_keys", "retired", old, window=stage.since(day, clock), codes=codes
        )

    guesser = stage.client("patient_guesser", None, "python-requests/2.32.3")

    def guess() -> Call:
        presented = f"{rng.choice(('sk_live_', 'ik_live_'))}{rng.getrandbits(128):032x}"
        return Call(replace(guesser, presented=presented), DNC, path_of(DNC, "acct-000000"))

    days = stage.between(1, "00:00", "20:00")
    stage.play(every(rng, days, rng.randrange(3, 9) * MINUTE, jitter_ms=MINUTE), guess)
    stage.plant("patient guesser", "rejected_keys", "guessing", guesser, window=days, codes=codes)

    unfilled = stage.client("template_never_filled", None, "textwire-python/2.7.1", presented="<your-api-key>")
    stage.play(daily(rng, stage.window, 30), in_turn([asking(unfilled, NUMBERS), asking(unfilled, USAGE)]))
    stage.plant("template never filled", "rejected_keys", "placeholder", unfilled, window=stage.window, codes=codes)


def lost_on_the_way(stage: Stage) -> None:
    """Ids tried at random by somebody who has few of them right, and a route of an API version that is gone."""
    rng, codes = stage.rng("lost on the way"), ("not_found",)
    prober = stage.customer("random_ids", "aiohttp/3.10.10")
    start_ms = stage.at(1, "22:00") + rng.randrange(HOUR)
    night = Window(start_ms, start_ms + rng.randrange(20, 70) * MINUTE)
    moments = steady(rng, night, rng.uniform(0.1, 0.5))
    stage.play(moments, lambda: Call(prober, READ_CONTACT, f"/v1/contacts/c{rng.getrandbits(40):010x}"))
    stage.plant("ids at random", "enumeration", "probe", prober, window=night, codes=codes)

    typist = stage.customer("wrong_path_in_a_loop", "cron-curl/1.0")
    go_on_for_a_working_week(stage, typist, 40)
    misspelt = unknown_route("GET", rng.choice(("/v1/mesages", "/v1/number", "/messages", "/v1/contact")))
    moments = every(rng, stage.window, rng.randrange(20, 50) * MINUTE, jitter_ms=MINUTE)
    stage.play(moments, lambda: Call(typist, misspelt, misspelt.route))
    stage.plant("wrong path", "enumeration", "typo'd route", typist, window=stage.window, codes=codes)


def doors(stage: Stage) -> None:
    """A key that tries a door an hour, a console that is refused at many and admitted at more, a key of another job."""
    rng, codes = stage.rng("doors"), ("insufficient_scope",)
    for persona, may, doors, period_ms in (
        ("one_door_an_hour", frozenset({"messages:read"}), PROBED[: rng.randrange(7, 12)], HOUR),
        ("admin_console", frozenset({"messages:read", "numbers:read", "usage:read"}), PROBED[3:9], 2 * HOUR),
    ):
        client = stage.customer(persona, "python-urllib3/2.2.3")
        client = replace(client, key=replace(key_of(client), scopes=may))
        tried = [asking(client, endpoint) for endpoint in doors if endpoint.scope not in may]
        stage.play(every(rng, stage.window, period_ms, jitter_ms=HOUR // 2), in_turn(tried))
        if persona == "admin_console":
            works = [asking(client, endpoint) for endpoint in (LIST_MESSAGES, NUMBERS, USAGE)]
            stage.play(daily(rng, stage.window, 90), in_turn(works))
            stage.plant_near_miss("admin console", "scope_misuse", "probing", client, window=stage.window)
            stage.plant("admin console", "scope_misuse", "missing grant", client, window=stage.window, codes=codes)
        else:
            stage.plant("one door an hour", "scope_misuse", "probing", client, window=stage.window, codes=codes)

    sender = stage.customer("sends_contacts_it_may", "crm-import/3.0")
    go_on_for_a_working_week(stage, sender, 200)
    scopes = frozenset({"messages:read", "messages:write", "usage:read"})
    wrong = stage.client(
        "sends_contacts_it_may_not", stage.key("wrong job", key_of(sender).org, scopes), "crm-form/3.0"
    )
    stage.play(daily(rng, stage.window, rng.randrange(15, 60)), asking(wrong, ADD_CONTACT))
    stage.play(daily(rng, stage.window, 60), sending(wrong, rng))
    stage.plant("key of the wrong job", "scope_misuse", "wrong key", wrong, window=stage.window, codes=codes)

    loser = stage.customer("loses_a_grant", "metrics-pull/2.5")
    lost_ms = stage.at(2, "00:00") + rng.randrange(40) * HOUR
    loser = replace(loser, key=replace(key_of(loser), lost=("dnc:read", lost_ms)))
    stage.play(every(rng, stage.window, rng.randrange(10, 50) * MINUTE, jitter_ms=5 * MINUTE), asking(loser, DNC))
    window = Window(lost_ms, stage.window.end_ms)
    stage.plant("grant lost", "scope_misuse", "regression", loser, window=window, codes=codes)

    employee = stage.customer("own_key_everywhere", "PostmanRuntime/7.43.0")
    employee = replace(employee, key=replace(key_of(employee), is_personal=True))
    stage.play(daily(rng, stage.window, rng.randrange(20, 90)), in_turn([asking(employee, e) for e in (DNC, USAGE)]))
    stage.play(daily(rng, stage.window, 20), sending(employee, rng))
    window = stage.window
    stage.plant("own key", "scope_misuse", "personal key", employee, window=window, codes=("scope_invalid",))


SCENES: Final[tuple[Callable[[Stage], None], ...]] = (keyless, rejected, lost_on_the_way, doors)
