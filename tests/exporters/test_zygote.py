"""The process that children are forked from; what holds of any child is in ``test_worker.py``."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, run
from typing import Any

import numpy as np
import psutil
import pytest

from pipeline.artifacts import Export, ModelVersion, SourceModel
from pipeline.flows import children
from pipeline.flows.child_environment import common_environment
from pipeline.flows.worker import export_in_child
from pipeline.flows.zygote import ForkedChild, Request, Zygote, forked


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with closing(Zygote()) as zygote:
        yield zygote


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
    from sklearn.linear_model import LogisticRegression

    folder = tmp_path_factory.mktemp("logged") / "model"
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    model = LogisticRegression().fit(x, (x[:, 0] > 0).astype(np.int64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own
        import mlflow.sklearn

        mlflow.sklearn.save_model(
            model, str(folder), input_example=x[:2], pip_requirements=["scikit-learn"]
        )
    return SourceModel(
        version=ModelVersion(name="iris", version=3, run_id=None, source="", tags={}),
        path=folder,
        flavors=("python_function", "sklearn"),
        digest="sha256:0",
    )


@pytest.fixture
def export(
    tmp_path: Path, logged: SourceModel, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Export]:
    """Export with, or without a zygote."""

    def exported(name: str, *zygotes: socket.socket) -> Export:
        monkeypatch.setattr(children, "_zygotes", list(zygotes))
        (tmp_path / name).mkdir()
        return export_in_child(logged, tmp_path / name)

    return exported


_IMPORTED_BYTES = 2**27


def family(pid: int) -> list[psutil.Process]:
    """The zygote, and the two processes that wait for the next request."""
    zygote = psutil.Process(pid)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for spare in zygote.children():
            with suppress(psutil.NoSuchProcess):
                # Those that try what the kernel allows are forked before anything is imported.
                if spare.children() and spare.memory_info().rss > _IMPORTED_BYTES:
                    return [zygote, spare, *spare.children()]
        time.sleep(0.02)
    raise AssertionError("nothing waits for a request")


def assert_all_end(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive


@contextmanager
def suspended(processes: list[psutil.Process]) -> Iterator[None]:
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def await_end(zygote: Zygote) -> None:
    """Wait for it in the way that tells its exit status."""
    deadline = time.monotonic() + 60
    while zygote.is_alive:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_fork_makes_the_same_bytes_as_a_fresh_interpreter(
    export: Callable[..., Export], zygote: Zygote
) -> None:
    fresh, fork, again = export("a"), export("b", zygote.requests), export("c", zygote.requests)
    assert children._zygotes, "the zygote did not answer"
    assert fresh.onnx.digest == fork.onnx.digest == again.onnx.digest
    assert fresh.samples.read_bytes() == fork.samples.read_bytes() == again.samples.read_bytes()


@pytest.fixture(scope="module")
def with_all_libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process is like that has imported everything."""
    script = """
import json, os, sys
from pathlib import Path
from pipeline.flows import zygote_main
os.environ.update(HOME=sys.argv[1], TMPDIR=sys.argv[1])
for modules in (zygote_main.AT_START, *zygote_main.AFTER_USE.values()):
    zygote_main._import(modules)
if os.fork() == 0:
    os._exit(0)
os.wait()
opened = {int(name) for name in os.listdir("/proc/self/fd")} - {int(os.environ["LISTING"])}
print(json.dumps({
    "threads": len(os.listdir("/proc/self/task")),
    "last descriptor": max(opened),
    "imported": [name for name in ("torch", "xgboost", "onnxscript") if name in sys.modules],
    "at home": [
        f"{name}.{key}"
        for name, module in list(sys.modules.items())
        for key, value in list(getattr(module, "__dict__", {}).items())
        if isinstance(value, (str, Path)) and sys.argv[1] in str(value)
    ],
}))
"""
    folder = tmp_path_factory.mktemp("home")
    done = run(
        [sys.executable, "-P", "-W", "ignore", "-c", script, str(folder)],
        env=common_environment(os.environ) | {"LISTING": "3"},
        stdin=DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_all_libraries_leave_a_process_that_can_be_forked(
    with_all_libraries: dict[str, Any],
) -> None:
    """One thread: in a fork no other lives on. No descriptor that two children would share."""
    assert with_all_libraries["threads"] == 1
    assert with_all_libraries["last descriptor"] == 2


def test_no_library_remembers_the_home_of_the_zygote(
    with_all_libraries: dict[str, Any],
) -> None:
    """A fork has a home of its own, and within the walls that of the zygote is not there."""
    assert with_all_libraries["imported"] == ["torch", "xgboost", "onnxscript"]
    # It looks there for a file that it only reads, and finds none in an empty home either.
    assert with_all_libraries["at home"] == [
        "mlflow.legacy_databricks_cli.configure.provider._home"
    ]


def test_what_it_imports_without_pytorch_is_what_is_imported_with_it() -> None:
    script = """
import json, sys
from pipeline.flows import zygote_main
if sys.argv[1] == "all":
    import torch
zygote_main._import(zygote_main.AT_START)
from skops.io import _trusted_types
trusted = {k: sorted(map(str, v)) for k, v in vars(_trusted_types).items() if k.isupper()}
print(json.dumps(["torch" in sys.modules, trusted]))
"""
    told = [
        json.loads(
            run(
                [sys.executable, "-P", "-c", script, way],
                env=common_environment(os.environ),
                capture_output=True,
                text=True,
                check=True,
            ).stdout.splitlines()[-1]
        )
        for way in ("all", "less")
    ]
    assert [has_torch for has_torch, _ in told] == [True, False]
    assert told[0][1] == told[1][1]


def test_it_cannot_be_looked_into(zygote: Zygote) -> None:
    if os.getuid() == 0:
        pytest.skip("root looks into everything")
    for process in family(zygote.pid):
        with pytest.raises(PermissionError):
            Path(f"/proc/{process.pid}/environ").read_bytes()


def test_it_knows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.getuid() != 0:
        pytest.skip("only root looks into it")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with closing(Zygote()) as another:
        seen = [Path(f"/proc/{p.pid}/environ").read_bytes() for p in family(another.pid)]
    assert b"MLFLOW_DISABLE_TELEMETRY=" in seen[0]
    assert b"secret" not in b"".join(seen)


def test_it_ends_with_everybody_who_could_ask_it(tmp_path: Path) -> None:
    script = """
import time
from pipeline.flows.zygote import Zygote
zygote = Zygote()
print(zygote.pid, flush=True)
time.sleep(300)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with Popen([sys.executable, "-P", "-c", script], env=environment, stdout=PIPE) as watcher:
        assert watcher.stdout
        processes = family(int(watcher.stdout.readline()))
        watcher.kill()
    assert_all_end(processes)


@pytest.mark.parametrize("hangs", [False, True])
def test_closing_it_ends_it_while_it_still_imports(
    hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.flows.zygote._END_SECONDS", 0.5 if hangs else 60.0)
    zygote = Zygote()
    process = psutil.Process(zygote.pid)
    if hangs:
        process.suspend()
    zygote.close()
    assert not process.is_running()


def test_its_files_are_below_the_temporary_folder_of_the_watcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``/tmp`` may be read-only: ``TMPDIR`` is how one says so."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with closing(Zygote()) as zygote:
        family(zygote.pid)
        assert psutil.Process(zygote.pid).cwd().startswith(f"{tmp_path}/tritonpipe-zygote-")
    assert not list(tmp_path.iterdir())


def test_one_that_cannot_work_leaves_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow.py").write_text("import os\nos.write(2, b'no mlflow')\nos._exit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with closing(Zygote()) as zygote:
        await_end(zygote)
        assert zygote.failure == "ended with exit code 3: no mlflow"


def test_a_request_that_is_too_long_to_be_sent_is_for_a_fresh_interpreter(
    zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "_zygotes", [zygote.requests])
    environment = {**common_environment(os.environ), "A": "x" * 70_000, "B": "x" * 70_000}
    request = Request(job_file=str(tmp_path / "job"), home=str(tmp_path), environment=environment)
    with (tmp_path / "log").open("wb") as log:
        child = children.start_child(request, log.fileno())
        assert isinstance(child, children.FreshChild)
        child.end()
    assert children._zygotes, "the next one could be sent"
    family(zygote.pid)
    assert zygote.is_alive


@pytest.mark.parametrize("seconds", [3e6, float("inf")])
def test_the_end_of_a_child_may_be_awaited_for_ever(seconds: float) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.send(b"7")
        child = ForkedChild(ours)
        assert child.await_end(seconds)
        assert child.end() == 7


def test_one_that_was_killed_costs_time_only(
    export: Callable[..., Export], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with closing(Zygote()) as zygote:
        processes = family(zygote.pid)
        for process in processes:
            process.kill()
        assert_all_end(processes)
        assert not zygote.is_alive
        export("a", zygote.requests)
        export("b", *children._zygotes)
    (told,) = [r.message for r in caplog.records if "zygote" in r.message]
    assert told == "the zygote has ended: children are started as fresh interpreters"


def test_one_that_hangs_is_not_waited_for_and_never_begins_later(
    zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.flows.zygote._PATIENCE_SECONDS", 0.2)
    processes = family(zygote.pid)
    request = Request(job_file=str(tmp_path / "job"), home=str(tmp_path), environment={})
    with (tmp_path / "log").open("wb") as log:
        with suspended(processes), pytest.raises(TimeoutError):
            forked(zygote.requests, request, log.fileno())
        assert_all_end(processes[1:])
    assert (tmp_path / "log").read_bytes() == b"", "it looked for the job"
    assert zygote.is_alive


def test_one_that_hangs_is_told_about_once_and_not_asked_again(
    zygote: Zygote,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("pipeline.flows.zygote._PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(children, "_zygotes", [])
    monkeypatch.setattr(children, "_when_unanswered", [])
    told: list[str] = []
    children.fork_from(zygote.requests, unanswered=lambda: told.append("hangs"))
    processes = family(zygote.pid)
    request = Request(
        job_file=str(tmp_path / "job"), home=str(tmp_path), environment=dict(os.environ)
    )
    with (tmp_path / "log").open("wb") as log, suspended(processes):
        for _ in range(2):
            children.start_child(request, log.fileno()).end()
    assert told == ["hangs"]
    (warning,) = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert warning.startswith("the zygote hangs: no answer within")
    assert_all_end(processes[1:])


def test_one_that_is_older_than_what_is_installed_ends(
    export: Callable[..., Export], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it holds in memory and what the key of the export cache says would differ."""
    (tmp_path / "site").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    with closing(Zygote()) as zygote:
        processes = family(zygote.pid)
        installed = tmp_path / "site" / "another-1.0.dist-info"
        installed.mkdir()
        (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: another\nVersion: 1.0\n")
        export("a", zygote.requests)
        assert not children._zygotes
        await_end(zygote)
        assert_all_end(processes)
        assert not zygote.failure


def test_what_was_used_once_is_kept(zygote: Zygote, tmp_path: Path) -> None:
    """The libraries alone: they are imported by their names, which the model does not choose."""
    if os.getuid() != 0:
        pytest.skip("only root looks into it")
    family(zygote.pid)
    request = Request(
        job_file=str(tmp_path / "none"), home=str(tmp_path), environment={}, exporter="xgboost"
    )
    with (tmp_path / "log").open("wb") as log:
        child = forked(zygote.requests, request, log.fileno())
        assert child is not None
        assert child.end() != 0
    family(zygote.pid)
    assert "xgboost" in Path(f"/proc/{zygote.pid}/maps").read_text()


def test_a_child_whose_guardian_is_killed_is_gone(zygote: Zygote, tmp_path: Path) -> None:
    _, guardian, process = family(zygote.pid)
    os.mkfifo(tmp_path / "job")  # reading it never ends
    request = Request(job_file=str(tmp_path / "job"), home=str(tmp_path), environment={})
    with (tmp_path / "log").open("wb") as log:
        child = forked(zygote.requests, request, log.fileno())
    assert child is not None
    assert not child.await_end(0.5)
    guardian.kill()
    assert child.await_end(10)
    assert child.end() == -signal.SIGKILL
    assert_all_end([process])
