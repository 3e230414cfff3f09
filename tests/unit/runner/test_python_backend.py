"""The ``model.py`` of a packed version, as Triton imports it, with a stand-in for Triton."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pipeline.manifest import Lineage, Manifest, digest_folder
from pipeline.packing import write_packed
from pipeline.runner.contract import Contract, Tensor


class RefusedError(Exception):
    """In the place of Triton's."""


class FakeTensor:
    def __init__(self, name: str, array: Any) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        return self._array

    @staticmethod
    def from_dlpack(name: str, array: Any) -> FakeTensor:
        return FakeTensor(name, array)


class TritonError:
    INTERNAL, UNAVAILABLE, INVALID_ARG = range(3)

    def __init__(self, message: str, code: int) -> None:
        self.message, self.code = message, code


class Response:
    def __init__(self, tensors: Any = (), error: Any = None) -> None:
        self.error = error
        self.outputs = {t.name(): t.as_numpy().tolist() for t in tensors}


class Request:
    def __init__(self, **inputs: Any) -> None:
        self._inputs = inputs

    def inputs(self) -> list[FakeTensor]:
        return [FakeTensor(name, np.asarray(array)) for name, array in self._inputs.items()]

    def requested_output_names(self) -> list[str]:
        return ["y"]


class Opened:
    """In the place of the process: doubles, and refuses or dies when it is told to."""

    def __init__(self, contract: Contract, module: Any) -> None:
        self.contract, self._module = contract, module
        self.asked: list[int] = []
        self.is_closed = False

    def ask(self, inputs: Any) -> Any:
        values = inputs["x"]
        self.asked.append(len(values))
        if (values == 1).any():
            raise self._module.supervisor.ModelRefusedError("not this one")
        if (values == 2).any():
            raise self._module.supervisor.ModelDiedError("it is over")
        return {"y": values * 2}

    def close(self) -> None:
        self.is_closed = True


def contract(*, is_batching: bool = True) -> Contract:
    tensor = Tensor(name="x", dtype="float64", shape=(-1, 1))
    return Contract(
        form="array", inputs=(tensor,), outputs=(), is_batching=is_batching, python="3.11",
        machine="x86_64", environment_sha256="", load_seconds=1, request_seconds=1,
    )  # fmt: skip


@pytest.fixture
def version(tmp_path: Path) -> Path:
    logged, folder = tmp_path / "logged", tmp_path / "1"
    logged.mkdir()
    folder.mkdir()
    (logged / "MLmodel").write_text("flavors: {}")
    write_packed(folder, logged, contract(), {"x": np.ones((1, 1))})
    lineage = Lineage(
        registered_model="m", registered_version=1, run_id=None, source="", source_digest="",
        flavor="python_function",
    )  # fmt: skip
    manifest = Manifest(
        model="m", version=1, config_sha256="", files=digest_folder(folder), lineage=lineage,
        tools={},
    )  # fmt: skip
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return folder


@pytest.fixture
def module(version: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    triton = ModuleType("triton_python_backend_utils")
    triton.__dict__.update(
        Tensor=FakeTensor,
        TritonError=TritonError,
        TritonModelException=RefusedError,
        InferenceResponse=Response,
    )
    monkeypatch.setitem(sys.modules, triton.__name__, triton)
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("model", version / "model.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    assert "model.zip" in loaded.packed.__file__, "nothing of this checkout is used"
    yield loaded
    for name in [name for name in sys.modules if name.startswith("tritonpipe_runner")]:
        del sys.modules[name]


def initialized(module: Any, version: Path, *, is_batching: bool = True) -> tuple[Any, Opened]:
    opened = Opened(contract(is_batching=is_batching), module)
    module.packed.OpenedModel = lambda _folder: opened
    model = module.TritonPythonModel()
    arguments = {"model_name": "m", "model_version": "1", "model_repository": str(version.parent)}
    model.initialize(arguments)
    return model, opened


def column(*values: float) -> Any:
    return np.array(values).reshape(-1, 1)


def test_requests_are_asked_together_and_answered_apart(module: Any, version: Path) -> None:
    model, opened = initialized(module, version)
    found = model.execute([Request(x=column(3, 4)), Request(x=column(5))])
    assert [r.outputs for r in found] == [{"y": [[6.0], [8.0]]}, {"y": [[10.0]]}]
    assert opened.asked == [3]
    model.finalize()
    assert opened.is_closed


def test_a_request_that_the_model_refuses_is_refused_alone(module: Any, version: Path) -> None:
    model, opened = initialized(module, version)
    good, bad = Request(x=column(3)), Request(x=column(1))
    first, second = model.execute([good, bad])
    assert first.outputs == {"y": [[6.0]]}
    assert "not this one" in second.error.message
    assert opened.asked == [2, 1, 1]


def test_those_that_a_model_died_of_are_not_asked_again(module: Any, version: Path) -> None:
    model, opened = initialized(module, version)
    found = model.execute([Request(x=column(3)), Request(x=column(2))])
    assert {r.error.code for r in found} == {TritonError.UNAVAILABLE}
    assert opened.asked == [2]


def test_rows_are_not_put_together_where_they_depend_on_each_other(
    module: Any, version: Path
) -> None:
    model, opened = initialized(module, version, is_batching=False)
    model.execute([Request(x=column(3, 4)), Request(x=column(5))])
    assert opened.asked == [2, 1]


def test_bytes_that_are_no_text_are_refused_alone(module: Any, version: Path) -> None:
    model, _ = initialized(module, version)
    wrong = Request(x=np.array([[b"\xff"]], dtype=object))
    found = model.execute([Request(x=column(3)), wrong])
    assert found[0].outputs == {"y": [[6.0]]}
    assert found[1].error.code == TritonError.INVALID_ARG
    assert "'x' is no UTF-8 text" in found[1].error.message


def test_only_what_was_published_is_loaded(module: Any, version: Path) -> None:
    (version / "__pycache__").mkdir()
    (version / "__pycache__" / "model.cpython-311.pyc").write_bytes(b"of the server's own Python")
    initialized(module, version)
    (version / "environment.tar.gz").write_bytes(b"somebody else's")
    with pytest.raises(RefusedError, match=r"environment\.tar\.gz is not in the manifest"):
        initialized(module, version)
    (version / "environment.tar.gz").unlink()
    (version / "manifest.json").unlink()
    with pytest.raises(RefusedError, match="not those that were published"):
        initialized(module, version)


def test_a_numpy_that_gives_wrong_numbers_is_refused(
    module: Any, version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeTensor, "as_numpy", lambda self: self._array[[0, 0]])
    with pytest.raises(RefusedError, match="hands over wrong numbers"):
        initialized(module, version)


def test_the_same_model_gives_the_same_bytes(version: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    write_packed(again, tmp_path / "logged", contract(), {"x": np.ones((1, 1))})
    for name in ("model.py", "model.zip"):
        ours, theirs = ((f / name).read_bytes() for f in (again, version))
        assert hashlib.sha256(ours).digest() == hashlib.sha256(theirs).digest()
