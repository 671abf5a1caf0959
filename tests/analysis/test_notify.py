"""What a report found is told in sentences, and sent to people once."""

import json
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final

import pytest

from analysis.notable import SUBJECTS, Notable, notable
from analysis.notify import notify
from analysis.question import questions
from ingest.schema import BadInput

DAY: Final = date(2026, 11, 16)


class Hook(HTTPServer):
    """A webhook that keeps what it is sent, and answers with `status`."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.status = 200
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        """Its address in the words of Apprise; the user is a secret."""
        return f"json://token:s3cret@127.0.0.1:{self.server_port}/errors"


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        self.server.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Nothing: the tests look at what was sent."""


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def found(*names: str) -> list[Notable]:
    """Findings of these names."""
    return [Notable("credit_outages", name, f"Credits: {name} is out.") for name in names]


def send(hook: Hook, findings: list[Notable], lake: Path, day: date = DAY) -> int:
    return notify(hook.url, findings, lake=lake, day=day, title="errata", command="errata report")


def test_findings_are_sent_in_one_message(hook: Hook, tmp_path: Path) -> None:
    assert send(hook, found("org_a", "org_b"), tmp_path) == 2

    (message,) = hook.messages
    assert message["title"] == "errata"
    assert message["message"] == "- Credits: org_a is out.\n- Credits: org_b is out.\nAll of it: errata report"


def test_nothing_found_sends_nothing(hook: Hook, tmp_path: Path) -> None:
    assert send(hook, [], tmp_path) == 0
    assert hook.messages == []


def test_the_same_finding_is_not_sent_again_while_it_lasts(hook: Hook, tmp_path: Path) -> None:
    send(hook, found("org_a"), tmp_path)
    for number in range(1, 20):
        assert send(hook, found("org_a"), tmp_path, DAY.replace(day=11 + number)) == 0

    assert len(hook.messages) == 1


def test_a_new_finding_is_sent_beside_a_known_one(hook: Hook, tmp_path: Path) -> None:
    send(hook, found("org_a"), tmp_path)

    assert send(hook, found("org_a", "org_b"), tmp_path) == 1
    assert hook.messages[1]["message"] == ("- Credits: org_b is out.\nSent before: 1.\nAll of it: errata report")


@pytest.mark.parametrize(("later", "sent"), [(23, 0), (24, 1)], ids=["within a week", "after a week"])
def test_a_finding_that_comes_back_after_a_week_is_sent_again(
    hook: Hook, tmp_path: Path, later: int, sent: int
) -> None:
    send(hook, found("org_a"), tmp_path)

    assert send(hook, found("org_a"), tmp_path, DAY.replace(day=later)) == sent


def test_what_could_not_be_sent_is_new_the_next_time(hook: Hook, tmp_path: Path) -> None:
    hook.status = 500
    with pytest.raises(BadInput, match="did not take the message"):
        send(hook, found("org_a"), tmp_path)
    hook.status = 200

    assert send(hook, found("org_a"), tmp_path) == 1


def test_each_address_is_sent_what_it_does_not_know(hook: Hook, tmp_path: Path) -> None:
    send(hook, found("org_a"), tmp_path)
    other = hook.url.replace("errors", "others")

    assert notify(other, found("org_a"), lake=tmp_path, day=DAY, title="errata", command="errata report") == 1


@pytest.mark.parametrize("url", ["", "nothing", "nosuch://host/s3cret"])
def test_an_address_that_is_none_is_told_without_it(url: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--notify: expected an address of Apprise") as error:
        notify(url, found("org_a"), lake=tmp_path, day=DAY, title="errata", command="errata report")

    assert "s3cret" not in str(error.value)


def test_the_secret_of_an_address_is_nowhere(
    hook: Hook, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    hook.status = 500
    with pytest.raises(BadInput) as error:
        send(hook, found("org_a"), tmp_path)
    hook.status = 200
    send(hook, found("org_a"), tmp_path)

    out, err = capfd.readouterr()
    stored = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "s3cret" not in out + err + caplog.text + str(error.value) + stored


def test_a_message_holds_fifteen_findings_and_counts_the_rest(hook: Hook, tmp_path: Path) -> None:
    send(hook, found(*(f"org_{number}" for number in range(20))), tmp_path)

    lines = hook.messages[0]["message"].splitlines()
    assert (len(lines), lines[-2]) == (17, "and 5 more")


def test_a_memory_that_cannot_be_read_is_told(hook: Hook, tmp_path: Path) -> None:
    (tmp_path / "notified.json").write_text("{")

    with pytest.raises(BadInput, match="delete the file to send all again"):
        send(hook, found("org_a"), tmp_path)


# -- what is worth telling


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.question)
def test_every_subject_names_columns_of_its_question(subject: Any) -> None:
    columns = {column.name for column in questions()[subject.question].columns}

    assert {subject.word, *subject.who, *subject.facts} - {None} <= columns


def test_a_finding_says_what_about_whom_and_how_much() -> None:
    row = {"verdict": "retired", "caller": "key_a", "org_id": None, "calls": 1200, "last_seen": None}

    (finding,) = notable({"rejected_keys": [row]})

    assert finding.sentence == "Rejected keys: retired, key_a (calls 1,200)."


@pytest.mark.parametrize("word", ["not enough data", "works again", "never worked"])
def test_what_is_no_news_is_not_told(word: str) -> None:
    row = {"verdict": word, "caller": "key_a", "org_id": None, "calls": 1, "last_seen": None}

    assert notable({"rejected_keys": [row]}) == ()


def test_the_same_finding_keeps_its_id_when_its_numbers_change() -> None:
    row = {"verdict": "retired", "caller": "key_a", "org_id": "org_a", "calls": 1, "last_seen": None}

    first, second = (notable({"rejected_keys": [row | {"calls": calls}]})[0] for calls in (1, 2))

    assert (first.id, first.sentence == second.sentence) == (second.id, False)


def test_findings_come_in_the_order_of_a_morning_and_once_each() -> None:
    key = {"verdict": "retired", "caller": "key_a", "org_id": None, "calls": 1, "last_seen": None}
    storm = {"severity": "open", "method": "GET", "route": "/", "culprit": None, "requests": 9, "started_at": None}

    told = notable({"rejected_keys": [key, key], "retry_storms": [storm]})

    assert [finding.question for finding in told] == ["retry_storms", "rejected_keys"]
