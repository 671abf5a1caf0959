"""The scorecard of every client's retries: what is known of them and what their echo shows, with intervals, in words.

The definitions are those of the question's header; Wilson intervals by statsmodels.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final

import numpy as np
import pyarrow as pa
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

from analysis.echo import Echo, Requests, echo

Row = dict[str, Any]

_SCHEMA: Final = pa.schema(
    {
        "name": pa.string(),
        "org_id": pa.string(),
        "client": pa.string(),
        "verdict": pa.string(),
        "grade": pa.string(),
        "score": pa.float64(),
        "judged": pa.int64(),
        "wasted_requests": pa.int64(),
        "requests": pa.int64(),
        "retries": pa.int64(),
        "retry_share": pa.float64(),
        "told": pa.int64(),
        "retried_too_early": pa.int64(),
        "honoured_rate": pa.float64(),
        "honoured_low": pa.float64(),
        "honoured_high": pa.float64(),
        "futile": pa.int64(),
        "futile_repeats": pa.int64(),
        "futile_rate": pa.float64(),
        "futile_low": pa.float64(),
        "futile_high": pa.float64(),
        "hasty_retries": pa.int64(),
        "backoff": pa.string(),
        "median_growth": pa.float64(),
        "median_gap_s": pa.float64(),
        "is_lockstep": pa.bool_(),
        "chains": pa.int64(),
        "longest_chain": pa.int64(),
        "over_three": pa.float64(),
        "is_estimate": pa.bool_(),
        "example_request_ids": pa.list_(pa.string()),
        "sentence": pa.string(),
    }
)
_GRADES: Final = ((95, "A"), (85, "B"), (70, "C"), (50, "D"), (0, "F"))
_HABITS: Final = ("ignores Retry-After", "futile repeats", "tight loop")
_FOR_EVER_US: Final = 10**17
_LONGEST_US: Final = 300_000_000
_HASTY_S: Final = 1.0
# One retry each that fails again is half of all failures; more is a loop.
_LOOP_SHARE: Final = 0.6
_LEAST_GROWTHS: Final = 5
_LEAST_PAUSES: Final = 20
_NO_GROWTH: Final = frozenset({"collapsing", "fixed", "immediate"})


@dataclass(frozen=True)
class Record:
    """What one client did after its failures, all counted in requests."""

    name: str
    org_id: str | None
    client: str | None
    requests: int
    retries: float
    told: int
    too_early: float
    futile: int
    futile_repeats: float
    fault_retries: float
    quick: float
    hasty: float
    chains: int
    over_three: int
    longest_chain: int | None
    growths: tuple[tuple[float, int], ...]
    gaps: tuple[tuple[float, int], ...]
    is_lockstep: bool
    is_estimate: bool
    request_ids: tuple[str, ...]

    @property
    def median_growth(self) -> float | None:
        """Of the client programs' callers the weighted median; of one caller its own."""
        return _weighted_median(self.growths)

    @property
    def median_gap_s(self) -> float | None:
        """The same of its pauses."""
        return _weighted_median(self.gaps)

    @property
    def backoff(self) -> str | None:
        """How its pauses grow, in a word."""
        growth, gap = self.median_growth, self.median_gap_s
        if growth is not None and growth >= 1.5:
            return "exponential"
        if gap is not None and gap < _HASTY_S and sum(pauses for _, pauses in self.gaps) >= _LEAST_PAUSES:
            return "collapsing" if growth is not None and growth < 0.5 else "immediate"
        if growth is None:
            return None
        if growth < 0.5:
            return "collapsing"
        return "fixed" if 0.9 <= growth <= 1.1 else "irregular"

    @property
    def hasty_retries(self) -> float:
        """Retries within a second of a fault, where the pauses do not grow."""
        return self.hasty if self.backoff in _NO_GROWTH else 0.0

    @property
    def retried_rightly(self) -> float:
        """Retries after the wait that it was asked for, and of faults with growing or long pauses."""
        return self.told - self.too_early + self.fault_retries - (self.quick if self.backoff in _NO_GROWTH else 0.0)

    @property
    def judged(self) -> int:
        """Failures that showed something of its habits."""
        return self.told + self.futile + round(self.fault_retries)

    @property
    def wasted(self) -> int:
        """Requests that it should not have sent."""
        return round(self.too_early) + round(self.futile_repeats) + round(self.hasty_retries)


