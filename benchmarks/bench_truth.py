"""Scores every verdict of errata by precision and recall, beside what somebody would find who has no such question.

    python -m benchmarks.bench_truth [--seeds 7,8,9] [--days 5] [--capture DIR] [--json]

Each seed is a log of the generator's full story, ingested and asked as anybody would, and scored by what was planted. A
capture is a folder with access.json.log.gz, truth.ndjson.gz and summary.json, as sample_logs/capture.

expected: what should be said. found: what was said; rows that say one thing of one subject in one incident count once,
and whatever is said and not true of that subject at that time is a false alarm. right: what was said and is true.
precision = right / found, recall = expected and said / expected. naive is what the question replaces: its precision
over all that the question looks for, and its recall of those with this verdict.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

import click
import duckdb

import analysis
from benchmarks.generate_logs import Plan, generate
from benchmarks.verdicts import behaviour, captured, counts, naive, planted
from benchmarks.verdicts.counts import Count
from benchmarks.verdicts.readings import READINGS
from benchmarks.verdicts.scoring import NOTHING, Accusation, Expectation, Judgement, Score, judge
from benchmarks.verdicts.true_requests import read_true_requests
from ingest.run import ingest
from ingest.source import expand

SECRET: Final = bytes(range(32))
# Verdicts that accuse nobody: no baseline looks for them.
HARMLESS: Final = frozenset(
    {"approved", "does not retry", "exponential", "irregular", "limited per ip", "limited per key", "never worked"}
    | {"stale references", "well-behaved"}
)
CAPTURE: Final = Path(__file__).parents[1] / "sample_logs" / "capture"


@dataclass(frozen=True)
class Trial:
    """One log, what errata and the baselines say of it, and what is true."""

    name: str
    judgement: Judgement
    naive: dict[tuple[str, str], Score]
    counts: tuple[Count, ...]
    accused_near_misses: tuple[str, ...] = ()
    near_misses: int = 0


@click.command(help=__doc__)
@click.option("--seeds", default="7,8,9", show_default=True, help="Worlds to generate, separated by commas.")
@click.option("--days", default=Plan.days, show_default=True, type=click.IntRange(min=5))
@click.option("--scale", default=Plan.scale, show_default=True, help="Times the ordinary customers.")
@click.option(
    "--capture", default=CAPTURE, show_default=True, type=click.Path(path_type=Path, exists=True, file_okay=False)
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, and no table.")
def main(seeds: str, days: int, scale: float, capture: Path, as_json: bool) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        plans = [Plan(seed=int(seed), days=days, scale=scale, story="full") for seed in seeds.split(",") if seed]
        trials = [planted_trial(plan, Path(scratch) / str(plan.seed)) for plan in plans]
        trials.append(captured_trial(capture, Path(scratch) / "capture"))
    click.echo(json.dumps(report(trials)) if as_json else "\n".join(table(trials)))


def planted_trial(plan: Plan, folder: Path) -> Trial:
    """Generate, ingest, ask and score one world."""
    generate(folder, plan)
    logs = sorted(str(path) for path in folder.glob("access.json.log*"))
    with lake_of(logs, folder / "lake") as con:
        return scored_by_plan(f"seed {plan.seed}", con, folder)


def scored_by_plan(name: str, con: duckdb.DuckDBPyConnection, folder: Path) -> Trial:
    """The lake of a generated log, scored by the truth in the log's `folder`."""
    true = read_true_requests(folder / "truth.ndjson.gz")
    known = [*planted.expectations(folder), *dict.fromkeys(planted.changes(folder))]
    expected = askable(known, behaviour.expectations(true, known))
    near_misses, said = list(planted.near_misses(folder)), list(accusations(con))
    accused = tuple(near.name for near in near_misses if any(near.is_accused_by(one) for one in said))
    found = (*counts.counts(con, true), *counts.retries(con, true))
    return Trial(name, judge(said, expected), baseline_scores(con, expected), found, accused, len(near_misses))


def captured_trial(capture: Path, folder: Path) -> Trial:
    """Ingest, ask and score a capture."""
    with lake_of([str(capture / "access.json.log.gz")], folder / "lake") as con:
        return scored_by_capture(con, capture)


def scored_by_capture(con: duckdb.DuckDBPyConnection, capture: Path) -> Trial:
    """The lake of a capture's log, scored by the truth beside it."""
    true = read_true_requests(capture / "truth.ndjson.gz")
    known = list(captured.expectations(true))
    expected = askable(known, behaviour.expectations(true, known))
    found = (*counts.counts(con, true), *counts.retries(con, true), *counts.storms(con, capture))
    return Trial("capture", judge(accusations(con), expected), baseline_scores(con, expected), found)


