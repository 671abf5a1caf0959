"""Secrets and personal data in every corner of a log, all fictional, and lines that are no request or hard to read."""

from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final
from urllib.parse import quote

from benchmarks.traffic.calls import (
    ADD_CONTACT,
    LIST_MESSAGES,
    NUMBERS,
    READ_CONTACT,
    READ_MESSAGE,
    SEND,
    Call,
    Client,
    Refusal,
    unknown_route,
)
from benchmarks.traffic.clock import DAY, Window, second_of
from benchmarks.traffic.stage import Stage


@dataclass(frozen=True)
class Interruption:
    """A line of the file that is no request, when it is written, and what nobody may store of it."""

    kind: str
    moment_ms: int
    line: bytes
    private: tuple[str, ...] = ()


def leaks(stage: Stage) -> None:
    """Each leak three times over the days, by clients that otherwise work."""
    client = stage.customer("leaky_integration", "legacy-gateway/0.3")
    stranger = stage.client("leaky_stranger", None, "curl/7.68.0")
    for number, call in enumerate((*in_query_strings(stage, client), *in_paths_and_referers(stage, client))):
        repeat(stage, number, call)
    for number, call in enumerate((*in_answers(stage, client), *hard_to_read(client)), start=100):
        repeat(stage, number, call)
    pasted = secret(stage.rng("pasted key"), "sk_live_")
    refusal = Refusal("invalid_api_key", f"The key {pasted} is not valid for this host.")
    repeat(stage, 200, Call(stranger, NUMBERS, NUMBERS.route, refusal=refusal, private=(pasted,)))


