from __future__ import annotations

import dataclasses
import itertools

import pytest

from pipeline.ensemble_edges import broken_ensembles, edge_problems
from pipeline.testing.ensemble_cases import CASES, EnsembleCase, StepCase, steps

FITTING = [name for name, case in CASES.items() if not case.problem]


@pytest.mark.parametrize("name", CASES)
def test_what_does_not_fit_is_told_in_words(name: str) -> None:
    problems = edge_problems(CASES[name].config(name), steps())
    assert bool(problems) == bool(CASES[name].problem), problems
    assert any(CASES[name].problem in problem for problem in problems) or not problems, problems


@pytest.mark.parametrize("name", CASES)
def test_the_order_of_the_steps_does_not_matter(name: str) -> None:
    """Nor which of two steps of a model is first, as far as they are told apart."""
    case = CASES[name]
    found = {
        frozenset(edge_problems(dataclasses.replace(case, steps=order).config(name), steps()))
        for order in itertools.permutations(case.steps)
    }
    assert len(found) == 1, found


def test_a_model_that_is_no_ensemble_has_no_edges() -> None:
    assert edge_problems(steps()["a"], {}) == []


def test_a_circle_through_other_ensembles_is_found() -> None:
    inner = EnsembleCase(steps=(StepCase(model="outer", inputs={"X": "X"}, outputs={"Z": "Z"}),))
    outer = EnsembleCase(steps=(StepCase(model="inner", inputs={"X": "X"}, outputs={"Z": "Z"}),))
    configs = {"inner": inner.config("inner"), "outer": outer.config("outer")}
    problems = edge_problems(configs["outer"], configs)
    assert problems == ["it is a step of itself: outer -> inner -> outer"]


def test_a_circle_that_the_ensemble_is_no_part_of_ends_the_search() -> None:
    step = {"inputs": {"X": "X"}, "outputs": {"Z": "Z"}}
    configs = {
        "p": EnsembleCase(steps=(StepCase(model="q", **step),)).config("p"),  # type: ignore[arg-type]
        "q": EnsembleCase(steps=(StepCase(model="p", **step),)).config("q"),  # type: ignore[arg-type]
    }
    above = EnsembleCase(steps=(StepCase(model="p", **step),)).config("above")  # type: ignore[arg-type]
    assert edge_problems(above, configs) == []


def test_a_step_that_gives_any_number_of_answers_is_refused() -> None:
    configs = steps() | {"a": steps()["a"] + " model_transaction_policy { decoupled: true }"}
    assert "decoupled" in " ".join(edge_problems(CASES["two-steps"].config("e"), configs))


def published() -> dict[str, str]:
    return steps() | {name: CASES[name].config(name) for name in FITTING}


@pytest.mark.parametrize("model", steps())
def test_a_model_that_stays_as_it_is_breaks_nothing(model: str) -> None:
    assert broken_ensembles(model, published()[model], published()) == {}


def test_ensembles_that_a_new_config_would_unload_are_named_with_the_reason() -> None:
    changed = steps()["whole"].replace("TYPE_FP32", "TYPE_FP64")
    broken = broken_ensembles("whole", changed, published())
    assert broken.keys() == {"unbatched-step"}
    assert "FP64[?,3] in output 'y' of 'whole'" in broken["unbatched-step"][0]


def test_a_version_that_an_ensemble_names_is_missed() -> None:
    second = steps()["a"].replace("versions: [1]", "versions: [2]")
    assert broken_ensembles("a", second, published()) == {
        "version-that-is-served": ["step 'a' needs version 1; served is 2"]
    }


def test_what_is_broken_already_is_not_the_fault_of_the_new_config() -> None:
    configs = published() | {"broken": CASES["other-size"].config("broken")}
    assert broken_ensembles("a", configs["a"], configs) == {}
    wider = configs["b"].replace("max_batch_size: 8", "max_batch_size: 16")
    assert broken_ensembles("b", wider, configs) == {}
