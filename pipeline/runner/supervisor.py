"""Starts the process of a model, asks it, and gets over its death.

Guarantees: asking ends within its time, whatever the model does; a process that died, hung or broke
the protocol is gone with all that it started before the call returns, and a new one is started at
once, but no more often than once in a while if it dies again; what it prints is kept in a few lines
for the error and goes to no log; nothing is left behind when this process ends, however it ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from . import frames
from .pipes import Pipes

_BOOT: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "import importlib; importlib.import_module(sys.argv[2] + '.main').start(sys.argv[3:])"
)
_PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "TZ", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0


class ModelRefusedError(Exception):
    """The model, which goes on, did not answer this request; the message is its own reason."""


class ModelDiedError(Exception):
    """The model's process is gone, or was ended because it took too long."""


class Supervisor:
    """One model in one process, and in the next one when that is over."""

    def __init__(
        self,
        *,
        python: str,
        code: Path,
        package: str,
        packages: Path,
        model: Path,
        scratch: Path,
        load_seconds: float,
        request_seconds: float,
    ) -> None:
        """Describe the process; :meth:`start` starts it.

        Args:
            python: An interpreter of the minor version that the packages are for.
            code: What to import this package from: a folder or a zip file.
            package: Its name there.
            packages: Folder with the model's packages.
            model: Folder of the logged model.
            scratch: A folder that the process may write into.
            load_seconds: For being ready.
            request_seconds: For an answer.
        """
        self._command = [python, "-I", "-S", "-u", "-c", _BOOT, str(code), package]
        self._command += [str(packages), str(model)]
        self._scratch = scratch
        self._load_seconds = load_seconds
        self._request_seconds = request_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._pipes: Pipes | None = None
        self._is_ready = False
        self._not_before = 0.0
        self._pause = _FIRST_PAUSE_SECONDS
        self._reason = ""

    def start(self, *, seconds: float | None = None) -> None:
        """Start the process and wait until the model is loaded.

        Raises:
            ModelDiedError: It cannot be loaded; the message says why. Nothing is left running.
        """
        self._await_ready(self._spawn(), self._load_seconds if seconds is None else seconds)

    def ask(
        self, arrays: Mapping[str, frames.Array], fields: Mapping[str, object]
    ) -> Mapping[str, frames.Array]:
        """What the model answers.

        Raises:
            ModelRefusedError: It raised; it can be asked again.
            ModelDiedError: It ended or took too long; a new process has been started.
        """
        try:
            asked = frames.frame_bytes(frames.Frame(kind="ask", arrays=arrays, fields=fields))
        except frames.FrameError as error:
            raise ModelRefusedError(str(error)) from error
        pipes = self._ready_pipes()
        deadline = time.monotonic() + self._request_seconds
        try:
            pipes.write(asked, deadline)
            answer = pipes.read(deadline)
        except frames.FrameError as error:
            raise self._buried(f"it broke the protocol: {error}") from error
        except TimeoutError:
            told = f"it did not answer within {self._request_seconds:g} s"
            raise self._buried(told) from None
        except (EOFError, OSError):
            raise self._buried("") from None
        self._pause = _FIRST_PAUSE_SECONDS
        if answer.kind != "answer":
            raise ModelRefusedError(str(answer.fields.get("reason", answer.kind)))
        return answer.arrays

    def close(self) -> None:
        """End the process and all that it started."""
        process, self._process = self._process, None
        pipes, self._pipes = self._pipes, None
        if process is None or pipes is None:
            return
        pipes.close()  # the end of its input, and of its life
        # Its group is its own: it was started as the leader of a session.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _ready_pipes(self) -> Pipes:
        """To a process that is ready; one that died meanwhile, of whatever, is replaced."""
        if self._process is not None and self._is_ready and self._process.poll() is not None:
            self.close()
        pipes = self._pipes
        if pipes is None:
            if time.monotonic() < self._not_before:
                raise ModelDiedError(f"{self._reason}; it is started again in a moment")
            pipes = self._spawn()
        if not self._is_ready:
            self._await_ready(pipes, self._load_seconds)
        return pipes

    def _spawn(self) -> Pipes:
        pipes = Pipes()
        theirs_requests, theirs_answers, theirs_output, theirs_life = pipes.theirs
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= {"HOME": str(self._scratch), "TMPDIR": str(self._scratch)}
        environment |= {"MLFLOW_DISABLE_TELEMETRY": "true"}
        environment |= {
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true",
            "MLFLOW_ALLOW_MODEL_CODE_EXECUTION": "true",
        }
        self._is_ready = False
        try:
            self._process = subprocess.Popen(  # noqa: S603  an interpreter, and our own module
                [*self._command, str(theirs_answers), str(theirs_life)],
                stdin=theirs_requests,
                stdout=theirs_output,
                stderr=theirs_output,
                pass_fds=(theirs_answers, theirs_life),
                env=environment,
                cwd=self._scratch,
                start_new_session=True,
            )
        except OSError as error:
            pipes.close()
            raise ModelDiedError(f"the model's process cannot be started: {error}") from error
        finally:
            for descriptor in pipes.theirs:
                os.close(descriptor)
        self._pipes = pipes
        return pipes

    def _await_ready(self, pipes: Pipes, seconds: float) -> None:
        try:
            answer = pipes.read(time.monotonic() + seconds)
        except TimeoutError:
            raise self._buried(f"it was not loaded within {seconds:g} s", again=False) from None
        except (EOFError, OSError):
            raise self._buried("", again=False) from None
        except frames.FrameError as error:
            raise self._buried(f"it broke the protocol: {error}", again=False) from error
        if answer.kind != "ready":
            reason = f"it cannot be loaded: {answer.fields.get('reason', answer.kind)}"
            raise self._buried(reason, again=False)
        self._is_ready = True

    def _buried(self, reason: str, *, again: bool = True) -> ModelDiedError:
        """End the process, say why it is over, and start the next one."""
        words = reason or self._how_it_ended()
        lines = ""
        if self._pipes is not None:
            self._pipes.drain()
            lines = "\n".join(self._pipes.lines)
        self.close()
        self._reason = f"the model's process is over: {words}"
        if lines:
            self._reason += f"; its last output:\n{lines}"
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        told = ModelDiedError(self._reason)
        if again:
            with suppress(ModelDiedError):
                self._spawn()  # not waited for: the next request does
        return told

    def _how_it_ended(self) -> str:
        if self._process is None:
            return "it was closed"
        try:
            status = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "it closed its answers"
        if status >= 0:
            return f"it ended with exit status {status}"
        with suppress(ValueError):
            return f"it was ended by {signal.Signals(-status).name}"
        return f"it was ended by signal {-status}"


def interpreter_of(minor_version: str) -> str:
    """The Python of a minor version that runs this, outside of any virtual environment.

    Raises:
        ModelDiedError: This is another version, so that compiled packages could not be imported.
    """
    ours = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if ours != minor_version:
        raise ModelDiedError(f"the model's packages are for Python {minor_version}, this is {ours}")
    candidates = (
        getattr(sys, "_base_executable", ""),
        os.path.join(sys.base_prefix, "bin", f"python{minor_version}"),  # noqa: PTH118
        os.path.join(sys.base_prefix, "bin", "python3"),  # noqa: PTH118
        sys.executable,
    )
    for candidate in candidates:
        name = os.path.basename(candidate or "")  # noqa: PTH119
        if name.startswith("python") and os.access(candidate, os.X_OK):
            return candidate
    raise ModelDiedError(
        f"there is no interpreter of Python {minor_version} in {sys.base_prefix}/bin"
    )
