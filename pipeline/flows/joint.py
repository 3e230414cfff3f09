"""A release of several models: published together, switched together, taken back together.

Guarantees: as for one model (:mod:`pipeline.flows.serve`), and no request to an ensemble ever meets
steps of two releases. When it raises, the way back has been gone; when the process is killed, what
is served is all old or all new, and the same command finishes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.artifacts import Confirmation
from pipeline.ensembles import steps_of
from pipeline.errors import (
    ConfirmationError,
    ConflictError,
    TritonpipeError,
    UnavailableError,
)
from pipeline.flows.dependents import concerned_ensembles, own_config, require_switchable
from pipeline.flows.fallback import last_proven
from pipeline.flows.journal import (
    COMMITTING,
    CONFIRMED,
    FAILED,
    INTERRUPTED,
)
from pipeline.flows.locking import ENSEMBLES, held_locks
from pipeline.flows.progress import Describe, Progress
from pipeline.flows.publication import Candidate
from pipeline.flows.publish import read_state
from pipeline.flows.release import publish_entry, recorded_release
from pipeline.flows.servers import Servers
from pipeline.flows.switch import Goal, Switch
from pipeline.locks import Held
from pipeline.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedTogether:
    """A release of several models that is proven.

    Attributes:
        confirmations: The proof of each model, by name.
        previous: The version to return to, by name; None for a model that was new.
    """

    confirmations: Mapping[str, Confirmation]
    previous: Mapping[str, int | None]


def release_together(
    servers: Servers,
    candidates: Sequence[Candidate],
    *,
    action: str,
    settings: Settings,
    progress: Progress,
) -> ServedTogether:
    """Publish, switch and prove several models as one release.

    Args:
        servers: Where to.
        candidates: One for each model.
        action: What the journal calls it.
        settings: How long to wait for locks and servers.
        progress: Told the stages.

    Raises:
        ConflictError: Another publisher is at work on one of them, a version was published from
            other bytes, or a step changes its inputs or outputs.
        ConfirmationError: A live server did not confirm; what was served before is served again.
        UnavailableError: Store or servers do not answer.
    """
    models = frozenset(c.release.manifest.model for c in candidates)
    with _locks(servers, candidates, settings, progress) as (held, ensembles):
        require_switchable(servers, [c.release for c in candidates], ensembles)
        previous = {model: _previous(servers, model) for model in sorted(models)}
        with progress("publish") as describe:
            goals = {
                c.release.manifest.model: _published(servers, c, held, describe) for c in candidates
            }
        attempt = _Attempt(
            servers=servers, action=action, goals=goals, previous=previous, ensembles=ensembles
        )
        switch = Switch(
            servers=servers,
            goals=goals,
            ensembles=ensembles,
            held=held,
            seconds=settings.confirm_seconds,
            progress=progress,
        )
        try:
            attempt.note(COMMITTING)
            confirmations = switch.run()
        except BaseException as error:
            # A second Ctrl-C ends the way back, too; the next run then goes on from there.
            attempt.return_from(error, switch)
            raise
        attempt.note_confirmed()
        return ServedTogether(confirmations=confirmations, previous=previous)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """One run of a joint release, as the journals of its models tell it."""

    servers: Servers
    action: str
    goals: Mapping[str, Goal]
    previous: Mapping[str, int | None]
    ensembles: Mapping[str, str]

    def note(self, event: str, reason: str = "") -> None:
        together = tuple(f"{model}/{goal.version}" for model, goal in sorted(self.goals.items()))
        for model, goal in self.goals.items():
            self.servers.journal.append(
                model,
                action=self.action,
                event=event,
                version=goal.version,
                previous=self.previous[model],
                digest=goal.release.manifest.digest,
                reason=reason,
                together=together,
            )

    def note_confirmed(self) -> None:
        """Write down the proof; without it the next run proves once more."""
        try:
            self.note(CONFIRMED)
        except TritonpipeError as error:
            raise UnavailableError(
                f"{', '.join(self.goals)} are served and confirmed, but that could not be written "
                f"down: {error}",
                hint="run the command again when the store answers; it only confirms and records",
            ) from error

    def return_from(self, error: BaseException, switch: Switch) -> None:
        """Go the way back, and write down why; what somebody else has committed is left alone."""
        try:
            self._refuse_what_others_committed()
            goals = {
                model: _recorded_goal(self.servers, model, version)
                for model, version in self.previous.items()
            }
            if any(_differs(self.servers, model, goal) for model, goal in goals.items()):
                Switch(
                    servers=self.servers,
                    goals=goals,
                    ensembles=self.ensembles,
                    held=switch.held,
                    seconds=switch.seconds,
                    progress=switch.progress,
                ).run()
            is_interrupt = isinstance(error, KeyboardInterrupt)
            self.note(
                INTERRUPTED if is_interrupt else FAILED, reason=str(error) or type(error).__name__
            )
        except TritonpipeError as failure:
            raise ConfirmationError(
                f"{error}; and what was served before could not be restored: {failure}",
                hint="run the command again: it goes on from here; or look at: tritonpipe status",
            ) from error

    def _refuse_what_others_committed(self) -> None:
        for model, goal in self.goals.items():
            versions = read_state(self.servers.repository, model).versions
            if not set(versions) <= {self.previous[model], goal.version}:
                raise ConflictError(
                    f"somebody else has committed {model}/{max(versions)}, which is left alone"
                )


@contextmanager
def _locks(
    servers: Servers, candidates: Sequence[Candidate], settings: Settings, progress: Progress
) -> Iterator[tuple[dict[str, Held], dict[str, str]]]:
    """The locks of all models, of the ensembles that use them, and of the steps that they use.

    With them, the ensembles that are not released themselves, each with its own release's config.
    """
    models = frozenset(c.release.manifest.model for c in candidates)
    steps = {step.model for c in candidates for step in steps_of(c.release.config)}
    expected = concerned_ensembles(servers, models)
    with held_locks(
        servers.locks,
        models | steps | expected.keys() | ({ENSEMBLES} if steps or expected else set()),
        seconds=settings.lock_seconds,
        progress=progress,
    ) as held:
        ensembles = concerned_ensembles(servers, models)
        if not ensembles.keys() <= held.keys():
            raise ConflictError(
                f"an ensemble that uses {', '.join(sorted(models))} was published meanwhile",
                hint="run the command again",
            )
        yield held, {name: own_config(servers, name, ensembles[name]) for name in ensembles}


def _published(
    servers: Servers, candidate: Candidate, held: Mapping[str, Held], describe: Describe
) -> Goal:
    """Upload a candidate unless its version is committed, in part, already."""
    manifest = candidate.release.manifest
    state = read_state(servers.repository, manifest.model)
    if candidate.entry is not None and manifest.version not in state.versions:
        publish_entry(
            servers,
            candidate.entry,
            state,
            candidate.release,
            candidate.golden,
            held=held[manifest.model],
            describe=describe,
        )
        return Goal(release=candidate.release, golden=candidate.golden)
    release, golden = recorded_release(servers, manifest.model, manifest.version)
    if release.config != candidate.release.config or release.manifest.files != manifest.files:
        raise ConflictError(
            f"{manifest.model}/{manifest.version} was published meanwhile, from other bytes",
            hint="publish yours as a new version",
        )
    return Goal(release=release, golden=golden)


def _previous(servers: Servers, model: str) -> int | None:
    state = read_state(servers.repository, model)
    return last_proven(servers, state, servers.journal.entries(model)).version


def _recorded_goal(servers: Servers, model: str, version: int | None) -> Goal | None:
    if version is None:
        return None
    release, golden = recorded_release(servers, model, version)
    return Goal(release=release, golden=golden)


def _differs(servers: Servers, model: str, goal: Goal | None) -> bool:
    config = read_state(servers.repository, model).config
    return config != (None if goal is None else goal.release.config)
