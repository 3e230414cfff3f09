"""One promotion, from the wish in the registry to a confirmed release."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts import (
    Export,
    ModelVersion,
    PromotionRequest,
    PromotionResult,
    PublishPlan,
    Release,
    Report,
    SourceModel,
)
from pipeline.backends.onnxruntime import OnnxruntimeBackend
from pipeline.checks.tolerances import NAMES as TOLERANCES
from pipeline.checks.tolerances import Tolerances, chosen_tolerances
from pipeline.errors import RefusedError
from pipeline.flows.export_cache import open_cache
from pipeline.flows.isolation import Mode
from pipeline.flows.journal import PROMOTE
from pipeline.flows.progress import Progress, Stopwatch, silent
from pipeline.flows.publication import Candidate, publish_and_serve
from pipeline.flows.publish import RepositoryState, plan_publication, read_state
from pipeline.flows.record import record_promotion, record_refusal
from pipeline.flows.refusal import refused
from pipeline.flows.release import refuse_other_model, refuse_unsigned, reusable_release
from pipeline.flows.replicas import require_live
from pipeline.flows.serve import Served, proof_of_served
from pipeline.flows.servers import Servers, open_servers
from pipeline.flows.worker import Limits, check_in_child, choose_exporter, export_in_child
from pipeline.manifest import Lineage
from pipeline.model_config import ServingOptions, check_name
from pipeline.samples import Samples, load_samples
from pipeline.settings import Settings
from pipeline.signing.choice import chosen_signer
from pipeline.signing.sign import Signer

GOLDEN_ROWS = 16
"""Rows of the input example that are kept with a release."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A version that passed its checks and is ready to be published."""

    candidate: Candidate
    plan: PublishPlan
    report: Report


def promote(
    request: PromotionRequest, settings: Settings, *, progress: Progress = silent
) -> PromotionResult:
    """Serve what the registry wishes, and prove it.

    A version that was served before is served again from its release, without a new export.
    Running it twice does nothing the second time but confirm and record.

    Guarantees: until the new version has proven itself, a failure leaves or restores what was
    served before. After that only the record can fail, and the error says so.

    Raises:
        RequestError: No such model, version or alias, or the name is not legal.
        ModelError: The model cannot be fetched or exported.
        RefusedError: The export disagrees with the model's own predictions.
        ConflictError: The version was published from other bytes, or somebody else publishes
            this model.
        ConfirmationError: The live server did not confirm; the previous version was restored.
        SettingsError: An address or credential is wrong.
        UnavailableError: A server does not answer.
    """
    watch = Stopwatch(progress)
    name = check_name(request.triton_name or request.model)
    with open_servers(settings) as servers, ExitStack() as stack:
        require_live(servers.replicas)
        version, state, reusable = _resolve(servers, request, name, settings, watch)
        report: Report | None = None
        served: Served | None = None
        if reusable is not None:
            release, golden = reusable
            seconds = settings.confirm_seconds
            served = proof_of_served(
                servers, state, release, golden, seconds=seconds, progress=watch
            )
            candidate = Candidate(release=release, golden=golden, entry=None)
        else:
            try:
                prepared = stack.enter_context(prepare(servers, version, state, settings, watch))
            except RefusedError as error:
                record_refusal(servers.registry, version, error)
                raise
            candidate, report = prepared.candidate, prepared.report
        if served is None:
            served = publish_and_serve(
                servers, candidate, state, action=PROMOTE, settings=settings, progress=watch
            )
        result = PromotionResult(
            outcome="promoted" if served.is_new else "unchanged",
            version=version,
            triton_name=name,
            digest=served.release.manifest.digest,
            previous=served.previous,
            report=report,
            confirmation=served.confirmation,
            seconds=watch.seconds,
        )
        with watch("record") as describe:
            describe(record_promotion(servers.registry, result))
        return result


def plan_promotion(
    request: PromotionRequest, settings: Settings, *, progress: Progress = silent
) -> PublishPlan:
    """Everything up to publishing, and the plan that publishing would carry out; writes nothing."""
    watch = Stopwatch(progress)
    name = check_name(request.triton_name or request.model)
    with open_servers(settings) as servers:
        version, state, reusable = _resolve(servers, request, name, settings, watch)
        if reusable is not None:
            release, _golden = reusable
            return PublishPlan(
                model=name,
                version=version.version,
                previous=state.version,
                uploads=(),
                deletes=(),
                commit=state.config != release.config,
            )
        with prepare(servers, version, state, settings, watch) as prepared:
            return prepared.plan


