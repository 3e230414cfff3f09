"""The ONNX Runtime backend for a Triton that has only its Python backend.

Installed as ``onnxruntime/`` in the server's backend directory, it serves the entries written for
Triton's compiled backend of the same name unchanged, on the CPU: ``backend: "onnxruntime"`` and
``N/model.onnx``. Guarantees: a version loads only if its files are those of its manifest and its
graph is what the config says, otherwise the server's answer names every difference; requests that
Triton hands over together run together; an error in one request is the answer to that request only.

One process of Triton's Python backend per model instance runs this file, with this folder on
``sys.path`` and copies of ``pipeline/manifest.py`` and ``pipeline/request_groups.py`` in it.
Nothing else of this package is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from pipeline import manifest, request_groups
    from pipeline.stack.triton_backends.onnxruntime import (
        bfloat16_tensors,
        entry_options,
        graph_contract,
        tensor_codecs,
    )
else:
    import bfloat16_tensors
    import entry_options
    import graph_contract
    import manifest
    import request_groups
    import tensor_codecs


class TritonPythonModel:
    """One instance of one version of a model; Triton creates it and calls its methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Check the version, load its graph and prepare what every request needs.

        Raises:
            pb_utils.TritonModelException: The version must not be served; the message says why.
        """
        self._name = f"model {args['model_name']!r} version {args['model_version']}"
        self._refuse_if([entry_options.problem_with_numpy(np.__version__)])
        config = json.loads(args["model_config"])
        self._refuse_if(entry_options.unsupported_features(config, args["model_instance_kind"]))
        try:
            options = entry_options.options_from_config(config)
        except ValueError as error:
            self._refuse(str(error))
        folder = Path(args["model_repository"]) / args["model_version"]
        self._check_manifest(folder, is_required=options.requires_manifest)
        self._batches = int(config["max_batch_size"]) > 0
        self._prepare(self._load(folder / options.model_file, options), config)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request, in order; never raises for the sake of one of them."""
        answers: dict[int, Any] = {}
        feeds: dict[int, request_groups.Feed] = {}
        for position, request in enumerate(requests):
            try:
                feeds[position] = self._feed_from_request(request)
            except ValueError as error:
                answers[position] = self._failure(error, pb_utils.TritonError.INVALID_ARG)
        groups = request_groups.groups_of(feeds) if self._batches else [[p] for p in feeds]
        for group in groups:
            responses = self._answer([requests[p] for p in group], [feeds[p] for p in group])
            answers.update(zip(group, responses, strict=True))
        return [answers[position] for position in range(len(requests))]

    def _feed_from_request(self, request: Any) -> request_groups.Feed:
        feed = {}
        for tensor in request.inputs():
            name = tensor.name()
            feed[name] = self._readers[name](tensor)
        return feed

    def _answer(self, requests: Sequence[Any], feeds: Sequence[request_groups.Feed]) -> list[Any]:
        """Answer requests that can share a run; if it fails, each gets a run of its own."""
        try:
            return self._run(requests, feeds)
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common base
            if len(requests) == 1:
                is_invalid = type(error).__name__ == "InvalidArgument"
                codes = pb_utils.TritonError
                return [self._failure(error, codes.INVALID_ARG if is_invalid else codes.INTERNAL)]
        return [
            self._answer([request], [feed])[0]
            for request, feed in zip(requests, feeds, strict=True)
        ]

    def _run(self, requests: Sequence[Any], feeds: Sequence[request_groups.Feed]) -> list[Any]:
        """Run the graph once, for the outputs that at least one of the requests wants."""
        wanted = [request.requested_output_names() for request in requests]
        names = wanted[0] if len(wanted) == 1 else list(dict.fromkeys(chain(*wanted)))
        arrays = self._run_graph(names, request_groups.stacked(feeds))
        parts = [dict(zip(names, arrays, strict=True))]
        if self._batches:
            rows = [request_groups.rows_of(feed) for feed in feeds]
            parts = request_groups.distributed(parts[0], rows)
        return [self._response(mine, part) for mine, part in zip(wanted, parts, strict=True)]

    def _response(self, names: Sequence[str], arrays: Mapping[str, request_groups.Array]) -> Any:
        tensors = [self._writers[name](name, arrays[name]) for name in names]
        return pb_utils.InferenceResponse(tensors)

    def _failure(self, error: Exception, code: int) -> Any:
        message = f"{self._name}: {error}"
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))

    def _refuse_if(self, problems: Sequence[str | None]) -> None:
        if found := [problem for problem in problems if problem]:
            self._refuse("; ".join(found))

    def _refuse(self, reason: str) -> NoReturn:
        raise pb_utils.TritonModelException(f"{self._name} is refused: {reason}")

    def _check_manifest(self, folder: Path, *, is_required: bool) -> None:
        path = folder / manifest.MANIFEST_NAME
        if not path.is_file():
            if is_required:
                self._refuse(
                    f"its folder has no {path.name}, so its files cannot be verified; publish it"
                    ' again, or set parameter require_manifest to "0" in its config'
                )
            return
        try:
            published = manifest.manifest_from_bytes(path.read_bytes())
        except manifest.InvalidManifestError as error:
            self._refuse(f"{path.name}: {error}")
        problems = manifest.differences(folder, published)
        self._refuse_if([f"{path.name} does not match: {problem}" for problem in problems])

    def _load(self, path: Path, options: entry_options.EntryOptions) -> Any:
        wishes = ort.SessionOptions()
        wishes.intra_op_num_threads = options.intra_op_threads
        wishes.inter_op_num_threads = options.inter_op_threads
        mode = "ORT_PARALLEL" if options.is_parallel else "ORT_SEQUENTIAL"
        wishes.execution_mode = getattr(ort.ExecutionMode, mode)
        level = getattr(ort.GraphOptimizationLevel, options.graph_optimization)
        wishes.graph_optimization_level = level
        wishes.enable_cpu_mem_arena = options.uses_memory_arena
        wishes.enable_mem_pattern = options.uses_memory_pattern
        try:
            return ort.InferenceSession(path, wishes, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common base
            self._refuse(f"ONNX Runtime {ort.__version__} cannot load {path.name}: {error}")

    def _prepare(self, session: Any, config: dict[str, Any]) -> None:
        """Compare the graph with the config, and choose once how each tensor is carried."""
        defaults = session.get_overridable_initializers()
        inputs = [_graph_tensor(item) for item in session.get_inputs()]
        inputs += [_graph_tensor(item, has_default=True) for item in defaults]
        outputs = {item.name: _graph_tensor(item) for item in session.get_outputs()}
        self._refuse_if(
            graph_contract.differences_from_graph(config, inputs, list(outputs.values()))
        )
        types = {t.name: t.graph_type for t in inputs}
        served = {item["name"]: outputs[item["name"]].graph_type for item in config["output"]}
        self._refuse_if(bfloat16_tensors.problems(types, served))
        has_bfloat16 = bfloat16_tensors.GRAPH_TYPE in {*types.values(), *served.values()}
        self._run_graph: Callable[..., list[Any]] = (
            partial(bfloat16_tensors.run, session) if has_bfloat16 else session.run
        )
        may_be_scalar = not self._batches
        self._readers = {
            t.name: tensor_codecs.reader_of(t, may_be_scalar=may_be_scalar) for t in inputs
        }
        self._writers = {
            item["name"]: tensor_codecs.writer_of(
                outputs[item["name"]], graph_contract.model_dims(item), may_be_scalar=may_be_scalar
            )
            for item in config["output"]
        }


def _graph_tensor(item: Any, *, has_default: bool = False) -> graph_contract.GraphTensor:
    return graph_contract.GraphTensor(
        name=item.name,
        graph_type=item.type,
        shape=graph_contract.shape_from_graph(item.shape),
        has_default=has_default,
    )
