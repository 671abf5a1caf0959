"""What an ingest would make of the head of a source: its format and why, the rows that it would add, what they lack.

Reads no more than the head and writes nothing. Knows no screen.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo

from ingest import identify
from ingest.detect import Detection, detect, head_votes, opening
from ingest.draft import draft, written
from ingest.formats import CONFIDENCES, FieldPath, Format
from ingest.json_text import object_of
from ingest.parse import Lanes, Progress, parse
from ingest.schema import REQUEST_COLUMNS, BadInput
from ingest.source import HEAD_BYTES, Reader, Source
from ingest.times import micros

COLUMNS: Final = tuple(
    column.name for column in REQUEST_COLUMNS if column.name not in {"gateway", "source_id", "line", "details"}
)
"""The columns of a row that come from the record itself."""

_THROTTLING: Final = (429, 503)
_MOST_COMPARED: Final = 5
_ELSEWHERE: Final = ZoneInfo("Asia/Tokyo")

Row = dict[str, Any]


@dataclass(frozen=True)
class Times:
    """How the time of a record is understood.

    `place` is the path of a JSON record that has it, empty for a line of text; `unit` one of the format's; `zone` the
    one that is assumed, empty where every time says its own; and `marks` what is logged: start or end of the request.
    """

    place: str
    unit: str
    zone: str
    marks: str


@dataclass(frozen=True)
class Preview:
    """What an ingest would add of a source, were its head all of it.

    `rows` are redacted as the lake would hold them, in the order of their lines, and `rejects` the lines of each
    reason. `is_whole` says that the head is all there is, and `is_damaged` that the rest cannot be decompressed.
    `alternatives` are the other formats that the records fit, the surest first.
    """

    compression: str
    is_whole: bool
    is_damaged: bool
    detection: Detection
    alternatives: tuple[str, ...]
    times: Times
    progress: Progress
    rows: tuple[Row, ...]
    rejects: dict[str, list[int]]

    @property
    def layout(self) -> Format:
        """The format that was decided on."""
        return self.detection.layout

    def found(self) -> dict[str, int]:
        """How many rows have each of `COLUMNS`."""
        return {name: sum(row[name] is not None for row in self.rows) for name in COLUMNS}

    def formats(self) -> dict[str, int]:
        """How many rows are in each format."""
        return dict(Counter(row["gateway"] for row in self.rows))

    def throttled(self) -> int:
        """How many rows have a status that comes with a Retry-After header."""
        return sum(row["status"] in _THROTTLING for row in self.rows)

    def example(self) -> Row | None:
        """The row that shows most: an error with its code, or else an error, or else the first."""
        return max(self.rows, key=lambda row: (row["code"] is not None, row["kind"] == "error"), default=None)

    def lacks(self) -> tuple[str, ...]:
        """What is wanted and never said, by these records or any of their format: code, org_id, key_id and so on."""
        found = self.found()
        found["key_id"] += found["key_hash"]
        # Without an error there is none to have a code, and only some statuses come with a Retry-After.
        occasions = {"code": self.progress.errors, "retry_after_s": self.throttled()}
        return tuple(
            name for name in _PLACES if not found[name] and (occasions.get(name, 1) or not may_have(name, self.layout))
        )


def preview(
    source: Source, lanes: Lanes, given: Format | None = None, given_as: str = "", time_zone: str = ""
) -> Preview:
    """The preview of `source`; the rest is as for `detect`. Raises BadInput where nothing is known."""
    with closing(Reader(source)) as reader:
        if not reader.head:
            raise BadInput(f"{source.name}: is empty; there is nothing to tell its format by")
        is_damaged = reader.is_cut
        head = opening(reader)
        is_whole = len(head) < HEAD_BYTES and not is_damaged
        detection = detect(source.name, head, given, given_as, time_zone)
        # As if the source ended where the head does: a record that is not whole there is left out.
        reader.is_cut, reader.is_growing = not is_whole, False
        progress = Progress(0, 1)
        batches = list(parse(reader, lanes, detection, "", progress))
    rows = [row for batch in batches for redacted in batch.requests for row in redacted.rows.to_pylist()]
    rejects: dict[str, list[int]] = {}
    for batch in batches:
        for reject in batch.rejects.to_pylist():
            rejects.setdefault(reject["reason"], []).append(reject["line"])
    return Preview(
        reader.compression,
        is_whole,
        is_damaged,
        detection,
        tuple(_alternatives(detection)),
        _times(detection),
        progress,
        tuple(sorted(rows, key=lambda row: int(row["line"]))),
        rejects,
    )


def mapping_draft(source: Source, masked: Callable[[str], str]) -> str:
    """As `draft`, for the records of the head of `source` that are JSON in no known format; empty where none are."""
    try:
        with closing(Reader(source)) as reader:
            return draft([vote.record for vote in head_votes(opening(reader)) if vote.kind == "json"], masked)
    except (BadInput, OSError):
        return ""


def may_have(wanted: str, layout: Format) -> bool:
    """Whether records of `layout` have a place for one of the columns that `Preview.lacks` names."""
    return any(layout.has(name) for name in _PLACES[wanted])


_PLACES: Final = {
    "code": ("code", "body"),
    "org_id": ("org_id",),
    "key_id": ("key_id", "api_key"),
    "request_id": ("request_id", "body"),
    "retry_after_s": ("retry_after_s",),
}


def codes_from(layout: Format) -> tuple[str, ...]:
    """Where records of `layout` may have the code of an error: in its body, or in a header or field of its own."""
    return tuple(name for name in ("body", "code") if layout.has(name))


def _alternatives(detection: Detection) -> Iterable[str]:
    """The other formats that the records fit."""
    layout = detection.layout
    records = detection.records[:_MOST_COMPARED]
    values = [object_of(record) or {} for record in records]
    for other in identify.by_confidence(layout.layout) if records else ():
        is_fit = (
            all(identify.matched(record, other) for record in records)
            if layout.layout == "text"
            else all(identify.is_signed(value, other.signature) for value in values)
        )
        if is_fit and other.name != layout.name:
            yield other.name


def is_ambiguous(found: Preview) -> bool:
    """Whether the records alone could not decide: their format is a guess, or another is as sure as it."""
    if CONFIDENCES.index(found.layout.confidence) < CONFIDENCES.index("medium"):
        return False
    confidences = {layout.name: layout.confidence for layout in identify.by_confidence(found.layout.layout)}
    return found.layout.confidence == "low" or any(
        confidences[name] == found.layout.confidence for name in found.alternatives
    )


def _times(detection: Detection) -> Times:
    layout = detection.layout
    [path] = layout.columns.get("ts", ((),))[:1]
    unit = layout.unit("ts") if path else ""
    value = next((found for found in (_time(record, layout, path) for record in detection.records) if found), "")
    # What says its zone is the same moment wherever it is read.
    is_zoned = "%z" in unit if "%" in unit else unit != "iso8601" or micros(value) == micros(value, _ELSEWHERE)
    return Times(
        written(path) if layout.layout == "json" else "", unit, "" if is_zoned else layout.time_zone, layout.ts_is
    )


def _time(record: str, layout: Format, path: FieldPath) -> str:
    """The time of `record` as it is written, empty where it has none."""
    if layout.layout == "json":
        return str(identify.value_at(object_of(record), path) or "")
    match = identify.matched(record, layout)
    return str(match.groupdict().get("ts") or "") if match else ""
