"""Models that are served in several parts under one name: a tokenizer and a network, say.

Clients ask the ensemble ``NAME``; its parts ``NAME.tokenizer`` and ``NAME.network`` belong to the
same registered model, carry the same version and are never served without it. Guarantees: all of
them are published, switched and taken back as one release; what is told of a part says whose it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pipeline.artifacts import ModelVersion, PublishPlan, Release
from pipeline.ensembles import steps_of
from pipeline.errors import ConflictError
from pipeline.flows.joint import release_together
from pipeline.flows.journal import PROMOTE, JournalEntry
from pipeline.flows.progress import Progress
from pipeline.flows.publication import Candidate, publish_and_serve
from pipeline.flows.publish import RepositoryState, read_state
from pipeline.flows.release import recorded_release
from pipeline.flows.serve import Served, proof_of_served
from pipeline.flows.servers import Servers
from pipeline.model_config import check_name
from pipeline.settings import Settings

TOKENIZER: Final = "tokenizer"
NETWORK: Final = "network"
PARTS: Final = (TOKENIZER, NETWORK)


def part_name(name: str, part: str) -> str:
    """The Triton model of a part.

    Raises:
        RequestError: It would not be legal: the name leaves no place for it.
    """
    return check_name(f"{name}.{part}")


def owner_of(model: str, entries: Sequence[JournalEntry]) -> str:
    """The name of which a model is a part; empty if it is a model of its own.

    Args:
        model: Triton model.
        entries: Its journal, oldest first: it tells what was switched together with it last.
    """
    owner, _, part = model.rpartition(".")
    together = next((entry.together for entry in reversed(entries) if entry.together), ())
    others = {reference.rpartition("/")[0] for reference in together}
    return owner if part in PARTS and owner in others else ""


def recorded_parts(servers: Servers, release: Release) -> tuple[Candidate, ...]:
    """The parts of a recorded release that came from the registry; none for a model in one piece.

    Raises:
        ConflictError: A part is no longer there as it was published.
    """
    found = []
    for step in steps_of(release.config):
        recorded, golden = recorded_release(servers, step.model, step.version)
        found.append(Candidate(release=recorded, golden=golden, entry=None))
    return tuple(found)


def proof_of_all(
    servers: Servers,
    candidates: Sequence[Candidate],
    state: RepositoryState,
    *,
    seconds: float,
    progress: Progress,
) -> Served | None:
    """The proof of the last one, if all of them are served already and prove it.

    Args:
        servers: Where they are served.
        candidates: What shall be served, what clients ask last.
        state: What the store holds of that one.
        seconds: How long the servers may take to answer.
        progress: Told the stages.
    """
    proof = None
    for candidate in candidates:
        model = candidate.release.manifest.model
        proof = proof_of_served(
            servers,
            state if model == state.model else read_state(servers.repository, model),
            candidate.release,
            candidate.golden,
            seconds=seconds,
            progress=progress,
        )
        if proof is None:
            return None
    return proof


def publish_with_parts(
    servers: Servers,
    candidate: Candidate,
    parts: Sequence[Candidate],
    planned: RepositoryState,
    *,
    settings: Settings,
    progress: Progress,
) -> Served:
    """Publish and serve a promoted version: alone, or with its parts as one release.

    Raises:
        ConflictError: Somebody else publishes one of them, or a part changes its inputs or outputs.
        ConfirmationError: The live server did not confirm; what was served before is served again.
        UnavailableError: Store or server do not answer.
    """
    if not parts:
        return publish_and_serve(
            servers, candidate, planned, action=PROMOTE, settings=settings, progress=progress
        )
    done = release_together(
        servers, [*parts, candidate], action=PROMOTE, settings=settings, progress=progress
    )
    model = candidate.release.manifest.model
    return Served(
        release=candidate.release,
        confirmation=done.confirmations[model],
        previous=done.previous[model],
        is_new=True,
    )


def refuse_other_parts(
    servers: Servers, state: RepositoryState, version: ModelVersion, parts: Sequence[Candidate]
) -> None:
    """Return if a version can take the place of what is served under its name.

    Raises:
        ConflictError: One of them is in parts and the other is not, or the name of a part is taken.
    """
    if state.config is not None and bool(state.steps) != bool(parts):
        now, then = ("in parts", "in one") if state.steps else ("in one", "in parts")
        raise ConflictError(
            f"Triton model {state.model!r} is served {now}, and {version} would be {then}: "
            "they cannot be exchanged without a moment of neither",
            hint="serve this version under another name with --name",
        )
    for part in parts:
        model = part.release.manifest.model
        for committed in read_state(servers.repository, model).versions:
            release = servers.journal.release(model, committed)
            if release is None or release.manifest.lineage.registered_model != version.name:
                raise ConflictError(
                    f"Triton model {model!r}, which {version} needs for a part, serves something "
                    "else",
                    hint="serve this version under another name with --name",
                )


def plan_of_recorded(servers: Servers, candidate: Candidate, *parts: Candidate) -> PublishPlan:
    """What serving a recorded release again would do."""
    manifest = candidate.release.manifest
    state = read_state(servers.repository, manifest.model)
    return PublishPlan(
        model=manifest.model,
        version=manifest.version,
        previous=max(state.versions, default=None),
        uploads=(),
        deletes=(),
        commit=state.config != candidate.release.config,
        parts=tuple(plan_of_recorded(servers, part) for part in parts),
    )
