"""Which format a source is in and how its records lie in it: every record of its head votes.

Knows how a vote is counted; parses no more of a record than it takes to name its format.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ingest import identify
from ingest.careful import MOST_LAYERS
from ingest.documents import is_document_stream, split
from ingest.formats import FieldPath, Format, formats
from ingest.frame import Frame
from ingest.json_text import JsonObject, object_of
from ingest.repair import repaired
from ingest.schema import BadInput
from ingest.source import HEAD_BYTES, LONGEST_LINE, Reader
from ingest.times import epoch_unit
from ingest.unwrap import ZIPPED, join, unwrap

_MOST_RECORDS: Final = 200
_CLF: Final = re.compile(r"\d{2}/[A-Z][a-z]{2}/\d{4}:\d{2}:\d{2}:\d{2} [+-]")
_MAGIC: Final = {
    b"PAR1": "a Parquet file, not a log; errata reads logs",
    b"Obj\x01": "an Avro file; export its records as JSON lines",
    b"LPKSHHRH": "a journal of systemd; give `journalctl --all -o json` instead",
    b"\x7fELF": "a program, not a log",
    b"SQLite format 3": "a SQLite database, not a log",
    b"\x89PNG": "a picture, not a log",
    b"%PDF": "a PDF document, not a log",
}


_OF_TEXT: Final = bytes({*range(0x20, 0x100), *b"\t\n\v\f\r\x1b"})


@dataclass(frozen=True)
class Vote:
    """What one record of a head is: the wrappers around it, outermost first, and its format, None where none is known.

    `kind` says what it is without a format: json, not_json or text.
    """

    wrappers: tuple[str, ...]
    format_name: str | None
    kind: str
    record: str = field(compare=False)

    def __str__(self) -> str:
        return " > ".join((*self.wrappers, self.format_name or self.kind))


@dataclass(frozen=True)
class Detection:
    """The format of a source with its time unit settled, how its records lie in it, how the records of its head voted,
    and the reason in words.

    `records` are those of the head that are in that format, out of `wrappers`, the outermost first.
    """

    layout: Format
    votes: dict[str, int]
    decision: str
    frame: Frame
    records: tuple[str, ...] = field(default=(), compare=False)
    wrappers: tuple[str, ...] = ()


def opening(reader: Reader) -> bytes:
    """What detection is to look at, of a reader that stands at the start of its source: the head, or more of a source
    whose first record does not end in it.
    """
    head = reader.head
    ends = split(head, is_end=False)[0] if is_document_stream(head) else b"\n" in head
    return head if ends or len(head) < HEAD_BYTES else reader.peek(LONGEST_LINE)


def detect(name: str, head: bytes, given: Format | None = None, given_as: str = "", time_zone: str = "") -> Detection:
    """The format of the source called `name` that starts with `head`.

    `given` decides on the format without a vote, and `given_as` says who gave it; `time_zone` is that of times without
    one. Raises BadInput where no format fits any record.
    """
    votes = list(head_votes(head, given))
    counted = Counter(map(str, votes))
    found = Counter((vote.wrappers, None if given else vote.format_name) for vote in votes if given or vote.format_name)
    if not found and given is None:
        raise BadInput(f"{name}: {_unknown(head, votes)}")
    wrappers, winner = max(found, key=lambda pair: found[pair]) if found else ((), None)
    layout = replace(given, is_given=True) if given else formats()[str(winner)]
    records = [vote.record for vote in votes if vote.wrappers == wrappers and (given or vote.format_name == winner)]
    count = sum(vote.format_name == winner for vote in votes)
    decision = given_as or f"detected: {count} of the first {len(votes)} records"
    if wrappers:
        decision += f", in {' in '.join(reversed(wrappers))}"
    frame = _frame(head, wrappers)
    layout = settled(_with_fields(name, layout, head), records)
    if time_zone:
        layout = replace(layout, time_zone=time_zone)
        decision += f"; times without a zone are of {time_zone}"
    return Detection(layout, dict(counted), decision, frame, tuple(records), wrappers)


def _frame(head: bytes, wrappers: tuple[str, ...]) -> Frame:
    # An array on one line may have been read before it was whole, element by element.
    if wrappers[:1] == ("array",):
        return Frame("documents", len(wrappers) - 1)
    if is_document_stream(head):
        return Frame("documents", len(wrappers))
    return Frame("wrapped" if wrappers else "lines", len(wrappers))


def head_votes(head: bytes, given: Format | None = None) -> Iterator[Vote]:
    """What each record of `head` is."""
    fields = _fields_directive(head)
    of_fields = identify.of_fields(fields) if fields else None
    for record in _head_records(head):
        yield from _vote(record, of_fields, given)


def _head_records(head: bytes) -> list[bytes]:
    if is_document_stream(head):
        documents, _ = split(head, is_end=False)
        return [document.data for document in documents or split(head, is_end=True)[0]][:_MOST_RECORDS]
    # A truncated file has a hole before what was written next.
    lines = [line.strip().strip(b"\0") for line in head.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    # The head may end inside a line, which then must not vote.
    whole = lines[:-1] if len(lines) > 1 else lines
    joined = join(whole[: 4 * _MOST_RECORDS], is_end=True)
    return [record for record in joined.records if record and not record.startswith(b"#")][:_MOST_RECORDS]


def _vote(
    record: bytes, of_fields: Format | None, given: Format | None, wrappers: tuple[str, ...] = ()
) -> Iterator[Vote]:
    text = record.decode("utf-8", "surrogateescape").strip()
    found, kind = _identified(text, of_fields)
    is_bare = found is not None or len(wrappers) == MOST_LAYERS or (given is not None and _fits(text, given))
    unwrapped = None if is_bare else unwrap(record, is_unzipped=ZIPPED in wrappers)
    if unwrapped is None:
        yield Vote(wrappers, found.name if found else None, kind, text)
        return
    wrapper, held = unwrapped
    for inner in held:
        yield from _vote(inner.data, of_fields, given, (*wrappers, wrapper))


def _fits(text: str, layout: Format) -> bool:
    """Whether `layout` finds a status in a record, so that the record is not to be taken for a wrapper's."""
    values = _values(text, layout)
    return any(identify.value_at(values, path) is not None for path in layout.columns.get("status", ()))


