"""Takes from a process what a model's code has no need of, as far as the kernel allows it.

Guarantees: with the strongest level the process has no network, sees no other process, can write
nothing but its own folders, and does not see the user's home, the temporary files and the sockets
of others; it and whatever it started, detached or not, are gone when its guard has ended. What the
kernel refuses is left out, level by level, and told in words.

A forbidden step cannot be undone in a process, so each level is tried in a fork first.
"""

from __future__ import annotations

import errno
import os
import pwd
import select
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from pipeline.errors import SettingsError
from pipeline.flows import namespaces
from pipeline.flows.guard import guard, report
from pipeline.flows.namespaces import World

_HIDDEN: Final = ("/home", "/root", "/tmp", "/var/tmp", "/run", "/var/run")  # noqa: S108
"""Where credentials, files of others, and sockets lie that a network namespace does not cut."""

NOT_AS_TRIED: Final = 75
"""Exit status of a process that cannot leave behind what another one could."""


class Mode(StrEnum):
    """How much isolation is wished."""

    AUTO = "auto"
    """As much as there is."""

    REQUIRE = "require"
    """No network and no writing, or nothing is run."""

    OFF = "off"
    """None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One combination of what is taken away.

    Attributes:
        network: No address can be reached.
        files: Only the own folders can be written, and homes are hidden.
        processes: No other process is seen, and none can be left behind.
        privileges: Root is no more than any user.
    """

    network: bool = False
    files: bool = False
    processes: bool = False
    privileges: bool = True

    @property
    def namespaces(self) -> int:
        """What to leave."""
        flags = namespaces.NEW_USER | namespaces.NEW_NETWORK | namespaces.NEW_IPC
        flags |= namespaces.NEW_MOUNTS if self.files else 0
        flags |= namespaces.NEW_PROCESSES if self.processes else 0
        return flags if self.network else 0

    @property
    def missing(self) -> str:
        """What is left within reach, in words; empty if nothing is."""
        words = ["the network"] * (not self.network)
        words += ["the files of this user"] * (not self.files)
        return " and ".join(words)


