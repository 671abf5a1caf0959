"""Places and processes that fail: a disk of a few megabytes, and commands whose writes do not succeed."""

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.crash.growing import Growing
from tests.crash.warm import Warm, warm

_DISK: Final = "size=12m,mode=0700"


@pytest.fixture
def logs(tmp_path: Path) -> Growing:
    """Logs of which nothing is written yet, in a folder of their own."""
    folder = tmp_path / "logs"
    folder.mkdir()
    return Growing(folder, random.Random(20_261_123))


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """What starts commands."""
    with warm(tmp_path_factory.mktemp("commands")) as started:
        yield started


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`faults.c` as a library."""
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("cc is missing; `apt-get install gcc libc6-dev`")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory, faults: Path) -> Iterator[Warm]:
    """What starts commands that can be given a `fault`."""
    with warm(tmp_path_factory.mktemp("faulty"), {"LD_PRELOAD": str(faults)}) as started:
        yield started


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 12 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", _DISK, "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
