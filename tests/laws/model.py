"""What a lake should hold after all that was done to its logs and to itself, in plain Python.

Knows lines, contents and days. Knows nothing of fingerprints, files or commits. Where nobody could tell whether a
content is a log of its own, it says what is the least and the most that a lake may hold, and takes over what it does.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Final, Literal

from tests.ingest.logs import SECOND, json_line
from tests.ingest.logs import Row as LakeRow

Kind = Literal["ok", "error", "reject", "skipped"]
FIRST_DAY: Final = date(2026, 11, 23)
FORGOTTEN: Final = "[forgotten]"
_DAY_S: Final = 86_400
_BYTES: Final = 1000
_JUNK: Final = b'{"cut": "'


@dataclass(frozen=True)
class Shape:
    """What kind of line to write; `mentions` is an organisation that its client names, beside its own."""

    kind: Kind = "ok"
    has_id: bool = True
    org: str = "org_1"
    key: str = "key_1"
    mentions: str = ""
    days_ago: int = 0


@dataclass(frozen=True)
class Row:
    """What a lake shows of a line; the number is in the size of the response, or of the rejected line."""

    number: int
    kind: Kind
    day: date
    request_id: str | None = None
    org_id: str | None = None
    key_id: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True)
class Line:
    """A line that no other is like, without its end."""

    number: int
    shape: Shape

    @property
    def is_request(self) -> bool:
        """Whether it becomes a row of requests."""
        return self.shape.kind in {"ok", "error"}

    @property
    def has_id(self) -> bool:
        """Whether it can be told from another by its request id."""
        return self.is_request and self.shape.has_id

    def text(self) -> bytes:
        """The line as a gateway writes it."""
        if self.shape.kind == "reject":
            return _JUNK + b"x" * self.number
        if self.shape.kind == "skipped":
            return f"# {self.number}".encode()
        envelope = {"object": "error", "code": "not_found", "message": "No such thing.", "request_id": self._id()}
        is_error = self.shape.kind == "error"
        return json_line(
            request_id=self._id() or ...,
            msec=SECOND - self.shape.days_ago * _DAY_S + self.number / 1000,
            org_id=self.shape.org,
            key_id=self.shape.key,
            status=404 if is_error else 201,
            bytes_sent=_BYTES + self.number,
            user_agent=self._user_agent(),
            resp_body=json.dumps(envelope) if is_error else "",
        )

    def row(self, today: date) -> Row:
        """What a lake shows of it that read it on the day `today`."""
        if not self.is_request:
            return Row(self.number, self.shape.kind, today)
        day = FIRST_DAY - timedelta(days=self.shape.days_ago)
        return Row(
            self.number, self.shape.kind, day, self._id(), self.shape.org, self.shape.key, self._user_agent()
        )  # fmt: skip

    def _id(self) -> str | None:
        return f"req_{self.number}" if self.shape.has_id else None

    def _user_agent(self) -> str:
        return f"sdk ({self.shape.mentions})" if self.shape.mentions else "sdk"


def row_of(found: LakeRow) -> Row:
    """A row of requests or rejects as it was found in a lake."""
    if found["kind"] == "reject":
        return Row(found["byte_length"] - len(_JUNK), "reject", found["day"])
    number = found["response_bytes"] - _BYTES
    names = ("kind", "day", "request_id", "org_id", "key_id", "user_agent")
    return Row(number, *(found[name] for name in names))


@dataclass
class Log:
    """A content that was read: how it began when it was first seen, and what was read of it.

    It is certain where no other content could be taken for it.
    """

    head: bytes
    content: bytes
    is_certain: bool = True

    @property
    def source_id(self) -> str:
        """What the ledger calls it."""
        return hashlib.sha256(self.head).hexdigest()[:16]


@dataclass
class Model:
    """The lines that were ever written, the logs that were read, and how often a lake must and may hold each row."""

    head_bytes: int
    lines: dict[bytes, Line] = field(default_factory=dict)
    logs: list[Log] = field(default_factory=list)
    least: Counter[Row] = field(default_factory=Counter)
    most: Counter[Row] = field(default_factory=Counter)
    was_held: set[int] = field(default_factory=set)

    def write(self, shape: Shape) -> bytes:
        """A new line of `shape`, with its end."""
        line = Line(len(self.lines) + 1, shape)
        self.lines[line.text()] = line
        return line.text() + b"\n"

    def ingest(self, contents: Iterable[bytes], today: date) -> None:
        """Reads logs, each with all that it holds."""
        for content in contents:
            if whole := self._whole(content):
                self._read(content, whole, today)

    def _whole(self, content: bytes) -> bytes:
        """`content` without a last line that may still grow: JSON says where it ends."""
        end = content.rfind(b"\n") + 1
        last = self.lines.get(content[end:])
        return content if last and last.is_request else content[:end]

    def _read(self, content: bytes, whole: bytes, today: date) -> None:
        akin = [log for log in self.logs if log.head.startswith(content) or content.startswith(log.head)]
        if not akin:
            self.logs.append(Log(content[: self.head_bytes], whole))
            self._add(whole, today)
        elif len(akin) == 1 and _is_same(akin[0], content, whole):
            [log] = akin
            self._add(whole[len(log.content) :], today)
            log.content = max(log.content, whole, key=len)
        else:
            for log in akin:
                log.is_certain = False
            # It may pass for an older copy of one that is longer.
            is_bound = not any(content.startswith(log.head) and len(whole) < len(log.content) for log in akin)
            self.logs.append(Log(content[: self.head_bytes], whole, is_certain=False))
            self._add_again(whole, today, is_bound=is_bound)

    def lines_of(self, content: bytes) -> Iterator[Line]:
        """The lines of `content`, in their order."""
        return (self.lines[text] for text in content.split(b"\n") if text)

    def _add(self, content: bytes, today: date) -> None:
        """Adds the lines of a log that was not read before."""
        for line in self.lines_of(content):
            row = line.row(today)
            if line.has_id:
                if not self._holds(line):
                    self.least[row] = self.most[row] = 1
            elif line.shape.kind != "skipped":
                self.least[row] += 1
                self.most[row] += 1

    def _add_again(self, content: bytes, today: date, *, is_bound: bool) -> None:
        """Adds lines that may have been read before, or in another log; none is lost where the lake `is_bound` to see
        that there is something new in it.
        """
        for line in self.lines_of(content):
            row = line.row(today)
            must_be = is_bound and line.number not in self.was_held
            if line.has_id:
                if not self._holds(line):
                    self.least[row], self.most[row] = int(must_be), 1
            elif line.shape.kind != "skipped":
                self.least[row] = max(self.least[row], int(must_be))
                self.most[row] += 1

    def _holds(self, line: Line) -> bool:
        return any(row.number == line.number for row in +self.least)

    def expire(self, kinds: set[str], first_kept: date) -> None:
        """Removes the rows of `kinds` before a day."""
        self._keep(lambda row: row if row.kind not in kinds or row.day >= first_kept else None)

    def forget(self, value: str) -> None:
        """Removes the rows of an organisation or a key, and masks it where others mention it."""

        def forgotten(row: Row) -> Row | None:
            agent = row.user_agent and row.user_agent.replace(value, FORGOTTEN)
            return None if value in {row.org_id, row.key_id} else replace(row, user_agent=agent)

        self._keep(forgotten)

    def _keep(self, kept: Callable[[Row], Row | None]) -> None:
        for counts in (self.least, self.most):
            rows = [(kept(row), count) for row, count in counts.items()]
            counts.clear()
            for row, count in rows:
                if row:
                    counts[row] += count

    def settle(self, found: Counter[Row]) -> None:
        """Takes over what a lake holds, of what it may hold."""
        self.least, self.most = found.copy(), found.copy()
        self.was_held |= {row.number for row in found}


def _is_same(log: Log, content: bytes, whole: bytes) -> bool:
    """Whether `content` is beyond doubt a copy of `log`, older or newer."""
    is_akin = whole.startswith(log.content) or log.content.startswith(whole)
    return log.is_certain and content.startswith(log.head) and is_akin
