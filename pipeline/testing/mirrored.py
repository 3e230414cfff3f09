"""A mirror whose jobs run at once, a file system on which it dies, and what must hold meanwhile."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from unittest import mock

from pipeline.manifest import MANIFEST_NAME, differences, manifest_from_bytes
from pipeline.mirror.advance import Advance, Rules
from pipeline.mirror.files import exchange
from pipeline.mirror.follow import Follower
from pipeline.mirror.local import LocalRepository
from pipeline.mirror.remote import Remote
from pipeline.mirror.seal import Seal
from pipeline.model_config import CONFIG_NAME, WARMUP_FOLDER, served_versions
from pipeline.stores import Store
from pipeline.testing.simulated import Killed

EAGER: Final = Rules(grace_seconds=1e9, reserve_bytes=0, retry_seconds=0)
_CHANGES: Final = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.utime", "os.link"}
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Inline(Executor):
    """Runs everything at once, in order, so that the same fault hits the same step every time."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run it now; only what is no error, such as being killed, is raised here."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  whatever it is, the future has it
            future.set_exception(error)
        return future


class InlineMirror:
    """A mirror in one thread."""

    def __init__(
        self,
        store: Store,
        directory: Path,
        *,
        rules: Rules = EAGER,
        seal: Seal | None = None,
        read_digests: bool = False,
    ) -> None:
        self.told: list[str] = []
        self.local = LocalRepository(directory)
        try:
            self.local.open(store.url)
            remote, inline = Remote(store), Inline()
            advance = Advance(remote, self.local, rules, downloads=inline, seal=seal)
            self.follower = Follower(
                remote, self.local, advance, rules, jobs=inline, tell=self.told.append
            )
            self.follower.start(read_digests=read_digests)
        except BaseException:
            self.local.close()
            raise

    def look(self) -> None:
        """Take one listing and carry out what follows."""
        self.follower.look()

    def close(self) -> None:
        """The process is gone."""
        self.local.close()

    def serving(self, model: str) -> tuple[int, ...]:
        """The versions that the local config names."""
        text = self.local.config(model)
        return () if text is None else served_versions(text)

    def reasons(self) -> dict[str, str]:
        """Why models are not what the store says."""
        return {m.name: m.reason for m in self.follower.status().models if m.reason}


class FileSteps:
    """Counts what changes the file system, and dies before the chosen step, as SIGKILL does."""

    def __init__(self) -> None:
        self.count = 0
        self._fatal: int | None = None
        self._is_counting = False

    @contextmanager
    def counted(self, *, fatal: int | None = None) -> Iterator[None]:
        """Count from 0 in the body; raise ``Killed`` in every step from number ``fatal`` on."""
        self.count, self._fatal, self._is_counting = 0, fatal, True

        def counted_exchange(one: Path, other: Path) -> None:
            self._step()
            exchange(one, other)

        with mock.patch("pipeline.mirror.local.exchange", counted_exchange):
            try:
                yield
            finally:
                self._is_counting = False

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit event of the interpreter."""
        if not self._is_counting:
            return
        if event in _CHANGES or (event == "open" and arguments[2] & _WRITES):
            self._step()

    def _step(self) -> None:
        number, self.count = self.count, self.count + 1
        if self._fatal is not None and number >= self._fatal:
            raise Killed


def file_steps() -> FileSteps:
    """Listen to the interpreter; cannot be undone, and does nothing outside of ``counted``."""
    steps = FileSteps()
    sys.addaudithook(steps.hear)
    return steps


def unloadable(directory: Path) -> list[str]:
    """What Triton could not load from a mirror's folder, whatever the mirror thinks of it."""
    repository = directory / "repository"
    folders = sorted(repository.iterdir()) if repository.is_dir() else []
    return [problem for folder in folders for problem in _problems(folder)]


def _problems(folder: Path) -> Iterator[str]:
    if not (folder / CONFIG_NAME).is_file():
        yield f"{folder.name} has no config"
        return
    if not (folder / WARMUP_FOLDER / "README").is_file():
        yield f"{folder.name} has no warm-up folder"
    versions = served_versions((folder / CONFIG_NAME).read_text())
    if not versions:
        yield f"{folder.name} names no version"
    for version in versions:
        manifest_file = folder / str(version) / MANIFEST_NAME
        if not manifest_file.is_file():
            yield f"{folder.name}/{version} has no manifest"
            continue
        manifest = manifest_from_bytes(manifest_file.read_bytes())
        if (manifest.model, manifest.version) != (folder.name, version):
            yield f"{folder.name}/{version} is {manifest.model}/{manifest.version}"
        for difference in differences(manifest_file.parent, manifest):
            yield f"{folder.name}/{version}: {difference}"
