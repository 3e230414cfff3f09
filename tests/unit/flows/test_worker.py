"""The child process, with an exporter that does whatever a file in the model's folder says."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from pipeline.artifacts import Export, ModelVersion, OnnxModel, Probe, SourceModel
from pipeline.checks.tolerances import Tolerances
from pipeline.errors import DependencyError, ModelError, SettingsError
from pipeline.flows import children, formats, worker
from pipeline.flows.children import FreshChild
from pipeline.flows.isolation import NOT_AS_TRIED, Mode
from pipeline.flows.worker import Limits, check_in_child, choose_exporter, export_in_child
from pipeline.flows.zygote import ForkedChild, Zygote
from pipeline.samples import Samples
from pipeline.tensors import DYNAMIC, DataType, TensorSpec

EXPORTER = """
from pathlib import Path
from pipeline.artifacts import OnnxModel
from pipeline.exporters import Exported
from pipeline.samples import Samples

class ScriptedExporter:
    def export(self, source, destination):
        onnx = OnnxModel(path=destination / "onnx", opset=17, inputs=(), outputs=(), digest="d",
                         source_digest=source.digest, flavor="scripted", tools={})
        samples = destination / "samples.npz"
        scope = {"source": source, "destination": destination, "samples": samples, "onnx": onnx}
        exec((source.path / "behaviour.py").read_text(), scope)
        return Exported(onnx=scope["onnx"], example={}, origin="nowhere",
                        ask=lambda example: Samples(inputs=example, outputs={}))
"""
IN_TIME = Limits(seconds=60)


@pytest.fixture(scope="module", autouse=True)
def _third_party_exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Installed as a distribution of its own, as anybody's exporter would be."""
    site = tmp_path_factory.mktemp("site")
    metadata = site / "scripted-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "scripted_exporter.py").write_text(EXPORTER)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: scripted\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[tritonpipe.exporters]\nscripted = scripted_exporter:ScriptedExporter\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def zygote(_third_party_exporter: None) -> Iterator[Zygote]:
    with closing(Zygote()) as zygote:
        yield zygote


