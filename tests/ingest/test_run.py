"""What an ingest adds, and what it knows already: every line is accounted for, and none comes twice."""

import gzip
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.formats import formats
from ingest.run import Choice, Step, ingest
from ingest.source import Source, expand
from tests.ingest.logs import (
    KEY,
    SECOND,
    Row,
    combined_line,
    error_line,
    json_line,
    log,
    rejects,
    requests,
    steps,
)

Packer = Callable[[bytes], bytes]


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def lines_of(marker: str, count: int = 6) -> list[bytes]:
    """Lines of a log that is unlike that of any other `marker`: requests, errors, rejects, comments and blanks."""
    kinds: list[Callable[[int], bytes]] = [
        lambda number: json_line(msec=SECOND + number, request_id=f"{marker}_{number}"),
        lambda number: error_line("not_found", 404, msec=SECOND + number, org_id=f"org_{marker}"),
        lambda number: b"",
        lambda number: f"# {marker} {number}".encode(),
        lambda number: f'{{"cut": "{marker}_{number}'.encode(),
        lambda number: json_line(msec=SECOND + 86_400 + number, request_id=f"{marker}_{number}"),
    ]
    return [kinds[number % len(kinds)](number) for number in range(count)]


def added(sources: list[Source], lake: Path, **options: object) -> list[Step]:
    return list(ingest(sources, lake, KEY, **options))  # type: ignore[arg-type]  # options of any test


def outcomes(told: list[Step]) -> list[tuple[str, str]]:
    """What became of each source, by the last part of its name."""
    return [(Path(step.name).name, step.outcome) for step in told]


def source(folder: Path, name: str, data: bytes) -> Source:
    (folder / name).write_bytes(data)
    return Source(name, folder / name)


def without_source(rows: list[Row]) -> list[Row]:
    """`rows` without the id of their source, which depends on how much there was when it was first read."""
    return [{name: value for name, value in row.items() if name != "source_id"} for row in rows]


def by_name(lake: Path, rows: list[Row]) -> dict[str, list[Row]]:
    """`rows` by the name of their source, without its id and the day on which they came."""
    names = {step["source_id"]: step["name"] for step in steps(lake)}
    found: dict[str, list[Row]] = {}
    for row in rows:
        kept = {name: value for name, value in row.items() if name not in {"source_id", "day"}}
        found.setdefault(names[row["source_id"]], []).append(kept)
    return found


def test_the_ledger_says_what_was_read_and_why(tmp_path: Path) -> None:
    data = log(lines_of("a"))
    given = [
        source(tmp_path, "a.log", gzip.compress(data, mtime=0)),
        source(tmp_path, "b.log", log([combined_line()] * 2)),
    ]

    [first, second] = added(given, tmp_path / "lake")

    assert [(step.name, step.outcome, step.layout) for step in (first, second)] == [
        ("a.log", "added", "nginx-json"),
        ("b.log", "added", "combined"),
    ]
    assert (first.progress.lines, first.progress.requests, first.progress.errors, first.progress.skipped) == (
        6,
        3,
        1,
        2,
    )
    assert first.progress.rejects == {"not_json": 1}
    by_source = {step["name"]: step for step in steps(tmp_path / "lake")}
    told = by_source["a.log"]
    assert {name: told[name] for name in ("lines", "requests", "errors", "rejects", "skipped")} == {
        "lines": 6,
        "requests": 3,
        "errors": 1,
        "rejects": 1,
        "skipped": 2,
    }
    assert (told["first_line"], told["from_byte"], told["to_byte"]) == (1, 0, len(data))
    assert (told["compression"], told["gateway"], told["is_cut"]) == ("gzip", "nginx-json", False)
    assert told["decision"] == "detected: 3 of the first 4 records"
    assert (told["first_ts"].timestamp(), told["last_ts"].timestamp()) == (SECOND, SECOND + 86_405)
    assert told["source_id"] == told["fingerprint"][:16] == requests(tmp_path / "lake")[0]["source_id"]
    assert (by_source["b.log"]["compression"], by_source["b.log"]["gateway"]) == ("none", "combined")


LINES: Final = st.lists(
    st.sampled_from(
        [*lines_of("x"), b"\xff\xfe", b"\0", b"[]", b"{}", combined_line(), b"\r", b" ", json_line(status="?")]
    )
    | st.binary(max_size=20).filter(lambda line: b"\n" not in line),
    max_size=12,
)


