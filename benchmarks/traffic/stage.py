"""Where scenes are set up: customers, keys and addresses like nobody else's, and the list of what is planted."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

from benchmarks.traffic.api import Api
from benchmarks.traffic.calls import ALL_SCOPES, Client, Key, Org
from benchmarks.traffic.clients import Maker, giving_up, play, work_off
from benchmarks.traffic.clock import DAY, HOUR, MINUTE, Window
from benchmarks.traffic.simulation import BASE32, Pacing, Simulation

AREA_CODES: Final = (212, 303, 404, 415, 503, 617, 702, 804)  # 555-01xx is reserved for fiction in each of them


@dataclass(frozen=True)
class Incident:
    """What a good answer finds, or for a near miss must not find.

    `question` is the name of the question that should find it, `verdict` what it should say; `codes` are the error
    codes that make it up, empty where any error does, and `route` (GET /v1/numbers) where it
    is on one alone.
    """

    name: str
    question: str
    verdict: str
    clients: tuple[Client, ...]
    window: Window
    codes: tuple[str, ...] = ()
    is_near_miss: bool = False
    route: str = ""


@dataclass
class Stage:
    """A simulation that is being set up."""

    seed: int
    window: Window
    scale: float = 1.0
    incidents: list[Incident] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sim = Simulation(Api(self.rng("api")), self.rng("gateway"), self.window)
        self._addresses = iter(self._all_addresses())

    def rng(self, name: str) -> Random:
        """Random numbers that are those of `name` alone, so that a new scene leaves the others as they are."""
        return Random(f"{self.seed}/{name}")

    def at(self, day: int, clock: str) -> int:
        """The moment of a UTC clock time such as "14:05" on a day of the story, the first being 0."""
        hours, minutes = clock.split(":")
        return self.window.start_ms + day * DAY + int(hours) * HOUR + int(minutes) * MINUTE

    def between(self, day: int, start: str, end: str) -> Window:
        """From one clock time to another on a day of the story; the end may be 24:00 or later."""
        return Window(self.at(day, start), self.at(day, end))

    def since(self, day: int, clock: str = "00:00") -> Window:
        """From that clock time to the end of the log."""
        return Window(self.at(day, clock), max(self.at(day, clock), self.window.end_ms))

    def org(self, name: str) -> Org:
        """A customer with recipients of its own who do not want its messages."""
        rng = self.rng(f"org {name}")
        phones = tuple(f"+1{rng.choice(AREA_CODES)}55501{rng.randrange(100):02}" for _ in range(14))
        return Org("acct-" + "".join(rng.choices(BASE32, k=6)).lower(), do_not_contact=phones[:5], opted_out=phones[5:])

    def strangers(self, name: str, count: int) -> tuple[str, ...]:
        """So many recipients, none of them twice: a list that somebody sends to."""
        numbers = [f"+1{area_code}55501{number:02}" for area_code in AREA_CODES for number in range(100)]
        return tuple(self.rng(f"list {name}").sample(numbers, count))

    def key(self, name: str, org: Org, scopes: frozenset[str] = ALL_SCOPES) -> Key:
        """An organisation key without limits that matter."""
        rng = self.rng(f"key {name}")
        return Key("AK" + "".join(rng.choices(BASE32, k=8)), org, scopes)

    def client(self, persona: str, key: Key | None, user_agent: str, *, presented: str = "") -> Client:
        """A program of its own address."""
        return Client(persona, key, next(self._addresses), user_agent, presented)

    def customer(self, persona: str, user_agent: str) -> Client:
        """A client with a new organisation and a key of it."""
        return self.client(persona, self.key(persona, self.org(persona)), user_agent)

    def play(self, moments: Iterator[int], make_call: Maker, pacing: Pacing = giving_up) -> None:
        """Have calls made at these moments."""
        self.sim.start(play(self.sim, moments, make_call, pacing))

    def queue(self, moments: Iterator[int], make_call: Maker, pacing: Pacing, *, workers: int = 1) -> None:
        """Have calls made from these moments on by workers that wait for each other's turn at the queue."""
        for _ in range(workers):
            self.sim.start(work_off(self.sim, moments, make_call, pacing))

    def plant(
        self,
        name: str,
        question: str,
        verdict: str,
        *clients: Client,
        window: Window,
        codes: tuple[str, ...] = (),
        route: str = "",
    ) -> None:
        """Note what should be found."""
        self.incidents.append(Incident(name, question, verdict, clients, window, codes, route=route))

    def plant_near_miss(self, name: str, question: str, verdict: str, *clients: Client, window: Window) -> None:
        """Note what looks like `verdict` of `question` and is not."""
        self.incidents.append(Incident(name, question, verdict, clients, window, is_near_miss=True))

    def _all_addresses(self) -> Iterator[str]:
        """Addresses reserved for documentation, then those reserved for benchmarks."""
        rng = self.rng("addresses")
        documented = [f"{net}.{host}" for net in ("203.0.113", "198.51.100", "192.0.2") for host in range(1, 255)]
        rng.shuffle(documented)
        yield from documented
        for number in range(1 << 17):
            yield f"198.{18 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