def _identified(text: str, of_fields: Format | None) -> tuple[Format | None, str]:
    if not text.startswith("{"):
        return (of_fields if of_fields and "\t" in text else None) or identify.of_text(text) or of_fields, "text"
    values = _object(text)
    return (None, "not_json") if values is None else (identify.of_object(values), "json")


def _object(text: str) -> JsonObject | None:
    values = object_of(text)
    return repaired(text) if values is None else values


def _fields_directive(head: bytes) -> list[str]:
    """The names of a `#Fields:` line (W3C extended log file format), none where there is no such line."""
    line = re.search(rb"^#Fields:(.*)", head, re.MULTILINE)
    return line[1].decode("utf-8", "replace").split() if line else []


def _with_fields(name: str, layout: Format, head: bytes) -> Format:
    """`layout`, of a W3C log with the pattern that its `#Fields:` line asks for."""
    if layout.layout != "w3c":
        return layout
    names = _fields_directive(head)
    if not names:
        raise BadInput(f"{name}: expected a #Fields: line before the records of {layout.name}, found none")
    records = (line for line in head.split(b"\n") if line.strip() and not line.startswith(b"#"))
    blank = "\t" if b"\t" in next(records, b"") else " "
    wanted = {column: _place([str(key) for (key,) in keys], names) for column, keys in layout.columns.items()}
    columns_at: dict[int, list[str]] = {}
    for column, (at, words) in wanted.items():
        if words:
            columns_at.setdefault(at, []).append(column)
    if missing := [column for column in ("ts", "status") if not wanted[column][1]]:
        raise BadInput(f"{name}: the #Fields: line names nothing for {' and '.join(missing)} of {layout.name}")
    value = f"[^{blank}\r\n]*"
    parts = []
    at = 0
    while at < len(names):
        here = columns_at.get(at, [])
        words = max((wanted[column][1] for column in here), default=1)
        group = blank.join([value] * words)
        for column in here:  # two columns may be made of one field
            group = f"(?P<{column}>{group})"
        parts.append(group)
        at += words
    columns: dict[str, tuple[FieldPath, ...]] = {
        column: ((column,),) for at in sorted(columns_at) for column in reversed(columns_at[at])
    }
    # A date and a time in two columns have between them what separates columns.
    units = layout.units | ({"ts": f"%Y-%m-%d{blank}%H:%M:%S"} if wanted["ts"][1] > 1 else {})
    pattern = "^" + blank.join(parts) + r"\s*$"
    return replace(layout, layout="text", pattern=pattern, columns=columns, units=units)


def _place(candidates: list[str], names: list[str]) -> tuple[int, int]:
    """Where the first of `candidates` starts among `names`, and of how many of them it is made; (0, 0) for none."""
    for candidate in candidates:
        words = candidate.split()
        for at in range(len(names)):
            if names[at : at + len(words)] == words:
                return at, len(words)
    return 0, 0


def settled(layout: Format, records: list[str]) -> Format:
    """`layout` with its time unit decided by `records`, once for all: text by its form, a number by its magnitude."""
    if not layout.has("ts"):
        return replace(layout, units={**layout.units, "ts": "s"})
    for record in records:
        values = _values(record, layout)
        for path in layout.columns["ts"]:
            value = identify.value_at(values, path)
            if value not in (None, *layout.missing):
                unit = layout.units.get("ts", "epoch")
                unit = _unit(str(value)) if unit == "epoch" else unit
                return replace(layout, columns={**layout.columns, "ts": (path,)}, units={**layout.units, "ts": unit})
    unit = layout.unit("ts").replace("epoch", "s")
    columns = {**layout.columns, "ts": layout.columns["ts"][:1]}
    return replace(layout, columns=columns, units={**layout.units, "ts": unit})


def _values(record: str, layout: Format) -> Any:
    if layout.layout == "text":
        match = identify.matched(record, layout)
        return match.groupdict() if match else None
    return _object(record)


def _unit(value: str) -> str:
    try:
        return epoch_unit(float(value))
    except ValueError:
        return "clf" if _CLF.match(value) else "iso8601"


def _unknown(head: bytes, votes: list[Vote]) -> str:
    """Why nothing of `head` can be read, and what to do."""
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            return what
    if len(head.translate(None, _OF_TEXT)) > len(head) // 16 and head.strip(b"\0"):
        return "binary, not a log"
    if not votes:
        return f"holds no record in its first {len(head):,} bytes"
    kinds = Counter(vote.kind for vote in votes)
    kind = max(kinds, key=lambda kind: kinds[kind])
    found = f"none of the first {len(votes)} records is in a known format"
    if kind == "json":
        return f"{found}. They are JSON: pass --mapping FILE that says where time and status are (docs/formats.md)."
    if kind == "not_json":
        return f"{found}. They start like JSON and are none: damaged, or mixed by two writers."
    if all("," in vote.record for vote in votes):
        return (
            f"{found}. They look like comma-separated values, which do not say what they are: pass --mapping FILE "
            "with a pattern (docs/formats.md)."
        )
    return f"{found}: `errata detect --formats` lists them. For others pass --mapping FILE with a pattern."
