"""Moves one local model forward: download beside it, verify, then put in place what is complete."""

from __future__ import annotations

import errno
import hashlib
import time
from concurrent.futures import Executor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pipeline.errors import RefusedError
from pipeline.manifest import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    InvalidManifestError,
    Manifest,
    differences,
    manifest_from_bytes,
)
from pipeline.mirror.config_check import is_vouched_for, named_versions
from pipeline.mirror.files import file_states, remove_compiled, sync_tree
from pipeline.mirror.local import LocalRepository
from pipeline.mirror.plan import ModelPlan, VersionPlan
from pipeline.mirror.records import ModelRecord, VersionRecord
from pipeline.mirror.remote import Remote
from pipeline.mirror.seal import Seal

_HINT: Final = "look at: tritonpipe fsck; what is served locally stays as it is"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How careful the mirror is.

    Attributes:
        grace_seconds: For how long a version that is neither served nor the one before is kept.
        reserve_bytes: Space that a download must leave free.
        removal_listings: How many listings in a row must lack a model before it is removed.
        retry_seconds: Wait after a first failure of a model; doubled up to ``retry_limit``.
        retry_limit: The longest wait, in seconds.
    """

    grace_seconds: float = 600.0
    reserve_bytes: int = 256 << 20
    removal_listings: int = 3
    retry_seconds: float = 5.0
    retry_limit: float = 300.0


class Advance:
    """Carries out plans, for one local repository."""

    def __init__(
        self,
        remote: Remote,
        local: LocalRepository,
        rules: Rules,
        *,
        downloads: Executor,
        seal: Seal | None = None,
    ) -> None:
        self._remote = remote
        self._local = local
        self._rules = rules
        self._downloads = downloads
        self._seal = seal

    @property
    def seal_name(self) -> str:
        """Of the check of signatures; empty if there is none."""
        return self._seal.name if self._seal else ""

    def carry_out(self, plan: ModelPlan, record: ModelRecord) -> ModelRecord:
        """Make the local model what the plan says.

        Returns:
            What is known of it then; it is remembered on disk, too.

        Raises:
            RefusedError: A downloaded version is not what its manifest says, or is not signed.
            OSError: There is not enough space, or the disk failed.
            SettingsError: The store refuses the credentials.
            UnavailableError: The store does not answer.

        Whatever is raised, the local model is as it was.
        """
        self._require_space(plan)
        staged = {version.version: self._fetched(plan.model, version) for version in plan.missing}
        mtime_ns = self._place(plan, record, staged)
        self._local.clear_staging(plan.model)
        record = self._new_record(plan, record, mtime_ns)
        self._local.remember(plan.model, record)
        return record

    def collect(self, model: str, record: ModelRecord) -> ModelRecord:
        """Remove versions that have not been needed for a while."""
        in_use = _named_locally(self._local, model)
        due = tuple(v for v in self.collectable(record) if v not in in_use)
        for version in due:
            self._local.remove_version(model, version)
        record = replace(
            record,
            versions={v: r for v, r in record.versions.items() if v not in due},
            unneeded_since={v: s for v, s in record.unneeded_since.items() if v not in due},
        )
        self._local.remember(model, record)
        return record

    def collectable(self, record: ModelRecord) -> tuple[int, ...]:
        """The versions that :meth:`collect` would remove now."""
        limit = time.time() - self._rules.grace_seconds
        return tuple(v for v, since in record.unneeded_since.items() if since <= limit)

    def verified_record(
        self, model: str, record: ModelRecord, *, read_digests: bool
    ) -> ModelRecord:
        """What is true of a model that is in place, whatever the record says.

        A version that looks as when it was verified is believed, unless ``read_digests`` is set;
        any other is read. Where something is not right, the record asks for the config to be
        fetched again, which brings everything that it names.
        """
        versions: dict[int, VersionRecord] = {}
        manifests: dict[int, Manifest] = {}
        for version in sorted(self._local.version_folders(model)):
            folder = self._local.version_folder(model, version)
            known = record.versions.get(version)
            if read_digests or not self._local.is_unchanged(model, version, known):
                known = _read_version(folder)
            manifest = _local_manifest(folder)
            if known is not None and manifest is not None:
                manifests[version], versions[version] = manifest, self._sealed(folder, known)
            elif version not in _named_locally(self._local, model):
                self._local.remove_version(model, version)
        text = self._local.config(model) or ""
        named = _names_only(text, manifests)
        # Not checked by this seal means fetched again, and refused if it is not signed.
        is_sealed = all(self.seal_name in {"", versions[version].seal} for version in named)
        return replace(
            record,
            source=record.source if named and is_sealed else None,
            named=named,
            versions=versions,
            # Also what a damaged model names: Triton may still serve it.
            unneeded_since=_unneeded(versions, _named_locally(self._local, model), record),
        )

    def _sealed(self, folder: Path, record: VersionRecord) -> VersionRecord:
        if self._seal is None or record.seal == self._seal.name:
            return record
        try:
            self._seal.check(folder)
        except RefusedError:
            return replace(record, seal="")
        return replace(record, seal=self._seal.name)

    def _require_space(self, plan: ModelPlan) -> None:
        free = self._local.free_bytes()
        if plan.size and plan.size > free - self._rules.reserve_bytes:
            raise OSError(
                errno.ENOSPC,
                f"{plan.model} needs {plan.size} bytes and {self._rules.reserve_bytes} must stay "
                f"free, {free} are free",
                str(self._local.directory),
            )

    def _fetched(self, model: str, version: VersionPlan) -> Path:
        """A staged folder that is verified and on disk."""
        subject = f"{model}/{version.version}"
        folder = self._local.stage(model, version.version)
        paths = [file.path for file in version.manifest.files]
        if version.is_signed:
            paths.append(SIGNATURE_NAME)
        futures = [
            self._downloads.submit(self._remote.download, f"{subject}/{path}", folder / path)
            for path in paths
        ]
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()
            # Those that run must not write into what the next attempt makes.
            wait(futures)
        (folder / MANIFEST_NAME).write_bytes(version.data)
        if wrong := differences(folder, version.manifest):
            raise RefusedError(f"{subject} is not mirrored: {'; '.join(wrong[:3])}", hint=_HINT)
        if self._seal is not None:
            self._seal.check(folder)
        sync_tree(folder)
        return folder

    def _place(self, plan: ModelPlan, record: ModelRecord, staged: dict[int, Path]) -> int:
        local, seen = self._local, record.newest_mtime_ns
        is_replacing = not staged.keys().isdisjoint(_named_locally(local, plan.model))
        if is_replacing or local.config(plan.model) is None:
            return local.place_model(plan.model, plan.config, staged, seen)
        for version, folder in staged.items():
            local.place_version(plan.model, version, folder)
        # The same bytes again would only make Triton read them again.
        if not plan.is_new_config:
            return seen
        return local.place_config(plan.model, plan.config, seen)

    def _new_record(self, plan: ModelPlan, record: ModelRecord, mtime_ns: int) -> ModelRecord:
        dropped = set(plan.before) - set(plan.named)
        versions = dict(record.versions)
        for version in plan.missing:
            folder = self._local.version_folder(plan.model, version.version)
            versions[version.version] = _version_record(folder, seal=self.seal_name)
        changed = replace(
            record,
            source=plan.source,
            named=plan.named,
            versions=versions,
            previous=max(dropped) if dropped else record.previous,
            newest_mtime_ns=max(mtime_ns, record.newest_mtime_ns),
        )
        return replace(changed, unneeded_since=_unneeded(versions, plan.named, changed))


def _named_locally(local: LocalRepository, model: str) -> tuple[int, ...]:
    try:
        return named_versions(local.config(model) or "")
    except ValueError:
        return ()


def _names_only(text: str, manifests: dict[int, Manifest]) -> tuple[int, ...]:
    """The versions that a local config names; none unless each is verified and vouches for it."""
    try:
        named = named_versions(text)
        digests = {version: manifests[version].config_sha256 for version in named}
    except (ValueError, KeyError):
        return ()
    return named if is_vouched_for(text, digests) else ()


def _unneeded(
    versions: dict[int, VersionRecord], named: tuple[int, ...], record: ModelRecord
) -> dict[int, float]:
    needed = {*named, record.previous}
    now = time.time()
    return {v: record.unneeded_since.get(v, now) for v in versions if v not in needed}


def _local_manifest(folder: Path) -> Manifest | None:
    try:
        manifest = manifest_from_bytes((folder / MANIFEST_NAME).read_bytes())
    except (OSError, InvalidManifestError):
        return None
    is_its_own = (manifest.model, str(manifest.version)) == (folder.parent.name, folder.name)
    return manifest if is_its_own else None


def _read_version(folder: Path) -> VersionRecord | None:
    """The record of a folder that is what its manifest says, byte by byte; None otherwise."""
    manifest = _local_manifest(folder)
    remove_compiled(folder)
    if manifest is None or differences(folder, manifest):
        return None
    return _version_record(folder, seal="")


def _version_record(folder: Path, *, seal: str) -> VersionRecord:
    manifest = (folder / MANIFEST_NAME).read_bytes()
    return VersionRecord(
        manifest_sha256=hashlib.sha256(manifest).hexdigest(), files=file_states(folder), seal=seal
    )
