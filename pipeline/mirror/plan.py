"""What a model shall become, decided from its config and manifests before anything is changed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pipeline.errors import RefusedError, RequestError
from pipeline.manifest import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    InvalidManifestError,
    Manifest,
    manifest_from_bytes,
)
from pipeline.mirror.config_check import is_vouched_for, named_versions
from pipeline.mirror.listing import ConfigIdentity, ListedModel
from pipeline.mirror.local import LocalRepository
from pipeline.mirror.records import ModelRecord
from pipeline.mirror.remote import Remote
from pipeline.model_config import CONFIG_NAME, config_from_text
from pipeline.repository_names import check_file_name

_REFUSED_HINT = "look at: tritonpipe fsck; what is served locally stays as it is"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionPlan:
    """One version that the config names.

    Attributes:
        manifest: What it consists of.
        data: The bytes of its ``manifest.json``.
        is_signed: Whether there is a signature beside it.
        is_held: Whether exactly this is in place and verified already.
    """

    manifest: Manifest
    data: bytes
    is_signed: bool
    is_held: bool

    @property
    def version(self) -> int:
        """Its number."""
        return self.manifest.version

    @property
    def size(self) -> int:
        """Bytes to download."""
        return 0 if self.is_held else sum(file.size for file in self.manifest.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """What a model shall become.

    Attributes:
        model: Its name.
        source: The config in the store that this follows.
        config: Its text.
        versions: The versions that it names, ascending.
        before: The versions that the local config names.
        is_new_config: Whether the local config has other bytes.
    """

    model: str
    source: ConfigIdentity
    config: str
    versions: tuple[VersionPlan, ...]
    before: tuple[int, ...]
    is_new_config: bool

    @property
    def named(self) -> tuple[int, ...]:
        """The versions that will be served."""
        return tuple(version.version for version in self.versions)

    @property
    def missing(self) -> tuple[VersionPlan, ...]:
        """The versions to download."""
        return tuple(version for version in self.versions if not version.is_held)

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(version.size for version in self.versions)


def plan_model(
    remote: Remote, local: LocalRepository, record: ModelRecord, found: ListedModel, seal_name: str
) -> ModelPlan:
    """Read the config of a model and the manifests that it names; writes nothing.

    Args:
        remote: The repository in the store.
        local: What is in place.
        record: What is known of that.
        found: What the listing says.
        seal_name: Of the check of signatures; empty if there is none.

    Raises:
        RefusedError: The config names a version that is missing, altered or incomplete, or it was
            not published with that version.
        SettingsError: The store refuses the credentials.
        UnavailableError: The store does not answer.
    """
    if found.config is None:
        raise _refused(found.name, f"there is no {CONFIG_NAME}, and nothing was retired")
    text = _config_text(remote, found.name)
    try:
        numbers = named_versions(text)
        name = config_from_text(text).name
    except ValueError as error:
        raise _refused(found.name, str(error)) from error
    if name not in {"", found.name}:
        raise _refused(found.name, f"its config is that of {name!r}")
    versions = tuple(
        _plan_version(remote, local, record, found, number, seal_name) for number in numbers
    )
    if not is_vouched_for(text, {v.version: v.manifest.config_sha256 for v in versions}):
        raise _refused(found.name, f"its config was not published with version {numbers[-1]}")
    return ModelPlan(
        model=found.name,
        source=found.config,
        config=text,
        versions=versions,
        before=record.named,
        is_new_config=local.config(found.name) != text,
    )


def _plan_version(
    remote: Remote,
    local: LocalRepository,
    record: ModelRecord,
    found: ListedModel,
    number: int,
    seal_name: str,
) -> VersionPlan:
    files = found.versions.get(number, {})
    subject = f"{found.name}/{number}"
    data = remote.read(f"{subject}/{MANIFEST_NAME}") if MANIFEST_NAME in files else None
    if data is None:
        raise _refused(subject, f"there is no {MANIFEST_NAME}, so it cannot be verified")
    try:
        manifest = manifest_from_bytes(data)
        for file in manifest.files:
            check_file_name(file.path)
    except (InvalidManifestError, RequestError) as error:
        raise _refused(subject, f"its {MANIFEST_NAME}: {error}") from error
    if (manifest.model, manifest.version) != (found.name, number):
        raise _refused(subject, f"its manifest is that of {manifest.model}/{manifest.version}")
    expected = {file.path: file.size for file in manifest.files}
    listed = {p: s for p, s in files.items() if p not in {MANIFEST_NAME, SIGNATURE_NAME}}
    wrong = sorted(p for p in expected.keys() | listed.keys() if expected.get(p) != listed.get(p))
    if wrong:
        raise _refused(
            subject,
            f"{wrong[0]} has {listed.get(wrong[0], 'no')} bytes in the store, the manifest says "
            f"{expected.get(wrong[0], 'no such file')}",
        )
    is_signed = SIGNATURE_NAME in files
    if seal_name and not is_signed:
        raise _refused(subject, "it is not signed")
    known = record.versions.get(number)
    is_held = (
        known is not None
        and known.manifest_sha256 == hashlib.sha256(data).hexdigest()
        and seal_name in {"", known.seal}
        and local.is_unchanged(found.name, number, known)
    )
    return VersionPlan(manifest=manifest, data=data, is_signed=is_signed, is_held=is_held)


def _config_text(remote: Remote, model: str) -> str:
    data = remote.read(f"{model}/{CONFIG_NAME}")
    if data is None:
        raise _refused(model, f"its {CONFIG_NAME} is listed and cannot be read")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _refused(model, f"its {CONFIG_NAME} is not text") from error


def _refused(subject: str, why: str) -> RefusedError:
    return RefusedError(f"{subject} is not mirrored: {why}", hint=_REFUSED_HINT)
