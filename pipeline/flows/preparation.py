"""The part of a promotion before anything is written: fetch, export, check, configure.

Guarantees: what comes out of it has passed every check; nothing outside a temporary folder is
written, but a failing case where the settings say so and the export cache.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from pipeline.artifacts import (
    Export,
    ModelVersion,
    PublishPlan,
    Release,
    Report,
)
from pipeline.backends.onnxruntime import OnnxruntimeBackend
from pipeline.backends.packed import PackedBackend
from pipeline.checks.tolerances import NAMES as TOLERANCES
from pipeline.checks.tolerances import Tolerances
from pipeline.flows.exports import checked, made_export
from pipeline.flows.isolation import Mode
from pipeline.flows.parts import refuse_other_parts
from pipeline.flows.progress import Progress
from pipeline.flows.publication import Candidate
from pipeline.flows.publish import RepositoryState, plan_publication, read_state
from pipeline.flows.servers import Servers
from pipeline.flows.serving_options import serving_options
from pipeline.flows.text_entries import Made, text_entries
from pipeline.flows.worker import Limits
from pipeline.manifest import Lineage
from pipeline.model_config import ServingOptions, config_from_text
from pipeline.packed_models import PackedExport, served_of
from pipeline.samples import Samples, load_samples
from pipeline.settings import Settings
from pipeline.signing.choice import chosen_signer
from pipeline.signing.sign import Signer

GOLDEN_ROWS = 16
"""Rows of the input example that are kept with a release."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A version that passed its checks and is ready to be published.

    Attributes:
        candidate: What clients ask.
        plan: What publishing it will do, with its parts.
        report: How it was checked.
        parts: What is served together with it, in the order in which requests pass through.
    """

    candidate: Candidate
    plan: PublishPlan
    report: Report
    parts: tuple[Candidate, ...] = ()


@contextmanager
def prepare(
    servers: Servers,
    version: ModelVersion,
    state: RepositoryState,
    settings: Settings,
    progress: Progress,
) -> Iterator[Prepared]:
    """Fetch, export, check and configure in a temporary folder that lives as long as the body.

    Args:
        servers: Where the model is fetched, and what is published.
        version: What to prepare.
        state: What the store holds of its Triton model.
        settings: Those that hold for this version, with the tags of its author.
        progress: Told the stages.
    """
    signer = chosen_signer(settings)  # a key that cannot be used is told before the export
    tolerances = Tolerances(**settings.explicit(*TOLERANCES))
    with tempfile.TemporaryDirectory(prefix="tritonpipe-") as folder:
        work = Path(folder)
        with progress("fetch") as describe:
            source = servers.registry.fetch(version, work / "source")
            describe(f"{source.digest[:19]}, flavors {', '.join(source.flavors)}")
        limits = Limits(seconds=settings.export_seconds, isolation=Mode(settings.isolation))
        export = made_export(source, work, limits, settings, progress)
        with progress("check") as describe:
            report = checked(
                export,
                work / "cases",
                version=version,
                tolerances=tolerances,
                max_batch_size=settings.max_batch_size,
                limits=limits,
                settings=settings,
            )
            describe(
                f"{len(report.comparisons)} comparisons agree, "
                f"largest difference {report.max_absolute_error:.1e}, on {report.samples_origin}"
                + _told_tolerances(tolerances)
                + "".join(f"; not compared: {told}" for told in report.left_out)
            )
        with progress("configure") as describe:
            prepared = _configure(
                servers, version, state, settings, signer, export, report, work / "entry"
            )
            describe(_describe_entries(prepared))
        yield prepared


def _configure(
    servers: Servers,
    version: ModelVersion,
    state: RepositoryState,
    settings: Settings,
    signer: Signer | None,
    export: Export | PackedExport,
    report: Report,
    folder: Path,
) -> Prepared:
    samples = load_samples(export.samples)
    lineage = Lineage(
        registered_model=version.name,
        registered_version=version.version,
        run_id=version.run_id,
        source=version.source,
        source_digest=served_of(export).source_digest,
        flavor=served_of(export).flavor,
    )
    folder.mkdir()
    *parts, main = [
        _Planned.of(servers, made, report, signer)
        for made in _entries(
            export,
            samples,
            name=state.model,
            lineage=lineage,
            options=serving_options(settings),
            folder=folder,
        )
    ]
    refuse_other_parts(servers, state, version, [part.candidate for part in parts])
    return Prepared(
        candidate=main.candidate,
        plan=replace(main.plan, parts=tuple(part.plan for part in parts)),
        report=report,
        parts=tuple(part.candidate for part in parts),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Planned:
    """One entry as a candidate, and what publishing it will do."""

    candidate: Candidate
    plan: PublishPlan

    @classmethod
    def of(cls, servers: Servers, made: Made, report: Report, signer: Signer | None) -> Self:
        entry = made.entry
        if signer is not None:
            signer.sign(entry.folder, entry.manifest)
        release = Release(
            manifest=entry.manifest,
            config=entry.config,
            relative_tolerance=report.relative_tolerance,
            absolute_tolerance=report.absolute_tolerance,
        )
        state = read_state(servers.repository, entry.manifest.model)
        return cls(
            candidate=Candidate(release=release, golden=made.golden, entry=entry),
            plan=plan_publication(servers.repository, state, entry),
        )


def _entries(
    export: Export | PackedExport,
    samples: Samples,
    *,
    name: str,
    lineage: Lineage,
    options: ServingOptions,
    folder: Path,
) -> tuple[Made, ...]:
    """The entries of an export: here its kind decides which backends serve it.

    What clients ask comes last, its parts before it. The golden answers are one request.
    """
    is_batching = served_of(export).is_batching
    golden = samples.head(min(GOLDEN_ROWS, options.max_batch_size)) if is_batching else samples
    if isinstance(export, PackedExport):
        entry = PackedBackend().entry(
            export.packed, name=name, lineage=lineage, options=options, folder=folder
        )
        return (Made(entry=entry, golden=golden),)
    if export.preprocessing is not None:
        return text_entries(
            export,
            export.preprocessing,
            golden,
            name=name,
            lineage=lineage,
            options=options,
            folder=folder,
        )
    entry = OnnxruntimeBackend().entry(
        export.onnx, samples, name=name, lineage=lineage, options=options, folder=folder
    )
    return (Made(entry=entry, golden=golden),)


def _describe_entries(prepared: Prepared) -> str:
    """Which backends serve it, and how much of it there is."""
    candidates = (*prepared.parts, prepared.candidate)
    configs = [config_from_text(one.release.config) for one in candidates]
    files = sum(len(one.release.manifest.files) for one in candidates)
    backends = ", ".join(config.backend or config.platform for config in configs)
    signed = ", signed" if prepared.plan.signed else ""
    return f"backend{'s' if prepared.parts else ''} {backends}, {files} files{signed}"


def _told_tolerances(tolerances: Tolerances) -> str:
    """What the settings or the tags of the version say instead of the defaults; else nothing."""
    told = [
        f"{name.replace('_', ' ')} {value:g}"
        for name in TOLERANCES
        if (value := getattr(tolerances, name)) != getattr(Tolerances(), name)
    ]
    return f"; with {', '.join(told)} by settings or tags" if told else ""