@settings(max_examples=6)
@given(
    logs=st.lists(
        st.tuples(LINES, st.booleans(), st.sampled_from([bytes, gzip.compress, zstd])), min_size=1, max_size=8
    )
)
def test_every_line_is_a_request_a_reject_or_skipped(
    tmp_path_factory: pytest.TempPathFactory, logs: list[tuple[list[bytes], bool, Packer]]
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    given, line_counts = [], {}
    for number, (lines, is_ended, pack) in enumerate(logs):
        data = log([json_line(request_id=f"first_{number}"), *lines, json_line()])
        given.append(source(folder, f"{number}.log", pack(data if is_ended else data[:-1])))
        line_counts[f"{number}.log"] = len(lines) + 2

    told = added(given, folder / "lake")

    assert outcomes(told) == [(name, "added") for name in line_counts]
    found = {step["name"]: step for step in steps(folder / "lake")}
    assert {name: step["lines"] for name, step in found.items()} == line_counts
    rows, refused = requests(folder / "lake"), rejects(folder / "lake")
    for step in found.values():
        assert step["lines"] == step["requests"] + step["duplicates"] + step["rejects"] + step["skipped"]
        lines = [row["line"] for row in rows if row["source_id"] == step["source_id"]]
        errors = [row for row in rows if row["source_id"] == step["source_id"] and row["kind"] == "error"]
        refused_lines = [row["line"] for row in refused if row["source_id"] == step["source_id"]]
        assert (len(lines), len(errors), len(refused_lines)) == (step["requests"], step["errors"], step["rejects"])
        assert len({*lines, *refused_lines}) == len(lines) + len(refused_lines)


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.log", bytes),
        ("renamed.log.1", bytes),
        ("a.log.gz", gzip.compress),
        ("a.log.zst", zstd),
        ("twice.gz", lambda data: gzip.compress(data[:200]) + gzip.compress(data[200:])),
    ],
    ids=["the same file", "renamed", "gzip", "zstd", "gzip of two members"],
)
@pytest.mark.parametrize("first", [bytes, gzip.compress], ids=["plain before", "gzip before"])
def test_what_was_read_is_known_again_however_it_is_stored(
    tmp_path: Path, first: Packer, name: str, pack: Packer
) -> None:
    data = log(lines_of("a", 40))
    added([source(tmp_path, "a.log", first(data))], tmp_path / "lake")
    before = requests(tmp_path / "lake")

    told = added([source(tmp_path, name, pack(data))], tmp_path / "lake")

    assert outcomes(told) == [(name, "known")]
    assert requests(tmp_path / "lake") == before
    assert len(steps(tmp_path / "lake")) == 1


def test_the_same_content_under_two_names_is_read_once_in_one_run(tmp_path: Path) -> None:
    data = log(lines_of("a"))
    given = [
        source(tmp_path, "a.log", data),
        source(tmp_path, "b.log", data),
        source(tmp_path, "c.gz", gzip.compress(data)),
    ]

    told = added(given, tmp_path / "lake")

    assert outcomes(told) == [("a.log", "added"), ("b.log", "known"), ("c.gz", "known")]
    assert len(requests(tmp_path / "lake")) == 3


def test_a_copy_that_goes_further_adds_what_is_further(tmp_path: Path) -> None:
    lines = lines_of("a", 12)
    given = [source(tmp_path, "a.log", log(lines[:6])), source(tmp_path, "b.gz", gzip.compress(log(lines)))]

    told = added(given, tmp_path / "lake")

    assert outcomes(told) == [("a.log", "added"), ("b.gz", "added")]
    assert [(step["first_line"], step["lines"]) for step in steps(tmp_path / "lake")] == [(1, 6), (7, 6)]
    assert [row["line"] for row in requests(tmp_path / "lake")] == [1, 2, 6, 7, 8, 12]


