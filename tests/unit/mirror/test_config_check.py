"""Which configs a manifest vouches for: the published one, and itself while a release switches."""

from __future__ import annotations

import hashlib

import pytest

from pipeline.ensembles import NEWEST, pinned, steps_of
from pipeline.mirror.config_check import is_vouched_for, named_versions
from pipeline.model_config import with_versions

STEPS = "".join(f'step {{ model_name: "{n}" model_version: {NEWEST} }} ' for n in ("pre", "net"))
PLAIN = with_versions('name: "m" backend: "onnxruntime" max_batch_size: 8', [3])
ENSEMBLE = with_versions(f'name: "m" platform: "ensemble" ensemble_scheduling {{ {STEPS} }}', [3])


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("published", [PLAIN, ENSEMBLE, pinned(ENSEMBLE, {"pre": 5})])
def test_what_a_switch_changes_is_vouched_for(published: str) -> None:
    both = with_versions(published, [2, 3])
    held = {s.model: 7 for s in steps_of(published) if s.version == NEWEST}
    for text in (published, both, pinned(published, held), pinned(both, held)):
        assert is_vouched_for(text, {3: digest(published)})
        assert is_vouched_for(text, {2: digest("another"), 3: digest(published)})


def test_on_the_way_back_the_lower_version_vouches() -> None:
    older = with_versions(PLAIN.replace("8", "16"), [2])
    for text in (with_versions(older, [2, 3]), with_versions(PLAIN, [2, 3])):
        assert is_vouched_for(text, {2: digest(older), 3: digest(PLAIN)})
    mixed = with_versions(PLAIN.replace("8", "32"), [2, 3])
    assert not is_vouched_for(mixed, {2: digest(older), 3: digest(PLAIN)})


@pytest.mark.parametrize("published", [PLAIN, ENSEMBLE])
def test_nothing_else_is(published: str) -> None:
    for text in (
        published.replace('"m"', '"n"'),
        published + 'default_model_filename: "other.onnx"\n',
    ):
        assert not is_vouched_for(text, {3: digest(published)})
    assert not is_vouched_for(with_versions(published, [2, 4]), {4: digest(published)})
    assert not is_vouched_for(published, {2: digest(with_versions(published, [1]))})
    assert not is_vouched_for(published, {})


def test_a_pinned_step_is_not_exchanged_for_another_version() -> None:
    published = pinned(ENSEMBLE, {"pre": 5, "net": 5})
    assert not is_vouched_for(pinned(published, {"pre": 6}), {3: digest(published)})


def test_text_that_was_published_by_hand_counts_as_it_is() -> None:
    text = '# by hand\nname: "m"\nversion_policy: { specific: { versions: [ 3 ] } }\n'
    assert is_vouched_for(text, {3: digest(text)})
    assert not is_vouched_for(text.replace("by hand", "by me"), {3: digest(text)})


def test_a_config_names_versions_or_nothing_can_be_mirrored() -> None:
    assert named_versions(with_versions(PLAIN, [3, 2])) == (2, 3)
    for text in ("", 'name: "m"', "version_policy { latest { num_versions: 1 } }", "{"):
        with pytest.raises(ValueError, match=r"names no version|config\.pbtxt"):
            named_versions(text)
