"""A folder of what folders of logs hold: ingest ends, keeps each record that can be read, and accounts for the rest."""

import gzip
import json
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.ingest.logs import Row, combined_line, json_line, rejects, requests, steps
from tests.ingest.wrapping import cri, crlf, docker, json_array, marked, plain, syslog_3164, utf_16

ROOT: Final = Path(__file__).parents[2]
MOST_MEMORY: Final = 1 << 30
_MEASURED: Final = """
import pathlib, errata
try:
    errata.main()
finally:
    # Of this program alone: the peak that getrusage tells is also that of the process that started it.
    status = pathlib.Path("/proc/self/status").read_text()
    print(status.partition("VmHWM:")[2].split()[0])
"""


@dataclass(frozen=True)
class Awkward:
    """What a file holds, the ids of the requests in it, and how many lines are rejected for which reason."""

    data: bytes
    ids: frozenset[str]
    reasons: dict[str, int]


def one(request_id: str, **fields: object) -> bytes:
    """The line of a request with an id of its own."""
    return json_line(request_id=request_id, **fields)


def awkward(data: bytes, *ids: str, **reasons: int) -> Awkward:
    return Awkward(data, frozenset(ids), reasons)


def in_all(count: int, name: str) -> list[str]:
    return [f"{name}_{number}" for number in range(count)]


NOISE: Final = random.Random(7).randbytes(50_000)
DEEP: Final = 100_000
LONG_BODY: Final = json.dumps({"object": "error", "code": "long", "message": "m", "details": "x" * 5_000_000})


def torn(line: bytes, at: float) -> bytes:
    """The first part of `line`."""
    return line[: int(len(line) * at)]


