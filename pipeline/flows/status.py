"""What is wished, what is published and what is served; and where a release comes from."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import RequestError, TritonpipeError
from pipeline.flows.journal import JournalEntry
from pipeline.flows.publish import damage, read_state
from pipeline.flows.servers import Servers, open_servers
from pipeline.manifest import Manifest
from pipeline.model_config import check_name
from pipeline.registries import Run
from pipeline.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """One model as its three sources see it.

    Attributes:
        model: Triton model.
        registered_model: Its name in the registry.
        wished: Version that the alias points at; None if it points nowhere.
        published: Version that the config in the store names; None if there is none.
        served: Version that Triton answers with; None if it answers with none.
        digest: Digest of the published release; empty if there is none.
        state: ``ok``, or in words what differs.
    """

    model: str
    registered_model: str
    wished: int | None
    published: int | None
    served: int | None
    digest: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """The status of all models.

    Attributes:
        alias: The alias that was read as the wish.
        models: By name.
        problems: Sources that did not answer; what they would say is missing above.
    """

    alias: str
    models: tuple[ModelStatus, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Everything known of one release.

    Attributes:
        manifest: Files, digests, lineage and tools.
        published: Whether the repository still holds it as it was published.
        served: Whether the config in the store names it.
        run: The run that trained it, if the registry still has it.
        events: What happened to this version, oldest first.
    """

    manifest: Manifest
    digest: str
    published: bool
    served: bool
    run: Run | None
    events: tuple[JournalEntry, ...]


def status(settings: Settings, *, model: str | None = None) -> StatusReport:
    """Compare the three sources; a source that is down is a problem in the report.

    Raises:
        SettingsError: An address is missing, or the store refuses the credentials.
        UnavailableError: The store does not answer: without it nothing is known.
    """
    with open_servers(settings) as servers:
        problems: list[str] = []
        wishes = _wishes(servers, settings.alias, problems)
        names = {m for m in _published_models(servers) if model in {None, m}}
        if model is None or model in wishes:
            names |= {model} if model else set(wishes)
        try:
            servers.triton.require_live()
        except TritonpipeError as error:
            problems.append(error.message)
        rows = tuple(_model_status(servers, name, wishes, problems) for name in sorted(names))
    if model is not None and not rows:
        raise RequestError(f"{model!r} is neither published nor wished as {settings.alias!r}")
    return StatusReport(alias=settings.alias, models=rows, problems=tuple(dict.fromkeys(problems)))


def inspect(model: str, version: int | None, settings: Settings) -> Inspection:
    """Everything known of a release, back to the run that trained it.

    Args:
        model: Triton model.
        version: Its version; None for the one published now.
        settings: Where the servers are.

    Raises:
        RequestError: There is no such release.
    """
    with open_servers(settings) as servers:
        current = read_state(servers.repository, check_name(model)).version
        wanted = current if version is None else version
        release = None if wanted is None else servers.journal.release(model, wanted)
        if release is None or wanted is None:
            raise RequestError(
                f"there is no release {model}" + (f"/{wanted}" if wanted else ""),
                hint="see what there is: tritonpipe status",
            )
        manifest = release.manifest
        run_id = manifest.lineage.run_id
        return Inspection(
            manifest=manifest,
            digest=manifest.digest,
            published=not damage(servers.repository, manifest),
            served=current == wanted,
            run=None if run_id is None else servers.registry.run(run_id),
            events=tuple(e for e in servers.journal.entries(model) if e.version == wanted),
        )


def _wishes(servers: Servers, alias: str, problems: list[str]) -> dict[str, int]:
    try:
        models = servers.registry.registered_models()
    except TritonpipeError as error:
        problems.append(error.message)
        return {}
    return {m.name: m.aliases[alias] for m in models if alias in m.aliases}


def _published_models(servers: Servers) -> set[str]:
    keys = (o.key for o in servers.repository.list_folder(""))
    return {key.split("/", 1)[0] for key in keys if "/" in key}


def _model_status(
    servers: Servers, model: str, wishes: dict[str, int], problems: list[str]
) -> ModelStatus:
    published = served = None
    registered, digest = model, ""
    try:
        published = read_state(servers.repository, model).version
        release = servers.journal.release(model, published) if published else None
        if release is not None:
            registered = release.manifest.lineage.registered_model
            digest = release.manifest.digest
        versions = servers.triton.versions(model) if published else {}
        served = max((v for v, s in versions.items() if s.state == "READY"), default=None)
    except TritonpipeError as error:
        problems.append(error.message)
    wished = wishes.get(registered)
    return ModelStatus(
        model=model,
        registered_model=registered,
        wished=wished,
        published=published,
        served=served,
        digest=digest,
        state=_state(wished, published, served),
    )


def _state(wished: int | None, published: int | None, served: int | None) -> str:
    if published is None:
        return "not published: promote it"
    if served is None:
        return "published, not served: see the server's log"
    if served != published:
        return f"Triton still serves {served}"
    if wished is None:
        return "served, not wished by the alias"
    return "ok" if wished == published else f"version {wished} is wished: promote it"
