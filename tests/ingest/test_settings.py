"""The settings of a lake: what may stand there, and one line for what may not."""

from pathlib import Path

import pytest

from ingest.schema import BadInput
from ingest.settings import Settings, read_settings


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", Settings(catalog=None, client_ip="keep", successes_days=None, errors_days=None)),
        ('catalog = "codes.csv"', Settings(catalog="codes.csv")),
        ('client_ip = "truncate"', Settings(client_ip="truncate")),
        ("[retention]", Settings()),
        ("[retention]\nsuccesses_days = 30", Settings(successes_days=30)),
        (
            'catalog = "c.csv"\nclient_ip = "drop"\nretention = { successes_days = 1, errors_days = 400 }',
            Settings(catalog="c.csv", client_ip="drop", successes_days=1, errors_days=400),
        ),
    ],
    ids=["nothing", "catalogue", "addresses", "an empty table", "a table", "all"],
)
def test_what_a_lakes_settings_say(tmp_path: Path, text: str, settings: Settings) -> None:
    (tmp_path / "settings.toml").write_text(text)

    assert read_settings(tmp_path) == settings


def test_a_lake_without_settings_or_that_is_not_there_yet_has_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert [read_settings(tmp_path / place) for place in (".", "nowhere", "file/below")] == [Settings()] * 3


MISTAKES = {
    "unknown setting": (
        'clientip = "drop"',
        "unknown setting clientip; expected catalog or client_ip or retention; did you mean client_ip?",
    ),
    "unknown and like none": (
        "colour = 1",
        "unknown setting colour; expected catalog or client_ip or retention; delete it",
    ),
    "unknown retention": (
        "[retention]\nerror_days = 3",
        "unknown setting retention.error_days; expected successes_days or errors_days; "
        "did you mean retention.errors_days?",
    ),
    "catalogue": ("catalog = 3", 'expected catalog = "PATH", found 3; write the path as a string'),
    "addresses": (
        'client_ip = "mask"',
        'client_ip has value \'mask\'; expected one of "keep", "truncate", "hash", "drop"',
    ),
    "addresses of another type": (
        "client_ip = [1]",
        'client_ip has value a list; expected one of "keep", "truncate", "hash", "drop"',
    ),
    "retention is no table": (
        "retention = 30",
        "expected the table [retention], found 30; write [retention] and below it errors_days = 365",
    ),
    "no days": ("[retention]\nerrors_days = 0", "retention.errors_days has value 0; expected a whole number of days, "),
    "half a day": ("[retention]\nerrors_days = 0.5", "retention.errors_days has value 0.5; expected a whole number"),
    "a text": ('[retention]\nsuccesses_days = "30"', "retention.successes_days has value '30'; expected a whole"),
    "a boolean": ("[retention]\nsuccesses_days = true", "retention.successes_days has value True; expected a whole"),
    "no TOML": ("catalog =", "expected TOML ("),
}


@pytest.mark.parametrize(("text", "told"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_file_and_what_to_do(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "settings.toml").write_text(text)

    with pytest.raises(BadInput) as raised:
        read_settings(tmp_path)

    assert str(raised.value).startswith(f"{tmp_path}/settings.toml: {told}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"\xff", None], ids=["no UTF-8", "a folder"])
def test_settings_that_cannot_be_read_are_not_taken_for_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "settings.toml"
    path.mkdir() if content is None else path.write_bytes(content)

    with pytest.raises(BadInput, match=r"settings\.toml: (expected TOML|the settings cannot be read: Is a directory)"):
        read_settings(tmp_path)
