"""What is wished, what is published and what is served: a look at what the loop compares.

Guarantees: writes nothing. The registry is asked once for all wishes, each server once for all that
it serves; only a version that is wished and not published costs requests of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from pipeline.errors import RequestError, TritonpipeError, UnavailableError
from pipeline.flows.journal import FAILED, JournalEntry, attempts
from pipeline.flows.parts import owner_of
from pipeline.flows.publish import read_state
from pipeline.flows.servers import open_servers
from pipeline.flows.taken_back import taken_back
from pipeline.settings import Settings
from pipeline.watch.sources import Sources, read_sources
from pipeline.watch.wishes import Rule, Wish


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """One model as its three sources see it.

    Attributes:
        model: Name in Triton; or ``NAME@ALIAS`` of the registry for a wish without a legal one.
        registered_model: Its name in the registry; empty for one that was published by hand.
        alias: The alias that wishes it; empty if none does.
        wished: Version that the alias points at; None if no alias wishes it.
        published: Version that the config in the store names; None if there is none.
        served: Version that Triton answers with, the first one of several; None if with none.
        digest: Digest of the published release; empty if there is none.
        state: ``ok``, or in words what differs.
        is_as_wished: Whether what is published is served, and is what is wished, if anything is; a
            version that awaits approval is not wished yet.
        part_of: The name that clients ask, of which this is a part; empty for most models.
    """

    model: str
    registered_model: str
    alias: str
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
        models: By name.
        problems: What could not be read, and why; what it would say is missing above.
        is_complete: Whether every source answered.
    """

    models: tuple[ModelStatus, ...]
    problems: tuple[str, ...]
    is_complete: bool

    @property
    def is_as_wished(self) -> bool:
        """Whether everything could be read, and no model needs anybody."""
        return not self.problems and all(model.is_as_wished for model in self.models)


def status(settings: Settings, rules: Sequence[Rule], *, model: str | None = None) -> StatusReport:
    """Compare the three sources; a source that is down is a problem in the report.

    Args:
        settings: Where the sources are.
        rules: What is wished, as the loop has it: the last one is about all other models.
        model: Only this one, by its name in Triton or in the registry.

    Raises:
        RequestError: ``model`` is neither published nor wished.
        SettingsError: An address is missing, or the store refuses the credentials.
        UnavailableError: The store does not answer: without it nothing is known.
    """
    with open_servers(settings) as servers:
        sources = read_sources(servers, rules)
        rows = [
            _published_status(sources, name)
            for name in sorted(sources.names)
            if model is None or model not in sources.names or sources.may_be_of(name, model)
        ]
        told = {row.registered_model for row in rows if row.alias}
        rows += _unpublished(sources, told, model)
    if model is not None:
        rows = [row for row in rows if model in {row.model, row.registered_model, row.part_of}]
        if not rows:
            raise RequestError(f"{model!r} is neither published nor wished by an alias")
    return StatusReport(
        models=tuple(sorted(rows, key=lambda row: row.model)),
        problems=tuple(dict.fromkeys(error.message for error in sources.problems)),
        is_complete=not any(isinstance(error, UnavailableError) for error in sources.problems),
    )


def _published_status(sources: Sources, model: str) -> ModelStatus:
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
    owner = owner_of(model, events)
    wished = sources.wished(owner or model, registered)
    state, is_as_wished = unreadable or _disagreement(serving), False
    if not state:
        state, is_as_wished = _state(sources, wished, registered, published, served, events)
    return ModelStatus(
        model=model,
        registered_model=registered,
        alias=wished[0].alias if wished else "",
        wished=wished[0].version if wished else None,
        published=published,
        served=served,
        digest=digest,
        state=state,
        is_as_wished=is_as_wished,
        part_of=owner,
    )


def _unpublished(sources: Sources, told: Set[str], only: str | None) -> Iterator[ModelStatus]:
    """What is wished under a name that has nothing.

    Args:
        sources: What was asked.
        told: Registered models of which a published model was compared with a wish.
        only: This one alone, by either name.
    """
    if sources.wishes is None:
        return
    elsewhere = told & sources.unnamed.keys()
    for model, wish in sources.wishes.by_model.items():
        is_meant = only in {None, model, wish.registered_model}
        if is_meant and model not in sources.names and wish.registered_model not in elsewhere:
            found = sources.unfulfilled(wish, sources.wishes.rules[model])
            yield _nowhere(
                model, wish.registered_model, wish.alias, wish.version,
                state=found.reason, is_as_wished=found.awaits_approval,
            )  # fmt: skip
    for what, reason in sources.wishes.problems.items():
        registered, _, alias = what.rpartition("@")
        if registered not in elsewhere:
            yield _nowhere(what, registered, alias, None, state=reason, is_as_wished=False)


def _nowhere(
    model: str, registered: str, alias: str, wished: int | None, *, state: str, is_as_wished: bool
) -> ModelStatus:
    return ModelStatus(
        model=model,
        registered_model=registered,
        alias=alias,
        wished=wished,
        published=None,
        served=None,
        digest="",
        state=state,
        is_as_wished=is_as_wished,
    )


def _state(
    sources: Sources,
    wished: tuple[Wish, Rule] | None,
    registered: str,
    published: int | None,
    served: int | None,
    events: list[JournalEntry],
) -> tuple[str, bool]:
    """The state, and whether nobody is needed."""
    if published is not None and served != published:
        if not sources.replicas:
            return "published; Triton does not answer", False
        if served is None:
            return "published, not served: see the server's log", False
        return f"Triton still serves {served}", False
    if wished is None:
        return _unwished(sources, registered, published), True
    wish, rule = wished
    if (published, registered) == (wish.version, wish.registered_model):
        return "ok", True
    decided = _decided_against(wish.version, events) if published is not None else ""
    if decided:
        return decided, False
    found = sources.unfulfilled(wish, rule)
    return found.reason, found.awaits_approval


def _unwished(sources: Sources, registered: str, published: int | None) -> str:
    if published is None:
        return "not published, not wished by an alias"
    if not registered:
        return "ok, published by hand"
    if sources.wishes is None:
        return "served; the registry does not answer"
    return "served, not wished by an alias"


def _disagreement(serving: dict[str, int | None]) -> str:
    if len(set(serving.values())) < 2:
        return ""
    return "the servers differ: " + ", ".join(f"{a} serves {v}" for a, v in serving.items())


def _decided_against(wished: int, events: list[JournalEntry]) -> str:
    if wished in taken_back(events):
        return f"rolled back from version {wished}, which the alias still wishes"
    last = next(reversed(attempts(events)), None)
    if last and last.event == FAILED and last.version == wished:
        return f"version {wished} is wished, but the server refused it"
    return ""