def lake_of(logs: list[str], lake: Path) -> duckdb.DuckDBPyConnection:
    """A connection over a new lake with `logs`."""
    for _step in ingest(expand(logs), lake, SECRET, jobs=os.cpu_count() or 1):
        pass
    return analysis.connect(lake)


def accusations(con: duckdb.DuckDBPyConnection) -> Iterator[Accusation]:
    """All that every question says of anybody."""
    for question, reading in READINGS.items():
        rows = analysis.answer(con, question).to_arrow_table().to_pylist()
        yield from reading.accusations(question, rows)


def askable(*expectations: Iterable[Expectation]) -> list[Expectation]:
    """Those that some question with verdicts could meet."""
    return [expectation for expectation in chain(*expectations) if expectation.question in READINGS]


def baseline_scores(con: duckdb.DuckDBPyConnection, expected: Iterable[Expectation]) -> dict[tuple[str, str], Score]:
    """For each verdict that is expected, how the baseline of its question does."""
    accused = naive.accused(con)
    scores = {}
    of_question: dict[str, list[Expectation]] = {}
    for expectation in expected:
        of_question.setdefault(expectation.question, []).append(expectation)
    for question, wanted in of_question.items():
        guilty = frozenset(expectation.subject for expectation in wanted if expectation.verdict not in HARMLESS)
        said = accused[READINGS[question].naive].like(guilty)
        for verdict in {expectation.verdict for expectation in wanted} - HARMLESS:
            subjects = {item.subject for item in wanted if item.verdict == verdict and item.is_required}
            scores[question, verdict] = Score(len(subjects), len(said), len(said & guilty), len(subjects & said))
    return scores


def table(trials: list[Trial]) -> Iterator[str]:
    """The figures, and below them whatever is not as it should be, a line each."""
    yield (
        f"{'question':<22}{'verdict':<32}{'truth':<9}{'expected':>9}{'found':>7}{'right':>7}{'precision':>11}{'recall':>8}"
        + (f"  {'naive':<10}{'precision':>9}{'recall':>8}")
    )
    for row in report(trials)["verdicts"]:
        yield (
            f"{row['question']:<22}{row['verdict']:<32}{row['truth']:<9}{row['expected']:>9}{row['found']:>7}"
            f"{row['right']:>7}{share(row['precision']):>11}{share(row['recall']):>8}"
            f"  {row['naive']:<10}{share(row['naive_precision']):>9}{share(row['naive_recall']):>8}"
        )
    for trial in trials:
        yield ""
        yield f"{trial.name}: {len(trial.accused_near_misses)} of {trial.near_misses} near misses accused"
        yield from (f"  accused though a near miss: {name}" for name in trial.accused_near_misses)
        for missed in trial.judgement.missed:
            yield f"  missed: {missed.question} {missed.verdict} of {missed.subject}: {missed.reason}"
        for alarm in trial.judgement.false_alarms:
            when = f"{alarm.span.start:%m-%d %H:%M:%S} to {alarm.span.end:%m-%d %H:%M:%S}"
            yield f"  false alarm: {alarm.question} {alarm.verdict} of {alarm.subject}, {when}"
        for count in trial.counts:
            yield f"  {count.name}: {count.true:,} true, {count.found:,} found, {count.difference:+.2f} % {count.note}"


def report(trials: list[Trial]) -> dict[str, Any]:
    """The figures as JSON: verdicts by truth (planted, all seeds together, and capture), and the counts."""
    rows = []
    for truth in ("planted", "capture"):
        of_truth = [trial for trial in trials if (trial.name == "capture") == (truth == "capture")]
        verdicts = sorted({verdict for trial in of_truth for verdict in trial.judgement.scores})
        for question, verdict in verdicts:
            score = sum((t.judgement.scores.get((question, verdict), NOTHING) for t in of_truth), NOTHING)
            base = sum((t.naive.get((question, verdict), NOTHING) for t in of_truth), NOTHING)
            rows.append(row(question, verdict, truth, score, READINGS[question].naive, base))
        if of_truth:
            score = sum((trial.judgement.overall for trial in of_truth), NOTHING)
            base = sum((score for trial in of_truth for score in trial.naive.values()), NOTHING)
            rows.append(row("all", "", truth, score, "", base))
    counted = [{"truth": trial.name, **asdict(count)} for trial in trials for count in trial.counts]
    return {"verdicts": rows, "counts": counted}


def row(question: str, verdict: str, truth: str, score: Score, naive_name: str, base: Score) -> dict[str, Any]:
    """One line of the table."""
    return {
        "question": question,
        "verdict": verdict,
        "truth": truth,
        "expected": score.expected,
        "found": score.found,
        "right": score.right,
        "precision": score.precision,
        "recall": score.recall,
        "naive": naive_name,
        "naive_precision": base.precision,
        "naive_recall": base.recall,
    }


def share(value: float | None) -> str:
    """A share, or a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
