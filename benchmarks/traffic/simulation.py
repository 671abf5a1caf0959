"""The discrete-event simulation and the gateway in it: who calls when, and what the gateway can log of it."""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import msgspec

from benchmarks.traffic.api import Api
from benchmarks.traffic.calls import STATUS, Call, Refusal
from benchmarks.traffic.clock import Window

Process = Iterator[int]  # yields the moment at which it wants to go on
Pacing = Callable[["Reply"], int | None]  # milliseconds from a failed reply to the next attempt; None gives up

GATEWAY_TIMEOUT_MS: Final = 30_000
PAGES: Final = {400: "400 Bad Request", 502: "502 Bad Gateway", 504: "504 Gateway Time-out"}
DOCS_URL: Final = "https://docs.textwire.example/api/errors/"
BASE32: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True, slots=True)
class Reply:
    """One exchange as the gateway and the client saw it; `upstream_status` is empty where the API was not asked.

    The API names the request, the organisation and the key in headers of its response: what it did not answer has none.
    """

    seq: int
    call: Call
    start_ms: int
    latency_ms: int
    status: int
    upstream_status: str
    request_id: str
    refusal: Refusal | None
    body: str
    chain: int
    attempt: int
    retry_of: int | None

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.latency_ms

    @property
    def code(self) -> str | None:
        """The code that the response names."""
        return self.refusal.code if self.refusal and self.refusal.drift != "no_envelope" else None

    @property
    def logged_id(self) -> str:
        """The request id that the log and the client know."""
        return "" if self.refusal and self.refusal.drift == "no_request_id" else self.request_id

    @property
    def logged_ms(self) -> int:
        """Its end by the clock of the gateway node that logged it."""
        return self.end_ms + (self.call.client.node_skew_ms if self.seq % 2 else 0)

    @property
    def is_from_api(self) -> bool:
        return self.request_id != ""


class Simulation:
    """Runs processes in the order of their moments, and yields the replies in the order in which a gateway logs them.

    Holds no more than the processes and the requests in flight, so a run may be as long as one likes.
    """

    def __init__(self, api: Api, rng: Random, window: Window) -> None:
        self.api = api
        self.now_ms = window.start_ms
        self.deploys: list[Window] = []  # in which most calls find no API behind the gateway
        self._until_ms = window.end_ms
        self._rng = rng
        self._agenda: list[tuple[int, int, Process]] = []
        self._in_flight: list[tuple[int, int, Reply]] = []
        self._started = 0
        self._seq = 0

    def start(self, process: Process) -> None:
        """Let `process` run from the moment that it yields first."""
        moment = next(process, None)
        if moment is not None:
            self._started += 1
            heapq.heappush(self._agenda, (moment, self._started, process))

    def run(self) -> Iterator[Reply]:
        """Every reply to a request that starts before the end, by end and then by start."""
        while self._agenda and self._agenda[0][0] < self._until_ms:
            moment, _, process = heapq.heappop(self._agenda)
            self.now_ms = max(self.now_ms, moment)
            while self._in_flight and self._in_flight[0][0] < self.now_ms:
                yield heapq.heappop(self._in_flight)[2]
            self.start(process)
        while self._in_flight:
            yield heapq.heappop(self._in_flight)[2]

    def send(self, call: Call, retry_of: Reply | None = None) -> Reply:
        """Send `call` now. The reply comes back at once, dated with its end."""
        self._seq += 1
        status, upstream_status, latency_ms, refusal = self._pass_on(call)
        request_id = scrambled(self._seq) if upstream_status == str(status) and status not in (502, 504) else ""
        reply = Reply(
            seq=self._seq,
            call=call,
            start_ms=self.now_ms,
            latency_ms=latency_ms,
            status=status,
            upstream_status=upstream_status,
            request_id=request_id,
            refusal=refusal,
            body=page(status)
            if refusal is None
            else envelope(refusal, request_id, is_twice=call.is_body_encoded_twice),
            chain=self._seq if retry_of is None else retry_of.chain,
            attempt=1 if retry_of is None else retry_of.attempt + 1,
            retry_of=None if retry_of is None else retry_of.seq,
        )
        heapq.heappush(self._in_flight, (reply.end_ms, reply.seq, reply))
        return reply

    def _pass_on(self, call: Call) -> tuple[int, str, int, Refusal | None]:
        """Status, upstream's status, latency and refusal; a gateway that answers itself has no refusal."""
        if not call.path:
            return 400, "", 0, None  # what came was not HTTP
        is_deploy = any(self.now_ms in window for window in self.deploys)
        if self._rng.random() < (0.7 if is_deploy else 0.00015):
            return 502, "502", self._rng.randrange(3), None
        answer = self.api.answer(call, self.now_ms)
        patience_ms = call.timeout_ms or GATEWAY_TIMEOUT_MS
        if answer.latency_ms > patience_ms:
            return (499, "-", patience_ms, None) if call.timeout_ms else (504, "504", patience_ms, None)
        refusal = answer.refusal
        status = call.endpoint.status if refusal is None else refusal.status or STATUS[refusal.code]
        return status, str(status), answer.latency_ms, answer.refusal


def envelope(refusal: Refusal, request_id: str, *, is_twice: bool = False) -> str:
    """The v1 error envelope as the API sends it; `is_twice` is a client library's proxy that encodes it once more."""
    if refusal.drift == "no_envelope":
        return "Internal Server Error"
    body: dict[str, object] = {
        "object": "error",
        "code": refusal.code,
        "message": refusal.message,
        "request_id": request_id,
        "docs_url": DOCS_URL + ("not_found" if refusal.drift == "docs_url" else refusal.code),
    }
    if refusal.drift == "no_request_id":
        del body["request_id"]
    if refusal.details:
        body["details"] = [{"field": field, "issue": issue} for field, issue in refusal.details]
    text = msgspec.json.encode(body).decode()
    return msgspec.json.encode(text).decode() if is_twice else text


def page(status: int) -> str:
    """The gateway's own error page; empty where it sends none or the API's response is a success."""
    if status not in PAGES:
        return ""
    title = PAGES[status]
    lines = ("<html>", f"<head><title>{title}</title></head>", "<body>", f"<center><h1>{title}</h1></center>")
    return "\r\n".join((*lines, "<hr><center>nginx/1.26.2</center>", "</body>", "</html>", ""))


def scrambled(number: int) -> str:
    """A request id that looks random and is unique by construction: an invertible mix of 35 bits, in base 32."""
    mask = (1 << 35) - 1
    number = (number * 0x2E5F17A4D) & mask
    number = ((number ^ (number >> 18)) * 0x5851F42D5) & mask
    number ^= number >> 17
    return "rq-" + "".join(BASE32[number >> shift & 31] for shift in range(30, -1, -5))
