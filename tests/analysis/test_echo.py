"""The echo of failures: clients that are simulated, so that it is known which of their requests were retries."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random

import numpy as np
import pytest

from analysis.echo import Echo, Requests, echo

SECOND = 1_000_000


@dataclass(frozen=True)
class Client:
    """`rate` fresh requests a second, of which `failing` fail, as most retries do."""

    rate: float
    failing: float
    pause: Callable[[Random], float] | None = None
    attempts: int = 4
    hours: float = 0.2


def fixed(seconds: float, jitter: float = 0.002) -> Callable[[Random], float]:
    """A pause that is nearly always the same."""
    return lambda rng: seconds * rng.uniform(1 - jitter, 1 + jitter)


RETRYING = [
    pytest.param(Client(30, 0.6, fixed(0.05)), id="busy, at once"),
    pytest.param(Client(30, 0.3, fixed(0.3)), id="busy, after 0.3 s"),
    pytest.param(Client(1, 0.3, fixed(2, 0.05)), id="slow, after 2 s"),
    pytest.param(Client(0.05, 0.5, fixed(20, 0.1), hours=4), id="very slow, after 20 s"),
    pytest.param(Client(10, 0.5, fixed(1.0), attempts=2), id="once only"),
]
NOT_RETRYING = [
    pytest.param(Client(30, 0.6), id="busy"),
    pytest.param(Client(300, 0.9, hours=0.02), id="very busy"),
    pytest.param(Client(0.2, 0.5, hours=3), id="slow"),
    pytest.param(Client(5, 0.05), id="rarely failing"),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("client", RETRYING)
def test_retries_are_counted_within_a_tenth(client: Client, seed: int) -> None:
    requests, has_failed, retries = simulated(client, seed)

    found = heard(requests, has_failed)

    assert found is not None
    assert found.retried == pytest.approx(retries, rel=0.1)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("client", NOT_RETRYING)
def test_a_client_that_does_not_retry_has_no_echo(client: Client, seed: int) -> None:
    requests, has_failed, _ = simulated(client, seed)

    assert heard(requests, has_failed) is None


@pytest.mark.parametrize("seed", range(3))
def test_the_echo_lies_where_the_pause_is(seed: int) -> None:
    requests, has_failed, _ = simulated(Client(5, 0.5, fixed(0.5)), seed)

    found = heard(requests, has_failed)

    assert found is not None
    assert found.from_s <= 0.5 <= found.to_s
    assert found.to_s < 0.6


@pytest.mark.parametrize("pace_s", [0.1, 1.0])
def test_a_client_that_goes_on_at_its_pace_after_success_and_failure_has_no_echo(pace_s: float) -> None:
    rng = Random(1)
    starts = [round(number * pace_s * SECOND + rng.uniform(0, 2_000)) for number in range(1_000)]
    has_failed = np.array([rng.random() < 0.5 for _ in starts])

    assert heard(requests_of((start, start + 10_000) for start in starts), has_failed) is None


@pytest.mark.parametrize("seed", range(6))
def test_a_slow_poll_that_fails_for_half_an_hour_has_no_echo(seed: int) -> None:
    rng = Random(seed)
    starts = [round((45 * number + rng.uniform(0, 9)) * 1_000) * 1_000 for number in range(4_000)]
    has_failed = np.array([2_000 <= number < 2_038 for number in range(4_000)])

    assert heard(requests_of((start, start + 10_000) for start in starts), has_failed) is None


def test_a_follower_that_comes_after_the_longest_lag_does_not_count() -> None:
    requests, has_failed, _ = simulated(Client(0.1, 0.5, fixed(2.0), hours=2), seed=1)

    assert echo(requests, has_failed, ~has_failed, np.full(len(has_failed), SECOND)) is None


def test_requests_for_other_things_do_not_follow() -> None:
    requests, has_failed, _ = simulated(Client(5, 0.5, fixed(0.5)), seed=1)
    apart = Requests(np.arange(len(has_failed)), requests.start_us, requests.end_us)

    assert heard(apart, has_failed) is None


def test_the_order_of_the_requests_does_not_matter() -> None:
    requests, has_failed, _ = simulated(Client(5, 0.5, fixed(0.5)), seed=1)
    order = np.random.default_rng(1).permutation(len(has_failed))
    shuffled = Requests(requests.intent[order], requests.start_us[order], requests.end_us[order])

    first, second = heard(requests, has_failed), heard(shuffled, has_failed[order])

    assert first is not None
    assert second is not None
    assert (first.retried, first.from_s, first.to_s) == (second.retried, second.from_s, second.to_s)
    assert len(second.pairs) == len(first.pairs)


def heard(requests: Requests, has_failed: np.ndarray) -> Echo | None:
    """The echo of the failures, up to five minutes after them."""
    return echo(requests, has_failed, ~has_failed, np.full(len(has_failed), 300 * SECOND))


def simulated(client: Client, seed: int) -> tuple[Requests, np.ndarray, int]:
    """The client's requests, which of them failed, and how many were retries."""
    rng = Random(seed)
    waiting = [(moment, 1) for moment in _moments(client, rng)]
    told, retries = [], 0
    while waiting:
        start, attempt = heappop(waiting)
        end = start + rng.uniform(0.005, 0.03)
        has_failed = rng.random() < (client.failing if attempt == 1 else 0.9)
        told.append((start, end, has_failed))
        retries += attempt > 1
        if has_failed and client.pause and attempt < client.attempts:
            heappush(waiting, (end + client.pause(rng), attempt + 1))
    # Gateways log milliseconds.
    times = ((round(start * 1000) * 1000, round(end * 1000) * 1000) for start, end, _ in told)
    return requests_of(times), np.array([has_failed for _, _, has_failed in told]), retries


def requests_of(times: Iterator[tuple[int, int]]) -> Requests:
    """Requests for the same thing from their starts and ends."""
    starts, ends = np.array(list(times)).T
    return Requests(np.zeros(len(starts), dtype=np.int64), starts, ends)


def _moments(client: Client, rng: Random) -> Iterator[float]:
    moment = 0.0
    while (moment := moment + rng.expovariate(client.rate)) < client.hours * 3600:
        yield moment
