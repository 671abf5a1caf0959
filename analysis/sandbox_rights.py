"""Rights that a process gives up for good, as far as its machine knows them: files, network, memory, processes.

Knows Linux; elsewhere the limits of POSIX remain. Knows no engine and no query. Landlock and capabilities belong to a
thread and are inherited by those that it starts: call `give_up_rights` before the first one starts.
"""

import ctypes
import os
import resource
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

NOGROUP: Final = 65534
"""The group of a process that was root."""

_NOBODY: Final = 65534
_OPEN_FILES: Final = 512
_NICENESS: Final = 10

# From linux/prctl.h, linux/capability.h and linux/landlock.h; the system calls have these numbers on every machine.
_NO_NEW_PRIVILEGES: Final = 38
_CAPABILITY_VERSION: Final = 0x20080522
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_READ_FILE: Final = 1 << 2
# By the version of Landlock that brought them: rights over files, over TCP, and over sockets and signals of others.
_FILE_RIGHTS: Final = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 5: 0xFFFF}
_TCP_RIGHTS: Final = {4: 0b11}
_SCOPES: Final = {6: 0b11}


def give_up_rights(readable: Sequence[str], *, memory_bytes: int, cpu_s: int) -> None:
    """Leaves this process the right to compute, to use the pipes it has, and to read the files `readable`.

    It may map `memory_bytes` more than now and use `cpu_s` seconds of processors. It writes no file, whoever runs it.
    Root becomes nobody, or the owner of the first file where nobody may not read them all.
    """
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_AS: _mapped_bytes() + memory_bytes,
    }
    for limit, most in limits.items():
        _lower(limit, most)
    os.nice(_NICENESS)
    if os.geteuid() == 0:
        _stop_being_root(readable)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        # Root without a capability is the owner of its files and nothing else.
        libc.capset(struct.pack("Ii", _CAPABILITY_VERSION, 0), bytes(24))
        _allow_reading_alone(libc, readable)


def start_no_process() -> None:
    """From now on this process starts neither processes nor threads; the kernel lets root do so nevertheless."""
    _lower(resource.RLIMIT_NPROC, 0)


def _lower(limit: int, most: int) -> None:
    """Sets a limit, never above the one that there is; macOS has no limit of mapped memory to set."""
    _, hard = resource.getrlimit(limit)
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(limit, (least, least))


def _mapped_bytes() -> int:
    """How much memory the engines' libraries have mapped by now; 0 where that is not told."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def _stop_being_root(readable: Sequence[str]) -> None:
    owner = Path(readable[0]).stat().st_uid
    os.setgroups([])
    os.setresgid(NOGROUP, NOGROUP, NOGROUP)
    uid = _NOBODY if _may_read(_NOBODY, readable) else owner
    os.setresuid(uid, uid, uid)


def _may_read(uid: int, paths: Sequence[str]) -> bool:
    os.seteuid(uid)
    try:
        return all(os.access(path, os.R_OK, effective_ids=True) for path in paths)
    finally:
        os.seteuid(0)


def _allow_reading_alone(libc: ctypes.CDLL, readable: Sequence[str]) -> None:
    """Forbids everything that Landlock can forbid, but to read the files `readable`; nothing on an older kernel."""
    version = libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)
    if version < 1:
        return
    files, tcp, scopes = (_known(rights, version) for rights in (_FILE_RIGHTS, _TCP_RIGHTS, _SCOPES))
    handled = struct.pack("QQQ", files, tcp, scopes)[: 24 if scopes else 16 if tcp else 8]
    ruleset = libc.syscall(_CREATE_RULESET, handled, len(handled), 0)
    for path in readable:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", _READ_FILE, handle), 0)
        os.close(handle)
    libc.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _known(rights: dict[int, int], version: int) -> int:
    return max((right for since, right in rights.items() if since <= version), default=0)
