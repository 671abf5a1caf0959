"""What changes on the API's side or from one day to the next: its contract, a release, a cell that triples."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Final

from benchmarks.traffic.api import Drift, Outage
from benchmarks.traffic.calls import ADD_CONTACT, DNC, LIST_MESSAGES, NUMBERS, READ_CONTACT, SEND, Call, Client, Refusal
from benchmarks.traffic.clients import Maker, asking
from benchmarks.traffic.clock import MINUTE, Window, every, steady
from benchmarks.traffic.everyday import go_on_for_a_working_week
from benchmarks.traffic.stage import Stage
from benchmarks.traffic.trouble import limited

DRIFTS: Final = {
    "status": "status differs from the catalogue",
    "no_request_id": "request_id missing",
    "docs_url": "docs_url of another code",
    "no_envelope": "error without an envelope",
    "no_retry_after": "rate_limited without Retry-After",
}


def contract_drift(stage: Stage) -> None:
    """Five answers that break the contract, each on one route from one moment on."""
    rng = stage.rng("contract drift")
    for endpoint, code, way, status in (
        (ADD_CONTACT, "validation_failed", "status", 422),
        (READ_CONTACT, "not_found", "no_request_id", None),
        (SEND, "opted_out", "docs_url", None),
        (DNC, "internal_error", "no_envelope", None),
        (LIST_MESSAGES, "rate_limited", "no_retry_after", None),
    ):
        start_ms = stage.at(3, "00:00") + rng.randrange(8 * 60) * MINUTE
        window = Window(start_ms, stage.window.end_ms)
        stage.sim.api.drifts.append(Drift(window, endpoint, code, way, status))
        verdict, codes = DRIFTS[way], () if way == "no_envelope" else (code,)
        route = f"{endpoint.method} {endpoint.route}"
        stage.plant(f"{way} of {code}", "contract_drift", verdict, window=window, codes=codes, route=route)
    # Faults of DNC and limits of LIST_MESSAGES are too rare on ordinary days to be seen.
    lists_fail = stage.between(3, "09:00", "09:30")
    stage.sim.api.outages.append(Outage(lists_fail, DNC, 0.7))
    stage.plant("lists fail", "platform_incidents", "platform fault", window=lists_fail, route=f"GET {DNC.route}")
    reader = stage.customer("reads_the_do_not_contact_list", "suppress-sync/1.1")
    stage.play(every(rng, stage.window, 2 * MINUTE, jitter_ms=MINUTE), asking(reader, DNC))
    lister = limited(stage.customer("lists_too_fast", "inbox-view/2.0"), 20)
    stage.play(steady(rng, stage.between(3, "10:00", "10:20"), 0.7), asking(lister, LIST_MESSAGES))


def tripled(stage: Stage) -> None:
    """A customer's mistakes that triple on the last day, and a code that its key never met before."""
    rng = stage.rng("tripled")
    client = stage.customer("mistakes_triple", "intake-form/4.0")
    go_on_for_a_working_week(stage, client, 80)
    usual = every(rng, stage.window, rng.randrange(18, 26) * MINUTE, jitter_ms=9 * MINUTE)
    stage.play(usual, mistaken(client))
    last_day = stage.since(4)
    more = every(rng, last_day, rng.randrange(6, 10) * MINUTE, jitter_ms=3 * MINUTE)
    stage.play(more, mistaken(client))
    codes = ("validation_failed",)
    stage.plant(
        "mistakes triple", "what_changed", "UP", client, window=last_day, codes=codes, route="POST /v1/contacts"
    )


def mistaken(client: Client) -> Maker:
    """New contacts without a phone number."""
    numbers, call = count(1), Call(client, ADD_CONTACT, ADD_CONTACT.route, faults=(("phone", "required"),))
    return lambda: replace(call, content=next(numbers))


def refused_by_mistake(stage: Stage) -> None:
    """A release of the API that takes the good for bad: for half an hour nobody may list numbers."""
    rng = stage.rng("refused by mistake")
    start_ms = stage.at(3, "10:30") + rng.randrange(3 * 60) * MINUTE
    window = Window(start_ms, start_ms + 30 * MINUTE)
    refusal = Refusal("validation_failed", "1 field is not valid.", (("cursor", "required"),))
    stage.sim.api.outages.append(Outage(window, NUMBERS, 0.95, refusal))
    for number in range(14):
        client = stage.customer(f"lists_numbers_{number}", "textwire-go/0.18.3")
        go_on_for_a_working_week(stage, client, 30)
        stage.play(every(rng, stage.window, 7 * MINUTE, jitter_ms=3 * MINUTE), asking(client, NUMBERS))
    codes = ("validation_failed",)
    stage.plant(
        "good calls refused", "blame_split", "platform suspected", window=window, codes=codes, route="GET /v1/numbers"
    )


SCENES: Final[tuple[Callable[[Stage], None], ...]] = (contract_drift, tripled, refused_by_mistake)
