"""Triton, polling the model repository in S3, or reading a mirror of it.

The server of the ``nvidia-pytriton`` wheel has only the Python backend; ``triton_backends/`` holds
Python-based backends under the names of the compiled ones, so that an entry written for production
is served here unchanged.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from pipeline import manifest, request_groups
from pipeline.mirror.triton_flags import explicit_flags, polling_flags
from pipeline.stack.credentials import REGION, admin_key_file, credentials_file
from pipeline.stack.environment import ServerEnvironment
from pipeline.stack.inheritance import inherited
from pipeline.stack.leftovers import remove_leftovers, shared_memory_prefix
from pipeline.stack.mirror import MIRRORED, admin_headers
from pipeline.stack.part import Launch, http_status
from pipeline.stack.ports import LOOPBACK, Ports
from pipeline.stack.s3_server import BUCKET, PREFIX, repository_folder
from pipeline.stack.state import Mirroring, StateDirectory

_CONFIG: Final = "config.pbtxt"
_BACKENDS: Final = "backends"
_LIBRARIES: Final = "libraries"
_TEMPORARY: Final = "tmp"
_AWS_CONFIG: Final = "aws-config"


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryState:
    """What has become of an entry of the repository; ``problem`` is empty if it is served."""

    name: str
    is_served: bool
    problem: str = ""


def launch_triton(
    state: StateDirectory,
    environment: ServerEnvironment,
    ports: Ports,
    poll_seconds: int,
    mirroring: Mirroring = Mirroring.OFF,
) -> Launch:
    """Lay out the backends, clear what an earlier run left, and say how the server is started."""
    folder = state.folder("triton")
    for leftover in (_BACKENDS, _LIBRARIES, _TEMPORARY):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    (folder / _TEMPORARY).mkdir(mode=0o700)
    remove_leftovers(state)
    install_backends(environment, folder / _BACKENDS)
    _link_libpython(environment, folder / _LIBRARIES)
    (folder / _AWS_CONFIG).write_text(f"[default]\nregion = {REGION}\n")
    # Regions of a killed server stay behind; the prefix tells which are ours to remove.
    prefix = shared_memory_prefix(state)
    backends = sorted(entry.name for entry in (folder / _BACKENDS).iterdir())
    return Launch(
        command=(
            str(environment.triton / "bin" / "tritonserver"),
            *_repository_flags(state, ports, poll_seconds, mirroring),
            *_flags(ports),
            *(f"--backend-config={name},shm-region-prefix-name={prefix}" for name in backends),
        ),
        environment=_variables(state, environment, folder),
        directory=folder,
        ports=(ports.triton_http, ports.triton_grpc, ports.triton_metrics),
        answers=lambda: (
            http_status(ports.triton_http, "/v2/health/live")[0] == 200
            and _ask_for_index(ports.triton_http, admin_headers(state, mirroring))[0] == 200
        ),
    )


def _repository_flags(
    state: StateDirectory, ports: Ports, poll_seconds: int, mirroring: Mirroring
) -> tuple[str, ...]:
    if mirroring is Mirroring.EXPLICIT:
        return explicit_flags(MIRRORED, admin_key_file(state).read_text())
    if mirroring is Mirroring.POLL:
        return polling_flags(MIRRORED, poll_seconds=poll_seconds)
    repository = f"s3://http://{LOOPBACK}:{ports.s3}/{BUCKET}/{PREFIX}"
    # A process that the Python backend starts while another thread talks to S3 can stay stuck in
    # the S3 library's fork handler (s2n's lock around its random numbers), and its load for ever.
    # One load at a time keeps downloads and starts apart.
    return (
        *polling_flags(repository, poll_seconds=poll_seconds),
        "--model-load-thread-count=1",
    )


def _flags(ports: Ports) -> tuple[str, ...]:
    return (
        # Relative to the working directory: Triton starts the stub in it through a shell, without
        # quotation marks, and a blank in the path would hang every load.
        f"--backend-directory={_BACKENDS}",
        "--exit-timeout-secs=5",
        f"--http-address={LOOPBACK}",
        f"--http-port={ports.triton_http}",
        f"--grpc-address={LOOPBACK}",
        f"--grpc-port={ports.triton_grpc}",
        "--allow-metrics=true",
        f"--metrics-address={LOOPBACK}",
        f"--metrics-port={ports.triton_metrics}",
    )


def _variables(
    state: StateDirectory, environment: ServerEnvironment, folder: Path
) -> dict[str, str]:
    libraries = (
        str(environment.libraries),
        str(folder / _LIBRARIES),
        os.environ.get("LD_LIBRARY_PATH", ""),
    )
    return {
        **inherited(os.environ),
        "PATH": f"{environment.bin}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(environment.root),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        # Compiled files beside a model would look like a change of it.
        "PYTHONDONTWRITEBYTECODE": "1",
        # ONNX Runtime 1.29 and newer would report what it runs to its maker.
        "ORT_DISABLE_TELEMETRY": "1",
        "TMPDIR": str(folder / _TEMPORARY),
        # Copies of models, which would else be in /tmp. Relative as the backends are: the path of
        # a copy goes through the same shell.
        "TRITON_AWS_MOUNT_DIRECTORY": _TEMPORARY,
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials_file(state)),
        "AWS_CONFIG_FILE": str(folder / _AWS_CONFIG),
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        # A poll that fails unloads every model; with these it rides out a restart of S3.
        "AWS_RETRY_MODE": "standard",
        "AWS_MAX_ATTEMPTS": "200",
    }


def install_backends(environment: ServerEnvironment, folder: Path) -> None:
    """Lay out a backend directory: Triton's Python backend and the Python-based ones of ours."""
    python = folder / "python"
    shutil.copytree(environment.triton / "backends" / "python", python)
    stubs = environment.triton / "python_backend_stubs" / environment.python_version
    shutil.copy(stubs / "triton_python_backend_stub", python)
    with resources.as_file(resources.files("pipeline.stack") / "triton_backends") as ours:
        for backend in sorted(path for path in ours.iterdir() if (path / "model.py").is_file()):
            target = folder / backend.name
            shutil.copytree(backend, target, ignore=shutil.ignore_patterns("__pycache__"))
            for module_file in (manifest.__file__, request_groups.__file__):
                shutil.copy(Path(module_file), target)


