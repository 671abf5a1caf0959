"""One ingest: which sources have something new, who parses them, and the commits that make them part of the lake.

A source is known by its content: a fingerprint of its decompressed head and the bytes before the place where reading
stopped. Its inode and times say nothing, and its path only where the content leaves it open.
"""

import hashlib
import os
from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from ingest import lake as lakes
from ingest.detect import Detection, detect, opening
from ingest.duplicates import without_duplicates
from ingest.fingerprint import secret_id
from ingest.formats import Format
from ingest.parse import Batch, Lanes, Progress, parse
from ingest.redact import mask_name
from ingest.schema import SOURCES, BadInput, table_path
from ingest.settings import ClientIp, read_settings
from ingest.source import TAIL_BYTES, Reader, Source, replayable, stored_hash
from ingest.upgrade import upgrade
from ingest.writer import DataFile, Writer

_BYTES_A_COMMIT: Final = 1 << 28
_SOURCES_A_COMMIT: Final = 1000
_THREADS: Final = min(4, os.cpu_count() or 1)  # each holds a chunk and its rows, about 200 MiB


@dataclass(frozen=True)
class Choice:
    """A format that a person chose, and the words for how: `--format nginx-json`. Without one, detection decides.

    `time_zone` is that of times that carry none, empty for the format's own.
    """

    layout: Format | None = None
    said: str = ""
    time_zone: str = ""


@dataclass(frozen=True)
class Plan:
    """A source with something new in it, and where to go on reading.

    Its first `seen_bytes` had the hash `seen_hash` when it was planned: a path may have another file by the time it is
    read.
    """

    source: Source
    name: str
    stored_hash: str
    fingerprint: str
    head_bytes: int
    seen_bytes: int
    seen_hash: str
    from_byte: int = 0
    first_line: int = 1
    tail: bytes = b""


@dataclass(frozen=True)
class Step:
    """What one run read of one source; `reason` says why nothing could be read, or nothing had to be."""

    name: str
    outcome: str  # added, known, empty, moved (while it was read: the next run takes it) or unreadable
    reason: str = ""
    progress: Progress = field(default_factory=lambda: Progress(0, 1))
    layout: str = ""


@dataclass(frozen=True)
class Parsed:
    """The data files of some sources and their ledger rows, ready to be committed together."""

    files: list[DataFile]
    steps: list[Step]
    ledger_rows: list[dict[str, Any]]


Watch = Callable[[str, int], None]
"""Told the name of the source at hand and how many more stored bytes of it have been read."""


def ingest(
    sources: Iterable[Source],
    lake: Path,
    key: bytes,
    *,
    choice: Choice = Choice(),
    jobs: int = 1,
    dry_run: bool = False,
    wait_s: float = 0,
    watch: Watch = lambda name, size: None,
    told: Callable[[str], object] = lambda line: None,
    last: Callable[[], object] = lambda: None,
) -> Iterator[Step]:
    """What became of each source, given once its rows are committed; the lake is made where there is none.

    A dry run parses and counts but neither makes a lake nor writes to one. For another run that writes to the lake it
    waits `wait_s` seconds, which `told` is told; `last` is called when all is committed and no other may write yet.
    Raises BadInput, NotWritten and LakeDamaged.
    """
    redacted = mask_name
    client_ip = read_settings(lake).client_ip
    with replayable(sources) as waiting:
        if dry_run:
            yield from _dry_run(waiting, key, choice, watch, redacted)
            return
        lakes.create(lake)
        with lakes.writing(lake, wait_s=wait_s, told=told):
            upgrade(lake)
            while waiting:
                plans, waiting, steps = _plan(waiting, Known(lakes.ledger(lake)), redacted)
                yield from steps
                for parsed in _parse(list(_groups(plans)), lake, key, choice, client_ip, jobs, watch):
                    _commit(lake, parsed)
                    yield from parsed.steps
            last()


@dataclass(frozen=True)
class _End:
    """Where a step of a source ended, and what the source was called then."""

    fingerprint: str
    head_bytes: int
    to_byte: int
    to_line: int
    tail_hash: str
    name: str

    def is_behind(self, tail: bytes) -> bool:
        """Whether `tail`, the last bytes before that place, is what was read there."""
        return hashlib.sha256(tail).hexdigest() == self.tail_hash


_END: Final = tuple(column.name for column in fields(_End))


