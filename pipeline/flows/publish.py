"""Puts a version where Triton polls, so that no client ever sees half of it.

The order is everything, since a store promises nothing across objects:

1. the files of the version, in a folder that nothing refers to yet;
2. ``manifest.json`` with their digests, which Triton's backend checks before it loads, and its
   signature, if releases are signed;
3. one PUT of ``config.pbtxt`` that names the new version: the commit.

The last one is in :mod:`pipeline.flows.commit`. Killed anywhere before it, nothing that is served
has changed, and the next run finishes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pipeline.artifacts import PublishPlan, RepositoryEntry
from pipeline.ensembles import Step, steps_of
from pipeline.errors import ConflictError
from pipeline.flows.readback import found_in, put_verified, unlike_what_was_sent
from pipeline.locks import Held
from pipeline.manifest import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    FileDigest,
    Manifest,
    manifest_from_bytes,
)
from pipeline.model_config import CONFIG_NAME, WARMUP_FOLDER, served_versions
from pipeline.repository_names import check_entry
from pipeline.stores import Store, StoredObject
from pipeline.stores.transfer import Transferred, put_files

WARMUP_MARKER: Final = f"{WARMUP_FOLDER}/README"
"""Makes the model's warm-up folder exist, so that Triton can follow paths out of it into version
folders. Written once, before the first commit; a later write would reload the served version."""

WARMUP_TEXT: Final = b"Warm-up data is part of each version: see N/warmup-*.bin\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryState:
    """What the store holds of one model.

    Attributes:
        model: Name of the Triton model.
        objects: Everything below its folder, by key relative to the repository.
        config: Text of its ``config.pbtxt``; None for a model that was never committed.
        config_etag: Of exactly this text; None likewise.
    """

    model: str
    objects: dict[str, StoredObject]
    config: str | None
    config_etag: str | None

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions that the config names; none without a config.

        Raises:
            ConflictError: The config cannot be read.
        """
        try:
            return () if self.config is None else served_versions(self.config)
        except ValueError as error:
            raise _foreign_config(self.model, str(error)) from error

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of an ensemble; none for any other model, or without a config.

        Raises:
            ConflictError: The config cannot be read.
        """
        try:
            return () if self.config is None else steps_of(self.config)
        except ValueError as error:
            raise _foreign_config(self.model, str(error)) from error

    @property
    def version(self) -> int | None:
        """The version that the config names.

        Raises:
            ConflictError: The config was not written by this tool, or names two versions, in the
                middle of a release of several models.
        """
        if self.config is None:
            return None
        versions = self.versions
        if len(versions) == 2:
            raise ConflictError(
                f"a release of several models is half way: {self.model} serves versions "
                f"{versions[0]} and {versions[1]}",
                hint="finish it by running its command again, or take it back: "
                f"tritonpipe rollback {self.model}",
            )
        if len(versions) != 1:
            raise _foreign_config(self.model, "it does not name exactly one version")
        return versions[0]


def read_state(store: Store, model: str) -> RepositoryState:
    """Read what the store holds of a model; the config by its key, since listings can be late.

    Raises:
        ConflictError: There is a config that is not text.
    """
    objects = {o.key: o for o in store.list_folder(model)}
    key = f"{model}/{CONFIG_NAME}"
    objects.pop(key, None)
    found = store.read(key)
    if found is None:
        return RepositoryState(model=model, objects=objects, config=None, config_etag=None)
    objects[key] = found.stored
    try:
        config = found.data.decode()
    except UnicodeDecodeError as error:
        raise _foreign_config(model, "it is not text") from error
    return RepositoryState(
        model=model, objects=objects, config=config, config_etag=found.stored.etag
    )


def known_keys(store: Store, state: RepositoryState) -> set[str]:
    """All objects of a model: those listed, and those that its config leads to, listed or not."""
    keys = {*state.objects, f"{state.model}/{WARMUP_MARKER}"}
    with suppress(ValueError):  # what cannot be read leads nowhere
        for version in served_versions(state.config or ""):
            folder = f"{state.model}/{version}"
            keys |= {f"{folder}/{MANIFEST_NAME}", f"{folder}/{SIGNATURE_NAME}"}
            manifest = manifest_from_bytes(store.get(f"{folder}/{MANIFEST_NAME}") or b"")
            keys |= {f"{folder}/{file.path}" for file in manifest.files}
    return keys


def damage(
    store: Store,
    manifest: Manifest,
    *,
    listed_before: Mapping[str, StoredObject] | None = None,
) -> list[str]:
    """How the version folder in the store differs from what was published; empty if it does not.

    Compares the manifest's bytes and the sizes of all files; the bytes of the files are checked by
    the server that loads them. One request where the model was listed just before.
    """
    folder = f"{manifest.model}/{manifest.version}"
    published = manifest.to_bytes()
    if store.get(f"{folder}/{MANIFEST_NAME}") != published:
        return [f"{folder}/{MANIFEST_NAME} is missing or not what was published"]
    return _wrong_sizes(store, folder, manifest, listed_before)


def plan_publication(store: Store, state: RepositoryState, entry: RepositoryEntry) -> PublishPlan:
    """What must be done so that ``entry`` is served; writes nothing.

    Everything found in the folder of an unpublished version was left by a publication that never
    committed: it is inert, and is replaced. The folder of the version that is served is never
    touched.

    Raises:
        ConflictError: The version is the one served now, and its bytes would change.
        RequestError: Triton would misread a name.
    """
    manifest = entry.manifest
    check_entry(manifest.model, manifest.version, (f.path for f in manifest.files))
    plan = PublishPlan(
        model=manifest.model,
        version=manifest.version,
        previous=state.version,
        uploads=(),
        deletes=(),
        commit=state.config != entry.config,
    )
    if state.version == manifest.version:
        if plan.commit or damage(store, manifest):
            raise ConflictError(
                f"{manifest.model}/{manifest.version} is served now and was made from other bytes",
                hint="register the model as a new version and promote that",
            )
        return plan
    folder = f"{manifest.model}/{manifest.version}/"
    expected = {folder + f.path for f in manifest.files} | {folder + MANIFEST_NAME}
    left_behind = (key for key in state.objects if key.startswith(folder) and key not in expected)
    return replace(
        plan,
        uploads=(*sorted(manifest.files, key=lambda f: (-f.size, f.path)), _described(manifest)),
        deletes=tuple(sorted(left_behind)),
        signed=(entry.folder / SIGNATURE_NAME).is_file(),
    )


def upload(
    store: Store,
    entry: RepositoryEntry,
    plan: PublishPlan,
    *,
    held: Held,
    transferred: Transferred = lambda _done, _total: None,
) -> None:
    """Carry out the plan up to, and without, the commit; the manifest last.

    The lock is asked before every write: whoever took it over may have published and proven this
    very version since.

    Raises:
        ConflictError: After the uploads the store holds something else than was sent; or the lock
            was lost, and nothing was written since.
    """
    if not plan.uploads:
        return
    *contents, _manifest = plan.uploads
    folder = f"{plan.model}/{plan.version}"
    held.require_held()
    store.delete(list(plan.deletes))
    files = {f"{folder}/{file.path}": entry.folder / file.path for file in contents}
    put_files(store, files, transferred=transferred, before_each=held.require_held)
    _refuse_unlike(unlike_what_was_sent(store, entry))
    held.require_held()
    store.create(f"{plan.model}/{WARMUP_MARKER}", WARMUP_TEXT)
    held.require_held()
    put_verified(store, f"{folder}/{MANIFEST_NAME}", entry.manifest.to_bytes())
    wrong = _wrong_sizes(store, folder, entry.manifest)
    if plan.signed:
        held.require_held()
        wrong += _put_signature(store, folder, entry.folder / SIGNATURE_NAME)
    _refuse_unlike(wrong)


def _refuse_unlike(problems: list[str]) -> None:
    if problems:
        raise ConflictError(
            f"the store does not hold what was uploaded: {'; '.join(problems[:3])}",
            hint="nothing refers to it yet: run the command again; if this repeats, look for "
            "another writer to this repository, or a proxy that alters what passes",
        )


def _put_signature(store: Store, folder: str, path: Path) -> list[str]:
    """Upload the signature; gives what is wrong with it in the store."""
    key, signature = f"{folder}/{SIGNATURE_NAME}", path.read_bytes()
    store.put(key, signature)
    return [] if store.get(key) == signature else [f"{key} is not the signature that was sent"]


def _described(manifest: Manifest) -> FileDigest:
    data = manifest.to_bytes()
    return FileDigest(path=MANIFEST_NAME, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _wrong_sizes(
    store: Store,
    folder: str,
    manifest: Manifest,
    listed_before: Mapping[str, StoredObject] | None = None,
) -> list[str]:
    expected = {f"{folder}/{f.path}": f.size for f in manifest.files}
    expected[f"{folder}/{MANIFEST_NAME}"] = len(manifest.to_bytes())
    objects = found_in(store, folder, expected, listed_before=listed_before)
    found = {key: stored.size for key, stored in objects.items()}
    found.pop(f"{folder}/{SIGNATURE_NAME}", None)
    keys = sorted(expected.keys() | found.keys())
    return [
        f"{key} has {found.get(key, 'no')} bytes, expected {expected.get(key, 'no such object')}"
        for key in keys
        if expected.get(key) != found.get(key)
    ]


def _foreign_config(model: str, why: str) -> ConflictError:
    return ConflictError(
        f"the repository holds a {model}/{CONFIG_NAME} that this tool did not write: {why}",
        hint="move that model elsewhere, or serve this one under another name with --name",
    )
