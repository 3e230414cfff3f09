"""The state directory: everything that one embedded stack keeps on disk, and the lock around it.

::

    <state>/
    ├── .tritonpipe-state   marks the folder as ours; nothing else is ever deleted
    ├── lock                held by the command that starts or stops servers
    ├── stack.json          ports and options, so that addresses survive down and up
    ├── secrets/            S3 key, credentials file of Triton, webhook key
    ├── run/                which processes were started, one record per part
    ├── logs/               one log per part, and the one of its previous run
    ├── locks/              held by publishers, one file per model
    ├── s3/                 buckets and objects
    ├── mlflow/             registry database and artifacts
    ├── mirror/             local copy of the model repository, if Triton reads that
    └── triton/             backends and the copies of models that Triton downloads

Guarantees: the directory belongs to its owner alone (0700, secrets 0600); files are replaced in one
step, so a reader never sees half of one; a folder with other content is never taken or deleted.
"""

from __future__ import annotations

import enum
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pipeline.errors import SettingsError
from pipeline.flows.progress import Progress
from pipeline.serialization import from_json, to_json
from pipeline.stack.ports import Ports

MARKER: Final = ".tritonpipe-state"
VARIABLE: Final = "TRITONPIPE_STATE_DIR"


def default_state_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """``$TRITONPIPE_STATE_DIR``, else ``$XDG_STATE_HOME/tritonpipe`` or its default."""
    if chosen := environment.get(VARIABLE):
        return Path(chosen)
    base = environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "tritonpipe"


class Mirroring(enum.StrEnum):
    """What Triton reads: S3 itself, or a mirror of it."""

    OFF = "off"
    POLL = "poll"
    EXPLICIT = "explicit"


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """What a stack remembers between commands.

    Attributes:
        ports: Where its servers listen.
        poll_seconds: How often Triton, and a mirror, looks for changes of the repository.
        mirroring: Whether there is a mirror between S3 and Triton, and who looks for its changes.
        python: The Python that carries the servers; None for the one that runs this program.
    """

    ports: Ports = field(default_factory=Ports)
    poll_seconds: int = 1
    mirroring: Mirroring = Mirroring.OFF
    python: Path | None = None


class StateDirectory:
    """One stack's folder; creates nothing until :meth:`create` is called."""

    def __init__(self, path: Path) -> None:
        # However it is spelled: names derived from the path must be the same every time.
        self.path = path.expanduser().resolve()

    def folder(self, name: str) -> Path:
        """A subfolder, made if it is missing."""
        folder = self.path / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def log(self, part: str) -> Path:
        """The log of a part's present or last run."""
        return self.path / "logs" / f"{part}.log"

    def record(self, part: str) -> Path:
        """Where it is kept which process runs a part."""
        return self.path / "run" / f"{part}.json"

    @property
    def exists(self) -> bool:
        """Whether a stack has ever been started here."""
        return (self.path / MARKER).is_file()

    def create(self) -> None:
        """Make the directory or check that it is ours.

        Raises:
            SettingsError: It holds something else, or cannot be made.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.exists and any(self.path.iterdir()):
                raise SettingsError(
                    f"{self.path} is not empty and not the state of a stack",
                    hint="choose another folder with --state-dir or TRITONPIPE_STATE_DIR",
                )
            self.path.chmod(0o700)
            (self.path / MARKER).touch(mode=0o600)
        except OSError as error:
            raise SettingsError(
                f"cannot use {self.path} for the state of the stack: {error.strerror}",
                hint="choose another folder with --state-dir or TRITONPIPE_STATE_DIR",
            ) from error

    def require_deletable(self) -> None:
        """Return if the directory is ours or there is none.

        Raises:
            SettingsError: It is not the state of a stack.
        """
        if self.path.exists() and not self.exists:
            raise SettingsError(f"{self.path} is not the state of a stack; it was not deleted")

    def delete(self) -> None:
        """Remove the directory and all data in it; call with the lock held.

        Raises:
            SettingsError: It is not the state of a stack.
        """
        self.require_deletable()
        for entry in sorted(self.path.iterdir()):
            if entry.name in {MARKER, "lock"}:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        # The marker and the lock go last: killed before, the rest is still known to be ours.
        shutil.rmtree(self.path)

    def options(self) -> StackOptions:
        """What was remembered; the defaults if nothing was."""
        path = self.path / "stack.json"
        if not path.is_file():
            return StackOptions()
        options: StackOptions = from_json(StackOptions, json.loads(path.read_text()))
        return options

    def remember(self, options: StackOptions) -> None:
        """Keep the options for the next command."""
        write_json(self.path / "stack.json", to_json(options))

    @contextmanager
    def locked(self, progress: Progress) -> Iterator[None]:
        """Be the only command that starts or stops servers of this stack.

        Waits for another one to finish; the kernel frees the lock of one that was killed.
        """
        descriptor = self._try_lock()
        if descriptor is None:
            with progress("waiting for another command on this stack"):
                while (descriptor := self._try_lock()) is None:
                    time.sleep(0.1)
        try:
            yield
        finally:
            os.close(descriptor)

    def _try_lock(self) -> int | None:
        path = self.path / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Deleted between open and lock: the lock would be on a file that nobody else sees.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BlockingIOError:
            pass
        os.close(descriptor)
        return None


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner can read it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step."""
    write_private(path, json.dumps(value, indent=1) + "\n")
