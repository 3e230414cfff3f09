"""The three entries of a model that takes texts: tokenizer, network, and both as one ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts import Export, Preprocessing, RepositoryEntry
from pipeline.backends.ensemble import EnsembleBackend
from pipeline.backends.onnxruntime import OnnxruntimeBackend
from pipeline.backends.tokenizer import TokenizerBackend
from pipeline.flows.parts import NETWORK, TOKENIZER, part_name
from pipeline.manifest import Lineage
from pipeline.model_config import ServingOptions
from pipeline.samples import Array, Samples
from pipeline.token_axes import token_axes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Made:
    """An entry, and the answers that prove it."""

    entry: RepositoryEntry
    golden: Samples


def text_entries(
    export: Export,
    preprocessing: Preprocessing,
    samples: Samples,
    *,
    name: str,
    lineage: Lineage,
    options: ServingOptions,
    folder: Path,
) -> tuple[Made, ...]:
    """Steps first, what clients ask last; each in a folder of its own below ``folder``.

    Args:
        export: The network.
        preprocessing: The step in front of it.
        samples: Texts, tokens and answers; at most one batch.
        name: What clients ask.
        lineage: Where it comes from.
        options: How it is served.
        folder: An empty folder.
    """
    onnx = export.onnx
    samples = token_axes(preprocessing, onnx).trimmed(samples)
    places = [folder / part for part in (TOKENIZER, NETWORK, "ensemble")]
    for place in places:
        place.mkdir()
    tokens = tuple(spec.name for spec in preprocessing.outputs)
    taken = tuple(spec.name for spec in onnx.inputs)
    given = tuple(spec.name for spec in onnx.outputs)
    network_samples = Samples(
        inputs=_chosen(samples.outputs, taken), outputs=_chosen(samples.outputs, given)
    )
    tokenizer = TokenizerBackend().entry(
        preprocessing,
        name=part_name(name, TOKENIZER),
        lineage=lineage,
        options=options,
        folder=places[0],
    )
    network = OnnxruntimeBackend().entry(
        onnx,
        network_samples,
        name=part_name(name, NETWORK),
        lineage=lineage,
        options=options,
        folder=places[1],
    )
    handed_on = [spec for spec in preprocessing.outputs if spec.name in preprocessing.handed_on]
    ensemble = EnsembleBackend().entry(
        [tokenizer, network],
        inputs=preprocessing.inputs,
        outputs=(*onnx.outputs, *handed_on),
        name=name,
        lineage=lineage,
        options=options,
        folder=places[2],
    )
    answers = _chosen(samples.outputs, (*given, *preprocessing.handed_on))
    return (
        Made(
            entry=tokenizer,
            golden=Samples(inputs=samples.inputs, outputs=_chosen(samples.outputs, tokens)),
        ),
        Made(entry=network, golden=network_samples),
        Made(entry=ensemble, golden=Samples(inputs=samples.inputs, outputs=answers)),
    )


def _chosen(arrays: Mapping[str, Array], names: tuple[str, ...]) -> dict[str, Array]:
    return {name: arrays[name] for name in names}
