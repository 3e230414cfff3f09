"""Which version is wished under which name."""

from __future__ import annotations

import random
from typing import Any

from pipeline.registries import RegisteredModel
from pipeline.settings import Settings
from pipeline.watch.wishes import Rule, wishes_of


def rule(**parts: Any) -> Rule:
    return Rule(settings=Settings(), **parts)


CHAMPION = rule(serve={"champion": "{model}"})


def registered(name: str, tags: dict[str, str] | None = None, **aliases: int) -> RegisteredModel:
    return RegisteredModel(name=name, aliases=aliases, tags=tags or {})


def test_an_alias_is_a_wish_and_a_model_without_it_wishes_nothing() -> None:
    found = wishes_of(
        [registered("fraud", champion=8), registered("churn", challenger=2)], [CHAMPION]
    )
    assert {m: (w.registered_model, w.version) for m, w in found.by_model.items()} == {
        "fraud": ("fraud", 8)
    }
    assert found.problems == {}
    assert found.registered == 2


def test_the_order_of_the_listing_does_not_matter() -> None:
    rules = [rule(serve={"champion": "one", "challenger": "{model}-next"})]
    models = [registered(f"m{n}", champion=n, challenger=n + 1) for n in range(1, 9)]
    expected = wishes_of(models, rules)
    assert expected.by_model["one"].registered_model == "m1"
    assert len(expected.problems) == 7
    for seed in range(10):
        random.Random(seed).shuffle(models)
        assert wishes_of(models, rules) == expected


def test_several_aliases_are_served_side_by_side() -> None:
    side = rule(serve={"champion": "{model}", "challenger": "{model}-challenger"})
    found = wishes_of([registered("fraud", champion=8, challenger=9)], [side])
    assert {m: w.version for m, w in found.by_model.items()} == {"fraud": 8, "fraud-challenger": 9}


def test_the_first_rule_about_a_model_counts() -> None:
    rules = [rule(names=("dev.*",), serve={}), CHAMPION]
    found = wishes_of([registered("dev.fraud", champion=1), registered("fraud", champion=1)], rules)
    assert set(found.by_model) == {"fraud"}


def test_a_rule_can_ask_for_tags_all_of_them() -> None:
    side = rule(serve={"champion": "{model}"}, tags={"team": "payments", "tier": "1"})
    models = [
        registered("a", {"team": "payments", "tier": "1", "more": "x"}, champion=1),
        registered("b", {"team": "payments"}, champion=1),
        registered("c", {"team": "payments", "tier": "2"}, champion=1),
    ]
    assert set(wishes_of(models, [side]).by_model) == {"a"}


def test_only_what_is_meant_wishes_anything() -> None:
    models = [registered("fraud", champion=1), registered("churn", champion=1)]
    found = wishes_of(models, [CHAMPION], only=rule(serve={}, names=("fr*",)))
    assert set(found.by_model) == {"fraud"}
    assert found.registered == 2


def test_a_name_that_triton_cannot_have_is_a_problem_and_not_the_end() -> None:
    found = wishes_of(
        [registered("my model", champion=1), registered("ok", champion=1)], [CHAMPION]
    )
    assert set(found.by_model) == {"ok"}
    assert "cannot be the name" in found.problems["my model@champion"]
