"""The laws of :class:`pipeline.exporters.Exporter`, as a suite that every exporter's tests inherit.

::

    class TestMyFlavor(ExporterContract):
        exporter = MyExporter

        @pytest.fixture(scope="class")
        @classmethod
        def source(cls, tmp_path_factory):
            folder = tmp_path_factory.mktemp("logged") / "model"
            mlflow.my_flavor.save_model(..., path=folder, signature=..., input_example=...)
            return source_from_folder(folder)

The exporter must be installed under its entry point, because one law runs it in a child process.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
import yaml

from pipeline.artifacts import Export, ModelVersion, SourceModel
from pipeline.checks.gate import check_export
from pipeline.exporters import Exported, Exporter
from pipeline.exporters.answers import keep_answers
from pipeline.flows.worker import Limits, choose_exporter, export_in_child
from pipeline.manifest import digest_folder, digest_of_files
from pipeline.onnx_graph import load_graph, tensor_specs
from pipeline.samples import load_samples
from pipeline.tensors import DYNAMIC, DataType


def source_from_folder(folder: Path, *, name: str = "model") -> SourceModel:
    """A saved model as if it had been fetched from a registry as version 1."""
    document = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    return SourceModel(
        version=ModelVersion(name=name, version=1, run_id=None, source=str(folder), tags={}),
        path=folder,
        flavors=tuple(document["flavors"]),
        digest=digest_of_files(digest_folder(folder)),
    )


def export_here(exporter: Exporter, source: SourceModel, destination: Path) -> Export:
    """What the child process does, in this one."""
    return keep_answers(exporter.export(source, destination), source, destination)


class ExporterContract:
    """Inherit, set ``exporter`` and override ``source``."""

    exporter: ClassVar[type[Exporter]]

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
        """A model that the exporter can export."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def beside(cls, source: SourceModel, tmp_path_factory: pytest.TempPathFactory) -> Exported:
        """The model, exported in this process into an empty folder, with the original at hand."""
        return cls.exporter().export(source, tmp_path_factory.mktemp("exported"))

    @pytest.fixture(scope="class")
    @classmethod
    def exported(cls, source: SourceModel, beside: Exported) -> Export:
        """The same with the original's answers in files."""
        return keep_answers(beside, source, beside.onnx.path.parent)

    def test_the_flavor_is_chosen_for_the_model(self, source: SourceModel) -> None:
        """The entry point has the name of the flavor."""
        assert choose_exporter(source) == self.exporter.flavor

    def test_the_result_describes_the_graph(self, source: SourceModel, exported: Export) -> None:
        """Names, types, operator set and digests are those of the file."""
        graph = load_graph(exported.onnx.file)
        opsets = {opset.domain: opset.version for opset in graph.opset_import}
        assert (exported.onnx.inputs, exported.onnx.outputs) == tensor_specs(graph)
        assert exported.onnx.opset == opsets[""]
        assert exported.onnx.digest == digest_of_files(digest_folder(exported.onnx.path))
        assert exported.onnx.source_digest == source.digest
        assert exported.onnx.flavor == self.exporter.flavor
        assert exported.onnx.tools

    def test_the_graph_is_valid_and_of_tensors_only(self, exported: Export) -> None:
        """Triton carries no sequences and no maps."""
        onnx.checker.check_model(str(exported.onnx.file))
        graph = load_graph(exported.onnx.file).graph
        assert all(v.type.HasField("tensor_type") for v in (*graph.input, *graph.output))

    def test_samples_fit_the_graph(self, exported: Export) -> None:
        """One array per tensor, with its name, type and shape; those of a step before it, too."""
        samples = load_samples(exported.samples)
        step = exported.preprocessing
        inputs = exported.onnx.inputs if step is None else step.inputs
        outputs = (*exported.onnx.outputs, *(() if step is None else step.outputs))
        required = {spec.name for spec in inputs if not spec.optional}
        assert required <= set(samples.inputs) <= {spec.name for spec in inputs}
        assert set(samples.outputs) == {spec.name for spec in outputs}
        if step is not None:
            assert {spec.name for spec in exported.onnx.inputs} <= {s.name for s in step.outputs}
        arrays = {**samples.inputs, **samples.outputs}
        for spec in (*inputs, *outputs):
            if spec.name not in arrays:
                continue
            array = arrays[spec.name]
            assert DataType.from_numpy(str(array.dtype).replace("object", "str")) is spec.data_type
            assert array.ndim == len(spec.shape)
            assert all(
                size in (DYNAMIC, n) for size, n in zip(spec.shape, array.shape, strict=True)
            )
        assert exported.samples_origin

    def test_the_original_answers_the_same_again(self, beside: Exported, exported: Export) -> None:
        """Asking changes nothing; otherwise nothing could be compared."""
        again, kept = beside.ask(beside.example), load_samples(exported.samples)
        assert list(again.inputs) == list(kept.inputs)
        assert list(again.outputs) == list(kept.outputs)
        for name, array in kept.outputs.items():
            np.testing.assert_array_equal(again.outputs[name], array)

    def test_the_original_is_asked_more_than_its_example(self, exported: Export) -> None:
        """A few rows are no proof; what it refused is told."""
        example = load_samples(exported.samples)
        assert exported.probes
        for probe in exported.probes:
            samples = load_samples(probe.samples)
            assert probe.origin
            for ours, theirs in (
                (samples.inputs, example.inputs),
                (samples.outputs, example.outputs),
            ):
                assert {n: a.dtype for n, a in ours.items()} == {
                    n: a.dtype for n, a in theirs.items()
                }

    def test_onnx_runtime_agrees_with_the_source(self, exported: Export) -> None:
        """On everything that it was asked, at every batch size that the check tries."""
        report = check_export(exported)
        assert report.ok, report.problems

    def test_nothing_is_written_outside_of_the_destination(
        self, source: SourceModel, exported: Export
    ) -> None:
        """Neither into the fetched model nor beside the results."""
        destination = exported.onnx.path.parent
        assert digest_of_files(digest_folder(source.path)) == source.digest
        assert exported.samples.is_relative_to(destination)
        inside = {path for path in destination.rglob("*") if path.is_file()}
        named = {path for file in exported.files for path in (file, *file.rglob("*"))}
        assert inside == {path for path in named if path.is_file()}

    def test_exporting_again_gives_the_same_digest(
        self, source: SourceModel, exported: Export, tmp_path: Path
    ) -> None:
        """A digest that changes by itself would release the same model twice."""
        again = export_here(self.exporter(), source, tmp_path)
        assert again.onnx.digest == exported.onnx.digest
        assert _step_digest(again) == _step_digest(exported)
        assert again.samples.read_bytes() == exported.samples.read_bytes()
        assert [p.origin for p in again.probes] == [p.origin for p in exported.probes]

    def test_a_child_process_gives_the_same_digest(
        self, source: SourceModel, exported: Export, tmp_path: Path
    ) -> None:
        """The way in which a promotion runs it."""
        again = export_in_child(source, tmp_path, limits=Limits(seconds=240))
        assert again.onnx.digest == exported.onnx.digest
        assert _step_digest(again) == _step_digest(exported)
        assert again.samples.read_bytes() == exported.samples.read_bytes()
        for ours, theirs in zip(again.probes, exported.probes, strict=True):
            assert ours.origin == theirs.origin
            inputs = load_samples(theirs.samples).inputs
            for name, array in load_samples(ours.samples).inputs.items():
                np.testing.assert_array_equal(array, inputs[name])


def _step_digest(export: Export) -> str:
    step = export.preprocessing
    return "" if step is None else digest_of_files(digest_folder(step.path))
