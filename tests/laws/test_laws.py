"""Whatever happens to logs and to the lake, in whatever order: no row is lost, doubled, or back without a log.

The normal run has a few histories. For more: `ERRATA_LAW_EXAMPLES=1000 pytest -n 0 tests/laws`, which takes an hour
or more; `--hypothesis-seed=N` repeats a run.
"""

import gzip
import os
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import wraps
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import analysis
from ingest import lake as lakes
from ingest import writer
from ingest.check import check
from ingest.forget import forget, of_key, of_org
from ingest.maintain import Retention, maintain
from ingest.parse import Lanes
from ingest.run import ingest
from ingest.schema import KINDS, NotWritten, table_path
from ingest.source import expand
from ingest.writer import Writer
from tests.ingest.logs import KEY
from tests.ingest.logs import Row as LakeRow
from tests.laws.model import Model, Shape, row_of

EXAMPLES: Final = int(os.environ.get("ERRATA_LAW_EXAMPLES", "10"))
STEPS: Final = 20
HEAD_BYTES: Final = 4096
NOON: Final = datetime(2026, 11, 23, 12, tzinfo=UTC)
LIVE: Final = ("a.log", "b.log")
ORGS: Final = ("org_1", "org_2")
KEYS: Final = ("key_1", "key_2")

REQUESTS: Final = st.builds(
    Shape,
    kind=st.sampled_from(["ok", "error"]),
    org=st.sampled_from(ORGS),
    key=st.sampled_from(KEYS),
    mentions=st.sampled_from(["", *ORGS, *KEYS]),
    days_ago=st.integers(0, 3),
)
NO_ID: Final = st.builds(
    Shape, kind=st.sampled_from(["ok", "error"]), has_id=st.just(False), days_ago=st.integers(0, 3)
)
OTHERS: Final = st.builds(Shape, kind=st.sampled_from(["reject", "skipped"]))
SHAPES: Final = st.lists(REQUESTS | NO_ID | OTHERS, max_size=6)
FRACTIONS: Final = st.floats(0, 1)


@dataclass(frozen=True)
class Crash:
    """The `nth` call of what `PLACES` has for `place` fails, before or after its work; a kill cleans nothing up."""

    place: str
    nth: int
    error: type[BaseException]
    is_after: bool
    is_kill: bool


PLACES: Final[dict[str, tuple[Any, str]]] = {
    "commit": (lakes, "commit"),
    "flush of the log": (lakes, "flush_log"),
    "checkpoint": (lakes, "checkpoint"),
    "flush of a file": (writer, "flush"),
    "requests": (Writer, "add"),
    "requests again": (Writer, "add_again"),
    "ledger": (Writer, "add_steps"),
    "end of the files": (Writer, "close"),
}
CRASHES: Final = st.none() | st.builds(
    Crash,
    place=st.sampled_from(sorted(PLACES)),
    nth=st.integers(1, 4),
    error=st.sampled_from([KeyboardInterrupt, OSError]),
    is_after=st.booleans(),
    is_kill=st.booleans(),
)


class _Clock:
    """The present moment, which may be put forward and back."""

    def __init__(self) -> None:
        self.time = NOON

    def now(self, zone: tzinfo) -> datetime:
        """As `datetime.now`."""
        return self.time.astimezone(zone)


class _KeptLanes(Lanes):
    def close(self) -> None:
        """Leaves them to the next run."""


@dataclass(frozen=True)
class File:
    """A log as it lies in the folder: `rest` is what its writer has still to write of a line.

    Of one that is compressed, `packed` is the whole, of which `stored` may be the beginning.
    """

    stored: bytes
    rest: bytes = b""
    packed: bytes = b""

    @property
    def content(self) -> bytes:
        """What can be read of it."""
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(self.stored) if self.packed else self.stored


def _named(*, is_plain: bool) -> st.SearchStrategy[str]:
    """A log that is there at the moment."""
    return st.runner().flatmap(lambda machine: st.sampled_from(machine.names(is_plain=is_plain)))


PLAIN: Final = _named(is_plain=True)
ANY: Final = _named(is_plain=False)


