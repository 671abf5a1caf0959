"""The rows that must come of the calls, whatever gateway logged them."""

import hashlib
import hmac
from collections.abc import Sequence

from tests.gateways.api import CALLS, HOST, ODD_AGENT, PHONE, PRESENTED_KEY, Call
from tests.ingest.logs import KEY, Row


def rows(
    *,
    body_state: str = "absent",
    page_state: str = "absent",
    gateway_reason: str = "bad_gateway",
    odd_agent: str = ODD_AGENT,
    without: Sequence[str] = (),
) -> list[Row]:
    """The rows of `CALLS`, without their times.

    `body_state` is that of the API's errors, `page_state` that of the gateway's own. `odd_agent` is how the log writes
    `ODD_AGENT`. A log that says nothing of the columns `without` leaves them empty.
    """
    return [
        {
            "request_id": call.request_id if call.has_answer else None,
            "org_id": "org_acme" if call.has_caller else None,
            "key_id": "key_41" if call.has_caller else None,
            "client_ip": "127.0.0.1",
            "user_agent": call.user_agent.replace(ODD_AGENT, odd_agent),
            "method": call.method,
            "path": _path(call),
            "status": call.status,
            "code": call.code,
            "retry_after_s": call.retry_after_s,
            "idempotency_hash": call.idempotency_key and _fingerprint(call.idempotency_key)[:16],
            "origin": "upstream" if call.has_answer else "gateway",
            "gateway_reason": None if call.has_answer else gateway_reason,
            "body_state": _state(call, body_state if call.has_answer else page_state),
            "host": HOST,
            **_said(call, is_logged=body_state == "whole"),
            **dict.fromkeys(without),
        }
        for call in CALLS
    ]


def _state(call: Call, logged: str) -> str | None:
    if call.status < 400:
        return None
    return "truncated" if call.is_long and logged == "whole" else logged


def _said(call: Call, *, is_logged: bool) -> Row:
    """What only the body of an error says."""
    if not is_logged or not call.code:
        return dict.fromkeys(("message", "docs_url", "details"))
    details = [{"field": field, "issue": _masked(issue)} for field, issue in call.details]
    return {
        "message": _masked(call.message),
        "docs_url": call.docs_url,
        "details": None if call.is_long else details or None,
    }


def _path(call: Call) -> str:
    path = call.target.partition("?")[0]
    return f"{path.replace(PHONE, '{id}')}#{_fingerprint(path)[:12]}" if PHONE in path else path


def _masked(text: str) -> str:
    return text.replace(PHONE, "[phone]").replace(PRESENTED_KEY, "[secret]")


def _fingerprint(text: str) -> str:
    return hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()
