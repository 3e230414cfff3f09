"""What a model's config and its surroundings ask of this backend, read and checked before loading.

Guarantees: the options have the same keys and meanings as in Triton's compiled ONNX Runtime
backend, so one ``config.pbtxt`` serves both; an option that cannot be read, a feature that would
be ignored, and a NumPy that would corrupt tensors are refused in words, never worked around.

Configs are the JSON that Triton hands to the backend, parsed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

DEFAULT_MODEL_FILE: Final = "model.onnx"
DEFAULT_INTRA_OP_THREADS: Final = 1
"""Threads inside one run, where the config names none.

Instances and batches are what uses the cores of a server. ONNX Runtime's own default is one
spinning thread per core *for every instance*, each instance being a process of its own: they slow
each other down as soon as two requests run at once. A big model that is alone on its machine asks
for more by ``intra_op_thread_count``; ``0`` is ONNX Runtime's default.
"""

_GRAPH_OPTIMIZATION: Final = {
    -1: "ORT_ENABLE_BASIC",
    1: "ORT_ENABLE_EXTENDED",
    2: "ORT_DISABLE_ALL",
}
_BOOLEANS: Final = {"0": False, "false": False, "1": True, "true": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryOptions:
    """How to load and run one model.

    Attributes:
        model_file: Name of the graph in the version folder.
        intra_op_threads: Threads inside one operator; 0 leaves it to ONNX Runtime.
        inter_op_threads: Threads across operators; 0 leaves it to ONNX Runtime.
        is_parallel: Whether independent operators run at the same time.
        graph_optimization: Name of an ``onnxruntime.GraphOptimizationLevel``.
        uses_memory_arena: Whether freed memory is kept for the next run.
        uses_memory_pattern: Whether memory is planned ahead from the shapes of earlier runs.
        requires_manifest: Whether a version folder without a manifest is refused.
    """

    model_file: str
    intra_op_threads: int
    inter_op_threads: int
    is_parallel: bool
    graph_optimization: str
    uses_memory_arena: bool
    uses_memory_pattern: bool
    requires_manifest: bool


def options_from_config(config: Mapping[str, Any]) -> EntryOptions:
    """Read the options of a model.

    Raises:
        ValueError: A parameter is neither of the values that it can have; says which and what.
    """
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    return EntryOptions(
        model_file=config.get("default_model_filename") or DEFAULT_MODEL_FILE,
        intra_op_threads=_integer(config, "intra_op_thread_count", DEFAULT_INTRA_OP_THREADS),
        inter_op_threads=_integer(config, "inter_op_thread_count", 0),
        is_parallel=_boolean(config, "execution_mode", default=False),
        graph_optimization=_GRAPH_OPTIMIZATION.get(level, "ORT_ENABLE_ALL"),
        uses_memory_arena=_boolean(config, "enable_mem_arena", default=True),
        uses_memory_pattern=_boolean(config, "enable_mem_pattern", default=True),
        requires_manifest=_boolean(config, "require_manifest", default=True),
    )


def _parameter(config: Mapping[str, Any], name: str) -> str | None:
    entry = config.get("parameters", {}).get(name)
    return None if entry is None else str(entry["string_value"]).strip()


def _integer(config: Mapping[str, Any], name: str, default: int) -> int:
    text = _parameter(config, name)
    if text is None:
        return default
    if not text.isdecimal():
        raise ValueError(f"parameter {name} must be a whole number from 0, found {text!r}")
    return int(text)


def _boolean(config: Mapping[str, Any], name: str, *, default: bool) -> bool:
    text = _parameter(config, name)
    if text is None:
        return default
    if text.lower() not in _BOOLEANS:
        raise ValueError(f"parameter {name} must be 0 or 1, found {text!r}")
    return _BOOLEANS[text.lower()]


def unsupported_features(config: Mapping[str, Any], instance_kind: str) -> list[str]:
    """Name what the config asks for and this backend would silently not do."""
    return list(_unsupported_features(config, instance_kind))


def _unsupported_features(config: Mapping[str, Any], instance_kind: str) -> Iterator[str]:
    if instance_kind == "GPU":
        yield "instance_group has kind KIND_GPU, this backend runs on the CPU only: use KIND_CPU"
    if config.get("model_transaction_policy", {}).get("decoupled"):
        yield "model_transaction_policy is decoupled, an ONNX graph answers a request exactly once"
    if "sequence_batching" in config:
        yield "sequence_batching is not implemented by this backend: it keeps no state"
    for feature in ("batch_input", "batch_output"):
        if config.get(feature):
            yield f"{feature} is not implemented by this backend"
    for tensor in (*config.get("input", ()), *config.get("output", ())):
        for feature in ("allow_ragged_batch", "is_shape_tensor"):
            if tensor.get(feature):
                yield f"{feature} of {tensor['name']!r} is not implemented by this backend"


def problem_with_numpy(version: str) -> str | None:
    """Say why this version of NumPy must not be used here; None when it may."""
    if int(version.split(".", 1)[0]) < 2:
        return None
    return (
        f"NumPy {version} is installed for Triton's Python backend, which was compiled for NumPy 1:"
        " it would hand over wrong numbers without an error. Install 'numpy<2' in that environment"
    )