def judge(evidence: pa.Table, parameters: Mapping[str, object]) -> pa.Table:
    """A row for each caller, or each client program, the most wasteful first; columns as in the question's header."""
    min_chains, min_share = int(str(parameters["min_chains"])), float(str(parameters["min_share"]))
    tolerance_s = float(str(parameters["tolerance_s"]))
    records = [_record(row, min_chains, tolerance_s) for row in evidence.to_pylist()]
    if parameters["per"] == "client":
        records = _per_client(records)
    rows = [_row(record, min_chains, min_share) for record in records]
    rows.sort(key=lambda row: (-row["wasted_requests"], -row["judged"], row["name"] is None, row["name"] or ""))
    return pa.Table.from_pylist(rows, _SCHEMA)


def _record(row: Row, min_chains: int, tolerance_s: float) -> Record:
    known = Record(
        name=row["caller"],
        org_id=row["org_id"],
        client=row["client"],
        requests=row["requests"],
        retries=row["retries"],
        told=row["told"],
        too_early=row["too_early"],
        futile=row["known_futile"],
        futile_repeats=row["futile_repeats"],
        fault_retries=row["fault_retries"],
        quick=row["quick"],
        hasty=row["hasty"],
        chains=row["chains"],
        over_three=row["over_three"],
        longest_chain=row["longest_chain"],
        growths=_weighted(row["median_growth"], row["growths"]) if row["growths"] >= _LEAST_GROWTHS else (),
        gaps=_weighted(row["median_gap_s"], row["pauses"]),
        is_lockstep=row["gaps"] >= min_chains and row["gap_variation"] < 0.05,
        is_estimate=False,
        request_ids=tuple(row["request_ids"] or ()),
    )
    return _with_echoes(known, row["asked"], min_chains, tolerance_s) if row["asked"] else known


def _with_echoes(known: Record, asked: Sequence[Row], min_chains: int, tolerance_s: float) -> Record:
    """The record with what the echoes of the failures show that no key tells."""
    # DuckDB lists in any order: of what happened at once, the same request must be the example every time.
    asked = sorted(asked, key=lambda request: (request["start_us"], request["end_us"], request["request_id"] or ""))
    intents = {name: number for number, name in enumerate(sorted({request["intent"] for request in asked}))}
    first_us = min(request["start_us"] for request in asked)
    requests = Requests(
        intent=np.array([intents[request["intent"]] for request in asked]),
        start_us=np.array([request["start_us"] - first_us for request in asked]),
        end_us=np.array([request["end_us"] - first_us for request in asked]),
    )
    answered = np.array([request["answered"] for request in asked])
    waits = np.array([request["wait_s"] or 0.0 for request in asked])
    longest_us = np.full(len(asked), _LONGEST_US)
    too_long_us = np.clip((waits - tolerance_s) * 1e6, 0, _FOR_EVER_US).astype(np.int64)
    usual = answered == "success"

    def heard(kind: str, longest: np.ndarray[Any, np.dtype[np.int64]]) -> Echo | None:
        chosen = answered == kind
        return echo(requests, chosen, usual, longest) if chosen.sum() >= min_chains else None

    early, futile, fault = heard("told", too_long_us), heard("futile", longest_us), heard("fault", longest_us)
    if futile is not None and not _is_alike(futile, [request["code"] for request in asked]):
        futile = None
    if fault is not None and not usual.any():
        fault = None
    retried = [found.retried for found in (early, futile, fault) if found is not None]
    is_quick = fault is not None and fault.to_s <= _HASTY_S
    is_loop = is_quick and fault is not None and fault.share > _LOOP_SHARE
    return replace(
        known,
        retries=known.retries + sum(retried),
        told=known.told + (early.answers if early else 0),
        too_early=known.too_early + (early.retried if early else 0.0),
        futile=known.futile + (futile.answers if futile else 0),
        futile_repeats=known.futile_repeats + (futile.retried if futile else 0.0),
        fault_retries=known.fault_retries + (fault.retried if fault else 0.0),
        quick=known.quick + (fault.retried if fault and is_quick else 0.0),
        hasty=known.hasty + (fault.retried if fault and is_loop else 0.0),
        gaps=known.gaps + (_weighted((fault.from_s + fault.to_s) / 2, round(fault.retried)) if fault else ()),
        is_estimate=bool(retried),
        request_ids=known.request_ids or _examples(asked, early or futile or fault),
    )


