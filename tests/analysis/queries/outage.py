"""Clients of an API that fails for a while: what each would leave in the log, down to the millisecond.

A client is a list of rows. The API answers internal_error to what begins inside OUTAGE and succeeds otherwise.
"""

import random
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import Any, Final

from tests.analysis.queries.event_lake import Row, error, ok

Pauses = Callable[[], Iterator[float]]

OUTAGE: Final = (60.0, 66.0)
SPAN: Final = (45.0, 80.0)


def at_once() -> Iterator[float]:
    """The pauses of a tight loop."""
    return repeat(0.004)


def never() -> Iterator[float]:
    """The pauses of a client that does not retry."""
    return iter(())


def doubling(choose: random.Random, first_s: float = 0.3) -> Pauses:
    """The pauses of exponential backoff with jitter, five retries at most."""
    return lambda: (first_s * 2**turn * choose.uniform(0.8, 1.2) for turn in range(5))


def arrivals(choose: random.Random, per_second: float) -> list[float]:
    """Moments of a Poisson process of `per_second` within SPAN."""
    moments = []
    moment = SPAN[0] + choose.expovariate(per_second)
    while moment < SPAN[1]:
        moments.append(moment)
        moment += choose.expovariate(per_second)
    return moments


def client(
    choose: random.Random,
    key_id: str,
    starts: list[float],
    pauses: Pauses = never,
    *,
    outage: tuple[float, float] = OUTAGE,
    has_idempotency_keys: bool = False,
    **fields: Any,
) -> list[Row]:
    """Each intent of `starts` is tried, and as long as it fails tried again after the next of `pauses`."""
    rows = []
    for number, moment in enumerate(starts):
        keys = {"idempotency_hash": f"{key_id}-{number}"} if has_idempotency_keys else {}
        for pause in chain((0.0,), pauses()):
            moment += pause
            row = answer(choose, moment, outage, key_id=key_id, **fields | keys)
            rows.append(row)
            moment += row["latency_ms"] / 1000
            if not row["is_error"]:
                break
    return rows


def bulk_sender(choose: random.Random, key_id: str, **fields: Any) -> list[Row]:
    """A client that sends one request after the other, whatever the answer was."""
    rows = []
    moment = SPAN[0]
    while moment < SPAN[1]:
        row = answer(choose, moment, OUTAGE, key_id=key_id, **fields)
        rows.append(row)
        moment += row["latency_ms"] / 1000 + 0.005
    return rows


def answer(choose: random.Random, start: float, outage: tuple[float, float], **fields: Any) -> Row:
    """What the log holds of a request that began at `start`."""
    latency_ms = float(choose.randrange(10, 20))
    end = round(start, 3) + latency_ms / 1000
    made = {"latency_ms": latency_ms, "org_id": "org_a", "request_id": f"req_{fields['key_id']}_{end:.3f}"} | fields
    if outage[0] <= start < outage[1]:
        return error(end, "internal_error", **made)
    return ok(end, **made)


def limited(choose: random.Random, key_id: str, starts: list[float], per_second: float) -> list[Row]:
    """A client that does not retry, of which a token bucket of `per_second` lets only so many through."""
    rows = []
    tokens, before = 1.0, 0.0
    for moment in starts:
        tokens, before = min(tokens + (moment - before) * per_second, 1.0), moment
        if tokens >= 1:
            tokens -= 1
            rows.append(answer(choose, moment, OUTAGE, key_id=key_id))
        else:
            rows.append(error(round(moment, 3) + 0.001, "rate_limited", key_id=key_id, latency_ms=1.0, org_id="org_a"))
    return rows