class Known:
    """What the ledger knows of sources, by stored content and by the head of the decompressed content."""

    def __init__(self, ledger: pa.Table) -> None:
        self._stored: set[str] = set()
        self._by_head: dict[int, dict[str, list[_End]]] = {}
        self._sizes: list[int] = []
        steps = ledger.select([*_END, "stored_hash", "lines"]).sort_by("to_byte")
        for step in steps.to_pylist():
            if step["stored_hash"]:
                self._stored.add(step["stored_hash"])
            if step["lines"]:  # otherwise it says what was removed
                end = _End(**{name: step[name] for name in _END})
                self._of(end.head_bytes, end.fingerprint).append(end)

    def has_stored(self, digest: str) -> bool:
        """Whether a file with these very bytes has been read to its end."""
        return digest in self._stored

    def find(self, reader: Reader) -> list[_End] | None:
        """Where the steps of the source ended, in their order, that starts as what `reader` gives, which it moves on.

        The longest match wins. None where no source does; no steps of one that this run has planned to read.
        """
        found = None
        head, done = memoryview(reader.head), 0
        digest = hashlib.sha256()
        # Of small sources each has a size of its own, and there may be thousands.
        within = bisect_right(self._sizes, len(head))
        for size in self._sizes[:within]:
            digest.update(head[done:size])
            done = size
            found = self._by_head[size].get(digest.hexdigest(), found)
        if found and within < len(self._sizes):
            reader.skip(done)
            for size in self._sizes[within:]:
                digest.update(reader.take(size - done))
                done = size
                found = self._by_head[size].get(digest.hexdigest(), found)
        return found

    def add(self, plan: Plan) -> None:
        """Remembers a source that this run has planned to read."""
        self._of(plan.head_bytes, plan.fingerprint).clear()

    def _of(self, size: int, fingerprint: str) -> list[_End]:
        if size not in self._by_head:
            insort(self._sizes, size)
        return self._by_head.setdefault(size, {}).setdefault(fingerprint, [])


def _plan(
    sources: list[Source], known: Known, redacted: Callable[[str], str]
) -> tuple[list[Plan], list[Source], list[Step]]:
    """What to read, what to look at again once that is committed, and what needs no reading."""
    plans: list[Plan] = []
    later: list[Source] = []
    steps: list[Step] = []
    for source in sources:
        name = redacted(source.name)
        try:
            found = _plan_one(source, name, known)
        except (BadInput, OSError) as error:
            found = _unread(error, source, name)
        if isinstance(found, Plan):
            plans.append(found)
            known.add(found)
        elif isinstance(found, Step):
            steps.append(found)
        else:
            later.append(source)
    return plans, later, steps


def _plan_one(source: Source, name: str, known: Known) -> Plan | Step | None:
    """What to read of `source`, or what is to be told of it; None while a source that starts as it does is planned."""
    # Before the content is looked at: what is written meanwhile must not pass for read.
    digest = stored_hash(source)
    if known.has_stored(digest):
        return Step(name, "known", "unchanged")
    with closing(Reader(source)) as reader:
        if not reader.head:
            return _empty(name, reader)
        steps = known.find(reader)
    seen = len(reader.head), hashlib.sha256(reader.head).hexdigest()
    if steps is None:
        return Plan(source, name, digest, seen[1], seen[0], *seen)
    if not steps:
        return None
    told = Step(name, "known", f"nothing new since {steps[-1].to_byte:,} bytes of it were read")
    return _continue(source, name, digest, steps, seen) or told


def _empty(name: str, reader: Reader) -> Step:
    return Step(name, "empty", "holds nothing that can be decompressed" if reader.is_cut else "empty")


def _continue(source: Source, name: str, digest: str, steps: list[_End], seen: tuple[int, str]) -> Plan | None:
    """Where a known source goes on, None where it has nothing new; another log with the same head is a new source."""
    last = steps[-1]
    with closing(Reader(source)) as reader:
        tail = reader.skip(last.to_byte)
        if last.is_behind(tail):
            if not tail.endswith(b"\n"):
                reader.skip_line_end()
            if not reader.take(1):
                return None
            known = last.fingerprint, last.head_bytes
            return Plan(source, name, digest, *known, *seen, last.to_byte, last.to_line, tail)
        size = reader.position
    shared, tail = _shared(source, steps)
    if size < last.to_byte and _may_be_older(name, size, steps, shared):
        return None
    with closing(Reader(source)) as reader:
        # Somewhere in these bytes it differs from the known one, so that they tell the two apart from now on.
        other = hashlib.sha256()
        while passed := reader.take(min(size - reader.position, 1 << 20)):
            other.update(passed)
    begun = (shared.to_byte, shared.to_line, tail) if shared else ()
    return Plan(source, name, digest, other.hexdigest(), size, *seen, *begun)


def _shared(source: Source, steps: list[_End]) -> tuple[_End | None, bytes]:
    """The last of `steps` that ended where `source` is still the same, and the bytes before that place."""
    found, tail = None, b""
    with closing(Reader(source)) as reader:
        for step in steps:
            passed = (tail + reader.skip(step.to_byte - reader.position))[-TAIL_BYTES:]
            if reader.position < step.to_byte or not step.is_behind(passed):
                break
            found, tail = step, passed
    return found, tail


