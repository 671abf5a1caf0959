"""Commands of errata in processes of their own, with the imports behind them: a round costs a fourth of the time.

One process imports everything and runs nothing; it forks a process for each command. Run as a module it is that one.
"""

import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Final

import pytest

import errata
from ingest import run
from ingest.formats import formats

_ROOT: Final = Path(__file__).parents[2]

Fault = tuple[str, str, str, int, int]
"""What `arm_faults` of `faults.c` is given: folder, log, calls, number and error."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, minus the signal where one killed it, and what it said."""

    code: int
    said: str


class Running:
    """A command that was started and may be killed."""

    def __init__(self, server: "Warm", pid: int, said: Path) -> None:
        self._server, self._said = server, said
        self._process = os.pidfd_open(pid)

    def has_ended(self, within_s: float = 0) -> bool:
        """Whether it ends within some seconds, for which this waits at most."""
        return bool(select.select([self._process], [], [], within_s)[0])

    def kill(self) -> None:
        """Ends it at once, and leaves it no time to clean up; nothing happens where it has ended."""
        signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def wait(self) -> Ended:
        """How it ended, once it has."""
        os.close(self._process)
        return Ended(int(self._server.asked("")), self._said.read_text(errors="replace"))


class Warm:
    """Starts commands, one after the other; `folder` is for what they say."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._to: IO[str] = process.stdin
        self._from: IO[str] = process.stdout
        self._said = folder / f"said by {process.pid}"

    def start(
        self,
        *arguments: object,
        fault: Fault | None = None,
        memory_mib: int | None = None,
        sources_a_commit: int = 1000,
    ) -> Running:
        """`errata ARGUMENTS` as it runs; with a `fault` in it where `faults.c` is preloaded, and with no more than so
        much memory besides what its imports take.
        """
        job = {
            "arguments": [str(argument) for argument in arguments],
            "said": str(self._said),
            "fault": fault,
            "memory_mib": memory_mib,
            "sources_a_commit": sources_a_commit,
        }
        return Running(self, int(self.asked(json.dumps(job))), self._said)

    def run(self, *arguments: object, fault: Fault | None = None, memory_mib: int | None = None) -> Ended:
        """How `errata ARGUMENTS` ended."""
        return self.start(*arguments, fault=fault, memory_mib=memory_mib).wait()

    def asked(self, line: str) -> str:
        """The answer of the process to `line`."""
        self._to.write(line + "\n")
        self._to.flush()
        return self._from.readline()


@contextmanager
def warm(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Warm]:
    """A process that starts commands; `environment` is added to that of this process."""
    with subprocess.Popen(
        [sys.executable, "-m", __name__],
        cwd=_ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Warm(process, folder)


def _serve() -> None:
    """Forks a process for every line of standard input that holds a job, and tells its pid and then its exit code."""
    for module in ("analysis.cli", "analysis.lake", "ingest.cli", "ingest.maintain_cli"):
        import_module(module)
    formats()
    while line := sys.stdin.readline():
        pid = os.fork()
        if not pid:
            _run(json.loads(line))
        print(pid, flush=True)  # noqa: T201 - the answer
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)  # noqa: T201 - the answer


def _run(job: dict[str, Any]) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    said = os.open(job["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    if job["fault"]:
        arm = ctypes.CDLL(None).arm_faults
        arm.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_long, ctypes.c_int]
        arm(*(part.encode() if isinstance(part, str) else part for part in job["fault"]))
    if job["memory_mib"]:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + (job["memory_mib"] << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    code = 1
    try:
        pytest.MonkeyPatch().setattr(run, "_SOURCES_A_COMMIT", job["sources_a_commit"])
        sys.argv = ["errata", *job["arguments"]]
        errata.main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