def repeat(stage: Stage, number: int, call: Call) -> None:
    """Make `call` three times, the last of them on the last day."""
    rng, span = stage.rng(f"leak {number}"), stage.window.end_ms - stage.window.start_ms
    last_hours = Window(stage.window.end_ms - min(span, DAY) // 8, stage.window.end_ms)
    windows = (stage.window, stage.window, last_hours)
    moments = sorted(rng.randrange(window.start_ms, window.end_ms) for window in windows)
    stage.play(iter(moments), lambda: call)


def secret(rng: Random, prefix: str) -> str:
    """A key of the API that says of itself that it is none."""
    return f"{prefix}FICTION{rng.getrandbits(112):028x}"


def web_token(rng: Random, subject: str) -> str:
    """A JSON Web Token that nobody signed."""
    parts = (
        '{"alg":"HS256","typ":"JWT"}',
        f'{{"sub":"{subject}","iss":"fiction"}}',
        f"fiction-{rng.getrandbits(96):024x}",
    )
    return ".".join(urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


def in_query_strings(stage: Stage, client: Client) -> tuple[Call, ...]:
    """Keys, tokens, addresses and numbers in the arguments, plain and percent-encoded."""
    rng = stage.rng("query strings")
    server_key, integration_key = secret(rng, "sk_live_"), secret(rng, "ik_live_")
    token, bearer = web_token(rng, "u-1001"), web_token(rng, "u-1002")
    plain, encoded = "ada.example@mail.example", quote("grace.example@mail.example", safe="")
    return tuple(
        Call(client, LIST_MESSAGES, LIST_MESSAGES.route, args=args, private=private)
        for args, private in (
            (f"limit=50&api_key={server_key}", (server_key,)),
            (f"integration_key={integration_key}&status=failed", (integration_key,)),
            (f"token={token}", (token,)),
            (f"authorization=Bearer%20{bearer}", (bearer,)),
            (f"email={plain}", (plain,)),
            (f"email={encoded}", (encoded, "grace.example@mail.example")),
            ("to=+14155550141&limit=5", ("+14155550141",)),
            ("to=%2B12125550142&limit=5", ("%2B12125550142", "+12125550142", "12125550142")),
            ("phone=(617)+555-0143", ("(617)+555-0143",)),
            ("phone=%28303%29%20555-0144", ("%28303%29%20555-0144", "(303) 555-0144")),
            ("from=02079460145", ("02079460145",)),
        )
    )


def in_paths_and_referers(stage: Stage, client: Client) -> tuple[Call, ...]:
    """Keys, addresses and numbers in paths, tokens and passwords in referers."""
    rng = stage.rng("paths")
    server_key, integration_key, third = (secret(rng, prefix) for prefix in ("sk_live_", "ik_live_", "sk_live_"))
    paths = (
        (f"/v1/keys/{server_key}/rotate", (server_key,)),
        (f"/v1/keys/{integration_key}", (integration_key,)),
        ("/v1/contacts/by-email/alan.example@mail.example", ("alan.example@mail.example",)),
        ("/v1/contacts/by-email/joan.example%40mail.example", ("joan.example%40mail.example",)),
        ("/v1/contacts/by-phone/+14045550146", ("+14045550146",)),
        ("/v1/contacts/by-phone/%2B17025550147", ("%2B17025550147", "+17025550147", "17025550147")),
        ("/v1/contacts/by-phone/804-555-0148", ("804-555-0148",)),
        ("/v1/contacts/by-phone/07700900149", ("07700900149",)),
    )
    token, password = web_token(rng, "u-1003"), f"hunter2-fiction-{rng.getrandbits(32):08x}"
    referers = (
        (f"https://app.customer.example/return?access_token={token}", (token,)),
        (f"https://ops:{password}@intranet.customer.example/tools", (password, f"ops:{password}")),
        (f"https://app.customer.example/setup?key={third}", (third,)),
        ("https://crm.customer.example/people?q=mary.example%40mail.example", ("mary.example%40mail.example",)),
    )
    return (
        *(Call(client, unknown_route("GET", path), path, private=private) for path, private in paths),
        *(Call(client, NUMBERS, NUMBERS.route, referer=referer, private=private) for referer, private in referers),
    )


def in_answers(stage: Stage, client: Client) -> tuple[Call, ...]:
    """Personal data and a key that the API repeats in messages and details."""
    key = secret(stage.rng("answers"), "ik_live_")
    taken, number = "edsger.example@mail.example", "+16175550150"
    conflict = Refusal("validation_failed", f"A contact with {taken} or {number} exists.", (("email", "taken"),))
    echoed = f'"{key}" is a key, not a text'
    return (
        Call(client, ADD_CONTACT, ADD_CONTACT.route, refusal=conflict, private=(taken, number)),
        Call(
            client,
            ADD_CONTACT,
            ADD_CONTACT.route,
            faults=(
                ("email", 'cannot deliver to "barbara.example@mail.example"'),
                ("phone", 'use E.164, not "020 7946 0151"'),
            ),
            private=("barbara.example@mail.example", "020 7946 0151"),
        ),
        Call(
            client,
            SEND,
            SEND.route,
            faults=(("to", '"(212) 555-0152" is not an E.164 number'),),
            private=("(212) 555-0152",),
        ),
        Call(client, SEND, SEND.route, faults=(("text", echoed),), private=(key,)),
        Call(
            client,
            SEND,
            SEND.route,
            refusal=Refusal("opted_out", "Recipient (503) 555-0153 replied STOP on 2026-10-02."),
            private=("(503) 555-0153",),
        ),
    )


def hard_to_read(client: Client) -> tuple[Call, ...]:
    """Requests all the same: a path that is not UTF-8, a body beyond what the gateway keeps, a body encoded twice."""
    latin_1 = "/v1/contacts/Andr\udce9"
    gone = Refusal("not_found", "Nothing found at /v1/contacts/Andr%E9.")
    many = tuple((f"to[{index}]", "not an E.164 number") for index in range(110))
    twice = Refusal("not_found", "Nothing found at /v1/messages/m_old.")
    return (
        Call(client, READ_CONTACT, latin_1, refusal=gone),
        Call(client, SEND, SEND.route, faults=many),
        Call(client, READ_MESSAGE, "/v1/messages/m_old", refusal=twice, is_body_encoded_twice=True),
    )


def interruptions(stage: Stage) -> list[Interruption]:
    """What else is in the files, by time: the gateway's error log, half a line, an empty one, other JSON."""
    key = secret(stage.rng("interruptions"), "sk_live_")
    span_ms = stage.window.end_ms - stage.window.start_ms
    moments = range(stage.window.start_ms + span_ms // 40, stage.window.end_ms, span_ms // 20)
    return [other_line(number, moment, key) for number, moment in enumerate(moments)]


def other_line(number: int, moment_ms: int, key: str) -> Interruption:
    """The kinds of lines in turn."""
    local = second_of(moment_ms).replace("-", "/").replace("T", " ")
    closed = f"{local} [error] 31#31: *88121 upstream prematurely closed connection, client: 203.0.113.9, "
    request = f'request: "GET /v1/messages?api_key={key} HTTP/1.1", host: "api.textwire.example"'
    kinds: tuple[tuple[str, str, tuple[str, ...]], ...] = (
        ("error_log", closed + request, (key,)),
        ("cut", f'{{"time":"{second_of(moment_ms)}+00:00","msec":17', ()),
        ("blank", "", ()),
        ("not_an_object", '"access log reopened"', ()),
        ("no_status", '{"level":"notice","msg":"signal 10 (SIGUSR1) received, reopening logs"}', ()),
        ("error_log", f"{local} [warn] 31#31: *90417 an upstream response is buffered to a temporary file", ()),
        ("blank", "   ", ()),
    )
    kind, line, private = kinds[number % len(kinds)]
    return Interruption(kind, moment_ms, line.encode(), private)


SCENES: Final[tuple[Callable[[Stage], None], ...]] = (leaks,)