def _may_be_older(name: str, size: int, steps: list[_End], shared: _End | None) -> bool:
    """Whether the `size` bytes of a log may be an older copy of what `steps` have read, up to `shared` at least.

    Two logs have another head of 64 KiB, or of all that there was of one, unless they were joined or branched off.
    What lies between two steps is not known, so that here a name counts: one under which the log was read until then,
    and never since, is that of a log whose content became the beginning of another one.
    """
    reached = [step for step in steps if step.to_byte <= size]
    if not reached or shared is not reached[-1]:
        return not reached
    return shared.name != name or name in {step.name for step in steps[len(reached) :]}


def _groups(plans: list[Plan]) -> Iterator[list[Plan]]:
    """`plans` in groups of a good size for one commit, in their order."""
    group: list[Plan] = []
    size = 0
    for plan in plans:
        group.append(plan)
        size += plan.source.stored_bytes
        if size >= _BYTES_A_COMMIT or len(group) >= _SOURCES_A_COMMIT:
            yield group
            group, size = [], 0
    if group:
        yield group


def _parse(
    groups: list[list[Plan]], lake: Path, key: bytes, choice: Choice, client_ip: ClientIp, jobs: int, watch: Watch
) -> Iterator[Parsed]:
    if jobs > 1 and len(groups) > 1:
        threads = max(1, _THREADS // jobs)
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            futures = [pool.submit(parse_group, group, lake, key, choice, client_ip, threads) for group in groups]
            for future in futures:
                yield future.result()
    else:
        for group in groups:
            yield parse_group(group, lake, key, choice, client_ip, _THREADS, watch)


def parse_group(
    plans: list[Plan],
    lake: Path | None,
    key: bytes,
    choice: Choice,
    client_ip: ClientIp,
    threads: int,
    watch: Watch = lambda name, size: None,
) -> Parsed:
    """The data files, not yet visible, and the ledger rows of `plans`; without a lake no files are written."""
    lanes = Lanes(key, threads, client_ip)
    moved: list[Step] = []
    try:
        while True:
            try:
                parsed = _parse_all(plans, lake, key, lanes, choice, watch)
                return replace(parsed, steps=[*moved, *parsed.steps])
            except _Moved as found:
                # Its rows lie between those of others: all are read again.
                moved.append(_moved(found.plan.name))
                plans = [plan for plan in plans if plan is not found.plan]
    finally:
        lanes.close()


class _Moved(Exception):  # noqa: N818 - no error: it takes a source out of its group
    """What is at the path of a source is not, or no longer, what was planned to be read."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan


def _moved(name: str) -> Step:
    return Step(name, "moved", "was rotated or replaced while it was read; the next run takes it")


def _parse_all(plans: list[Plan], lake: Path | None, key: bytes, lanes: Lanes, choice: Choice, watch: Watch) -> Parsed:
    """As `parse_group`; raises _Moved."""
    ingested_at = datetime.now(UTC)
    writer = Writer(table_path(lake), ingested_at.date()) if lake else None
    steps: list[Step] = []
    ledger_rows: list[dict[str, Any]] = []
    try:
        for plan in plans:
            try:
                reader, detection = _opened(plan, choice)
            except BadInput as error:
                steps.append(_unread(error, plan.source, plan.name))
                continue
            with closing(reader):
                progress = _begun(reader, plan, detection)
                batches = parse(reader, lanes, detection, plan.fingerprint[:16], progress)
                for batch in _watched(batches, reader, plan, watch):
                    if writer and lake:
                        with lakes.writes(lake):
                            writer.add(batch)
                if not reader.is_as_opened():
                    raise _Moved(plan)
            steps.append(Step(plan.name, "added" if progress.lines else "known", "", progress, detection.layout.name))
            if progress.lines:
                ledger_rows.append(_ledger_row(plan, key, reader.compression, detection, progress, ingested_at))
        if not writer or not lake:
            return Parsed([], steps, ledger_rows)
        with lakes.writes(lake):
            return Parsed(writer.close(), steps, ledger_rows)
    except BaseException:
        if writer:
            writer.discard()
        raise


def _opened(plan: Plan, choice: Choice) -> tuple[Reader, Detection]:
    """What reads a source, and how its records are read; raises _Moved where another file is there, and BadInput."""
    reader = Reader(plan.source)
    try:
        if hashlib.sha256(reader.head[: plan.seen_bytes]).hexdigest() != plan.seen_hash:
            raise _Moved(plan)
        return reader, detect(plan.name, opening(reader), choice.layout, choice.said, choice.time_zone)
    except BaseException:
        reader.close()
        raise


def _begun(reader: Reader, plan: Plan, detection: Detection) -> Progress:
    """The progress of a source that `reader` has been moved to the next record of."""
    progress = Progress(plan.from_byte, plan.first_line, plan.tail)
    if plan.from_byte:
        if reader.skip(plan.from_byte) != plan.tail:
            raise _Moved(plan)
        passed = b"" if plan.tail.endswith(b"\n") else reader.skip_line_end()
        progress.to_byte += len(passed)
        progress.tail = (plan.tail + passed)[-TAIL_BYTES:]
        # A line without an end has been counted, but for one that JSON values just happened to end on.
        progress.next_line += passed.count(b"\n") if detection.frame.lay_out == "documents" else 0
    return progress


def _watched(batches: Iterator[Batch], reader: Reader, plan: Plan, watch: Watch) -> Iterator[Batch]:
    """`batches`, while `watch` is told how far `reader` is."""
    seen = reader.stored_position()
    watch(plan.name, seen)
    for batch in batches:
        yield batch
        watch(plan.name, reader.stored_position() - seen)
        seen = reader.stored_position()


def _ledger_row(
    plan: Plan, key: bytes, compression: str, detection: Detection, progress: Progress, ingested_at: datetime
) -> dict[str, Any]:
    return {
        "source_id": plan.fingerprint[:16],
        "fingerprint": plan.fingerprint,
        "head_bytes": plan.head_bytes,
        "name": plan.name,
        "stored_hash": None if progress.waits or _is_other_by_now(plan) else plan.stored_hash,
        "compression": compression,
        "gateway": detection.layout.name,
        "decision": detection.decision,
        "first_line": plan.first_line,
        "to_line": progress.next_line,
        "from_byte": plan.from_byte,
        "to_byte": progress.to_byte,
        "tail_hash": hashlib.sha256(progress.tail).hexdigest(),
        "lines": progress.lines,
        "requests": progress.requests,
        "errors": progress.errors,
        "rejects": progress.rejected,
        "skipped": progress.skipped,
        "duplicates": 0,
        "removed": 0,
        "is_cut": progress.is_cut,
        "first_ts": progress.first_us,
        "last_ts": progress.last_us,
        "ingested_at": ingested_at,
        "secret_id": secret_id(key),
    }


def _is_other_by_now(plan: Plan) -> bool:
    """Whether the file is not as it was before it was planned: one took the place of another, or it has grown.

    The hash may then be that of a file which nobody has read.
    """
    try:
        return stored_hash(plan.source) != plan.stored_hash
    except (BadInput, OSError):
        return True


def _commit(lake: Path, parsed: Parsed) -> None:
    """Makes what was parsed visible, but for the requests that are in the lake already."""
    if not parsed.ledger_rows:
        return
    try:
        files = _ready(lake, parsed)
    except BaseException:
        lakes.discard(lake, parsed.files)
        raise
    lakes.commit(lake, files, {row["fingerprint"]: row["to_byte"] for row in parsed.ledger_rows})


def _ready(lake: Path, parsed: Parsed) -> list[DataFile]:
    """The files to commit, among them the ledger's; what the lake has already is left out of them and counted."""
    files, doubled = without_duplicates(lake, parsed.files)
    added = [step.progress for step in parsed.steps if step.outcome == "added"]
    for row, progress in zip(parsed.ledger_rows, added, strict=True):
        errors = doubled["error"][row["source_id"]]
        progress.duplicates = doubled["ok"][row["source_id"]] + errors
        progress.requests -= progress.duplicates
        progress.errors -= errors
        row |= {"requests": progress.requests, "errors": progress.errors, "duplicates": progress.duplicates}
    with lakes.writes(lake):
        writer = Writer(table_path(lake), parsed.ledger_rows[0]["ingested_at"].date())
        writer.add_steps(pa.Table.from_pylist(parsed.ledger_rows, schema=SOURCES))
        return files + writer.close()


def _dry_run(
    sources: list[Source], key: bytes, choice: Choice, watch: Watch, redacted: Callable[[str], str]
) -> Iterator[Step]:
    for source in sources:
        name = redacted(source.name)
        try:
            with closing(Reader(source)) as reader:
                nothing = None if reader.head else _empty(name, reader)
            seen = len(reader.head), hashlib.sha256(reader.head).hexdigest()
            plan = Plan(source, name, "", "0" * 64, 0, *seen)
            yield from [nothing] if nothing else parse_group([plan], None, key, choice, "keep", _THREADS, watch).steps
        except (BadInput, OSError) as error:
            yield _unread(error, source, name)


def _unread(error: BadInput | OSError, source: Source, name: str) -> Step:
    """What is told of a source that could not be opened; one that is gone was rotated since it was listed."""
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, FileNotFoundError):
        return _moved(name)
    told = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
    return Step(name, "unreadable", told.removeprefix(f"{source.name}: "))
