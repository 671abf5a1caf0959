"""A preview in words, for a person who has never seen errata.

What comes out of a log is shown as it would enter the lake, on one line, with no character that can move a cursor.
"""

import textwrap
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ingest.formats import formats
from ingest.preview import Preview, is_ambiguous, may_have

_WIDTH: Final = 110
_LABEL: Final = 12
_INDENT: Final = 6


def text(name: str, found: Preview) -> str:
    """What an ingest would make of the source called `name`, why, and what its log lacks."""
    parts = [_head(name, found), _columns(found), _notes(found), _remedy(found)]
    return "\n\n".join("\n".join(part) for part in parts if part)


def unknown_text(name: str, problem: str, mapping: str) -> str:
    """Why the source called `name` cannot be read, and the draft of a mapping where there is one."""
    lines = [inert(name), *_entry("unknown", problem)]
    if mapping:
        told = (
            "A mapping to start with, from what the values look like. Save and correct it, and give it with --mapping."
        )
        lines += ["", *_entry("draft", told), "", *_indented(mapping)]
    return "\n".join(lines)


def moment(us: int | None) -> str | None:
    """The second that `us`, microseconds since 1970, is in."""
    if us is None:
        return None
    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us):%Y-%m-%d %H:%M:%S} UTC"


def counted(number: int, noun: str) -> str:
    """`number` of what `noun` names."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def inert(text: str) -> str:
    """`text` with every control and direction-changing character written out."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in text
    )


def _indented(snippet: str) -> list[str]:
    return [inert(line) for line in textwrap.indent(snippet.expandtabs(4), " " * _INDENT).splitlines()]


def _entry(label: str, text: str) -> list[str]:
    lines = textwrap.wrap(inert(text), _WIDTH - _LABEL - 2, break_on_hyphens=False) or [""]
    return [f"  {label if not number else '':{_LABEL}}{line}" for number, line in enumerate(lines)]


def _head(name: str, found: Preview) -> list[str]:
    layout, detection, progress = found.layout, found.detection, found.progress
    packed = "" if found.compression == "none" else f" ({found.compression})"
    votes = ", ".join(f"{count:,} {_vote(vote)}" for vote, count in detection.votes.items())
    lines = [f"{inert(name)}{packed}"]
    lines += _entry("format", f"{' > '.join((*detection.wrappers, layout.name))}: {layout.title}")
    lines += _entry("why", _decided(found))
    lines += _entry("records", f"{votes} (of the first {counted(sum(detection.votes.values()), 'record')})")
    lines += _entry("times", _times(found))
    lines += _entry("requests", _requests(found))
    if progress.rejects:
        reasons = "; ".join(_reject(reason, at) for reason, at in found.rejects.items())
        lines += _entry("rejects", f"{progress.rejected:,} of {counted(progress.lines, 'line')}: {reasons}")
    if found.is_damaged:
        lines += _entry("damaged", "the compressed stream is cut or damaged; what it holds up to there is read")
    return lines


_KINDS: Final = {"text": "text in no known format", "json": "JSON in no known format", "not_json": "broken JSON"}


def _vote(vote: str) -> str:
    *wrappers, kind = vote.split(" > ")
    return " > ".join([*wrappers, _KINDS.get(kind, kind)])


_SURENESS: Final = {
    "certain": "no other software is known to write such records",
    "high": "other software hardly writes such records",
    "medium": "other software may write such records",
    "low": "a guess: many programs write such records",
}


def _decided(found: Preview) -> str:
    decision, confidence = found.detection.decision, found.layout.confidence
    if not decision.startswith("detected"):
        return decision
    told = f"{decision}. Confidence: {confidence}, {_SURENESS[confidence]}."
    if not is_ambiguous(found):
        return told
    others = f" They also fit {', '.join(found.alternatives)}." if found.alternatives else ""
    return f"{told}{others} If it is wrong, say so: --format NAME, or --mapping FILE for your own."


_UNITS: Final = {
    "s": "seconds since 1970",
    "ms": "milliseconds since 1970",
    "us": "microseconds since 1970",
    "ns": "nanoseconds since 1970",
    "iso8601": "dates of ISO 8601",
    "%Y-%m-%d\t%H:%M:%S": "a date and a time",
    "%Y-%m-%d %H:%M:%S": "a date and a time",
    "clf": "dates like 23/Nov/2026:10:59:05 +0000",
}


def _times(found: Preview) -> str:
    times, progress = found.times, found.progress
    if not times.unit:
        told = "none in these records; only a wrapper's time can stand in"
    else:
        place = f"`{times.place}`, " if times.place else ""
        zone = f", without a zone and read as {times.zone}" if times.zone else ""
        unit = _UNITS.get(times.unit, f"dates written as {times.unit}")
        told = f"{place}{unit}{zone}; the {times.marks} of the request"
        if times.marks == "start":
            told += f", {_start_to_end(found)}"
    if progress.first_us is None:
        return told
    return f"{told}. From {moment(progress.first_us)} to {moment(progress.last_us)}"


