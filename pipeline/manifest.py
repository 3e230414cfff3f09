"""What a published version consists of, byte by byte, and how to tell whether it is intact.

A version folder of the model repository holds its files and one ``manifest.json``, written last.
Guarantees: the same files, config, lineage and tools give the same digest whatever the clock says;
a folder that differs from its manifest in one byte, or has a file too many or too few, is found by
:func:`differences`.

Only the standard library is used and nothing else of this package, because the Python-based Triton
backend carries a copy of this file into a process that has no tritonpipe.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

MANIFEST_NAME: Final = "manifest.json"
SIGNATURE_NAME: Final = f"{MANIFEST_NAME}.sig"
"""Signs the manifest and the files that it lists, so it cannot itself be listed there."""
SCHEMA_VERSION: Final = 1


class InvalidManifestError(ValueError):
    """The bytes are not a manifest that this version of the code can read."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class FileDigest:
    """One file: POSIX path relative to the version folder, size in bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a release comes from: enough to find the run that trained it.

    Attributes:
        registered_model: Name in the registry; empty for what was published by hand.
        registered_version: Version number in the registry.
        run_id: The run that logged the model; None if it was registered without one.
        source: URI of the artifacts in the registry.
        source_digest: Digest of the fetched artifacts, see :func:`digest_of_files`.
        flavor: The MLflow flavor that was exported.
    """

    registered_model: str
    registered_version: int
    run_id: str | None
    source: str
    source_digest: str
    flavor: str

    @property
    def is_by_hand(self) -> bool:
        """Whether it comes from a folder that somebody wrote, and not from the registry."""
        return not self.registered_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The content of ``manifest.json``.

    Attributes:
        model: Name of the Triton model.
        version: Number of the Triton version.
        config_sha256: SHA-256 of the ``config.pbtxt`` that serves this version.
        files: Every file of the version folder but the manifest, in order of path.
        lineage: Where the files come from.
        tools: Versions of the tools that made the files.
    """

    model: str
    version: int
    config_sha256: str
    files: tuple[FileDigest, ...]
    lineage: Lineage
    tools: Mapping[str, str]

    @property
    def digest(self) -> str:
        """``sha256:`` and the SHA-256 of the serialised manifest; names the release."""
        return "sha256:" + hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Serialise with sorted keys: equal manifests give equal bytes."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "version": self.version,
            "config_sha256": self.config_sha256,
            "files": [
                {"path": f.path, "size": f.size, "sha256": f.sha256} for f in sorted(self.files)
            ],
            "lineage": {name: getattr(self.lineage, name) for name in Lineage.__dataclass_fields__},
            "tools": dict(self.tools),
        }
        return (json.dumps(document, sort_keys=True, indent=1) + "\n").encode()


def manifest_from_bytes(data: bytes) -> Manifest:
    """Read a manifest of this or an older schema version.

    Raises:
        InvalidManifestError: Not JSON, of a newer schema version, or a field is missing.
    """
    try:
        document: dict[str, Any] = json.loads(data)
        schema_version = document["schema_version"]
        if schema_version != SCHEMA_VERSION:
            raise InvalidManifestError(
                f"schema version {schema_version} is not the version {SCHEMA_VERSION} known here"
            )
        return Manifest(
            model=document["model"],
            version=document["version"],
            config_sha256=document["config_sha256"],
            files=tuple(FileDigest(**item) for item in document["files"]),
            lineage=Lineage(**document["lineage"]),
            tools=document["tools"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidManifestError(f"not a manifest: {error}") from error


def digest_file(path: Path, relative_to: Path) -> FileDigest:
    """Read the whole file once and describe it."""
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    relative = PurePosixPath(path.relative_to(relative_to)).as_posix()
    return FileDigest(path=relative, size=path.stat().st_size, sha256=sha256)


def digest_folder(folder: Path) -> tuple[FileDigest, ...]:
    """Describe every regular file below ``folder``, in order of path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return tuple(sorted(digest_file(path, folder) for path in files))


def digest_of_files(files: Iterable[FileDigest]) -> str:
    """One digest for a set of files: changes when a byte, a name or the set changes."""
    lines = "".join(f"{f.sha256} {f.size} {f.path}\n" for f in sorted(files))
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def differences(folder: Path, manifest: Manifest) -> list[str]:
    """Compare a version folder with its manifest; empty when every byte is as published."""
    unlisted = {MANIFEST_NAME, SIGNATURE_NAME}
    found = {f.path: f for f in digest_folder(folder) if f.path not in unlisted}
    expected = {f.path: f for f in manifest.files}
    problems = [f"{path} is missing" for path in sorted(expected.keys() - found.keys())]
    problems += [
        f"{path} is not in the manifest" for path in sorted(found.keys() - expected.keys())
    ]
    for path in sorted(expected.keys() & found.keys()):
        want, have = expected[path], found[path]
        if want.size != have.size:
            problems.append(f"{path} has {have.size} bytes, the manifest says {want.size}")
        elif want.sha256 != have.sha256:
            problems.append(f"{path} has SHA-256 {have.sha256}, the manifest says {want.sha256}")
    return problems
