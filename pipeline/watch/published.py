"""What is published, read with few requests: one listing, and the records of what has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from pipeline.errors import ConflictError
from pipeline.flows.journal import Journal, open_attempt
from pipeline.flows.publish import read_state
from pipeline.flows.taken_back import taken_back
from pipeline.model_config import CONFIG_NAME
from pipeline.repository_names import is_legal_model
from pipeline.stores import Store, StoredObject

_READERS: Final = 16
"""Models that are read at once; at the start all of them are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What is published under one name in Triton.

    Attributes:
        model: Name in Triton.
        version: The version that its config names; None if it names several, in the middle of a
            release of several models, or cannot be read.
        registered_model: Where the version comes from; empty for an entry published by hand, or if
            it is not known.
        is_proven: Whether the last attempt has an outcome. A run that was killed, or is at work
            now, has none.
        taken_back: The versions that were rolled back from since the last promotion, or are now,
            and by whom.
        problem: What could not be read; empty if all could.
    """

    model: str
    version: int | None
    registered_model: str
    is_proven: bool = True
    taken_back: Mapping[int, str] = field(default_factory=dict)
    problem: str = ""


class PublishedModels:
    """Remembers what it has read of each model until its config changes."""

    def __init__(self, repository: Store, journal: Journal) -> None:
        self._repository = repository
        self._journal = journal
        self._known: dict[str, tuple[tuple[object, ...], Published]] = {}

    def read(self) -> dict[str, Published]:
        """Everything that has a config, by name in Triton.

        Raises:
            SettingsError: The store refuses the credentials.
            UnavailableError: The store does not answer.
        """
        listed = _configs(self._repository.list_folder(""))
        known = self._known
        changed = [
            model
            for model, seen in listed.items()
            if model not in known or known[model][0] != seen or not known[model][1].is_proven
        ]
        with ThreadPoolExecutor(max_workers=_READERS) as readers:
            read = dict(zip(changed, readers.map(self._read_one, changed), strict=True))
        self._known = {
            model: (seen, read[model] if model in read else known[model][1])
            for model, seen in listed.items()
        }
        return {model: published for model, (_seen, published) in self._known.items()}

    def forget(self, models: Iterable[str]) -> None:
        """Read these again next time: something was done to them."""
        for model in models:
            self._known.pop(model, None)

    def _read_one(self, model: str) -> Published:
        try:
            entries = self._journal.entries(model)
            version = read_state(self._repository, model).version
            release = None if version is None else self._journal.release(model, version)
        except ConflictError as error:
            return Published(
                model=model,
                version=None,
                registered_model="",
                is_proven=False,
                problem=error.message,
            )
        return Published(
            model=model,
            version=version,
            registered_model=release.manifest.lineage.registered_model if release else "",
            is_proven=open_attempt(entries) is None,
            taken_back=taken_back(entries),
        )


def _configs(objects: Iterable[StoredObject]) -> dict[str, tuple[object, ...]]:
    """For each model that has a config, what tells that it was written again."""
    found: dict[str, tuple[object, ...]] = {}
    for stored in objects:
        model, slash, path = stored.key.partition("/")
        if slash and path == CONFIG_NAME and is_legal_model(model):
            found[model] = (stored.etag, stored.size, stored.last_modified)
    return found