_LEVELS: Final = (
    Level(network=True, files=True, processes=True),
    Level(network=True, files=True),  # in a container that masks parts of /proc
    Level(network=True),  # where mounting is forbidden
    Level(),
    Level(privileges=False),  # the only way for a root that reads others' private files
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """Where a process is now.

    Attributes:
        level: What was taken away.
        reason: Why not more, in the words of the kernel; empty if there is no more, or none was
            wished.
        world: The files that were kept, where the others were taken away.
    """

    level: Level
    reason: str = ""
    world: World | None = None

    def hides(self, path: Path) -> Path | None:
        """The folder behind which a file was hidden, if it was."""
        if self.world is None or any(map(path.is_relative_to, self.world.kept)):
            return None
        return next((f for f in self.world.hidden if path.is_relative_to(f)), None)

    @property
    def told(self) -> str:
        """What somebody should know who believes in isolation; empty if there is nothing."""
        if not self.reason or not self.level.missing:
            return ""
        return f"the model's code runs within reach of {self.level.missing}: {self.reason}"


def enter(
    mode: Mode,
    *,
    parent: int,
    writable: Iterable[Path],
    readable: Iterable[Path],
    known: Entered | None = None,
) -> Entered:
    """Go on in a process of its own, guarded by the calling one, which never returns.

    The guard ends as the process ends: with its status, or by the same signal. It ends it, and all
    that it started, on SIGTERM and when ``parent`` dies. Must be called before there are threads.

    Args:
        mode: How much isolation is wished.
        parent: Process id of the parent.
        writable: Folders that may be written; the current one is in one of them.
        readable: Files and folders that must stay visible, besides those that Python needs.
        known: What :func:`tried` found in the process that this one is a fork of. If that was the
            strongest level, nothing is tried, and the process ends with the status
            :data:`NOT_AS_TRIED` if it does not work.

    Raises:
        SettingsError: Isolation is required, and the kernel refuses it.
    """
    wanted = _accessible(readable)
    if known is not None and known.level != _LEVELS[0]:
        known = None  # what was refused then may be allowed now
    if known is None or mode is Mode.OFF:
        world = _world(writable, (*wanted, *_accessible(_needed_by_python())))
        entered = _strongest(mode, world)
    else:
        # Looking through all modules again would copy the pages that they are in.
        world = _world(writable, (*wanted, *(known.world.readable if known.world else ())))
        entered = replace(known, world=world if known.level.files else None)
    if mode is Mode.REQUIRE and entered.level.missing:
        raise SettingsError(
            f"TRITONPIPE_ISOLATION is {mode.value}, but a model's code would be within reach of "
            f"{entered.level.missing}: {entered.reason}",
            hint="allow user namespaces on this machine or for this container, or set "
            "TRITONPIPE_ISOLATION to auto and isolate the whole program",
        )
    try:
        _descend(entered.level, world, parent)
        if known is not None:
            _try_out(world, wanted)
    except OSError:
        if known is None:
            raise
        os._exit(NOT_AS_TRIED)  # for this process there is no way back
    return entered


def tried() -> Entered:
    """What this kernel allows a process in this folder; for forks of this process."""
    return _strongest(Mode.AUTO, _world((Path.cwd(),), _accessible(_needed_by_python())))


def _world(writable: Iterable[Path], readable: Iterable[Path]) -> World:
    return World(
        folder=Path.cwd(),
        writable=tuple(writable),
        readable=tuple(readable),
        hidden=tuple(map(Path, (*_HIDDEN, *_home()))),
    )


def _home() -> tuple[str, ...]:
    try:
        return (pwd.getpwuid(os.getuid()).pw_dir,)
    except KeyError:  # a user id without a name, as containers have them
        return ()


def _needed_by_python() -> tuple[Path, ...]:
    """Everything that modules and libraries may come from."""
    places = [*sys.path, sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]
    places += os.environ.get("LD_LIBRARY_PATH", "").split(":")
    for name, module in sys.modules.items():
        if name.startswith("__editable__"):  # setuptools' own way, which is not in sys.path
            places += getattr(module, "MAPPING", {}).values()
    return tuple(Path(place) for place in places if place.startswith("/"))


def _accessible(paths: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(path for path in paths if os.access(path, os.R_OK))


def _strongest(mode: Mode, world: World) -> Entered:
    """The first level that works when it is tried, and why the first of all does not."""
    if mode is Mode.OFF:
        return Entered(level=_LEVELS[-1])
    reason = ""
    for level in _LEVELS[:-1]:
        refusal = _refusal(level, world)
        if not refusal:
            return Entered(level=level, reason=reason, world=world if level.files else None)
        reason = reason or refusal
    return Entered(level=_LEVELS[-1], reason=reason)


def _refusal(level: Level, world: World) -> str:
    """What the kernel says to a level, tried in a fork; empty if it works."""
    reading, writing = os.pipe()
    here = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _descend(level, world, here)
            _try_out(world, world.readable)
        except OSError as error:
            os.write(writing, str(error.strerror or error).encode())
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        refusal = pipe.read().decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    return refusal or ("" if status == 0 else f"it ended with status {status}")


def _try_out(world: World, readable: Iterable[Path]) -> None:
    """Use what the work will need: a level that breaks it is no level."""
    for path in readable:
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, f"{path} can no longer be read")
        for package in path.glob("*/"):
            # Some installers link every file to a cache below the user's home.
            beginning = package / "__init__.py"
            if beginning.is_symlink() and not beginning.exists():
                raise PermissionError(errno.EACCES, f"{beginning} leads to what is hidden")
    trial = world.folder / ".trial"
    trial.write_bytes(b"")
    trial.unlink()


def _descend(level: Level, world: World, parent: int) -> None:
    """Return in the innermost process, with everything taken away; the others only guard."""
    if level.namespaces:
        namespaces.unshare(level.namespaces)
    namespaces.die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:  # it died before the line above
        raise SystemExit("the parent process is gone")
    namespaces.become_subreaper()
    reading, writing = os.pipe()
    alive_reading, alive_writing = os.pipe()
    inner = os.fork()
    if inner != 0:
        os.close(writing)
        os.close(alive_reading)
        guard(inner, reading)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    namespaces.die_with_parent(signal.SIGKILL)
    os.close(reading)
    os.close(alive_writing)
    if select.select([alive_reading], [], [], 0)[0]:  # its other end is closed: no guard any more
        os._exit(1)
    os.close(alive_reading)
    if level.files:
        namespaces.keep_only(world)
    if level.processes:
        namespaces.mount_own_processes()
        # The first process of a namespace gets no signal that it does not handle, not even of a
        # limit; so it does nothing but wait, and its end is the end of all others.
        work = os.fork()
        if work != 0:
            report(work, writing)
        namespaces.die_with_parent(signal.SIGKILL)
    os.close(writing)
    if level.privileges:
        namespaces.give_up_privileges()
