"""What is signed: every file of a version folder but the signature, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline.errors import DependencyError, RefusedError
from pipeline.manifest import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    InvalidManifestError,
    Manifest,
    manifest_from_bytes,
)

if TYPE_CHECKING:
    from model_signing import hashing
    from model_signing import manifest as hashed

MAKE_KEYS: Final = (
    "make a pair with: openssl ecparam -genkey -name prime256v1 -noout -out key.pem; "
    "openssl ec -in key.pem -pubout -out key.pub"
)


def hash_every_file() -> tuple[hashing.Config, dict[str, str]]:
    """How a folder is hashed, and where the SHA-256 of each file is found after that.

    Nothing but the signature is left out: by default the library leaves out the files of git, and
    what the signer wished to be left out.
    """
    from model_signing import hashing

    digests: dict[str, str] = {}

    class EveryFile(hashing.Config):
        def hash(
            self,
            model_path: hashing.PathLike,
            *,
            files_to_hash: Iterable[hashing.PathLike] | None = None,
        ) -> hashed.Manifest:
            found = super().hash(model_path, files_to_hash=files_to_hash)
            digests.update(
                (d.identifier, d.digest.digest_hex) for d in found.resource_descriptors()
            )
            return found

        def add_ignored_paths(
            self, *, model_path: hashing.PathLike, paths: Iterable[hashing.PathLike]
        ) -> None:
            pass

    config = EveryFile()  # type: ignore[no-untyped-call]
    config.set_ignored_paths(paths=[SIGNATURE_NAME], ignore_git_paths=False)
    return config, digests


def listed_manifest(folder: Path, digests: Mapping[str, str]) -> Manifest:
    """The manifest of a folder, if the files hashed are that one and those that it lists.

    Raises:
        RefusedError: They are not, or there is no manifest that can be read.
    """
    path = folder / MANIFEST_NAME
    try:
        data = path.read_bytes()
        manifest = manifest_from_bytes(data)
    except (FileNotFoundError, InvalidManifestError) as error:
        raise RefusedError(
            f"there is no manifest in {path} that can be read: {error}",
            hint="publish the version with tritonpipe, or read it with a newer one",
        ) from error
    expected = {f.path: f.sha256 for f in manifest.files}
    expected[MANIFEST_NAME] = hashlib.sha256(data).hexdigest()
    wrong = sorted({path for path, _digest in expected.items() ^ digests.items()})
    if wrong:
        raise RefusedError(
            f"{folder} does not hold what its manifest lists: {', '.join(wrong[:5])}",
            hint="publish the version again from its run",
        )
    return manifest


def not_installed(error: ModuleNotFoundError) -> DependencyError:
    """What to raise where the library is missing."""
    return DependencyError(
        f"signatures need {error.name}", hint="pip install 'tritonpipe[signing]'"
    )
