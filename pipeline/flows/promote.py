"""One promotion, from the wish in the registry to a confirmed release."""

from __future__ import annotations

from contextlib import ExitStack

from pipeline.artifacts import (
    ModelVersion,
    PromotionRequest,
    PromotionResult,
    PublishPlan,
    Report,
)
from pipeline.flows.parts import (
    plan_of_recorded,
    proof_of_all,
    publish_with_parts,
    recorded_parts,
    refuse_other_parts,
)
from pipeline.flows.preparation import prepare
from pipeline.flows.progress import Progress, Stopwatch, silent
from pipeline.flows.publication import Candidate
from pipeline.flows.publish import RepositoryState, read_state
from pipeline.flows.record import failures_recorded, record_promotion
from pipeline.flows.release import refuse_other_model, refuse_unsigned, reusable_release
from pipeline.flows.replicas import require_live
from pipeline.flows.serve import Served
from pipeline.flows.servers import Servers, open_servers
from pipeline.model_config import check_name
from pipeline.settings import Settings


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
        stack.enter_context(failures_recorded(servers.registry, version))
        report: Report | None = None
        served: Served | None = None
        if reusable is not None:
            *parts, candidate = reusable
            seconds = settings.confirm_seconds
            served = proof_of_all(servers, reusable, state, seconds=seconds, progress=watch)
        else:
            prepared = stack.enter_context(prepare(servers, version, state, settings, watch))
            candidate, report = prepared.candidate, prepared.report
            parts = list(prepared.parts)
        if served is None:
            served = publish_with_parts(
                servers, candidate, parts, state, settings=settings, progress=watch
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
            *parts, candidate = reusable
            return plan_of_recorded(servers, candidate, *parts)
        with prepare(servers, version, state, settings, watch) as prepared:
            return prepared.plan


def _resolve(
    servers: Servers,
    request: PromotionRequest,
    name: str,
    settings: Settings,
    progress: Progress,
) -> tuple[ModelVersion, RepositoryState, tuple[Candidate, ...] | None]:
    """The version that is wished, what the store holds, and its release if there is one already.

    What clients ask comes last, the parts that are served with it before it.
    """
    with progress("resolve") as describe:
        version = servers.registry.resolve(request)
        describe(f"{request} is version {version.version}")
    state = read_state(servers.repository, name)
    refuse_other_model(servers, state, version)
    reusable = reusable_release(servers, state, version.version)
    if reusable is None:
        return version, state, None
    if settings.sign:
        refuse_unsigned(state, version.version)
    release, golden = reusable
    parts = recorded_parts(servers, release)
    refuse_other_parts(servers, state, version, parts)
    return version, state, (*parts, Candidate(release=release, golden=golden, entry=None))