def _resolve(
    servers: Servers,
    request: PromotionRequest,
    name: str,
    settings: Settings,
    progress: Progress,
) -> tuple[ModelVersion, RepositoryState, tuple[Release, Samples] | None]:
    """The version that is wished, what the store holds, and the release if there is one already."""
    with progress("resolve") as describe:
        version = servers.registry.resolve(request)
        describe(f"{request} is version {version.version}")
    state = read_state(servers.repository, name)
    refuse_other_model(servers, state, version)
    reusable = reusable_release(servers, state, version.version)
    if reusable is not None and settings.sign:
        refuse_unsigned(state, version.version)
    return version, state, reusable


@contextmanager
def prepare(
    servers: Servers,
    version: ModelVersion,
    state: RepositoryState,
    settings: Settings,
    progress: Progress,
) -> Iterator[Prepared]:
    """Fetch, export, check and configure in a temporary folder that lives as long as the body."""
    signer = chosen_signer(settings)  # a key that cannot be used is told before the export
    tolerances = chosen_tolerances(settings.explicit(*TOLERANCES), version.tags)
    with tempfile.TemporaryDirectory(prefix="tritonpipe-") as folder:
        work = Path(folder)
        with progress("fetch") as describe:
            source = servers.registry.fetch(version, work / "source")
            describe(f"{source.digest[:19]}, flavors {', '.join(source.flavors)}")
        limits = Limits(seconds=settings.export_seconds, isolation=Mode(settings.isolation))
        (work / "export").mkdir()
        with progress("export") as describe:
            export, was_there = _export(source, work / "export", limits, settings)
            describe(_describe_export(export) + (", made before" if was_there else ""))
        with progress("check") as describe:
            report = _check(export, version, tolerances, settings, limits, work / "cases")
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
            files = prepared.candidate.release.manifest.files
            signed = ", signed" if prepared.plan.signed else ""
            describe(f"backend onnxruntime, {len(files)} files{signed}")
        yield prepared


def _export(
    source: SourceModel, folder: Path, limits: Limits, settings: Settings
) -> tuple[Export, bool]:
    """The export, and whether it was made before."""

    def make() -> Export:
        return export_in_child(source, folder, limits=limits)

    cache = open_cache(settings)
    if cache is None:
        return make(), False
    return cache.export(source, choose_exporter(source), folder, make)


def _check(
    export: Export,
    version: ModelVersion,
    tolerances: Tolerances,
    settings: Settings,
    limits: Limits,
    cases: Path,
) -> Report:
    cases.mkdir()
    report = check_in_child(
        export,
        cases=cases,
        tolerances=tolerances,
        max_batch_size=serving_options(settings).max_batch_size,
        limits=limits,
    )
    if not report.ok:
        raise refused(report, export, cases, version=version, folder=settings.refusals)
    return report


def _configure(
    servers: Servers,
    version: ModelVersion,
    state: RepositoryState,
    settings: Settings,
    signer: Signer | None,
    export: Export,
    report: Report,
    folder: Path,
) -> Prepared:
    samples = load_samples(export.samples)
    lineage = Lineage(
        registered_model=version.name,
        registered_version=version.version,
        run_id=version.run_id,
        source=version.source,
        source_digest=export.onnx.source_digest,
        flavor=export.onnx.flavor,
    )
    folder.mkdir()
    entry = OnnxruntimeBackend().entry(
        export.onnx,
        samples,
        name=state.model,
        lineage=lineage,
        options=serving_options(settings),
        folder=folder,
    )
    if signer is not None:
        signer.sign(entry.folder, entry.manifest)
    release = Release(
        manifest=entry.manifest,
        config=entry.config,
        relative_tolerance=report.relative_tolerance,
        absolute_tolerance=report.absolute_tolerance,
    )
    golden = samples.head(GOLDEN_ROWS) if export.onnx.is_batching else samples
    plan = plan_publication(servers.repository, state, entry)
    candidate = Candidate(release=release, golden=golden, entry=entry)
    return Prepared(candidate=candidate, plan=plan, report=report)


def _told_tolerances(tolerances: Tolerances) -> str:
    """What the settings or the tags of the version say instead of the defaults; else nothing."""
    told = [
        f"{name.replace('_', ' ')} {value:g}"
        for name in TOLERANCES
        if (value := getattr(tolerances, name)) != getattr(Tolerances(), name)
    ]
    return f"; with {', '.join(told)} by settings or tags" if told else ""


def serving_options(settings: Settings) -> ServingOptions:
    """The part of the settings that ends up in ``config.pbtxt``."""
    return ServingOptions(
        max_batch_size=settings.max_batch_size,
        preferred_batch_sizes=settings.preferred_batch_sizes,
        max_queue_delay_microseconds=settings.max_queue_delay_microseconds,
        instances=settings.instances,
        device=settings.device,
    )


def _describe_export(export: Export) -> str:
    inputs = ", ".join(str(spec) for spec in export.onnx.inputs[:4])
    more = len(export.onnx.inputs) - 4
    return f"opset {export.onnx.opset}, {inputs}" + (f" and {more} more" if more > 0 else "")
