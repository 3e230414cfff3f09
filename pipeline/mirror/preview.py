"""What a mirror would do now, for ``--dry-run``: reads the store and the folder, writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import RefusedError, UnavailableError
from pipeline.mirror.listing import ListedModel, listed_models
from pipeline.mirror.local import LocalRepository
from pipeline.mirror.plan import plan_model
from pipeline.mirror.records import ModelRecord
from pipeline.mirror.remote import Remote
from pipeline.stores import Store

Action = Literal["keep", "move", "refuse", "remove"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What would become of one model.

    Attributes:
        model: Its name.
        action: ``keep``, ``move`` to ``named``, ``refuse``, or ``remove`` after several listings.
        serving: The versions that the local config names now.
        named: Those that it would name.
        size: Bytes to download.
        problem: Why it is refused; empty otherwise.
    """

    model: str
    action: Action
    serving: tuple[int, ...]
    named: tuple[int, ...]
    size: int = 0
    problem: str = ""


def preview(store: Store, directory: Path, *, seal_name: str) -> tuple[Step, ...]:
    """What the next look would start.

    Raises:
        UnavailableError: The store does not answer, or holds nothing.
        SettingsError: It refuses the credentials.
    """
    remote, local = Remote(store), LocalRepository(directory)
    objects = remote.list()
    if not objects:
        raise UnavailableError(
            f"the listing of the repository is empty: {store.url}",
            hint="check the URL; a repository has one file in it even when it has no model",
        )
    listed = listed_models(objects)
    return tuple(
        _step(remote, local, local.record(name), name, listed.get(name), seal_name)
        for name in sorted(local.models() | listed.keys())
    )


def _step(
    remote: Remote,
    local: LocalRepository,
    record: ModelRecord,
    name: str,
    found: ListedModel | None,
    seal_name: str,
) -> Step:
    if found is None:
        return Step(model=name, action="remove", serving=record.named, named=())
    try:
        plan = plan_model(remote, local, record, found, seal_name)
    except RefusedError as error:
        return Step(
            model=name,
            action="refuse",
            serving=record.named,
            named=record.named,
            problem=error.message,
        )
    is_kept = not plan.missing and not plan.is_new_config
    return Step(
        model=name,
        action="keep" if is_kept else "move",
        serving=record.named,
        named=plan.named,
        size=plan.size,
    )
