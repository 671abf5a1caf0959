"""What `make` installs is what the locks say: exact versions, with the hashes of their files."""

import json
import re
import tomllib
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[1]
PYPROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())
OF_PROJECT: Final = [*PYPROJECT["build-system"]["requires"], *PYPROJECT["project"]["dependencies"]]
OF_TESTS: Final = PYPROJECT["project"]["optional-dependencies"]["test"]
MAKEFILE: Final = (ROOT / "Makefile").read_text()
LOCKS: Final = ("requirements.txt", "requirements-test.txt")


def _entries(lock: str) -> list[str]:
    """The entries of a lock, each with its hashes, on one line."""
    text = (ROOT / ".ci" / lock).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if not line.startswith("#")]


def _versions(lock: str) -> dict[str, str]:
    found = (Requirement(entry.partition(" --hash")[0]) for entry in _entries(lock))
    return {canonicalize_name(entry.name): str(entry.specifier).removeprefix("==") for entry in found}


@pytest.mark.parametrize(
    ("lock", "asked_for"),
    [(LOCKS[0], OF_PROJECT), (LOCKS[1], [*OF_PROJECT, *OF_TESTS])],
    ids=["to run", "to test"],
)
def test_every_dependency_is_locked_at_a_version_that_pyproject_accepts(lock: str, asked_for: list[str]) -> None:
    locked = _versions(lock)

    unmet = [
        text
        for text in asked_for
        if not Requirement(text).specifier.contains(locked.get(canonicalize_name(Requirement(text).name), "0"))
    ]

    assert unmet == [], "run: make lock"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_version_is_exact_and_has_hashes(lock: str) -> None:
    exact = re.compile(r"[a-z0-9._-]+==[^\s;*,]+( ; [^-]+)?( +--hash=sha256:[0-9a-f]{64})+")

    assert [entry for entry in _entries(lock) if not exact.fullmatch(entry)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_says_nothing_of_where_packages_come_from(lock: str) -> None:
    assert re.findall(r"https?:|--(?:extra-)?index|--find-links|--trusted", (ROOT / ".ci" / lock).read_text()) == []


def test_errata_is_tested_with_the_versions_that_it_runs_with() -> None:
    to_run, to_test = map(_versions, LOCKS)

    assert to_run.items() <= to_test.items()


def test_make_installs_nothing_without_a_hash_and_builds_nothing_but_errata() -> None:
    assert re.findall(r"\bpip install .*", MAKEFILE) == [
        "pip install --quiet --require-hashes --only-binary :all: --requirement",
        "pip install --quiet --no-deps --no-build-isolation --editable . && $(BIN)/pip check --quiet || \\",
    ]


def test_npm_packages_are_locked_by_hash_and_run_no_script() -> None:
    lock = json.loads((ROOT / "tests/dashboard/oidc/package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}

    assert [name for name, package in packages.items() if not package["integrity"].startswith("sha512-")] == []
    assert [name for name, package in packages.items() if "resolved" in package] == []
    assert [line for line in re.findall(r"\bnpm (?:ci|install) .*", MAKEFILE) if "--ignore-scripts" not in line] == []
