"""The Python-based ONNX Runtime backend under the real ``tritonserver``.

One server for the file, in explicit mode; every test writes the entries it needs and loads them.
Graphs are built by hand, so that each shows one thing.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

import pipeline
from pipeline import manifest
from pipeline.stack.environment import ensure_server_environment
from pipeline.tensors import DataType

pytestmark = pytest.mark.integration

Array = npt.NDArray[Any]
PACKAGE = Path(pipeline.__file__).parent
NUMERIC = tuple(t for t in DataType if t not in {DataType.STRING, DataType.BF16})


# --- the server -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server_environment() -> Path:
    """The virtual environment that has ``nvidia-pytriton`` and ``onnxruntime``."""
    return ensure_server_environment().root


def install_backends(environment: Path, folder: Path) -> Path:
    """Lay out a backend directory: Triton's Python backend and ours. Returns site-packages."""
    [site_packages] = environment.glob("lib/python*/site-packages")
    triton = site_packages / "pytriton" / "tritonserver"
    version = site_packages.parent.name.removeprefix("python")
    shutil.copytree(triton / "backends" / "python", folder / "python")
    stub = triton / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, folder / "python")
    ours = folder / "onnxruntime"
    shutil.copytree(PACKAGE / "stack" / "triton_backends" / "onnxruntime", ours)
    for module in ("manifest.py", "request_groups.py"):
        shutil.copy(PACKAGE / module, ours)
    return site_packages


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running Triton and the repository that it reads."""

    repository: Path
    log: Path
    grpc: Any
    http: Any

    def load(self, entry: Entry) -> str:
        """Write an entry, load it and return its name."""
        entry.write(self.repository)
        self.grpc.load_model(entry.name)
        return entry.name

    def refusal(self, entry: Entry) -> str:
        """Write an entry that must not load; return the server's words."""
        entry.write(self.repository)
        return self.failed_load(entry.name)

    def failed_load(self, name: str) -> str:
        with pytest.raises(InferenceServerException) as caught:
            self.grpc.load_model(name)
        return str(caught.value)

    def infer(
        self, model: str, arrays: dict[str, Array], outputs: Sequence[str] = ()
    ) -> dict[str, Array]:
        """Ask over gRPC and over HTTP, which must agree; return the outputs by name."""
        over_grpc = self._infer(self.grpc, triton_grpc, model, outputs, arrays)
        over_http = self._infer(self.http, triton_http, model, outputs, arrays)
        assert over_grpc.keys() == over_http.keys()
        for name, array in over_grpc.items():
            np.testing.assert_array_equal(array, over_http[name], strict=True)
        return over_grpc

    @staticmethod
    def _infer(
        client: Any, kit: Any, model: str, names: Sequence[str], arrays: dict[str, Array]
    ) -> dict[str, Array]:
        wanted = [kit.InferRequestedOutput(name) for name in names] or None
        result = client.infer(model, request_inputs(kit, arrays), outputs=wanted)
        response = result.get_response()
        listed = response["outputs"] if isinstance(response, dict) else response.outputs
        found = [item["name"] if isinstance(item, dict) else item.name for item in listed]
        return {name: result.as_numpy(name) for name in found}

    def infer_together(
        self, model: str, requests: Sequence[dict[str, Array]], outputs: Sequence[Sequence[str]]
    ) -> list[Any]:
        """Send requests at once; for each, its result or its error."""
        futures: list[Future[Any]] = [Future() for _ in requests]
        for arrays, names, future in zip(requests, outputs, futures, strict=True):
            wanted = [triton_grpc.InferRequestedOutput(name) for name in names] or None

            def answer(result: Any, error: Any, future: Future[Any] = future) -> None:
                future.set_result(error or result)

            self.grpc.async_infer(
                model, request_inputs(triton_grpc, arrays), callback=answer, outputs=wanted
            )
        return [future.result(timeout=30) for future in futures]

    def executions(self, name: str) -> int:
        """How often the model ran; Triton counts only after it has answered."""
        deadline = time.monotonic() + 5
        while True:
            statistics = self.grpc.get_inference_statistics(name, as_json=True)
            count = int(statistics["model_stats"][0].get("execution_count", 0))
            if count or time.monotonic() > deadline:
                return count
            time.sleep(0.02)


