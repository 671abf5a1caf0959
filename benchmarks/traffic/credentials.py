"""What clients do wrong with keys and scopes, or without a key."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import cycle
from typing import Final

from benchmarks.traffic.calls import (
    ADD_CONTACT,
    ALL_SCOPES,
    CAMPAIGN,
    DNC,
    LIST_MESSAGES,
    NUMBERS,
    RAW_NUMBERS,
    SEND,
    USAGE,
    Call,
    Client,
    Endpoint,
    key_of,
    unknown_route,
)
from benchmarks.traffic.clients import asking, path_of, sending
from benchmarks.traffic.clock import HOUR, MINUTE, SECOND, bursts, daily, every, steady
from benchmarks.traffic.everyday import go_on_for_a_working_week, in_turn
from benchmarks.traffic.stage import Stage

READ_ONLY: Final = frozenset({"messages:read", "numbers:read", "usage:read"})
PROBED: Final = (
    *(DNC, RAW_NUMBERS, USAGE, ADD_CONTACT, CAMPAIGN, SEND),
    *(
        Endpoint("GET", f"/v1/{name}", f"{name}:read")
        for name in ("webhooks", "billing", "members", "audit", "exports")
    ),
    *(Endpoint("DELETE", f"/v1/{name}", f"{name}:write") for name in ("contacts", "keys")),
)
CRAWLED: Final = (
    "/",
    "/.env",
    "/robots.txt",
    "/wp-login.php",
    "/api/swagger.json",
    "/.git/config",
    "/v1/messages",
    "/v1/numbers",
)


def missing_scopes(stage: Stage) -> None:
    """A read-only key that writes beside a key that may, a key that never had its grant, and one that lost it."""
    rng = stage.rng("scopes")
    owner = stage.customer("scope_owner", "textwire-python/2.7.1 (CPython 3.12.4; Linux)")
    go_on_for_a_working_week(stage, owner, 150)
    read_only = stage.key("read only", key_of(owner).org, READ_ONLY)
    dashboard = stage.client("readonly_key_writes", read_only, "grafana-panel/1.8")
    stage.play(every(rng, stage.window, 12 * MINUTE, jitter_ms=MINUTE), asking(dashboard, LIST_MESSAGES))
    stage.play(every(rng, stage.window, 35 * MINUTE, jitter_ms=5 * MINUTE), sending(dashboard, rng))

    bridge = stage.customer("missing_grant", "crm-bridge/0.7")
    bridge = replace(bridge, key=replace(key_of(bridge), scopes=ALL_SCOPES - {"contacts:write"}))
    stage.play(every(rng, stage.window, 20 * MINUTE, jitter_ms=MINUTE), asking(bridge, NUMBERS))
    stage.play(every(rng, stage.window, 40 * MINUTE, jitter_ms=9 * MINUTE), asking(bridge, ADD_CONTACT))

    lost_ms = stage.at(3, "09:12")
    biller = stage.customer("lost_grant", "billing-sync/4.1")
    biller = replace(biller, key=replace(key_of(biller), lost=("usage:read", lost_ms)))
    stage.play(every(rng, stage.window, 15 * MINUTE, jitter_ms=MINUTE), asking(biller, USAGE))
    stage.play(every(rng, stage.window, 50 * MINUTE, jitter_ms=MINUTE), asking(biller, NUMBERS))

    for client, verdict, window in (
        (dashboard, "wrong key", stage.window),
        (bridge, "missing grant", stage.window),
        (biller, "regression", stage.since(3, "09:12")),
    ):
        name = client.persona.replace("_", " ")
        stage.plant(name, "scope_misuse", verdict, client, window=window, codes=("insufficient_scope",))


def personal_key(stage: Stage) -> None:
    """An employee's own key that asks for what belongs to the organisation, and works for all else."""
    rng = stage.rng("personal key")
    client = stage.customer("personal_key", "PostmanRuntime/7.42.0")
    client = replace(client, key=replace(key_of(client), is_personal=True))
    refused = [asking(client, endpoint) for endpoint in (DNC, USAGE, RAW_NUMBERS)]
    stage.play(every(rng, stage.window, 45 * MINUTE, jitter_ms=20 * MINUTE), in_turn(refused))
    stage.play(daily(rng, stage.window, 40), asking(client, LIST_MESSAGES))
    stage.plant("personal key", "scope_misuse", "personal key", client, window=stage.window, codes=("scope_invalid",))


