"""Writes the log of a gateway over several days, with planted behaviour, and the truth about it.

    python -m benchmarks.generate_logs --out DIR --seed 7 --days 5

The same arguments give the same bytes. Memory grows with the number of customers, not with the length of the log.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any, Final

import click

from benchmarks.traffic import (
    accounts,
    credentials,
    everyday,
    leaks,
    limits,
    misuse,
    near_misses,
    regressions,
    strangers,
    tempers,
    trouble,
)
from benchmarks.traffic.access_log import Write, file_name, line_of, opened
from benchmarks.traffic.clock import DAY, HOUR, SECOND, Window, day_of, iso
from benchmarks.traffic.leaks import Interruption, interruptions
from benchmarks.traffic.simulation import Reply
from benchmarks.traffic.stage import Stage
from benchmarks.traffic.truth import Truth, truth_line

SCENES: Final = (*everyday.SCENES, *trouble.SCENES, *credentials.SCENES, *misuse.SCENES, *leaks.SCENES)
# What judges are tried on besides. The sample logs do without: they are there to be read, and small.
MORE_SCENES: Final = (
    *tempers.SCENES,
    *limits.SCENES,
    *accounts.SCENES,
    *strangers.SCENES,
    *regressions.SCENES,
    *near_misses.SCENES,
)
STORIES: Final = {"sample": SCENES, "full": (*SCENES, *MORE_SCENES)}
# logrotate comes a little after midnight, so a file starts with the last lines of the day before.
ROTATION_MS: Final = 7 * SECOND
SKIPPED: Final = "blank"


@dataclass(frozen=True)
class Plan:
    """What to generate: days from `first_day`, the last of them of `last_day_hours`, with `scale` times the customers.

    `story` is sample, what sample_logs tell, or full: more behaviour, its rates and hours drawn from the seed, more
    that only looks bad, and a truth that tells of each request in full.

    The planted behaviour needs five days and a Friday to begin with; days beyond them bring nothing new.
    """

    seed: int = 7
    first_day: date = date(2026, 11, 13)
    days: int = 5
    last_day_hours: float = 24.0
    scale: float = 1.0
    story: str = "sample"

    @property
    def window(self) -> Window:
        """From the first midnight to the end."""
        start_ms = int(datetime.combine(self.first_day, time(), UTC).timestamp()) * SECOND
        return Window(start_ms, start_ms + (self.days - 1) * DAY + int(self.last_day_hours * HOUR))


def generate(folder: Path, plan: Plan) -> dict[str, Any]:
    """Write the log of `plan`, its truth and its planted strings to `folder`, and return what truth.json says.

    Files: access.json.log and its rotated predecessors, truth.ndjson.gz (a request a line, in the order of the log),
    truth.json (counts and incidents) and planted.json (strings in the log that nobody may store).
    """
    folder.mkdir(parents=True, exist_ok=True)
    stage = Stage(plan.seed, plan.window, plan.scale)
    for scene in STORIES[plan.story]:
        scene(stage)
    truth, files = Truth(stage.incidents), LogFiles(folder, plan)
    with opened(folder / "truth.ndjson.gz") as write_truth, files:
        for entry in with_interruptions(stage.sim.run(), interruptions(stage)):
            if isinstance(entry, Interruption):
                files.write(entry.moment_ms, entry.line, entry.kind)
                truth.private.update(entry.private)
            else:
                files.write(entry.end_ms, line_of(entry), "request")
                write_truth(truth_line(entry, in_full=plan.story == "full") + b"\n")
                truth.count(entry)
    kinds = sum((Counter(file) for file in files.kinds.values()), Counter[str]())
    told = {
        "seed": plan.seed,
        "days": plan.days,
        "scale": plan.scale,
        "start": iso(plan.window.start_ms),
        "end": iso(plan.window.end_ms),
        **conserved(kinds),
        "kinds_of_lines": dict(sorted(kinds.items())),
        "files": {name: conserved(kinds_of_file) for name, kinds_of_file in files.kinds.items()},
        **truth.as_json(),
    }
    write_json(folder / "truth.json", told)
    write_json(folder / "planted.json", sorted(truth.private))
    return told


def with_interruptions(replies: Iterator[Reply], others: list[Interruption]) -> Iterator[Reply | Interruption]:
    """Both in the order of time."""
    waiting = iter(others)
    other = next(waiting, None)
    for reply in replies:
        while other is not None and other.moment_ms <= reply.end_ms:
            yield other
            other = next(waiting, None)
        yield reply


class LogFiles:
    """The day's file that is being written, and what kinds of lines went into each."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.kinds: dict[str, Counter[str]] = {}
        self._folder = folder
        self._plan = plan
        self._day = -1
        self._until_ms = 0
        self._write: Write
        self._counted: Counter[str]
        self._open_file = ExitStack()

    def __enter__(self) -> "LogFiles":
        return self

    def __exit__(self, *_error: object) -> None:
        self._open_file.close()

    def write(self, moment_ms: int, line: bytes, kind: str) -> None:
        """Append a line to the file that is open at the moment; moments never go back."""
        if moment_ms >= self._until_ms and self._day < self._plan.days - 1:
            self._rotate(moment_ms)
        self._write(line + b"\n")
        self._counted[kind] += 1

    def _rotate(self, moment_ms: int) -> None:
        start_ms = self._plan.window.start_ms
        self._day = min((moment_ms - ROTATION_MS - start_ms) // DAY if self._day >= 0 else 0, self._plan.days - 1)
        self._until_ms = start_ms + (self._day + 1) * DAY + ROTATION_MS
        name = file_name(self._day, self._plan.days, day_of(start_ms + self._day * DAY))
        self._counted = self.kinds.setdefault(name, Counter())
        self._open_file.close()
        self._write = self._open_file.enter_context(opened(self._folder / name))


def conserved(kinds: Counter[str]) -> dict[str, int]:
    """Lines = requests + rejects + skipped."""
    lines, requests, skipped = kinds.total(), kinds["request"], kinds[SKIPPED]
    return {"lines": lines, "requests": requests, "rejects": lines - requests - skipped, "skipped": skipped}


def write_json(path: Path, value: object) -> None:
    """JSON for people, a line a value."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write to.")
@click.option("--seed", default=Plan.seed, show_default=True, help="Another seed is another world.")
@click.option("--first-day", type=click.DateTime(["%Y-%m-%d"]), default=Plan.first_day.isoformat(), show_default=True)
@click.option("--days", type=click.IntRange(min=1), default=Plan.days, show_default=True)
@click.option(
    "--last-day-hours", type=click.FloatRange(0, 24, min_open=True), default=Plan.last_day_hours, show_default=True
)
@click.option(
    "--scale", type=click.FloatRange(min=0), default=Plan.scale, show_default=True, help="Times the customers."
)
@click.option("--story", type=click.Choice(tuple(STORIES)), default=Plan.story, show_default=True)
def main(out: Path, seed: int, first_day: datetime, days: int, last_day_hours: float, scale: float, story: str) -> None:
    told = generate(out, Plan(seed, first_day.date(), days, last_day_hours, scale, story))
    click.echo(f"{told['lines']} lines, {told['requests']} requests, {told['errors']} errors in {out}", err=True)


if __name__ == "__main__":
    main()