LOGS: Final[dict[str, Awkward]] = {
    "crlf.log": awkward(crlf([one("crlf_0"), b"", one("crlf_1")]), *in_all(2, "crlf")),
    "crlf combined.log": awkward(
        crlf([combined_line(request=f"GET /crlf/{word} HTTP/1.1") for word in ("one", "two")])
    ),
    "mark.log": awkward(marked([one("mark_0"), one("mark_1")]), *in_all(2, "mark")),
    "utf-16.log": awkward(utf_16([one("wide_0", user_agent="é"), one("wide_1")]), *in_all(2, "wide")),
    "utf-16-be.log": awkward(("\ufeff" + plain([one("wide_2")]).decode()).encode("utf-16-be"), "wide_2"),
    "hole.log": awkward(plain([one("hole_0"), b"\0" * 5000 + one("hole_1"), one("hole_2")]), *in_all(3, "hole")),
    "hole at the start.log": awkward(b"\0" * 5000 + plain([one("start_0"), one("start_1")]), *in_all(2, "start")),
    "hole in CRI.log": awkward(
        cri([one("cri_0")]) + b"\0" * 5000 + cri([one("cri_1"), one("cri_2")], 60), *in_all(3, "cri")
    ),
    "hole between arrays.log": awkward(
        json_array([one("array_0"), one("array_1")]) + b"\0" * 5000 + json_array([one("array_2")]), *in_all(3, "array")
    ),
    "torn in Docker.log": awkward(
        plain([docker([one("docker_0")]).strip(), docker([one("half")])[:150] + docker([one("docker_1")]).strip()]),
        *in_all(2, "docker"),
        not_json=1,
    ),
    "torn in CRI.log": awkward(
        plain([cri([one("runtime_0")]).strip(), cri([one("half")])[:150] + cri([one("runtime_1")]).strip()]),
        *in_all(2, "runtime"),
        not_json=1,
    ),
    "no utf-8.log": awkward(
        plain([one("raw_0", user_agent="?").replace(b"?", b"\xff\xfe"), b"\xff\xfe\x80", one("raw_1")]),
        *in_all(2, "raw"),
        not_json=1,
    ),
    "long.log": awkward(plain([one("long_0"), one("long_1", status=500, resp_body=LONG_BODY)]), *in_all(2, "long")),
    "overlong.log": awkward(
        plain([one("over_0"), b'{"x":"' + b"y" * 20_000_000 + b'"}', one("over_1")]), *in_all(2, "over"), overlong=1
    ),
    "deep.log": awkward(
        plain([one("deep_0"), b'{"a":' * DEEP, b"[" * DEEP, b'{"a":[' * DEEP + b"]}" * DEEP, one("deep_1")]),
        *in_all(2, "deep"),
        not_json=3,
    ),
    "torn.log": awkward(
        plain(
            [
                one("torn_0"),
                *(torn(one("half"), share / 10) + one(f"torn_{share}") for share in range(1, 10)),
                torn(one("half"), 0.3) + torn(one("half"), 0.6) + one("torn_10"),
                torn(one("half"), 0.5),
                torn(one("half"), 0.4) + torn(one("half"), 0.7),
            ]
        ),
        *in_all(11, "torn"),
        not_json=12,
    ),
    "several on a line.log": awkward(
        plain(
            [one("of_0"), one("of_1") + one("of_2"), one("of_3") + b" " + one("of_4"), one("of_5") + b"," + one("of_6")]
        ),
        *in_all(7, "of"),
    ),
    "twice.log": awkward(plain([one("twice_0")[:-1] + b', "request_id": "never"}']), "twice_0"),
    "surrogates.log": awkward(
        plain([one("lone_0", user_agent="\ud800"), one("lone_1", uri="/\udfff")]), *in_all(2, "lone")
    ),
    "packed.log": awkward(gzip.compress(plain([one("packed_0")])), "packed_0"),
    "plain.gz": awkward(plain([one("plain_0")]), "plain_0"),
    "mixed.log": awkward(
        plain(
            [
                *(one(f"mixed_{number}") for number in range(3)),
                combined_line(request="GET /mixed/combined HTTP/1.1"),
                *cri([one("mixed_3")]).splitlines(),
                *docker([one("mixed_4")]).splitlines(),
                *syslog_3164([one("mixed_5")]).splitlines(),
                b'{"records":[' + one("mixed_6") + b"," + one("mixed_7") + b"]}",
                b"2026/11/23 10:59:05 [error] 7#7: *1 connect() failed",
                b"[" + one("mixed_8") + b"]",
                b'{"level":"info","message":"started"}',
            ]
        ),
        *in_all(9, "mixed"),
        not_json=1,
        no_timestamp=1,
    ),
    "changes.log": awkward(
        plain(
            [
                *(one(f"changes_{number}") for number in range(250)),
                *(combined_line(request=f"GET /changes HTTP/1.{number}") for number in range(250)),
                *(b"<190>Nov 23 11:00:00 gw-1 nginx: " + one(f"changes_{number}") for number in range(250, 300)),
            ]
        ),
        *in_all(300, "changes"),
    ),
    "text first.log": awkward(
        plain([*[combined_line(request="GET /text HTTP/1.1")] * 250, *(one(f"text_{number}") for number in range(50))]),
        *in_all(50, "text"),
    ),
    "a b'\"$(x);&|.log": awkward(plain([one("name_0")]), "name_0"),
    "-rf": awkward(plain([one("name_1")]), "name_1"),
    "*.log": awkward(plain([one("name_2")]), "name_2"),
    "two\nlines.log": awkward(plain([one("name_3")]), "name_3"),
    "ünï 😀.log": awkward(plain([one("name_4")]), "name_4"),
    "[a-z]?.log.2026-11-23": awkward(plain([one("name_5")]), "name_5"),
    "%41%20.log": awkward(plain([one("name_6")]), "name_6"),
}
UNREADABLE: Final[dict[str, tuple[bytes, str]]] = {
    "program": (b"\x7fELF\x02\x01\x01" + NOISE, "a program, not a log"),
    "picture.png": (b"\x89PNG\r\n\x1a\n" + NOISE, "a picture, not a log"),
    "noise.bin": (NOISE, "binary, not a log"),
    "prose.txt": (b"Dear all,\nthe gateway was down.\n", "is in a known format"),
    "app.json": (b'{"level":"info","message":"started"}\n', "is in a known format"),
    "half.log": (torn(one("never"), 0.5), "is in a known format"),
}
EMPTY: Final[dict[str, bytes]] = {
    "empty.log": b"",
    "blank.log": b"\n \n\r\n",
    "packed and empty.gz": gzip.compress(b""),
}
LEFT_OUT: Final = (".access.log.swp", "access.log~", "#access.log#", ".hidden/access.log")


@dataclass(frozen=True)
class Ingested:
    """The lake, and how the run that made it ended."""

    lake: Path
    done: subprocess.CompletedProcess[str]

    def of(self, name: str, rows: Callable[[Path], list[Row]]) -> list[Row]:
        """The `rows` of the source whose file has this name."""
        ids = {step["source_id"] for step in steps(self.lake) if Path(step["name"]).name == name}
        return [row for row in rows(self.lake) if row["source_id"] in ids]


