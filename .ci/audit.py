"""Known vulnerabilities of the versions that errata is installed with, as PyPI lists them: `make audit`.

Exit codes: 0 none is known, 1 there are some, 2 not every version could be looked up. A version that nobody could look
up is never counted as one without vulnerabilities.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import requests
from pip_audit._audit import Auditor
from pip_audit._dependency_source import RequirementSource
from pip_audit._service import Dependency, PyPIService, ServiceError, SkippedDependency, VulnerabilityResult

Finding = tuple[Dependency, list[VulnerabilityResult]]


def audited(locks: Sequence[Path], session: requests.Session | None = None) -> Iterator[Finding]:
    """Each locked version for this platform once, with its known vulnerabilities; a SkippedDependency where nobody
    knows. Raises ServiceError and requests.RequestException where PyPI cannot be asked.
    """
    service = PyPIService(timeout=30)
    service.session = session or service.session
    service.session.hooks["response"].append(_of_newest)
    # Locks have hashes throughout, so nothing is resolved or installed for this.
    yield from Auditor(service).audit(RequirementSource(list(locks), require_hashes=True, disable_pip=True))


def _of_newest(response: requests.Response, **settings: Any) -> requests.Response:
    """The answer for a project where there is none for its version, as from some mirrors: that for its newest one."""
    project, _, version = (response.url or "").removesuffix("/json").rpartition("/")
    if response.status_code != requests.codes.not_found or not version[:1].isdigit():
        return response
    newest = response.connection.send(requests.Request("GET", f"{project}/json").prepare(), **settings)
    return newest if newest.ok and newest.json()["info"]["version"] == version else response


def main(locks: Sequence[str], session: requests.Session | None = None) -> int:
    """Prints what is known of the versions in `locks`, and gives the exit code."""
    try:
        found = list(audited([Path(lock) for lock in locks], session))
    except (ServiceError, requests.RequestException) as error:
        print(f"expected PyPI's list of vulnerabilities, could not get it: {error}. Nothing was audited.")
        return 2
    vulnerable = [(dependency, known) for dependency, known in found if known]
    unknown = [dependency.skip_reason for dependency, _ in found if isinstance(dependency, SkippedDependency)]
    for dependency, known in vulnerable:
        for each in {advisory.id: advisory for advisory in known}.values():
            fixed = ", ".join(map(str, each.fix_versions)) or "no version"
            print(f"{dependency.name} {dependency.version}: {each.id}, fixed in {fixed}: {each.description[:160]}")
    for reason in unknown:
        print(reason)
    print(f"{len(found)} versions: {len(vulnerable)} with known vulnerabilities, {len(unknown)} could not be audited")
    return 1 if vulnerable else 2 if unknown or not found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
