"""The imports go one way: dashboard -> analysis -> ingest.schema."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]


def files_of(package: str) -> list[Path]:
    """The Python files of `package`, which must not be none: a table without cases would pass unseen."""
    found = sorted(path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))
    assert found
    return found


MODULES: Final = {".".join(path.with_suffix("").parts) for path in files_of("ingest")}


def imported(file: Path, package: str) -> set[str]:
    """The modules of `package` that `file` imports, at its top or in its functions."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {name for node in ast.walk(tree) for name in _names(node) if name.split(".")[0] == package}


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    # A relative import cannot leave its package.
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        submodules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES
        yield from submodules or {node.module}


@pytest.mark.parametrize("file", files_of("ingest"), ids=str)
def test_ingest_knows_neither_questions_nor_the_screen(file: Path) -> None:
    assert imported(file, "analysis") | imported(file, "dashboard") == set()


@pytest.mark.parametrize("file", files_of("analysis"), ids=str)
def test_analysis_knows_of_ingest_the_contract_alone_and_no_screen(file: Path) -> None:
    assert imported(file, "ingest") | imported(file, "dashboard") <= {"ingest.schema"}


@pytest.mark.parametrize("file", files_of("dashboard"), ids=str)
def test_the_dashboard_knows_analysis_alone(file: Path) -> None:
    assert imported(file, "ingest") == set()


def test_the_contract_of_the_lake_knows_no_module_of_the_project() -> None:
    file = Path("ingest/schema.py")

    assert imported(file, "ingest") | imported(file, "analysis") | imported(file, "dashboard") == set()


@pytest.mark.parametrize(
    ("text", "modules"),
    [
        ("import ingest.lake", {"ingest.lake"}),
        ("import ingest", {"ingest"}),
        ("from ingest import lake, schema", {"ingest.lake", "ingest.schema"}),
        ("from ingest.schema import BadInput, LakeDamaged", {"ingest.schema"}),
        ("def late():\n    from ingest.run import ingest", {"ingest.run"}),
        ("from json import loads\nimport re", set()),
    ],
    ids=["a module", "a package", "modules of a package", "names of a module", "in a function", "another package"],
)
def test_every_way_of_importing_is_seen(tmp_path: Path, text: str, modules: set[str]) -> None:
    file = tmp_path / "page.py"
    file.write_text(text, encoding="utf-8")

    assert imported(file, "ingest") == modules