def test_logs_with_the_same_head_and_other_tails_are_sources_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.source.HEAD_BYTES", len(json_line()) + 100)
    head = [json_line(request_id=...), json_line(request_id=...)]
    logs = {
        name: [*head, json_line(request_id=f"of_{name}"), error_line("x", 400, org_id=f"org_{name}")]
        for name in ("a.log", "bb.log", "ccc.log")
    }
    lake = tmp_path / "lake"

    added([source(tmp_path, name, log(lines)) for name, lines in logs.items()], lake)
    before = requests(lake)
    copies = [source(tmp_path, f"{name}.gz", gzip.compress(log(lines))) for name, lines in logs.items()]
    told = added(copies, lake)

    assert len(before) == 12
    assert len({row["source_id"] for row in before}) == 3
    assert outcomes(told) == [("a.log.gz", "known"), ("bb.log.gz", "known"), ("ccc.log.gz", "known")]
    assert requests(lake) == before

    grown = [source(tmp_path, name, log([*lines, json_line(request_id=f"new_{name}")])) for name, lines in logs.items()]
    added(grown, lake)
    assert sorted(row["request_id"] for row in requests(lake) if row["line"] == 5) == [
        "new_a.log",
        "new_bb.log",
        "new_ccc.log",
    ]
    assert len(requests(lake)) == 15


JSON_LINES: Final = [
    b'{"msec":1795431545,"status":200,"uri":"/a"}',
    b"",
    b"{",
    b'{"msec":1795431546,"status":404}',
    b'{"uri":1}',
]
TEXT_LINES: Final = [combined_line(), b"", b"nonsense", combined_line(status=404)]


@pytest.mark.parametrize(
    ("lines", "end", "choice"),
    [
        (JSON_LINES, b"\n", "nginx-json"),
        (JSON_LINES, b"\r\n", "nginx-json"),
        ([line + b"  " for line in JSON_LINES[:2]], b"\n", "nginx-json"),
        (TEXT_LINES, b"\n", "combined"),
        (TEXT_LINES[:2], b"\r\n", "combined"),
    ],
    ids=["JSON", "JSON with CR LF", "JSON with spaces behind it", "text", "text with CR LF"],
)
def test_a_log_that_is_read_while_it_grows_gives_the_rows_of_the_whole(
    tmp_path: Path, lines: list[bytes], end: bytes, choice: str
) -> None:
    whole = log(lines, end)
    ends = [place for place in range(len(whole)) if whole[place : place + 1] == b"\n"]
    # Every place near the end of a line, and some within lines.
    near = {place + step for place in ends for step in (-2, -1, 0, 1, 2)} | set(range(0, len(whole), 17))
    cuts = sorted(cut for cut in near if 0 <= cut <= len(whole))
    options = Choice(formats()[choice], "--format")
    # The first line tells the sources apart; each of them is first read up to another byte of the rest.
    logs = {f"{cut:03}.log": (f"#{cut:03}\n".encode() + whole, 5 + cut) for cut in cuts}
    once, lake = tmp_path / "once", tmp_path / "lake"

    added([source(tmp_path, name, data) for name, (data, _) in logs.items()], once, choice=options)
    added([source(tmp_path, name, data[:cut]) for name, (data, cut) in logs.items()], lake, choice=options)
    told = added([source(tmp_path, name, data) for name, (data, _) in logs.items()], lake, choice=options)
    copies = [source(tmp_path, f"{name}.gz", gzip.compress(data)) for name, (data, _) in logs.items()]
    again = added(copies, lake, choice=options)

    assert {outcome for _, outcome in outcomes(told)} == {"added", "known"}
    assert {outcome for _, outcome in outcomes(again)} == {"known"}
    assert by_name(lake, requests(lake)) == by_name(once, requests(once))
    assert by_name(lake, rejects(lake)) == by_name(once, rejects(once))
    ledger = steps(lake)
    for name in logs:
        of_source = [step for step in ledger if step["name"] == name]
        assert sum(step["lines"] for step in of_source) == 1 + len(lines)
        assert [step["from_byte"] for step in of_source[1:]] == [step["to_byte"] for step in of_source[:-1]]


def test_a_log_that_grows_in_three_steps_is_one_source(tmp_path: Path) -> None:
    lines = lines_of("a", 18)
    lake = tmp_path / "lake"

    for count in (6, 12, 12, 18):
        added([source(tmp_path, "a.log", log(lines[:count]))], lake)

    assert [(step["first_line"], step["lines"]) for step in steps(lake)] == [(1, 6), (7, 6), (13, 6)]
    assert {step["source_id"] for step in steps(lake)} == {requests(lake)[0]["source_id"]}
    assert [row["line"] for row in requests(lake)] == [1, 2, 6, 7, 8, 12, 13, 14, 18]


