"""What could not be read of the sources behind a period: lines without a request, errors without a body.

A line that cannot be read has no time: it is counted with its source, which may reach beyond the period.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import duckdb

import analysis
from analysis.damage import lake_errors
from analysis.period import Period
from analysis.section import Row, Section, Topic, command

_TOPIC: Final = Topic(
    "ingest_health",
    "What could not be read",
    (
        *("name", "lines", "rejects", "reject_reasons", "errors", "truncated_bodies", "absent_bodies"),
        *("undecodable_bodies", "silences", "is_cut"),
    ),
    "No source has requests of this period.",
)
_COUNTS: Final = (
    *("lines", "rejects", "errors", "whole_bodies", "truncated_bodies", "absent_bodies", "undecodable_bodies"),
)
_TROUBLES: Final = ("rejects", "truncated_bodies", "absent_bodies", "undecodable_bodies")
# A source without any request has no time of its own: it belongs to the night in which it was read.
_SOURCES: Final = """
SELECT DISTINCT source_id
FROM sources
WHERE (first_ts < $until AND last_ts >= $since)
   OR (first_ts IS NULL AND ingested_at >= $since AND ingested_at < $until + INTERVAL 1 DAY)
"""
_REJECTS: Final = """
SELECT reason, count(*) AS rejects
FROM rejects
WHERE source_id IN (SELECT unnest($sources::VARCHAR[]))
GROUP BY ALL
ORDER BY rejects DESC, reason
"""


def unread(
    con: duckdb.DuckDBPyConnection, period: Period, *, options: tuple[str, ...], top: int
) -> tuple[Section, dict[str, int]]:
    """The sources of the period, the most troubled first, and how many of their lines were rejected, by reason."""
    with lake_errors():
        chosen = {source_id for (source_id,) in con.execute(_SOURCES, period.bounds).fetchall()}
        health = analysis.answer(con, _TOPIC.question).to_arrow_table().to_pylist()
        rejects = dict(con.execute(_REJECTS, {"sources": sorted(chosen)}).fetchall())
    sources = sorted((row for row in health if row["source_id"] in chosen), key=lambda row: -_troubles(row))
    shown = tuple(sources if top < 0 else sources[:top])
    summary = " ".join(_told(sources, rejects)) if sources else ""
    return Section(_TOPIC, shown, len(sources), command(_TOPIC, period, options), summary), rejects


def _troubles(source: Row) -> int:
    return sum(source[name] for name in _TROUBLES)


def _told(sources: list[Row], rejects: Mapping[str, int]) -> Iterator[str]:
    total = {name: sum(source[name] for source in sources) for name in _COUNTS}
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in rejects.items())
    yield f"{total['rejects']:,} of {total['lines']:,} lines could not be read{f' ({reasons})' if reasons else ''}."
    yield f"Of {total['errors']:,} errors the log holds the whole body of {total['whole_bodies']:,};"
    yield f"{total['truncated_bodies']:,} bodies are cut, {total['absent_bodies']:,} absent,"
    yield f"{total['undecodable_bodies']:,} cannot be decoded."
    yield "Each source is counted whole, also where a part of it lies outside the period."
    if unaccounted := sum(not source["is_conserved"] for source in sources):
        yield f"In {unaccounted:,} of the sources lines are unaccounted for: a fault of the ingest."
