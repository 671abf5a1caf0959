"""What whoever writes a log can do to its reader: no line costs more than its length, or holds more than it may."""

import base64
import gzip
import json
import re
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from errata import cli
from ingest import careful, detect, identify
from ingest.envelope import Envelope, decode
from ingest.formats import Format, formats
from ingest.frame import _inside
from ingest.parse import Lane, Lanes
from ingest.preview import preview
from ingest.repair import begun_again, repaired
from ingest.source import Source
from ingest.wrappers import Inner
from tests.ingest.logs import json_line, log

_HANG_S: Final = 30
_LONG: Final = 250_000
_TEXT_FORMATS: Final = [layout for layout in formats().values() if layout.layout == "text"]


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """Ends a test whose work grows with the square of its input, which would go on for hours."""

    def hung(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError("this took many times what a line of its length may take")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(_HANG_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("layout", _TEXT_FORMATS, ids=lambda layout: layout.name)
def test_the_pattern_of_a_text_format_takes_a_long_run_of_anything(layout: Format) -> None:
    line = layout.samples[0]["line"].strip()
    places = [match.end() for match in re.finditer(r'[ |"\[\]:-]+', line)][:24]

    lines = [line[:at] + pump * (_LONG // len(pump)) + "\0" for at in places for pump in (" ", "a", "\\", "- ", '" "')]

    matched = [identify.matched(line, layout) is not None for line in lines]

    # RE2 takes time in proportion to the line, whatever the pattern.
    assert matched == pc.match_substring_regex(pa.array(lines), layout.pattern).to_pylist()


@pytest.mark.parametrize(
    ("body", "envelope"),
    [
        (b'{\\"a' + b"\\" * _LONG + b"x", Envelope("truncated")),
        (b'{\\"' + b'\\\\"' * _LONG, Envelope("truncated")),
        (b"HTTP/1.1 500 a" + b" " * _LONG + b"x", Envelope("whole")),
        (b"HTTP/1.1 500 " + b" {" * _LONG, Envelope("whole")),
        (b'{"a":' * _LONG, Envelope("undecodable")),
        (b"[" * _LONG, Envelope("undecodable")),
        (b"data:{\n" * (_LONG // 10), Envelope("whole")),
        (b'{"error":{"code":' + b"9" * _LONG + b"}}", Envelope("truncated")),
        (b"a." * _LONG + b"(", Envelope("whole")),
        (b'"\\"' * _LONG, Envelope("whole")),
    ],
    ids=["backslashes", "escaped", "blanks", "brackets", "objects", "lists", "events", "digits", "names", "quotes"],
)
def test_a_body_of_one_thing_over_and_over_holds_no_envelope(body: bytes, envelope: Envelope) -> None:
    assert decode(body) == envelope


@pytest.mark.parametrize("piece", ['{"a":', '{"a', '"', '\\"', "\\x22", ":-,", '":"', "{", '{"a":1}'])
def test_broken_json_of_one_thing_over_and_over_is_no_record(piece: str) -> None:
    text = '{"a":1,' + piece * (_LONG // len(piece))

    assert repaired(text) is None
    assert len(begun_again(text)) < _LONG


@pytest.mark.parametrize(
    ("name", "record", "time"),
    [
        ("kong", '{"response":{"status":500},"started_at":TIME}', "1724241600000"),
        ("akamai", '{"statusCode":"500","reqTimeSec":TIME}', "1724241600"),
    ],
    ids=["milliseconds", "seconds"],
)
def test_a_time_beyond_all_calendars_is_a_reject(name: str, record: str, time: str, tmp_path: Path) -> None:
    times = [time, "1e308", "-1e308", "1e999", "9" * 5000, "NaN", "-9223372036854775808000"]
    (tmp_path / "access.log").write_text("".join(record.replace("TIME", each) + "\n" for each in times))
    layout = formats()[name]

    with closing(Lanes(bytes(32), 1)) as lanes:
        found = preview(Source("access.log", tmp_path / "access.log"), lanes, layout)

    assert [row["status"] for row in found.rows] == [500]
    assert sorted(line for lines in found.rejects.values() for line in lines) == [2, 3, 4, 5, 6, 7]


def _subscription(messages: list[str]) -> str:
    """What CloudWatch sends to a function: its events as JSON, in gzip, in base64, in JSON."""
    events = [{"id": "1", "timestamp": 1, "message": message} for message in messages]
    log = json.dumps({"messageType": "DATA_MESSAGE", "logGroup": "a", "logEvents": events})
    return json.dumps({"awslogs": {"data": base64.b64encode(gzip.compress(log.encode())).decode()}})


def test_a_line_that_unzips_to_lines_that_unzip_is_no_bomb() -> None:
    line = '{"status":500}'
    for _ in range(4):
        line = _subscription([line] * 100)

    found = careful.read(line.encode(), 1, formats()["nginx-json"])
    votes = [(vote.wrappers, vote.format_name) for vote in detect.head_votes(line.encode())]
    framed = _inside(Inner(line.encode(), None), careful.MOST_LAYERS)

    assert [getattr(record, "fields", {}).get("status") for record in found] == [None] * 100
    assert votes == [(("lambda_event", "cloudwatch"), None)] * 100
    assert len(framed) == 100


def test_a_fields_line_of_blanks_names_nothing() -> None:
    head = b"#Fields: a" + b" " * (1 << 16) + b"b\n"

    assert detect._fields_directive(head) == ["a", "b"]


def test_a_link_to_a_file_that_is_no_log_brings_none_of_its_text(tmp_path: Path) -> None:
    logs, secrets = tmp_path / "logs", ["$6$salt$Zm9yZ2Vk", "hunter2", "MIIEowIBAAKCAQEA"]
    logs.mkdir()
    (tmp_path / "shadow").write_text(f"root:{secrets[0]}:19000:0:99999:7:::\n")
    (tmp_path / "settings.json").write_text(f'{{"password":"{secrets[1]}"}}\n')
    (tmp_path / "id_rsa").write_text(f"-----BEGIN RSA PRIVATE KEY-----\n{secrets[2]}\n")
    for name in ("shadow", "settings.json", "id_rsa"):
        (logs / f"{name}.log").symlink_to(tmp_path / name)
    # Behind lines of a log the rest of a file is rejected line by line.
    mixed = "".join((tmp_path / name).read_text() for name in ("shadow", "settings.json", "id_rsa"))
    (logs / "access.log").write_bytes(log([json_line(), json_line()]) + mixed.encode())

    told = CliRunner().invoke(cli, ["ingest", str(logs), "--lake", str(tmp_path / "lake")], obj=lambda _: None)

    rejected = [reject for file in (tmp_path / "lake").rglob("kind=reject/**/*.parquet") for reject in texts_of(file)]
    written = "".join(text for file in (tmp_path / "lake").rglob("*.parquet") for text in texts_of(file))
    assert len(rejected) == 4
    assert [secret for secret in secrets if secret in written + told.output] == []


@pytest.mark.parametrize("sql", ["FROM read_text('/etc/hostname')", "COPY (SELECT 1) TO 'a.csv'", "LOAD httpfs"])
def test_the_engine_that_parses_lines_reaches_neither_files_nor_extensions(sql: str) -> None:
    lane = Lane(bytes(32), formats()["nginx-json"], "keep")

    with pytest.raises(duckdb.PermissionException, match="disabled"):
        lane._con.execute(sql)


def texts_of(file: Path) -> list[str]:
    """The rows of a data file as text."""
    return [str(row) for row in pq.ParquetFile(file).read().to_pylist()]
