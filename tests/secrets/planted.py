"""Invented secrets and personal data, and records of every format that have them in every place.

Nothing here is in one piece in this file, so that a scanner of repositories finds none of it.
"""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Final
from urllib.parse import quote

from ingest.formats import Format


def made(
    name: str, length: int, letters: str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
) -> str:
    """A text that nothing else looks like, the same for the same name, with a digit in it."""
    digest = b"".join(hashlib.sha256(f"{name} {part}".encode()).digest() for part in range(1 + length // 32))
    return "7" + "".join(letters[byte % len(letters)] for byte in digest)[: length - 1]


def _hex(name: str, length: int) -> str:
    return made(name, length, "0123456789abcdef")


def _upper(name: str, length: int) -> str:
    return made(name, length, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")


_JWT: Final = base64.urlsafe_b64encode(b'{"alg":"HS256"}').decode().rstrip("=")

SECRETS: Final[dict[str, tuple[str, str]]] = {
    "Stripe": ("sk" + "_live_{}", made("stripe", 24)),
    "AWS access key": ("AKIA" + "{}", _upper("aws", 16)),
    "AWS secret key": ("aws_secret_access_key" + "={}", made("aws secret", 40)),
    "Google": ("AI" + "za{}", made("google", 35)),
    "GitHub": ("gh" + "p_{}", made("github", 36)),
    "GitLab": ("gl" + "pat-{}", made("gitlab", 20)),
    "Slack": ("xox" + "b-{}", _hex("slack", 24)),
    "Slack webhook": ("https://hooks.slack" + ".com/services/T7" + "XYZ/B7XYZ/{}", made("webhook", 24)),
    "Twilio": ("S" + "K{}", _hex("twilio", 32)),
    "SendGrid": ("S" + "G.{}", made("sendgrid", 22) + "." + made("sendgrid 2", 43)),
    "npm": ("np" + "m_{}", made("npm", 36)),
    "PyPI": ("pyp" + "i-AgE{}", made("pypi", 60)),
    "OpenAI": ("s" + "k-proj-{}", made("openai", 40)),
    "Anthropic": ("s" + "k-ant-api03-{}", made("anthropic", 40)),
    "JWT": ("{}", f"{_JWT}.{made('claims', 40)}.{made('mac', 43)}"),
    "bearer": ("Bear" + "er {}", made("bearer", 32)),
    "basic": ("Bas" + "ic {}", base64.b64encode(f"ops:{made('basic', 12)}".encode()).decode().rstrip("=")),
    "login in a URL": ("https://ops:{}@api.example/v1", made("login", 14)),
    "private key": ("-----BEGIN PRIVATE " + "KEY-----{}-----END PRIVATE KEY-----", made("pem", 64)),
    "parameter": ("api_key={}", made("parameter", 20)),
}
"""How a secret is written, and the part of it that nobody may find."""

PERSONAL: Final[dict[str, tuple[str, str]]] = {
    "e-mail": ("{}", "ada.lovelace" + "@mail.example"),
    "E.164": ("{}", "+1415" + "5550123"),
    "E.164 in groups": ("{}", "+44 20 " + "7946 0958"),
    "national, North America": ("{}", "(212) " + "555-0152"),
    "national, Britain": ("{}", "020 " + "7946 0151"),
    "national, France": ("{}", "06 12 " + "34 56 78"),
    "national, Singapore": ("{}", "8123 " + "4567"),
    "national, Germany": ("{}", "030 " + "12345678"),
}
"""As `SECRETS`, for what is personal."""

PLANTED: Final = {name: (how.format(part), part) for name, (how, part) in (SECRETS | PERSONAL).items()}
"""What is planted, and the part of it that nobody may find."""

Encode = Callable[[str], str]

ENCODINGS: Final[dict[str, Encode]] = {
    "plain": lambda text: text,
    "percent-encoded": lambda text: quote(text, safe=""),
    "percent-encoded twice": lambda text: quote(quote(text, safe=""), safe=""),
    "escaped as JSON": lambda text: "".join(f"\\u{ord(letter):04x}" for letter in text),
    "base64": lambda text: base64.b64encode(f"to={text}".encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
}
"""Ways to write a text that can be undone by whoever finds it."""

TOGETHER: Final = " , ".join(text for text, _ in PLANTED.values())


def needles(part: str) -> set[bytes]:
    """The bytes that give `part` away, in lower case: as it is, encoded, and in base64 wherever a quartet may begin."""
    ways = {encode(part) for name, encode in ENCODINGS.items() if name != "base64"}
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + part.encode()).decode().rstrip("=")
        # The first and last letters have bits of their neighbours.
        ways.add(encoded[(0, 2, 3)[shift] : -1])
    return {way.lower().encode() for way in ways}


_HEAD: Final = 50  # more than detection looks at


def lines(layout: Format) -> Iterator[bytes]:
    """Lines of `layout`: its samples, by which it is detected, then each with something planted in one place."""
    numbers = count()
    yield from [str(sample["line"]).encode() for sample in layout.samples] * _HEAD
    for sample in layout.samples:
        line = str(sample["line"])
        record = _json(line)
        if record is None:
            yield from _in_text(layout, line, numbers)
        else:
            yield from (json.dumps(found).encode() for found in _in_json(record, numbers))


def _texts(numbers: Iterator[int]) -> Iterator[str]:
    """What to plant in a place: everything, and one that takes turns with the others."""
    yield TOGETHER
    text, encode = _TURNS[next(numbers) * 5 % len(_TURNS)]
    yield encode(text)


# Five has no factor in common with their number, so that each has its turn.
_TURNS: Final = [
    *((text, encode) for encode in ENCODINGS.values() for text, _ in PLANTED.values()),
    (TOGETHER, ENCODINGS["percent-encoded"]),
]


def _in_json(value: Any, numbers: Iterator[int]) -> Iterator[Any]:
    """`value` with something planted in one of the values in it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from (value | {key: changed} for changed in _in_json(inner, numbers))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from ([*value[:at], changed, *value[at + 1 :]] for changed in _in_json(inner, numbers))
    else:
        for text in _texts(numbers):
            yield text
            if isinstance(value, str):
                yield f"{value}{'/' if value.startswith('/') else ' '}{text}"
        if isinstance(value, str) and (inside := _json(value)) is not None:
            for changed in _in_json(inside, numbers):
                body = json.dumps(changed)
                yield from (body, base64.b64encode(body.encode()).decode())
                yield base64.b64encode(gzip.compress(body.encode(), mtime=0)).decode()


def _json(text: str) -> Any:
    """The object or list that `text` is, None where it is none."""
    try:
        return json.loads(text) if text.startswith(("{", "[")) else None
    except ValueError:
        return None  # of a template that breaks JSON


def _in_text(layout: Format, line: str, numbers: Iterator[int]) -> Iterator[bytes]:
    """`line` with something planted behind one of its fields."""
    match = re.match(layout.pattern, line) if layout.pattern else None
    ends = [match.end(name) for name in match.groupdict() if match[name]] if match else []
    # What is no such line, or has no pattern, is planted behind each word of its last line.
    start = line.rfind("\n") + 1
    for end in sorted({*ends, *(word.end() for word in re.finditer(r"[^\s\"]+", line) if word.start() >= start)}):
        for text in _texts(numbers):
            yield f"{line[:end]}/{text}{line[end:]}".encode()
