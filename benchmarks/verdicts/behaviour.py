"""What is true of any log whose true requests are known: verdicts that follow from what a client did, whoever it is.

The definitions are those of the questions, computed from true chains, which no log has. Where a client lies near a
threshold, either verdict is right: then it may be said and need not be.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Final, TypeVar

from benchmarks.verdicts.scoring import Expectation, Span
from benchmarks.verdicts.true_requests import Retry, TrueRequest, TrueRequests, moment

Item = TypeVar("Item")

RETRYABLE: Final = frozenset({"internal_error", "rate_limited", "idempotency_in_progress"})
TIGHT_S: Final = 0.1


def expectations(true: TrueRequests) -> Iterator[Expectation]:
    """Every verdict of this kind."""
    yield from storms(true)
    yield from limits(true)


def storms(true: TrueRequests) -> Iterator[Expectation]:
    """Who repeats faults without backing off: required of whoever does so at once and 50 times, at 10 a second.

    Whoever repeats them 20 times at a pause that does not grow is named rightly too, should others have made a storm.
    """
    of_faults = (retry for retry in true.retries if is_fault(retry.earlier))
    for caller, retries in grouped(of_faults, lambda retry: retry.later.caller).items():
        grows = median(growths(retries) or [1.0])
        pause_s = median(retry.gap_s for retry in retries)
        if len(retries) < 20 or (grows >= 1.3 and pause_s >= TIGHT_S):
            continue
        is_required = pause_s < TIGHT_S and densest(retries, 50) <= 5
        reason = f"{len(retries)} retries of faults, median pause {pause_s:.2f} s, growing {grows:.2f} times"
        yield Expectation("retry_storms", "storm", caller, span_of(retries), "storm", reason, is_required)


def limits(true: TrueRequests) -> Iterator[Expectation]:
    """What limits count: the key of whoever has one, the address of whoever has none."""
    limited = [request for request in true.requests if request.code == "rate_limited"]
    for caller, refused in grouped(limited, lambda request: request.caller).items():
        per = "ip" if refused[0].key_id is None else "key"
        span = Span(moment(refused[0].start_epoch), moment(refused[-1].end_epoch))
        yield Expectation(
            "rate_limit_hot_spots", f"limited per {per}", caller, span, "limited", f"{len(refused)} times"
        )


def is_fault(request: TrueRequest) -> bool:
    """Whether the platform or its gateway failed."""
    return request.code == "internal_error" or (request.status or 0) >= 500


def growths(retries: Iterable[Retry]) -> list[float]:
    """Each pause of a chain in the one before it."""
    found = []
    for chain in grouped(retries, lambda retry: retry.later.chain).values():
        pauses = [max(retry.gap_s, 1e-3) for retry in sorted(chain, key=lambda retry: retry.later.attempt)]
        found += [later / earlier for earlier, later in pairwise(pauses)]
    return found


def densest(retries: Sequence[Retry], count: int) -> float:
    """The shortest time, in seconds, in which `count` of them began."""
    starts = sorted(retry.later.start_epoch for retry in retries)
    pairs = zip(starts, starts[count - 1 :], strict=False)
    return min((last - first for first, last in pairs), default=float("inf"))


def span_of(retries: Sequence[Retry]) -> Span:
    """From the first failure to the end of the last retry."""
    return Span(
        moment(min(retry.earlier.start_epoch for retry in retries)),
        moment(max(retry.later.end_epoch for retry in retries)),
    )


def grouped(items: Iterable[Item], key: Callable[[Item], object]) -> Mapping[str, list[Item]]:
    """`items` by what `key` says of them, as text."""
    groups: defaultdict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[str(key(item))].append(item)
    return groups
