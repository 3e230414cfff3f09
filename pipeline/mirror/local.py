"""The local repository: what Triton reads, changed in single steps that are right by themselves.

A version folder appears by one rename, a config by another, a new model with both by one. Whoever
is killed between two steps leaves a repository that Triton can load, and in ``staging/`` what the
next start clears away.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from pathlib import Path
from typing import Final

from pipeline.errors import ConflictError, SettingsError
from pipeline.flows.publish import WARMUP_TEXT
from pipeline.mirror.files import (
    empty_folder,
    exchange,
    file_states,
    move,
    newest_mtime_ns,
    sync_tree,
)
from pipeline.mirror.records import (
    ModelRecord,
    VersionRecord,
    read_record,
    write_atomically,
    write_record,
)
from pipeline.model_config import CONFIG_NAME, WARMUP_FOLDER

_MARKER: Final = "mirror.json"
_OF_THE_VOLUME: Final = "lost+found"
_STEP_NS: Final = 1_000_000
_COARSE_STEP_NS: Final = 2_000_000_000
"""Some file systems keep whole, or every second, seconds."""


class LocalRepository:
    """The mirror's folder; see :mod:`pipeline.mirror` for what is in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.expanduser().absolute()
        self.repository = self.directory / "repository"
        self._staging = self.directory / "staging"
        self._state = self.directory / "state"
        self._lock: int | None = None

    def open(self, url: str) -> None:
        """Make or take the folder for a mirror of ``url``, and clear what a killed one left.

        Raises:
            SettingsError: It holds something else, mirrors another repository, or is on several
                file systems.
            ConflictError: Another mirror works in it.
        """
        self._require_ours(url)
        try:
            for folder in (self.repository, self._staging, self._state / "models"):
                folder.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            write_atomically(self._state / _MARKER, json.dumps({"url": url}).encode())
            devices = {p.stat().st_dev for p in (self.repository, self._staging, self._state)}
            if len(devices) > 1:
                raise SettingsError(
                    f"{self.directory} is on several file systems, where a rename is a copy",
                    hint="mount the whole folder as one volume, and give Triton its repository/",
                )
            empty_folder(self._staging)
        except OSError as error:
            raise SettingsError(
                f"cannot use {self.directory} for a mirror: {error}",
                hint="give a folder that this user can write",
            ) from error

    def close(self) -> None:
        """Let another mirror work in the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def models(self) -> set[str]:
        """The models that are in place."""
        if not self.repository.is_dir():
            return set()
        return {path.name for path in self.repository.iterdir() if path.is_dir()}

    def config(self, model: str) -> str | None:
        """The local config of a model; None if there is none that is text."""
        try:
            return (self.repository / model / CONFIG_NAME).read_bytes().decode()
        except (OSError, UnicodeDecodeError):
            return None

    def version_folder(self, model: str, version: int) -> Path:
        """Where a version is, or would be."""
        return self.repository / model / str(version)

    def version_folders(self, model: str) -> set[int]:
        """The versions of a model that are in place."""
        folder = self.repository / model
        if not folder.is_dir():
            return set()
        return {int(path.name) for path in folder.iterdir() if path.name.isdigit()}

    def is_unchanged(self, model: str, version: int, record: VersionRecord | None) -> bool:
        """Whether the version looks as when it was verified: the same files, sizes and times."""
        folder = self.version_folder(model, version)
        return record is not None and folder.is_dir() and file_states(folder) == record.files

    def record(self, model: str) -> ModelRecord:
        """What is remembered of a model."""
        return read_record(self._record_path(model))

    def remember(self, model: str, record: ModelRecord) -> None:
        """Remember something else of a model."""
        write_record(self._record_path(model), record)

    def free_bytes(self) -> int:
        """Space left where the folder is; 0 if the folder is gone."""
        try:
            return shutil.disk_usage(self.directory).free
        except OSError:
            return 0

    def stage(self, model: str, version: int) -> Path:
        """An empty folder to make a version in."""
        return empty_folder(self._staging / model / str(version))

    def place_version(self, model: str, version: int, staged: Path) -> None:
        """Put a verified version in place, in the stead of one that no config names."""
        folder = self.version_folder(model, version)
        if folder.exists():
            self._discard(folder)
        move(staged, folder)

    def place_config(self, model: str, config: str, newest_seen_ns: int) -> int:
        """Replace the config of a model by one that is strictly newer than all that Triton saw.

        Returns:
            Its modification time.
        """
        newest = max(newest_seen_ns, newest_mtime_ns(self.repository / model))
        self._ensure_warmup_folder(self.repository / model)
        staged = self._staging / model / CONFIG_NAME
        staged.parent.mkdir(exist_ok=True)
        mtime_ns = _write_newer(staged, config, newest)
        move(staged, self.repository / model / CONFIG_NAME)
        return mtime_ns

    def place_model(
        self, model: str, config: str, staged: dict[int, Path], newest_seen_ns: int
    ) -> int:
        """Put a whole model in place in one step, with the versions of it that were there.

        Used for a model that is new, and where the bytes of a version change that the local config
        names: between two steps, the old config would name the new bytes.

        Returns:
            The modification time of its config.
        """
        target = self.repository / model
        entry = empty_folder(self._staging / model / "entry")
        for version in self.version_folders(model) - staged.keys():
            shutil.copytree(target / str(version), entry / str(version), copy_function=os.link)
        for version, folder in staged.items():
            folder.rename(entry / str(version))
        self._ensure_warmup_folder(entry)
        newest = max(newest_seen_ns, newest_mtime_ns(target))
        mtime_ns = _write_newer(entry / CONFIG_NAME, config, newest)
        sync_tree(entry)
        if target.exists():
            exchange(entry, target)
        else:
            move(entry, target)
        self.clear_staging(model)
        return mtime_ns

    def remove_version(self, model: str, version: int) -> None:
        """Take away a version that no config names."""
        folder = self.version_folder(model, version)
        if folder.exists():
            self._discard(folder)

    def remove_model(self, model: str) -> None:
        """Take away a whole model in one step."""
        folder = self.repository / model
        if folder.exists():
            self._discard(folder)
        self._record_path(model).unlink(missing_ok=True)

    def clear_staging(self, model: str) -> None:
        """Remove what a job on this model left."""
        shutil.rmtree(self._staging / model, ignore_errors=True)

    def _discard(self, folder: Path) -> None:
        # No model's name begins with a dot.
        trash = empty_folder(self._staging / f".trash-{folder.parent.name}-{folder.name}")
        move(folder, trash / folder.name)
        shutil.rmtree(trash)

    def _record_path(self, model: str) -> Path:
        return self._state / "models" / f"{model}.json"

    def _require_ours(self, url: str) -> None:
        marker = self._state / _MARKER
        try:
            mirrored = json.loads(marker.read_bytes())["url"]
        except FileNotFoundError:
            # Killed before the marker was written, the folders are there and empty.
            ours = {self.repository, self._staging, self._state, self.directory / _OF_THE_VOLUME}
            found = set(self.directory.iterdir()) if self.directory.is_dir() else set()
            if found - ours or self.models():
                raise SettingsError(
                    f"{self.directory} is not empty and not the folder of a mirror",
                    hint="give an empty folder; Triton is then pointed at its repository/",
                ) from None
            return
        except (OSError, ValueError, KeyError, TypeError):
            return  # damaged; it is written anew, and everything local is verified anyway
        if mirrored != url:
            raise SettingsError(
                f"{self.directory} mirrors {mirrored}, not {url}",
                hint="give another folder, or delete this one",
            )

    def _take_lock(self) -> None:
        descriptor = os.open(self._state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConflictError(
                f"another mirror works in {self.directory}",
                hint="stop it, or give another folder: one mirror serves one Triton or several",
            ) from None
        self._lock = descriptor

    @staticmethod
    def _ensure_warmup_folder(folder: Path) -> None:
        """Warm-up data lies in the version folders, and Triton reaches it through this one."""
        marker = folder / WARMUP_FOLDER / "README"
        if not marker.exists():
            marker.parent.mkdir(exist_ok=True)
            marker.write_bytes(WARMUP_TEXT)


def _write_newer(path: Path, text: str, newest_ns: int) -> int:
    with path.open("wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    wanted = max(time.time_ns(), newest_ns + _STEP_NS)
    os.utime(path, ns=(wanted, wanted))
    if path.stat().st_mtime_ns <= newest_ns:
        wanted = newest_ns + _COARSE_STEP_NS
        os.utime(path, ns=(wanted, wanted))
    return path.stat().st_mtime_ns
