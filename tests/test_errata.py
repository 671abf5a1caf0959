"""The command line as a person meets it: help, exit codes, and one line that says what is wrong."""

import gzip
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

import errata
from tests.ingest.logs import combined_line, error_line, json_line, log, requests

ROOT: Final = Path(__file__).parents[1]
COMMANDS: Final = list(errata._COMMANDS)
ENGINES: Final = {"duckdb", "pyarrow", "pandas", "numpy", "streamlit", "deltalake", "altair", "rich", "prompt_toolkit"}
LINES: Final = [json_line(request_id="req_7"), error_line("rate_limited", 429), json_line()]


@dataclass(frozen=True)
class Told:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


Run = Callable[..., Told]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `errata` with these arguments in this process, as its entry point does."""

    def run_main(*arguments: str | Path) -> Told:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["errata", *map(str, arguments)])
        code: object = 0
        try:
            errata.main()
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        return Told(int(str(code or 0)), said.out, said.err)

    return run_main


@pytest.fixture
def good_log(tmp_path: Path) -> Path:
    path = tmp_path / "good.log"
    path.write_bytes(log(LINES))
    return path


@pytest.fixture
def lake(run: Run, good_log: Path, tmp_path: Path) -> Path:
    """A lake with two successes and an error."""
    assert run("ingest", good_log, "--lake", tmp_path / "lake").code == 0
    return tmp_path / "lake"


def subprocess_of(*arguments: str, after: str = "") -> subprocess.CompletedProcess[str]:
    """`errata` with these arguments in a process of its own, and then the Python statements `after`."""
    code = f"import sys, errata\nsys.argv = ['errata', *sys.argv[1:]]\nerrata.main()\n{after}"
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_help_lists_every_command_with_what_it_does(run: Run) -> None:
    told = run("--help")

    assert (told.code, told.err) == (0, "")
    for name, (_, meaning) in errata._COMMANDS.items():
        assert f"  {name} " in told.out
        assert meaning in told.out
    assert "Exit codes: 0 fine, 1 findings, 2 wrong usage or unreadable input, 3 damaged lake, 4" in told.out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(run: Run, command: str) -> None:
    told = run(command, "--help")

    assert (told.code, told.err) == (0, "")
    examples = told.out.partition("Example")[2].splitlines()
    assert [line for line in examples if line.strip().startswith(f"errata {command}") or f"| errata {command}" in line]


# The help of `ask` lists the questions, which DuckDB has to read.
@pytest.mark.parametrize(
    "arguments", [["--help"], *([command, "--help"] for command in COMMANDS if command != "ask")], ids=" ".join
)
def test_help_imports_no_engine(arguments: list[str]) -> None:
    done = subprocess_of(*arguments, after=f"print('\\nIMPORTED', *sorted({ENGINES!r} & set(sys.modules)))")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].strip() == "IMPORTED"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ingest", "missing.log"], "missing.log: expected a file, a folder or a glob that matches something"),
        (["ingest", "*.missing"], "*.missing: expected a file, a folder or a glob that matches something"),
        (["ingest", "good.log", "--format", "apache"], "--format apache: no such format; expected apache-json, "),
        (["ingest", "good.log", "--mapping", "missing.toml"], "missing.toml: cannot read the mapping file"),
        (["ingest", "good.log", "--mapping", "good.log"], "good.log: not a TOML file"),
        (["ingest", "good.log", "--mapping", "a", "--format", "b"], "--format and --mapping exclude each other"),
        (["ingest", "good.log", "--lake", "good.log/below"], "good.log/below: cannot be written to: Not a directory"),
        (["ingest", "good.log", "--lake", "/proc/lake"], "/proc/lake: cannot be written to: "),
        (["ask", "nothing", "--lake", "lake"], "there is no question 'nothing'; there are: "),
        (["ask", "errors_by_code", "--lake", "missing"], "missing"),
        (
            ["ask", "errors_by_code", "--lake", "lake", "--since", "the day before"],
            "--since has value 'the day before'",
        ),
        (["ask", "errors_by_code", "--lake", "lake", "--until", "2026-02-30"], "--until has value '2026-02-30'"),
        (["ask", "errors_by_code", "--lake", "lake", "--tz", "Mars/Olympus"], "there is no time zone 'Mars/Olympus'"),
        (["sql", "SELECT 1", "--lake", "missing"], "missing"),
        (["sql", "SELEC 1", "--lake", "lake"], ""),
        (["explain", "req_nobody", "--lake", "lake"], ""),
        (["explain", "req_7", "--lake", "missing"], "missing"),
        (["report", "--lake", "missing"], "missing"),
        (["report", "--lake", "lake", "--day", "someday"], "--day has value 'someday'"),
        (["report", "--lake", "lake", "--fail-on", "moon > 1"], ""),
        (["report", "--lake", "lake", "--out", "good.log/below/x.md"], ""),
        (["status", "--lake", "missing"], "missing"),
        (["ask", "errors_by_code", "--lake", "lake", "--out", "good.log/below/x.csv"], ""),
        (["demo", "--lake", "good.log/below"], "good.log/below: cannot be written to: Not a directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_person_can_mend_is_one_line_and_exit_code_2(
    run: Run, lake: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(lake.parent)

    said = run(*arguments)

    assert said.code == errata.ExitCode.BAD_INPUT
    assert said.out == ""
    [line] = said.err.splitlines()
    assert line.startswith(f"errata: {told}")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["ingest"],
        ["ingest", "a.log", "--jobs", "0"],
        ["ask", "errors_by_code", "--nothing"],
        ["status", "--output", "xml"],
        ["dashboard", "--port", "many"],
        ["--nothing"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_with_a_hint_and_without_a_traceback(run: Run, arguments: list[str]) -> None:
    said = run(*arguments)

    assert said.code == errata.ExitCode.BAD_INPUT
    assert "Usage: " in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "errors_by_code"],
        ["sql", "SELECT count(*) FROM requests"],
        ["explain", "req_7"],
        ["report"],
        ["status"],
        ["ingest", "good.log"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(
    ("damaged", "length"),
    [
        ("table/_delta_log/*1.json", 0),
        ("table/_delta_log/*.json", None),
        ("table/*/*/*.parquet", 50),
        ("table/*/*/*.parquet", None),
    ],
    ids=["an empty commit", "no log", "cut data files", "no data files"],
)
def test_a_damaged_lake_is_one_line_and_exit_code_3(
    run: Run, lake: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], damaged: str, length: int | None
) -> None:
    monkeypatch.chdir(lake.parent)
    for path in lake.glob(damaged):
        path.write_bytes(path.read_bytes()[:length])
        if length is None:
            path.unlink()

    said = run(*arguments, "--lake", lake)

    assert said.code == errata.ExitCode.LAKE_DAMAGED
    [line] = said.err.splitlines()
    assert line.startswith("errata: ")
    assert str(lake) in line


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (b"\0\1\2\n", "bad.log: binary, not a log"),
        (
            gzip.compress(log([json_line(msec=1_795_431_546)] * 2))[:-1],
            "bad.log: the compressed stream is cut; what it held",
        ),
    ],
    ids=["a file in no known format", "a file that was cut"],
)
def test_input_that_was_partly_read_is_exit_code_4_and_the_rest_is_kept(
    run: Run, good_log: Path, tmp_path: Path, bad: bytes, told: str
) -> None:
    (tmp_path / "bad.log").write_bytes(bad)

    said = run("ingest", good_log, tmp_path / "bad.log", "--lake", tmp_path / "lake")

    assert (said.code, said.out) == (errata.ExitCode.PARTLY_READ, "")
    assert told in said.err
    assert "Traceback" not in said.err
    assert [row["request_id"] for row in requests(tmp_path / "lake")][:3] == ["req_7", "req_e", "req_1"]


def test_input_of_which_nothing_could_be_read_is_exit_code_2(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.log").write_bytes(b"\0\1\2\n")

    said = run("ingest", tmp_path / "bad.log", "--lake", tmp_path / "lake")

    assert said.code == errata.ExitCode.BAD_INPUT


def test_an_ingest_tells_what_it_added_on_standard_error_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(log([*LINES, b"{", combined_line()]))

    first = run("ingest", tmp_path / "a.log", "--lake", tmp_path / "lake")
    again = run("ingest", tmp_path / "a.log", "--lake", tmp_path / "lake")

    name = tmp_path / "a.log"
    assert (first.code, first.out) == (0, "")
    assert first.err.splitlines() == [
        f"{name}: 4 requests, 1 errors (nginx-json)",
        f'{name}: 1 of 5 lines rejected (1 not json). See: errata sql "FROM rejects"',
        "Added 4 requests, 1 of them errors, from 1 of 1 sources.",
    ]
    assert again.err.splitlines() == [
        f"{name}: unchanged",
        "Added 0 requests, 0 of them errors, from 0 of 1 sources.",
    ]


def test_a_line_that_is_not_finished_is_announced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(log(LINES)[:-9])

    said = run("ingest", tmp_path / "a.log", "--lake", tmp_path / "lake")

    assert f"{tmp_path}/a.log: the last line has no end yet; the next run takes it" in said.err.splitlines()


def test_a_dry_run_makes_no_lake(run: Run, good_log: Path, tmp_path: Path) -> None:
    said = run("ingest", good_log, "--lake", tmp_path / "lake", "--dry-run")

    assert said.code == 0
    assert said.err.splitlines()[-1] == "Would add 3 requests, 1 of them errors, from 1 of 1 sources."
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize("path", [".", "**/*"], ids=["a folder", "a glob"])
def test_the_lake_is_no_log_of_the_folder_that_it_is_in(
    run: Run, lake: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(lake.parent)

    said = run("ingest", path)

    assert said.code == 0
    assert said.err.splitlines() == [
        "good.log: unchanged",
        "Added 0 requests, 0 of them errors, from 0 of 1 sources.",
    ]


def test_a_process_of_its_own_says_no_more_than_that(good_log: Path, tmp_path: Path) -> None:
    ingested = subprocess_of("ingest", str(good_log), "--lake", str(tmp_path / "lake"))
    asked = subprocess_of("ask", "errors_by_code", "--lake", str(tmp_path / "lake"), "--output", "csv")

    assert (ingested.returncode, ingested.stdout) == (0, "")
    assert ingested.stderr.splitlines() == [
        f"{good_log}: 3 requests, 1 errors (nginx-json)",
        "Added 3 requests, 1 of them errors, from 1 of 1 sources.",
    ]
    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout.splitlines()[1].startswith("rate_limited,")
