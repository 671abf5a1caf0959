"""The counting questions a second time, in pandas, so that a wrong query and its test cannot be wrong together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest

from tests.analysis.queries.event_lake import Row, at

_COLUMNS: Final = (
    *("ts", "org_id", "key_id", "key_hash", "caller", "client_ip", "method", "route", "code", "origin"),
    *("gateway_reason", "is_error"),
)


@dataclass(frozen=True)
class Scope:
    """The standard parameters: a period (UTC) and the columns that must have one value."""

    since: datetime | None = None
    until: datetime | None = None
    wanted: Mapping[str, str] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, object]:
        """What the question is asked with."""
        names = {"org_id": "for_org", "caller": "for_key", "code": "for_code", "route": "for_route"}
        return {"since": self.since, "until": self.until} | {names[key]: value for key, value in self.wanted.items()}


SCOPES: Final = (
    pytest.param(Scope(), id="all"),
    pytest.param(Scope(since=at(86_000)), id="since"),
    pytest.param(Scope(until=at(86_400)), id="until"),
    pytest.param(Scope(since=at(86_000), until=at(86_900)), id="period"),
    pytest.param(Scope(since=at(10 * 86_400)), id="after the data"),
    pytest.param(Scope(wanted={"org_id": "org_a"}), id="organisation"),
    pytest.param(Scope(since=at(86_000), wanted={"caller": "key_1", "route": "/v1/messages"}), id="key and route"),
    pytest.param(Scope(wanted={"code": "rate_limited"}), id="code"),
)


def frame_of(events: Sequence[Row]) -> pd.DataFrame:
    """The events as a frame of objects, NaN for what is missing; `key` is key_id or else key_hash."""
    frame = pd.DataFrame([{name: row.get(name) for name in _COLUMNS} for row in events], columns=list(_COLUMNS))
    frame = frame.astype(object).fillna(np.nan)
    return frame.assign(
        ts=pd.to_datetime(frame["ts"], utc=True),
        key=frame["key_id"].where(frame["key_id"].notna(), frame["key_hash"]),
    )


def requests_of(frame: pd.DataFrame, scope: Scope) -> pd.DataFrame:
    """The requests that the denominators count: a code is no property of a request that succeeded."""
    wanted = {column: value for column, value in scope.wanted.items() if column != "code"}
    return _matching(_between(frame, scope.since, scope.until), wanted)


def errors_of(frame: pd.DataFrame, scope: Scope) -> pd.DataFrame:
    """The errors that are counted."""
    return _matching(_between(frame[frame["is_error"].astype(bool)], scope.since, scope.until), scope.wanted)


def counted(
    frame: pd.DataFrame, scope: Scope, by: list[str], distinct: Mapping[str, str], requests_by: list[str] | None = None
) -> list[Row]:
    """One row per group of errors: `by`, the counts, and for each name in `distinct` how many values its column has."""
    errors = errors_of(frame, scope)
    requests = requests_of(frame, scope)
    previous = _previous(frame, scope)
    requests_by = by if requests_by is None else requests_by
    answer = []
    for group, rows in errors.groupby(by, dropna=False):
        names = dict(zip(by, group, strict=True))
        asked = len(_same(requests, {column: names[column] for column in requests_by}))
        before = None if previous is None else len(_same(previous, names))
        answer.append(
            {column: none_if_missing(value) for column, value in names.items()}
            | {
                "errors": len(rows),
                "share": len(rows) / len(errors),
                "requests": asked,
                "rate": len(rows) / asked,
                "first_seen": rows["ts"].min().to_pydatetime(),
                "last_seen": rows["ts"].max().to_pydatetime(),
                "previous_errors": before,
                "change": len(rows) / before - 1 if before else None,
            }
            | {name: rows[column].nunique() for name, column in distinct.items()}
        )
    return answer


def in_order(answer: list[Row], *columns: str) -> list[Row]:
    """Most errors first, then by `columns`, NULL last."""
    return sorted(answer, key=lambda row: (-row["errors"], *((row[name] is None, row[name] or "") for name in columns)))


def none_if_missing(value: Any) -> Any:
    """None for pandas' ways to say NULL."""
    return None if pd.isna(value) else value


def _previous(frame: pd.DataFrame, scope: Scope) -> pd.DataFrame | None:
    if scope.since is None:
        return None
    until = scope.until or max(scope.since, frame["ts"].max().to_pydatetime())
    period = Scope(scope.since - (until - scope.since), scope.since, scope.wanted)
    return errors_of(frame, period)


def _between(frame: pd.DataFrame, since: datetime | None, until: datetime | None) -> pd.DataFrame:
    after = frame if since is None else frame[frame["ts"] >= since]
    return after if until is None else after[after["ts"] < until]


def _matching(frame: pd.DataFrame, wanted: Mapping[str, str]) -> pd.DataFrame:
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return frame


def _same(frame: pd.DataFrame, names: Mapping[str, Any]) -> pd.DataFrame:
    """The rows with exactly these values, a missing one like any other."""
    for column, value in names.items():
        frame = frame[frame[column].isna() if pd.isna(value) else frame[column] == value]
    return frame