def log_rule(**drawn: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """A rule for what becomes of logs, one of which can be written to at least; they may all be read right then."""

    def made(work: Callable[..., None]) -> Any:
        @wraps(work)
        def with_reading(machine: "Laws", /, *, is_read: bool, **given: Any) -> None:
            work(machine, **given)
            if is_read:
                machine.read_all(None)

        may = rule(is_read=st.booleans(), **drawn)  # type: ignore[call-overload]  # a target is not among the drawn
        return may(precondition(lambda machine: machine.has_plain())(with_reading))

    return made


class Laws(RuleBasedStateMachine):
    """A folder of logs, a lake, and a model of what it should hold."""

    def __init__(self, lanes: Lanes) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="errata-laws-")
        self._logs = Path(self._folder.name) / "logs"
        self._logs.mkdir()
        self._lake = Path(self._folder.name) / "lake"
        self._files: dict[str, File] = {}
        self._model = Model(HEAD_BYTES)
        self._clock = _Clock()
        self._reader: tuple[duckdb.DuckDBPyConnection, list[Any]] | None = None
        self._copies = 0
        self._is_settled = True
        self._is_clean = False
        self._patch = pytest.MonkeyPatch()
        for module in ("run", "removal"):
            self._patch.setattr(f"ingest.{module}.datetime", self._clock)
        self._patch.setattr("ingest.run.Lanes", lambda *_: lanes)
        # A few lines are to be what millions are elsewhere.
        self._patch.setattr("ingest.run._SOURCES_A_COMMIT", 2)
        self._patch.setattr("ingest.source.HEAD_BYTES", HEAD_BYTES)
        self._patch.setattr("ingest.maintain._FEW", 1)
        self._patch.setattr("ingest.lake._COMMITS_A_CHECKPOINT", 4)

    def teardown(self) -> None:
        """Leaves nothing behind."""
        self._drop_reader()
        self._patch.undo()
        self._folder.cleanup()

    def names(self, *, is_plain: bool) -> list[str]:
        """The logs that are there, those that are compressed left out where they are to be plain."""
        return sorted(name for name, file in self._files.items() if not (is_plain and file.packed))

    def has_plain(self) -> bool:
        """Whether there is a log that can be written to."""
        return bool(self.names(is_plain=True))

    def has_few(self) -> bool:
        """Whether more logs are worth the time of reading them."""
        return len(self._files) < 6

    # Logs

    def _put(self, name: str, file: File) -> None:
        self._files[name] = file
        (self._logs / name).write_bytes(file.stored)

    def _take(self, name: str) -> File:
        (self._logs / name).unlink()
        return self._files.pop(name)

    def _written(self, shapes: list[Shape]) -> bytes:
        return b"".join(map(self._model.write, shapes))

    def _new_name(self, stem: str) -> str:
        self._copies += 1
        return f"{stem}{self._copies}.log"

    @initialize(shapes=SHAPES)
    def begin(self, shapes: list[Shape]) -> None:
        """A lake is made by its first log."""
        self._put("a.log", File(self._written([Shape(), *shapes])))
        self.read_all(None)

    @log_rule(name=st.sampled_from(LIVE) | PLAIN, first=REQUESTS, shapes=SHAPES, half=FRACTIONS)
    def write(self, name: str, first: Shape, shapes: list[Shape], half: float) -> None:
        """A gateway begins a log, or goes on with one; the last line may be written in part."""
        before = self._files.get(name, File(b""))
        content = before.content + before.rest + self._written([first, *shapes])
        last = content.rstrip(b"\n").rfind(b"\n") + 1
        # The first line stays whole: a log without a record is none yet.
        cut = len(content) - int(half * (len(content) - last)) if last else len(content)
        self._put(name, File(content[:cut], content[cut:]))

    def _finished(self, name: str) -> bytes:
        """The content of a log whose writer has finished its line."""
        file = self._files[name]
        self._put(name, File(file.content + file.rest))
        return file.content + file.rest

    @log_rule(name=PLAIN)
    def rotate_by_rename(self, name: str) -> None:
        """What was rotated before goes one further, or out."""
        for older, newer in ((f"{name}.2", f"{name}.1"), (f"{name}.1", name)):
            if newer in self._files:
                self._put(older, self._take(newer))

    @log_rule(name=PLAIN, first=REQUESTS)
    def rotate_by_copytruncate(self, name: str, first: Shape) -> None:
        """The log is copied, cut to nothing and written on."""
        self._put(f"{name}.1", File(self._finished(name)))
        self._put(name, File(self._written([first])))

    @log_rule(name=PLAIN, shown=FRACTIONS, is_kept=st.booleans())
    def compress(self, name: str, shown: float, is_kept: bool) -> None:
        """The compressed log may be there in part, as it is while it is copied from elsewhere."""
        packed = gzip.compress(self._finished(name), mtime=0)
        self._put(f"{name}.gz", File(packed[: 10 + int(shown * 2 * len(packed))], packed=packed))
        if not is_kept:
            self._take(name)

    @rule()
    @precondition(lambda self: any(file.packed for file in self._files.values()))
    def complete_what_is_compressed(self) -> None:
        """Compressed logs that were there in part are there as a whole."""
        for name, file in list(self._files.items()):
            if file.packed:
                self._put(name, File(file.packed, packed=file.packed))

    @log_rule(name=PLAIN)
    @precondition(lambda machine: machine.has_few())
    def copy(self, name: str) -> None:
        """The same content comes under another name."""
        self._put(self._new_name("copy"), self._files[name])

    @log_rule(name=PLAIN, start=FRACTIONS, shapes=SHAPES)
    @precondition(lambda machine: machine.has_few())
    def ship_a_tail_again(self, name: str, start: float, shapes: list[Shape]) -> None:
        """A shipper sends the last lines once more, in a file of their own, and goes on there."""
        lines = list(self._model.lines_of(self._finished(name)))
        places = [place for place, line in enumerate(lines) if line.has_id]
        place = places[int(start * (len(places) - 1))]
        tail = b"".join(line.text() + b"\n" for line in lines[place:])
        self._put(self._new_name("tail"), File(tail + self._written(shapes)))

    @log_rule(first=PLAIN, second=PLAIN)
    @precondition(lambda machine: machine.has_few())
    def join(self, first: str, second: str) -> None:
        """Two logs become a third one; one of them twice is possible, too."""
        self._put(self._new_name("joined"), File(self._finished(first) + self._finished(second)))

    @log_rule(name=PLAIN, end=FRACTIONS, shape=REQUESTS)
    @precondition(lambda machine: machine.has_few())
    def branch(self, name: str, end: float, shape: Shape) -> None:
        """A log begins as another does, and goes on in its own way."""
        lines = list(self._model.lines_of(self._finished(name)))
        head = b"".join(line.text() + b"\n" for line in lines[: 1 + int(end * len(lines))])
        self._put(self._new_name("branch"), File(head + self._written([shape])))

    @rule(name=ANY)
    @precondition(lambda self: len(self._files) > 1)
    def delete(self, name: str) -> None:
        """Somebody trusts the lake."""
        self._take(name)

    @log_rule(name=PLAIN, shape=REQUESTS)
    def replace_by_a_shorter_one(self, name: str, shape: Shape) -> None:
        """The same name, another log."""
        self._put(name, File(self._written([shape])))

    # The lake

    @rule(hours=st.integers(-30, 30))
    def set_the_clock(self, hours: int) -> None:
        """Forward and back."""
        self._clock.time += timedelta(hours=hours)

    @rule(crash=CRASHES)
    def read_all(self, crash: Crash | None) -> None:
        """All logs are read; a run that crashed is run again."""

        def run() -> None:
            list(ingest(expand([str(self._logs)]), self._lake, KEY))

        self._run_twice(run, crash)
        contents = [self._files[name].content for name in sorted(self._files)]
        self._model.ingest(contents, self._clock.now(UTC).date())
        self._is_settled = False
        before = lakes.open_table(self._lake).version()
        run()
        assert lakes.open_table(self._lake).version() == before

    @rule(
        successes_days=st.none() | st.integers(1, 5),
        errors_days=st.none() | st.integers(1, 5),
        grace_hours=st.sampled_from([0, 24]),
        crash=CRASHES,
    )
    def maintain(
        self, successes_days: int | None, errors_days: int | None, grace_hours: int, crash: Crash | None
    ) -> None:
        """Rows past their time go, files are joined, and old ones removed."""
        if not grace_hours:
            self._drop_reader()
        now, retention = self._clock.now(UTC), Retention(successes_days, errors_days)

        def run() -> None:
            with lakes.writing(self._lake):
                list(maintain(self._lake, retention, now, grace_hours=grace_hours))

        self._run_twice(run, crash)
        kinds_of: list[tuple[set[str], int | None]] = [({"ok"}, successes_days), ({"error", "reject"}, errors_days)]
        for kinds, days in kinds_of:
            if days is not None:
                self._model.expire(kinds, now.date() - timedelta(days=days - 1))
        self._is_settled = False
        self._is_clean = True
        if not grace_hours:
            assert self._on_disk() == self._in_snapshot()

    @rule(value=st.sampled_from([*ORGS, *KEYS]), crash=CRASHES, is_shipped=st.booleans())
    def forget(self, value: str, crash: Crash | None, is_shipped: bool) -> None:
        """An organisation or a key is erased; its log may be shipped again afterwards."""
        self._drop_reader()
        erasure = of_org(value) if value in ORGS else of_key(value)

        def run() -> None:
            with lakes.writing(self._lake):
                list(forget(self._lake, erasure, self._clock.now(UTC).date()))

        self._run_twice(run, crash)
        self._model.forget(value)
        self._is_settled = False
        if is_shipped and self.has_plain():
            self.every_row_is_there_once_and_no_other()
            self.ship_a_tail_again(name=self.names(is_plain=True)[0], start=0, shapes=[], is_read=True)

    @rule()
    def open_a_reader(self) -> None:
        """Somebody looks at the lake and goes on looking."""
        self._drop_reader()
        reader = analysis.connect(self._lake)
        self._reader = reader, _looked_at(reader)

    def _drop_reader(self) -> None:
        if self._reader:
            self._reader[0].close()
            self._reader = None

    def _run_twice(self, run: Callable[[], None], crash: Crash | None) -> None:
        """Runs to the end; first, where there is a `crash`, up to that, which leaves a lake that can be read."""
        if crash:
            with _crashing(crash):
                try:
                    run()
                except (KeyboardInterrupt, OSError, NotWritten):
                    self._check_ledger()
        run()

    def _in_snapshot(self) -> set[Path]:
        table = lakes.open_table(self._lake)
        return {path for kind in KINDS for path in lakes.paths_of(table, kind)}

    def _on_disk(self) -> set[Path]:
        return set(table_path(self._lake).resolve().glob("kind=*/day=*/*"))

    # What holds

    @invariant()
    def every_row_is_there_once_and_no_other(self) -> None:
        """The lake holds what the model says, and its ledger has as many lines of each log as were written."""
        if self._is_settled:
            return
        found = Counter(map(row_of, self._held("ok", "error", "reject")))
        assert found - self._model.most == Counter()
        assert self._model.least - found == Counter()
        self._model.settle(found)
        of_ledger = self._check_ledger()
        for log in self._model.logs:
            if log.is_certain:
                lines = list(self._model.lines_of(log.content))
                skipped = sum(line.shape.kind == "skipped" for line in lines)
                sums = of_ledger[log.source_id]
                assert (sums["lines"], sums["skipped"]) == (len(lines), skipped)
        self._is_settled, self._is_clean = True, False

    def _check_ledger(self) -> dict[str, Counter[str]]:
        """What the ledger says of each source: every line of it is accounted for, every row is counted, and each
        success of a day for its caller and route.
        """
        faults = check(self._lake, is_deep=True).faults
        assert [fault for fault in faults if fault.is_damage or self._is_clean] == []
        counted = Counter(row["source_id"] for row in self._held("ok", "error", "reject"))
        of_ledger: dict[str, Counter[str]] = {}
        for step in self._held("source"):
            of_ledger.setdefault(step["source_id"], Counter()).update({name: step[name] for name in _SUMS})
        for source_id, sums in of_ledger.items():
            assert sums["lines"] == sum(sums[name] for name in _SUMS[1:])
            assert sums["requests"] + sums["rejects"] == counted[source_id]
        assert counted.keys() <= of_ledger.keys()
        return of_ledger

    def _held(self, *kinds: str) -> Iterator[LakeRow]:
        """The rows of `kinds` in the lake, read without a query."""
        table = lakes.open_table(self._lake)
        for kind in kinds:
            for path in lakes.paths_of(table, kind):
                place = {"kind": kind, "day": lakes.day_of(path)}
                yield from (row | place for row in pq.ParquetFile(path).read().to_pylist())

    @invariant()
    def readers_read_on(self) -> None:
        """Nothing is compacted under them."""
        if self._reader:
            reader, before = self._reader
            assert _looked_at(reader) == before


