"""What holds for any bytes that are given as a log: nothing raises, and every line is accounted for."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ingest import careful
from ingest.detect import detect
from ingest.formats import formats
from ingest.frame import parts
from ingest.parse import Lanes, Progress, parse
from ingest.schema import BadInput
from ingest.source import Reader, Source


def seeds() -> Iterator[bytes]:
    """The sample lines of every format, which mutations start from."""
    for layout in formats().values():
        for sample in layout.samples:
            yield str(sample["line"]).encode() + b"\n"


def check_records(path: Path) -> None:
    """That the careful lane reads each record of the log at `path`, and the lines add up; raises AssertionError."""
    try:
        with closing(Reader(Source("fuzzed", path))) as reader:
            detection = detect("fuzzed", reader.head)
            found = list(parts(reader, detection.frame, 1))
    except BadInput:
        return
    for part in found:
        records, accounted, extra = [], 0, 0
        for index in range(len(part.records)):
            items = careful.read(part.records.line(index), index, detection.layout)
            records += [item for item in items if isinstance(item, careful.Record)]
            accounted += sum(isinstance(item, careful.Record) or item.reason is not None for item in items)
            extra += max(0, len(items) - 1)
        assert accounted <= part.lines + extra
        assert len(careful.records_table(records)) == len(records)
    assert [part.byte_end for part in found] == sorted(part.byte_end for part in found)
    assert all(part.is_ended for part in found[:-1])


def check_rows(path: Path, lanes: Lanes) -> None:
    """That the log at `path` becomes rows, rejects and skipped lines that add up; raises AssertionError."""
    try:
        with closing(Reader(Source("fuzzed", path))) as reader:
            detection = detect("fuzzed", reader.head)
            progress = Progress(0, 1)
            batches = list(parse(reader, lanes, detection, "source", progress))
            size = reader.position
    except BadInput:
        return
    rows = [row for batch in batches for part in batch.requests for row in part.rows.to_pylist()]
    rejects = [row for batch in batches for row in batch.rejects.to_pylist()]
    assert (len(rows), len(rejects)) == (progress.requests, progress.rejected)
    assert progress.lines == progress.requests + progress.rejected + progress.skipped
    assert progress.skipped >= 0
    assert progress.errors == sum(row["kind"] == "error" for row in rows)
    assert all(1 <= row["line"] <= progress.next_line for row in [*rows, *rejects])
    assert all(0 <= row["byte_offset"] <= row["byte_offset"] + row["byte_length"] <= size for row in rejects)
    assert all(100 <= row["status"] <= 999 and row["ts"] is not None for row in rows)
