"""The parts of docs/redaction.md that the door itself says: what is left of a secret in each place, and the shapes."""

import json
from contextlib import closing
from typing import Any, Final

from ingest.parse import Lanes
from ingest.shapes import PREFIXES, SHAPES
from tests.ingest.logs import KEY, NGINX_JSON, json_line, parsed, settled
from tests.secrets.planted import PLANTED

_ENVELOPE: Final = {"object": "error", "code": "bad", "message": "m", "request_id": "req_1"}


def table() -> str:
    """For each thing that is planted, a row: what is left of it in each place of a record."""
    lines = [json_line(**fields) for text, _ in PLANTED.values() for fields in _records(text).values()]
    with closing(Lanes(KEY, 1)) as lanes:
        found, _ = parsed(lanes, settled(NGINX_JSON, lines), lines)
    rows = iter(found)
    places = list(_records(""))
    told = [f"| planted | {' | '.join(places)} |", "|---" * (len(places) + 1) + "|"]
    for name, (_, part) in PLANTED.items():
        told.append(f"| {name} | {' | '.join(_left(next(rows)[column], part) for column in _COLUMNS)} |")
    return "\n".join(told)


def shapes() -> str:
    """The names of the secrets that are known by their shape."""
    return ", ".join(sorted((*PREFIXES, *SHAPES), key=str.casefold)) + "."


_COLUMNS: Final = (
    *("path", "path", "user_agent", "request_id", "org_id", "key_id", "key_hash", "client_ip", "method", "host"),
    *("message", "code", "docs_url", "details"),
)


def _records(text: str) -> dict[str, dict[str, object]]:
    """A record with `text` in one place, by the name of the place, in the order of `_COLUMNS`."""
    return {
        "path": {"uri": f"/v1/things/{text}/parts"},
        "query": {"uri": f"/v1/things?to={text}"},
        "user agent": {"user_agent": f"sdk/1.0 ({text})"},
        "request id": {"request_id": text},
        "org id": {"org_id": text},
        "key id": {"key_id": text},
        "key header": {"http_x_api_key": text},
        "client ip": {"remote_addr": text},
        "method": {"method": text},
        "host": {"host": text},
        "message": _answered(message=f"{text} is wrong"),
        "code": _answered(code=text),
        "docs_url": _answered(docs_url=f"https://docs.example/errors?to={text}"),
        "details": _answered(details=[{"field": text, "issue": f"{text} is wrong"}]),
    }


def _answered(**fields: object) -> dict[str, object]:
    return {"status": 400, "resp_body": json.dumps(_ENVELOPE | fields)}


def _left(value: Any, part: str) -> str:
    """A word for what is left of `part` in the `value` of a column."""
    text = json.dumps(value, ensure_ascii=False)
    if part in text:
        return "**kept**"
    if any(mask in text for mask in ("[secret]", "[phone]", "[email]", "[encoded]")):
        return "masked"
    is_fingerprint = "#" in text or (isinstance(value, str) and len(value) == 16)
    return "fingerprint" if is_fingerprint else "dropped"
