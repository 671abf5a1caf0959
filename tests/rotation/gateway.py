"""A gateway that writes its logs line after line until it is ended, and opens them anew when it is told to.

Run as a module: `FOLDER LOG=WAY...`. At SIGUSR1 it opens its logs anew, as nginx does; at SIGTERM it ends and prints
how many lines each log was given.
"""

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.ingest.logs import SECOND, json_line, log

_BLOCK_BYTES: Final = 4096
_FLAGS: Final = {"lines": os.O_APPEND, "blocks": os.O_APPEND, "no append": 0}


@dataclass
class Log:
    """One log; `way` is how it is written: by lines, by blocks that end anywhere, or without append, as shells write.

    What is written without append goes to where the last line ended: a file cut short meanwhile has a hole before it.
    """

    path: Path
    way: str
    lines: int = 0
    _waiting: bytes = b""
    _file: int = -1

    def open(self) -> None:
        """Opens the file that has the name now, once all lines are in the one that had it; no shell does so twice."""
        if self._file >= 0 and self.way == "no append":
            return
        if self._file >= 0:
            self.write(is_all=True)
            os.close(self._file)
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | _FLAGS[self.way], 0o644)

    def add(self) -> None:
        """Logs a request."""
        line = json_line(request_id=f"{self.path.stem}_{self.lines}", msec=SECOND + self.lines / 1000)
        self.lines += 1
        self._waiting += log([line])
        self.write(is_all=self.way != "blocks")

    def write(self, *, is_all: bool) -> None:
        """Writes what is waiting, or the whole blocks of it."""
        size = len(self._waiting) if is_all else len(self._waiting) // _BLOCK_BYTES * _BLOCK_BYTES
        if size:
            os.write(self._file, self._waiting[:size])
            self._waiting = self._waiting[size:]


def _main(folder: Path, ways: dict[str, str]) -> None:
    told: set[int] = set()
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda number, frame: told.add(number))
    logs = [Log(folder / f"{name}.log", way) for name, way in ways.items()]
    for of_name in logs:
        of_name.open()
    print("up", flush=True)  # noqa: T201 - tells that signals are safe
    while signal.SIGTERM not in told:
        if signal.SIGUSR1 in told:
            told.remove(signal.SIGUSR1)
            for of_name in logs:
                of_name.open()
        for of_name in logs:
            of_name.add()
        time.sleep(0.005)
    for of_name in logs:
        of_name.write(is_all=True)
    print(json.dumps({of_name.path.stem: of_name.lines for of_name in logs}), flush=True)  # noqa: T201 - the truth


if __name__ == "__main__":
    _main(Path(sys.argv[1]), dict(argument.split("=") for argument in sys.argv[2:]))
