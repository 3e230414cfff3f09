"""What holds for a model is shown with where it comes from, with and without MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.artifacts import ModelVersion, PromotionRequest
from pipeline.cli import tritonpipe
from pipeline.errors import RequestError, UnavailableError
from pipeline.registries import RegisteredModel
from pipeline.registries.mlflow import MlflowRegistry

TAGS = {"tritonpipe.instances": "2", "tritonpipe.max_batch_size": "8", "tritonpipe.device": "gpu"}
MODEL_TAGS = {"tritonpipe.instances": "3", "tritonpipe.allowed_row_fraction": "all"}


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A registry with the model ``fraud``, of which ``champion`` is version 7; and a file."""

    def registered_model(_self: object, name: str) -> RegisteredModel:
        if name not in {"fraud", "new"}:
            raise RequestError(f"there is no registered model {name!r}")
        aliases = {"champion": 7} if name == "fraud" else {}
        return RegisteredModel(name=name, aliases=aliases, tags=MODEL_TAGS)

    def resolve(_self: object, request: PromotionRequest) -> ModelVersion:
        if request.version == 9:
            raise RequestError("registered model 'fraud' has no version 9")
        number = request.version or 7
        return ModelVersion(
            name=request.model,
            version=number,
            run_id=None,
            source="",
            tags=TAGS if number == 7 else {},
            model_tags=MODEL_TAGS,
        )

    file = tmp_path / "t.toml"
    file.write_text("[models.fraud]\nmax_batch_size = 32\n[defaults]\nconfirm_seconds = 5\n")
    monkeypatch.setenv("TRITONPIPE_CONFIG", str(file))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(MlflowRegistry, "registered_model", registered_model)
    monkeypatch.setattr(MlflowRegistry, "resolve", resolve)


def shown(*arguments: str) -> Any:
    done = CliRunner().invoke(
        tritonpipe, ["config", "show", *arguments, "--json"], catch_exceptions=False
    )
    assert done.exit_code == 0
    return json.loads(done.stdout)


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("model", ["fraud", "fraud@champion", "fraud/7"])
def test_every_value_tells_where_it_comes_from(model: str) -> None:
    found = shown(model)
    settings = found["settings"]
    assert settings["instances"] == {
        "value": 2,
        "from": "tritonpipe.instances of version fraud/7",
    }
    assert settings["max_batch_size"]["value"] == 32
    assert settings["max_batch_size"]["from"].endswith('[models."fraud"]')
    assert settings["confirm_seconds"]["from"].endswith("[defaults]")
    assert settings["device"] == {"value": "cpu", "from": "default"}
    assert settings["allowed_row_fraction"] == {"value": 0.0, "from": "default"}
    assert [(tag["key"].removeprefix("tritonpipe."), tag["verdict"]) for tag in found["tags"]] == [
        ("device", "not the author's"),
        ("instances", "counts"),
        ("max_batch_size", "overridden"),
        ("allowed_row_fraction", "wrong"),
        ("instances", "overridden"),
    ]
    assert found["tags"][2]["reason"].endswith('[models."fraud"] says 32')
    assert found["problem"] == ""


@pytest.mark.usefixtures("registry")
def test_as_what_and_after_what_a_model_is_served(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "served.toml"
    file.write_text(
        '[models."fraud"]\nserve = { champion = "{model}-a", challenger = "b" }\n'
        'requires = { ok = "yes" }\nmetrics = { auc = ">= 0.9" }\n[models."new"]\nwatch = false\n'
    )
    monkeypatch.setenv("TRITONPIPE_CONFIG", str(file))
    where = f'{file}, [models."fraud"]'
    assert shown("fraud")["serving"] == {
        "aliases": {"value": {"champion": "fraud-a", "challenger": "b"}, "from": where},
        "requires": {"value": {"ok": "yes"}, "from": where},
        "metrics": {"value": {"auc": ">= 0.9"}, "from": where},
    }
    left_alone = {"value": "left alone", "from": f'{file}, [models."new"]'}
    assert shown("new")["serving"]["aliases"] == left_alone
    monkeypatch.delenv("TRITONPIPE_CONFIG")
    monkeypatch.chdir(tmp_path)
    default = {"value": {"champion": "fraud"}, "from": "default"}
    assert shown("fraud")["serving"]["aliases"] == default


@pytest.mark.usefixtures("registry")
def test_a_person_sees_the_tags_and_what_they_do() -> None:
    done = CliRunner().invoke(tritonpipe, ["config", "show", "fraud"], catch_exceptions=False)
    for words in ("tritonpipe.device", "not the author's", "overridden", "fraud/7 says '2'"):
        assert words in done.stdout
    assert "no version is published with the tag tritonpipe.allowed_row_fraction='all'" in (
        done.stderr
    )


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("postgresql://me:p@ss/w0rd@db/locks", "postgresql://…@db/locks"),
        (
            "postgresql://db/locks?password=s3cret&user=me",
            "postgresql://db/locks?password=…&user=me",
        ),
        ("/var/lock/models@home", "/var/lock/models@home"),
    ],
)
def test_no_password_is_shown(monkeypatch: pytest.MonkeyPatch, address: str, told: str) -> None:
    monkeypatch.setenv("TRITONPIPE_LOCK", address)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:s3cret@mlflow.example.org:1")
    settings = shown("fraud")["settings"]
    assert settings["lock"]["value"] == told
    assert settings["tracking_uri"]["value"] == "https://…@mlflow.example.org:1"


@pytest.mark.usefixtures("registry")
def test_another_version_has_its_own_tags_and_a_model_without_alias_none() -> None:
    assert shown("fraud/8")["settings"]["instances"]["value"] == 3
    found = shown("new")
    assert found["settings"]["instances"]["value"] == 3
    assert "has the alias 'champion'" in found["problem"]


@pytest.mark.usefixtures("registry")
def test_what_is_not_registered_is_told_and_an_exact_version_must_exist() -> None:
    found = shown("frail")
    assert found["tags"] == []
    assert "there is no registered model 'frail'" in found["problem"]
    with pytest.raises(RequestError, match="no version 9"):
        shown("fraud/9")


@pytest.mark.usefixtures("registry")
def test_without_an_answer_of_mlflow_the_rest_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "MLFLOW_TRACKING_URI is not set"
    for problem in ("MLflow does not answer", ""):
        if problem:

            def resolve(_self: object, _request: object, told: str = problem) -> ModelVersion:
                raise UnavailableError(told)

            monkeypatch.setattr(MlflowRegistry, "resolve", resolve)
        else:
            monkeypatch.delenv("MLFLOW_TRACKING_URI")
        found = shown("fraud/7")
        assert found["problem"] == f"tags are not known: {problem or expected}"
        assert found["settings"]["max_batch_size"]["value"] == 32
        assert found["tags"] == []
