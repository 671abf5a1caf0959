"""Of a recipient that is masked, a keyed fingerprint stays: the same for the same recipient, however it is written."""

import hmac
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ingest.formats import read_format
from ingest.parse import Lanes
from tests.ingest.logs import KEY, NGINX_JSON, json_line, parsed, settled

PHONE = "+12025550146"
OTHER_PHONE = "+12025550147"
EMAIL = "ada@mail.example"


@pytest.fixture(scope="module")
def lanes() -> Iterator[Lanes]:
    with closing(Lanes(KEY, threads=1)) as made:
        yield made


def fingerprint(recipient: str) -> str:
    return hmac.digest(KEY, recipient.encode(), "sha256").hex()[:16]


def refused(message: object, details: object = None, **fields: object) -> bytes:
    """The line of a request that was refused with `message` and `details`."""
    envelope = {"object": "error", "code": "dnc_blocked", "message": message, "details": details}
    return json_line(status=403, upstream_status="403", resp_body=json.dumps(envelope), **fields)


def hashes(lanes: Lanes, *lines: bytes) -> list[str | None]:
    """The recipient_hash of each line, which is the same in both lanes."""
    # A byte order mark makes the vectorised lane refuse a line.
    carefully = [b"\xef\xbb\xbf" + line for line in lines]
    layout = settled(NGINX_JSON, lines)
    [found, again] = (
        [row["recipient_hash"] for row in parsed(lanes, layout, each)[0]] for each in (list(lines), carefully)
    )
    assert found == again
    return found


@pytest.mark.parametrize(
    ("message", "recipient"),
    [
        pytest.param(f"Recipient {PHONE} is on the do-not-contact list.", PHONE, id="E.164"),
        pytest.param(f"{PHONE}", PHONE, id="nothing but the number"),
        pytest.param("Recipient +1 (202) 555-0146 is blocked.", PHONE, id="in groups"),
        pytest.param("Recipient 0012025550146 is blocked.", PHONE, id="international prefix"),
        pytest.param("Recipient %2B12025550146 is blocked.", PHONE, id="percent-encoded"),
        pytest.param(f"Recipient {PHONE} (4 attempts) is blocked.", PHONE, id="a number in the next words"),
        pytest.param("Recipient (202) 555-0146 is blocked.", "2025550146", id="national"),
        pytest.param("recipient: 5550146 is blocked.", "5550146", id="short, and called a recipient"),
        pytest.param(f"{EMAIL} has opted out.", EMAIL, id="e-mail"),
        pytest.param("'Ada@Mail.EXAMPLE' has opted out.", EMAIL, id="e-mail in capitals and quotes"),
        pytest.param("This recipient has opted out.", None, id="none"),
        pytest.param("[phone] has opted out.", None, id="what looks like a mask"),
        pytest.param(f"{PHONE} has opted out of [phone].", None, id="a number and what looks like a mask"),
        pytest.param(f"{PHONE} and {OTHER_PHONE} have opted out.", None, id="two numbers"),
        pytest.param(f"{PHONE} has opted out; ask {EMAIL}.", None, id="a number and an e-mail"),
        pytest.param(f"Bearer 0123456789abcdef {PHONE} is blocked.", None, id="a secret beside it"),
        pytest.param(None, None, id="no message"),
    ],
)
def test_the_only_recipient_in_a_message_has_its_fingerprint(
    lanes: Lanes, message: str | None, recipient: str | None
) -> None:
    assert hashes(lanes, refused(message)) == [recipient and fingerprint(recipient)]


