"""The address of a client is kept, cut, hashed or dropped, as the settings of the lake say."""

import hmac
from pathlib import Path
from typing import Final

import pytest

import analysis
from ingest.parse import Lanes
from ingest.run import ingest
from ingest.schema import BadInput
from ingest.settings import ClientIp
from ingest.source import expand
from tests.ingest.logs import KEY, NGINX_JSON, error_line, json_line, log, parsed, requests, settled

ADDRESSES: Final = {
    "198.51.100.7": "198.51.100.0",
    "10.0.0.255": "10.0.0.0",
    "2001:db8:1:2:3:4:5:6": "2001:db8:1::",
    "2001:DB8::7": "2001:db8::",
    "::1": "::",
    "::ffff:198.51.100.7": "198.51.100.0",
    "999.1.1.1": None,
    "1:2:3": None,
}
"""An address, and the network that it is in; what looks like one and is none is in no network."""
NO_ADDRESSES: Final = ["14155550123", "415.555.0123", "0", "ada@mail.example", "unix:", "fe80::1%eth0", "1.2.3.4.5"]


def kept(client_ip: ClientIp, addresses: list[str]) -> list[str | None]:
    """What a lake with the setting `client_ip` keeps of `addresses`."""
    lines = [json_line(remote_addr=address) for address in addresses]
    lanes = Lanes(KEY, 1, client_ip)
    rows, _ = parsed(lanes, settled(NGINX_JSON, lines), lines)
    lanes.close()
    return [row["client_ip"] for row in rows]


def test_an_address_is_kept_as_it_was_logged() -> None:
    assert kept("keep", list(ADDRESSES)) == list(ADDRESSES)


def test_a_cut_address_is_that_of_its_network() -> None:
    assert kept("truncate", list(ADDRESSES)) == list(ADDRESSES.values())


def test_a_hashed_address_is_a_keyed_fingerprint_that_no_id_looks_like() -> None:
    digests = [hmac.digest(KEY, address.encode(), "sha256").hex()[:16] for address in ADDRESSES]

    assert kept("hash", list(ADDRESSES)) == [f"#{digest}" for digest in digests]


def test_of_a_dropped_address_nothing_is_left() -> None:
    assert kept("drop", list(ADDRESSES)) == [None] * len(ADDRESSES)


@pytest.mark.parametrize("client_ip", ["keep", "truncate", "hash", "drop"])
def test_what_is_no_address_is_not_taken_for_one(client_ip: ClientIp) -> None:
    assert kept(client_ip, NO_ADDRESSES) == [None] * len(NO_ADDRESSES)


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A log of callers without a key, who retry what was refused."""
    anonymous = {"key_id": "", "org_id": "", "http_x_api_key": ""}
    calls = [
        {
            "remote_addr": f"198.51.100.{caller}",
            "request_id": f"req_{caller}_{attempt}",
            "msec": 1_795_431_545 + attempt,
        }
        for caller in (7, 8)
        for attempt in range(8)
    ]
    lines = [error_line("rate_limited", 429, **anonymous, **call) for call in calls]
    (tmp_path / "api.log").write_bytes(log([*lines, *(json_line(**anonymous, **call) for call in calls)]))
    return tmp_path / "api.log"


@pytest.mark.parametrize(
    ("setting", "callers"),
    [
        ("", {"198.51.100.7", "198.51.100.8"}),
        ('client_ip = "truncate"', {"198.51.100.0"}),
        ('client_ip = "drop"', {None}),
    ],
    ids=["keep", "truncate", "drop"],
)
def test_every_question_answers_whatever_is_left_of_the_addresses(
    tmp_path: Path, logs: Path, setting: str, callers: set[str | None]
) -> None:
    lake = tmp_path / "lake"
    lake.mkdir()
    (lake / "settings.toml").write_text(setting)

    list(ingest(expand([str(logs)]), lake, KEY))

    con = analysis.connect(lake)
    assert {row["client_ip"] for row in requests(lake)} == callers
    assert {caller for (caller,) in con.execute("SELECT DISTINCT caller FROM requests").fetchall()} == callers
    for question in analysis.questions():
        con.sql(f"FROM {question}()").to_arrow_table()


def test_a_mistake_in_the_settings_is_told_before_anything_is_written(tmp_path: Path, logs: Path) -> None:
    lake = tmp_path / "lake"
    lake.mkdir()
    (lake / "settings.toml").write_text('client_ip = "mask"')

    with pytest.raises(BadInput, match=r"settings\.toml: client_ip has value 'mask'"):
        list(ingest(expand([str(logs)]), lake, KEY))

    assert [path.name for path in lake.iterdir()] == ["settings.toml"]
