"""The embedded stack: MLflow, S3 and Triton as one thing that is up or down.

Guarantees: what :meth:`Stack.up` started runs and answers when it returns, and is stopped again
when it fails or is interrupted; what ran before is left alone. :meth:`Stack.down` leaves no
process, port or shared memory. Data and addresses survive both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from pipeline.errors import RequestError, StackError
from pipeline.flows.progress import Progress, silent
from pipeline.stack import ports as port_choice
from pipeline.stack.addresses import Addresses, addresses_from_ports, client_variables
from pipeline.stack.credentials import s3_key
from pipeline.stack.environment import ServerEnvironment, ensure_server_environment
from pipeline.stack.leftovers import remove_leftovers
from pipeline.stack.mirror import MIRROR_OUTCOMES, launch_mirror
from pipeline.stack.mlflow_server import launch_mlflow
from pipeline.stack.part import Part
from pipeline.stack.ports import PORTS_OF
from pipeline.stack.s3_server import launch_s3
from pipeline.stack.startup import Startup, Tell
from pipeline.stack.state import Mirroring, StackOptions, StateDirectory, default_state_directory
from pipeline.stack.status import StackStatus, status_of
from pipeline.stack.triton_server import launch_triton, wait_for_entries

_ENTRIES_PATIENCE: Final = 60.0


def _nobody(_text: str) -> None:
    pass


class Stack:
    """The stack in one state directory; any number of them run side by side."""

    def __init__(self, state_directory: Path | None = None) -> None:
        self._state = StateDirectory(state_directory or default_state_directory())
        self._s3 = Part(self._state, "s3", "S3", stop_patience=5)
        self._mlflow = Part(self._state, "mlflow", "MLflow", stop_patience=10)
        self._mirror = Part(self._state, "mirror", "Mirror", stop_patience=5)
        self._triton = Part(self._state, "triton", "Triton", stop_patience=15)
        self._parts = {
            part.name: part for part in (self._s3, self._mlflow, self._mirror, self._triton)
        }

    @property
    def state_directory(self) -> Path:
        """Where it keeps everything."""
        return self._state.path

    @property
    def is_running(self) -> bool:
        """Whether any part of it runs."""
        return any(part.is_running for part in self._parts.values())

    def parts(self) -> tuple[Part, ...]:
        """Its servers, in the order in which they start."""
        is_mirrored = self._state.options().mirroring is not Mirroring.OFF
        return tuple(p for p in self._parts.values() if is_mirrored or p is not self._mirror)

    def install(
        self, progress: Progress = silent, *, python: Path | None = None
    ) -> ServerEnvironment:
        """Install the servers if they are not there yet; ``up`` does so, too.

        Args:
            progress: Told the stages.
            python: The Python to install them for; remembered for the next ``up``.

        Raises:
            DependencyError: The servers cannot be installed here.
            SettingsError: ``python`` or the state directory cannot be used.
        """
        # A link is not resolved: an environment's python is one, and stands for the environment.
        python = python.expanduser().absolute() if python else None
        environment = ensure_server_environment(
            progress, python=python or self._state.options().python
        )
        if python is not None:
            self._state.create()
            with self._state.locked(progress):
                self._state.remember(replace(self._state.options(), python=python))
        return environment

    def up(
        self,
        progress: Progress = silent,
        *,
        tell: Tell = _nobody,
        ports: Mapping[str, int] | None = None,
        poll_seconds: int | None = None,
        mirroring: Mirroring | None = None,
    ) -> StackStatus:
        """Start what does not run and return when all parts answer.

        Args:
            progress: Told the stages.
            tell: Told what differs from what could be expected: other ports, a part that had
                died, entries of the repository that do not load.
            ports: Ports to use, by field of :class:`Ports`; 0 for any free one. By default those
                of last time, and others where they are taken.
            poll_seconds: How often Triton looks for changes; by default as last time, at first 1.
            mirroring: Whether Triton reads a mirror; by default as last time, at first not.

        Raises:
            StackError: A part did not start; the end of its log is part of the message.
            DependencyError: The servers cannot be installed here.
            SettingsError: The state directory or a port cannot be used.
        """
        environment = self.install(progress)
        self._state.create()
        with self._state.locked(progress):
            self._choose_options(ports or {}, poll_seconds, mirroring, tell)
            self._start_missing(environment, progress, tell)
        return self.status()

    def down(self, progress: Progress = silent, *, delete: bool = False) -> None:
        """Stop everything; data stays unless ``delete`` is set.

        Raises:
            SettingsError: There is a folder, but it is not the state of a stack.
            StackError: A process could not be ended.
        """
        if not self._state.exists:
            if delete:
                self._state.require_deletable()
            return
        with self._state.locked(progress):
            self._stop(self._stop_order(), progress)
            if delete:
                self._state.delete()

    def restart(
        self, name: str | None = None, progress: Progress = silent, *, tell: Tell = _nobody
    ) -> StackStatus:
        """Stop one part, or all, and start what does not run then, on the same addresses.

        Raises:
            RequestError: There is no such part.
            StackError: No stack was ever started here, or a part did not start.
        """
        parts = [self._part(name)] if name is not None else self._stop_order()
        self._require_created()
        environment = self.install(progress)
        with self._state.locked(progress):
            self._stop(parts, progress)
            self._choose_options({}, None, None, tell)
            self._start_missing(environment, progress, tell)
        return self.status()

    def status(self) -> StackStatus:
        """Look at every part now."""
        ports = self._state.options().ports
        parts = tuple(status_of(part, ports) for part in self.parts())
        return StackStatus(state_directory=self._state.path, parts=parts)

    def addresses(self) -> Addresses:
        """Where the servers are.

        Raises:
            StackError: No stack was ever started here.
        """
        self._require_created()
        return addresses_from_ports(self._state.options().ports)

    def environment_variables(self) -> dict[str, str]:
        """What a client needs to find this stack, by the names that clients know.

        Raises:
            StackError: No stack was ever started here.
        """
        locks = self._state.path / "locks"
        return client_variables(self.addresses(), s3_key(self._state), locks)

    def logs(self, name: str | None = None) -> dict[str, Path]:
        """The log of one part, or of all, by name.

        Raises:
            RequestError: There is no such part.
        """
        parts = self.parts() if name is None else (self._part(name),)
        return {part.name: part.log for part in parts}

    def _stop_order(self) -> list[Part]:
        # Triton first: it unloads models in order while S3 is still there.
        return [self._triton, self._mirror, self._mlflow, self._s3]

    def _stop(self, parts: Iterable[Part], progress: Progress) -> None:
        for part in parts:
            if part.identity() is not None:
                with progress(f"stop {part.title}"):
                    part.stop()
        if not self._triton.is_running:
            remove_leftovers(self._state)

    def _choose_options(
        self,
        wanted: Mapping[str, int],
        poll_seconds: int | None,
        mirroring: Mirroring | None,
        tell: Tell,
    ) -> None:
        for part in self._parts.values():
            # The child of a killed server may still hold the port, which is ours to free.
            if not part.is_running:
                part.stop_unless_died()
        remembered = self._state.options()
        running = {name for name, part in self._parts.items() if part.is_running}
        ports, notices = port_choice.choose_ports(
            remembered.ports,
            wanted=wanted,
            in_use_by_us={port for name in running for port in PORTS_OF[name]},
            is_free=port_choice.is_free,
            free_ports=port_choice.free_ports(),
        )
        for notice in notices:
            tell(notice)
        options = replace(
            remembered,
            ports=ports,
            poll_seconds=poll_seconds or remembered.poll_seconds,
            mirroring=mirroring or remembered.mirroring,
        )
        if options.poll_seconds != remembered.poll_seconds and self._triton.is_running:
            tell("Triton keeps its polling interval until: tritonpipe stack restart triton")
        if ports.s3 != remembered.ports.s3 and self._triton.is_running:
            tell("S3 has another port now: Triton is restarted to follow it")
            self._triton.stop()
        if options.mirroring != remembered.mirroring and self._triton.is_running:
            tell("Triton is restarted, since it reads something else now")
            self._triton.stop()
        moved = (ports, options.mirroring) != (remembered.ports, remembered.mirroring)
        if moved and self._mirror.is_running:
            self._mirror.stop()
        self._state.remember(options)

    def _start_missing(
        self, environment: ServerEnvironment, progress: Progress, tell: Tell
    ) -> None:
        options = self._state.options()
        ports = options.ports
        addresses = addresses_from_ports(ports)
        with Startup(self._state, progress, tell) as startup:
            startup.start(self._s3, lambda: launch_s3(self._state, environment, ports.s3))
            startup.start(
                self._mlflow, lambda: launch_mlflow(self._state, environment, ports.mlflow)
            )
            startup.wait(self._s3, addresses.s3)
            how = (options.poll_seconds, options.mirroring)
            if options.mirroring is not Mirroring.OFF:
                startup.start(self._mirror, lambda: launch_mirror(self._state, ports, *how))
                startup.wait(self._mirror, MIRROR_OUTCOMES[options.mirroring])
            startup.start(
                self._triton, lambda: launch_triton(self._state, environment, ports, *how)
            )
            startup.wait(self._triton, addresses.triton_http)
            if startup.has_started(self._triton):
                self._report_unserved(options, progress, tell)
            startup.wait(self._mlflow, addresses.mlflow)

    def _report_unserved(self, options: StackOptions, progress: Progress, tell: Tell) -> None:
        with progress("entries") as describe:
            entries = wait_for_entries(
                self._state,
                options.ports.triton_http,
                patience=_ENTRIES_PATIENCE,
                mirroring=options.mirroring,
            )
            served = sum(entry.is_served for entry in entries)
            describe(f"{served} of {len(entries)} served")
        for entry in entries:
            if not entry.is_served:
                tell(f"Triton does not serve {entry.name}: {entry.problem}")

    def _part(self, name: str) -> Part:
        parts = {part.name: part for part in self.parts()}
        if name not in parts:
            raise RequestError(f"the stack has no part {name!r}", hint=f"one of {', '.join(parts)}")
        return parts[name]

    def _require_created(self) -> None:
        if not self._state.exists:
            raise StackError(
                f"no stack was started in {self._state.path}", hint="tritonpipe stack up"
            )
