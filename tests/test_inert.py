"""Foreign text in everything that errata writes: it is shown, and does nothing."""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from markdown_it import MarkdownIt
from pyarrow import Table

import analysis
import errata
from analysis.digest import Digest, digest
from analysis.digest_formats import FORMATS
from analysis.explain import explain, story
from analysis.output import write_query
from analysis.period import day_of
from ingest.schema import table_path, table_schema
from tests.analysis.queries.event_lake import MORNING, error, source
from tests.hostile import HOSTILE

# Blanks of all widths are text; everything else that Unicode does not call visible may act.
ACTIVE: Final = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
COLUMNS: Final = ("org_id", "key_id", "client_ip", "user_agent", "route", "path", "message", "docs_url", "host")
ROWS: Final = f"SELECT request_id, {', '.join(COLUMNS)}, details FROM errors ORDER BY request_id"
LINE: Final = '192.0.2.1 - - [02/Nov/2026:09:00:00 +0000] "GET / HTTP/1.1" 200 2 "-" "-"'
FORMULA: Final = re.compile(r"[\s\"'`]*[-=+@\uff1d\uff0b\uff0d\uff20]")


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A lake whose every text is hostile, and one of the same form whose texts are the names of those."""
    folder = tmp_path_factory.mktemp("lakes")
    return (
        _lake(folder / "hostile", HOSTILE),
        _lake(folder / "harmless", {name: name.replace(" ", "_") for name in HOSTILE}),
    )


def _lake(lake: Path, texts: dict[str, str], **others: str | None) -> Path:
    rows = []
    for number, (name, text) in enumerate(texts.items()):
        fields = dict.fromkeys(COLUMNS, text) | {"code": text, "gateway_reason": text, "gateway": text} | others
        details = [{"field": text, "issue": text}]
        rows.append(error(number, "not_found", request_id=name, details=details) | fields)
        step = source(name, name=text, decision=text, lines=1, requests=1, errors=1)
        rows.append(step | {"kind": "source", "day": MORNING.date(), "first_ts": MORNING, "last_ts": MORNING})
        rows.append(
            {"kind": "reject", "day": MORNING.date(), "source_id": name, "line": 1, "reason": "no_status", "code": text}
        )
    write_deltalake(table_path(lake), Table.from_pylist(rows, schema=table_schema()), partition_by=["kind", "day"])
    return lake


def active(text: str) -> set[str]:
    """The characters of `text` that could act on a terminal or reorder a page, line ends apart."""
    return {char for char in text if char != "\n" and unicodedata.category(char) in ACTIVE}


def written(lake: Path, output: str) -> str:
    """The errors of `lake` as `errata sql --output` writes them into a pipe."""
    stream = io.StringIO()
    with redirect_stdout(stream):
        write_query(analysis.connect(lake), ROWS, output)
    return stream.getvalue()


@pytest.mark.parametrize("output", ["csv", "json", "markdown", "table"])
def test_rows_hold_no_character_that_acts_and_no_line_more(lakes: tuple[Path, Path], output: str) -> None:
    hostile, harmless = (written(lake, output) for lake in lakes)

    assert active(hostile) == set()
    assert len(hostile.splitlines()) == len(harmless.splitlines())


def test_no_cell_of_a_csv_is_a_formula_whatever_ends_a_cell(lakes: tuple[Path, Path]) -> None:
    text = written(lakes[0], "csv")

    cells = [cell for separator in ",;" for row in csv.reader(io.StringIO(text), delimiter=separator) for cell in row]
    assert [cell for cell in cells if FORMULA.match(cell) and not cell.startswith("'")] == []


def test_json_and_parquet_are_exact(lakes: tuple[Path, Path], tmp_path: Path) -> None:
    write_query(analysis.connect(lakes[0]), ROWS, out=tmp_path / "rows.parquet")
    exact = [
        {"request_id": name} | dict.fromkeys(COLUMNS, text) | {"details": [{"field": text, "issue": text}]}
        for name, text in sorted(HOSTILE.items())
    ]

    assert json.loads(written(lakes[0], "json")) == exact
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == exact


def test_markdown_is_a_table_of_text(lakes: tuple[Path, Path]) -> None:
    hostile, harmless = (list(_tokens(written(lake, "markdown"))) for lake in lakes)

    assert [kind for kind, _ in hostile if kind not in ("text", "code_inline")] == [
        kind for kind, _ in harmless if kind not in ("text", "code_inline")
    ]
    assert [text for kind, text in hostile if kind == "text" and re.search(r"://|www\.|@[a-z]", text)] == []
    assert {text.strip() for text in HOSTILE.values() if text.isprintable()} <= {text.strip() for _, text in hostile}


def _tokens(markdown: str) -> Iterator[tuple[str, str]]:
    """The kinds of everything in `markdown`, with the text of what has one, as a renderer of tables sees it."""
    for token in MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown):
        if token.type == "inline":
            yield from _joined((child.type, child.content) for child in token.children or [])
        else:
            yield token.type, token.content


def _joined(children: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """`children` with texts that follow each other as one."""
    waiting = ""
    for kind, text in children:
        if kind in ("text", "text_special"):
            waiting += text
        else:
            if waiting:
                yield "text", waiting
            waiting = ""
            yield kind, text
    if waiting:
        yield "text", waiting


class _Elements(HTMLParser):
    """The elements of a page with their attributes, and nothing of its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("svg", "g", "path", "rect", "text", "line", "defs", "clippath", "title"):
            self.found.append((tag, tuple(name for name, _ in attrs)))


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory) -> list[Digest]:
    """The facts of such lakes. What is found must not hang on the texts, as on a docs_url or the name of a client."""
    folder, now = tmp_path_factory.mktemp("digests"), MORNING + timedelta(days=2)
    texts = {"hostile": HOSTILE, "harmless": {name: name.replace(" ", "_") for name in HOSTILE}}
    lakes = [_lake(folder / name, told, docs_url=None, user_agent="acme/1.0") for name, told in texts.items()]
    return [
        digest(con, day_of(con, MORNING.date().isoformat(), now=now), lake=Path("lake"), top=-1, now=now)
        for con in map(analysis.connect, lakes)
    ]