def wait_for_entries(
    state: StateDirectory,
    http_port: int,
    *,
    patience: float,
    mirroring: Mirroring = Mirroring.OFF,
) -> tuple[EntryState, ...]:
    """Wait until Triton has decided on every entry of the repository, for ``patience`` seconds.

    Server-wide readiness says nothing about entries, so each is looked up.
    """
    deadline = time.monotonic() + patience
    wanted = {path.parent.name for path in repository_folder(state).glob(f"*/{_CONFIG}")}
    while True:
        index = _index(http_port, admin_headers(state, mirroring))
        undecided = {n for n in wanted if not index.get(n) or _states(index[n]) & _CHANGING}
        if not undecided or time.monotonic() > deadline:
            break
        time.sleep(_INDEX_SECONDS)
    return tuple(_entry_state(name, index.get(name, ())) for name in sorted(wanted))


_INDEX_SECONDS: Final = 0.5
"""Each look at the index makes Triton list the store."""

_CHANGING: Final = frozenset({"LOADING", "UNLOADING"})


def _ask_for_index(http_port: int, headers: Mapping[str, str]) -> tuple[int, bytes]:
    return http_status(http_port, "/v2/repository/index", method="POST", headers=headers)


def _index(http_port: int, headers: Mapping[str, str]) -> dict[str, tuple[dict[str, str], ...]]:
    status, body = _ask_for_index(http_port, headers)
    if status != 200:
        return {}
    index: dict[str, tuple[dict[str, str], ...]] = {}
    for version in json.loads(body):
        index[version["name"]] = (*index.get(version["name"], ()), version)
    return index


def _states(versions: tuple[dict[str, str], ...]) -> set[str]:
    return {version.get("state", "") for version in versions}


def _entry_state(name: str, versions: tuple[dict[str, str], ...]) -> EntryState:
    if "READY" in _states(versions):
        return EntryState(name=name, is_served=True)
    # After the first paragraph comes the backend's traceback, which the log has, too.
    reasons = "; ".join(v["reason"].split("\n\n")[0] for v in versions if v.get("reason"))
    problem = reasons or "it was not loaded, the log of Triton says why"
    return EntryState(name=name, is_served=False, problem=problem)


def _link_libpython(environment: ServerEnvironment, folder: Path) -> None:
    # Only this one library of the interpreter's folder: others in it could replace Triton's own.
    folder.mkdir()
    library = Path(environment.library)
    if library.is_absolute():
        (folder / library.name).symlink_to(library)
