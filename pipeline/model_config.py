"""Triton's ``config.pbtxt``, made from and read into the typed messages of the Triton client.

Guarantees: the text parses back to the same message; the same model and options give the same
text; exactly one version is named, so that a new version folder is inert until this one object
changes.

Sources: Triton ``model_config.proto`` and ``docs/user_guide/model_configuration.md``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as pb

from pipeline.errors import RequestError
from pipeline.tensors import DYNAMIC, DataType, TensorSpec

CONFIG_NAME: Final = "config.pbtxt"
WARMUP_FOLDER: Final = "warmup"
"""Where Triton looks for warm-up data, in the folder of the model."""

_LEGAL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """How a model is served, apart from what it computes.

    Attributes:
        max_batch_size: Largest batch of the dynamic batcher; ignored for models without batching.
        preferred_batch_sizes: Batches of these sizes are run at once.
        max_queue_delay_microseconds: How long a request may wait for others.
        instances: Copies of the model per device.
        device: ``cpu`` or ``gpu``.
    """

    max_batch_size: int
    preferred_batch_sizes: tuple[int, ...]
    max_queue_delay_microseconds: int
    instances: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupInput:
    """Warm-up data of one input.

    Attributes:
        spec: Type and concrete shape of the data, batch dimension included.
        file: Where the data is, relative to the warm-up folder of the model.
    """

    spec: TensorSpec
    file: str


def check_name(name: str) -> str:
    """Return ``name`` if it can be a Triton model and a folder on S3.

    Raises:
        RequestError: It cannot: Triton's S3 client reads only these characters, and a name that
            begins with a dot or dash is taken for something else by other tools.
    """
    if _LEGAL_NAME.fullmatch(name):
        return name
    suggestion = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:200] or "model"
    raise RequestError(
        f"{name!r} cannot be the name of a Triton model: only letters, digits, '.', '_' and '-', "
        "beginning with a letter or digit, at most 200 characters",
        hint=f"serve it under another name: --name {suggestion}",
    )


def model_config(
    *,
    name: str,
    version: int,
    backend: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    is_batching: bool,
    options: ServingOptions,
    warmup: tuple[WarmupInput, ...],
) -> str:
    """The text of ``config.pbtxt``.

    Args:
        name: Triton model name.
        version: The only version served.
        backend: Triton backend.
        inputs: Inputs of the model, batch dimension included.
        outputs: Outputs of the model, batch dimension included.
        is_batching: Whether the first dimension of every tensor counts requests.
        options: How it is served.
        warmup: One row of data for each input; empty for no warm-up.
    """
    config = pb.ModelConfig(
        name=name,
        backend=backend,
        max_batch_size=options.max_batch_size if is_batching else 0,
        version_policy=pb.ModelVersionPolicy(
            specific=pb.ModelVersionPolicy.Specific(versions=[version])
        ),
    )
    config.input.extend(tensor_messages(pb.ModelInput, inputs, is_batching=is_batching))
    config.output.extend(tensor_messages(pb.ModelOutput, outputs, is_batching=is_batching))
    kind = (
        pb.ModelInstanceGroup.KIND_GPU
        if options.device == "gpu"
        else pb.ModelInstanceGroup.KIND_CPU
    )
    config.instance_group.add(kind=kind, count=options.instances)
    if is_batching:
        sizes = sorted(s for s in options.preferred_batch_sizes if s <= options.max_batch_size)
        config.dynamic_batching.preferred_batch_size.extend(sizes)
        config.dynamic_batching.max_queue_delay_microseconds = options.max_queue_delay_microseconds
    if warmup:
        config.model_warmup.append(_warmup(warmup, is_batching=is_batching))
    return text_format.MessageToString(config)


def tensor_messages(
    message: Any, specs: Iterable[TensorSpec], *, is_batching: bool
) -> Iterator[Any]:
    """Inputs or outputs as a config has them.

    Args:
        message: ``ModelInput`` or ``ModelOutput``.
        specs: Batch dimension included.
        is_batching: Whether the first dimension of every tensor counts requests.
    """
    return (_tensor(message, spec, is_batching=is_batching) for spec in specs)


def config_from_text(text: str) -> pb.ModelConfig:
    """Parse ``config.pbtxt``.

    Raises:
        ValueError: Not the text form of a model config.
    """
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(f"not a config.pbtxt: {error}") from error


def config_from_json(document: Any) -> pb.ModelConfig:
    """Parse the config that a server gives over HTTP; what newer servers add is passed over.

    Raises:
        ValueError: Not the JSON form of a model config.
    """
    try:
        return json_format.ParseDict(document, pb.ModelConfig(), ignore_unknown_fields=True)
    except (json_format.ParseError, AttributeError) as error:
        raise ValueError(f"not a model config: {error}") from error


def tensor_specs(
    tensors: Iterable[Any], max_batch_size: int, *, reshaped: bool = False
) -> tuple[TensorSpec, ...]:
    """Inputs or outputs of a config, those without a type left out.

    Args:
        tensors: The messages of the config.
        max_batch_size: Of the config; above 0, shapes begin with a batch dimension.
        reshaped: As the model sees them, after any reshape, instead of as clients do.
    """
    batch = (DYNAMIC,) if max_batch_size > 0 else ()
    return tuple(
        TensorSpec(
            name=tensor.name,
            data_type=DataType(pb.DataType.Name(tensor.data_type).removeprefix("TYPE_")),
            shape=(*batch, *(tensor.reshape.shape if has_reshape else tensor.dims)),
            optional=getattr(tensor, "optional", False),
        )
        for tensor in tensors
        if tensor.data_type != pb.TYPE_INVALID
        for has_reshape in [reshaped and tensor.HasField("reshape")]
    )


def with_versions(text: str, versions: Iterable[int]) -> str:
    """The same config with a policy that serves exactly these versions."""
    config = config_from_text(text)
    config.version_policy.Clear()
    config.version_policy.specific.versions.extend(sorted(versions))
    return str(text_format.MessageToString(config))


def served_versions(text: str) -> tuple[int, ...]:
    """The versions that a config names: one, or two while a release of several models switches."""
    return tuple(int(v) for v in config_from_text(text).version_policy.specific.versions)


def served_version(text: str) -> int | None:
    """The version that a config of ours names; None if it names none or several."""
    versions = served_versions(text)
    return versions[0] if len(versions) == 1 else None


def _tensor(message: Any, spec: TensorSpec, *, is_batching: bool) -> Any:
    shape = spec.shape[1:] if is_batching else spec.shape
    tensor = message(
        name=spec.name, data_type=pb.DataType.Value(spec.data_type.triton), dims=shape or (1,)
    )
    if is_batching and not shape:
        # Clients see [N, 1] and the model sees [N]; without batching, [1] stands for a scalar.
        tensor.reshape.SetInParent()
    if spec.optional and message is pb.ModelInput:
        tensor.optional = True
    return tensor


def _warmup(warmup: tuple[WarmupInput, ...], *, is_batching: bool) -> pb.ModelWarmup:
    sample = pb.ModelWarmup(name="input example", batch_size=1)
    for item in warmup:
        shape = item.spec.shape[1:] if is_batching else item.spec.shape
        sample.inputs[item.spec.name].CopyFrom(
            pb.ModelWarmup.Input(
                data_type=pb.DataType.Value(item.spec.data_type.triton),
                dims=shape or (1,),
                input_data_file=item.file,
            )
        )
    return sample
