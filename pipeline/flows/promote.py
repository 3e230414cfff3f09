"""One promotion, from the wish in the registry to a confirmed release."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, replace

from pipeline.artifacts import (
    ModelVersion,
    PromotionRequest,
    PromotionResult,
    PublishPlan,
    Report,
)
from pipeline.client_contract import changes_for_clients
from pipeline.flows.author_tags import Chosen, Verdict, chosen_settings, tagged_of
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
from pipeline.flows.record import failures_recorded, record_served
from pipeline.flows.release import refuse_other_model, refuse_unsigned, reusable_release
from pipeline.flows.replicas import require_live
from pipeline.flows.serve import Served
from pipeline.flows.servers import Servers, open_servers
from pipeline.flows.serving_options import differences
from pipeline.model_config import check_name
from pipeline.settings import Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Resolved:
    """What is wished, and what is there of it.

    Attributes:
        version: The version that is wished.
        state: What the store holds under the name in Triton.
        chosen: The settings with the tags of its author.
        recorded: Its release, if there is one already: what clients ask comes last, the parts that
            are served with it before it. It is served as it is, whatever the tags say by now.
    """

    version: ModelVersion
    state: RepositoryState
    chosen: Chosen
    recorded: tuple[Candidate, ...] | None


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
        ModelError: The model cannot be fetched or exported, or a tag of its author is wrong.
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
        found = _resolve(servers, request, name, settings, watch)
        version, state, reusable = found.version, found.state, found.recorded
        stack.enter_context(failures_recorded(servers.registry, version, name))
        report: Report | None = None
        served: Served | None = None
        if reusable is not None:
            *parts, candidate = reusable
            seconds = settings.confirm_seconds
            served = proof_of_all(servers, reusable, state, seconds=seconds, progress=watch)
        else:
            chosen = found.chosen.required()
            prepared = stack.enter_context(prepare(servers, version, state, chosen, watch))
            candidate, report = prepared.candidate, prepared.report
            parts = list(prepared.parts)
        changes = _client_changes(state, candidate)
        for change in changes:
            _log.warning("%s: %s", version, change)
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
            client_changes=changes,
        )
        with watch("record") as describe:
            describe(
                record_served(
                    servers,
                    version,
                    served.release,
                    served.confirmation,
                    seconds=watch.seconds,
                    alias=request.alias or request.on_behalf_of,
                    report=report,
                )
            )
        return result


def plan_promotion(
    request: PromotionRequest, settings: Settings, *, progress: Progress = silent
) -> PublishPlan:
    """Everything up to publishing, and the plan that publishing would carry out; writes nothing."""
    watch = Stopwatch(progress)
    name = check_name(request.triton_name or request.model)
    with open_servers(settings) as servers:
        found = _resolve(servers, request, name, settings, watch)
        if found.recorded is not None:
            *parts, candidate = found.recorded
            plan = plan_of_recorded(servers, candidate, *parts)
            return replace(plan, client_changes=_client_changes(found.state, candidate))
        chosen = found.chosen.required()
        with prepare(servers, found.version, found.state, chosen, watch) as prepared:
            changes = _client_changes(found.state, prepared.candidate)
            return replace(prepared.plan, client_changes=changes)


def _resolve(
    servers: Servers,
    request: PromotionRequest,
    name: str,
    settings: Settings,
    progress: Progress,
) -> _Resolved:
    with progress("resolve") as describe:
        version = servers.registry.resolve(request)
        chosen = chosen_settings(settings, tagged_of(version))
        told = f"{request} is version {version.version}"
        describe(told + _told_tags(chosen))
        state = read_state(servers.repository, name)
        refuse_other_model(servers, state, version)
        recorded = _recorded(servers, state, version, settings)
        if recorded is not None:
            describe(told + _told_options(recorded, chosen.settings))
    _warn(chosen, is_recorded=recorded is not None)
    return _Resolved(version=version, state=state, chosen=chosen, recorded=recorded)


def _recorded(
    servers: Servers, state: RepositoryState, version: ModelVersion, settings: Settings
) -> tuple[Candidate, ...] | None:
    reusable = reusable_release(servers, state, version.version)
    if reusable is None:
        return None
    if settings.sign:
        refuse_unsigned(state, version.version)
    release, golden = reusable
    parts = recorded_parts(servers, release)
    refuse_other_parts(servers, state, version, parts)
    return (*parts, Candidate(release=release, golden=golden, entry=None))


def _client_changes(state: RepositoryState, candidate: Candidate) -> tuple[str, ...]:
    if state.config is None:
        return ()
    return changes_for_clients(state.config, candidate.release.config)


def _told_tags(chosen: Chosen) -> str:
    counting = [f"{tag.setting} {tag.value}" for tag in chosen.of(Verdict.COUNTS)]
    return f", with {', '.join(counting)} by its author's tags" if counting else ""


def _told_options(recorded: tuple[Candidate, ...], settings: Settings) -> str:
    """What a release keeps although settings or tags say otherwise now."""
    *parts, main = recorded
    # Of a model in several parts, the last one computes.
    config = (parts or [main])[-1].release.config
    kept = differences(config, settings)
    return f", which keeps what it was released with: {', '.join(kept)}" if kept else ""


def _warn(chosen: Chosen, *, is_recorded: bool) -> None:
    """Tell the tags without effect; one that is wrong stops a version that is to be made."""
    told = chosen.of(Verdict.UNKNOWN, Verdict.NOT_THE_AUTHORS)
    for tag in (*told, *(chosen.of(Verdict.WRONG) if is_recorded else ())):
        _log.warning("no effect: %s", tag)
