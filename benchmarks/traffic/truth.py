"""What really happened: one object a request, counts of what the log says, and how each planted incident came out."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgspec

from benchmarks.traffic.access_log import oddities
from benchmarks.traffic.clock import day_of, iso
from benchmarks.traffic.simulation import Reply
from benchmarks.traffic.stage import Incident


@dataclass
class Cell:
    """Requests of one day, code, organisation...; an error is a status of 400 or more."""

    requests: int = 0
    errors: int = 0
    codes: Counter[str] = field(default_factory=Counter)

    def count(self, reply: Reply) -> None:
        """Take in one more request."""
        self.requests += 1
        self.errors += reply.status >= 400
        if reply.code is not None:
            self.codes[reply.code] += 1

    def as_json(self) -> dict[str, Any]:
        """The counts, codes by name."""
        return {"requests": self.requests, "errors": self.errors, "codes": dict(sorted(self.codes.items()))}


@dataclass
class Outcome:
    """An incident and what came of it: requests of its clients in its window, and those of them that make it up."""

    incident: Incident
    requests: int = 0
    errors: int = 0
    first_ms: int | None = None
    last_ms: int | None = None

    def count(self, reply: Reply) -> None:
        """Take in one more request of one of its clients."""
        incident = self.incident
        if reply.start_ms not in incident.window or incident.route not in ("", route_of(reply)):
            return
        self.requests += 1
        if reply.code in incident.codes or (not incident.codes and reply.status >= 400):
            self.errors += 1
            self.first_ms = reply.end_ms if self.first_ms is None else self.first_ms
            self.last_ms = reply.end_ms

    def as_json(self) -> dict[str, Any]:
        """What should be found and where; `first` and `last` are the ends of its first and last error."""
        incident = self.incident
        keys = [client.key for client in incident.clients if client.key is not None]
        return {
            "name": incident.name,
            "question": incident.question,
            "verdict": incident.verdict,
            "is_near_miss": incident.is_near_miss,
            "personas": sorted({client.persona for client in incident.clients}),
            "org_ids": sorted({key.org.org_id for key in keys}),
            "key_ids": sorted({key.key_id for key in keys}),
            "client_ips": sorted({client.ip for client in incident.clients}),
            "start": iso(incident.window.start_ms),
            "end": iso(incident.window.end_ms),
            "codes": list(incident.codes),
            **({"route": incident.route} if incident.route else {}),
            "requests": self.requests,
            "errors": self.errors,
            "first": None if self.first_ms is None else iso(self.first_ms),
            "last": None if self.last_ms is None else iso(self.last_ms),
        }


class Truth:
    """Counts every request as it is written."""

    def __init__(self, incidents: list[Incident]) -> None:
        self.private: set[str] = set()
        self.oddities: Counter[str] = Counter()
        self._all = Cell()
        self._cells: defaultdict[str, defaultdict[str, Cell]] = defaultdict(lambda: defaultdict(Cell))
        self._outcomes = [Outcome(incident) for incident in incidents]
        self._by_persona: defaultdict[str, list[Outcome]] = defaultdict(list)
        for outcome in self._outcomes:
            for persona in {client.persona for client in outcome.incident.clients}:
                self._by_persona[persona].append(outcome)
        self._of_all = [outcome for outcome in self._outcomes if not outcome.incident.clients]

    def count(self, reply: Reply) -> None:
        """Take in one more request; organisation and key are those that the log names."""
        call, key = reply.call, reply.call.client.key if reply.is_from_api else None
        names = {
            "day": day_of(reply.logged_ms),
            "code": reply.code or "null",
            "status": str(reply.status),
            "org": key.org.org_id if key else "null",
            "key": key.key_id if key else "null",
            "route": route_of(reply),
            "persona": call.client.persona,
        }
        for name, value in names.items():
            self._cells[name][value].count(reply)
        self._all.count(reply)
        for outcome in (*self._by_persona[call.client.persona], *self._of_all):
            outcome.count(reply)
        self.oddities.update(oddities(reply))
        self.private.update(call.private)
        if call.recipient and reply.refusal is not None and call.recipient in reply.refusal.message:
            self.private.add(call.recipient)

    def as_json(self) -> dict[str, Any]:
        """All counts, and the incidents that fell into the time of the log."""
        cells = {
            f"by_{name}": {value: cells[value].as_json() for value in sorted(cells)}
            for name, cells in self._cells.items()
        }
        met = [outcome.as_json() for outcome in self._outcomes if outcome.requests]
        return {**self._all.as_json(), "hard_to_read": dict(sorted(self.oddities.items())), **cells, "incidents": met}


def route_of(reply: Reply) -> str:
    """Method and route, such as GET /v1/messages/{id}."""
    call = reply.call
    return f"{call.endpoint.method} {call.endpoint.route}" if call.path else "null"


def truth_line(reply: Reply, *, in_full: bool = False) -> bytes:
    """The request as its client knows it, without what is absent; `key_id` and `org` also where the log has none.

    `in_full` says what was asked and how long it took, too, under the names of the capture's truth.
    """
    call, key = reply.call, reply.call.client.key
    told = {
        "seq": reply.seq,
        "chain": reply.chain,
        "attempt": reply.attempt,
        "retry_of_seq": reply.retry_of,
        "start_epoch": reply.start_ms / 1000,
        "request_id": reply.logged_id or None,
        "persona": call.client.persona,
        "key_id": key.key_id if key else None,
        "org": key.org.org_id if key else None,
        "status": reply.status,
        "code": reply.code,
    }
    if in_full:
        told |= {
            "latency_ms": reply.latency_ms,
            "client_ip": call.client.ip,
            "method": call.endpoint.method,
            "path": call.path.encode(errors="backslashreplace").decode(),
            "route": call.endpoint.route,
            "idempotency_key": call.idempotency_key or None,
            "retry_after": reply.refusal.retry_after_s if reply.refusal else None,
        }
    present = {name: value for name, value in told.items() if value is not None}
    return msgspec.json.encode(present)