def errata(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A run of errata that prints the most memory that it held, in KiB."""
    command = [sys.executable, "-W", "error", "-c", _MEASURED, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Ingested:
    """All of it in one folder, with links into it, out of it, around in it and to nothing."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "linked.log").write_bytes(plain([one("linked_0")]))
    folder = tmp_path_factory.mktemp("awkward")
    for name, found in LOGS.items():
        (folder / name).write_bytes(found.data)
    for name, (data, _) in UNREADABLE.items():
        (folder / name).write_bytes(data)
    for name, data in EMPTY.items():
        (folder / name).write_bytes(data)
    for name in LEFT_OUT:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(plain([one("never")]))
    with sqlite3.connect(folder / "state.db") as database:
        database.execute("CREATE TABLE log (line)")
    database.close()
    (folder / "loop").symlink_to(folder)
    (folder / "itself").symlink_to(folder / "itself")
    (folder / "nothing").symlink_to(folder / "gone")
    (folder / "x again.log").symlink_to(folder / "crlf.log")
    (folder / "link.log").symlink_to(outside / "linked.log")
    (folder / "linked folder").symlink_to(outside)
    lake = tmp_path_factory.mktemp("lake") / "lake"
    return Ingested(lake, errata("ingest", str(folder), "--lake", str(lake)))


def test_it_ends_and_says_that_some_could_not_be_read(ingested: Ingested) -> None:
    assert ingested.done.returncode == 4
    assert "Traceback" not in ingested.done.stderr


@pytest.mark.parametrize("name", LOGS)
def test_every_request_that_can_be_read_is_there_once(ingested: Ingested, name: str) -> None:
    found = Counter(row["request_id"] for row in ingested.of(name, requests) if row["request_id"])

    assert found == Counter(LOGS[name].ids)


@pytest.mark.parametrize("name", LOGS)
def test_every_other_record_is_a_reject_with_its_reason(ingested: Ingested, name: str) -> None:
    assert Counter(reject["reason"] for reject in ingested.of(name, rejects)) == LOGS[name].reasons


def test_requests_without_ids_are_there_once_too(ingested: Ingested) -> None:
    paths = Counter(row["path"] for row in requests(ingested.lake) if row["request_id"] is None)

    assert paths == {"/crlf/one": 1, "/crlf/two": 1, "/mixed/combined": 1, "/changes": 250, "/text": 250}


def test_nothing_is_there_that_is_in_no_log(ingested: Ingested) -> None:
    found = {row["request_id"] for row in requests(ingested.lake)} - {None}

    assert found == {"linked_0"}.union(*(log.ids for log in LOGS.values()))


def test_the_lines_of_every_source_add_up(ingested: Ingested) -> None:
    of_requests = Counter(row["source_id"] for row in requests(ingested.lake))
    of_rejects = Counter(row["source_id"] for row in rejects(ingested.lake))
    ledger = steps(ingested.lake)

    assert len(ledger) == len({step["source_id"] for step in ledger}) == len(LOGS) + 1
    for step in ledger:
        assert step["lines"] == step["requests"] + step["duplicates"] + step["rejects"] + step["skipped"]
        assert (step["requests"], step["rejects"]) == (of_requests[step["source_id"]], of_rejects[step["source_id"]])


@pytest.mark.parametrize("name", [*UNREADABLE, "state.db"])
def test_a_file_that_is_no_log_is_named_with_what_it_is(ingested: Ingested, name: str) -> None:
    reason = UNREADABLE[name][1] if name in UNREADABLE else "a SQLite database, not a log"
    [told] = [line for line in ingested.done.stderr.splitlines() if f"/{name}: " in line]

    assert reason in told


def test_rejects_point_at_their_lines(ingested: Ingested) -> None:
    for name, log in LOGS.items():
        content = gzip.decompress(log.data) if name == "packed.log" else log.data
        for reject in ingested.of(name, rejects):
            lines = content.split(b"\n")
            start = sum(len(line) + 1 for line in lines[: reject["line"] - 1])
            assert reject["byte_offset"] == start
            assert content[start + reject["byte_length"] :][:2].lstrip(b"\r")[:1] in (b"\n", b"")


def test_memory_stays_within_bounds(ingested: Ingested) -> None:
    assert int(ingested.done.stdout.split()[-1]) << 10 < MOST_MEMORY


@pytest.mark.parametrize(
    ("names", "code"),
    [(["crlf.log"], 0), (["empty.log"], 0), (["noise.bin"], 2), (["noise.bin", "crlf.log"], 4), (["gone.log"], 2)],
    ids=lambda value: str(value),
)
def test_the_exit_code_says_whether_all_some_or_nothing_was_read(tmp_path: Path, names: list[str], code: int) -> None:
    for name in {*names} - {"gone.log"}:
        data = LOGS[name].data if name in LOGS else EMPTY[name] if name in EMPTY else UNREADABLE[name][0]
        (tmp_path / name).write_bytes(data)

    done = errata("ingest", *(str(tmp_path / name) for name in names), "--lake", str(tmp_path / "lake"))

    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
