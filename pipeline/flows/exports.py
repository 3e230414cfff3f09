"""What shall be served in the place of a model: a graph, or where that is allowed, its own code.

Guarantees: a graph is made wherever there is an exporter that can; the model's own code is packed
only if the settings allow it for this version, and then it is told why there is no graph.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.artifacts import Export, ModelVersion, Report, SourceModel
from pipeline.checks.tolerances import Tolerances
from pipeline.errors import ModelError
from pipeline.exporters.logged import expect_inputs_logged
from pipeline.flows.export_cache import open_cache
from pipeline.flows.inner_process import ModelPackages
from pipeline.flows.model_packages import OURS, model_packages
from pipeline.flows.packing import (
    check_packed_in_child,
    may_be_packed,
    pack_in_child,
    packages_of,
    with_how_to_allow,
)
from pipeline.flows.progress import Progress
from pipeline.flows.refusal import refused
from pipeline.flows.worker import Limits, check_in_child, choose_exporter, export_in_child
from pipeline.packed_models import PackedExport
from pipeline.plugins import kinds
from pipeline.settings import Settings
from pipeline.tensors import ServedTensors


def made_export(
    source: SourceModel, work: Path, limits: Limits, settings: Settings, progress: Progress
) -> Export | PackedExport:
    """The export of a model, in folders of its own below ``work``.

    Raises:
        ModelError: The model cannot be exported as it was logged; nor packed, where that is
            allowed.
        DependencyError: A package that is needed for it is not installed.
        UnavailableError: The index of packages does not answer.
    """
    (work / "export").mkdir()
    own = _own_packages(source, settings, progress)
    with progress("export") as describe:
        try:
            export, was_there = _graph(source, work / "export", limits, settings, own)
        except ModelError as error:
            if not may_be_packed(source, settings):
                raise with_how_to_allow(error, source) from error
            expect_inputs_logged(source)
            describe(f"none, so its own Python code is served: {error.message}")
        else:
            told = f"opset {export.onnx.opset}, {_described(export.onnx)}"
            describe(told + (", made before" if was_there else ""))
            return export
    packages = packages_of(source, settings, progress)
    (work / "packed").mkdir()
    with progress("pack") as describe:
        packed = pack_in_child(source, packages, work / "packed", settings=settings, limits=limits)
        describe(_described(packed.packed))
    return packed


def checked(
    export: Export | PackedExport,
    cases: Path,
    *,
    version: ModelVersion,
    tolerances: Tolerances,
    max_batch_size: int,
    limits: Limits,
    settings: Settings,
) -> Report:
    """The findings on an export with which there is nothing wrong.

    Args:
        export: What shall be served.
        cases: Where to put inputs on which it fails; does not exist yet.
        version: What it was made of.
        tolerances: How far its answers may be away.
        max_batch_size: The largest batch that the server forms.
        limits: What the child may use.
        settings: Where to keep what was refused.

    Raises:
        RefusedError: It disagrees with the model's own predictions.
        ModelError: Running it ended the child.
    """
    cases.mkdir()
    if isinstance(export, PackedExport):
        report = check_packed_in_child(
            export, cases=cases, tolerances=tolerances, max_batch_size=max_batch_size, limits=limits
        )
    else:
        report = check_in_child(
            export, cases=cases, tolerances=tolerances, max_batch_size=max_batch_size, limits=limits
        )
    if not report.ok:
        raise refused(report, export, cases, version=version, folder=settings.refusals)
    return report


def _own_packages(
    source: SourceModel, settings: Settings, progress: Progress
) -> ModelPackages | None:
    """The packages of the model to export it with, if that is wished and there is an exporter."""
    if settings.env == OURS or not kinds("exporters").keys() & set(source.flavors):
        return None
    return model_packages(source, choose_exporter(source), settings, progress)


def _graph(
    source: SourceModel,
    folder: Path,
    limits: Limits,
    settings: Settings,
    packages: ModelPackages | None,
) -> tuple[Export, bool]:
    """The exported graph, and whether it was made before."""

    def make() -> Export:
        return export_in_child(source, folder, limits=limits, packages=packages)

    cache = open_cache(settings)
    if cache is None:
        return make(), False
    exporter = choose_exporter(source)
    used = exporter if packages is None else f"{exporter} in {packages.key}"
    return cache.export(source, used, folder, make)


def _described(served: ServedTensors) -> str:
    inputs = ", ".join(str(spec) for spec in served.inputs[:4])
    more = len(served.inputs) - 4
    return inputs + (f" and {more} more" if more > 0 else "")
