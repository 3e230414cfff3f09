"""One listing of the repository, seen as models.

Only what a publisher of ours writes is seen; anything else in the bucket is never mirrored, so it
cannot break what is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pipeline.model_config import CONFIG_NAME
from pipeline.repository_names import is_legal_model, is_version
from pipeline.stores import StoredObject


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigIdentity:
    """Which config was seen: changes with every commit, also with one of the same bytes."""

    etag: str
    size: int
    last_modified: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """What a listing says of one model.

    Attributes:
        name: Of the Triton model.
        config: Its config; None if there is none.
        versions: For each version, the sizes of its files by path in the version folder.
        fingerprint: Changes when anything of the model does.
    """

    name: str
    config: ConfigIdentity | None
    versions: Mapping[int, Mapping[str, int]]
    fingerprint: str


def listed_models(objects: Iterable[StoredObject]) -> dict[str, ListedModel]:
    """The models of a listing, by name."""
    by_model: dict[str, list[StoredObject]] = {}
    for found in objects:
        model, slash, _rest = found.key.partition("/")
        if slash and is_legal_model(model):
            by_model.setdefault(model, []).append(found)
    return {model: _listed(model, found) for model, found in by_model.items()}


def _listed(model: str, objects: list[StoredObject]) -> ListedModel:
    config = None
    versions: dict[int, dict[str, int]] = {}
    everything = hashlib.sha256()
    for found in sorted(objects, key=lambda o: o.key):
        identity = _identity(found)
        everything.update(f"{found.key} {identity}\n".encode())
        path = found.key.removeprefix(f"{model}/")
        if path == CONFIG_NAME:
            config = identity
            continue
        folder, slash, file = path.partition("/")
        if slash and is_version(folder):
            versions.setdefault(int(folder), {})[file] = found.size
    return ListedModel(
        name=model, config=config, versions=versions, fingerprint=everything.hexdigest()
    )


def _identity(found: StoredObject) -> ConfigIdentity:
    return ConfigIdentity(
        etag=found.etag, size=found.size, last_modified=_moment(found.last_modified)
    )


def _moment(moment: datetime) -> str:
    return moment.isoformat()