def test_a_rotated_log_is_known_and_its_successor_is_new(tmp_path: Path) -> None:
    old, new = lines_of("old", 6), lines_of("new", 6)
    lake = tmp_path / "lake"
    added([source(tmp_path, "access.log", log(old[:3]))], lake)

    rotated = [source(tmp_path, "access.log.1", log(old)), source(tmp_path, "access.log", log(new))]
    told = added(rotated, lake)

    assert outcomes(told) == [("access.log.1", "added"), ("access.log", "added")]
    assert len(requests(lake)) == 6


def test_an_overlong_line_is_a_reject_and_the_log_may_grow_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.source.LONGEST_LINE", 1000)
    overlong = json_line(user_agent="x" * 2000)
    lake = tmp_path / "lake"

    for lines in ([json_line(), overlong], [json_line(), overlong, json_line(request_id="new")]):
        added([source(tmp_path, "a.log", log(lines))], lake)

    assert [(row["line"], row["request_id"]) for row in requests(lake)] == [(1, "req_1"), (3, "new")]
    assert [(row["line"], row["byte_offset"], row["byte_length"], row["reason"]) for row in rejects(lake)] == [
        (2, len(json_line()) + 1, len(overlong), "overlong")
    ]


def test_a_line_that_is_written_after_the_end_was_read_comes_with_the_next_run(tmp_path: Path) -> None:
    given = source(tmp_path, "a.log", log([json_line()]))
    late = log([json_line(request_id="late")])
    lake = tmp_path / "lake"

    def write_late(name: str, size: int) -> None:
        # Told once before the first chunk and once after the last one, when the end has been read.
        if (tmp_path / "told").exists():
            given.path.write_bytes(log([json_line()]) + late)
        (tmp_path / "told").touch()

    list(ingest([given], lake, KEY, watch=write_late))
    assert [row["request_id"] for row in requests(lake)] == ["req_1"]
    added([given], lake)

    assert [row["request_id"] for row in requests(lake)] == ["req_1", "late"]


