"""Puts a version where Triton polls, so that no client ever sees half of it.

The order is everything, since a store promises nothing across objects:

1. the files of the version, in a folder that nothing refers to yet;
2. ``manifest.json`` with their digests, which Triton's backend checks before it loads;
3. one PUT of ``config.pbtxt`` that names the new version: the commit.

Triton reloads a model only when its newest ``LastModified``, in whole seconds, has grown. A commit
in the same second as another write can be lost for ever, so it is repeated until the store itself
says that it is the newest object by at least a second.

Killed anywhere before the commit, nothing that is served has changed, and the next run finishes.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from pipeline.artifacts import PublishPlan, RepositoryEntry
from pipeline.errors import ConflictError, UnavailableError
from pipeline.manifest import MANIFEST_NAME, Manifest
from pipeline.model_config import CONFIG_NAME, WARMUP_FOLDER, served_version
from pipeline.stores import Store, StoredObject

WARMUP_MARKER: Final = f"{WARMUP_FOLDER}/README"
"""Makes the model's warm-up folder exist, so that Triton can follow paths out of it into version
folders. Written once, before the first commit; a later write would reload the served version."""

_WARMUP_TEXT: Final = b"Warm-up data is part of each version: see N/warmup-*.bin\n"
_UPLOAD_THREADS: Final = 8
_COMMIT_ATTEMPTS: Final = 5
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryState:
    """What the store holds of one model.

    Attributes:
        model: Name of the Triton model.
        objects: Everything below its folder, by key relative to the repository.
        config: Text of its ``config.pbtxt``; None for a model that was never committed.
    """

    model: str
    objects: dict[str, StoredObject]
    config: str | None

    @property
    def version(self) -> int | None:
        """The version that the config names.

        Raises:
            ConflictError: The config was not written by this tool.
        """
        if self.config is None:
            return None
        try:
            version = served_version(self.config)
        except ValueError as error:
            raise _foreign_config(self.model, str(error)) from error
        if version is None:
            raise _foreign_config(self.model, "it does not name exactly one version")
        return version


def read_state(store: Store, model: str) -> RepositoryState:
    """Read what the store holds of a model.

    Raises:
        ConflictError: There is a config that is not text.
    """
    objects = {o.key: o for o in store.list_folder(model)}
    key = f"{model}/{CONFIG_NAME}"
    data = store.get(key) if key in objects else None
    try:
        config = None if data is None else data.decode()
    except UnicodeDecodeError as error:
        raise _foreign_config(model, "it is not text") from error
    return RepositoryState(model=model, objects=objects, config=config)


def damage(store: Store, manifest: Manifest) -> list[str]:
    """How the version folder in the store differs from what was published; empty if it does not.

    Compares the manifest's bytes and the sizes of all files; the bytes of the files are checked by
    the server that loads them.
    """
    folder = f"{manifest.model}/{manifest.version}"
    published = manifest.to_bytes()
    if store.get(f"{folder}/{MANIFEST_NAME}") != published:
        return [f"{folder}/{MANIFEST_NAME} is missing or not what was published"]
    return _wrong_sizes(store, folder, manifest)


def plan_publication(store: Store, state: RepositoryState, entry: RepositoryEntry) -> PublishPlan:
    """What must be done so that ``entry`` is served; writes nothing.

    Everything found in the folder of an unpublished version was left by a publication that never
    committed: it is inert, and is replaced. The folder of the version that is served is never
    touched.

    Raises:
        ConflictError: The version is the one served now, and its bytes would change.
    """
    manifest = entry.manifest
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
        uploads=tuple(sorted(manifest.files, key=lambda f: (-f.size, f.path))),
        deletes=tuple(sorted(left_behind)),
    )


def upload(store: Store, entry: RepositoryEntry, plan: PublishPlan) -> None:
    """Carry out the plan up to, and without, the commit.

    Raises:
        ConflictError: After the uploads the store holds something else than was sent.
    """
    if not plan.uploads:
        return
    folder = f"{plan.model}/{plan.version}"
    store.delete(list(plan.deletes))
    pool = ThreadPoolExecutor(_UPLOAD_THREADS)
    try:
        list(
            pool.map(lambda f: store.put(f"{folder}/{f.path}", entry.folder / f.path), plan.uploads)
        )
    finally:
        # After an error or Ctrl-C, files that were not begun are not sent.
        pool.shutdown(cancel_futures=True)
    store.create(f"{plan.model}/{WARMUP_MARKER}", _WARMUP_TEXT)
    manifest = entry.manifest.to_bytes()
    store.put(f"{folder}/{MANIFEST_NAME}", manifest)
    wrong = _wrong_sizes(store, folder, entry.manifest)
    if wrong:
        raise ConflictError(
            f"the store does not hold what was uploaded: {'; '.join(wrong[:3])}",
            hint="look for another writer to this repository, then run the command again",
        )


def commit(store: Store, model: str, config: str) -> None:
    """Write the config as the newest object of the model, in a second of its own.

    Raises:
        UnavailableError: The store's clock did not advance, or it did not keep what was written.
    """
    key, data = f"{model}/{CONFIG_NAME}", config.encode()
    before = {o.key: o for o in store.list_folder(model)}
    newest = max((_second(o) for o in before.values()), default=_EPOCH)
    _leave_second(newest)
    for _ in range(_COMMIT_ATTEMPTS):
        store.put(key, data)
        written = store.head(key)
        if written is not None and _second(written) > newest and store.get(key) == data:
            return
        # The previous attempt is itself an object of this second.
        time.sleep(1.0)
    raise UnavailableError(
        f"the store did not keep a newer {key} in {_COMMIT_ATTEMPTS} attempts",
        hint="check that nobody else writes to this model and that the store's clock runs",
    )


def withdraw_config(store: Store, model: str) -> None:
    """Take back the commit of a model that was never served before.

    Triton goes on serving what it has loaded until the last object of the model is gone, see
    :func:`withdraw_files`.
    """
    store.delete([f"{model}/{CONFIG_NAME}"])


def withdraw_files(store: Store, model: str) -> None:
    """Remove everything of a model without a config; call when Triton is not loading it."""
    store.delete([o.key for o in store.list_folder(model)])


def _wrong_sizes(store: Store, folder: str, manifest: Manifest) -> list[str]:
    found = {o.key: o.size for o in store.list_folder(folder)}
    expected = {f"{folder}/{f.path}": f.size for f in manifest.files}
    expected[f"{folder}/{MANIFEST_NAME}"] = len(manifest.to_bytes())
    keys = sorted(expected.keys() | found.keys())
    return [
        f"{key} has {found.get(key, 'no')} bytes, expected {expected.get(key, 'no such object')}"
        for key in keys
        if expected.get(key) != found.get(key)
    ]


def _second(stored: StoredObject) -> datetime:
    return stored.last_modified.replace(microsecond=0)


def _leave_second(newest: datetime) -> None:
    """Wait until this machine's clock has left the second of the newest object.

    Saves one repetition where the clocks of machine and store agree; correctness does not depend
    on it, since the store's own answer is what counts.
    """
    remaining = newest.timestamp() + 1.0 - time.time()
    if 0 < remaining <= 1.0:
        time.sleep(remaining + 0.01)


def _foreign_config(model: str, why: str) -> ConflictError:
    return ConflictError(
        f"the repository holds a {model}/{CONFIG_NAME} that this tool did not write: {why}",
        hint="move that model elsewhere, or serve this one under another name with --name",
    )