_SUMS: Final = ("lines", "requests", "duplicates", "rejects", "skipped", "removed")


def _looked_at(reader: duckdb.DuckDBPyConnection) -> list[Any]:
    sql = "SELECT count(*), sum(response_bytes), (SELECT count(*) FROM rejects) FROM requests"
    return reader.execute(sql).fetchall()


@contextmanager
def _crashing(crash: Crash) -> Iterator[None]:
    """The context in which `crash` happens."""
    owner, name = PLACES[crash.place]
    work = getattr(owner, name)
    calls = 0

    def fail(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != crash.nth:
            return work(*args, **named)
        if crash.is_after:
            work(*args, **named)
        raise crash.error("crashed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, fail)
        if crash.is_kill:
            patch.setattr(Writer, "discard", lambda _: None)
            patch.setattr(lakes, "discard", lambda *_: None)
        yield


@pytest.fixture
def kept_lanes() -> Iterator[Lanes]:
    """Lanes for all runs of ingest: to plan their queries takes longer than all else."""
    lanes = _KeptLanes(KEY, threads=1)
    yield lanes
    Lanes.close(lanes)


def test_the_laws_hold_whatever_happens(kept_lanes: Lanes) -> None:
    run_state_machine_as_test(
        lambda: Laws(kept_lanes),  # type: ignore[arg-type]  # it takes whatever makes a machine
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