@pytest.mark.parametrize("pack", [gzip.compress, zstd], ids=["gzip", "zstd"])
def test_a_copy_that_was_cut_is_kept_and_the_whole_adds_the_rest(tmp_path: Path, pack: Packer) -> None:
    lines = lines_of("a", 3000)
    packed = pack(log(lines))
    lake = tmp_path / "lake"

    [cut] = added([source(tmp_path, "a.gz", packed[: len(packed) * 2 // 3])], lake)
    assert (cut.outcome, cut.progress.is_cut) == ("added", True)
    assert 0 < cut.progress.requests < 1500
    assert steps(lake)[0]["is_cut"]
    added([source(tmp_path, "a.gz", packed)], lake)

    assert [row["line"] for row in requests(lake)] == [n for n in range(1, 3001) if n % 6 in {0, 1, 2}]


@pytest.mark.parametrize(
    ("data", "outcome", "reason"),
    [
        (b"", "empty", "empty"),
        (b"\x1f\x8b\x08", "empty", "holds nothing that can be decompressed"),
        (b"\x00\x01\x02\n" * 9, "unreadable", "binary, not a log"),
        (b"2026/11/23 10:59:05 [error] 7#7: x\n", "unreadable", "none of the first 1 records is in a known format"),
    ],
    ids=["empty", "damaged", "binary", "another format"],
)
def test_a_source_that_cannot_be_read_leaves_the_others_alone(
    tmp_path: Path, data: bytes, outcome: str, reason: str
) -> None:
    names = {"a.log": log(lines_of("a")), "bad.log": data, "c.log": log(lines_of("c"))}
    lake = tmp_path / "lake"

    told = {step.name: step for step in added([source(tmp_path, *item) for item in names.items()], lake)}

    assert {name: step.outcome for name, step in told.items()} == {
        "a.log": "added",
        "bad.log": outcome,
        "c.log": "added",
    }
    assert told["bad.log"].reason.startswith(reason)
    assert sorted(step["name"] for step in steps(lake)) == ["a.log", "c.log"]
    assert len(requests(lake)) == 6


def test_a_file_that_is_gone_leaves_the_others_alone(tmp_path: Path) -> None:
    given = [source(tmp_path, name, log(lines_of(name))) for name in ("a.log", "b.log", "c.log")]
    given[1].path.unlink()

    told = {step.name: step for step in added(given, tmp_path / "lake")}

    assert (told["b.log"].outcome, told["b.log"].reason) == (
        "moved",
        "was rotated or replaced while it was read; the next run takes it",
    )
    assert len(requests(tmp_path / "lake")) == 6


@pytest.mark.parametrize("when", [1, 2, 3], ids=["before it is read", "as it is read", "when it was read"])
def test_a_file_that_rotates_away_in_mid_run_leaves_the_others_alone(tmp_path: Path, when: int) -> None:
    given = [source(tmp_path, name, log(lines_of(name))) for name in ("a.log", "b.log", "c.log")]
    calls = iter(range(1, 100))

    def rotate(name: str, size: int) -> None:
        if next(calls) == when:
            given[1].path.rename(tmp_path / "b.log.1")

    told = {step.name: step.outcome for step in ingest(given, tmp_path / "lake", KEY, watch=rotate)}
    added([Source("b.log.1", tmp_path / "b.log.1"), *(given[0], given[2])], tmp_path / "lake")

    assert (told["a.log"], told["c.log"]) == ("added", "added")
    assert len(requests(tmp_path / "lake")) == 9


def test_a_file_may_have_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.log"))
    path.write_bytes(log(lines_of("a")))

    added(expand([str(tmp_path)]), tmp_path / "lake")

    assert [step["name"] for step in steps(tmp_path / "lake")] == [f"{tmp_path}/caf\ufffd.log"]
    assert len(requests(tmp_path / "lake")) == 3


def test_standard_input_is_a_source_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = log(lines_of("a"))[:-1]
    lake = tmp_path / "lake"

    for packed in (data, gzip.compress(data)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(packed)))
        added(expand(["-"]), lake)
    added([source(tmp_path, "a.log", data + b"\n")], lake)

    assert [(step["name"], step["lines"]) for step in steps(lake)] == [("-", 6)]
    assert len(requests(lake)) == 3


def test_a_dry_run_tells_the_same_and_writes_nothing(tmp_path: Path) -> None:
    given = [source(tmp_path, name, log(lines_of(name))) for name in ("a.log", "b.log")]
    given.append(source(tmp_path, "bad.log", b"\0\n"))
    before = sorted(tmp_path.rglob("*"))

    told = added(given, tmp_path / "lake", dry_run=True)

    assert sorted(tmp_path.rglob("*")) == before
    assert [(step.name, step.outcome, step.progress.requests) for step in told] == [
        ("a.log", "added", 3),
        ("b.log", "added", 3),
        ("bad.log", "unreadable", 0),
    ]


def test_two_processes_give_the_rows_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [source(tmp_path, f"{number}.log", log(lines_of(str(number), 30))) for number in range(6)]
    given.append(source(tmp_path, "bad.log", b"\0\n"))
    monkeypatch.setattr("ingest.run._SOURCES_A_COMMIT", 2)
    # A new process runs the file of __main__, which other tests of the same worker may have put a script in.
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))

    alone = added(given, tmp_path / "one")
    together = added(given, tmp_path / "two", jobs=2)

    assert requests(tmp_path / "two") == requests(tmp_path / "one")
    assert outcomes(together) == outcomes(alone)
    varying = {"ingested_at", "day"}
    ledgers = [
        [{name: value for name, value in step.items() if name not in varying} for step in steps(tmp_path / lake)]
        for lake in ("one", "two")
    ]
    assert ledgers[0] == ledgers[1]


def test_a_format_that_was_given_is_kept_in_the_ledger_with_who_gave_it(tmp_path: Path) -> None:
    choice = Choice(formats()["combined"], "--format combined")

    [step] = added([source(tmp_path, "a.log", log(lines_of("a")))], tmp_path / "lake", choice=choice)

    assert (step.layout, step.progress.rejects) == ("combined", {"not_this_format": 4})
    assert [row["decision"] for row in steps(tmp_path / "lake")] == ["--format combined"]


def test_progress_is_told_in_bytes_as_stored(tmp_path: Path) -> None:
    packed = gzip.compress(log(lines_of("a", 3000)))
    told: list[tuple[str, int]] = []

    list(ingest([source(tmp_path, "a.gz", packed)], tmp_path / "lake", KEY, watch=lambda *seen: told.append(seen)))

    assert {name for name, _ in told} == {"a.gz"}
    assert sum(size for _, size in told) == len(packed)


@pytest.mark.parametrize(("time_zone", "hour"), [("", 10), ("Europe/Berlin", 9), ("America/New_York", 15)])
def test_times_without_a_zone_are_of_the_zone_that_was_given(tmp_path: Path, time_zone: str, hour: int) -> None:
    line = b'[GIN] 2026/11/23 - 10:59:05 | 200 |    4.0ms |    203.0.113.17 | GET      "/v1/messages"'
    given = source(tmp_path, "gin.log", log([line, b" " + line, combined_line()]))

    added([given], tmp_path / "lake", choice=Choice(time_zone=time_zone))

    assert [row["ts"].isoformat() for row in requests(tmp_path / "lake")] == [
        f"2026-11-23T{hour:02}:59:05+00:00",
        f"2026-11-23T{hour:02}:59:05+00:00",
        "2026-11-23T10:59:05+00:00",
    ]


def test_a_dry_run_tells_an_empty_source_as_an_ingest_does(tmp_path: Path) -> None:
    sources = [source(tmp_path, "empty.log", b""), source(tmp_path, "damaged.gz", b"\x1f\x8b\x08")]

    dry = added(sources, tmp_path / "none", dry_run=True)

    assert dry == added(sources, tmp_path / "lake")
    assert [(step.outcome, step.reason) for step in dry] == [
        ("empty", "empty"),
        ("empty", "holds nothing that can be decompressed"),
    ]


def grown(folder: Path, contents: dict[str, list[bytes]]) -> list[str]:
    """The request ids in the lake, sorted, once the logs of these names have been read in this order."""
    for name, lines in contents.items():
        added([source(folder, name, log(lines))], folder / "lake")
    return sorted(row["request_id"] or "" for row in requests(folder / "lake"))


def test_a_log_goes_on_whose_content_became_the_beginning_of_another(tmp_path: Path) -> None:
    first = [json_line(request_id="a_1"), json_line(request_id=..., msec=SECOND + 1), json_line(request_id="a_2")]
    second = [json_line(request_id=f"b_{number}") for number in range(9)]
    joined = [*first, *second]
    more = [json_line(request_id="a_3"), json_line(request_id="a_4")]
    ids = ["", "a_1", "a_2", *(f"b_{number}" for number in range(9))]
    grown(tmp_path, {"a.log": first, "b.log": second, "all.log": joined})

    assert grown(tmp_path, {"a.log": [*first, *more[:1]]}) == ["", "a_1", "a_2", "a_3", *ids[3:]]
    assert grown(tmp_path, {"a.log": [*first, *more]}) == ["", "a_1", "a_2", "a_3", "a_4", *ids[3:]]
    assert grown(tmp_path, {"a.log": first, "all.log": joined, "b.log": second}) == [
        "",
        "a_1",
        "a_2",
        "a_3",
        "a_4",
        *ids[3:],
    ]
    ledger = [(step["name"], step["first_line"], step["lines"], step["requests"]) for step in steps(tmp_path / "lake")]
    assert sorted(ledger) == [
        ("a.log", 1, 3, 3),
        ("a.log", 4, 1, 1),
        ("a.log", 5, 1, 1),
        ("all.log", 4, 9, 0),
        ("b.log", 1, 9, 9),
    ]


def test_a_log_that_branches_off_is_read_from_where_it_does(tmp_path: Path) -> None:
    trunk = [json_line(request_id=...), json_line(request_id="t_1"), json_line(request_id="t_2")]
    branch = [*trunk[:2], *(json_line(request_id=f"b_{number}") for number in range(3))]
    for count in (1, 2, 3):
        grown(tmp_path, {"a.log": trunk[:count]})

    assert grown(tmp_path, {"b.log": branch}) == ["", "b_0", "b_1", "b_2", "t_1", "t_2"]
    assert grown(tmp_path, {"c.log": [trunk[0], json_line(request_id="c_1")]})[4:] == ["c_1", "t_1", "t_2"]


def test_an_older_copy_adds_nothing_wherever_it_ends(tmp_path: Path) -> None:
    lines = [json_line(request_id=..., msec=SECOND + number) for number in range(9)]
    for count in (3, 6, 9):
        grown(tmp_path, {"a.log": lines[:count]})

    for count in range(3, 10):
        assert grown(tmp_path, {f"{count}.log": lines[:count], "a.log": lines[:count]}) == [""] * 9
