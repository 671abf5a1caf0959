"""Which cells changed, surely and by how much: false-discovery control, one cause named once.

A cell is a code, or a code on a route, of an organisation, of a key. Errors vary more than independent events do, since
clients repeat themselves and days differ. The variance factor of a cell is the size of the burst that an error comes
in, plus the number of errors that its caller has on a day, times the noise between a caller's days, plus a little for
what all callers share. The noise is measured on all cells, one baseline against the other, and on the cell itself where
two weeks of it are known.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from math import sqrt
from typing import Final

from scipy.stats import false_discovery_control

from analysis.counts import Comparison, compared, noise_between, typical_noise

Dims = tuple[str | None, str | None, str | None, str | None]

WEEK: Final = 7
LEAST_PAIRS: Final = 3
LEAST_NOISE: Final = 0.01
SHARED_NOISE: Final = 0.005
# Days that differ by 17 %, until so many pairs of days say otherwise.
USUAL_NOISE: Final = 0.03
SAMPLES_THAT_OUTWEIGH_IT: Final = 10
PAIRS_OF_THE_USUAL: Final = 7
# A day before that is so unlike the same weekday is of another kind.
MOST_UNLIKE: Final = 1.5
# What is left of a wider cell has the same cause, if it changed as well, at this level.
SAME_CAUSE: Final = 0.01
LEAST_OTHER_REQUESTS: Final = 20


@dataclass(frozen=True)
class Rules:
    """The thresholds of the question's header."""

    min_errors: int
    min_factor: float
    max_q: float
    min_explained: float
    max_sentences: int


@dataclass(frozen=True)
class Period:
    """What is compared: the period, then each baseline there is. `requests` are those of the whole API in each."""

    since: datetime
    until: datetime
    step_days: int
    steps_known: int
    baselines: tuple[str, ...]
    requests: tuple[int, ...]


@dataclass(frozen=True)
class Cell:
    """The errors of a code, and of the method, route, organisation and key that are not None, in each of a Period.

    `bursts` counts those of one caller and route within ten minutes once. An error's caller and route have `burst_size`
    in its minute on average, and `errors_of_caller` on its day.
    `requests` are those of the route, organisation and key whatever their answer, empty where the errors differ too
    little to be suspected. `history` has the minutes of callers with an error by steps back, also of some others.
    """

    code: str
    dims: Dims
    errors: tuple[int, ...]
    bursts: tuple[int, ...]
    burst_size: float
    errors_of_caller: float
    requests: tuple[int, ...] = ()
    history: Mapping[int, int] = field(default_factory=dict)
    first_seen: datetime | None = None
    example_request_ids: tuple[str, ...] = ()

    @property
    def size(self) -> float:
        """Errors of the period or the mean of the baselines, whichever is more."""
        return max(self.errors[0], self.errors[0] - _moved(self.errors))

    @property
    def is_more(self) -> bool:
        """Are there more errors than in the mean of the baselines?"""
        return _moved(self.errors) > 0

    def holds(self, other: "Cell") -> bool:
        """Is every error of `other` one of this cell?"""
        return self.code == other.code and all(
            own is None or own == theirs for own, theirs in zip(self.dims, other.dims, strict=True)
        )


@dataclass(frozen=True)
class Change:
    """A cell, what is counted of it, how surely that changed, and the variance factor that it was divided by."""

    cell: Cell
    unit: str
    comparison: Comparison
    variance_factor: float
    q_value: float = 1.0


def causes(cells: Iterable[Cell], period: Period, rules: Rules) -> Iterator[Change]:
    """The significant changes, surest first, each in the narrowest cell that explains it, none that others explain."""
    by_place = {(cell.code, cell.dims): cell for cell in cells}
    noise = _usual_noise(by_place.values(), period, rules)
    tested = [_tested(cell, cell, period, noise, rules) for cell in by_place.values() if cell.requests]
    tested = _with_q_values(tested, by_place.values(), period, rules)
    # Each with what is left of it once the causes named before are taken out.
    left = [(change, change) for change in tested if change.q_value <= rules.max_q]
    least_sure = max((change.comparison.p_value for change, _ in left), default=0.0)

    def still_changed(change: Change, counted: Cell, max_p: float) -> Change | None:
        rest = _tested(change.cell, counted, period, noise, rules)
        return rest if rest.comparison.p_value <= max_p and _is_changed(rest, period, rules) else None

    while left:
        surest, _ = min(left, key=lambda both: _surest_first(both[1]))
        # What else of a wider cell changed as much has the same cause.
        wider = [
            other
            for other, its_rest in left
            if other.cell.dims != surest.cell.dims
            and other.cell.holds(surest.cell)
            and still_changed(other, _without(its_rest.cell, surest.cell, by_place), SAME_CAUSE)
        ]
        cause = _narrowest(min(wider, key=lambda one: _depth(one.cell), default=surest), tested, rules)
        yield cause
        left = [
            (other, remaining)
            for other, its_rest in left
            if not cause.cell.holds(other.cell)
            and (remaining := still_changed(other, _without(its_rest.cell, cause.cell, by_place), least_sure))
        ]


