"""What support writes to each affected customer: when it was hit, by what, and what became of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

_SHOWN: Final = 3
_UNITS: Final = (("days", 86_400), ("hours", 3600), ("minutes", 60))


def judge(evidence: pa.Table, parameters: Mapping[str, object]) -> pa.Table:
    """The rows of the macro with a column `note`, a paragraph each."""
    notes = [_note(row, parameters) for row in evidence.to_pylist()]
    return evidence.append_column("note", pa.array(notes, pa.string()))


def _note(row: Mapping[str, Any], parameters: Mapping[str, object]) -> str:
    ids = row["example_request_ids"]
    sentences = (
        f"{_customer(row)}: {row['errors']:,} of {row['requests']:,} requests failed {_window(row, parameters)}, "
        f"answered {_some(row['codes'])}{_places(row)}.",
        _times(row),
        _outcome(row),
        _recovery(row),
        _doubt(row),
        "These are faults of the platform, not of the client." if parameters["for_fault"] == "platform" else "",
        f"Example request ids: {', '.join(ids)}." if ids else "",
    )
    return " ".join(filter(None, sentences))


def _customer(row: Mapping[str, Any]) -> str:
    if row["org_id"] is not None:
        return f"Organisation {row['org_id']}"
    return (
        "Traffic without organisation and key" if row["key"] is None else f"Key {row['key']} of no known organisation"
    )


def _window(row: Mapping[str, Any], parameters: Mapping[str, object]) -> str:
    since, until = parameters["since"], parameters["until"]
    if since is not None and until is not None:
        return f"from {_moment(since)} to {_moment(until)}"
    if since is not None:
        return f"since {_moment(since)}"
    return f"before {_moment(until)}" if until is not None else f"up to {_moment(row['data_through'])}"


def _places(row: Mapping[str, Any]) -> str:
    routes = f", {_some([f'on {route}' for route in row['routes']])}" if row["routes"] else ""
    keys = len(row["affected_keys"] or ())
    return f"{routes}, with {keys:,} keys" if keys > 1 else routes


def _times(row: Mapping[str, Any]) -> str:
    first, last = _moment(row["first_error_at"]), _moment(row["last_error_at"])
    return f"That was at {first}." if first == last else f"The first error was at {first}, the last at {last}."


def _outcome(row: Mapping[str, Any]) -> str:
    failed, recovered, never = (row[f"intents_{name}"] for name in ("failed", "later_succeeded", "never_succeeded"))
    by_then = f"by {_moment(row['data_through'])}"
    if not failed:
        return "The log does not say who sent them, so that nothing is known of later attempts."
    if failed == 1:
        return f"What was attempted {'succeeded later' if recovered else f'had not succeeded {by_then}'}."
    if not recovered:
        return f"None of the {failed:,} things attempted had succeeded {by_then}."
    if recovered == failed:
        return f"All {failed:,} things attempted succeeded later."
    return f"Of the {failed:,} things attempted, {recovered:,} succeeded later and {never:,} had not {by_then}."


def _recovery(row: Mapping[str, Any]) -> str:
    recovered = row["intents_later_succeeded"]
    if not recovered:
        return ""
    longest = _duration(row["max_recovery_s"])
    if recovered == 1:
        return f"That took {longest}."
    return f"That took {_duration(row['median_recovery_s'])} in the median and {longest} at most."


def _doubt(row: Mapping[str, Any]) -> str:
    if row["intent_confidence"] != "low":
        return ""
    return (
        "Without an Idempotency-Key a retry cannot be told from a new request: failures that followed one another on "
        "a path count as one thing, so more may be lost."
    )


def _some(most_first: Sequence[str]) -> str:
    return ("mostly " if len(most_first) > _SHOWN else "") + ", ".join(most_first[:_SHOWN])


def _moment(moment: object) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _duration(seconds: float) -> str:
    unit, size = next(((unit, size) for unit, size in _UNITS if seconds >= 2 * size), ("s", 1))
    return f"{seconds / size:.1f} {unit}"