def _is_alike(found: Echo, codes: Sequence[str | None]) -> bool:
    """Are the followers refused with the same code, more than what else the client asks? A retry cannot succeed."""
    alike = sum(codes[answer] == codes[follower] for answer, follower in found.pairs.tolist())
    usual = sum(code in {codes[answer] for answer, _ in found.pairs.tolist()} for code in codes) / len(codes)
    if usual >= 1 or alike < 0.8 * len(found.pairs):
        return False
    return bool(binomtest(alike, len(found.pairs), usual, alternative="greater").pvalue < 0.001)


def _examples(asked: Sequence[Row], found: Echo | None) -> tuple[str, ...]:
    if found is None:
        return ()
    followers = [asked[follower]["request_id"] for _, follower in found.pairs[-3:].tolist()]
    return tuple(request_id for request_id in followers if request_id is not None)


def _per_client(records: Iterable[Record]) -> list[Record]:
    """The records of each client program as one."""
    programs: dict[str | None, list[Record]] = {}
    for record in records:
        programs.setdefault(record.client, []).append(record)
    return [
        Record(
            name=client or "",
            org_id=None,
            client=client,
            requests=sum(record.requests for record in ran),
            retries=sum(record.retries for record in ran),
            told=sum(record.told for record in ran),
            too_early=sum(record.too_early for record in ran),
            futile=sum(record.futile for record in ran),
            futile_repeats=sum(record.futile_repeats for record in ran),
            fault_retries=sum(record.fault_retries for record in ran),
            quick=sum(record.quick for record in ran),
            hasty=sum(record.hasty for record in ran),
            chains=sum(record.chains for record in ran),
            over_three=sum(record.over_three for record in ran),
            longest_chain=max((record.longest_chain or 0 for record in ran), default=0) or None,
            growths=tuple(chain.from_iterable(record.growths for record in ran)),
            gaps=tuple(chain.from_iterable(record.gaps for record in ran)),
            is_lockstep=all(record.is_lockstep for record in ran),
            is_estimate=any(record.is_estimate for record in ran),
            request_ids=tuple(sorted(chain.from_iterable(record.request_ids for record in ran))[:3]),
        )
        for client, ran in programs.items()
    ]


def _row(record: Record, min_chains: int, min_share: float) -> Row:
    verdict = _verdict(record, min_chains, min_share)
    score = None if verdict == "not enough data" else max(100 * (1 - record.wasted / record.judged), 0.0)
    honoured = _interval(record.told - record.too_early, record.told)
    futile = _interval(record.futile_repeats, record.futile)
    row: Row = {
        "name": record.name,
        "org_id": record.org_id,
        "client": record.client,
        "verdict": verdict,
        "grade": None if score is None else next(grade for least, grade in _GRADES if score >= least),
        "score": score,
        "judged": record.judged,
        "wasted_requests": record.wasted,
        "requests": record.requests,
        "retries": round(record.retries),
        "retry_share": record.retries / record.requests,
        "told": record.told,
        "retried_too_early": round(record.too_early),
        "honoured_rate": honoured[0],
        "honoured_low": honoured[1],
        "honoured_high": honoured[2],
        "futile": record.futile,
        "futile_repeats": round(record.futile_repeats),
        "futile_rate": futile[0],
        "futile_low": futile[1],
        "futile_high": futile[2],
        "hasty_retries": round(record.hasty_retries),
        "backoff": record.backoff,
        "median_growth": record.median_growth,
        "median_gap_s": record.median_gap_s,
        "is_lockstep": record.is_lockstep,
        "chains": record.chains,
        "longest_chain": record.longest_chain,
        "over_three": record.over_three / record.chains if record.chains else None,
        "is_estimate": record.is_estimate,
        "example_request_ids": list(record.request_ids),
    }
    return row | {"sentence": " ".join(_sentences(row))}


