"""Sends what a report found to people, through Apprise: chat, mail, webhooks, pagers.

What was sent to an address is remembered in the lake, so that the same finding is not sent every night.
"""

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Final

from analysis.notable import Notable
from analysis.output import inert
from ingest.schema import BadInput

_MEMORY: Final = "notified.json"
_REMEMBERED: Final = timedelta(days=7)
_MOST: Final = 15


def notify(url: str, findings: Sequence[Notable], *, lake: Path, day: date, title: str, command: str) -> int:
    """Sends the findings that `url` was not sent in the seven days before `day`, in one message; how many they are.

    Nothing is sent where none is new. Raises BadInput where the address is none or nothing can be sent to it; the
    findings are then new again the next time. The address, which may hold a secret, is in no message.
    """
    memory = _read(lake / _MEMORY)
    recipient = hashlib.sha256(url.encode()).hexdigest()[:16]
    known = {
        finding: seen
        for finding, seen in memory.get(recipient, {}).items()
        if abs(day - date.fromisoformat(seen)) <= _REMEMBERED
    }
    new = [finding for finding in findings if finding.id not in known]
    if new:
        _send(url, title, _text(new, len(findings), command))
    memory[recipient] = known | {finding.id: day.isoformat() for finding in findings}
    _write(lake / _MEMORY, memory)
    return len(new)


def _send(url: str, title: str, body: str) -> None:
    # Its log lines name the address.
    logging.getLogger("apprise").disabled = True
    with warnings.catch_warnings():
        # It still asks for modules that Python is about to drop.
        warnings.simplefilter("ignore", DeprecationWarning)
        import apprise

        recipient = apprise.Apprise()
        if not recipient.add(url):
            raise BadInput("--notify: expected an address of Apprise, such as json://host/path or slack://TOKENS")
        if not recipient.notify(body=body, title=title, body_format=apprise.NotifyFormat.TEXT):
            kind = url.partition(":")[0]
            raise BadInput(f"--notify: the {kind} address did not take the message; check it and send again")


def _text(new: Iterable[Notable], count: int, command: str) -> str:
    lines = [f"- {inert(finding.sentence)}" for finding in new]
    more = [f"and {len(lines) - _MOST:,} more"] if len(lines) > _MOST else []
    before = [f"Sent before: {count - len(lines):,}."] if count > len(lines) else []
    return "\n".join([*lines[:_MOST], *more, *before, f"All of it: {command}"])


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        memory: dict[str, dict[str, str]] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path}: what was sent before cannot be read ({error}); delete the file to send all again"
        ) from error
    return memory


def _write(path: Path, memory: dict[str, dict[str, str]]) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        draft.write_text(json.dumps(memory, indent=1, sort_keys=True) + "\n", "utf-8")
        draft.replace(path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror}); the next report sends the same again") from error
    finally:
        draft.unlink(missing_ok=True)
