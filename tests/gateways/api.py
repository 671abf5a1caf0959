"""A small API that stands behind a gateway: what it is asked, what it answers, and the rows that must come of it.

Its errors have the v1 envelope. It names the error in `X-Error-Code` and the caller in `X-Org-Id` and `X-Key-Id`, so
that a gateway which cannot log a body can log what an error was and whom it met.
"""

import gzip
import hashlib
import hmac
import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final

Row = dict[str, Any]
Address = tuple[str, int]

PRESENTED_KEY: Final = "acme_live_4fS9xQ2LmT7"
PHONE: Final = "+14155550132"
IDEMPOTENCY_KEY: Final = "idem-1f0c7be2"
SLOW_S: Final = 0.3
USER_AGENT: Final = 'sdk/2.1 "beta" C:\\ {x|y} Zürich'

_HOST: Final = "api.example"
_QUICK_S: Final = 0.005  # a gateway's clock may have no more than milliseconds
_MOST_WAITED_S: Final = 30


@dataclass(frozen=True)
class Call:
    """A request, and what the API answers; without an answer it closes the connection."""

    target: str
    status: int
    code: str | None = None
    method: str = "GET"
    message: str = ""
    details: tuple[tuple[str, str], ...] = ()
    idempotency_key: str | None = None
    retry_after_s: int | None = None
    has_caller: bool = True
    has_answer: bool = True
    is_packed: bool = False
    is_slow: bool = False


CALLS: Final = {
    "listed": Call("/v1/messages?limit=2", 200),
    "sent": Call("/v1/messages", 201, method="POST", idempotency_key=IDEMPOTENCY_KEY),
    "invalid": Call(
        "/v1/messages",
        400,
        "validation_failed",
        method="POST",
        message='The body has 2 faults: "to" and "text".\nSee details\\issue.',
        details=(("to", f"{PHONE} is no number in Zürich"), ("text", "is empty")),
    ),
    "keyless": Call("/v1/messages", 401, "missing_api_key", message="No API key was supplied.", has_caller=False),
    "forbidden": Call("/v1/usage", 403, "scope_invalid", message="Personal keys cannot see usage → ask an owner."),
    "missing": Call("/v1/messages/msg_7f3a9c", 404, "not_found", message="There is no such message."),
    "reused": Call(
        "/v1/messages",
        409,
        "idempotency_key_reused",
        method="POST",
        message="Another body came with this key.",
        idempotency_key=IDEMPOTENCY_KEY,
    ),
    "stopped": Call(
        f"/v1/numbers/{PHONE}/messages?api_key={PRESENTED_KEY}",
        422,
        "opted_out",
        method="POST",
        message=f"{PHONE} has replied STOP to {PRESENTED_KEY}.",
    ),
    "limited": Call(
        "/v1/messages", 429, "rate_limited", method="POST", message="At most 5 a second.", retry_after_s=30
    ),
    "packed": Call("/v1/usage", 429, "rate_limited", message="At most 1 a minute.", retry_after_s=60, is_packed=True),
    "slow": Call("/v1/reports", 500, "internal_error", message="It was not you.", is_slow=True),
    "broken": Call("/v1/exports", 502, method="POST", has_caller=False, has_answer=False),
}
"""Each call with its name, which the client sends and the request id holds."""


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
    for name, call in CALLS.items():
        connection = HTTPConnection(*gateway, timeout=_MOST_WAITED_S)
        connection.putrequest(call.method, call.target, skip_host=True, skip_accept_encoding=True)
        headers = {
            "Host": _HOST,
            "X-Call": name,
            "Connection": "close",
            "User-Agent": USER_AGENT,
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
        name = self.headers["X-Call"]
        call = CALLS[name]
        time.sleep(SLOW_S if call.is_slow else _QUICK_S)
        if not call.has_answer:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = json.dumps(_body(name, call), ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json", "X-Request-Id": _request_id(name), "Connection": "close"}
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


def _body(name: str, call: Call) -> Row:
    if not call.code:
        return {"object": "list", "data": []}
    return {
        "object": "error",
        "code": call.code,
        "message": call.message,
        "request_id": _request_id(name),
        "docs_url": _docs_url(call),
        "details": _details(call),
    }


def _details(call: Call, written: Callable[[str], str] = str) -> list[Row] | None:
    return [{"field": field, "issue": written(issue)} for field, issue in call.details] or None


def _request_id(name: str) -> str:
    return f"req_{name}"


def _docs_url(call: Call) -> str | None:
    return call.code and f"https://docs.example/errors#{call.code}"


def rows(
    secret: bytes,
    *,
    body_state: str = "absent",
    page_state: str = "absent",
    gateway_reason: str = "bad_gateway",
    user_agent: str = USER_AGENT,
    without: Sequence[str] = (),
) -> list[Row]:
    """The rows that must come of `CALLS`, without their times.

    `body_state` is that of the API's errors, `page_state` that of the gateway's own. A log that has not the columns
    `without` leaves them empty.
    """
    made = []
    for name, call in CALLS.items():
        is_said = body_state == "whole" and call.code is not None
        made.append(
            {
                "request_id": _request_id(name) if call.has_answer else None,
                "org_id": "org_acme" if call.has_caller else None,
                "key_id": "key_41" if call.has_caller else None,
                "client_ip": "127.0.0.1",
                "user_agent": user_agent,
                "method": call.method,
                "path": _path(call, secret),
                "status": call.status,
                "code": call.code,
                "message": _masked(call.message) if is_said else None,
                "docs_url": _docs_url(call) if is_said else None,
                "details": _details(call, _masked) if is_said else None,
                "retry_after_s": call.retry_after_s,
                "idempotency_hash": call.idempotency_key and _fingerprint(secret, call.idempotency_key)[:16],
                "origin": "upstream" if call.has_answer else "gateway",
                "gateway_reason": None if call.has_answer else gateway_reason,
                "body_state": (body_state if call.has_answer else page_state) if call.status >= 400 else None,
                "host": _HOST,
            }
            | dict.fromkeys(without)
        )
    return made


def _path(call: Call, secret: bytes) -> str:
    path = call.target.partition("?")[0]
    return path.replace(PHONE, "{id}") + "#" + _fingerprint(secret, path)[:12] if PHONE in path else path


def _masked(text: str) -> str:
    return text.replace(PHONE, "[phone]").replace(PRESENTED_KEY, "[secret]")


def _fingerprint(secret: bytes, text: str) -> str:
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
