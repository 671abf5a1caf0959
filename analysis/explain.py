"""The story of one request: what it was answered, what that means, and what its caller did around it.

Knows the attempts of one intent: requests of one caller with one method, route and idempotency key or, where the log
has no key, path. Knows nothing of how often such a thing happens: that is what the questions are for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import duckdb

from analysis.damage import lake_errors
from analysis.output import cell_text, inert, python_values
from ingest.schema import BadInput

# Retry-After counts whole seconds and clocks differ: a client this much early still honoured it.
RETRY_AFTER_TOLERANCE_S: Final = 0.25

_CHAIN_GAP_S: Final = 300.0
_NEIGHBOURS: Final = 1000
_SHOWN: Final = 5
_IDEMPOTENT_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})

_FOUND: Final = "FROM requests WHERE kind = $kind AND request_id = $request_id ORDER BY ts, source_id, line"
# Plain comparisons, not `caller = `, which is computed: Parquet's statistics and bloom filters then skip row groups.
_SAME_CALLER: Final = {
    "key_id": "key_id = $caller",
    "key_hash": "key_hash = $caller AND key_id IS NULL",
    "client_ip": "client_ip = $caller AND key_id IS NULL AND key_hash IS NULL",
}
_SAME_INTENT: Final = """
SELECT ts, request_id, status, code, is_error, retry_after_s, latency_ms, source_id, line
FROM requests
WHERE {same_caller}
  AND method IS NOT DISTINCT FROM $method
  AND route IS NOT DISTINCT FROM $route
  AND idempotency_hash IS NOT DISTINCT FROM $idempotency_hash
  AND ($idempotency_hash IS NOT NULL OR path IS NOT DISTINCT FROM $path)
