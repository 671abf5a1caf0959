"""Logs that grow and rotate as gateways' do, with the truth of what was written."""

import gzip
import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from tests.ingest.logs import json_line, log

_OLD: Final = timedelta(days=3)


@dataclass
class Growing:
    """Logs in `folder`; `written` has the request ids of all whole lines by log, in their order.

    A log is named by the ids in it, `LOG_NUMBER`, and not by its file, which rotates. Requests are of today or of
    three days ago; `expiring` are the successes among these, which a retention of fewer days takes.
    """

    folder: Path
    chance: random.Random
    written: dict[str, list[str]] = field(default_factory=dict)
    expiring: set[str] = field(default_factory=set)
    _files: dict[str, Path] = field(default_factory=dict)
    _unended: dict[str, tuple[bytes, str]] = field(default_factory=dict)

    def grow(self, logs: int = 3) -> None:
        """Adds lines to some `logs` logs; now and then one is new, has a last line without its end, or rotates away."""
        for _ in range(logs):
            name = self.chance.choice([*self._files, *[""] * (len(self._files) < 4)]) or self._begin()
            self._complete(name)
            for _ in range(self.chance.randrange(1, 12)):
                self._append(name, self._line(name))
            if self.chance.random() < 0.25:
                line = self._line(name)
                cut = self.chance.randrange(1, len(line))
                self._append(name, line[:cut])
                self._unended[name] = line[cut:], self.written[name].pop()
            elif self.chance.random() < 0.1:
                self._rotate(name)

    def finish(self) -> None:
        """Gives every line its end."""
        for name in list(self._unended):
            self._complete(name)

    def kept(self) -> dict[str, list[str]]:
        """What of `written` no retention takes."""
        return {name: [id_ for id_ in ids if id_ not in self.expiring] for name, ids in self.written.items()}

    def _complete(self, name: str) -> None:
        rest, id_ = self._unended.pop(name, (b"", ""))
        self._append(name, rest)
        self.written[name] += [id_] if id_ else []

    def _append(self, name: str, data: bytes) -> None:
        with self._files[name].open("ab") as file:
            file.write(data)

    def _begin(self) -> str:
        name = f"log{len(self.written)}"
        self.written[name] = []
        self._files[name] = self.folder / f"{name}.log"
        return name

    def _line(self, name: str) -> bytes:
        """The next line of a log, now and then behind one that is to be rejected."""
        id_ = f"{name}_{len(self.written[name])}"
        self.written[name].append(id_)
        is_error, is_old = self.chance.random() < 0.2, self.chance.random() < 0.3
        if is_old and not is_error:
            self.expiring.add(id_)
        msec = (datetime.now(UTC) - (_OLD if is_old else timedelta())).timestamp()
        body = json.dumps({"object": "error", "code": "rate_limited", "message": "slow down", "request_id": id_})
        failure = {"status": 429, "upstream_status": "429", "resp_body": body} if is_error else {}
        refused = [b"{"] if len(self.written[name]) > 1 and self.chance.random() < 0.1 else []
        return log([*refused, json_line(msec=msec, request_id=id_, **failure)])

    def _rotate(self, name: str) -> None:
        """Packs a log that grows no more, as logrotate does."""
        file = self._files.pop(name)
        packed = file.with_name(f"{file.name}.1.gz")
        packed.write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