def prober(stage: Stage) -> None:
    """Half an hour at night in which one key tries every door."""
    rng, window = stage.rng("prober"), stage.between(1, "02:10", "02:40")
    client = stage.customer("prober", "python-requests/2.31.0")
    client = replace(client, key=replace(key_of(client), scopes=frozenset({"messages:read"})))
    victim = stage.org("customer 0").org_id
    calls = cycle([Call(client, endpoint, path_of(endpoint, victim), owner=victim) for endpoint in PROBED])
    stage.play(every(rng, window, 10 * SECOND, jitter_ms=4 * SECOND), lambda: next(calls))
    stage.plant("doors tried at night", "scope_misuse", "probing", client, window=window, codes=("insufficient_scope",))


def rejected_keys(stage: Stage) -> None:
    """A key that worked until it expired, keys copied from a tutorial, and keys that somebody guesses."""
    rng = stage.rng("keys")
    renewed = stage.customer("renewed_key", "nightly-sync/2.2")
    stage.play(every(rng, stage.since(1, "20:00"), 10 * MINUTE, jitter_ms=MINUTE), asking(renewed, LIST_MESSAGES))
    old_key = replace(stage.key("retired key", key_of(renewed).org), retired_ms=stage.at(2, "00:00"))
    forgotten = stage.client("retired_key", old_key, "nightly-sync/2.1")
    stage.play(every(rng, stage.window, 10 * MINUTE, jitter_ms=MINUTE), asking(forgotten, LIST_MESSAGES))

    copied = stage.client("placeholder_key", None, "curl/8.9.1", presented="YOUR_API_KEY")
    unset = replace(copied, presented="undefined")
    office = stage.between(0, "13:00", "17:00")
    stage.play(steady(rng, office, 34 / 4 / 3600), in_turn([asking(copied, NUMBERS), asking(unset, NUMBERS)]))

    guesser, night = stage.client("key_guesser", None, "Go-http-client/2.0"), stage.between(2, "03:00", "03:20")

    def guess() -> Call:
        presented = f"sk_live_{rng.getrandbits(128):032x}"
        return Call(replace(guesser, presented=presented), LIST_MESSAGES, LIST_MESSAGES.route)

    stage.play(every(rng, night, 13 * SECOND, jitter_ms=4 * SECOND), guess)
    for client, verdict, window in (
        (forgotten, "retired", stage.since(2)),
        (copied, "placeholder", office),
        (guesser, "guessing", night),
    ):
        name = client.persona.replace("_", " ")
        stage.plant(name, "rejected_keys", verdict, client, window=window, codes=("invalid_api_key",))


def keyless(stage: Stage) -> None:
    """A crawler that has no key, and an integration that forgets its key on one of its paths."""
    rng = stage.rng("keyless")
    crawler = stage.client("crawler", None, "Mozilla/5.0 (compatible; PageHarvest/3.1; +https://harvest.example/bot)")
    pages = [partial(crawl, crawler, path) for path in CRAWLED]
    visits = every(rng, stage.window, 7 * HOUR, jitter_ms=3 * HOUR)
    stage.play(bursts(rng, visits, 32, 50 * SECOND), in_turn(pages))
    refused = ("missing_api_key", "not_found", "rate_limited")
    stage.plant("crawler", "keyless_callers", "crawler", crawler, window=stage.window, codes=refused)

    keyed = stage.customer("forgets_its_key", "shop-plugin/5.3")
    go_on_for_a_working_week(stage, keyed, 90)
    keyless_client = replace(keyed, key=None)
    stage.play(every(rng, stage.window, HOUR, jitter_ms=30 * MINUTE), asking(keyless_client, LIST_MESSAGES))
    codes = ("missing_api_key",)
    stage.plant("key forgotten", "keyless_callers", "misconfigured", keyless_client, window=stage.window, codes=codes)


def crawl(client: Client, path: str) -> Call:
    """A page of the site that a crawler takes the API for."""
    known = {endpoint.route: endpoint for endpoint in (LIST_MESSAGES, NUMBERS)}
    return Call(client, known.get(path, unknown_route("GET", path)), path)


SCENES: Final[tuple[Callable[[Stage], None], ...]] = (
    missing_scopes,
    personal_key,
    prober,
    rejected_keys,
    keyless,
)