@pytest.mark.parametrize(
    ("message", "details", "recipient"),
    [
        pytest.param("Blocked.", [{"field": "to", "issue": f"{PHONE} is blocked"}], PHONE, id="an issue"),
        pytest.param("Blocked.", [{"field": PHONE, "issue": "is blocked"}], PHONE, id="a field"),
        pytest.param("Blocked.", {"to": EMAIL}, EMAIL, id="an object"),
        pytest.param(
            "Blocked.",
            [{"field": "to", "issue": f"{PHONE} is blocked"}, {"field": "from", "issue": f"never to {PHONE}"}],
            PHONE,
            id="the same one twice",
        ),
        pytest.param(
            "Blocked.",
            [{"field": "to[0]", "issue": f"{PHONE} is blocked"}, {"field": "to[1]", "issue": f"{OTHER_PHONE} too"}],
            None,
            id="two of them",
        ),
        pytest.param(f"{OTHER_PHONE}!", [{"field": "to", "issue": f"{PHONE} is blocked"}], OTHER_PHONE, id="message"),
        pytest.param(
            f"{OTHER_PHONE} and {EMAIL}",
            [{"field": "to", "issue": f"{PHONE} is blocked"}],
            None,
            id="several in the message",
        ),
    ],
)
def test_details_are_asked_where_the_message_names_no_recipient(
    lanes: Lanes, message: str, details: object, recipient: str | None
) -> None:
    assert hashes(lanes, refused(message, details)) == [recipient and fingerprint(recipient)]


def test_each_of_several_errors_keeps_its_own(lanes: Lanes) -> None:
    lines = [
        refused(f"{PHONE} is blocked."),
        json_line(),
        refused("Blocked.", [{"field": "a", "issue": "b"}, {"field": "to", "issue": f"{EMAIL} is blocked"}]),
        refused("Blocked.", []),
        refused("Blocked.", [{"field": "to", "issue": f"{OTHER_PHONE} is blocked"}]),
        refused(f"{PHONE} is blocked."),
    ]

    found = hashes(lanes, *lines)

    of_phone, of_email, of_other = (fingerprint(recipient) for recipient in (PHONE, EMAIL, OTHER_PHONE))
    assert found == [of_phone, None, of_email, None, of_other, of_phone]


@pytest.mark.parametrize(
    ("logged", "recipient"),
    [
        pytest.param("(202) 555-0146", "2025550146", id="a number"),
        pytest.param("+1-202-555-0146", PHONE, id="a number with its country"),
        pytest.param("Ada@mail.example", EMAIL, id="an address"),
        pytest.param("5d41402abc4b2a76b9719d911017c592", "5d41402abc4b2a76b9719d911017c592", id="a hash"),
        pytest.param("rcpt_77", "rcpt_77", id="an id"),
        pytest.param("-", OTHER_PHONE, id="nothing, so that the message is asked"),
    ],
)
def test_a_mapping_names_the_field_of_a_recipient(lanes: Lanes, tmp_path: Path, logged: str, recipient: str) -> None:
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(
        'layout = "json"\n[columns]\nts = "at"\nstatus = "status"\nrecipient = "to"\nbody = "body"\n'
        '[units]\nts = "iso8601"\n'
    )
    envelope = {"object": "error", "code": "opted_out", "message": f"{OTHER_PHONE} has opted out."}
    fields: dict[str, Any] = {"at": "2026-11-23T11:00:00Z", "to": logged}
    lines = [
        json.dumps(fields | {"status": 403, "body": json.dumps(envelope)}).encode(),
        json.dumps(fields | {"status": 202}).encode(),
    ]

    rows, _ = parsed(lanes, read_format(mapping), lines)
    carefully, _ = parsed(lanes, read_format(mapping), [b"\xef\xbb\xbf" + line for line in lines])

    expected = [fingerprint(recipient), None]
    assert [row["recipient_hash"] for row in rows] == expected
    assert [row["recipient_hash"] for row in carefully] == expected


def test_another_secret_gives_the_recipient_another_fingerprint() -> None:
    with closing(Lanes(bytes(32), threads=1)) as others:
        [found] = hashes(others, refused(f"{PHONE} is blocked."))

    assert found == hmac.digest(bytes(32), PHONE.encode(), "sha256").hex()[:16]
    assert found != fingerprint(PHONE)