"""
_PLACE: Final = "($ts::TIMESTAMPTZ, $source_id, $line)"
_UP_TO: Final = f"AND day >= $day - 1 AND ts >= $ts - INTERVAL 1 DAY AND (ts, source_id, line) <= {_PLACE}"
_LATER: Final = f"AND day >= $day AND (ts, source_id, line) > {_PLACE}"
_AFTER: Final = f"{_LATER} AND day <= $day + 1 AND ts <= $ts + INTERVAL 1 DAY"
_ATTEMPTS: Final = f"""
FROM (
    ({_SAME_INTENT} {_UP_TO} ORDER BY ts DESC, source_id DESC, line DESC LIMIT {_NEIGHBOURS})
    UNION ALL
    ({_SAME_INTENT} {_AFTER} ORDER BY ts, source_id, line LIMIT {_NEIGHBOURS})
)
ORDER BY ts, source_id, line
"""
_FIRST_SUCCESS: Final = f"{_SAME_INTENT} {_LATER} AND NOT is_error ORDER BY ts, source_id, line LIMIT 1"


@dataclass(frozen=True)
class Attempt:
    """One try of an intent. `gap_s` runs from the end of the attempt before it to the start of this one."""

    request_id: str | None
    started: datetime
    ended: datetime
    status: int
    code: str | None
    is_error: bool
    retry_after_s: float | None
    gap_s: float | None


@dataclass(frozen=True)
class Explanation:
    """What the lake knows about one request.

    `request` has the columns of the view, `meaning` those of the catalogue, None for a code that it does not hold.
    `rows_with_this_id` counts errors, or successes where no error has the id.
    `attempts` are those of the same intent in the day before and the day after, at most 1,000 each way, oldest first;
    the request itself is attempts[position]. The slice `chain` of them are the tries that belong together: each but the
    last failed, and the next came within 300 s or four times its Retry-After. `success` is the first later attempt that
    succeeded, however much later.
    """

    request: dict[str, Any]
    rows_with_this_id: int
    meaning: dict[str, Any] | None
    attempts: tuple[Attempt, ...]
    position: int
    chain: tuple[int, int]
    success: Attempt | None
    data_through: datetime | None

    @property
    def intent_confidence(self) -> str:
        """How surely the attempts want the same thing: high with an idempotency key, low for a POST without one."""
        if self.request["idempotency_hash"] is not None:
            return "high"
        return "medium" if self.request["method"] in _IDEMPOTENT_METHODS else "low"

    @property
    def waited_s(self) -> float | None:
        """Seconds from the answer to the start of the next attempt that knew it; None if none came within a day."""
        answered = self.request["ts"]
        later = (attempt.started for attempt in self.attempts[self.position + 1 :] if attempt.started >= answered)
        first = min(later, default=None)
        return None if first is None else float((first - answered).total_seconds())

    @property
    def is_retry_after_honoured(self) -> bool | None:
        """Did the caller wait as long as it was asked to? None where it was not asked, or did not come back."""
        asked, waited = self.request["retry_after_s"], self.waited_s
        return None if asked is None or waited is None else waited >= asked - RETRY_AFTER_TOLERANCE_S


def explain(con: duckdb.DuckDBPyConnection, request_id: str) -> Explanation:
    """What the lake knows about the request `request_id`; where several rows have that id, about the first error.

    Raises BadInput where no row has it.
    """
    with lake_errors():
        # A success is looked for only where no error has the id: there are some twenty times as many to read.
        found = _rows(con, _FOUND, kind="error", request_id=request_id)
        found = found or _rows(con, _FOUND, kind="ok", request_id=request_id)
        if not found:
            raise BadInput(f'no request in the lake has the id {request_id!r}; ids are in: errata sql "FROM errors"')
        request = found[0]
        meaning = _rows(con, "FROM catalogue WHERE code = $code", code=request["code"])
        data_through = _rows(con, "SELECT data_through() AS data_through")[0]["data_through"]
        rows = _same_intent(con, request, _ATTEMPTS) or [request]
        position = next(number for number, row in enumerate(rows) if _place(row) == _place(request))
        later_successes = [row for row in rows[position + 1 :] if not row["is_error"]]
        later_successes = later_successes or _same_intent(con, request, _FIRST_SUCCESS)
    attempts = tuple(_attempts(rows))
    return Explanation(
        request=request,
        rows_with_this_id=len(found),
        meaning=meaning[0] if meaning else None,
        attempts=attempts,
        position=position,
        chain=_chain(attempts, position),
        success=next(_attempts(later_successes), None),
        data_through=data_through,
    )


def story(explanation: Explanation) -> str:
    """The explanation as text for a person, a paragraph per matter."""
    paragraphs = (_request(explanation), _meaning(explanation), _caller(explanation))
    return "\n".join("".join(f"{inert(line)}\n" for line in paragraph) for paragraph in paragraphs)


def _rows(con: duckdb.DuckDBPyConnection, sql: str, **parameters: object) -> list[dict[str, Any]]:
    table = con.sql(sql, params=parameters).to_arrow_table()
    return [
        dict(zip(table.column_names, row, strict=True)) for row in zip(*map(python_values, table.columns), strict=True)
    ]


def _same_intent(con: duckdb.DuckDBPyConnection, request: dict[str, Any], sql: str) -> list[dict[str, Any]]:
    """The rows that `sql` finds with the intent of `request`; none where the log does not say who called."""
    known_by = next((name for name in _SAME_CALLER if request[name] is not None), None)
    if known_by is None:
        return []
    names = ("caller", "method", "route", "path", "idempotency_hash", "day", "ts", "source_id", "line")
    return _rows(con, sql.format(same_caller=_SAME_CALLER[known_by]), **{name: request[name] for name in names})


def _place(row: dict[str, Any]) -> tuple[object, object]:
    return row["source_id"], row["line"]


def _attempts(rows: list[dict[str, Any]]) -> Iterator[Attempt]:
    ended_before: datetime | None = None
    for row in rows:
        started = row["ts"] - timedelta(milliseconds=row["latency_ms"] or 0)
        yield Attempt(
            request_id=row["request_id"],
            started=started,
            ended=row["ts"],
            status=row["status"],
            code=row["code"],
            is_error=row["is_error"],
            retry_after_s=row["retry_after_s"],
            gap_s=None if ended_before is None else (started - ended_before).total_seconds(),
        )
        ended_before = row["ts"]


def _chain(attempts: tuple[Attempt, ...], position: int) -> tuple[int, int]:
    """The slice of `attempts` that one failure led to the next in, around `position`."""
    first, last = position, position
    while first > 0 and _leads_to(attempts[first - 1], attempts[first]):
        first -= 1
    while last + 1 < len(attempts) and _leads_to(attempts[last], attempts[last + 1]):
        last += 1
    return first, last + 1


def _leads_to(attempt: Attempt, following: Attempt) -> bool:
    longest = max(_CHAIN_GAP_S, 4 * (attempt.retry_after_s or 0))
    return attempt.is_error and following.gap_s is not None and following.gap_s <= longest


def _request(explanation: Explanation) -> Iterator[str]:
    row = explanation.request
    took = "" if row["latency_ms"] is None else f" after {row['latency_ms']:g} ms"
    yield f"{row['request_id']}: {_asked(row)} was answered {_answer(row)} at {cell_text(row['ts'])}{took}"
    names = (row[name] for name in ("org_id", "caller", "client_ip", "user_agent"))
    by = ", ".join(dict.fromkeys(str(name) for name in names if name is not None))
    yield f"  by {by or 'a caller that the log does not name'}"
    yield f"  read from line {row['line']} of source {row['source_id']} ({row['gateway'] or 'unknown gateway'})"
    if explanation.rows_with_this_id > 1:
        yield f"  {explanation.rows_with_this_id} requests have this id; this is the first"


def _meaning(explanation: Explanation) -> Iterator[str]:
    row, meaning = explanation.request, explanation.meaning
    yield "What it means"
    if not row["is_error"]:
        yield "  The request succeeded."
    elif meaning is not None:
        retry = (
            "a retry may succeed" if meaning["is_retryable"] else "a retry of the unchanged request will not succeed"
        )
        yield f"  {meaning['meaning']} ({meaning['category']}; {retry})"
    elif row["code"] is not None:
        yield f"  The catalogue does not hold the code {row['code']}."
    elif row["gateway_reason"] is not None:
        yield f"  The gateway answered itself: {row['gateway_reason']}."
    else:
        yield f"  The log holds no error code for it (body {row['body_state'] or 'not logged'})."
    if row["message"] is not None:
        yield f"  Message: {row['message']}"
    for detail in row["details"] or ():
        yield f"  {detail['field']}: {detail['issue']}"
    if meaning is not None:
        yield f"What to do ({meaning['owner']} acts)"
        yield f"  {meaning['client_action']}"


def _caller(explanation: Explanation) -> Iterator[str]:
    row, attempts, position = explanation.request, explanation.attempts, explanation.position
    yield "What its caller did"
    if row["caller"] is None:
        yield "  The log does not say who called."
        return
    same = "with one Idempotency-Key" if row["idempotency_hash"] is not None else f"at {_asked(row)}"
    first, end = explanation.chain
    if end - first > 1:
        yield f"  Attempt {position - first + 1} of {end - first} {same}, each after a failure."
    else:
        yield f"  A single attempt {same}."
    if explanation.intent_confidence == "low" and len(attempts) > 1:
        yield "  Without an Idempotency-Key in the log, these may be different things that the caller wanted."
    shown = range(max(0, position - _SHOWN), min(len(attempts), position + _SHOWN + 1))
    for number in shown:
        yield f"  {'>' if number == position else ' '} {_told(attempts[number])}"
    yield from (f"  {sentence}" for sentence in _outcome(explanation))


def _outcome(explanation: Explanation) -> Iterator[str]:
    row, success, waited = explanation.request, explanation.success, explanation.waited_s
    if row["retry_after_s"] is not None:
        asked = f"It was asked to wait {row['retry_after_s']:g} s"
        if waited is None:
            yield f"{asked} and did not come back within a day."
        else:
            verdict = "honoured" if explanation.is_retry_after_honoured else "not honoured"
            yield f"{asked} and came back after {waited:g} s: Retry-After {verdict}."
    if not row["is_error"]:
        return
    who = "Some attempt" if explanation.intent_confidence == "low" else "It"
    if success is not None:
        seconds = (success.ended - row["ts"]).total_seconds()
        yield f"{who} succeeded {seconds:g} s later, at {cell_text(success.ended)} ({success.request_id})."
    else:
        through = explanation.data_through
        yield "None has succeeded since" + (f" (data through {cell_text(through)})." if through else ".")


def _told(attempt: Attempt) -> str:
    code = "" if attempt.code is None else f" {attempt.code}"
    told = f"{cell_text(attempt.ended)}  {attempt.status}{code}  {attempt.request_id or '(no id)'}"
    if attempt.gap_s is None:
        return told
    return told + (f"  {attempt.gap_s:g} s after the one before" if attempt.gap_s >= 0 else "  sent before that answer")


def _asked(row: dict[str, Any]) -> str:
    return f"{row['method'] or 'a request'} {row['path'] or row['route'] or ''}".strip()


def _answer(row: dict[str, Any]) -> str:
    return f"{row['status']}" + (f" {row['code']}" if row["code"] is not None else "")
