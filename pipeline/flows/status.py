"""What is wished, what is published and what is served."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import shorten
from typing import Final

from pipeline.errors import RequestError, TritonpipeError, UnavailableError
from pipeline.flows.claims import FAILED as FAILED_TO_SERVE
from pipeline.flows.claims import REFUSED, TAG_PREFIX
from pipeline.flows.journal import CONFIRMED, FAILED, ROLLBACK, JournalEntry, attempts
from pipeline.flows.parts import owner_of
from pipeline.flows.publish import read_state
from pipeline.flows.servers import Servers, open_servers
from pipeline.settings import Settings
from pipeline.triton import TritonClient, VersionState

_REASON_LENGTH: Final = 160
"""Letters of a reason that a state tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """One model as its three sources see it.

    Attributes:
        model: Triton model; the registered model's name for one that was never published.
        registered_model: Its name in the registry; empty for one that was published by hand.
        wished: Version that the alias points at; None if it points nowhere.
        published: Version that the config in the store names; None if there is none.
        served: Version that Triton answers with, the first one of several; None if with none.
        digest: Digest of the published release; empty if there is none.
        state: ``ok``, or in words what differs.
        is_as_wished: Whether what is published is served, and is what the alias wishes, if it
            wishes anything.
        part_of: The name that clients ask, of which this is a part; empty for most models.
    """

    model: str
    registered_model: str
    wished: int | None
    published: int | None
    served: int | None
    digest: str
    state: str
    is_as_wished: bool
    part_of: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """The status of all models.

    Attributes:
        alias: The alias that was read as the wish.
        models: By name.
        problems: What could not be read, and why; what it would say is missing above.
        is_complete: Whether every source answered.
    """

    alias: str
    models: tuple[ModelStatus, ...]
    problems: tuple[str, ...]
    is_complete: bool

    @property
    def is_as_wished(self) -> bool:
        """Whether everything could be read, and no model needs anybody."""
        return not self.problems and all(model.is_as_wished for model in self.models)