@pytest.mark.parametrize("output", FORMATS)
def test_a_report_holds_no_character_that_acts(digests: list[Digest], output: str) -> None:
    hostile, harmless = (FORMATS[output](facts) for facts in digests)

    assert active(hostile) == set()
    assert output == "html" or len(hostile.splitlines()) == len(harmless.splitlines())


def test_a_page_has_no_element_more(digests: list[Digest]) -> None:
    hostile, harmless = (_Elements(FORMATS["html"](facts)).found for facts in digests)

    assert hostile == harmless
    assert {tag for tag, _ in hostile} & {"script", "img", "a", "iframe"} == set()


def test_a_report_in_markdown_is_tables_of_text(digests: list[Digest]) -> None:
    kinds = {kind for kind, _ in _tokens(FORMATS["markdown"](digests[0]))}
    told = [text for kind, text in _tokens(FORMATS["markdown"](digests[0])) if kind == "text"]

    assert kinds & {"link_open", "image", "html_inline", "html_block", "em_open", "s_open"} == set()
    assert [text for text in told if re.search(r"://|www\.", text)] == []


@pytest.mark.parametrize("name", HOSTILE)
def test_the_story_of_a_request_is_text(lakes: tuple[Path, Path], name: str) -> None:
    stories = [story(explain(analysis.connect(lake), name)) for lake in lakes]

    assert active(stories[0]) == set()
    assert len(stories[0].splitlines()) == len(stories[1].splitlines())


Run = Callable[..., "tuple[int, str]"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line; gives its exit code and all that it printed."""

    def ran(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["errata", *arguments])
        code = 0
        try:
            errata.main()
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return ran


@pytest.mark.parametrize("command", ["detect", "ingest"])
def test_the_name_of_a_file_is_text(run: Run, tmp_path: Path, command: str) -> None:
    lines: list[int] = []
    hostile = [text for text in HOSTILE.values() if "/" not in text]
    for names in (hostile, map(str, range(len(hostile)))):
        logs = tmp_path / f"logs {len(lines)}"
        logs.mkdir()
        for number, name in enumerate(names):
            (logs / f"{name}.log").write_text(f"{LINE}\n{number}\n", encoding="utf-8")
        lake = ["--lake", str(tmp_path / f"lake {len(lines)}")] if command == "ingest" else []
        code, said = run(command, *map(str, sorted(logs.iterdir())), *lake)
        lines.append(len(said.splitlines()))
        assert (code, active(said)) == (0, set())

    assert lines[0] == lines[1]


def test_what_duckdb_says_of_a_value_is_one_line_of_text(run: Run, lakes: tuple[Path, Path]) -> None:
    for name in ("colour", "lines", "direction", "C1", "unseen"):
        asked = f"SELECT path::INTEGER FROM errors WHERE request_id = '{name}'"
        code, said = run("sql", asked, "--lake", str(lakes[0]))

        assert (code, active(said), len(said.splitlines())) == (2, set(), 1)


def test_what_is_checked_here_can_fail() -> None:
    acting = {name for name, text in HOSTILE.items() if active(text) or "\n" in text}
    formulas = {name for name, text in HOSTILE.items() if FORMULA.match(text)}

    assert acting == {
        *("tab formula", "return formula", "colour", "title", "hyperlink", "clipboard", "C1", "cursor", "lines"),
        *("direction", "unseen"),
    }
    assert formulas == {
        *("formula", "plus", "minus", "at", "full width", "blank formula", "tab formula", "return formula"),
    }
