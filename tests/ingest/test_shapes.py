"""What is masked and what is not, told by the example numbers of libphonenumber and by what people write otherwise."""

import re
from collections.abc import Iterator
from typing import Final

import phonenumbers
import pyarrow as pa
import pytest
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from ingest.shapes import mask_texts, unescaped
from tests.secrets.planted import ENCODINGS, PLANTED, Encode

KINDS: Final = {
    "fixed line": PhoneNumberType.FIXED_LINE,
    "mobile": PhoneNumberType.MOBILE,
    "toll-free": PhoneNumberType.TOLL_FREE,
}
FORMATS: Final = {
    "E.164": PhoneNumberFormat.E164,
    "international": PhoneNumberFormat.INTERNATIONAL,
    "national": PhoneNumberFormat.NATIONAL,
    "RFC 3966": PhoneNumberFormat.RFC3966,
}
SENTENCES: Final = ("{} has opted out", "cannot deliver to ({}), try later", '{{"to":"{}"}}', "to={}&page=2")


def examples(kind: int, form: int) -> Iterator[str]:
    """The example number of every region, as it is written there."""
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        number = phonenumbers.example_number_for_type(region, kind)
        if number is not None:
            yield phonenumbers.format_number(number, form)


def masked(texts: list[str]) -> list[str]:
    """`texts` as the door lets them through."""
    return [str(text) for text in mask_texts(pa.array(texts)).to_pylist()]


def digits(text: str) -> str:
    """The digits of `text`."""
    return re.sub(r"\D", "", text)


@pytest.mark.parametrize("sentence", SENTENCES)
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_phone_number_of_any_region_is_masked(kind: int, form: int, sentence: str) -> None:
    numbers = [number for number in examples(kind, form) if len(digits(number)) >= 7 and not is_bare(number)]

    found = masked([sentence.format(number) for number in numbers])

    kept = digits(sentence)
    assert len(numbers) > 100
    assert {number for number, text in zip(numbers, found, strict=True) if digits(text) != kept} == set()


def is_bare(number: str) -> bool:
    """Whether `number` is nothing but up to nine digits, which a byte count is, too."""
    return number.isdecimal() and len(number) < 10


@pytest.mark.parametrize("before", ["phone ", '"to":"', "mobile=", "The number ", "msisdn: ", "recipient '"])
def test_bare_digits_are_a_phone_number_where_they_are_called_so(before: str) -> None:
    assert masked([f"{before}81234567, please"]) == [f"{before}[phone], please"]


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("name", PLANTED)
def test_what_is_secret_is_masked_however_it_is_encoded(name: str, encode: Encode) -> None:
    text, part = PLANTED[name]

    [found] = masked([f"cannot use {encode(text)} here"])

    assert part not in unescaped(found)
    assert encode(part) not in found
    assert found.startswith("cannot use ")


HARMLESS: Final = [
    "Bearer token is missing",
    "Basic authentication required",
    "No API key provided. Send it as 'Authorization: Bearer <key>'.",
    "Token expired at 2026-11-23T10:59:05Z",
    "sort key: created_at",
    "This endpoint requires the scope keys:write",
    'The Idempotency-Key "61cd27c589ffee0e9c98f443186f4a04" was already used',
    "No such report: 2026-11-23.csv, 23-11-2026",
    "Request 123e4567-e89b-12d3-a456-426614174000 failed",
    "limit 5000 per 3600 s; at most 10485760 bytes",
    "Invalid value for 'page_size': must be 1-1000",
    "feature ab_test_disabled is off",
    "task-01j9z6q3m8t4v5w6x7y8z9a0b1 not found",
    "amount 1,234,567.00",
    "192.168.0.1 and 2001:db8::1 are denied",
    "SQLSTATE[23505]: Unique violation: 7 ERROR",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "trace 4bf92f3577b34da6a3ce929d0e0e4736",
    "100%25 of 20%20items &amp; more \\u00e9",
    "/usr/lib/python3/dist-packages/requests/adapters.py line 501",
    "AuthenticationFailedException in com.example.service.AuthorizationController",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (Linux; Android 13; SM-G998B Build/TP1A.220624.014) Chrome/118.0.5993.111 Mobile Safari/537.36",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "aws-sdk-go-v2/1.17.1 os/linux lang/go#1.19 md/GOOS#linux api/s3#1.26.12",
    "MyApp/1234 CFNetwork/1408.0.4 Darwin/22.5.0",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert masked([text]) == [text]


TAKEN_FOR_SECRETS: Final = {
    "Range 1000-2000": "Range [phone]",
    "amount 1 234 567.00": "amount [phone].00",
    "at 1795431545": "at [phone]",
    "node T3JnYW5pemF0aW9uOjEyMw==": "node [encoded]",
}
"""What looks like a phone number or an encoded text and is none: masked, since nothing tells."""


@pytest.mark.parametrize(("text", "found"), TAKEN_FOR_SECRETS.items())
def test_what_looks_like_a_secret_is_masked(text: str, found: str) -> None:
    assert masked([text]) == [found]


KEPT: Final = [
    "call 81234567",
    "call 312 345",
    "user hunter",
    "id 9f1c0b7e5a2d4c33a1b2c3d4e5f60718",
]
"""What nothing tells from a number, an id or a word, and is kept."""


@pytest.mark.parametrize("text", KEPT)
def test_what_nothing_tells_from_an_id_or_a_number_is_kept(text: str) -> None:
    assert masked([text]) == [text]
