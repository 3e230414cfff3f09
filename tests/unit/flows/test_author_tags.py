"""Who runs the pipeline counts first, then the version, then its registered model."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pipeline.artifacts import ModelVersion
from pipeline.errors import ModelError
from pipeline.flows.author_tags import AuthorTag, Chosen, Verdict, chosen_settings, tagged_of
from pipeline.settings import AUTHOR_SETTINGS, Settings

VALUES: Mapping[str, tuple[str, str, str]] = {
    "max_batch_size": ("8", "16", "32"),
    "preferred_batch_sizes": ("1,2", "4", "none"),
    "max_queue_delay_microseconds": ("0", "250", "60000000"),
    "instances": ("2", "3", "4"),
    "relative_tolerance": ("0.1", "0.25", "0"),
    "absolute_tolerance": ("0.1", "0.25", "1e-9"),
    "allowed_row_fraction": ("0.1", "0.25", "0.5"),
}
"""Of each setting, three that differ: for the version, its registered model and the platform."""

every_setting = pytest.mark.parametrize("name", AUTHOR_SETTINGS)


def chosen(
    settings: Settings,
    version: Mapping[str, str] | None = None,
    model: Mapping[str, str] | None = None,
) -> Chosen:
    def prefixed(tags: Mapping[str, str] | None) -> dict[str, str]:
        return {f"tritonpipe.{name}": value for name, value in (tags or {}).items()}

    tagged = ModelVersion(
        name="fraud",
        version=7,
        run_id=None,
        source="",
        tags=prefixed(version),
        model_tags=prefixed(model),
    )
    return chosen_settings(settings, tagged_of(tagged))


def value(settings: Settings, name: str) -> object:
    return getattr(settings, name)


def as_setting(name: str, text: str) -> object:
    return value(Settings.model_validate({name: text}), name)


def test_there_is_an_example_of_every_setting_of_authors() -> None:
    assert set(VALUES) == set(AUTHOR_SETTINGS)


@every_setting
def test_the_platform_then_the_version_then_the_model_then_the_default(name: str) -> None:
    version, model, platform = VALUES[name]
    explicit = Settings.model_validate({name: platform})
    for settings, tags, model_tags, expected in (
        (explicit, {name: version}, {name: model}, platform),
        (explicit, {name: version}, {}, platform),
        (explicit, {}, {name: model}, platform),
        (Settings(), {name: version}, {name: model}, version),
        (Settings(), {name: version}, {}, version),
        (Settings(), {}, {name: model}, model),
    ):
        found = chosen(settings, tags, model_tags)
        assert value(found.settings, name) == as_setting(name, expected)
        assert value(found.required(), name) == as_setting(name, expected)
    assert value(chosen(Settings()).settings, name) == Settings.model_fields[name].default


@every_setting
def test_a_tag_is_explicit_and_changes_nothing_else(name: str) -> None:
    found = chosen(Settings(device="gpu"), {name: VALUES[name][0]}).settings
    assert found.model_fields_set == {"device", name}
    assert found == Settings.model_validate({"device": "gpu", name: VALUES[name][0]})


@pytest.mark.parametrize("settings", [Settings(), Settings(instances=3, author_tags=())])
def test_without_tags_the_settings_stay_as_they_are(settings: Settings) -> None:
    recorded = dict.fromkeys(("state", "release_digest", "serves.m"), "x")
    found = chosen(settings, {**recorded, "retry": "1", "pyfunc": "allow", "copied_from": "a/1"})
    assert found == Chosen(settings=settings, tags=())
    others = Settings(instances=3)
    version = ModelVersion(
        name="m", version=1, run_id=None, source="", tags={"instances": "9", "tritonpipe": "9"}
    )
    assert chosen_settings(others, tagged_of(version)) == Chosen(settings=others, tags=())


@pytest.mark.parametrize("name", sorted(set(Settings.model_fields) - set(AUTHOR_SETTINGS)))
def test_no_tag_sets_what_is_not_the_authors(name: str) -> None:
    tag = {name: "1"}
    for found in chosen(Settings(), version=tag), chosen(Settings(), model=tag):
        assert found.required() == Settings()
        if name not in {"pyfunc", "alias"}:  # which mean something else in a tag
            assert [tag.verdict for tag in found.tags] == [Verdict.NOT_THE_AUTHORS]
            assert f"TRITONPIPE_{name.upper()} or tritonpipe.toml" in found.tags[0].reason


@every_setting
def test_the_platform_says_what_authors_may_set(name: str) -> None:
    others = tuple(other for other in AUTHOR_SETTINGS if other != name)
    for allowed in ((), others):
        settings = Settings(author_tags=allowed)
        found = chosen(settings, {name: VALUES[name][0]})
        assert found.required() == settings
        assert found.tags[0].verdict is Verdict.NOT_THE_AUTHORS
        assert "author_tags leaves it out" in found.tags[0].reason
    alone = Settings.model_validate({"author_tags": f" {name} "})
    assert chosen(alone, {name: VALUES[name][0]}).tags[0].verdict is Verdict.COUNTS


def test_to_let_a_model_run_its_own_code_is_said_on_a_version_alone() -> None:
    (tag,) = chosen(Settings(), {"pyfunc": "allow"}, {"pyfunc": "allow"}).tags
    assert tag.verdict is Verdict.NOT_THE_AUTHORS
    assert "registered model 'fraud': it counts on a version alone" in str(tag)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("max_batch_size", "lots", "expected a valid integer"),
        ("max_batch_size", "0", "expected greater than or equal to 1"),
        ("max_batch_size", "9999999999", "expected less than or equal to 1048576"),
        ("preferred_batch_sizes", "8,many", "expected a valid integer"),
        ("preferred_batch_sizes", "0", "expected greater than or equal to 1"),
        (
            "preferred_batch_sizes",
            ",".join(map(str, range(1, 66))),
            "expected at most 64 different sizes",
        ),
        ("max_queue_delay_microseconds", "-1", "expected greater than or equal to 0"),
        ("instances", "1.5", "expected a valid integer"),
        ("instances", "", "expected a valid integer"),
        ("relative_tolerance", "1 %", "expected a valid number"),
        ("relative_tolerance", "-0.1", "expected greater than or equal to 0"),
        ("absolute_tolerance", "nan", "expected a finite number"),
        ("absolute_tolerance", "inf", "expected a finite number"),
        ("absolute_tolerance", "", "expected a valid number"),
        ("allowed_row_fraction", "1", "expected less than 1"),
    ],
)
def test_a_value_that_is_wrong_is_told_with_its_place_and_what_is_expected(
    name: str, text: str, expected: str
) -> None:
    for place, tags in (
        ("version fraud/7", ({name: text}, {})),
        ("registered model 'fraud'", ({}, {name: text})),
    ):
        found = chosen(Settings(), *tags)
        assert found.settings == Settings()
        with pytest.raises(ModelError) as caught:
            found.required()
        shown = f"{text[:60]}…" if len(text) > 60 else text
        assert f"the tag tritonpipe.{name}={shown!r} of {place}: {expected}" in caught.value.message
        assert "delete it" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("max_batch_size", "\n\n5\r\n", "5"),
        ("preferred_batch_sizes", "1,\n\x1c2 ", "1,2"),
        ("preferred_batch_sizes", ",".join(["7", "8"] * 30_000), "7,8"),
        (
            "preferred_batch_sizes",
            ",".join(map(str, range(1, 65))),
            ",".join(map(str, range(1, 65))),
        ),
        ("preferred_batch_sizes", " none", "none"),
        ("relative_tolerance", "1E-3", "0.001"),
    ],
)
def test_what_counts_is_told_as_it_is_understood(name: str, text: str, told: str) -> None:
    found = chosen(Settings(), {name: text})
    assert [(tag.verdict, tag.value) for tag in found.tags] == [(Verdict.COUNTS, told)]
    assert found == chosen(Settings(), {name: told})


def test_all_that_is_wrong_is_told_at_once_and_what_does_not_count_is_not() -> None:
    wrong = {"instances": "many", "max_batch_size": "lots"}
    with pytest.raises(ModelError) as caught:
        chosen(Settings(), wrong, {"allowed_row_fraction": "2"}).required()
    assert all(word in caught.value.message for word in ("many", "lots", "'2'"))
    assert chosen(Settings(instances=1, max_batch_size=2), wrong).required().instances == 1
    assert chosen(Settings(), {"instances": "2"}, wrong).of(Verdict.WRONG)[0].value == "lots"


def test_a_long_value_is_not_told_whole() -> None:
    (tag,) = chosen(Settings(), {"instances": "9" * 5000}).tags
    assert len(str(tag)) < 250


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("max_batchsize", "did you mean tritonpipe.max_batch_size?"),
        ("Instances", "did you mean tritonpipe.instances?"),
        ("max-queue-delay-microseconds", "tritonpipe.max_queue_delay_microseconds?"),
        ("colour", "see docs/watch.md"),
    ],
)
def test_a_key_that_is_not_known_is_told_with_what_may_be_meant(key: str, meant: str) -> None:
    (tag,) = chosen(Settings(), {key: "1"}).tags
    assert (tag.verdict, meant in tag.reason) == (Verdict.UNKNOWN, True)


def test_a_tag_that_does_not_win_tells_what_does() -> None:
    both = chosen(Settings(), {"instances": "2"}, {"instances": "3"})
    assert [tag.verdict for tag in both.tags] == [Verdict.COUNTS, Verdict.OVERRIDDEN]
    assert both.tags[1].reason == "version fraud/7 says '2'"
    version = ModelVersion(
        name="m", version=1, run_id=None, source="", tags={"tritonpipe.instances": "2"}
    )
    found = chosen_settings(
        Settings(instances=4), tagged_of(version), origins={"instances": "t.toml, [defaults]"}
    )
    assert found.tags == (
        AuthorTag(
            key="tritonpipe.instances",
            value="2",
            place="version m/1",
            verdict=Verdict.OVERRIDDEN,
            reason="t.toml, [defaults] says 4",
        ),
    )
