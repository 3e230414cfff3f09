"""What a packed model takes and answers; written when it is packed, read wherever it is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

FILE: Final = "contract.json"
FRAME: Final = "frame"
ARRAY: Final = "array"
ARRAYS: Final = "arrays"
FORMS: Final = (FRAME, ARRAY, ARRAYS)


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input or output.

    Attributes:
        name: As clients send it; the name of the column of a DataFrame.
        dtype: Name of the NumPy type, ``object`` for text.
        shape: The whole shape; -1 for a free dimension.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Contract:
    """How to ask a model, and how long it may take.

    Attributes:
        form: What ``predict`` is given: a DataFrame, one array, or a dict of arrays.
        inputs: In order.
        outputs: In order.
        is_batching: Whether the first dimension of all of them counts rows that do not depend on
            each other, so that requests may be put together.
        python: Minor version of the Python that the environment is for.
        machine: The processor that it is for, such as ``x86_64``.
        environment_sha256: Of the archive with the packages.
        load_seconds: For unpacking, loading and one answer.
        request_seconds: For an answer.
    """

    form: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    is_batching: bool
    python: str
    machine: str
    environment_sha256: str
    load_seconds: float
    request_seconds: float

    def to_bytes(self) -> bytes:
        """Equal contracts give equal bytes."""
        return (json.dumps(asdict(self), sort_keys=True, indent=1) + "\n").encode()


def contract_from_bytes(data: bytes) -> Contract:
    """Read what :meth:`Contract.to_bytes` wrote.

    Raises:
        ValueError: It is none.
    """
    try:
        document: dict[str, Any] = json.loads(data)
        if document["form"] not in FORMS:
            raise ValueError(f"unknown form {document['form']!r}")
        tensors = {
            kind: tuple(_tensor(item) for item in document[kind]) for kind in ("inputs", "outputs")
        }
        return Contract(**{**document, **tensors})
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a contract: {error}") from error


def _tensor(item: Mapping[str, Any]) -> Tensor:
    return Tensor(name=item["name"], dtype=item["dtype"], shape=tuple(item["shape"]))
