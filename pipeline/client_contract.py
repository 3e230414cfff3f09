"""What a new version asks of clients that the one before it did not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.model_config import config_from_text, tensor_specs
from pipeline.tensors import DYNAMIC, TensorSpec


def changes_for_clients(before: str, after: str) -> tuple[str, ...]:
    """What clients that were written for one config must change for another, in words.

    Nothing where every request that was right stays right and every answer has the types and
    shapes that it had: an input more that may be left out, a free dimension that was fixed, an
    output more.

    Args:
        before: Text of the ``config.pbtxt`` that is served.
        after: Text of the one that will be.

    Raises:
        ValueError: A text is no ``config.pbtxt``.
    """
    old, new = config_from_text(before), config_from_text(after)
    inputs = _specs(old.input, old), _specs(new.input, new)
    return (
        *_inputs(*inputs),
        *_outputs(_specs(old.output, old), _specs(new.output, new)),
        *_rows(old.max_batch_size, new.max_batch_size, *inputs),
    )


def _inputs(old: dict[str, TensorSpec], new: dict[str, TensorSpec]) -> Iterator[str]:
    for name, spec in new.items():
        was = old.get(name)
        if was is None and not spec.optional:
            yield f"clients must now send {spec}"
        elif was is not None and not _takes(spec, was):
            yield f"clients must now send {spec} instead of {_form(was)}"
        elif was is not None and was.optional and not spec.optional:
            yield f"clients may no longer leave out {spec}"
    for name, spec in old.items():
        if name not in new:
            yield f"clients must no longer send {spec}"


def _outputs(old: dict[str, TensorSpec], new: dict[str, TensorSpec]) -> Iterator[str]:
    for name, was in old.items():
        spec = new.get(name)
        if spec is None:
            yield f"clients no longer get {was}"
        elif not _takes(was, spec):
            yield f"clients now get {spec} instead of {_form(was)}"


def _rows(
    before: int, most: int, old: dict[str, TensorSpec], new: dict[str, TensorSpec]
) -> Iterator[str]:
    """How many rows a request may have now; a config without batching limits them by its shapes."""
    if most == 0:
        return
    alone = [
        was.shape[0]
        for name, was in old.items()
        if was.shape and name in new and _takes(new[name], was)
    ]
    rows = [before] if before else alone
    if DYNAMIC in rows or max(rows, default=0) > most:
        limit = "any number" if DYNAMIC in rows else max(rows)
        yield f"clients must now send at most {most} rows in a request instead of {limit}"


def _specs(tensors: Sequence[Any], config: Any) -> dict[str, TensorSpec]:
    return {spec.name: spec for spec in tensor_specs(tensors, config.max_batch_size)}


def _takes(wide: TensorSpec, narrow: TensorSpec) -> bool:
    """Whether every tensor of the narrow kind is one of the wide kind."""
    return (
        wide.data_type is narrow.data_type
        and len(wide.shape) == len(narrow.shape)
        and all(w in {DYNAMIC, n} for w, n in zip(wide.shape, narrow.shape, strict=True))
    )


def _form(spec: TensorSpec) -> str:
    return str(spec).removeprefix(f"{spec.name}: ")