@pytest.fixture(autouse=True, params=["fresh", "forked"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """How children are started; all laws hold for both."""
    zygotes = []
    if request.param == "forked":
        zygotes = [request.getfixturevalue("zygote").requests]
    monkeypatch.setattr(children, "_zygotes", zygotes)
    yield request.param
    assert bool(zygotes) == (request.param == "forked"), "the zygote did not answer"


def source_of(folder: Path, *flavors: str) -> SourceModel:
    return SourceModel(
        version=ModelVersion(name="iris", version=3, run_id=None, source="", tags={}),
        path=folder,
        flavors=flavors,
        digest="sha256:0",
    )


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Export]:
    def run(behaviour: str, limits: Limits = IN_TIME, requirements: str = "") -> Export:
        for name in ("model", "out"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
            (tmp_path / name).mkdir()
        (tmp_path / "model" / "behaviour.py").write_text(textwrap.dedent(behaviour))
        (tmp_path / "model" / "requirements.txt").write_text(requirements)
        source = source_of(tmp_path / "model", "python_function", "scripted")
        return export_in_child(source, tmp_path / "out", limits=limits)

    return run


@pytest.fixture
def failure(export: Callable[..., Export]) -> Callable[..., str]:
    def run(behaviour: str, limits: Limits = IN_TIME) -> str:
        with pytest.raises(ModelError) as caught:
            export(behaviour, limits)
        assert "exporting iris/3" in caught.value.message
        return caught.value.message

    return run


SLEEPER = """
import os, subprocess, sys
def sleeper(**options):
    code = "import time; time.sleep(300)"
    return subprocess.Popen([sys.executable, "-S", "-c", code, str(destination)], **options)
"""
"""Starts a process that can be found from outside, where it has another number."""


def sleepers(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_zombie = process.status() == psutil.STATUS_ZOMBIE
            if process.cmdline()[-1:] == [str(folder)] and not is_zombie:
                found.append(process)
    return found


def await_sleeper(folder: Path) -> None:
    deadline = time.monotonic() + 30
    while not sleepers(folder):
        assert time.monotonic() < deadline, "it was never started"
        time.sleep(0.02)


def await_end(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while sleepers(folder):
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.02)


def test_the_result_of_the_child_is_the_result(
    export: Callable[..., Export], tmp_path: Path
) -> None:
    exported = export("print('hello from the model')")
    assert exported.onnx.path == tmp_path / "out" / "onnx"
    assert exported.samples == tmp_path / "out" / "samples.npz"
    assert (exported.onnx.source_digest, exported.samples_origin) == ("sha256:0", "nowhere")


def test_an_expected_failure_is_raised_again_as_it_was(export: Callable[..., Export]) -> None:
    with pytest.raises(DependencyError) as caught:
        export(
            """
            from pipeline.errors import DependencyError
            raise DependencyError("xgboost is not installed", hint="install it")
            """
        )
    assert (caught.value.message, caught.value.hint) == ("xgboost is not installed", "install it")


def test_an_unexpected_error_shows_the_end_of_the_output(failure: Callable[..., str]) -> None:
    message = failure("[print(f'line {n}.') for n in range(100)]; raise KeyError('surprise')")
    assert "exit status 1" in message
    assert "KeyError: 'surprise'" in message
    assert "line 99." in message
    assert "line 5." not in message


def test_a_crash_is_named(failure: Callable[..., str]) -> None:
    message = failure("print('before'); import ctypes; ctypes.string_at(0)")
    assert "crashed with SIGSEGV" in message
    assert "before" in message


def test_a_kill_is_explained(failure: Callable[..., str]) -> None:
    message = failure("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert "ran out of memory" in message


DETACHED = """
if os.fork() == 0:
    sleeper(start_new_session=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.parametrize("isolation", [Mode.AUTO, Mode.OFF])
@pytest.mark.parametrize("start", ["sleeper()", DETACHED], ids=["child", "detached"])
@pytest.mark.parametrize("ending", ["", "raise KeyError"])
def test_what_was_left_running_is_gone_when_the_call_returns(
    export: Callable[..., Export], tmp_path: Path, isolation: Mode, start: str, ending: str
) -> None:
    """Not soon after: the folders are removed now, and nobody may write into them any more."""
    behaviour = SLEEPER + start + "\n" + ending
    with pytest.raises(ModelError) if ending else contextlib.nullcontext():
        export(behaviour, Limits(seconds=60, isolation=isolation))
    assert not sleepers(tmp_path / "out")


@pytest.mark.parametrize(
    ("isolation", "start"), [(Mode.AUTO, DETACHED), (Mode.OFF, DETACHED), (Mode.OFF, "sleeper()")]
)
def test_time_is_limited_and_what_was_started_is_ended(
    failure: Callable[..., str], tmp_path: Path, isolation: Mode, start: str
) -> None:
    began = time.monotonic()
    behaviour = SLEEPER + start + "\nimport time; time.sleep(300)"
    message = failure(behaviour, Limits(seconds=2, isolation=isolation))
    assert "after 2 s, the time allowed" in message
    assert time.monotonic() - began < 2 + children.GUARD_SECONDS
    assert not sleepers(tmp_path / "out")


@pytest.mark.parametrize(
    ("behaviour", "limits", "problem"),
    [
        ("bytearray(2**31)", Limits(memory_bytes=2**29), "needs more than the 0.5 GiB of memory"),
        (
            "samples.write_bytes(bytes(2**21))",
            Limits(file_bytes=2**20),
            "wrote a file larger than the 0.000977 GiB allowed",
        ),
        ("while True: pass", Limits(cpu_seconds=1), "after 1 s of processor time"),
    ],
    ids=["memory", "file", "processor"],
)
def test_resources_are_limited(
    failure: Callable[..., str], behaviour: str, limits: Limits, problem: str
) -> None:
    assert problem in failure(behaviour, limits)


def test_a_limit_that_an_exporter_wraps_is_still_named(failure: Callable[..., str]) -> None:
    message = failure(
        """
        from pipeline.errors import ModelError
        try:
            bytearray(2**31)
        except MemoryError as error:
            raise ModelError("cannot be converted") from error
        """,
        Limits(memory_bytes=2**29),
    )
    assert "needs more than the 0.5 GiB of memory" in message


@pytest.mark.parametrize("ending", ["import sys; sys.exit(0)", "import os; os._exit(0)"])
def test_a_model_that_ends_the_process_is_no_success(
    failure: Callable[..., str], ending: str
) -> None:
    assert "without a result" in failure(ending)


@pytest.mark.parametrize(
    "elsewhere",
    [
        "import dataclasses; onnx = dataclasses.replace(onnx, path=destination.parent)",
        """
        from pathlib import Path
        from pipeline.artifacts import Export
        from pipeline.exporters import answers
        answers.keep_answers = lambda exported, source, destination: Export(
            onnx=onnx, samples=Path("/etc/passwd"), samples_origin="")
        """,
    ],
)
def test_a_result_outside_of_the_destination_is_no_result(
    failure: Callable[..., str], elsewhere: str
) -> None:
    assert "left no model" in failure(elsewhere)


def test_the_child_sees_no_secrets_and_no_servers(
    export: Callable[..., Export], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN", "TRITONPIPE_X", "GITHUB_TOKEN"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ours.example")
    export("import json, os; (destination / 'seen').write_text(json.dumps(dict(os.environ)))")
    seen = json.loads((tmp_path / "out" / "seen").read_text())
    assert "secret" not in seen.values()
    assert "ours.example" not in str(seen)
    assert seen["HOME"] != os.environ["HOME"]
    assert not Path(seen["TMPDIR"]).exists()


def test_a_child_begins_with_nothing_of_others(
    export: Callable[..., Export], tmp_path: Path
) -> None:
    export(
        """
        import faulthandler, json, os, random, signal, sys, tempfile
        import numpy
        (destination / "seen").write_text(json.dumps({
            "descriptors": [d for d in os.listdir("/proc/self/fd") if os.path.exists(
                "/proc/self/fd/" + d)],
            "input": os.readlink("/proc/self/fd/0"),
            "output": os.path.basename(os.readlink("/proc/self/fd/1")),
            "errors": os.path.basename(os.readlink("/proc/self/fd/2")),
            "handlers": [n.name for n in signal.valid_signals()
                         if signal.getsignal(n) not in (signal.SIG_DFL, None)
                         and isinstance(n, signal.Signals)],
            "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
            "home": [os.environ["HOME"], os.getcwd(), tempfile.gettempdir()],
            "hash": hash("a"), "faulthandler": faulthandler.is_enabled(),
            "random": [random.random(), float(numpy.random.rand())],
        }))
        """
    )
    seen = json.loads((tmp_path / "out" / "seen").read_text())
    assert seen["descriptors"] == ["0", "1", "2"]
    assert (seen["input"], seen["output"], seen["errors"]) == ("/dev/null", *["output.log"] * 2)
    assert seen["handlers"] == ["SIGINT", "SIGPIPE", "SIGXFSZ"], "those of any Python"
    assert (seen["blocked"], seen["faulthandler"]) == (0, True)
    assert len(set(seen["home"])) == 1
    assert tuple(seen["random"]) not in _drawn
    _drawn.add(tuple(seen["random"]))


_drawn: set[tuple[float, ...]] = set()


def test_a_place_that_cannot_be_left_as_was_tried_is_left_by_a_fresh_interpreter(
    export: Callable[..., Export], way: str
) -> None:
    behaviour = f"""
    import os, sys
    if "pipeline.flows.zygote_main" in sys.orig_argv:
        os._exit({NOT_AS_TRIED})
    """
    assert export(behaviour).samples_origin == "nowhere"


def test_ctrl_c_ends_the_child(
    export: Callable[..., Export], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_child: object, _seconds: float) -> bool:
        await_sleeper(tmp_path / "out")
        raise KeyboardInterrupt

    for kind in (FreshChild, ForkedChild):
        monkeypatch.setattr(kind, "await_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(SLEEPER + "sleeper().wait()")
    assert not sleepers(tmp_path / "out")


@pytest.mark.parametrize("isolation", [Mode.AUTO, Mode.OFF])
def test_the_child_dies_with_a_parent_that_is_killed(
    tmp_path: Path, isolation: Mode, way: str, zygote: Zygote
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "behaviour.py").write_text(SLEEPER + DETACHED + "sleeper().wait()")
    requests = zygote.requests.fileno() if way == "forked" else None
    script = f"""
import socket
from pathlib import Path
from pipeline.artifacts import ModelVersion, SourceModel
from pipeline.flows.children import fork_from
if {requests}:
    fork_from(socket.socket(fileno={requests}))
from pipeline.flows.worker import Limits, export_in_child
version = ModelVersion(name="iris", version=3, run_id=None, source="", tags={{}})
here = Path({str(tmp_path)!r})
source = SourceModel(version=version, path=here, flavors=("scripted",), digest="")
export_in_child(source, here / "out", limits=Limits(isolation={isolation.value!r}))
"""
    # A killed parent cannot remove its temporary folder; pytest removes it with its own.
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-P", "-c", script]
    passed = (requests,) if requests else ()
    with subprocess.Popen(command, env=environment, pass_fds=passed) as parent:
        await_sleeper(tmp_path / "out")
        parent.send_signal(signal.SIGKILL)
    await_end(tmp_path / "out")


def test_the_first_flavor_with_an_exporter_is_chosen(tmp_path: Path) -> None:
    source = source_of(tmp_path, "python_function", "spark", "scripted", "sklearn")
    assert choose_exporter(source) == "scripted"


@pytest.mark.parametrize("flavors", [("python_function",), ("python_function", "spark")])
def test_a_flavor_without_exporter_is_refused_with_those_that_have_one(
    tmp_path: Path, flavors: tuple[str, ...]
) -> None:
    with pytest.raises(ModelError, match=r"iris/3 was logged with .*onnx, pytorch, .*sklearn"):
        export_in_child(source_of(tmp_path, *flavors), tmp_path)


def test_the_parent_imports_nothing_heavy() -> None:
    heavy = ("torch", "mlflow", "sklearn", "onnx", "onnxruntime", "numpy")
    script = f"import sys, pipeline.flows.worker; print(sorted(set({heavy!r}) & set(sys.modules)))"
    loaded = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"


def check(tmp_path: Path, factor: float) -> Any:
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", 2]) for n in "xy"]
    node = helper.make_node("Add", ["x", "x"], ["y"])
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    specs = [TensorSpec(name=n, data_type=DataType.FP32, shape=(DYNAMIC, 2)) for n in "xy"]
    described = OnnxModel(
        path=tmp_path,
        opset=17,
        inputs=(specs[0],),
        outputs=(specs[1],),
        digest="",
        source_digest="",
        flavor="onnx",
        tools={},
    )
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    samples = Samples(inputs={"x": rows}, outputs={"y": rows * np.float32(factor)})
    (tmp_path / "cases").mkdir(exist_ok=True)
    export = Export(
        onnx=described,
        samples=samples.save(tmp_path / "samples.npz"),
        samples_origin="here",
        probes=(Probe(samples=samples.save(tmp_path / "probe-0.npz"), origin="there"),),
        left_out=("nothing",),
    )
    return check_in_child(
        export,
        cases=tmp_path / "cases",
        tolerances=Tolerances(),
        max_batch_size=4,
        limits=IN_TIME,
    )


def test_a_check_reports_agreement_and_difference(tmp_path: Path) -> None:
    assert check(tmp_path, 2.0).ok
    report = check(tmp_path, 2.5)
    assert not report.ok
    assert {c.inputs for c in report.comparisons} == {"here", "there"}
    assert (report.samples_origin, report.left_out) == ("here", ("nothing",))
    assert (tmp_path / "cases" / "case-1.npz").exists()


@pytest.fixture
def listening() -> Iterator[int]:
    """A server on loopback, in a process of its own; gives its port."""
    script = "import socket; s = socket.create_server(('127.0.0.1', 0)); "
    script += "print(s.getsockname()[1], flush=True); s.accept()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.kill()


def isolated(export: Callable[..., Export]) -> None:
    """Skip where the kernel does not allow it, which the tests of isolation tell apart."""
    try:
        export("pass", Limits(seconds=60, isolation=Mode.REQUIRE))
    except SettingsError as error:
        pytest.skip(error.message)


def test_code_that_asks_for_the_network_fails_and_the_error_says_so(
    export: Callable[..., Export], listening: int
) -> None:
    isolated(export)
    call = f"import socket; socket.create_connection(('127.0.0.1', {listening}), 5)"
    with pytest.raises(ModelError) as caught:
        export(call)
    assert "Network is unreachable" in caught.value.message
    assert "the model's code asked for the network" in caught.value.message
    assert "TRITONPIPE_ISOLATION=off" in caught.value.hint
    export(call, Limits(seconds=60, isolation=Mode.OFF))  # it did listen


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (
            """
            import socket
            from pipeline.errors import ModelError
            try:
                socket.getaddrinfo("models.example", 443)
            except OSError as error:
                raise ModelError("iris/3 cannot be loaded") from error
            """,
            "iris/3 cannot be loaded; the model's code asked for the network",
        ),
        ("open('/usr/cache', 'w')", "wrote to a folder that is not its own"),
        ("open('/root/.aws/credentials')", "asked for /root/.aws/credentials; it sees nothing of"),
    ],
)
def test_a_wall_that_was_met_is_named(
    export: Callable[..., Export], behaviour: str, words: str
) -> None:
    isolated(export)
    with pytest.raises(ModelError) as caught:
        export(behaviour)
    assert words in caught.value.message


def test_a_file_that_is_missing_in_its_own_folder_is_not_called_hidden(
    failure: Callable[..., str],
) -> None:
    message = failure("(source.path / 'weights.bin').read_bytes()")
    assert "weights.bin" in message
    assert "it sees nothing of" not in message


def test_a_hostile_model_sees_no_credential_of_its_parent(
    export: Callable[..., Export], tmp_path: Path
) -> None:
    isolated(export)
    export(
        """
        from pathlib import Path
        with (destination / "seen").open("wb") as seen:
            for file in Path("/proc").glob("[0-9]*/environ"):
                try:
                    seen.write(file.read_bytes())
                except PermissionError:  # of the process that only waits
                    continue
        (destination / "pids").write_text(" ".join(p.name for p in Path("/proc").glob("[0-9]*")))
        """
    )
    assert (tmp_path / "out" / "pids").read_text() == "1 2"
    seen = (tmp_path / "out" / "seen").read_bytes()
    assert b"MLFLOW_DISABLE_TELEMETRY=" in seen
    assert b"PYTEST" not in seen


def test_what_is_worth_knowing_is_told_once(
    export: Callable[..., Export],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "_told", set())
    for _ in range(2):
        export("pass", requirements="numpy==0.9\nonnx==1.0")
    told = [r.message for r in caplog.records if r.levelname == "WARNING"]
    (once,) = told
    assert once.startswith(f"the model was trained with numpy 0.9 (here {np.__version__}); ")
    assert "promote --env model" in once


@pytest.mark.parametrize(("cause", "is_named"), [("KeyError('_loss')", True), ("None", False)])
def test_the_failure_of_a_library_names_the_versions_that_differ(
    export: Callable[..., Export], cause: str, is_named: bool
) -> None:
    """What an exporter finds wrong itself has nothing to do with them."""
    with pytest.raises(ModelError) as caught:
        export(
            f"""
            from pipeline.errors import ModelError
            raise ModelError("cannot be loaded", hint="look at it") from {cause}
            """,
            requirements="numpy==0.9",
        )
    assert caught.value.message == "cannot be loaded"
    assert "look at it" in caught.value.hint
    assert (f"trained with numpy 0.9 (here {np.__version__})" in caught.value.hint) is is_named


@pytest.mark.parametrize(
    ("module", "requirements", "hint"),
    [
        ("cv2", "opencv-python==4.9.0.80", "pip install opencv-python==4.9.0.80"),
        ("numpy.moved", "numpy==0.9", f"trained with numpy 0.9 (here {np.__version__})"),
        ("their_own_code", "numpy==0.9", "their own hint"),
    ],
)
def test_a_missing_module_is_named_with_what_to_install(
    export: Callable[..., Export], module: str, requirements: str, hint: str
) -> None:
    with pytest.raises(ModelError) as caught:
        export(
            f"""
            from pipeline.errors import ModelError
            try:
                import {module}
            except ModuleNotFoundError as error:
                raise ModelError("cannot be loaded", hint="their own hint") from error
            """,
            requirements=requirements,
        )
    assert hint in caught.value.hint
    assert ("pip install" in caught.value.hint) is (module == "cv2")


@pytest.mark.parametrize(("is_code", "allowed"), [(False, "false"), (True, "true")])
def test_mlflows_switches_are_thrown_for_formats_without_code(
    export: Callable[..., Export],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_code: bool,
    allowed: str,
) -> None:
    if not is_code:
        monkeypatch.setattr(formats, "_NEVER_CODE", frozenset({"scripted"}))
    export("import json, os; (destination / 'seen').write_text(json.dumps(dict(os.environ)))")
    seen = json.loads((tmp_path / "out" / "seen").read_text())
    assert seen["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == allowed
    assert seen["MLFLOW_ALLOW_MODEL_CODE_EXECUTION"] == allowed


def test_mlflow_obeys_its_switches(
    export: Callable[..., Export], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of the switches are MLflow's to change."""
    monkeypatch.setattr(formats, "_NEVER_CODE", frozenset({"scripted"}))
    export(
        """
        import json, os, pickle
        import mlflow.sklearn
        class Payload:
            def __reduce__(self):
                return type(destination).touch, (destination / "trace",)
        logged = destination / "logged"
        logged.mkdir()
        (logged / "model.pkl").write_bytes(pickle.dumps(Payload()))
        options = {"pickled_model": "model.pkl", "serialization_format": "pickle",
                   "sklearn_version": "1.0"}
        (logged / "MLmodel").write_text(json.dumps({"flavors": {"sklearn": options}}))
        try:
            mlflow.sklearn.load_model(str(logged))
        except mlflow.MlflowException as error:
            (destination / "refused").write_text(str(error))
        assert not (destination / "trace").exists()
        for name in list(os.environ):
            if name.startswith("MLFLOW_ALLOW"):
                del os.environ[name]
        mlflow.sklearn.load_model(str(logged))
        """
    )
    assert "MLFLOW_ALLOW_" in (tmp_path / "out" / "refused").read_text()
    assert (tmp_path / "out" / "trace").exists(), "the payload works"


@pytest.mark.parametrize(
    "left",
    [
        "(destination / 'data').symlink_to('/etc/hostname')",
        "(destination / 'onnx').symlink_to('/etc')",
        "import os; os.mkfifo(destination / 'pipe')",
        "import os; (destination / 'a').touch(); os.link(destination / 'a', destination / 'b')",
    ],
    ids=["link", "folder", "pipe", "hard link"],
)
def test_what_is_taken_over_are_plain_files(failure: Callable[..., str], left: str) -> None:
    """A link to a secret that only the parent sees would be published with the model."""
    assert "which is no plain file" in failure(left)


@pytest.mark.parametrize(
    "exchange",
    [
        "result.symlink_to('/etc/hostname')",
        "os.mkfifo(result)",
        "result.write_bytes(bytes(2**27))",
        "result.write_text('{')",
        "result.mkdir()",
    ],
    ids=["link", "pipe", "flood", "half", "folder"],
)
def test_a_result_that_was_exchanged_is_none(failure: Callable[..., str], exchange: str) -> None:
    behaviour = "import os\nfrom pathlib import Path\nresult = Path.cwd().parent / 'result.json'\n"
    assert "without a result" in failure(f"{behaviour}{exchange}\nos._exit(0)")


@pytest.mark.parametrize("exchange", ["log.symlink_to('/etc/passwd')", "os.mkfifo(log)"])
def test_an_output_that_was_exchanged_is_not_shown(
    failure: Callable[..., str], exchange: str
) -> None:
    behaviour = "import os\nfrom pathlib import Path\nlog = Path.cwd().parent / 'output.log'\n"
    message = failure(f"{behaviour}log.unlink()\n{exchange}\nos._exit(3)")
    assert message.endswith("with exit status 3")


def test_of_a_flood_of_output_the_end_is_read(failure: Callable[..., str]) -> None:
    assert "the end" in failure("print('x' * 2**24 + '\\nthe end'); raise KeyError")


def test_an_error_that_is_none_of_ours_is_a_model_error(failure: Callable[..., str]) -> None:
    message = failure(
        """
        import json, os
        from pathlib import Path
        told = {"kind": "annotations", "message": "exporting iris/3: no", "hint": ""}
        (Path.cwd().parent / "result.json").write_text(json.dumps({"failure": told}))
        os._exit(0)
        """
    )
    assert message == "exporting iris/3: no"