def _start_to_end(found: Preview) -> str:
    is_timed = found.found()["latency_ms"]
    return "the lake keeps the end: start + latency" if is_timed else "kept as the end: no latency is logged"


def _requests(found: Preview) -> str:
    progress = found.progress
    extent = "the log" if found.is_whole else "its first 64 KiB"
    if not found.rows:
        return f"none in {extent}"
    told = f"{counted(progress.requests, 'request')} in {extent}, {counted(progress.errors, 'error')} among them"
    by_format = [f"{count:,} {name}" for name, count in found.formats().items()]
    if len(by_format) > 1:
        told += f"; each is read in its own format: {', '.join(by_format)}"
    if progress.skipped:
        told += f"; {counted(progress.skipped, 'line')} skipped (blank, comments, parts of a record)"
    return told


_REASONS: Final = {
    "not_json": "no JSON",
    "not_an_object": "no JSON object",
    "not_this_format": "in no known format",
    "no_status": "without a status",
    "no_timestamp": "without a time",
    "impossible_timestamp": "with a time before 2000 or after 2100",
    "overlong": "longer than 16 MiB",
    "left_out_by_journald": "left out by journald, which limits how long a record may be",
}
_MOST_LINES: Final = 3


def _reject(reason: str, at: list[int]) -> str:
    lines = ", ".join(f"{line:,}" for line in at[:_MOST_LINES]) + (", ..." if len(at) > _MOST_LINES else "")
    told = _REASONS.get(reason, reason.replace("_", " "))
    return f"{len(at):,} {told} ({'line' if len(at) == 1 else 'lines'} {lines})"


def _columns(found: Preview) -> list[str]:
    """Every column, how many requests have it, and its value in one of them."""
    example = found.example()
    if example is None:
        return []
    rows = [("column", "found in", f"line {example['line']:,}, as the lake would keep it")]
    rows += [(name, _share(name, count, found), _value(example[name])) for name, count in found.found().items()]
    widths = [max(len(row[place]) for row in rows) for place in (0, 1)]
    return [f"  {name:{widths[0]}}  {told:{widths[1]}}  {value}".rstrip() for name, told, value in rows]


_OF_ERRORS: Final = frozenset({"code", "message", "docs_url", "body_state", "gateway_reason"})


def _share(name: str, count: int, found: Preview) -> str:
    total, of = (found.progress.errors, " errors") if name in _OF_ERRORS else (len(found.rows), "")
    if not total:
        return "no error here"
    if not count:
        return "never"
    return f"all{of}" if count == total else f"{count:,} of {total:,}{of}"


_MOST_CHARACTERS: Final = 70


def _value(value: Any) -> str:
    if value is None:
        return ""
    text = inert(f"{value:%Y-%m-%d %H:%M:%S.%f} UTC" if hasattr(value, "strftime") else str(value))
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."


def _notes(found: Preview) -> list[str]:
    notes = " ".join(found.layout.docs.get("notes", "").split())
    return _entry("to know", notes) if notes else []


_WANTED: Final = {
    "code": ("error code", "X-Error-Code"),
    "org_id": ("organisation", "X-Org-Id"),
    "key_id": ("key", "X-Key-Id"),
    "request_id": ("request id", "X-Request-Id"),
    "retry_after_s": ("Retry-After", "Retry-After"),
}


def _remedy(found: Preview) -> list[str]:
    """What is wanted and missing, and the configuration that logs it."""
    layout, lacks = found.layout, found.lacks()
    if not lacks:
        return _entry("missing", "nothing that errata wants of a log")
    told = f"{_words(lacks)}." if found.rows else "every record is rejected."
    if not layout.docs:
        return _entry(
            "missing", f"{told} Where the log has it, name the place in the mapping: docs/formats.md says how."
        )
    better = formats().get(layout.docs.get("instead", ""), layout)
    if cannot := [name for name in lacks if not may_have(name, better)]:
        told += f" {better.name} has no place for {'any of them' if len(cannot) == len(lacks) else _words(cannot)}."
    if headers := [_WANTED[name][1] for name in lacks if may_have(name, better)]:
        told += f" Have the API answer with {', '.join(headers)}, and the log keep them."
    told += f" More under {layout.name} in docs/formats.md."
    snippet = (layout.docs.get("configure") or better.docs.get("configure", "")).strip("\n") if headers else ""
    lines = _entry("missing", told)
    if snippet and better is not layout:
        lines += _entry("", f"This logs {better.name}:")
    return [*lines, "", *_indented(snippet)] if snippet else lines


def _words(wanted: Iterable[str]) -> str:
    return ", ".join(_WANTED[name][0] for name in wanted)
