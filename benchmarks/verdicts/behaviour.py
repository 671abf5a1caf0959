"""What is true of any log whose true requests are known: verdicts that follow from what a client did, whoever it is.

The definitions are those of the questions, computed from true chains, which no log has. Where a client lies near a
threshold, either verdict is right: then it may be said and need not be.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import fmean, median, pstdev
from typing import Final, NamedTuple, TypeVar

from benchmarks.verdicts.scoring import Expectation, Span
from benchmarks.verdicts.true_requests import Retry, TrueRequest, TrueRequests, moment

Item = TypeVar("Item")

RETRYABLE: Final = frozenset({"internal_error", "rate_limited", "idempotency_in_progress"})
TIGHT_S: Final = 0.1
TOLERANCE_S: Final = 0.25
ENOUGH: Final = 20
# A habit: at least this part of the failures that it can show on. Below the second part, nobody should say so.
HABIT: Final = 0.5
TRACE: Final = 0.05


def expectations(true: TrueRequests, known: Collection[Expectation]) -> Iterator[Expectation]:
    """Every verdict of this kind, where `known` is what is true besides."""
    yield from storms(true)
    yield from limits(true)
    yield from faults(true)
    yield from limit_causes(true, known)
    yield from discipline(true)
    yield from idempotency(true)
    yield from refused_keys(true)
    yield from lost(true, {item.subject for item in known if item.verdict == "probe"})


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


def limit_causes(true: TrueRequests, known: Collection[Expectation]) -> Iterator[Expectation]:
    """Why each run of refusals came about, where no schedule and no sibling is `known` to be the cause."""
    retried = {retry.later.seq for retry in true.retries}
    limited = [request for request in true.requests if request.code == "rate_limited"]
    causes = [item for item in known if item.verdict in ("scheduled", "noisy sibling")]
    for caller, refused in grouped(limited, lambda request: request.caller).items():
        for run in runs(sorted(refused, key=lambda request: request.start_epoch), apart_s=60):
            length_s, retries = run[-1].start_epoch - run[0].start_epoch, sum(one.seq in retried for one in run)
            span, share = Span(moment(run[0].start_epoch), moment(run[-1].end_epoch)), retries / len(run)
            if any(item.subject == caller and item.span.touches(span) for item in causes) and len(run) >= 5:
                continue
            reason = f"{len(run)} refused in {length_s:.0f} s, {share:.0%} of them retries"
            # A few without keys: nobody can tell those that are retries.
            is_told = all(one.idempotency_key for one in run) or len(run) >= 2 * ENOUGH
            is_fresh = share <= 0.6 or not is_told
            for cause, is_true, is_clear in (
                ("self-inflicted", share >= 0.4, share >= 0.6 and is_told),
                ("burst", is_fresh and length_s <= 12, share <= 0.4 and length_s <= 8 and is_told),
                ("sustained", is_fresh and length_s >= 8, share <= 0.4 and length_s >= 12 and is_told),
            ):
                if is_true:
                    yield Expectation("rate_limit_causes", cause, caller, span, "cause", reason, is_clear)


def runs(requests: Sequence[TrueRequest], *, apart_s: float) -> Iterator[list[TrueRequest]]:
    """`requests`, in the order of their starts, cut where two lie further apart."""
    run: list[TrueRequest] = []
    for request in requests:
        if run and request.start_epoch - run[-1].start_epoch > apart_s:
            yield run
            run = []
        run.append(request)
    if run:
        yield run


def discipline(true: TrueRequests) -> Iterator[Expectation]:
    """How each caller takes failures, in the words of `retry_discipline`."""
    of_caller = grouped(true.requests, lambda request: request.caller)
    for caller, retries in grouped(true.retries, lambda retry: retry.later.caller).items():
        span = span_of(retries)
        shown = list(habits(retries, of_caller[caller]))
        for habit in shown:
            if habit.share >= TRACE:
                is_required = habit.share >= HABIT and habit.chances >= ENOUGH and is_audible(habit.retries)
                yield Expectation("retry_discipline", habit.name, caller, span, "habit", str(habit), is_required)
        for verdict, is_clear in backoffs(retries):
            reason = f"pauses grow {median(growths(retries) or [0.0]):.2f} times"
            yield Expectation("retry_discipline", verdict, caller, span, "backoff", reason, is_clear)
        if all(habit.share < HABIT or habit.chances < ENOUGH for habit in shown):
            # Who could praise a client whose retries the log cannot tell from fresh requests?
            known = [retry for retry in retries if retry.earlier.idempotency_key]
            told = [retry for retry in known if retry.earlier.code == "rate_limited" and retry.earlier.retry_after]
            grows = median(growths(retry for retry in known if is_fault(retry.earlier)) or [0.0])
            is_clear = len(told) >= ENOUGH or (len(known) >= 3 * ENOUGH and grows >= 1.6)
            is_clear &= all(habit.share < TRACE for habit in shown)
            yield Expectation("retry_discipline", "well-behaved", caller, span, "manners", f"{grows:.2f}", is_clear)
    idle = of_caller.keys() - {retry.later.caller for retry in true.retries}
    for caller in sorted(idle):
        yield Expectation("retry_discipline", "does not retry", caller, true.span, "manners", "no retry", False)


def is_audible(retries: Sequence[Retry]) -> bool:
    """Whether a log tells these from fresh requests: by Idempotency-Keys, or a hundred by one and the same pause."""
    if all(retry.earlier.idempotency_key for retry in retries):
        return True
    pause_s = median(retry.gap_s for retry in retries)
    same = sum(abs(retry.gap_s - pause_s) <= 0.25 * pause_s for retry in retries)
    return len(retries) >= 5 * ENOUGH and same >= 0.8 * len(retries)


class Habit(NamedTuple):
    """What a caller does after a part of the failures that it could do it after."""

    name: str
    retries: Sequence[Retry]
    chances: int

    @property
    def times(self) -> int:
        """How often."""
        return len(self.retries)

    @property
    def share(self) -> float:
        """The part."""
        return self.times / self.chances if self.chances else 0.0

    def __str__(self) -> str:
        return f"{self.times} times of {self.chances}"


def habits(retries: Sequence[Retry], requests: Iterable[TrueRequest]) -> Iterator[Habit]:
    """The bad ones, whether it has them or not."""
    told = [retry for retry in retries if retry.earlier.code == "rate_limited" and retry.earlier.retry_after]
    early = [retry for retry in told if retry.gap_s < (retry.earlier.retry_after or 0) - TOLERANCE_S]
    yield Habit("ignores Retry-After", early, len(told))
    hopeless = [request for request in requests if request.code and request.code not in RETRYABLE]
    futile = [retry for retry in retries if retry.earlier.code and retry.earlier.code not in RETRYABLE]
    yield Habit("futile repeats", futile, len(hopeless))
    of_faults = [retry for retry in retries if is_fault(retry.earlier)]
    grow = median(growths(of_faults) or [1.0]) >= 1.3
    hasty = [retry for retry in of_faults if retry.gap_s < 1 and retry.later.attempt > 2 and not grow]
    yield Habit("tight loop", hasty, len(of_faults))


def backoffs(retries: Sequence[Retry]) -> Iterator[tuple[str, bool]]:
    """The words for how the pauses of a caller develop, and whether each is clear; between two words, both fit.

    None is clear where a log cannot know what is a retry, without Idempotency-Keys.
    """
    free = [retry for retry in retries if not retry.earlier.retry_after and retry.earlier.code]
    grown = growths(free)
    if len(free) < 5:
        return
    # A client that uses its keys again for other things muddles its chains.
    is_known = all(r.earlier.idempotency_key and r.earlier.code != "idempotency_key_reused" for r in free)
    pause_s, grows = median(retry.gap_s for retry in free), median(grown or [0.0])
    is_enough = is_known and len(grown) >= 2 * ENOUGH
    for word, low, high in (("collapsing", 0.0, 0.5), ("fixed", 0.9, 1.1), ("exponential", 1.5, 99.0)):
        is_clear = low * 1.1 < grows < high * 0.9 if word != "fixed" else 0.95 < grows < 1.05
        if grown and low * 0.9 <= grows <= high * 1.1:
            yield word, is_enough and is_clear and (pause_s >= 1.2 or word == "exponential")
    if pause_s < 1.2 and grows < 1.5 and len(free) >= ENOUGH:
        yield "immediate", is_known and len(free) >= 2 * ENOUGH and pause_s < 0.8 and grows < 1.3
    yield "irregular", False
    spread = pstdev(retry.gap_s for retry in free) / fmean(retry.gap_s for retry in free)
    if spread < 0.06:
        yield "lockstep", is_known and len(free) >= 2 * ENOUGH and spread < 0.04


def idempotency(true: TrueRequests) -> Iterator[Expectation]:
    """Who repeats a POST without a key after a fault, and who sends a request again before its first answer."""
    unsafe = [
        retry
        for retry in true.retries
        if is_fault(retry.earlier) and retry.later.method == "POST" and not retry.earlier.idempotency_key
    ]
    question = "idempotency_misuse"
    for caller, retries in grouped(unsafe, lambda retry: retry.later.caller).items():
        # No key, no retry that the log would know: who is planted as one must be found, of the others it may be said.
        reason = f"{len(retries)} retries of a POST without a key"
        yield Expectation(question, "retried without a key", caller, span_of(retries), "unsafe", reason, False)
    twice = [one for one in true.requests if one.code == "idempotency_in_progress" and one.attempt == 1]
    for caller, refused in grouped(twice, lambda request: request.caller).items():
        span = Span(moment(refused[0].start_epoch), moment(refused[-1].end_epoch))
        reason = f"{len(refused)} sent before the first was answered"
        yield Expectation(question, "concurrent duplicates", caller, span, "twice", reason, is_required=False)


def refused_keys(true: TrueRequests) -> Iterator[Expectation]:
    """Who was refused for its key and never accepted: true, though there may be more to say."""
    for caller, requests in grouped(true.requests, lambda request: request.caller).items():
        refused = [request for request in requests if request.code == "invalid_api_key"]
        if refused and all((request.status or 0) >= 400 for request in requests):
            span = Span(moment(refused[0].start_epoch), moment(refused[-1].end_epoch))
            reason = f"{len(refused)} calls refused, none accepted"
            yield Expectation("rejected_keys", "never worked", caller, span, "refused", reason, is_required=False)


def lost(true: TrueRequests, probes: Collection[str]) -> Iterator[Expectation]:
    """Who asks for what is not there: stale references of everybody who does not probe, and crawlers without a key."""
    not_found = [request for request in true.requests if request.code == "not_found" and request.caller not in probes]
    for caller, requests in grouped(not_found, lambda request: request.caller).items():
        is_keyless = requests[0].key_id is None
        verdict = "crawler" if is_keyless and len({r.path for r in requests}) >= 3 else "stale references"
        span = Span(moment(requests[0].start_epoch), moment(requests[-1].end_epoch))
        reason = f"{len(requests)} not found"
        yield Expectation("enumeration", verdict, caller, span, "lost", reason, is_required=False)


def faults(true: TrueRequests) -> Iterator[Expectation]:
    """Stretches in which the platform failed at least five times, never ten seconds apart: required from fifty on.

    Whoever calls one an incident is right as to the time. Whether it was more than usual, a plan says.
    """
    failed = sorted((one for one in true.requests if is_fault(one)), key=lambda request: request.start_epoch)
    for run in runs(failed, apart_s=10):
        if len(run) >= 5:
            span = Span(moment(run[0].start_epoch), moment(run[-1].end_epoch))
            # What fills a quarter of the log is its usual state, as far as the log tells.
            is_clear = len(run) >= 50 and 4 * (span.end - span.start) < true.span.end - true.span.start
            reason = f"{len(run)} faults"
            yield Expectation("platform_incidents", "platform fault", "platform", span, "faults", reason, is_clear)


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
