"""Which format a head is in, who decided so, and in which unit its times are."""

import json
from pathlib import Path
from typing import Final

import pytest

from ingest.detect import detect
from ingest.formats import FieldPath, read_format
from ingest.schema import BadInput
from tests.ingest.logs import COMBINED, NGINX_JSON, combined_line, json_line, log

COMMON: Final = b'198.51.100.7 - ada [23/Nov/2026:10:59:05 +0000] "GET / HTTP/1.1" 200 66'
ERROR_LOG: Final = b"2026/11/23 10:59:05 [error] 7#7: *1 upstream timed out"
OTHER_JSON: Final = b'{"level":"info","msg":"started"}'


@pytest.mark.parametrize(
    ("lines", "name", "votes"),
    [
        ([json_line()] * 3, "nginx-json", {"nginx-json": 3}),
        ([combined_line()] * 3, "combined", {"combined": 3}),
        ([COMMON], "combined", {"combined": 1}),
        ([b"\xef\xbb\xbf" + json_line(), b"", b"# comment", json_line()], "nginx-json", {"nginx-json": 2}),
        ([ERROR_LOG, ERROR_LOG, json_line(), b"{"], "nginx-json", {"text": 2, "nginx-json": 1, "not_json": 1}),
        ([OTHER_JSON, json_line(), b"[]", b"7"], "nginx-json", {"json": 1, "nginx-json": 1, "text": 1}),
        ([json_line(), combined_line(), combined_line()], "combined", {"nginx-json": 1, "combined": 2}),
        ([json_line()] * 300, "nginx-json", {"nginx-json": 200}),
    ],
    ids=[
        "JSON",
        "combined",
        "common",
        "a byte order mark, blank lines and comments",
        "an error log between",
        "other JSON between",
        "two formats",
        "a long head",
    ],
)
def test_the_records_of_the_head_vote(lines: list[bytes], name: str, votes: dict[str, int]) -> None:
    found = detect("access.log", log(lines))

    assert (found.layout.name, found.votes) == (name, votes)
    assert found.decision == f"detected: {votes[name]} of the first {sum(votes.values())} records"


def test_the_line_in_which_the_head_ends_does_not_vote() -> None:
    head = log([json_line()] * 2) + json_line()[:40]

    assert detect("access.log", head).votes == {"nginx-json": 2}


def test_a_single_line_without_an_end_votes_all_the_same() -> None:
    assert detect("access.log", json_line()).votes == {"nginx-json": 1}


NONE_KNOWN: Final = "none of the first 1 records is in a known format"


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (
            ERROR_LOG,
            f"{NONE_KNOWN}: `errata detect --formats` lists them. For others pass --mapping FILE with a pattern.",
        ),
        (
            OTHER_JSON,
            f"{NONE_KNOWN}. They are JSON: pass --mapping FILE that says where time and status are (docs/formats.md).",
        ),
        (b"{", f"{NONE_KNOWN}. They start like JSON and are none: damaged, or mixed by two writers."),
        (
            b'"198.51.100.7",1724241600123,429,"POST"',
            f"{NONE_KNOWN}. They look like comma-separated values, which do not say what they are: pass --mapping FILE "
            "with a pattern (docs/formats.md).",
        ),
        (b"\xff\xfe\x00\x01\x02\x00", "binary, not a log"),
        (b"PAR1\x15\x04", "a Parquet file, not a log; errata reads logs"),
        (b"LPKSHHRH\0\0", "a journal of systemd; give `journalctl --all -o json` instead"),
        (b"", "holds no record in its first 1 bytes"),
    ],
    ids=["an error log", "other JSON", "broken JSON", "CSV", "binary", "Parquet", "a journal", "blank"],
)
def test_a_head_in_no_known_format_is_refused_with_what_to_do(head: bytes, told: str) -> None:
    with pytest.raises(BadInput) as raised:
        detect("other.log", log([head]))

    assert str(raised.value) == f"other.log: {told}"


W3C: Final = b"#Version: 1.0\n#Fields: date time c-ip cs-method cs-uri-stem sc-status time-taken\n"


def test_a_w3c_log_is_read_by_the_fields_that_it_names() -> None:
    head = W3C + b"2026-11-23 10:59:05 198.51.100.7 GET /v1/messages 200 12\n"

    layout = detect("u_ex.log", head).layout

    assert (layout.layout, layout.unit("ts")) == ("text", "%Y-%m-%d %H:%M:%S")
    assert {"ts", "client_ip", "method", "path", "status"} <= set(layout.columns)


def test_a_w3c_log_without_a_time_is_refused() -> None:
    head = W3C.replace(b"date time", b"x-one x-two") + b"1 2 198.51.100.7 GET /v1/messages 200 12\n"

    with pytest.raises(BadInput, match="the #Fields: line names nothing for ts"):
        detect("u_ex.log", head)


def test_a_format_that_was_given_decides_and_the_votes_are_kept_for_people() -> None:
    found = detect("access.log", log([json_line()]), COMBINED, "--format combined")

    assert (found.layout.name, found.decision, found.votes) == ("combined", "--format combined", {"nginx-json": 1})


@pytest.mark.parametrize(
    ("fields", "path", "unit"),
    [
        ({"msec": 1_795_431_545.25}, ("msec",), "s"),
        ({"msec": "1795431545.250"}, ("msec",), "s"),
        ({"msec": 1_795_431_545_250}, ("msec",), "ms"),
        ({"msec": "1795431545250000"}, ("msec",), "us"),
        ({"msec": 1_795_431_545_250_000_000}, ("msec",), "ns"),
        ({"msec": "", "time_iso8601": "2026-11-23T10:59:05+00:00"}, ("time_iso8601",), "iso8601"),
        ({"msec": "-", "time": "23/Nov/2026:10:59:05 +0000"}, ("time",), "clf"),
        ({"msec": ..., "time": "2026-11-23 10:59:05Z"}, ("time",), "iso8601"),
        ({"msec": ...}, ("msec",), "s"),
    ],
    ids=["s", "s as text", "ms", "us", "ns", "ISO 8601", "CLF", "ISO 8601 with a space", "no time"],
)
def test_the_first_time_settles_where_times_are_and_in_which_unit(
    fields: dict[str, object], path: FieldPath, unit: str
) -> None:
    layout = detect("access.log", log([b"{", json_line(**fields), json_line()]), NGINX_JSON).layout
    of_one = detect("access.log", log([json_line(**fields)]), NGINX_JSON).layout

    assert (of_one.columns["ts"], of_one.unit("ts")) == ((path,), unit)
    assert (layout.columns["ts"], layout.unit("ts")) == ((path,), unit)


def test_a_unit_that_a_format_names_is_not_guessed(tmp_path: Path) -> None:
    mapping = tmp_path / "mapping.toml"
    mapping.write_text('[columns]\nts = "t"\nstatus = "s"\n[units]\nts = "ms"', encoding="utf-8")

    layout = detect("access.log", log([json.dumps({"t": 1_795_431_545}).encode()]), read_format(mapping)).layout

    assert layout.unit("ts") == "ms"
