"""The system calls with which a process gives up what it could reach; nothing here decides.

Python 3.11 has none of them, and the ``unshare`` program is not in every image. Every function
raises ``OSError`` if the kernel refuses, with the name of the call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NEW_MOUNTS: Final = 0x00020000
NEW_IPC: Final = 0x08000000
NEW_USER: Final = 0x10000000
NEW_PROCESSES: Final = 0x20000000
NEW_NETWORK: Final = 0x40000000
"""``CLONE_NEW*`` of ``unshare(2)``."""

_PARENT_DEATH_SIGNAL: Final = 1
_GET_DUMPABLE: Final = 3
_SET_DUMPABLE: Final = 4
_DROP_FROM_BOUNDING_SET: Final = 24
_SET_CHILD_SUBREAPER: Final = 36
_SET_NO_NEW_PRIVILEGES: Final = 38
"""``PR_*`` of ``prctl(2)``."""

_READ_ONLY: Final = 0x1
_NO_SETUID: Final = 0x2
_NO_DEVICES: Final = 0x4
_NO_PROGRAMS: Final = 0x8
_BIND: Final = 0x1000
_RECURSIVE: Final = 0x4000
_PRIVATE: Final = 0x40000
"""``MS_*`` of ``mount(2)``."""

_MOUNT_SETATTR: Final = 442
"""Number of the system call, the same on all machines; since Linux 5.12."""

_AT_CURRENT_FOLDER: Final = -100
_AT_RECURSIVE: Final = 0x8000
_CAPABILITY_VERSION: Final = 0x20080522
_MOST_CAPABILITIES: Final = 64
_SHARED_MEMORY_BYTES: Final = 2**30

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The files that a process keeps when all others become read-only or vanish.

    Attributes:
        folder: Where it starts.
        writable: What it may write below.
        readable: What must stay visible even below a folder that is hidden.
        hidden: Folders of which it sees nothing else.
    """

    folder: Path
    writable: tuple[Path, ...]
    readable: tuple[Path, ...]
    hidden: tuple[Path, ...]

    @property
    def kept(self) -> tuple[Path, ...]:
        """Everything that stays."""
        return (*self.writable, *self.readable)


def die_with_parent(number: signal.Signals) -> None:
    """Get a signal when the parent dies; forgotten by :func:`unshare`."""
    _prctl(_PARENT_DEATH_SIGNAL, number)


def become_subreaper() -> None:
    """Become the parent of all descendants whose own parent dies."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def is_dumpable() -> bool:
    """Whether other processes of this user may look into this one."""
    return bool(_prctl(_GET_DUMPABLE))


def set_dumpable(value: bool) -> None:  # noqa: FBT001  one switch
    """Let other processes of this user look into this one, or not."""
    _prctl(_SET_DUMPABLE, int(value))


def unshare(flags: int) -> None:
    """Leave the namespaces that are named; with a new user namespace, keep the own ids in it.

    In it the process has no right over anything outside, not even to read the environment of
    another process of the same user.
    """
    user, group = os.getuid(), os.getgid()
    _checked(_libc.unshare(flags), "unshare")
    if flags & NEW_USER:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def give_up_privileges() -> None:
    """Drop every capability for ever, and let no program give one back."""
    _prctl(_SET_NO_NEW_PRIVILEGES, 1)
    for capability in range(_MOST_CAPABILITIES):
        with suppress(OSError):  # beyond the last one, or not ours to drop
            _prctl(_DROP_FROM_BOUNDING_SET, capability)
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    _checked(_libc.capset(header, bytes(24)), "capset")


def keep_only(world: World) -> None:
    """Make all files read-only and hide some, but for those of ``world``; needs new mounts.

    What is hidden is replaced by an empty folder, into which the folders to keep are put back.
    """
    _mount("none", "/", "", _RECURSIVE | _PRIVATE)
    writable = _resolved(world.writable)
    kept = sorted({*writable, *_resolved(world.readable)})
    hidden = _without_nested(_resolved(world.hidden), kept)
    opened = {path: os.open(path, os.O_PATH) for path in kept}
    try:
        for folder in hidden:
            _mount("tmpfs", str(folder), "tmpfs", _NO_SETUID | _NO_DEVICES, "mode=0755,size=1m")
        for path, handle in opened.items():
            if not path.exists():
                _make_mount_point(path, like=handle)
            if path in writable or any(path.is_relative_to(folder) for folder in hidden):
                _mount(f"/proc/self/fd/{handle}", str(path), "", _BIND | _RECURSIVE)
    finally:
        for handle in opened.values():
            os.close(handle)
    _set_attributes("/", setting=_READ_ONLY, flags=_AT_RECURSIVE)
    for path in writable:
        _set_attributes(str(path), clearing=_READ_ONLY)
    memory = Path("/dev/shm")  # noqa: S108  the system's own name
    if memory.is_dir():
        options = f"mode=1777,size={_SHARED_MEMORY_BYTES}"
        _mount("tmpfs", str(memory), "tmpfs", _NO_SETUID | _NO_DEVICES, options)
    os.chdir(world.folder)  # the old one is a folder behind the new mounts


def mount_own_processes() -> None:
    """Show in ``/proc`` the processes of the own namespace alone.

    A container that masks parts of ``/proc`` makes the kernel refuse this.
    """
    _mount("proc", "/proc", "proc", _NO_SETUID | _NO_DEVICES | _NO_PROGRAMS)


def _resolved(paths: Iterable[Path]) -> set[Path]:
    return {path.resolve() for path in paths if os.path.exists(path)}  # noqa: PTH110  no error for what is closed


def _without_nested(folders: Iterable[Path], kept: Iterable[Path]) -> list[Path]:
    """Folders to cover: none inside another, none that lies inside something to keep."""
    found: list[Path] = []
    for folder in sorted(folders):
        if any(folder.is_relative_to(path) for path in (*found, *kept)):
            continue
        found.append(folder)
    return found


def _make_mount_point(path: Path, *, like: int) -> None:
    if os.path.isdir(f"/proc/self/fd/{like}"):  # noqa: PTH112  a Path would resolve the link
        path.mkdir(parents=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    words = [word.encode() or None for word in (source, target, kind, options)]
    result = _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])
    _checked(result, f"mount {target}")


def _set_attributes(path: str, *, setting: int = 0, clearing: int = 0, flags: int = 0) -> None:
    attributes = struct.pack("=QQQQ", setting, clearing, 0, 0)
    size = ctypes.c_size_t(len(attributes))
    here = ctypes.c_int(_AT_CURRENT_FOLDER)
    result = _libc.syscall(
        ctypes.c_long(_MOUNT_SETATTR), here, path.encode(), ctypes.c_uint(flags), attributes, size
    )
    _checked(result, f"mount_setattr {path}")


def _prctl(option: int, value: int = 0) -> int:
    zero = ctypes.c_ulong(0)
    return _checked(_libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero), "prctl")


def _checked(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        # "No space left on device" would send people to look at their disks.
        words = "user.max_user_namespaces" if number == errno.ENOSPC else os.strerror(number)
        raise OSError(number, f"{call}: {words}")
    return result
