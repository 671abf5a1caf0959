"""Fuzzing of ingest by coverage: `pip install atheris`, then `python tests/fuzz/fuzz_ingest.py [LIBFUZZER_OPTION...]`.

The sample lines of every format are the corpus unless folders are given. A finding is kept as `crash-*` in the working
directory; give that file as an argument to run it again.
"""

import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-untyped]  # ships no types, and the tests do without it

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(include=["ingest"]):
    from ingest.parse import Lanes
    from tests.fuzz.law import check_records, check_rows, seeds

_ROWS_EVERY = 64  # DuckDB is not instrumented, and slow beside the rest
_MOST_RUNS_OF_LANES = 50  # they keep a plan for each format that they meet


class _Fuzzing:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "fuzzed.log"
        self._runs = 0
        self._lanes = Lanes(bytes(32), 1)

    def one(self, data: bytes) -> None:
        """Checks the law for `data`."""
        self._path.write_bytes(data)
        check_records(self._path)
        self._runs += 1
        if self._runs % _ROWS_EVERY == 0:
            check_rows(self._path, self._lanes)
        if self._runs % (_ROWS_EVERY * _MOST_RUNS_OF_LANES) == 0:
            self._lanes.close()


def main() -> None:
    """Fuzzes until stopped, or for as long as `-max_total_time` and `-runs` say."""
    with tempfile.TemporaryDirectory(prefix="errata-fuzz-") as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(seeds()):
            (corpus / f"{number:04}").write_bytes(seed)
        has_inputs = any(not argument.startswith("-") for argument in sys.argv[1:])
        fuzzing = _Fuzzing(Path(folder))
        atheris.Setup([*sys.argv, *([] if has_inputs else [str(corpus)])], fuzzing.one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
