"""What is true of a capture: of a load test whose clients are known by kind, not planted as incidents.

What follows from the answers that a client got is told by them. What only its makers know, who guesses and who crawls,
is told by the kind of client, the `persona` of the truth.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from benchmarks.verdicts.behaviour import grouped
from benchmarks.verdicts.scoring import Expectation, Span
from benchmarks.verdicts.true_requests import TrueRequest, TrueRequests, moment

# persona -> what should be said of its callers: question, verdict, and the code that its errors have.
PERSONAS: Final[Mapping[str, tuple[tuple[str, str, str], ...]]] = {
    "personal_key_probe": (("scope_misuse", "personal key", "scope_invalid"),),
    "readonly_key_writes": (("scope_misuse", "missing grant", "insufficient_scope"),),
    "cross_tenant_enum": (("enumeration", "probe", "not_found"),),
    "dev_fuzz": (("enumeration", "typo'd route", "not_found"),),
    "missing_key_crawler": (("keyless_callers", "crawler", "missing_api_key"),),
    "scanner": (("keyless_callers", "scanner", "missing_api_key"),),
    "wrong_key": (
        ("rejected_keys", "placeholder", "invalid_api_key"),
        ("rejected_keys", "guessing", "invalid_api_key"),
    ),
    "idempotency_reuse": (("idempotency_misuse", "constant key across bodies", "idempotency_key_reused"),),
    "concurrent_duplicates": (("idempotency_misuse", "concurrent duplicates", "idempotency_in_progress"),),
    "optout_blaster": (("blocked_resends", "spike", "opted_out"),),
    "retries_nonretryable": (("blocked_resends", "repeats", "dnc_blocked"),),
}


def expectations(true: TrueRequests) -> Iterator[Expectation]:
    """What is true besides what `behaviour` tells."""
    for persona, verdicts in PERSONAS.items():
        for question, verdict, code in verdicts:
            for caller, refused in grouped(true.of(persona=persona, code=code), lambda r: r.caller).items():
                yield Expectation(question, verdict, caller, span_of(refused), persona, f"{len(refused)} {code}")
    for org, refused in grouped(true.of(code="insufficient_credits"), lambda r: r.org).items():
        yield Expectation("credit_outages", "outage", org, span_of(refused), "credits", f"{len(refused)} refused")
    for org, refused in grouped(true.of(code="approval_required"), lambda r: r.org).items():
        yield Expectation("approval_dwell", "waiting", org, span_of(refused), "approval", f"{len(refused)} refused")
    for key_id, refused in grouped(true.of(code="invalid_api_key"), lambda r: r.key_id).items():
        if key_id != "None":
            reason = f"{len(refused)} calls with a key that the API knows and takes no more"
            yield Expectation("rejected_keys", "retired", key_id, span_of(refused), "retired", reason)


def span_of(requests: list[TrueRequest]) -> Span:
    """From the first start to the last end."""
    first, last = min(r.start_epoch for r in requests), max(r.end_epoch for r in requests)
    return Span(moment(first), moment(last))