def _verdict(record: Record, min_chains: int, min_share: float) -> str:
    shares = (
        (record.too_early, record.told),
        (record.futile_repeats, record.futile),
        (record.hasty_retries, round(record.fault_retries)),
    )
    habits = [
        habit
        for habit, (wrong, of) in zip(_HABITS, shares, strict=True)
        if of >= min_chains and wrong / of >= min_share
    ]
    if habits:
        return " + ".join(habits)
    if record.retried_rightly >= min_chains:
        return "well-behaved"
    return "does not retry" if record.judged >= min_chains and record.retries == 0 else "not enough data"


def _interval(count: float, of: int) -> tuple[float | None, float | None, float | None]:
    """count / of with its Wilson interval."""
    if of == 0:
        return None, None, None
    count = min(max(round(count), 0), of)
    low, high = proportion_confint(count, of, method="wilson")
    return count / of, float(low), float(high)


def _sentences(row: Row) -> Iterable[str]:
    if row["verdict"] == "not enough data":
        yield f"Only {row['judged']:,} failures show how {row['name']} retries: not enough data."
        return
    about = "an estimated " if row["is_estimate"] else ""
    if row["told"]:
        span = f"95 % interval {row['honoured_low']:.0%} to {row['honoured_high']:.0%}"
        yield (
            f"Of {row['told']:,} answers that asked {row['name']} to wait (Retry-After), {about}"
            f"{row['retried_too_early']:,} were tried again too early; it honoured {row['honoured_rate']:.0%} ({span})."
        )
    if row["futile"]:
        span = f"95 % interval {row['futile_low']:.0%} to {row['futile_high']:.0%}"
        yield (
            f"Of {row['futile']:,} answers to {row['name']} that no retry can change, {about}"
            f"{row['futile_repeats']:,} were tried again "
            f"unchanged, {row['futile_rate']:.0%} ({span})."
        )
    if row["hasty_retries"]:
        yield (
            f"{row['hasty_retries']:,} retries of {row['name']} came within a second of a server error, without "
            "growing pauses."
        )
    if row["wasted_requests"]:
        yield f"{row['wasted_requests']:,} of its {row['requests']:,} requests were wasted."
        yield " ".join(_ADVICE[habit] for habit in _HABITS if habit in row["verdict"])
    else:
        yield f"The {row['requests']:,} requests of {row['name']} hold no retry that should not have been sent."
    if row["example_request_ids"]:
        yield f"Examples: {', '.join(row['example_request_ids'])}."


_ADVICE: Final = {
    "ignores Retry-After": "Please wait as long as Retry-After says before the next request.",
    "futile repeats": "Please do not send unchanged again what was refused with a code that is not retryable.",
    "tight loop": "Please retry server errors with exponential backoff and jitter, at most a few times.",
}


def _weighted(value: float | None, weight: int) -> tuple[tuple[float, int], ...]:
    return () if value is None else ((value, weight),)


def _weighted_median(values: Sequence[tuple[float, int]]) -> float | None:
    """The value below which half of the weight lies."""
    counted = Counter[float]()
    for value, weight in values:
        counted[value] += weight
    so_far, half = 0.0, sum(counted.values()) / 2
    for value in sorted(counted):
        so_far += counted[value]
        if so_far >= half:
            return value
    return None
