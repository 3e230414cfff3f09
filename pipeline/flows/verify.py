"""Is a release in the store, byte for byte, what somebody trusted has published?

Everything is downloaded and read, since a listing tells nothing about bytes. Neither MLflow nor
Triton is asked, so any machine that reads the store and has the public key can tell.
"""

from __future__ import annotations

import hashlib
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import RefusedError, RequestError
from pipeline.flows.journal import Journal
from pipeline.flows.progress import Progress, silent
from pipeline.flows.publish import RepositoryState, read_state
from pipeline.flows.repository import open_stores
from pipeline.manifest import Manifest
from pipeline.model_config import check_name
from pipeline.repository_names import RESERVED_NAMES, check_file_name
from pipeline.settings import Settings
from pipeline.signing import Trust, verify_folder
from pipeline.stores import Store

_DOWNLOADS: Final = 8
_FIND_OUT: Final = "find out who can write to the store; what was published is in the record"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedRelease:
    """A release that is what was signed.

    Attributes:
        model: Name of the Triton model.
        version: Number of its version.
        digest: Names the release.
        files: How many files were read, manifest and signature among them.
        bytes: Their size together.
        served: Whether the config in the repository names this version, and is the signed one.
    """

    model: str
    version: int
    digest: str
    files: int
    bytes: int
    served: bool


def verify_release(
    model: str,
    version: int | None,
    settings: Settings,
    trust: Trust,
    *,
    progress: Progress = silent,
) -> VerifiedRelease:
    """Download a release into a temporary folder and verify it there.

    Args:
        model: Name of the Triton model.
        version: None means the one that the config names.
        settings: Where the repository is.
        trust: By whom it must be signed.
        progress: Told the stages.

    Raises:
        RefusedError: It is unsigned, signed by somebody else, not what was signed, not the release
            of that name, or served by another config than was published with it.
        RequestError: There is no such release.
        ConflictError: The config was not written by this tool.
        SettingsError: The key to verify with, an address or a credential is wrong.
        UnavailableError: The store does not answer.
    """
    check_name(model)
    repository, records = open_stores(settings)
    state = read_state(repository, model)
    number = state.version if version is None else version
    if number is None:
        raise RequestError(f"{model!r} is not published", hint="see what is: tritonpipe status")
    with tempfile.TemporaryDirectory(prefix="tritonpipe-verify-") as temporary:
        folder = Path(temporary) / model / str(number)
        with progress("download") as describe:
            sizes = _download(repository, state, number, folder)
            describe(f"{len(sizes)} files, {sum(sizes)} bytes")
        with progress("verify") as describe:
            manifest = verify_folder(folder, trust)
            describe(f"signed, {manifest.digest[:19]}")
    name = f"{model}/{number}"
    if (manifest.model, manifest.version) != (model, number):
        raise RefusedError(
            f"{name} is the signed release {manifest.model}/{manifest.version} in its place",
            hint=_FIND_OUT,
        )
    is_served = _check_config(state, Journal(records), manifest)
    return VerifiedRelease(
        model=model,
        version=number,
        digest=manifest.digest,
        files=len(sizes),
        bytes=sum(sizes),
        served=is_served,
    )


def _download(store: Store, state: RepositoryState, version: int, folder: Path) -> list[int]:
    """Fetch a version folder; gives the sizes of its files."""
    prefix = f"{state.model}/{version}/"
    found = [o for key, o in state.objects.items() if key.startswith(prefix)]
    if not found:
        raise RequestError(
            f"there is no {state.model}/{version} in the repository",
            hint=f"see what there is: tritonpipe history {state.model}",
        )
    targets = {o.key: folder / _file_name(o.key, prefix) for o in found}
    folders = {parent for target in targets.values() for parent in target.parents}
    both = sorted(key for key, target in targets.items() if target in folders)
    if both:
        raise RefusedError(f"{both[0]} is a file and a folder at once", hint=_FIND_OUT)
    for target in targets.values():
        target.parent.mkdir(parents=True, exist_ok=True)
    pool = ThreadPoolExecutor(_DOWNLOADS)
    try:
        list(pool.map(store.download, targets.keys(), targets.values()))
    finally:
        pool.shutdown(cancel_futures=True)
    return [o.size for o in found]


def _file_name(key: str, prefix: str) -> str:
    """The name of a file below the version folder, and nowhere else on this machine."""
    name = key.removeprefix(prefix)
    if name in RESERVED_NAMES:
        return name
    try:
        return check_file_name(name)
    except RequestError as error:
        raise RefusedError(
            f"{key} is no file of a release: {error.message}", hint=_FIND_OUT
        ) from error


def _check_config(state: RepositoryState, journal: Journal, manifest: Manifest) -> bool:
    """Whether the version is served; its config must be the one that was signed.

    A version that is not served has its config in its record, where a rollback takes it from.
    """
    is_served = state.config is not None and state.version == manifest.version
    release = journal.release(manifest.model, manifest.version)
    recorded = None if release is None else release.config
    for config, where in (
        (state.config if is_served else None, "repository"),
        (recorded, "record"),
    ):
        if config is not None and _sha256(config) != manifest.config_sha256:
            raise RefusedError(
                f"the config of {manifest.model}/{manifest.version} in the {where} is not the one "
                f"that was signed: it has SHA-256 {_sha256(config)}, signed was "
                f"{manifest.config_sha256}",
                hint=_FIND_OUT,
            )
    return is_served


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