def _usual_noise(cells: Iterable[Cell], period: Period, rules: Rules) -> float:
    """The noise between the days of one caller: between days a week apart where two weeks are known.

    Else between the baselines, which are of different weekdays: some cells follow the traffic then, others the clock.
    """
    of_callers = [cell for cell in cells if None not in cell.dims]
    samples = [
        (1.0 * (one - other) ** 2, one + other, 1.0) for cell in of_callers for one, other in _pairs(cell, period)
    ]
    if not samples and len(period.baselines) > 1:
        _, one_all, other_all = period.requests
        scale = one_all / other_all
        samples = [
            (min((one - other) ** 2, (one - other * scale) ** 2 / scale), one + other, cell.burst_size)
            for cell, (_, one, other) in ((cell, cell.errors) for cell in of_callers)
        ]
    weighed = [
        (squared / errors, errors / 2, burst_size)
        for squared, errors, burst_size in samples
        if errors >= 2 * rules.min_errors
    ]
    measured = typical_noise(*zip(*weighed, strict=True)) if weighed else 0.0
    weight = len(weighed) / (len(weighed) + SAMPLES_THAT_OUTWEIGH_IT)
    return max(LEAST_NOISE, weight * measured + (1 - weight) * USUAL_NOISE)


def _pairs(cell: Cell, period: Period) -> list[tuple[int, int]]:
    """Minutes with errors on days a week apart, the later day before the period; none where too few are known."""
    last = min(WEEK, period.steps_known - WEEK) if period.step_days == 1 and cell.history else 0
    if last < LEAST_PAIRS:
        return []
    return [(cell.history.get(step, 0), cell.history.get(step + WEEK, 0)) for step in range(1, last + 1)]


def _day_factor(cell: Cell, counted: Cell, period: Period, noise: float) -> float:
    """What days add to the variance factor of `counted`, a part of `cell`; `noise` is that between a caller's days.

    Each pair of days of the cell itself counts as one of all cells does; what was absent for a week has no habits.
    """
    usual = noise * counted.errors_of_caller
    pairs = _pairs(cell, period)
    if not pairs or not any(one for one, _ in pairs):
        return usual
    own = noise_between(pairs, burst_size=1) * sum(counted.errors) / len(counted.errors)
    return (usual * PAIRS_OF_THE_USUAL + own * len(pairs)) / (PAIRS_OF_THE_USUAL + len(pairs))


def _tested(cell: Cell, counted: Cell, period: Period, noise: float, rules: Rules) -> Change:
    """The comparison of `counted`, a part of `cell`: by time, by requests of the API and by other requests of the cell.

    The ratio is the one that says least, the p-value the greatest; it is 1 where they contradict each other.
    """
    exposures = [
        _exposures(counted, (1.0,) * len(counted.errors), period),
        _exposures(counted, period.requests, period),
    ]
    others = tuple(max(1, asked - failed) for asked, failed in zip(cell.requests, cell.errors, strict=True))
    was_there = cell.requests[0] > 0 and sum(cell.requests[1:]) > 0
    if was_there and max(others[0], sum(others[1:])) >= LEAST_OTHER_REQUESTS:
        exposures.append(others)
    of_days = _day_factor(cell, counted, period, noise) + SHARED_NOISE * sum(counted.errors) / len(counted.errors)
    bursts_of_error = sum(counted.bursts) / max(1, sum(counted.errors))
    by_unit = [
        _least_sure(counted, "errors", counted.errors, counted.burst_size + of_days, exposures),
        _least_sure(counted, "bursts", counted.bursts, 1.0 + of_days * bursts_of_error, exposures),
    ]
    surest = min(
        by_unit,
        key=lambda change: (_factor(change.comparison.ratio) < rules.min_factor, change.comparison.p_value),
    )
    # Who was not there on one single day may come on certain weekdays only.
    is_fair = was_there or len(period.baselines) > 1
    p_value = min(1.0, len(by_unit) * surest.comparison.p_value) if is_fair else 1.0
    return replace(surest, comparison=replace(surest.comparison, p_value=p_value))


def _exposures(cell: Cell, exposures: tuple[float, ...], period: Period) -> tuple[float, ...]:
    """`exposures` with that of the day before told from the same weekday's: it is of another one.

    By time or by the traffic, as the cell itself seems to go; 0 leaves it out where it seems to go by neither. It is
    unchanged where only one baseline is known.
    """
    if len(exposures) < 3:
        return exposures
    now, _, same_weekday = exposures
    _, errors, errors_then = cell.errors
    _, requests, requests_then = period.requests
    unlike, scale = min(
        (_factor(_ratio(errors, errors_then * scale)), scale) for scale in (1.0, requests / requests_then)
    )
    return (now, same_weekday * scale if unlike <= MOST_UNLIKE or not errors_then else 0.0, same_weekday)


