"""Publishes entries that people wrote by the same protocol as promotions.

Guarantees: every entry is valid, alone and together with the models it refers to, before anything
is written; what is served afterwards answers as its author said, or what was served before is
served again; several entries change together, so that no request meets half of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from pipeline.artifacts import Confirmation, PublishPlan
from pipeline.ensemble_edges import edge_problems
from pipeline.ensembles import steps_of
from pipeline.errors import ModelError, RequestError
from pipeline.flows.candidates import Prepared, candidate_from_folder, committed_versions, decided
from pipeline.flows.joint import release_together
from pipeline.flows.journal import PUBLISH, open_attempt
from pipeline.flows.progress import Progress, Stopwatch, silent
from pipeline.flows.publication import Candidate, publish_and_serve
from pipeline.flows.publish import plan_publication, read_state
from pipeline.flows.replicas import require_live
from pipeline.flows.servers import Servers, open_servers
from pipeline.settings import Settings
from pipeline.signing.choice import chosen_signer

__all__ = ["PublicationResult", "PublishedEntry", "candidate_from_folder", "plan", "publish"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedEntry:
    """One entry that is served and proven.

    Attributes:
        outcome: ``published``, or ``unchanged`` if this version was served already.
        model: Triton model.
        version: Its version.
        digest: Digest of the release.
        previous: Version that was served before.
        confirmation: Answers of the live server.
    """

    outcome: str
    model: str
    version: int
    digest: str
    previous: int | None
    confirmation: Confirmation


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicationResult:
    """How a publication ended.

    Attributes:
        entries: Steps before the ensembles that use them.
        seconds: Duration of each stage.
    """

    entries: tuple[PublishedEntry, ...]
    seconds: dict[str, float]


def publish(
    paths: Sequence[Path],
    settings: Settings,
    *,
    sources: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> PublicationResult:
    """Validate, publish and prove the entries in these folders, together if they are several.

    Running it twice does nothing the second time but confirm.

    Args:
        paths: The folders.
        settings: Where to, and how.
        sources: Where the files come from, by name of the entry; by default the folder itself.
        progress: Told the stages.

    Raises:
        RequestError: A folder is not laid out as an entry, or a name is not legal.
        ModelError: An entry is not valid, or does not fit the models it refers to.
        ConflictError: A version was published from other bytes, the model comes from the registry,
            or somebody else publishes it now.
        ConfirmationError: The live server did not confirm; what was served before is served again.
        SettingsError: An address or credential is wrong.
        UnavailableError: A server does not answer.
    """
    watch = Stopwatch(progress)
    with (
        open_servers(settings) as servers,
        _prepared(servers, paths, settings, watch, sources or {}) as prepared,
    ):
        require_live(servers.replicas)
        halfway = _halfway(servers, prepared)
        changing = [p for p in prepared if p.state.config != p.config or p.model in halfway]
        settled = [p for p in prepared if p not in changing]
        alone = prepared if len(changing) < 2 else settled
        entries = [_publish_alone(servers, p, settings, watch) for p in alone]
        if len(changing) > 1:
            entries += _publish_together(servers, changing, settings, watch)
        return PublicationResult(entries=tuple(entries), seconds=watch.seconds)


def plan(
    paths: Sequence[Path], settings: Settings, *, progress: Progress = silent
) -> tuple[PublishPlan, ...]:
    """What :func:`publish` would do, one plan for each entry; writes nothing.

    Raises:
        RequestError: As there; likewise ``ModelError``, ``ConflictError`` and the others.
    """
    with (
        open_servers(settings) as servers,
        _prepared(servers, paths, settings, progress, {}) as found,
    ):
        return tuple(_plan(servers, each) for each in found)


@contextmanager
def _prepared(
    servers: Servers,
    paths: Sequence[Path],
    settings: Settings,
    progress: Progress,
    sources: Mapping[str, str],
) -> Iterator[list[Prepared]]:
    """Valid entries, steps before ensembles, with copies of their files while the body runs."""
    names = [path.resolve().name for path in paths]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RequestError(f"{twice} is named twice", hint="name each entry once")
    signer = chosen_signer(settings)
    with tempfile.TemporaryDirectory(prefix="tritonpipe-") as folder:
        with progress("validate") as describe:
            candidates: dict[str, Candidate] = {}
            for path in paths:
                candidate = candidate_from_folder(
                    path,
                    Path(folder),
                    relative_tolerance=settings.relative_tolerance,
                    absolute_tolerance=settings.absolute_tolerance,
                    source=sources.get(path.resolve().name, ""),
                )
                candidates[candidate.release.manifest.model] = candidate
            ordered = _in_order({m: c.release.config for m, c in candidates.items()})
            _require_whole_ensembles(servers, {m: candidates[m].release.config for m in ordered})
            describe(", ".join(f"{m}/{candidates[m].release.manifest.version}" for m in ordered))
        for candidate in candidates.values():
            if signer is not None and candidate.entry is not None:
                signer.sign(candidate.entry.folder, candidate.entry.manifest)
        yield [decided(servers, candidates[model], settings) for model in ordered]


def _in_order(configs: dict[str, str]) -> list[str]:
    """Steps before the ensembles that use them; a circle is told with the ensembles' edges."""
    graph = {m: {s.model for s in steps_of(c)} & configs.keys() - {m} for m, c in configs.items()}
    sorter = TopologicalSorter(graph)
    try:
        return list(sorter.static_order())
    except CycleError:
        return list(configs)


