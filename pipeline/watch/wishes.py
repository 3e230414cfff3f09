"""What the registry wishes: which version shall be served under which name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from pipeline.artifacts import PromotionRequest
from pipeline.configuration import Bound
from pipeline.errors import RequestError
from pipeline.model_config import check_name
from pipeline.registries import RegisteredModel
from pipeline.served_names import name_in_triton
from pipeline.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One version that shall be served.

    Attributes:
        model: Name in Triton.
        registered_model: Name in the registry.
        alias: The alias that points at the version.
        version: The version; also its number in Triton.
    """

    model: str
    registered_model: str
    alias: str
    version: int

    def __str__(self) -> str:
        return f"{self.registered_model}/{self.version} ({self.alias})"

    def request(self) -> PromotionRequest:
        """The promotion that fulfils it; of the version, since the alias may move meanwhile."""
        return PromotionRequest(
            model=self.registered_model,
            version=self.version,
            triton_name=self.model,
            on_behalf_of=self.alias,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How some registered models are looked after.

    Attributes:
        serve: For each alias that is a wish, the name in Triton; ``{model}`` in it stands for the
            name of the registered model. Without any, the models are left alone.
        settings: The settings that hold for them.
        names: Patterns as in a shell; a model is meant if its name fits one of them.
        tags: Tags that a registered model must have, all of them.
        requires: Tags that a version must have before it is served, all of them.
        metrics: Bounds that the metrics of its run must pass.
    """

    serve: Mapping[str, str]
    settings: Settings
    names: tuple[str, ...] = ("*",)
    tags: Mapping[str, str] = field(default_factory=dict)
    requires: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Bound] = field(default_factory=dict)

    def applies_to(self, registered: RegisteredModel) -> bool:
        """Whether it is about this registered model."""
        return self.tags.items() <= registered.tags.items() and any(
            fnmatchcase(registered.name, pattern) for pattern in self.names
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Everything that is wished at one moment.

    Attributes:
        by_model: By the name in Triton.
        rules: The rule of each, likewise.
        problems: Aliases that cannot be fulfilled under any name, as ``NAME@ALIAS``, with the
            reason.
        registered: How many models the registry has in all.
    """

    by_model: Mapping[str, Wish]
    rules: Mapping[str, Rule]
    problems: Mapping[str, str]
    registered: int


def wishes_of(
    models: Iterable[RegisteredModel], rules: Sequence[Rule], *, only: Rule | None = None
) -> Wishes:
    """What the registered models wish; of the rules about a model, the first one counts.

    Models that ``only`` is not about wish nothing.

    Two wishes for one name in Triton cannot both be fulfilled. The one of the model that comes
    first in the alphabet is, so that it does not depend on the order in which they are listed.
    """
    found: dict[str, Wish] = {}
    rules_found: dict[str, Rule] = {}
    problems: dict[str, str] = {}
    everything = sorted(models, key=lambda model: model.name)
    meant = [model for model in everything if only is None or only.applies_to(model)]
    for wish, rule in (each for model in meant for each in _wishes_of_one(model, rules)):
        what = f"{wish.registered_model}@{wish.alias}"
        try:
            taken = found.setdefault(check_name(wish.model), wish)
            rules_found.setdefault(wish.model, rule)
        except RequestError as error:
            problems[what] = error.message
            continue
        if taken is not wish:
            problems[what] = f"the name {wish.model!r} in Triton is wished for {taken}"
    return Wishes(by_model=found, rules=rules_found, problems=problems, registered=len(everything))


def wishes_without_a_name(
    models: Iterable[RegisteredModel], rules: Sequence[Rule]
) -> dict[str, tuple[Wish, Rule]]:
    """The wishes of models that no rule but the last one gives a name in Triton.

    The loop serves them under their own name, be it legal or not. Who promotes by hand may choose
    another one, and what is served there fulfils the wish as well.

    Returns:
        By registered model.
    """
    return {
        wish.registered_model: (wish, rule)
        for model in models
        for wish, rule in _wishes_of_one(model, rules)
        if rule.serve == rules[-1].serve
    }


def _wishes_of_one(
    registered: RegisteredModel, rules: Sequence[Rule]
) -> Iterator[tuple[Wish, Rule]]:
    rule = next((rule for rule in rules if rule.applies_to(registered)), None)
    for alias, name in rule.serve.items() if rule else ():
        if rule and alias in registered.aliases:
            wish = Wish(
                model=name_in_triton(name, registered.name),
                registered_model=registered.name,
                alias=alias,
                version=registered.aliases[alias],
            )
            yield wish, rule