def _least_sure(
    cell: Cell, unit: str, units: tuple[int, ...], variance_factor: float, exposures: Iterable[tuple[float, ...]]
) -> Change:
    """The comparison of the period's units with those of the baselines, by the exposure by which it says least."""
    comparisons = []
    for now, *before in exposures:
        others, counted = zip(*((count, one) for count, one in zip(units[1:], before, strict=True) if one), strict=True)
        comparisons.append(compared(units[0], now, sum(others), sum(counted), variance_factor))
    least = min(comparisons, key=lambda comparison: _factor(comparison.ratio))
    is_clear = len({comparison.ratio > 1 for comparison in comparisons}) == 1
    p_value = max(comparison.p_value for comparison in comparisons) if is_clear else 1.0
    return Change(cell, unit, replace(least, p_value=p_value), variance_factor)


def _is_changed(change: Change, period: Period, rules: Rules) -> bool:
    """Did it change by the factor, and by its root at least against each baseline, by time and by the traffic?

    Against the day before, which is of another weekday, one of both is enough where the same weekday is known.
    """
    now, *before = change.cell.errors
    all_now, *all_before = period.requests
    *first, last = (
        (_ratio(now, errors), _ratio(now * requests, errors * all_now))
        for errors, requests in zip(before, all_before, strict=True)
    )
    ratio, root = change.comparison.ratio, sqrt(rules.min_factor)
    is_more = ratio >= rules.min_factor and min(*last, *map(max, first)) >= root
    is_less = ratio <= 1 / rules.min_factor and max(*last, *map(min, first)) <= 1 / root
    return is_more or is_less


def _with_q_values(tested: list[Change], cells: Iterable[Cell], period: Period, rules: Rules) -> list[Change]:
    """The changes with their q-values, of all cells that are large enough, each set of errors counted once.

    It stays 1 where a cell is too small or did not change by the factor.
    """
    p_values = {_errors_of(cell): 1.0 for cell in cells if cell.size >= rules.min_errors}
    p_values |= {
        _errors_of(change.cell): change.comparison.p_value
        for change in tested
        if change.cell.size >= rules.min_errors and _is_changed(change, period, rules)
    }
    if not p_values:
        return tested
    q_values = dict(zip(p_values, false_discovery_control(list(p_values.values())), strict=True))
    return [replace(change, q_value=float(q_values.get(_errors_of(change.cell), 1.0))) for change in tested]


def _errors_of(cell: Cell) -> tuple[object, ...]:
    """What a cell shares with those inside it that hold all of its errors."""
    return (cell.code, cell.errors, cell.burst_size)


def _narrowest(change: Change, tested: Iterable[Change], rules: Rules) -> Change:
    """The narrowest cell inside the change's that explains enough of it; as sure as the surer of both."""
    inside = [
        (_depth(other.cell), _part(other.cell, change), other)
        for other in tested
        if other.cell.dims != change.cell.dims and change.cell.holds(other.cell)
    ]
    explaining = [one for one in inside if one[1] >= rules.min_explained]
    if not explaining:
        return change
    _, _, best = max(explaining, key=lambda one: one[:2])
    surer = min(best, change, key=lambda one: one.comparison.p_value)
    return replace(best, comparison=replace(best.comparison, p_value=surer.comparison.p_value), q_value=surer.q_value)


def _part(cell: Cell, change: Change) -> float:
    """The part of the change that the cell explains, in errors and in the unit that the change was tested in."""
    whole = change.cell
    moved = [(_moved(cell.errors), _moved(whole.errors))]
    moved += [(_moved(cell.bursts), _moved(whole.bursts))] if change.unit == "bursts" else []
    return min(_ratio(part, total) for part, total in moved)


def _moved(counts: tuple[int, ...]) -> float:
    """How many more there are than in the mean of the baselines; negative where there are fewer."""
    now, *before = counts
    return now - sum(before) / len(before)


def _without(counted: Cell, named: Cell, cells: Mapping[tuple[str, Dims], Cell]) -> Cell:
    """The errors of `counted` that are none of `named`, as far as the cells tell."""
    if counted.code != named.code or any(
        own is not None and theirs is not None and own != theirs
        for own, theirs in zip(counted.dims, named.dims, strict=True)
    ):
        return counted
    first, second, third, fourth = (
        theirs if own is None else own for own, theirs in zip(counted.dims, named.dims, strict=True)
    )
    common = cells.get((counted.code, (first, second, third, fourth)))
    if common is None:
        return counted
    return replace(counted, errors=_less(counted.errors, common.errors), bursts=_less(counted.bursts, common.bursts))


def _less(counts: tuple[int, ...], known: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(0, own - theirs) for own, theirs in zip(counts, known, strict=True))


def _surest_first(change: Change) -> tuple[object, ...]:
    return (
        change.comparison.p_value,
        -abs(_moved(change.cell.errors)),
        _depth(change.cell),
        change.cell.code,
        [dim or "" for dim in change.cell.dims],
    )


def _depth(cell: Cell) -> int:
    return sum(dim is not None for dim in cell.dims)


def _factor(ratio: float) -> float:
    """By how much a ratio is not 1, in either direction."""
    return max(ratio, 1 / ratio if ratio else float("inf"))


def _ratio(part: float, other: float) -> float:
    return part / other if other else float("inf")
