"""What clients really did, request by request, out of a truth.ndjson.gz: a planted one or that of a capture."""

import gzip
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.verdicts.scoring import Span


class TrueRequest(msgspec.Struct, frozen=True):
    """One request as its client knows it; `key_id` is the true one, also where the log names none."""

    seq: int
    start_epoch: float
    latency_ms: float
    persona: str
    client_ip: str
    method: str | None = None
    path: str | None = None
    route: str | None = None
    key_id: str | None = None
    org: str | None = None
    status: int | None = None
    code: str | None = None
    request_id: str | None = None
    idempotency_key: str | None = None
    retry_after: float | None = None
    retry_of_seq: int | None = None
    chain: int = 0
    attempt: int = 1

    @property
    def end_epoch(self) -> float:
        return self.start_epoch + self.latency_ms / 1000

    @property
    def caller(self) -> str:
        """Who a log that knows as much as its gateway says it was: the key, where the API answered and knew it."""
        is_answered = self.request_id or self.code
        return self.key_id if self.key_id and is_answered else self.client_ip


@dataclass(frozen=True)
class Retry:
    """An attempt, and the failure or success after which the same was sent again; `gap_s` lies between them."""

    earlier: TrueRequest
    later: TrueRequest

    @property
    def gap_s(self) -> float:
        return self.later.start_epoch - self.earlier.end_epoch


@dataclass(frozen=True)
class TrueRequests:
    """All requests, in the order of the file."""

    requests: tuple[TrueRequest, ...]

    @cached_property
    def retries(self) -> tuple[Retry, ...]:
        """Each attempt that is not the first, with the one before it, in the order of the file."""
        by_seq = {request.seq: request for request in self.requests}
        return tuple(
            Retry(by_seq[request.retry_of_seq], request)
            for request in self.requests
            if request.retry_of_seq is not None and request.retry_of_seq in by_seq
        )

    @cached_property
    def span(self) -> Span:
        """From the first start to the last end."""
        first = min(request.start_epoch for request in self.requests)
        return Span(moment(first), moment(max(request.end_epoch for request in self.requests)))

    def of(self, **values: Any) -> tuple[TrueRequest, ...]:
        """Those that have these values."""
        return tuple(
            request
            for request in self.requests
            if all(getattr(request, name) == value for name, value in values.items())
        )


def read_true_requests(path: Path) -> TrueRequests:
    """The requests of a truth.ndjson.gz."""
    decoder = msgspec.json.Decoder(TrueRequest)
    with gzip.open(path) as lines:
        return TrueRequests(tuple(decoder.decode(line) for line in lines))


def moment(epoch: float) -> datetime:
    """The moment, UTC."""
    return datetime.fromtimestamp(epoch, UTC)
