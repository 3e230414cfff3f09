"""A model that takes texts becomes three entries that fit together, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from pipeline.artifacts import Export, OnnxModel, Preprocessing
from pipeline.backend_files import file_problems
from pipeline.ensemble_edges import edge_problems
from pipeline.ensembles import Step, steps_of
from pipeline.errors import RequestError
from pipeline.flows.text_entries import Made, text_entries
from pipeline.manifest import Lineage, differences
from pipeline.model_config import ServingOptions, config_from_text
from pipeline.samples import Samples
from pipeline.tensors import DataType, TensorSpec

OPTIONS = ServingOptions(
    max_batch_size=16,
    preferred_batch_sizes=(),
    max_queue_delay_microseconds=100,
    instances=2,
    device="gpu",
)
LINEAGE = Lineage(
    registered_model="letters",
    registered_version=4,
    run_id="r",
    source="models:/m-1",
    source_digest="sha256:s",
    flavor="transformers",
)
TOKENS = ("input_ids", "attention_mask", "start")
SAMPLES = Samples(
    inputs={"text": np.array([["a"], ["b c"]], dtype=object)},
    outputs={
        "input_ids": np.array([[2, 5, 3, 0, 0], [2, 6, 7, 3, 0]]),
        "attention_mask": np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]),
        "start": np.array([[0, 0, 0, 0, 0], [0, 0, 2, 0, 0]]),
        "label": np.array([["", "x", "", "", ""], ["", "y", "x", "", ""]], dtype=object),
    },
)


def tokens(*names: str) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=n, data_type=DataType.INT64, shape=(-1, -1)) for n in names)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., tuple[Made, ...]]:
    for name in ("onnx", "step"):
        (tmp_path / name).mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"graph")
    (tmp_path / "step" / "tokenizer.json").write_text("{}")
    (tmp_path / "step" / "step.json").write_text("{}")

    def build(name: str = "letters", lineage: Lineage = LINEAGE) -> tuple[Made, ...]:
        step = Preprocessing(
            path=tmp_path / "step",
            inputs=(TensorSpec(name="text", data_type=DataType.STRING, shape=(-1, 1)),),
            outputs=tokens(*TOKENS),
            handed_on=("start",),
            paddings=dict.fromkeys(TOKENS, 0),
            pads_left=False,
            tools={"tokenizers": "1"},
        )
        onnx = OnnxModel(
            path=tmp_path / "onnx",
            opset=20,
            inputs=tokens("input_ids", "attention_mask"),
            outputs=(TensorSpec(name="label", data_type=DataType.STRING, shape=(-1, -1)),),
            digest="sha256:o",
            source_digest="sha256:s",
            flavor="transformers",
            tools={"onnx": "1"},
        )
        export = Export(onnx=onnx, samples=tmp_path / "s", samples_origin="", preprocessing=step)
        folder = tmp_path / f"entries-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        return text_entries(
            export, step, SAMPLES, name=name, lineage=lineage, options=OPTIONS, folder=folder
        )

    return build


def configs(entries: tuple[Made, ...]) -> dict[str, str]:
    return {one.entry.manifest.model: one.entry.config for one in entries}


def test_the_parts_are_named_after_the_model_and_carry_its_version(
    made: Callable[..., tuple[Made, ...]],
) -> None:
    manifests = [one.entry.manifest for one in made()]
    assert [m.model for m in manifests] == ["letters.tokenizer", "letters.network", "letters"]
    assert {(m.version, m.lineage) for m in manifests} == {(4, LINEAGE)}
    for one in made():
        assert differences(one.entry.folder, one.entry.manifest) == []


def test_triton_could_serve_the_ensemble_of_these_steps(
    made: Callable[..., tuple[Made, ...]],
) -> None:
    entries = made()
    found = configs(entries)
    assert edge_problems(found["letters"], found) == []
    assert steps_of(found["letters"]) == (
        Step(model="letters.tokenizer", version=4),
        Step(model="letters.network", version=4),
    )


def test_configs_stay_as_they_are(
    made: Callable[..., tuple[Made, ...]], golden: Callable[[str, str], None]
) -> None:
    """But for the digests of the parts, which change with our own code."""
    found = configs(made())
    ensemble = config_from_text(found["letters"])
    for part in ("letters.tokenizer", "letters.network"):
        digest = next(o.entry.manifest.digest for o in made() if o.entry.manifest.model == part)
        assert ensemble.parameters[part].string_value == digest
        ensemble.parameters[part].string_value = "sha256:…"
    golden("text-ensemble.config.pbtxt", text_format.MessageToString(ensemble))
    golden("text-tokenizer.config.pbtxt", found["letters.tokenizer"])


def test_what_runs_in_the_server_is_in_the_version_and_its_manifest(
    made: Callable[..., tuple[Made, ...]],
) -> None:
    entry = made()[0].entry
    assert [file.path for file in entry.manifest.files] == [
        "model.py",
        "step.json",
        "tokenizer.json",
        "tritonpipe_manifest.py",
        "tritonpipe_texts.py",
    ]
    config = config_from_text(entry.config)
    folder = entry.folder.rename(entry.folder.with_name("4"))
    assert file_problems(config, folder, tokens(), tokens()) == []
    assert [group.kind for group in config.instance_group] == [2]  # the CPU, whatever is wished


def test_each_entry_is_proven_by_its_own_share_of_the_answers(
    made: Callable[..., tuple[Made, ...]],
) -> None:
    tokenizer, network, ensemble = (one.golden for one in made())
    assert (list(tokenizer.inputs), set(tokenizer.outputs)) == (["text"], set(TOKENS))
    assert (set(network.inputs), list(network.outputs)) == (set(TOKENS[:2]), ["label"])
    assert (list(ensemble.inputs), set(ensemble.outputs)) == (["text"], {"label", "start"})
    # As wide as the longest text of the request, which is what the server answers.
    widths = {a.shape[1] for g in (tokenizer, network, ensemble) for a in g.outputs.values()}
    assert widths == {4}


def test_the_same_export_gives_the_same_digests_and_any_change_others(
    made: Callable[..., tuple[Made, ...]], tmp_path: Path
) -> None:
    def digests() -> list[str]:
        return [one.entry.manifest.digest for one in made()]

    before = digests()
    assert digests() == before
    (tmp_path / "step" / "tokenizer.json").write_text('{"other": 1}')
    tokenizer, network, ensemble = digests()
    assert (tokenizer != before[0], network == before[1], ensemble != before[2]) == (True,) * 3


def test_a_name_that_leaves_no_place_for_parts_is_refused(
    made: Callable[..., tuple[Made, ...]],
) -> None:
    with pytest.raises(RequestError, match=r"\.tokenizer"):
        made("n" * 195)
    assert made("n" * 190, replace(LINEAGE, registered_model="n"))
