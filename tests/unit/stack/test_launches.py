"""What the servers are started with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.stack import leftovers
from pipeline.stack.credentials import admin_key_file, s3_key
from pipeline.stack.environment import ServerEnvironment
from pipeline.stack.inheritance import inherited
from pipeline.stack.mirror import admin_headers, launch_mirror
from pipeline.stack.mlflow_server import launch_mlflow
from pipeline.stack.part import Launch
from pipeline.stack.ports import Ports
from pipeline.stack.s3_server import launch_s3, repository_folder
from pipeline.stack.state import Mirroring, StateDirectory
from pipeline.stack.triton_server import launch_triton

OF_OTHERS = {
    "AWS_ACCESS_KEY_ID": "theirs",
    "AWS_PROFILE": "theirs",
    "AWS_ENDPOINT_URL": "https://theirs",
    "MLFLOW_TRACKING_URI": "https://theirs",
    "PYTHONPATH": "/theirs",
    "RCLONE_CONFIG": "/theirs",
    "VIRTUAL_ENV": "/theirs",
    "http_proxy": "http://theirs",
}
Launcher = Callable[[StateDirectory, ServerEnvironment], Launch]


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    state = StateDirectory(tmp_path / "the state")
    state.create()
    return state


@pytest.fixture
def environment(tmp_path: Path) -> ServerEnvironment:
    found = ServerEnvironment(
        root=tmp_path / "servers", python_version="3.11", library="/opt/lib/libpython3.11.so.1.0"
    )
    stub = found.triton / "python_backend_stubs" / "3.11" / "triton_python_backend_stub"
    for path in (stub, found.triton / "backends" / "python" / "libtriton_python.so"):
        path.parent.mkdir(parents=True)
        path.touch()
    return found


LAUNCHERS: dict[str, Launcher] = {
    "s3": lambda state, environment: launch_s3(state, environment, 9000),
    "mlflow": lambda state, environment: launch_mlflow(state, environment, 5000),
    "triton": lambda state, environment: launch_triton(state, environment, Ports(), 2),
    "mirror": lambda state, _environment: launch_mirror(state, Ports(), 2, Mirroring.EXPLICIT),
}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_shell_redirects_no_server(
    name: str,
    state: StateDirectory,
    environment: ServerEnvironment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable, value in OF_OTHERS.items():
        monkeypatch.setenv(variable, value)
    launch = LAUNCHERS[name](state, environment)
    assert not [value for value in launch.environment.values() if "theirs" in value]


@pytest.mark.parametrize("name", LAUNCHERS)
def test_no_secret_is_an_argument_and_nothing_listens_outside(
    name: str, state: StateDirectory, environment: ServerEnvironment
) -> None:
    launch = LAUNCHERS[name](state, environment)
    key = s3_key(state)
    line = " ".join(launch.command)
    assert key.secret_key not in line
    assert key.access_key not in line
    assert "0.0.0.0" not in line
    assert "127.0.0.1" in line


def test_only_triton_itself_has_the_admin_key_among_its_arguments(
    state: StateDirectory, environment: ServerEnvironment
) -> None:
    pair = admin_key_file(state).read_text()
    lines = {
        name: " ".join(launch(state, environment).command) for name, launch in LAUNCHERS.items()
    }
    assert not [name for name, line in lines.items() if pair.partition("=")[2] in line]
    explicit = launch_triton(state, environment, Ports(), 2, Mirroring.EXPLICIT)
    assert f"--http-restricted-api=model-repository:{pair}" in explicit.command
    assert f"--grpc-restricted-protocol=model-repository:{pair}" in explicit.command
    assert admin_headers(state, Mirroring.EXPLICIT) == dict([pair.split("=")])
    assert admin_headers(state, Mirroring.POLL) == {}


@pytest.mark.parametrize("mirroring", Mirroring)
def test_triton_reads_what_it_is_told_to(
    mirroring: Mirroring, state: StateDirectory, environment: ServerEnvironment
) -> None:
    launch = launch_triton(state, environment, Ports(), 2, mirroring)
    [repository] = [a for a in launch.command if a.startswith("--model-repository=")]
    path = repository.partition("=")[2]
    if mirroring is Mirroring.OFF:
        assert path == "s3://http://127.0.0.1:9000/models/repository"
    else:
        # A blank in this path would hang every load.
        assert " " not in path
        mirrored = launch_mirror(state, Ports(), 2, mirroring).directory / "repository"
        assert (launch.directory / path).resolve() == mirrored
    mode = "explicit" if mirroring is Mirroring.EXPLICIT else "poll"
    assert f"--model-control-mode={mode}" in launch.command


def test_what_is_inherited() -> None:
    shell = {"PATH": "/bin", "LC_ALL": "C", "HOME": "/h", "SECRET_OF_MINE": "x"}
    assert inherited(shell) == {"PATH": "/bin", "LC_ALL": "C", "HOME": "/h"}


def test_the_repository_has_an_object_before_triton_looks(
    state: StateDirectory, environment: ServerEnvironment
) -> None:
    launch_s3(state, environment, 9000)
    [entry] = repository_folder(state).iterdir()
    assert entry.is_file()


def test_every_backend_of_ours_gets_the_manifest_reader(
    state: StateDirectory, environment: ServerEnvironment
) -> None:
    launch = launch_triton(state, environment, Ports(), 2)
    backends = launch.directory / "backends"
    assert sorted(path.name for path in backends.iterdir()) == ["onnxruntime", "python"]
    assert (backends / "python" / "triton_python_backend_stub").is_file()
    assert (backends / "onnxruntime" / "model.py").is_file()
    assert (backends / "onnxruntime" / "manifest.py").is_file()
    assert not list(backends.rglob("__pycache__"))
    # A blank in this path would hang every load.
    assert "--backend-directory=backends" in launch.command
    assert "--repository-poll-secs=2" in launch.command


def test_of_the_interpreters_libraries_triton_sees_one(
    state: StateDirectory, environment: ServerEnvironment
) -> None:
    launch = launch_triton(state, environment, Ports(), 1)
    theirs, own = launch.environment["LD_LIBRARY_PATH"].split(":")[:2]
    assert theirs == str(environment.libraries)
    [link] = Path(own).iterdir()
    assert link.readlink() == Path(environment.library)


def test_the_server_reports_to_nobody_what_it_runs(
    state: StateDirectory, environment: ServerEnvironment
) -> None:
    launch = launch_triton(state, environment, Ports(), 1)
    assert launch.environment["ORT_DISABLE_TELEMETRY"] == "1"


def test_only_leftovers_of_this_stack_are_removed(
    state: StateDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setattr(leftovers, "_SHARED_MEMORY", memory)
    other = StateDirectory(tmp_path / "other")
    ours, theirs = (f"{leftovers.shared_memory_prefix(each)}1" for each in (state, other))
    for name in (ours, theirs):
        (memory / name).touch()
    leftovers.remove_leftovers(state)
    assert [path.name for path in memory.iterdir()] == [theirs]
