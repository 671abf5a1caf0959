"""Formats as TOML files: what a good one says, and what is said of a bad one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

import ingest.formats
from ingest.formats import FIELDS, UNITS, Format, Signature, formats, read_format
from ingest.parse import Lanes
from ingest.schema import BadInput
from tests.ingest.logs import parsed, settled

WriteFormat = Callable[..., Path]

GOOD: Final = """
title = "Gateway of the shop"
layout = "json"
ts_is = "start"
missing = ["", "none"]

[signature]
all = ["http.status"]
any = [["a", "b"], ["c"]]
equals = { "d.e" = "f" }

[columns]
ts = ["meta.finished", "meta.started"]
status = "http.response.status"
path = "http.request.uri"
method = "http.request.method"
latency_ms = "timing.total"
upstream_ms = "timing.api"
org_id = 'labels.tenant\\.id'
body = "http.response.body"

[units]
ts = "ms"
latency_ms = "us"
upstream_ms = "s"
"""


@pytest.fixture
def write_format(tmp_path: Path) -> WriteFormat:
    """Writes `text` as the file of a format and gives its path."""

    def write(text: str, name: str = "shop.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_mapping_says_where_each_column_is_and_in_which_unit(write_format: WriteFormat) -> None:
    assert read_format(write_format(GOOD)) == Format(
        name="shop",
        title="Gateway of the shop",
        layout="json",
        ts_is="start",
        columns={
            "ts": (("meta", "finished"), ("meta", "started")),
            "status": (("http", "response", "status"),),
            "path": (("http", "request", "uri"),),
            "method": (("http", "request", "method"),),
            "latency_ms": (("timing", "total"),),
            "upstream_ms": (("timing", "api"),),
            "org_id": (("labels", "tenant.id"),),
            "body": (("http", "response", "body"),),
        },
        units={"ts": "ms", "latency_ms": "us", "upstream_ms": "s"},
        missing=("", "none"),
        signature=Signature(
            all_of=(("http", "status"),), any_of=((("a",), ("b",)), (("c",),)), equals=((("d", "e"), "f"),)
        ),
    )


def test_the_least_that_a_mapping_says_is_where_time_and_status_are(write_format: WriteFormat) -> None:
    assert read_format(write_format('[columns]\nts = "t"\nstatus = "s"')) == Format(
        name="shop",
        title="shop",
        layout="json",
        ts_is="end",
        columns={"ts": (("t",),), "status": (("s",),)},
        units={},
    )


def nested(**fields: object) -> bytes:
    """A record of the gateway of the shop."""
    record: dict[str, Any] = {
        "meta": {"started": 1_795_431_545_000},
        "http": {"request": {"method": "GET", "uri": "/v1/a?b"}, "response": {"status": 404, "body": "none"}},
        "timing": {"total": 2500, "api": "0.002"},
        "labels": {"tenant.id": "org_1", "tenant": {"id": "decoy"}},
    }
    return json.dumps(record | fields).encode()


def test_nested_records_are_read_by_their_mapping_and_turned_into_its_units(
    write_format: WriteFormat, lanes: Lanes
) -> None:
    lines = [nested(), nested(meta={"started": 1, "finished": 1_795_431_546_000}), nested(http={}), nested(http=None)]
    layout = settled(read_format(write_format(GOOD)), lines)

    rows, rejects = parsed(lanes, layout, lines)

    # `settled` keeps the path of the first time that it finds, so that one source has one clock.
    assert [(row["ts"].isoformat(), row["latency_ms"], row["upstream_ms"]) for row in rows] == [
        ("2026-11-23T10:59:05.002500+00:00", 2.5, 2.0)
    ]
    assert {name: rows[0][name] for name in ("status", "method", "route", "org_id", "body_state", "gateway")} == {
        "status": 404,
        "method": "GET",
        "route": "/v1/a",
        "org_id": "org_1",
        "body_state": "absent",
        "gateway": "shop",
    }
    assert rejects == [(2, "impossible_timestamp"), (3, "no_status"), (4, "no_status")]


def test_a_text_format_without_a_unit_has_that_of_its_first_time(write_format: WriteFormat, lanes: Lanes) -> None:
    layout = read_format(write_format("layout = 'text'\npattern = '^(?P<ts>[^ ]+) (?P<status>[0-9]+)'"))
    lines = [b"nonsense", b"1795431545000 200", b"1795431546000 404"]

    rows, rejects = parsed(lanes, settled(layout, lines), lines)

    assert [(row["ts"].isoformat(), row["status"]) for row in rows] == [
        ("2026-11-23T10:59:05+00:00", 200),
        ("2026-11-23T10:59:06+00:00", 404),
    ]
    assert rejects == [(1, "not_this_format")]


COLUMNS: Final = '[columns]\nts = "t"\nstatus = "s"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ts = ", "not a TOML file: "),
        ("", "expected a path for the column `ts` under [columns], found none"),
        ('[columns]\nts = "t"', "expected a path for the column `status` under [columns], found none"),
        ('colums = "t"', "unknown entry colums; expected answered_by, columns, confidence, "),
        (COLUMNS + 'state = "x"', "unknown column state; expected answered_by, api_key, body, "),
        (COLUMNS + "host = 7", "[columns] host = 7; expected a path such as 'response.status', or a list of them"),
        (COLUMNS + "host = []", "[columns] host = []; expected a path"),
        (COLUMNS + 'host = ["a", 7]', "[columns] host = ['a', 7]; expected a path"),
        (COLUMNS + 'host = ""', "[columns] host = ''; expected a path"),
        (COLUMNS + 'host = "a..b"', "[columns] host = 'a..b'; expected a path"),
        (COLUMNS + '[units]\nts = "hours"', "[units] ts = 'hours'; expected one of epoch, s, ms, us, ns, iso8601, clf"),
        (COLUMNS + '[units]\nhost = "s"', "[units] host = 's'; expected one of nothing"),
        ('layout = "csv"\n' + COLUMNS, "layout = 'csv'; expected json or text or w3c"),
        ('ts_is = "middle"\n' + COLUMNS, "ts_is = 'middle'; expected end or start"),
        ("layout = 'text'\npattern = '('", "pattern is not a regular expression of RE2: missing )"),
        ("layout = 'text'\npattern = '(?P<ts>x)(?P<state>y)'", "unknown column state; expected "),
        ("layout = 'text'\npattern = '(?P<ts>x)'", "expected a path for the column `status`"),
        ("columns = 7", "columns = 7; expected a table"),
        ("units = 7\n" + COLUMNS, "units = 7; expected a table"),
        ("signature = 7\n" + COLUMNS, "signature = 7; expected a table"),
        ("missing = 7\n" + COLUMNS, "missing = 7; expected a list of texts"),
        ("missing = [7]\n" + COLUMNS, "missing = [7]; expected a list of texts"),
        ("layout = 'text'\npattern = '(?P<ts>x)(?P<status>y)(?=z)'", "pattern is not a regular expression of RE2: "),
        (COLUMNS + 'host = "s.host"', "[columns] 's' is a value and leads to another, or differs"),
        (COLUMNS + 'host = "S"', "[columns] 'S' is a value and leads to another, or differs"),
        (COLUMNS + 'host = ["a.b.host", "a.B.host"]', "[columns] 'a.B' is a value and leads to another, or differs"),
        (COLUMNS + "[signature]\nall = 7", "[signature] all = 7; expected a list of texts"),
        (COLUMNS + "[signature]\nany = 7", "[signature] any = 7; expected a list of texts"),
        (COLUMNS + "[signature]\nany = [7]", "[signature] any = 7; expected a list of texts"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_what_was_expected(
    write_format: WriteFormat, text: str, told: str
) -> None:
    path = write_format(text)

    with pytest.raises(BadInput) as raised:
        read_format(path)

    assert str(raised.value).startswith(f"{path}: {told}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["missing.toml", "folder"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()

    with pytest.raises(BadInput, match=f"{name}: cannot read the mapping file: (No such file|Is a directory)"):
        read_format(tmp_path / name)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "packed.toml"
    path.write_bytes(b"\x1f\x8b\xff")

    with pytest.raises(BadInput, match=r"packed\.toml: cannot read the mapping file: .*utf-8"):
        read_format(path)


@pytest.mark.parametrize("layout", formats().values(), ids=formats())
def test_a_built_in_format_names_only_what_there_is(layout: Format) -> None:
    assert layout.title
    assert set(layout.columns) <= set(FIELDS)
    assert {"ts", "status"} - {layout.lacks} <= set(layout.columns)
    assert [name for name in UNITS if layout.unit(name) not in UNITS[name] and "%" not in layout.unit(name)] == []
    assert bool(layout.pattern) == (layout.layout == "text")


@pytest.mark.parametrize("name", formats())
def test_a_built_in_format_is_read_as_a_mapping_is(name: str) -> None:
    assert read_format(Path(ingest.formats.__file__).parent / f"{name}.toml") == formats()[name]
