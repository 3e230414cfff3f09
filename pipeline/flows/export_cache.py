"""Exports that need not be made again: the same source, by the same tools, is exported once.

An entry is named by a digest of everything that decides the bytes: the source model, its exporter,
Python and every installed distribution, and our own code. Guarantees: what is taken from the cache
is byte for byte what was put there, or it is not taken; entries appear whole or not at all, and any
number of processes may use one folder; a cache that cannot be read or written costs time, never a
promotion.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pipeline
from pipeline.artifacts import Export, SourceModel
from pipeline.flows.installed import installed_distributions
from pipeline.manifest import digest_folder, digest_of_files
from pipeline.serialization import from_json, to_json
from pipeline.settings import Settings

_log = logging.getLogger(__name__)

_FILES: Final = "files"
_ENTRY: Final = "entry.json"
_HERE: Final = "<here>/"
"""Stands in an entry for the folder that the files are in."""

_READ_ONLY: Final = 0o444
_ABANDONED_SECONDS: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedExport:
    """One entry.

    Attributes:
        key: Its name.
        model: The model version that it was first made for.
        flavor: Its exporter.
        size: Bytes of its files.
        used_at: When it was made or last used, in seconds since 1970.
    """

    key: str
    model: str
    flavor: str
    size: int
    used_at: float


class ExportCache:
    """Exports below a folder of this user; the ones not used for longest go first.

    Attributes:
        folder: Where they are.
        most_bytes: What all entries together may take.
    """

    def __init__(self, folder: Path, *, most_bytes: int) -> None:
        self.folder = folder
        self.most_bytes = most_bytes

    def export(
        self,
        source: SourceModel,
        exporter: str,
        destination: Path,
        make: Callable[[], Export],
    ) -> tuple[Export, bool]:
        """The export of a model in the empty folder ``destination``; whether it was there already.

        Args:
            source: The fetched model.
            exporter: Name of its exporter.
            destination: Where the files shall be.
            make: Makes the export there; what it raises is raised, and nothing is kept.
        """
        key = export_key(source, exporter)
        found = self._taken(key, destination)
        if found is not None:
            return found, True
        export = make()
        self._keep(key, source, export, destination)
        return export, False

    def entries(self) -> list[CachedExport]:
        """All entries, the one used last first."""
        found = (self._described(path) for path in self.folder.glob(f"*/{_ENTRY}"))
        return sorted((e for e in found if e is not None), key=lambda e: (-e.used_at, e.key))

    def prune(self, most_bytes: int | None = None) -> list[CachedExport]:
        """Remove what was not used for longest, until the rest fits; gives what was removed.

        Args:
            most_bytes: Instead of :attr:`most_bytes`; 0 removes everything.
        """
        removed = self.superfluous(self.most_bytes if most_bytes is None else most_bytes)
        for entry in removed:
            shutil.rmtree(self.folder / entry.key, ignore_errors=True)
        self._remove_abandoned()
        return removed

    def superfluous(self, most_bytes: int) -> list[CachedExport]:
        """The entries that do not fit, the ones used last being kept first."""
        removed, kept = [], 0
        for entry in self.entries():
            if kept + entry.size <= most_bytes:
                kept += entry.size
            else:
                removed.append(entry)
        return removed

    def _taken(self, key: str, destination: Path) -> Export | None:
        entry = self.folder / key
        try:
            document = json.loads((entry / _ENTRY).read_text(encoding="utf-8"))
            shutil.copytree(
                entry / _FILES, destination, copy_function=_link_or_copy, dirs_exist_ok=True
            )
            if digest_of_files(digest_folder(destination)) == document["digest"]:
                os.utime(entry / _ENTRY)
                export: Export = from_json(Export, _moved(document["export"], _HERE, destination))
                return export
            _log.warning("the cached export %s was altered; the model is exported again", entry)
        except FileNotFoundError:
            pass  # not there, or pruned meanwhile
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("the cached export %s cannot be used: %s", entry, error)
        shutil.rmtree(entry, ignore_errors=True)
        for path in destination.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return None

    def _keep(self, key: str, source: SourceModel, export: Export, made: Path) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=self.folder))
        except OSError as error:
            _log.warning("exports cannot be kept in %s: %s", self.folder, error)
            return
        try:
            shutil.copytree(made, staging / _FILES)
            files = digest_folder(staging / _FILES)
            for file in files:
                (staging / _FILES / file.path).chmod(_READ_ONLY)
            document = {
                "model": str(source.version),
                "flavor": export.onnx.flavor,
                "size": sum(file.size for file in files),
                "digest": digest_of_files(files),
                "export": _moved(to_json(export), f"{made.resolve()}/", Path(_HERE)),
            }
            (staging / _ENTRY).write_text(json.dumps(document, indent=1), encoding="utf-8")
            with suppress(OSError):  # another process was faster
                staging.rename(self.folder / key)
            self.prune()
        except OSError as error:
            _log.warning("the export of %s cannot be kept: %s", source.version, error)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _described(self, file: Path) -> CachedExport | None:
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            return CachedExport(
                key=file.parent.name,
                model=document["model"],
                flavor=document["flavor"],
                size=document["size"],
                used_at=file.stat().st_mtime,
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _remove_abandoned(self) -> None:
        """What killed processes left: staging folders, and entries that cannot be read."""
        known = {entry.key for entry in self.entries()}
        for path in self.folder.glob("*"):
            with suppress(OSError):
                is_old = time.time() - path.stat().st_mtime > _ABANDONED_SECONDS
                if path.name not in known and is_old:
                    shutil.rmtree(path, ignore_errors=True)


def open_cache(settings: Settings) -> ExportCache | None:
    """The cache that the settings name; None if they want none."""
    if settings.cache == "off":
        return None
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(settings.cache) if settings.cache else base / "tritonpipe" / "exports"
    return ExportCache(folder, most_bytes=settings.cache_bytes)


def export_key(source: SourceModel, exporter: str) -> str:
    """Names everything that decides the bytes of an export."""
    document = [source.digest, exporter, tools_fingerprint()]
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()


def tools_fingerprint() -> str:
    """Changes when Python, an installed distribution or our own exporting code does.

    It is that of this moment, also in a process that runs for months.
    """
    document = [sys.version, installed_distributions(), _own_code()]
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()


def _own_code() -> str:
    """Of everything that an export can run; a release number does not tell a developer's edit."""
    package = os.path.dirname(pipeline.__file__)  # noqa: PTH120  a Path is slow, and this is often asked
    found = [
        (entry.path, entry.stat().st_mtime_ns)
        for folder in (package, f"{package}/exporters")
        for entry in os.scandir(folder)
        if entry.name.endswith(".py")
    ]
    return _digest(tuple(sorted(found)))


@lru_cache(maxsize=1)
def _digest(files: tuple[tuple[str, int], ...]) -> str:
    """Of the names and contents of files, each given with the time of its last change."""
    digest = hashlib.sha256()
    for name, _ in files:
        digest.update(Path(name).name.encode() + Path(name).read_bytes())
    return digest.hexdigest()


def _moved(value: Any, from_prefix: str, to_folder: Path) -> Any:
    """JSON with every path below one folder below another."""
    if isinstance(value, dict):
        return {key: _moved(item, from_prefix, to_folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, from_prefix, to_folder) for item in value]
    if isinstance(value, str) and value.startswith(from_prefix):
        return str(to_folder / value.removeprefix(from_prefix))
    return value


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # on another file system, or one without links
        shutil.copyfile(source, target)
    return target
