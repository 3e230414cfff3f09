from __future__ import annotations

import pytest
from click.testing import CliRunner

from pipeline.artifacts import PromotionRequest
from pipeline.cli import tritonpipe
from pipeline.cli.references import request_from_text
from pipeline.errors import RequestError
from pipeline.settings import Settings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fraud", PromotionRequest(model="fraud", alias="champion")),
        ("fraud@blue", PromotionRequest(model="fraud", alias="blue")),
        ("fraud/7", PromotionRequest(model="fraud", version=7)),
        ("Fraud model@blue", PromotionRequest(model="Fraud model", alias="blue")),
        ("a@b@c", PromotionRequest(model="a@b", alias="c")),
        ("a@b/7", PromotionRequest(model="a@b", version=7)),
        ("models:/fraud/7", PromotionRequest(model="fraud", version=7)),
        ("models:/Fraud model@blue", PromotionRequest(model="Fraud model", alias="blue")),
    ],
)
def test_references_are_read(text: str, expected: PromotionRequest) -> None:
    assert request_from_text(text, alias="champion") == expected


@pytest.mark.parametrize("text", ["", "/7", "@a", "a/0", "a/-1", "a/x", "a/1/2", "a@", "a@b@"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="does not name a model version"):
        request_from_text(text, alias="champion")


@pytest.mark.parametrize(
    "text", ["models:/fraud", "models:/fraud/Staging", f"models:/m-{'0' * 32}", "runs:/1/model"]
)
def test_uris_that_name_no_registered_version_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="version") as caught:
        request_from_text(text, alias="champion")
    assert caught.value.hint


def test_a_uri_may_be_served_under_another_name() -> None:
    request = request_from_text("models:/fraud/7", alias="champion", triton_name="other")
    assert request == PromotionRequest(model="fraud", version=7, triton_name="other")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fraud"], ("fraud", None)),
        (["fraud", "--to", "5"], ("fraud", 5)),
        (["fraud/5"], ("fraud", 5)),
        (["models:/fraud/5", "--to", "5"], ("fraud", 5)),
    ],
)
def test_a_rollback_names_its_release_in_either_way(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: tuple[str, int | None]
) -> None:
    seen = []

    def plan(model: str, settings: Settings, *, to: int | None) -> None:
        seen.append((model, to))
        raise RequestError("enough was seen")

    monkeypatch.setattr("pipeline.flows.rollback.plan_rollback", plan)
    CliRunner().invoke(tritonpipe, ["rollback", *arguments, "--dry-run"])
    assert seen == [expected]
    with pytest.raises(RequestError, match="two releases"):
        CliRunner().invoke(tritonpipe, ["rollback", "fraud/5", "--to", "6"], catch_exceptions=False)


@pytest.mark.parametrize("release", ["fraud@blue", "a@b@c", "models:/fraud@blue"])
def test_a_release_has_no_alias(release: str) -> None:
    with pytest.raises(RequestError, match="names an alias") as caught:
        CliRunner().invoke(tritonpipe, ["inspect", release], catch_exceptions=False)
    assert "inspect" in caught.value.hint


@pytest.mark.parametrize("group", [[], ["stack"]])
def test_no_summary_of_a_command_is_cut(group: list[str]) -> None:
    shown = CliRunner().invoke(tritonpipe, [*group, "--help"], terminal_width=80)
    summaries = shown.output.split("Commands:\n")[1].splitlines()
    assert len(summaries) >= 6
    assert not [line for line in summaries if line.endswith("...")]


@pytest.mark.parametrize("command", ["promote", "rollback", "status", "inspect", "demo", "stack"])
def test_every_command_explains_itself_with_examples(command: str) -> None:
    shown = CliRunner().invoke(tritonpipe, [command, "--help"])
    assert shown.exit_code == 0
    assert "Examples:" in shown.output
    assert f"tritonpipe {command}" in shown.output


@pytest.mark.parametrize(
    ("options", "expected"),
    [([], "ours"), (["--env", "model"], "model"), (["--env", "ours"], "ours")],
)
def test_the_packages_of_an_export_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch, options: list[str], expected: str
) -> None:
    seen = []

    def plan(request: PromotionRequest, settings: Settings, *, progress: object) -> None:
        seen.append(settings.env)
        raise RequestError("enough was seen")

    monkeypatch.setattr("pipeline.flows.promote.plan_promotion", plan)
    CliRunner().invoke(tritonpipe, ["promote", "fraud/7", "--dry-run", *options])
    assert seen == [expected]
