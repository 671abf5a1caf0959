"""A small API that stands behind a gateway: what it is asked, and what it answers.

Its errors have the v1 envelope. It names the error in `X-Error-Code` and the caller in `X-Org-Id` and `X-Key-Id`, so
that a gateway which cannot log a body can log what an error was and whom it met.
"""

import gzip
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final

Address = tuple[str, int]

PRESENTED_KEY: Final = "acme_live_4fS9xQ2LmT7"
PHONE: Final = "+14155550132"
IDEMPOTENCY_KEY: Final = "idem-1f0c7be2"
HOST: Final = "api.example"
SLOW_S: Final = 0.3
ODD_AGENT: Final = 'sdk/2.1 "beta" C:\\ {x|y} Zürich'

_QUICK_S: Final = 0.005  # a gateway's clock may have no more than milliseconds
_MOST_WAITED_S: Final = 30


@dataclass(frozen=True)
class Call:
    """A request, and what the API answers; without an answer it closes the connection."""

    name: str
    target: str
    status: int
    code: str | None = None
    method: str = "GET"
    message: str = ""
    details: tuple[tuple[str, str], ...] = ()
    idempotency_key: str | None = None
    retry_after_s: int | None = None
    user_agent: str = "sdk/2.1"
    has_caller: bool = True
    has_answer: bool = True
    is_packed: bool = False
    is_slow: bool = False

    @property
    def request_id(self) -> str:
        """The id that the API gives the request."""
        return f"req_{self.name}"

    @property
    def is_long(self) -> bool:
        """Whether the answer is longer than what the documentation has a gateway log of it, 8 KiB."""
        return len(self.details) > 100

    @property
    def docs_url(self) -> str | None:
        """Where the API's documentation has the code."""
        return self.code and f"https://docs.example/errors#{self.code}"


CALLS: Final = (
    Call("listed", "/v1/messages?limit=2", 200),
    Call("sent", "/v1/messages", 201, method="POST", idempotency_key=IDEMPOTENCY_KEY),
    Call(
        "invalid",
        "/v1/messages",
        400,
        "validation_failed",
        method="POST",
        message='The body has 2 faults: "to" and "text".\nSee details\\issue.',
        details=(("to", f"{PHONE} is no number in Zürich"), ("text", "is empty")),
    ),
    Call(
        "long",
        "/v1/messages",
        400,
        "validation_failed",
        method="POST",
        message="The body has 300 faults.",
        details=tuple((f"to.{place}", "is no number") for place in range(300)),
    ),
    Call("keyless", "/v1/messages", 401, "missing_api_key", message="No API key was supplied.", has_caller=False),
    Call(
        "forbidden",
        "/v1/usage",
        403,
        "scope_invalid",
        message="Personal keys cannot see usage → ask an owner.",
        user_agent=ODD_AGENT,
    ),
    Call("missing", "/v1/messages/msg_7f3a9c", 404, "not_found", message="There is no such message."),
    Call(
        "reused",
        "/v1/messages",
        409,
        "idempotency_key_reused",
        method="POST",
        message="Another body came with this key.",
        idempotency_key=IDEMPOTENCY_KEY,
    ),
    Call(
        "stopped",
        f"/v1/numbers/{PHONE}/messages?api_key={PRESENTED_KEY}",
        422,
        "opted_out",
        method="POST",
        message=f"{PHONE} has replied STOP to {PRESENTED_KEY}.",
    ),
    Call(
        "limited", "/v1/messages", 429, "rate_limited", method="POST", message="At most 5 a second.", retry_after_s=30
    ),
    Call("packed", "/v1/usage", 429, "rate_limited", message="At most 1 a minute.", retry_after_s=60, is_packed=True),
    Call("slow", "/v1/reports", 500, "internal_error", message="It was not you.", is_slow=True),
    Call("broken", "/v1/exports", 502, method="POST", has_caller=False, has_answer=False),
)
"""What a client asks, one after the other; it says the name, by which the API knows what to answer."""

SLOW: Final = next(call for call in CALLS if call.is_slow)


@contextmanager
def serving() -> Iterator[Address]:
    """Where the API is, as long as the context lasts."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Api) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        try:
            yield "127.0.0.1", server.server_port
        finally:
            server.shutdown()


def call_all(gateway: Address) -> datetime:
    """Makes every call, one after the other, each on a connection of its own; gives the time before the first."""
    began = datetime.now(UTC)
    for call in CALLS:
        connection = HTTPConnection(*gateway, timeout=_MOST_WAITED_S)
        connection.putrequest(call.method, call.target, skip_host=True, skip_accept_encoding=True)
        headers = {
            "Host": HOST,
            "X-Call": call.name,
            "Connection": "close",
            "User-Agent": call.user_agent,
            "Accept-Encoding": "gzip" if call.is_packed else "identity",
            "Content-Length": "0",
        }
        if call.has_caller:
            headers |= {"Authorization": f"Bearer {PRESENTED_KEY}", "X-Integration-Key": PRESENTED_KEY}
        if call.idempotency_key:
            headers["Idempotency-Key"] = call.idempotency_key
        for header, value in headers.items():
            connection.putheader(header, value.encode())
        connection.endheaders()
        response = connection.getresponse()
        response.read()
        connection.close()
        assert response.status == call.status
    return began


class _Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        call = next(call for call in CALLS if call.name == self.headers["X-Call"])
        time.sleep(SLOW_S if call.is_slow else _QUICK_S)
        if not call.has_answer:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = json.dumps(_body(call), ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json", "X-Request-Id": call.request_id, "Connection": "close"}
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body)
            headers["Content-Encoding"] = "gzip"
        if call.code:
            headers["X-Error-Code"] = call.code
        if call.has_caller:
            headers |= {"X-Org-Id": "org_acme", "X-Key-Id": "key_41"}
        if call.retry_after_s:
            headers["Retry-After"] = str(call.retry_after_s)
        self.send_response(call.status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        # A body that comes in parts has to be put together by whoever logs it.
        self.wfile.write(body[: len(body) // 2])
        time.sleep(_QUICK_S)
        self.wfile.write(body[len(body) // 2 :])

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Is silent: the gateway keeps the log."""


def _body(call: Call) -> dict[str, Any]:
    if not call.code:
        return {"object": "list", "data": []}
    return {
        "object": "error",
        "code": call.code,
        "message": call.message,
        "request_id": call.request_id,
        "docs_url": call.docs_url,
        "details": [{"field": field, "issue": issue} for field, issue in call.details] or None,
    }
