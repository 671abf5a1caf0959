"""`make audit` tells a vulnerable version, and never passes a version that it could not look up."""

import json
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import requests
from requests.adapters import HTTPAdapter

AUDIT: Final = Path(__file__).parents[1] / ".ci" / "audit.py"
HASH: Final = "sha256:" + "0" * 64
KNOWN: Final = {
    "id": "PYSEC-2020-1",
    "aliases": ["CVE-2020-1"],
    "details": "Escapes nothing.",
    "summary": None,
    "fixed_in": ["2.0"],
    "withdrawn": None,
}


class Answers(HTTPAdapter):
    """Answers each path as it is told, 404 to others; None means that nobody is there."""

    def __init__(self, bodies: Mapping[str, object] | None) -> None:
        super().__init__()
        self._bodies = bodies

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        if self._bodies is None:
            raise requests.ConnectionError("nobody is there")
        response = requests.Response()
        response.request, response.url, response.connection = request, request.url or "", self
        body = self._bodies.get(request.path_url)
        response.status_code = 404 if body is None else 200
        response._content = json.dumps(body).encode()
        return response

    def close(self) -> None:
        pass


def _project(version: str, *known: object) -> dict[str, object]:
    return {"info": {"version": version}, "vulnerabilities": list(known)}


@pytest.fixture
def audit(tmp_path: Path) -> Callable[[Mapping[str, object] | None], int]:
    """Audits a lock of jinja2 1.0, and gives the exit code."""
    lock = tmp_path / "requirements.txt"
    lock.write_text(f"jinja2==1.0 --hash={HASH}\n")

    def run(bodies: Mapping[str, object] | None) -> int:
        session = requests.Session()
        session.mount("https://", Answers(bodies))
        return int(runpy.run_path(str(AUDIT))["main"]([str(lock)], session))

    return run


@pytest.mark.parametrize(
    ("bodies", "exit_code", "said"),
    [
        ({"/pypi/jinja2/1.0/json": _project("1.0")}, 0, "1 versions: 0 with known vulnerabilities"),
        (
            {"/pypi/jinja2/1.0/json": _project("1.0", KNOWN)},
            1,
            "jinja2 1.0: PYSEC-2020-1, fixed in 2.0: Escapes nothing",
        ),
        ({"/pypi/jinja2/json": _project("1.0", KNOWN)}, 1, "jinja2 1.0: PYSEC-2020-1, fixed in 2.0: Escapes nothing"),
        ({"/pypi/jinja2/json": _project("2.0")}, 2, "could not be audited: jinja2 (1.0)"),
        ({}, 2, "could not be audited: jinja2 (1.0)"),
        (None, 2, "nobody is there. Nothing was audited."),
    ],
    ids=["none known", "vulnerable", "vulnerable and newest", "not the newest", "not known", "nobody there"],
)
def test_the_audit_tells(
    bodies: Mapping[str, object] | None,
    exit_code: int,
    said: str,
    audit: Callable[[Mapping[str, object] | None], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert audit(bodies) == exit_code
    assert said in capsys.readouterr().out