def _require_whole_ensembles(servers: Servers, configs: dict[str, str]) -> None:
    known = dict(configs)
    pending = [step.model for config in configs.values() for step in steps_of(config)]
    while pending:
        model = pending.pop()
        config = None if model in known else read_state(servers.repository, model).config
        if config is not None:
            known[model] = config
            pending += [step.model for step in steps_of(config)]
    for model, config in configs.items():
        problems = edge_problems(config, known)
        if problems:
            raise ModelError(
                f"the ensemble {model} cannot be served: {'; '.join(problems)}",
                hint="correct its config.pbtxt; steps that are not published yet can be published "
                "with it: tritonpipe publish STEP ENSEMBLE",
            )


def _halfway(servers: Servers, prepared: Sequence[Prepared]) -> set[str]:
    """The models of releases of several models that were begun and have no outcome."""
    attempts = [open_attempt(servers.journal.entries(one.model)) for one in prepared]
    return {
        reference.rpartition("/")[0]
        for attempt in attempts
        if attempt is not None
        for reference in attempt.together
    }


def _publish_alone(
    servers: Servers, one: Prepared, settings: Settings, progress: Progress
) -> PublishedEntry:
    served = publish_and_serve(
        servers, one.candidate, one.state, action=PUBLISH, settings=settings, progress=progress
    )
    return PublishedEntry(
        outcome="published" if served.is_new else "unchanged",
        model=one.model,
        version=served.confirmation.version,
        digest=served.release.manifest.digest,
        previous=served.previous,
        confirmation=served.confirmation,
    )


def _publish_together(
    servers: Servers, several: Sequence[Prepared], settings: Settings, progress: Progress
) -> list[PublishedEntry]:
    candidates = [one.candidate for one in several]
    served = release_together(
        servers, candidates, action=PUBLISH, settings=settings, progress=progress
    )
    return [
        PublishedEntry(
            outcome="published",
            model=one.model,
            version=one.candidate.release.manifest.version,
            digest=one.candidate.release.manifest.digest,
            previous=served.previous[one.model],
            confirmation=served.confirmations[one.model],
        )
        for one in several
    ]


def _plan(servers: Servers, one: Prepared) -> PublishPlan:
    if one.candidate.entry is not None:
        return plan_publication(servers.repository, one.state, one.candidate.entry)
    return PublishPlan(
        model=one.model,
        version=one.candidate.release.manifest.version,
        previous=max(committed_versions(one.state), default=None),
        uploads=(),
        deletes=(),
        commit=one.state.config != one.config,
    )
