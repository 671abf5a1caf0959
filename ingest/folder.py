"""The files that a path names: what is below a folder and what a glob matches, whatever the folders hold.

Knows links, pipes and what may not be read. Opens no file.
"""

import glob
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MAC_METADATA: Final = "__MACOSX"


@dataclass(frozen=True)
class Found:
    """A file, by the name that a person knows it by; `problem` says why nobody can read it, in words after the name."""

    name: str
    problem: str = ""


def is_left_out(name: str) -> bool:
    """Whether a file or folder of this name is none of its folder's logs: hidden, or what an editor or a Mac left."""
    is_backup = name.endswith("~") or (len(name) > 1 and name.startswith("#") and name.endswith("#"))
    return is_backup or name == _MAC_METADATA or (name.startswith(".") and name not in {".", ".."})


def files_below(folder: Path, lake: Path | None) -> list[Found]:
    """The regular files below `folder` in the order of their names, and what of it cannot be listed.

    Links are followed, but a folder is entered once and none that holds the link. Sockets, pipes, devices and links to
    nothing are left out, as is what `is_left_out`, and the folder `lake`, which is resolved.
    """
    found = []
    for here, entries, problem in _folders(folder, lake):
        if problem:
            found.append(Found(str(here), problem))
        for entry in entries:
            path = here / entry.name
            if entry.is_symlink() and _is_inside(path, lake):
                continue
            mode, problem = _mode(entry)
            if stat.S_ISREG(mode) or problem:
                found.append(Found(str(path), problem))
    return sorted(found, key=lambda file: file.name)


def files_matching(pattern: str, lake: Path | None) -> list[Found]:
    """The regular files that match a glob, in the order of their names; `**` stands for any number of folders."""
    names = {name for name in _matches(pattern) if Path(name).is_file() and not _is_inside(Path(name), lake)}
    return [Found(name) for name in sorted(names)]


def _matches(pattern: str) -> Iterator[str]:
    above, is_deep, rest = _at_any_depth(pattern)
    if not is_deep:
        yield from glob.iglob(pattern)  # noqa: PTH207 - keeps the user's spelling
        return
    # The library's own ** goes around in loops of links.
    for top in glob.iglob(above) if above else ["."]:  # noqa: PTH207 - as above
        for here, _, _ in _folders(Path(top), None):
            folder = "" if not above and here == Path() else f"{glob.escape(str(here))}/"
            yield from _matches(folder.replace("//", "/") + (rest or "*"))


def _at_any_depth(pattern: str) -> tuple[str, bool, str]:
    """What stands before the first ** that is a part of its own, whether there is one, and what comes after it."""
    found = re.search(r"(?:^|(?<=/))\*\*(?:$|/)", pattern)
    return (pattern[: found.start()], True, pattern[found.end() :]) if found else (pattern, False, "")


def _folders(top: Path, lake: Path | None) -> Iterator[tuple[Path, list[os.DirEntry[str]], str]]:
    """`top` and each folder below it once, with what is in it, or the reason why that cannot be known."""
    seen: set[tuple[int, int]] = set()
    folders, links = [top], list[Path]()
    while folders or links:
        # What is below links comes last: a folder that is also there without them goes by that name.
        here = folders.pop() if folders else links.pop(0)
        if here != top and here.is_symlink() and here.parent.resolve().is_relative_to(here.resolve()):
            continue
        try:
            status = here.stat()
            if (status.st_dev, status.st_ino) in seen or _is_inside(here, lake):
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(here) as listing:
                entries = [entry for entry in listing if not is_left_out(entry.name)]
        except OSError as error:
            yield here, [], f"cannot be listed: {error.strerror}"
            continue
        yield here, entries, ""
        for entry in sorted(entries, key=lambda entry: entry.name):
            if stat.S_ISDIR(_mode(entry)[0]):
                (links if entry.is_symlink() else folders).append(here / entry.name)


def _mode(entry: os.DirEntry[str]) -> tuple[int, str]:
    """What kind of file `entry` is in the end, 0 where it is none; and why that cannot be known."""
    try:
        return entry.stat().st_mode, ""
    except PermissionError as error:
        return 0, f"cannot be read: {error.strerror}"
    except OSError:
        # A link to nothing or to itself, or gone since the folder was listed.
        return 0, ""


def _is_inside(path: Path, lake: Path | None) -> bool:
    # `Path.resolve` raises for a link to itself.
    return lake is not None and Path(os.path.realpath(path)).is_relative_to(lake)
