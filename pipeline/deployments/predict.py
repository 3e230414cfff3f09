"""Asks a deployment, through the same server as every other client.

Guarantees: all rows of one call are answered by one version, the one whose inputs and columns they
were brought into the form of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from pipeline.deployments.deployed import lineage_of, model_uri_of
from pipeline.deployments.inputs import request_tensors
from pipeline.errors import ModelError, RequestError, UnavailableError
from pipeline.flows.replicas import Replicas, open_replicas
from pipeline.model_config import check_name, config_from_json, tensor_specs
from pipeline.registries.mlflow_uris import MlflowModels, model_uri_from_text
from pipeline.samples import Array
from pipeline.settings import Settings
from pipeline.tensors import TensorSpec
from pipeline.triton import Answer, TritonClient

_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Served:
    """What a server says of a model; ``version`` is None if its config does not name one."""

    inputs: tuple[TensorSpec, ...]
    max_batch_size: int
    version: int | None


class Predictor:
    """Asks deployments; remembers the columns of each version."""

    def __init__(self) -> None:
        self._columns: dict[tuple[str, int], tuple[str, ...]] = {}

    def predict(self, name: str, inputs: Any, settings: Settings) -> dict[str, Array]:
        """The outputs for some rows, however many.

        Raises:
            RequestError: The inputs do not fit the model.
            UnavailableError: It is not served, or the server answers with an error.
        """
        with open_replicas(settings) as replicas:
            for _attempt in range(_ATTEMPTS):
                server, served = _first_that_serves(replicas, check_name(name))
                columns = partial(self._columns_of, name, served.version, settings)
                tensors = request_tensors(inputs, served.inputs, columns)
                answers = [
                    server.infer("http", name, batch)
                    for batch in batches(tensors, served.max_batch_size)
                ]
                if {a.version for a in answers} <= {served.version or answers[0].version}:
                    return _joined(answers)
        raise UnavailableError(
            f"{name!r} was changed each time while it was asked", hint="ask again"
        )

    def _columns_of(self, name: str, version: int | None, settings: Settings) -> tuple[str, ...]:
        if version is None:
            raise _unknown_columns(name)
        known = self._columns.get((name, version))
        if known is None:
            known = self._columns[name, version] = _logged_columns(name, version, settings)
        return known


def batches(tensors: Mapping[str, Array], largest: int) -> Iterator[dict[str, Array]]:
    """The rows in requests that the server takes; without batching, all at once."""
    rows = next(iter(tensors.values())).shape[0] if largest else 1
    for start in range(0, rows, largest or 1):
        stop = start + largest
        yield {n: array[start:stop] if largest else array for n, array in tensors.items()}


def _joined(answers: Sequence[Answer]) -> dict[str, Array]:
    if len(answers) == 1:
        return dict(answers[0].outputs)
    return {n: np.concatenate([a.outputs[n] for a in answers]) for n in answers[0].outputs}


def _first_that_serves(replicas: Replicas, name: str) -> tuple[TritonClient, _Served]:
    for server in replicas[:-1]:
        with suppress(UnavailableError):
            return server, _served(server, name)
    return replicas[-1], _served(replicas[-1], name)


def _served(server: TritonClient, name: str) -> _Served:
    document = server.config(name)
    try:
        config = config_from_json(document)
    except ValueError as error:
        raise UnavailableError(
            f"{name!r} is served with a config of another kind: {error}"
        ) from error
    versions = list(config.version_policy.specific.versions)
    return _Served(
        inputs=tensor_specs(config.input, config.max_batch_size),
        max_batch_size=config.max_batch_size,
        version=versions[0] if len(versions) == 1 else None,
    )


def _logged_columns(name: str, version: int, settings: Settings) -> tuple[str, ...]:
    lineage = lineage_of(name, version, settings)
    uri = "" if lineage is None else model_uri_of(lineage)
    if not uri:
        raise _unknown_columns(name)
    models = MlflowModels(settings.required("tracking_uri"))
    try:
        return models.describe(models.version_of(model_uri_from_text(uri), preferred=name)).columns
    except (RequestError, ModelError) as error:
        raise _unknown_columns(name) from error


def _unknown_columns(name: str) -> RequestError:
    return RequestError(
        f"the columns that {name!r} was trained on are not known here, so their order is not",
        hint="send an array with the columns in the order of training",
    )