def status(settings: Settings, *, model: str | None = None) -> StatusReport:
    """Compare the three sources; a source that is down is a problem in the report.

    Raises:
        SettingsError: An address is missing, or the store refuses the credentials.
        UnavailableError: The store does not answer: without it nothing is known.
    """
    with open_servers(settings) as servers:
        problems: list[TritonpipeError] = []
        sources = _Sources(
            servers=servers,
            wishes=_wishes(servers, settings.alias, problems),
            replicas=_replicas(servers, problems),
            problems=problems,
        )
        names = _published_models(servers)
        rows = [
            _published_status(sources, name)
            for name in sorted(names)
            if model in {None, name} or model not in names or name.startswith(f"{model}.")
        ]
        # A model can be published under another name than it is registered under.
        known = {row.registered_model for row in rows}
        rows += [
            _wished_status(sources, name, version)
            for name, version in (sources.wishes or {}).items()
            if name not in known and model in {None, name}
        ]
    if model is not None:
        rows = [row for row in rows if model in {row.model, row.registered_model, row.part_of}]
        if not rows:
            raise RequestError(f"{model!r} is neither published nor wished as {settings.alias!r}")
    return StatusReport(
        alias=settings.alias,
        models=tuple(sorted(rows, key=lambda row: row.model)),
        problems=tuple(dict.fromkeys(error.message for error in problems)),
        is_complete=not any(isinstance(error, UnavailableError) for error in problems),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Replica:
    """One server that answers; ``index`` is None where it is closed to us."""

    client: TritonClient
    index: dict[str, dict[int, VersionState]] | None

    def served(self, model: str, published: int) -> int | None:
        if self.index is None:
            return published if self.client.is_ready(model, published) else None
        versions = self.index.get(model, {})
        return max((v for v, s in versions.items() if s.state == "READY"), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sources:
    """What was asked once for all models; None where the answer is missing."""

    servers: Servers
    wishes: dict[str, int] | None
    replicas: list[_Replica]
    problems: list[TritonpipeError]

    def why_not(self, registered: str, version: int) -> str:
        """Why a wished version is not published: it was refused or failed, or nobody tried."""
        try:
            versions = self.servers.registry.tagged_versions(registered, {})
        except TritonpipeError as error:
            self.problems.append(error)
            versions = []
        tags = next((v.tags for v in versions if v.version == version), {})
        state = tags.get(f"{TAG_PREFIX}state")
        if state not in {REFUSED, FAILED_TO_SERVE}:
            return f"version {version} is wished: promote it"
        outcome = "was refused" if state == REFUSED else "failed"
        told = shorten(tags.get(f"{TAG_PREFIX}reason", ""), _REASON_LENGTH, placeholder=" …")
        return f"version {version} is wished, but {outcome}" + (f": {told}" if told else "")


def _wishes(servers: Servers, alias: str, problems: list[TritonpipeError]) -> dict[str, int] | None:
    try:
        models = servers.registry.registered_models()
    except TritonpipeError as error:
        problems.append(error)
        return None
    return {m.name: m.aliases[alias] for m in models if alias in m.aliases}


def _replicas(servers: Servers, problems: list[TritonpipeError]) -> list[_Replica]:
    live = []
    for client in servers.replicas:
        try:
            client.require_live()
        except TritonpipeError as error:
            problems.append(error)
            continue
        try:
            index = client.all_versions()
        except TritonpipeError:
            index = None
        live.append(_Replica(client=client, index=index))
    return live


def _published_models(servers: Servers) -> set[str]:
    keys = (o.key for o in servers.repository.list_folder(""))
    return {key.split("/", 1)[0] for key in keys if "/" in key}


def _published_status(sources: _Sources, model: str) -> ModelStatus:
    published, registered, digest, unreadable = None, model, "", ""
    events: list[JournalEntry] = []
    try:
        published = read_state(sources.servers.repository, model).version
        release = sources.servers.journal.release(model, published) if published else None
        events = sources.servers.journal.entries(model)
        if release is not None:
            registered = release.manifest.lineage.registered_model
            digest = release.manifest.digest
    except TritonpipeError as error:
        sources.problems.append(error)
        unreadable = "unknown: what is published cannot be read"
    serving = {r.client.http_address: r.served(model, published or 0) for r in sources.replicas}
    served = next(iter(serving.values()), None) if published else None
    wished = (sources.wishes or {}).get(registered)
    return ModelStatus(
        model=model,
        registered_model=registered,
        wished=wished,
        published=published,
        served=served,
        digest=digest,
        state=unreadable
        or _disagreement(serving)
        or _state(sources, registered, wished, published, served, events),
        is_as_wished=not unreadable
        and len(set(serving.values())) == bool(serving)
        and served == published
        and wished in {None, published},
        part_of=owner_of(model, events),
    )


def _wished_status(sources: _Sources, registered: str, version: int) -> ModelStatus:
    return ModelStatus(
        model=registered,
        registered_model=registered,
        wished=version,
        published=None,
        served=None,
        digest="",
        state=sources.why_not(registered, version),
        is_as_wished=False,
    )


def _state(
    sources: _Sources,
    registered: str,
    wished: int | None,
    published: int | None,
    served: int | None,
    events: list[JournalEntry],
) -> str:
    if published is None:
        if wished is None:
            return "not published, not wished by the alias"
        return sources.why_not(registered, wished)
    if not sources.replicas:
        return "published; Triton does not answer"
    if served is None:
        return "published, not served: see the server's log"
    if served != published:
        return f"Triton still serves {served}"
    if not registered:
        return "ok, published by hand"
    if sources.wishes is None:
        return "served; the registry does not answer"
    if wished is None:
        return "served, not wished by the alias"
    if wished == published:
        return "ok"
    return _taken_back(wished, events) or sources.why_not(registered, wished)


def _disagreement(serving: dict[str, int | None]) -> str:
    if len(set(serving.values())) < 2:
        return ""
    return "the servers differ: " + ", ".join(f"{a} serves {v}" for a, v in serving.items())


def _taken_back(wished: int, events: list[JournalEntry]) -> str:
    last = next(reversed(attempts(events)), None)
    if last and last.action == ROLLBACK and last.event == CONFIRMED and last.previous == wished:
        return f"rolled back from version {wished}, which the alias still wishes"
    if last and last.event == FAILED and last.version == wished:
        return f"version {wished} is wished, but the server refused it"
    return ""