def request_inputs(kit: Any, arrays: dict[str, Array]) -> list[Any]:
    inputs = []
    for name, array in arrays.items():
        item = kit.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        inputs.append(item.set_data_from_numpy(array))
    return inputs


@pytest.fixture(scope="module")
def server(server_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(server_environment, tmp_path_factory.mktemp("triton")) as running:
        yield running


@contextmanager
def running_server(environment: Path, folder: Path) -> Iterator[Server]:
    """Start a server on an empty repository in ``folder``, and end it."""
    repository = folder / "repository"
    repository.mkdir()
    site_packages = install_backends(environment, folder / "backends")
    http, grpc, metrics = free_ports(3)
    variables = {
        "PATH": f"{environment}/bin:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(environment),
        "LD_LIBRARY_PATH": str(site_packages / "nvidia_pytriton.libs"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [
        str(site_packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={folder / 'backends'}",
        "--model-control-mode=explicit",
        "--disable-auto-complete-config",
        "--exit-on-error=false",
        "--strict-readiness=false",
        *("--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1"),
        *(f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"),
        f"--backend-config=python,shm-region-prefix-name=tritonpipe_{uuid.uuid4().hex[:8]}",
    ]
    log = folder / "triton.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=variables, stdout=stream, stderr=stream)
    try:
        with (
            triton_grpc.InferenceServerClient(f"127.0.0.1:{grpc}") as grpc_client,
            triton_http.InferenceServerClient(f"127.0.0.1:{http}") as http_client,
        ):
            wait_until_live(process, grpc_client, log)
            yield Server(repository=repository, log=log, grpc=grpc_client, http=http_client)
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until_live(process: subprocess.Popen[bytes], client: Any, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.is_server_live():
                return
        except InferenceServerException:
            time.sleep(0.1)
    pytest.fail(f"tritonserver did not start:\n{log.read_text()[-3000:]}")


# --- entries --------------------------------------------------------------------------------------


def io(
    kind: type[Any],
    name: str,
    data_type: DataType,
    dims: Sequence[int],
    reshape: Sequence[int] | None = None,
    **more: Any,
) -> Any:
    item = kind(name=name, dims=dims, **more)
    item.data_type = model_config_pb2.DataType.Value(data_type.triton)
    if reshape is not None:
        item.reshape.SetInParent()
        item.reshape.shape.extend(reshape)
    return item


def configured_input(*args: Any, **kwargs: Any) -> Any:
    return io(model_config_pb2.ModelInput, *args, **kwargs)


def configured_output(*args: Any, **kwargs: Any) -> Any:
    return io(model_config_pb2.ModelOutput, *args, **kwargs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One model of the repository, in version 1."""

    name: str
    graph: onnx.ModelProto
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    max_batch_size: int = 0
    more: str = ""
    has_manifest: bool = True
    file: str = "model.onnx"
    external: str | None = None

    def write(self, repository: Path) -> None:
        folder = repository / self.name / "1"
        folder.mkdir(parents=True)
        onnx.save(
            self.graph,
            folder / self.file,
            save_as_external_data=self.external is not None,
            location=self.external,
            size_threshold=0,
        )
        config = self.config()
        (folder.parent / "config.pbtxt").write_text(config)
        if self.has_manifest:
            document = manifest.Manifest(
                model=self.name,
                version=1,
                config_sha256="",
                files=manifest.digest_folder(folder),
                lineage=manifest.Lineage(
                    registered_model=self.name,
                    registered_version=1,
                    run_id=None,
                    source="",
                    source_digest="",
                    flavor="onnx",
                ),
                tools={},
            )
            (folder / manifest.MANIFEST_NAME).write_bytes(document.to_bytes())

    def config(self) -> str:
        message = model_config_pb2.ModelConfig(
            name=self.name, backend="onnxruntime", max_batch_size=self.max_batch_size
        )
        message.input.extend(self.inputs)
        message.output.extend(self.outputs)
        return str(text_format.MessageToString(message)) + self.more


def value(name: str, data_type: DataType, shape: Sequence[int | str | None] | None) -> Any:
    return helper.make_tensor_value_info(name, data_type.onnx, shape)


def model(
    nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], initializers: Any = ()
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(initializers))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def identity(
    name: str, data_types: Sequence[DataType], shape: Sequence[int | str | None], **more: Any
) -> Entry:
    """A model that gives back input ``x_fp32`` as output ``y_fp32``, for each type."""
    kinds = [t.value.lower() for t in data_types]
    dims = [size if isinstance(size, int) else -1 for size in shape]
    dims = dims[1:] if more.get("max_batch_size") else dims
    return Entry(
        name=name,
        graph=model(
            [helper.make_node("Identity", [f"x_{k}"], [f"y_{k}"]) for k in kinds],
            [value(f"x_{k}", t, shape) for k, t in zip(kinds, data_types, strict=True)],
            [value(f"y_{k}", t, shape) for k, t in zip(kinds, data_types, strict=True)],
        ),
        inputs=[
            configured_input(f"x_{k}", t, dims) for k, t in zip(kinds, data_types, strict=True)
        ],
        outputs=[
            configured_output(f"y_{k}", t, dims) for k, t in zip(kinds, data_types, strict=True)
        ],
        **more,
    )


def lookup(name: str, **more: Any) -> Entry:
    """``y = table[i]`` and ``z = -y``: a row number above 3 is an error of the run."""
    table = numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(4, 2), "table")
    return Entry(
        name=name,
        graph=model(
            [
                helper.make_node("Gather", ["table", "i"], ["y"], axis=0),
                helper.make_node("Neg", ["y"], ["z"]),
            ],
            [value("i", DataType.INT64, ["N"])],
            [value("y", DataType.FP32, ["N", 2]), value("z", DataType.FP32, ["N", 2])],
            [table],
        ),
        inputs=[configured_input("i", DataType.INT64, [1], reshape=[])],
        outputs=[
            configured_output("y", DataType.FP32, [2]),
            configured_output("z", DataType.FP32, [2]),
        ],
        max_batch_size=8,
        more=more.pop("more", batches_of(3)),
        **more,
    )


def batches_of(size: int) -> str:
    """Wait until ``size`` rows are there, so that a test decides what runs together."""
    return (
        "dynamic_batching {"
        f" preferred_batch_size: [{size}] max_queue_delay_microseconds: 5000000 }}"
    )


ONE_INSTANCE = "instance_group { count: 1 kind: KIND_CPU }\n"


def parameter(name: str, text: str) -> str:
    return f'parameters {{ key: "{name}" value {{ string_value: "{text}" }} }}\n'


def rows(*numbers: int) -> Array:
    return np.array(numbers, np.int64).reshape(-1, 1)


def text(*items: Any) -> Array:
    return np.array(items, dtype=object)


# --- answers --------------------------------------------------------------------------------------


def extremes(data_type: DataType) -> Array:
    dtype = np.dtype(data_type.numpy)
    if dtype == np.bool_:
        return np.array([[True, False], [False, True]])
    limits: Any = np.finfo(dtype) if data_type.is_floating else np.iinfo(dtype)
    return np.array([[limits.min, limits.max], [0, 1]], dtype)


@pytest.mark.parametrize("max_batch_size", [0, 8])
def test_every_numeric_type_keeps_its_extreme_values(server: Server, max_batch_size: int) -> None:
    entry = identity(
        f"numeric_{max_batch_size}", NUMERIC, ["N", None], max_batch_size=max_batch_size
    )
    name = server.load(entry)
    arrays = {t.value.lower(): extremes(t) for t in NUMERIC}

    answers = server.infer(name, {f"x_{k}": array for k, array in arrays.items()})

    assert len(answers) == 12
    for kind, array in arrays.items():
        np.testing.assert_array_equal(answers[f"y_{kind}"], array, strict=True)
    empty = {f"x_{k}": array[:, :0] for k, array in arrays.items()}
    for answer in server.infer(name, empty).values():
        assert answer.shape == (2, 0)


def test_strings_are_text_and_bad_text_fails_alone(server: Server) -> None:
    name = server.load(
        identity("strings", [DataType.STRING], ["N", None], max_batch_size=8, more=batches_of(3))
    )
    good = text(["é", "", "日本", "a" * 70_000]).reshape(1, -1)
    bad = text([b"\xff", b"x", b"y", b"z"]).reshape(1, -1)

    first, second, third = server.infer_together(
        name, [{"x_string": good}, {"x_string": bad}, {"x_string": good}], [(), (), ()]
    )

    for result in (first, third):
        decoded = [item.decode() for item in result.as_numpy("y_string").ravel()]
        assert decoded == good.ravel().tolist()
    assert "input 'x_string' is not UTF-8 text" in str(second)


def test_empty_string_arrays_are_answered(server: Server) -> None:
    name = server.load(identity("empty_strings", [DataType.STRING], ["N", None]))

    for shape in ((0, 3), (2, 0)):
        answers = server.infer(name, {"x_string": np.empty(shape, object)})
        assert answers["y_string"].shape == shape


def bfloat16_entry(name: str, companion: DataType, **more: Any) -> Entry:
    """``y`` and ``f`` are ``x`` in BF16 and in FP32; ``t`` is the companion ``s``."""
    inputs = {"x": DataType.BF16, "s": companion}
    outputs = {"y": DataType.BF16, "f": DataType.FP32, "t": companion}
    return Entry(
        name=name,
        graph=model(
            [
                helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
                helper.make_node("Cast", ["f"], ["y"], to=TensorProto.BFLOAT16),
                helper.make_node("Identity", ["s"], ["t"]),
            ],
            [value(key, data_type, ["N", 3]) for key, data_type in inputs.items()],
            [value(key, data_type, ["N", 3]) for key, data_type in outputs.items()],
        ),
        inputs=[configured_input(key, data_type, [3]) for key, data_type in inputs.items()],
        outputs=[configured_output(key, data_type, [3]) for key, data_type in outputs.items()],
        max_batch_size=8,
        **more,
    )


def test_bfloat16_is_carried_by_its_bits(server: Server) -> None:
    name = server.load(bfloat16_entry("bfloat16", DataType.BOOL, more=batches_of(2)))
    xs = [np.array([row], ml_dtypes.bfloat16) for row in ([1, -2.5, 3.0e38], [0, 1.0e-38, np.inf])]
    flags = [np.array([row]) for row in ([True, False, True], [False, False, True])]

    results = server.infer_together(
        name, [{"x": x, "s": s} for x, s in zip(xs, flags, strict=True)], [(), ()]
    )

    assert server.executions(name) == 1
    for x, s, result in zip(xs, flags, results, strict=True):
        np.testing.assert_array_equal(result.as_numpy("y"), x, strict=True)
        np.testing.assert_array_equal(result.as_numpy("f"), x.astype(np.float32), strict=True)
        np.testing.assert_array_equal(result.as_numpy("t"), s, strict=True)
    x = np.concatenate(xs)
    over_both = server.infer(name, {"x": x, "s": np.concatenate(flags)}, outputs=["y"])
    np.testing.assert_array_equal(over_both["y"], x, strict=True)


def test_bfloat16_beside_text_inputs_is_refused(server: Server) -> None:
    refusal = server.refusal(bfloat16_entry("bfloat16_text", DataType.STRING))

    assert "cannot run BF16 tensors ('x', 'y') beside text inputs ('s')" in refusal


def test_scalars_travel_as_one_element(server: Server) -> None:
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    one = [1]
    entry = Entry(
        name="scalar",
        graph=model(nodes, [value("x", DataType.FP32, [])], [value("y", DataType.FP32, [])]),
        inputs=[configured_input("x", DataType.FP32, one)],
        outputs=[configured_output("y", DataType.FP32, one)],
    )
    name = server.load(entry)

    answers = server.infer(name, {"x": np.array([4], np.float32)})

    np.testing.assert_array_equal(answers["y"], np.array([8], np.float32), strict=True)


def test_omitted_optional_input_takes_its_default(server: Server) -> None:
    default = numpy_helper.from_array(np.array([10], np.float32), "bias")
    entry = Entry(
        name="optional",
        graph=model(
            [helper.make_node("Add", ["x", "bias"], ["y"])],
            [value("x", DataType.FP32, ["N"]), value("bias", DataType.FP32, [1])],
            [value("y", DataType.FP32, ["N"])],
            [default],
        ),
        inputs=[
            configured_input("x", DataType.FP32, [-1]),
            configured_input("bias", DataType.FP32, [1], optional=True),
        ],
        outputs=[configured_output("y", DataType.FP32, [-1])],
    )
    name = server.load(entry)
    x = np.array([1, 2], np.float32)

    assert server.infer(name, {"x": x})["y"].tolist() == [11, 12]
    half = np.array([0.5], np.float32)
    assert server.infer(name, {"x": x, "bias": half})["y"].tolist() == [1.5, 2.5]


def test_external_data_and_another_file_name(server: Server) -> None:
    entry = lookup(
        "external",
        external="weights.bin",
        file="other.onnx",
        more='default_model_filename: "other.onnx"',
    )
    name = server.load(entry)
    assert (server.repository / name / "1" / "weights.bin").stat().st_size == 32

    assert server.infer(name, {"i": rows(3, 0)})["y"].tolist() == [[6, 7], [0, 1]]


# --- batches --------------------------------------------------------------------------------------


def test_requests_run_together_and_get_their_own_rows_and_outputs(server: Server) -> None:
    name = server.load(lookup("together"))

    first, second = server.infer_together(
        name, [{"i": rows(1)}, {"i": rows(3, 2)}], [("y",), ("z",)]
    )

    assert server.executions(name) == 1
    assert first.as_numpy("y").tolist() == [[2, 3]]
    assert first.as_numpy("z") is None
    assert second.as_numpy("z").tolist() == [[-6, -7], [-4, -5]]
    assert second.as_numpy("y") is None


def test_a_failing_request_does_not_fail_its_batch(server: Server) -> None:
    name = server.load(lookup("guilty"))

    first, second, third = server.infer_together(
        name, [{"i": rows(1)}, {"i": rows(99)}, {"i": rows(0)}], [(), (), ()]
    )

    assert server.executions(name) == 1
    assert first.as_numpy("y").tolist() == [[2, 3]]
    assert third.as_numpy("z").tolist() == [[0, -1]]
    assert "model 'guilty' version 1" in str(second)
    assert "idx=99 must be within the inclusive range [-4,3]" in str(second)


def test_rank_one_outputs_are_declared_by_reshape(server: Server) -> None:
    """A class label: ``[N]`` in the graph, ``dims: [1] reshape { shape: [] }`` in the config."""
    entry = Entry(
        name="labels",
        graph=model(
            [helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0)],
            [value("x", DataType.FP32, ["N", 3])],
            [value("label", DataType.INT64, ["N"])],
        ),
        inputs=[configured_input("x", DataType.FP32, [1, 3], reshape=[3])],
        outputs=[configured_output("label", DataType.INT64, [1], reshape=[])],
        max_batch_size=8,
        more=batches_of(4),
    )
    name = server.load(entry)
    eye = np.eye(3, dtype=np.float32).reshape(3, 1, 3)

    answers = server.infer_together(name, [{"x": eye}, {"x": eye[2:]}], [(), ()])

    assert [a.as_numpy("label").tolist() for a in answers] == [[[0], [1], [2]], [[2]]]
    assert server.executions(name) == 1


def test_an_output_without_a_row_per_request_is_an_error(server: Server) -> None:
    """A graph that drops rows: nobody could tell whose are left."""
    entry = Entry(
        name="positive",
        graph=model(
            [
                helper.make_node("Greater", ["x", "zero"], ["is_positive"]),
                helper.make_node("Compress", ["x", "is_positive"], ["y"], axis=0),
            ],
            [value("x", DataType.FP32, ["N"])],
            [value("y", DataType.FP32, ["M"])],
            [numpy_helper.from_array(np.array(0, np.float32), "zero")],
        ),
        inputs=[configured_input("x", DataType.FP32, [1], reshape=[])],
        outputs=[configured_output("y", DataType.FP32, [1], reshape=[])],
        max_batch_size=8,
    )
    name = server.load(entry)
    x = np.array([[1], [-1]], np.float32)

    assert server.infer(name, {"x": x[:1]})["y"].tolist() == [[1]]
    with pytest.raises(InferenceServerException, match=r"'y' has shape \[1\] for a batch of 2"):
        server.infer(name, {"x": x})


# --- refusals -------------------------------------------------------------------------------------


def test_every_difference_between_config_and_graph_is_named(server: Server) -> None:
    fp32 = DataType.FP32
    graph = model(
        [
            helper.make_node("Identity", [name], [f"of_{name}"])
            for name in ("type", "shape", "fixed", "missing", "required")
        ]
        + [
            helper.make_node("Identity", ["default"], ["of_default"]),
            helper.make_node("SequenceConstruct", ["shape", "shape"], ["sequence"]),
        ],
        [
            *(value(name, fp32, ["N", 3]) for name in ("type", "shape", "missing", "required")),
            value("fixed", fp32, [2, 3]),
            value("default", fp32, [1, 3]),
        ],
        [
            value("of_shape", fp32, ["N", 3]),
            helper.make_tensor_sequence_value_info("sequence", TensorProto.FLOAT, ["N", 3]),
        ],
        [numpy_helper.from_array(np.zeros((1, 3), np.float32), "default")],
    )
    entry = Entry(
        name="different",
        graph=graph,
        inputs=[
            configured_input("type", DataType.FP64, [3]),
            configured_input("shape", fp32, [2, 2], reshape=[4]),
            configured_input("fixed", fp32, [3]),
            configured_input("required", fp32, [3], optional=True),
            configured_input("unknown", fp32, [3]),
        ],
        outputs=[
            configured_output("of_shape", fp32, [-1]),
            configured_output("sequence", fp32, [3]),
            configured_output("of_unknown", fp32, [3]),
        ],
        max_batch_size=8,
    )

    refusal = server.refusal(entry)

    for difference in (
        "model 'different' version 1 is refused",
        "input 'missing' of the graph is missing from the config",
        "input 'unknown' of the config is not in the graph",
        "input 'type' has data type TYPE_FP64 in the config and TYPE_FP32 in the graph",
        "input 'shape' has shape [-1,4] in the config and [-1,3] in the graph",
        "the first dimension of input 'fixed' is fixed at 2 in the graph",
        "input 'required' is optional in the config, the graph has no default for it",
        "output 'of_shape' has shape [-1,-1] in the config and [-1,3] in the graph",
        "output 'sequence' is seq(tensor(float)) in the graph, which Triton cannot carry",
        "output 'of_unknown' of the config is not in the graph",
    ):
        assert difference in refusal
    [reason] = [
        m.reason for m in server.grpc.get_model_repository_index().models if m.name == "different"
    ]
    assert "input 'missing' of the graph is missing from the config" in reason
    assert "input 'missing' of the graph is missing from the config" in server.log.read_text()


def test_files_that_differ_from_the_manifest_are_refused(server: Server) -> None:
    entry = lookup("tampered", more="")
    entry.write(server.repository)
    folder = server.repository / "tampered" / "1"
    with (folder / "model.onnx").open("ab") as stream:
        stream.write(b"\0")
    (folder / "stray.bin").write_bytes(b"")

    refusal = server.failed_load("tampered")

    assert "stray.bin is not in the manifest" in refusal
    assert re.search(r"model\.onnx has \d+ bytes, the manifest says \d+", refusal)


def test_a_missing_manifest_is_refused_unless_the_config_allows_it(server: Server) -> None:
    refusal = server.refusal(lookup("unsigned", more="", has_manifest=False))
    allowed = lookup("allowed", more=parameter("require_manifest", "0"), has_manifest=False)

    assert 'set parameter require_manifest to "0"' in refusal
    assert server.infer(server.load(allowed), {"i": rows(0)})["y"].tolist() == [[0, 1]]


def test_unreadable_graphs_parameters_and_features_are_refused(server: Server) -> None:
    bad_parameter = lookup("bad_parameter", more=parameter("intra_op_thread_count", "many"))
    decoupled = lookup("decoupled", more="model_transaction_policy { decoupled: true }")
    gpu = lookup("gpu", more="instance_group { kind: KIND_GPU }")
    broken = lookup("broken", more=parameter("require_manifest", "0"), has_manifest=False)
    broken.write(server.repository)
    (server.repository / "broken" / "1" / "model.onnx").write_bytes(b"not a graph")

    assert "must be a whole number from 0, found 'many'" in server.refusal(bad_parameter)
    assert "model_transaction_policy is decoupled" in server.refusal(decoupled)
    assert "KIND_GPU" in server.refusal(gpu)
    assert "cannot load model.onnx: " in server.failed_load("broken")


def test_a_numpy_that_would_give_wrong_numbers_is_refused(
    server_environment: Path, tmp_path: Path
) -> None:
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip(f"needs NumPy 2 in the running environment, found {np.__version__}")
    if not (server_environment / "lib" / f"python3.{sys.version_info.minor}").is_dir():
        pytest.skip("needs the Python version of the server environment")
    environment = with_other_numpy(server_environment, tmp_path / "environment")

    with running_server(environment, tmp_path) as server:
        refusal = server.refusal(lookup("numpy_2", more=""))

    assert f"NumPy {np.__version__} is installed for Triton's Python backend" in refusal
    assert "Install 'numpy<2' in that environment" in refusal


def with_other_numpy(environment: Path, twin: Path) -> Path:
    """Make a twin of an environment, of links, that has the NumPy of the running one."""
    [site_packages] = environment.glob("lib/python*/site-packages")
    packages = twin / site_packages.relative_to(environment)
    packages.mkdir(parents=True)
    (twin / "bin").symlink_to(environment / "bin")
    shutil.copy(environment / "pyvenv.cfg", twin)
    for package in site_packages.iterdir():
        origin = Path(np.__file__).parents[1] if package.name.startswith("numpy") else site_packages
        (packages / package.name).symlink_to(origin / package.name)
    return twin


def test_threads_are_those_of_the_parameters(server: Server) -> None:
    one = server.load(lookup("one_thread", more=ONE_INSTANCE))
    five = server.load(
        lookup("five_threads", more=ONE_INSTANCE + parameter("intra_op_thread_count", "5"))
    )

    assert threads_of(five) == threads_of(one) + 4


def threads_of(model_name: str) -> int:
    """Count the threads of the process that serves a model."""
    [process] = [
        process
        for process in Path("/proc").iterdir()
        if process.name.isdecimal() and model_name in command_line(process)
    ]
    return len(list((process / "task").iterdir()))


def command_line(process: Path) -> str:
    try:
        arguments = (process / "cmdline").read_text().split("\0")
    except OSError:
        return ""
    return " ".join(arguments) if "triton_python_backend_stub" in arguments[0] else ""
