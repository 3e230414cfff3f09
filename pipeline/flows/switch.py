"""Several models that change together, in an order that no client notices.

An ensemble asks its steps one after another. Were they committed one by one, a request could meet
the first step of the new release and the second one of the old. So, for steps that are served
already (``old``) and shall be served anew (``new``):

1. *hold*: each ensemble that follows the newest version of a step names the old one;
2. *beside*: the steps serve old and new, and the new ones prove themselves by version;
3. *turn*: each ensemble, in one commit, names the new ones, and proves itself;
4. *alone*: the steps serve new only, and the servers have let go of the old ones;
5. *follow*: ensembles that followed the newest version do so again.

Every phase looks at what is there and does what is missing, so a run that was killed anywhere is
finished by the next one. The way back is the same way with other goals.

Two versions of a model share one config. A step that changes its inputs or outputs can therefore
not be beside itself, and is refused; it needs another name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from pipeline.artifacts import Confirmation, Release
from pipeline.ensembles import NEWEST, Step, pinned, steps_of
from pipeline.errors import ConflictError, UnavailableError
from pipeline.flows.commit import commit
from pipeline.flows.confirm import await_ready, confirm
from pipeline.flows.dependents import own_config
from pipeline.flows.progress import Progress
from pipeline.flows.publish import RepositoryState, read_state
from pipeline.flows.serve import commit_again
from pipeline.flows.servers import Servers
from pipeline.flows.withdrawal import withdraw
from pipeline.locks import Held
from pipeline.model_config import config_from_text, with_versions
from pipeline.samples import Samples
from pipeline.triton import TritonClient

_LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Goal:
    """What one model shall serve in the end.

    Attributes:
        release: The release; its files are in the repository.
        golden: The answers that prove it.
    """

    release: Release
    golden: Samples

    @property
    def version(self) -> int:
        """The version that shall be served."""
        return self.release.manifest.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """One switch of several models; call with the locks of all of them held.

    Attributes:
        servers: Where.
        goals: What each model shall serve; None for one that shall not be served.
        ensembles: Published ensembles with a step among the goals, by name, with the config of
            their own release; those among the goals are left out.
        held: The lock of each model and ensemble.
        seconds: How long each wait may take.
        progress: Told the phases.
    """

    servers: Servers
    goals: Mapping[str, Goal | None]
    ensembles: Mapping[str, str]
    held: Mapping[str, Held]
    seconds: float
    progress: Progress

    def run(self) -> dict[str, Confirmation]:
        """Carry it out; returns the proof of each model that is served in the end.

        Raises:
            ConfirmationError: A server does not serve what it should; nothing was taken back yet.
            ConflictError: Somebody else has committed, or a step changes its inputs or outputs.
            UnavailableError: Store or server do not answer.
        """
        steps, finals = self._steps(), self._final_configs()
        for model, goal in steps.items():
            self._require_same_interface(model, goal)
        with self.progress("hold") as describe:
            describe(self._told(self._hold(), "keep to the steps they have"))
        with self.progress("beside") as describe:
            describe(self._told(self._serve_beside(steps), "serve old and new"))
        with self.progress("turn") as describe:
            pins = {model: goal.version for model, goal in steps.items()}
            describe(self._told(self._turn(finals, pins), "name the new steps"))
        with self.progress("alone") as describe:
            describe(self._told(self._serve_alone(steps), "serve the new version alone"))
        with self.progress("follow") as describe:
            describe(self._told(self._turn(finals, {}), "are as released"))
        with self.progress("confirm") as describe:
            proofs = {
                model: self._proven(goal) for model, goal in self.goals.items() if goal is not None
            }
            describe(f"golden answers as expected: {', '.join(proofs)}")
        return proofs

    def _steps(self) -> dict[str, Goal]:
        """The goals that are no ensembles."""
        return {
            model: goal
            for model, goal in self.goals.items()
            if goal is not None and not steps_of(goal.release.config)
        }

    def _final_configs(self) -> dict[str, str]:
        """Every ensemble concerned, with the config that it shall have in the end."""
        return dict(self.ensembles) | {
            model: goal.release.config
            for model, goal in self.goals.items()
            if goal is not None and steps_of(goal.release.config)
        }

    def _hold(self) -> Iterator[str]:
        for name in (*self.ensembles, *self.goals):
            state = self._state(name)
            if state.config is None:
                continue
            pins = {
                step.model: self._old_version(step.model)
                for step in state.steps
                if step.version == NEWEST and self._old_version(step.model) is not None
            }
            known = {model: version for model, version in pins.items() if version is not None}
            # Also what a run that was killed has written: a server may not have taken it over yet.
            if known or state.steps != self._own_steps(name, state.config):
                config = pinned(state.config, known) if known else state.config
                yield from self._set(state, config)

    def _own_steps(self, name: str, committed: str) -> tuple[Step, ...]:
        """The steps of a release, without the pins of a switch."""
        if not steps_of(committed):
            return ()
        own = self.ensembles.get(name)
        return steps_of(own_config(self.servers, name, committed) if own is None else own)

    def _serve_beside(self, steps: Mapping[str, Goal]) -> Iterator[str]:
        for model, goal in steps.items():
            old = self._old_version(model)
            config = goal.release.config
            if old is not None:
                config = with_versions(config, {old, goal.version})
            yield from self._set(self._state(model), config)
        for goal in steps.values():
            self._await(goal.release)
            confirm(
                self.servers.replicas,
                goal.release,
                goal.golden,
                seconds=self.seconds,
                waited=0.0,
                names_version=True,
            )

    def _turn(self, finals: Mapping[str, str], pins: Mapping[str, int]) -> Iterator[str]:
        for name, config in finals.items():
            following = {s.model for s in steps_of(config) if s.version == NEWEST}
            chosen = {model: version for model, version in pins.items() if model in following}
            yield from self._set(self._state(name), pinned(config, chosen))
        for name in finals:
            goal = self.goals.get(name)
            if goal is not None:
                self._await(goal.release)
                self._proven(goal)

    def _serve_alone(self, steps: Mapping[str, Goal]) -> Iterator[str]:
        # What is not to be served goes first where it is an ensemble: its steps are still there.
        gone = [model for model, goal in self.goals.items() if goal is None]
        for model in sorted(gone, key=lambda m: not self._state(m).steps):
            withdraw(self.servers, model, self.held[model])
            yield model
        for model, goal in steps.items():
            yield from self._set(self._state(model), goal.release.config)
        for model, goal in steps.items():
            self._await_alone(model, goal.version)

    def _set(self, state: RepositoryState, config: str) -> Iterator[str]:
        """Commit a config if it is not there yet, and wait until ensembles have taken it over."""
        if state.config != config:
            commit(self.servers.repository, state, config, held=self.held[state.model])
            yield state.model
        steps = tuple((step.model, step.version) for step in steps_of(config))
        if steps and state.config is not None:
            self._await_steps(state.model, steps)

    def _await(self, release: Release) -> None:
        model = release.manifest.model
        await_ready(
            self.servers.replicas,
            release,
            seconds=self.seconds,
            known_reasons=("",) * len(self.servers.replicas),
            commit_again=partial(
                commit_again, self.servers, model, self._state(model).config or "", self.held[model]
            ),
        )

    def _await_steps(self, name: str, steps: tuple[tuple[str, int], ...]) -> None:
        for replica in self.servers.replicas:
            self._await_true(
                partial(_has_steps, replica, name, steps),
                f"Triton at {replica.http_address} has not taken over {name}",
            )

    def _await_alone(self, model: str, version: int) -> None:
        for replica in self.servers.replicas:
            self._await_true(
                partial(_serves_alone, replica, model, version),
                f"Triton at {replica.http_address} holds other versions of {model}",
            )

    def _await_true(self, is_so: Callable[[], bool], problem: str) -> None:
        """Ask until it is so; a server that does not answer may be starting again."""
        deadline = time.monotonic() + self.seconds
        while True:
            try:
                if is_so():
                    return
                words = ""
            except UnavailableError as error:
                words = f": {error.message}"
            if time.monotonic() > deadline:
                raise UnavailableError(
                    problem + words, hint="run the command again: it goes on from here"
                )
            time.sleep(_LOOK_SECONDS)

    def _proven(self, goal: Goal) -> Confirmation:
        return confirm(
            self.servers.replicas, goal.release, goal.golden, seconds=self.seconds, waited=0.0
        )

    def _old_version(self, model: str) -> int | None:
        """The version of a step that is served now and shall not be; None if there is none."""
        goal = self.goals.get(model)
        if goal is None:
            return None
        return next((v for v in self._state(model).versions if v != goal.version), None)

    def _state(self, model: str) -> RepositoryState:
        return read_state(self.servers.repository, model)

    def _require_same_interface(self, model: str, goal: Goal) -> None:
        state = self._state(model)
        now = state.config if state.versions else None
        if now is None or _interface(now) == _interface(goal.release.config):
            return
        raise ConflictError(
            f"version {goal.version} of {model} has other inputs or outputs than the one that is "
            "served: Triton has one config for both, so they cannot be served side by side",
            hint=f"publish it under another name, such as {model}-{goal.version}, and let the "
            "ensembles name that",
        )

    @staticmethod
    def _told(changed: Iterator[str], what: str) -> str:
        names = list(dict.fromkeys(changed))
        return f"{', '.join(names)} {what}" if names else "nothing to do"


def _interface(config: str) -> tuple[object, ...]:
    message = config_from_text(config)
    inputs = tuple((i.name, i.data_type, tuple(i.dims), i.optional) for i in message.input)
    outputs = tuple((o.name, o.data_type, tuple(o.dims)) for o in message.output)
    return (message.backend, message.platform, message.max_batch_size, inputs, outputs)


def _has_steps(replica: TritonClient, name: str, steps: tuple[tuple[str, int], ...]) -> bool:
    return replica.steps(name) == steps


def _serves_alone(replica: TritonClient, model: str, version: int) -> bool:
    return not any(
        state.state in {"READY", "LOADING"} and number != version
        for number, state in replica.versions(model).items()
    )
