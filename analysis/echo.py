"""Retries told by the echo of a client's failures, where nothing in the log tells them from fresh requests.

A client that retries after a pause leaves an echo: more of its requests begin that long after its failures than chance,
and what it does after a success, explain. Knows starts and ends of requests; knows no codes and no lake.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, poisson

Micros = NDArray[np.int64]
"""Moments or lengths of time in microseconds."""

_FOLLOWERS: Final = 32
_CLOCK_ERROR_US: Final = 1_000
# Lags are counted in bins that are a millisecond wide at first and then widen to 4 % of the lag. Gateways log whole
# milliseconds, so that every bin holds as many of them as it is wide.
_EDGES_US: Final = np.concatenate(
    [[-1_500.0], np.unique(np.round(24 * np.expm1(np.arange(1, 230) / 24))) * 1_000 - 500]
)
_WIDEST: Final = 8
_FLANK: Final = 12
_APART_US: Final = 1 << 50
_SIGNIFICANCE: Final = 1e-9
# Of a client without a pace, chance alone leaves a share of a few per cent.
_NOTABLE_PACE: Final = 0.2
_SMALLEST: Final = 0.05


@dataclass(frozen=True)
class Requests:
    """Requests of one caller, in any order: `intent` numbers what may be the same thing, the times are microseconds."""

    intent: NDArray[np.int64]
    start_us: Micros
    end_us: Micros

    @property
    def begun(self) -> Micros:
        """The starts, those of different intents too far apart to follow each other."""
        return self.intent * _APART_US + self.start_us

    @property
    def ended(self) -> Micros:
        """The ends on the same scale."""
        return self.intent * _APART_US + self.end_us


@dataclass(frozen=True)
class Echo:
    """An echo of `answers` answers: an estimated `retried` of them were followed by a request `from_s` to `to_s` later.

    `pairs` are the places, among all requests, of an answer and the request that is matched to it, chance ones too.
    """

    answers: int
    retried: float
    from_s: float
    to_s: float
    pairs: NDArray[np.intp]

    @property
    def share(self) -> float:
        """retried / answers."""
        return self.retried / self.answers


def echo(requests: Requests, chosen: NDArray[np.bool_], usual: NDArray[np.bool_], longest_us: Micros) -> Echo | None:
    """The strongest echo of the answers `chosen`, none where chance explains what follows them (Poisson, p < 1e-9).

    What follows the `usual` answers after the same pause, beyond chance, is the client's pace and taken off; where it
    explains what follows the chosen ones (binomial, p >= 1e-9), there is no echo either.
    `longest_us` is for each request how long after its end a follower still counts.
    """
    order = np.lexsort((requests.end_us, requests.begun))
    begun = requests.begun[order]
    answers = _by_end(requests, chosen)
    ended, own = requests.ended[answers], requests.begun[answers]
    # Starts that come with the answer, within the clock's error, follow it; its own start does not.
    first = np.searchsorted(begun, np.maximum(ended - _CLOCK_ERROR_US, own + 1))
    lags = _lags(begun, ended, first)
    longest = longest_us[answers]
    horizon_us = min(int(np.quantile(lags[:, -1], 0.1, method="lower")), int(longest.max()))
    lags = lags[(lags <= longest[:, None]) & (lags <= horizon_us)]
    stretch = _stretch(lags, len(answers))
    if stretch is None:
        return None
    low_us, high_us = _narrowed(lags, *stretch)
    matched, share = _share(begun, ended, own, low_us, high_us)
    others = _by_end(requests, usual)
    if len(others):
        _, by_pace = _share(begun, requests.ended[others], requests.begun[others], low_us, high_us)
        if by_pace >= _NOTABLE_PACE:
            if binom.sf(len(matched) - 1, len(answers), by_pace) >= _SIGNIFICANCE:
                return None
            share = max(share - by_pace, 0.0) / max(1 - by_pace, 0.01)
    if share < _SMALLEST:
        return None
    pairs = np.column_stack([answers[matched[:, 0]], order[matched[:, 1]]])
    return Echo(len(answers), len(answers) * share, max(low_us, 0) / 1e6, high_us / 1e6, pairs)


def _by_end(requests: Requests, chosen: NDArray[np.bool_]) -> NDArray[np.intp]:
    places = np.flatnonzero(chosen)
    return places[np.lexsort((requests.start_us[places], requests.ended[places]))]


def _share(begun: Micros, ended: Micros, own: Micros, low_us: float, high_us: float) -> tuple[NDArray[np.intp], float]:
    """What is matched in the window after the answers, and the part of them that is followed there beyond chance.

    Chance is what is matched in windows as wide before it and behind it, of the requests that are left over.
    """
    matched = _matched(begun, ended, own, low_us, high_us)
    shifts = [shift * (high_us - low_us) for shift in (-3, -2, 2, 3)]
    elsewhere = [len(_matched(begun, ended, own, low_us + s, high_us + s)) for s in shifts if low_us + s >= 0]
    left_over = 1 - len(matched) / len(begun)
    by_chance = float(np.mean(elsewhere)) / len(ended) * left_over
    return matched, max(len(matched) / len(ended) - by_chance, 0.0) / max(1 - by_chance, 0.01)


def _lags(begun: Micros, ended: Micros, first: NDArray[np.intp]) -> Micros:
    """For each answer the lags of the next requests, endless where there are no more."""
    places = first[:, None] + np.arange(_FOLLOWERS)
    there = places < len(begun)
    return np.where(there, begun[np.minimum(places, len(begun) - 1)] - ended[:, None], _APART_US)


def _stretch(lags: Micros, answers: int) -> tuple[float, float] | None:
    """Start and end of the bins with the greatest surplus over those around them that chance does not explain.

    Lags of neighbouring answers to one request vary together, the more of them fall into a bin: so many times the
    variance of Poisson is granted.
    """
    counts, _ = np.histogram(lags, _EDGES_US)
    last = int(np.searchsorted(_EDGES_US, lags.max(initial=0))) - 1
    so_far = np.concatenate([[0], np.cumsum(counts)])
    best, found = 0.0, None
    first = np.arange(last)
    for width in range(1, _WIDEST + 1):
        end = np.minimum(first + width, last)
        left, right = np.maximum(first - _FLANK, 0), np.minimum(end + _FLANK, last)
        seen = so_far[end] - so_far[first]
        around = so_far[right] - so_far[left] - seen
        inside_us = _EDGES_US[end] - _EDGES_US[first]
        outside_us = np.maximum(_EDGES_US[right] - _EDGES_US[left] - inside_us, 1.0)
        expected = around / outside_us * inside_us
        granted = 1 + 4 * expected / answers
        p_value = poisson.sf((seen - 1) / granted, np.maximum(expected, 0.5) / granted)
        surplus = np.where(p_value < _SIGNIFICANCE, seen - expected, 0.0)
        if len(surplus) and surplus.max() > best:
            place = int(surplus.argmax())
            best = float(surplus[place])
            found = float(_EDGES_US[first[place]]), float(_EDGES_US[end[place]])
    return found


def _narrowed(lags: Micros, low_us: float, high_us: float) -> tuple[float, float]:
    """The part of the stretch that holds the surplus: whatever else it holds could be matched by chance."""
    step_us = max(round((high_us - low_us) / 64_000), 1) * 1_000
    margin_us = step_us * 64
    edges = np.arange(low_us - margin_us, high_us + margin_us + step_us, step_us)
    counts, _ = np.histogram(lags, edges)
    is_inside = (edges[:-1] >= low_us) & (edges[1:] <= high_us)
    usual = counts[~is_inside & (edges[:-1] >= _EDGES_US[0])].mean()
    # The sum of what is above the usual, and a little more, is greatest over the surplus (Kadane).
    sums = np.concatenate([[0.0], np.cumsum((counts - usual - np.sqrt(usual))[is_inside])])
    lowest = np.minimum.accumulate(sums)
    end = int((sums - lowest).argmax())
    start = int(np.flatnonzero(sums[: end + 1] == lowest[end])[-1])
    inside = edges[np.flatnonzero(is_inside)[0] :]
    return float(inside[start]), float(inside[end])


def _matched(begun: Micros, ended: Micros, own: Micros, low_us: float, high_us: float) -> NDArray[np.intp]:
    """Pairs of an answer and the request that follows it within the window, each in one pair at most."""
    lowest = np.searchsorted(begun, np.maximum(ended + low_us, own + 1))
    highest = np.searchsorted(begun, ended + high_us)
    pairs: list[tuple[int, int]] = []
    used = -1
    for answer, (low, high) in enumerate(zip(lowest.tolist(), highest.tolist(), strict=True)):
        place = max(low, used + 1)
        if place < high:
            used = place
            pairs.append((answer, place))
    return np.array(pairs, dtype=np.intp).reshape(-1, 2)
