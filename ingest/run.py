"""One ingest: which sources have something new, who parses them, and the commits that make them part of the lake.

A source is known by its content: a fingerprint of its decompressed head and the bytes before the place where reading
stopped. Its path, inode and times say nothing.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from ingest import lake as lakes
from ingest.detect import detect
from ingest.formats import Format
from ingest.parse import Lanes, Progress, parse
from ingest.redact import name_mask
from ingest.schema import SOURCES, BadInput, table_path
from ingest.source import TAIL_BYTES, Reader, Source, replayable, stored_hash

_BYTES_A_COMMIT: Final = 1 << 28
_SOURCES_A_COMMIT: Final = 1000
_THREADS: Final = min(4, os.cpu_count() or 1)  # each holds a chunk and its rows, about 200 MiB


@dataclass(frozen=True)
class Choice:
    """A format that a person chose, and the words for how: `--format nginx-json`. Without one, detection decides."""

    layout: Format | None = None
    said: str = ""


@dataclass(frozen=True)
class Plan:
    """A source with something new in it, and where to go on reading."""

    source: Source
    name: str
    fingerprint: str
    head_bytes: int
    from_byte: int = 0
    first_line: int = 1
    tail: bytes = b""


@dataclass(frozen=True)
class Step:
    """What one run read of one source; `reason` says why nothing could be read, or nothing had to be."""

    name: str
    outcome: str  # added, known, empty or unreadable
    reason: str = ""
    progress: Progress = field(default_factory=lambda: Progress(0, 1))
    layout: str = ""


@dataclass(frozen=True)
class Parsed:
    """The data files of some sources and their ledger rows, ready to be committed together."""

    files: list[lakes.DataFile]
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
    watch: Watch = lambda name, size: None,
) -> Iterator[Step]:
    """What became of each source, given once its rows are committed; the lake is made where there is none.

    A dry run parses and counts but neither makes a lake nor writes to one. Raises BadInput and LakeDamaged.
    """
    redacted = name_mask(key)
    with replayable(sources) as waiting:
        if dry_run:
            yield from _dry_run(waiting, key, choice, watch, redacted)
            return
        lakes.create(lake)
        with lakes.writing(lake):
            while waiting:
                plans, waiting, steps = _plan(waiting, Known(lakes.ledger(lake)), redacted)
                yield from steps
                for parsed in _parse(list(_groups(plans)), lake, key, choice, jobs, watch):
                    _commit(lake, parsed)
                    yield from parsed.steps


class Known:
    """What the ledger knows of sources, by stored content and by the head of the decompressed content."""

    def __init__(self, ledger: pa.Table) -> None:
        self._stored: set[str] = set()
        self._by_head: dict[int, dict[str, dict[str, Any]]] = {}
        for step in ledger.to_pylist():
            if step["stored_hash"]:
                self._stored.add(step["stored_hash"])
            by_fingerprint = self._by_head.setdefault(step["head_bytes"], {})
            before = by_fingerprint.get(step["fingerprint"])
            if before is None or step["to_byte"] > before["to_byte"]:
                by_fingerprint[step["fingerprint"]] = step

    def has_stored(self, digest: str | None) -> bool:
        """Whether a file with these very bytes has been read to its end."""
        return digest in self._stored

    def find(self, head: bytes) -> dict[str, Any] | None:
        """The last step of the source that starts with `head` or with the start of it; the longest match wins."""
        found = None
        digest, done = hashlib.sha256(), 0
        for size in sorted(size for size in self._by_head if size <= len(head)):
            digest.update(head[done:size])
            done = size
            found = self._by_head[size].get(digest.hexdigest(), found)
        return found

    def add(self, plan: Plan) -> None:
        """Remembers a source that this run has planned to read."""
        step = {"fingerprint": plan.fingerprint, "is_planned": True}
        self._by_head.setdefault(plan.head_bytes, {})[plan.fingerprint] = step


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
            if known.has_stored(stored_hash(source)):
                steps.append(Step(name, "known", "unchanged"))
                continue
            reader = Reader(source)
        except (BadInput, OSError) as error:
            steps.append(Step(name, "unreadable", _told(error, source)))
            continue
        step = known.find(reader.head)
        if not reader.head:
            steps.append(Step(name, "empty", "holds nothing that can be decompressed" if reader.is_cut else "empty"))
        elif step is None:
            plans.append(Plan(source, name, hashlib.sha256(reader.head).hexdigest(), len(reader.head)))
            known.add(plans[-1])
        elif "is_planned" in step:
            later.append(source)
        else:
            plan = _continue(source, name, reader, step)
            if plan:
                plans.append(plan)
                known.add(plan)
            else:
                steps.append(Step(name, "known", f"nothing new since {step['to_byte']:,} bytes of it were read"))
        reader.close()
    return plans, later, steps


def _continue(source: Source, name: str, reader: Reader, step: dict[str, Any]) -> Plan | None:
    """Where a known source goes on, None where it has nothing new; another log with the same head is a new source."""
    to_byte = step["to_byte"]
    tail = reader.skip(to_byte)
    next_line = step["first_line"] + step["lines"]
    if hashlib.sha256(tail).hexdigest() == step["tail_hash"]:
        more = reader.skip(1)
        if not more or (more == b"\n" and not tail.endswith(b"\n") and not reader.skip(1)):
            return None
        return Plan(source, name, step["fingerprint"], step["head_bytes"], to_byte, next_line, tail)
    if not reader.skip(1) and len(tail) < TAIL_BYTES and to_byte > len(tail):
        return None
    other = hashlib.sha256(f"{step['fingerprint']} {hashlib.sha256(tail).hexdigest()}".encode())
    return Plan(source, name, other.hexdigest(), step["head_bytes"])


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
    groups: list[list[Plan]], lake: Path, key: bytes, choice: Choice, jobs: int, watch: Watch
) -> Iterator[Parsed]:
    if jobs > 1 and len(groups) > 1:
        threads = max(1, _THREADS // jobs)
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            futures = [pool.submit(parse_group, group, lake, key, choice, threads) for group in groups]
            for future in futures:
                yield future.result()
    else:
        for group in groups:
            yield parse_group(group, lake, key, choice, _THREADS, watch)


def parse_group(
    plans: list[Plan],
    lake: Path | None,
    key: bytes,
    choice: Choice,
    threads: int,
    watch: Watch = lambda name, size: None,
) -> Parsed:
    """The data files, not yet visible, and the ledger rows of `plans`; without a lake no files are written."""
    ingested_at = datetime.now(UTC)
    writer = lakes.Writer(table_path(lake), ingested_at.date()) if lake else None
    lanes = Lanes(key, threads)
    steps: list[Step] = []
    ledger_rows: list[dict[str, Any]] = []
    try:
        for plan in plans:
            name = plan.name
            reader = Reader(plan.source)
            try:
                layout = detect(name, reader.head, choice.layout, choice.said)
            except BadInput as error:
                steps.append(Step(name, "unreadable", str(error).removeprefix(f"{name}: ")))
                continue
            progress = Progress(plan.from_byte, plan.first_line, plan.tail)
            if plan.from_byte:
                reader.skip(plan.from_byte)
                progress.to_byte += reader.skip_line_end() if not plan.tail.endswith(b"\n") else 0
            seen = reader.stored_position()
            watch(name, seen)
            for batch in parse(reader, lanes, layout.layout, plan.fingerprint[:16], progress):
                if writer:
                    writer.add(batch)
                watch(name, reader.stored_position() - seen)
                seen = reader.stored_position()
            steps.append(Step(name, "added" if progress.lines else "known", "", progress, layout.layout.name))
            if progress.lines:
                ledger_rows.append(
                    _ledger_row(plan, name, reader.compression, layout.layout, layout.decision, progress, ingested_at)
                )
            reader.close()
        return Parsed(writer.close() if writer else [], steps, ledger_rows)
    except BaseException:
        if writer:
            writer.discard()
        raise
    finally:
        lanes.close()


def _ledger_row(
    plan: Plan, name: str, compression: str, layout: Format, decision: str, progress: Progress, ingested_at: datetime
) -> dict[str, Any]:
    return {
        "source_id": plan.fingerprint[:16],
        "fingerprint": plan.fingerprint,
        "head_bytes": plan.head_bytes,
        "name": name,
        "stored_hash": None if progress.waits else stored_hash(plan.source),
        "compression": compression,
        "gateway": layout.name,
        "decision": decision,
        "first_line": plan.first_line,
        "from_byte": plan.from_byte,
        "to_byte": progress.to_byte,
        "tail_hash": hashlib.sha256(progress.tail).hexdigest(),
        "lines": progress.lines,
        "requests": progress.requests,
        "errors": progress.errors,
        "rejects": progress.rejected,
        "skipped": progress.skipped,
        "is_cut": progress.is_cut,
        "first_ts": progress.first_us,
        "last_ts": progress.last_us,
        "ingested_at": ingested_at,
    }


def _commit(lake: Path, parsed: Parsed) -> None:
    if not parsed.ledger_rows:
        return
    writer = lakes.Writer(table_path(lake), parsed.ledger_rows[0]["ingested_at"].date())
    writer.add_steps(pa.Table.from_pylist(parsed.ledger_rows, schema=SOURCES))
    progress = {row["fingerprint"]: row["to_byte"] for row in parsed.ledger_rows}
    lakes.commit(lake, [*parsed.files, *writer.close()], progress)


def _dry_run(
    sources: list[Source], key: bytes, choice: Choice, watch: Watch, redacted: Callable[[str], str]
) -> Iterator[Step]:
    for source in sources:
        name = redacted(source.name)
        try:
            plan = Plan(source, name, "0" * 64, 0)
            yield from parse_group([plan], None, key, choice, _THREADS, watch).steps
        except (BadInput, OSError) as error:
            yield Step(name, "unreadable", _told(error, source))


def _told(error: BadInput | OSError, source: Source) -> str:
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror}"
    return str(error).removeprefix(f"{source.name}: ")
