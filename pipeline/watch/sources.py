"""What is asked once for all models: the registry, the repository's listing and the servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import TritonpipeError
from pipeline.flows.servers import Servers
from pipeline.registries import RegisteredModel
from pipeline.triton import TritonClient, VersionState
from pipeline.watch.unfulfilled import Unfulfilled, why_unfulfilled
from pipeline.watch.wishes import Rule, Wish, Wishes, wishes_of, wishes_without_a_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One server that answers; ``index`` is None where it is closed to us."""

    client: TritonClient
    index: dict[str, dict[int, VersionState]] | None

    def served(self, model: str, published: int) -> int | None:
        """The version that it answers with, the newest of several; None if with none."""
        if self.index is None:
            return published if self.client.is_ready(model, published) else None
        versions = self.index.get(model, {})
        return max((v for v, s in versions.items() if s.state == "READY"), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What was asked once for all models.

    Attributes:
        servers: To ask more.
        wishes: By the name in Triton; None if the registry does not answer.
        unnamed: By registered model: a promotion by hand may have chosen another name.
        replicas: Those that answer.
        names: What the repository has folders for.
        problems: What could not be read.
    """

    servers: Servers
    wishes: Wishes | None
    unnamed: Mapping[str, tuple[Wish, Rule]]
    replicas: list[Replica]
    names: set[str]
    problems: list[TritonpipeError]

    def wished(self, model: str, registered: str) -> tuple[Wish, Rule] | None:
        """What is wished of a published model."""
        if self.wishes is not None and model in self.wishes.by_model:
            return self.wishes.by_model[model], self.wishes.rules[model]
        return None if registered in self.names else self.unnamed.get(registered)

    def may_be_of(self, name: str, model: str) -> bool:
        """Whether what is published under a name can be a model that is, or belong to it."""
        wish = self.wishes.by_model.get(name) if self.wishes else None
        is_named = wish is not None and wish.registered_model == model
        return is_named or name == model or name.startswith(f"{model}.")

    def unfulfilled(self, wish: Wish, rule: Rule) -> Unfulfilled:
        """Why a wish is not what is published."""
        try:
            return why_unfulfilled(self.servers.registry, wish, rule)
        except TritonpipeError as error:
            self.problems.append(error)
            return Unfulfilled(reason=f"version {wish.version} is wished")


def read_sources(servers: Servers, rules: Sequence[Rule]) -> Sources:
    """Ask them all; one that is down is a problem, but for the store.

    Raises:
        SettingsError: The store refuses the credentials.
        UnavailableError: The store does not answer.
    """
    problems: list[TritonpipeError] = []
    models = _registered_models(servers, problems)
    return Sources(
        servers=servers,
        wishes=None if models is None else wishes_of(models, rules),
        unnamed=wishes_without_a_name(models or (), rules),
        replicas=_replicas(servers, problems),
        names=_published_models(servers),
        problems=problems,
    )


def _registered_models(
    servers: Servers, problems: list[TritonpipeError]
) -> list[RegisteredModel] | None:
    try:
        return servers.registry.registered_models()
    except TritonpipeError as error:
        problems.append(error)
        return None


def _replicas(servers: Servers, problems: list[TritonpipeError]) -> list[Replica]:
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
        live.append(Replica(client=client, index=index))
    return live


def _published_models(servers: Servers) -> set[str]:
    keys = (o.key for o in servers.repository.list_folder(""))
    return {key.split("/", 1)[0] for key in keys if "/" in key}
