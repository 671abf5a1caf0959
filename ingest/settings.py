"""What the operator of a lake decided for it: `<lake>/settings.toml`, read before rows enter it or leave it.

Knows the names and values that may stand there; knows not what they do. `analysis` reads `catalog` by itself.
"""

import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

from ingest.schema import BadInput

ClientIp = Literal["keep", "truncate", "hash", "drop"]
"""What becomes of the address of a client: kept, cut to its network (/24 of IPv4, /48 of IPv6), a keyed fingerprint,
or nothing."""


@dataclass(frozen=True)
class Settings:
    """The settings of a lake; without `successes_days` or `errors_days` such rows are kept for ever."""

    catalog: str | None = None
    client_ip: ClientIp = "keep"
    successes_days: int | None = None
    errors_days: int | None = None


_KEYS: Final = ("catalog", "client_ip", "retention")
_RETENTION: Final = ("successes_days", "errors_days")


def settings_path(lake: Path) -> Path:
    """Where the settings of a lake are written, by a person."""
    return lake / "settings.toml"


def read_settings(lake: Path) -> Settings:
    """The settings of `lake`, the defaults where it has none; raises BadInput that names the entry at fault."""
    path = settings_path(lake)
    try:
        entries = tomllib.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return Settings()
    except OSError as error:
        raise BadInput(f"{path}: the settings cannot be read: {error.strerror}; make the file readable") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path}: expected TOML ({error}); correct or delete the file") from error
    _refuse_unknown(path, entries, _KEYS)
    retention = entries.get("retention", {})
    if not isinstance(retention, dict):
        raise BadInput(
            f"{path}: expected the table [retention], found {_found(retention)}; write [retention] and below it "
            "errors_days = 365"
        )
    _refuse_unknown(path, retention, _RETENTION, "retention.")
    return Settings(
        catalog=_catalog(path, entries.get("catalog")),
        client_ip=_client_ip(path, entries.get("client_ip", "keep")),
        successes_days=_days(path, "successes_days", retention.get("successes_days")),
        errors_days=_days(path, "errors_days", retention.get("errors_days")),
    )


def _refuse_unknown(path: Path, entries: dict[str, Any], known: tuple[str, ...], table: str = "") -> None:
    for name in entries:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            remedy = f"did you mean {table}{near[0]}?" if near else "delete it"
            raise BadInput(f"{path}: unknown setting {table}{name}; expected {' or '.join(known)}; {remedy}")


def _catalog(path: Path, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise BadInput(f'{path}: expected catalog = "PATH", found {_found(value)}; write the path as a string')


def _client_ip(path: Path, value: object) -> ClientIp:
    if value in get_args(ClientIp):
        return cast("ClientIp", value)
    choices = ", ".join(f'"{choice}"' for choice in get_args(ClientIp))
    raise BadInput(f"{path}: client_ip has value {_found(value)}; expected one of {choices}")


def _days(path: Path, name: str, value: object) -> int | None:
    # A bool is an int to Python, and no number of days to anybody.
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise BadInput(
        f"{path}: retention.{name} has value {_found(value)}; expected a whole number of days, 1 or more; "
        "leave it out to keep them for ever"
    )


def _found(value: object) -> str:
    return repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"
