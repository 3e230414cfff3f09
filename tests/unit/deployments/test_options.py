"""What a call's config and the environment come to."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from pipeline.deployments.help import HELP
from pipeline.deployments.options import (
    GOLDEN,
    SETTINGS,
    STATE_DIRECTORY,
    options_from_config,
)
from pipeline.errors import RequestError, SettingsError
from pipeline.flows.serving_options import differences, serving_options
from pipeline.model_config import model_config
from pipeline.settings import Settings
from pipeline.tensors import DataType, TensorSpec

X = (TensorSpec(name="X", data_type=DataType.FP32, shape=(-1, 3)),)


@pytest.fixture(autouse=True)
def _no_variables_of_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRITON_URL", "TRITON_MODEL_REPO"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")


@pytest.mark.parametrize("config", [{"max_batch_size": "16"}, {"max_batch_size": 16}])
def test_text_and_numbers_mean_the_same(config: dict[str, Any]) -> None:
    options = options_from_config(config)
    assert options.settings.max_batch_size == 16
    assert options.serving == {"max_batch_size"}
    assert options.settings.tracking_uri == "http://mlflow:5000"


def test_the_config_counts_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONPIPE_INSTANCES", "3")
    monkeypatch.setenv("TRITONPIPE_MAX_BATCH_SIZE", "5")
    settings = options_from_config({"instances": "2", "preferred_batch_sizes": [2, 4]}).settings
    found = (settings.instances, settings.max_batch_size, settings.preferred_batch_sizes)
    assert found == (2, 5, (2, 4))


def test_without_any_registry_the_missing_variable_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(SettingsError, match="MLFLOW_TRACKING_URI is not set"):
        options_from_config({}).settings.required("tracking_uri")


def test_the_config_counts_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tritonpipe.toml"
    file.write_text(
        '[defaults]\nrepository = "s3://models/file"\ninstances = 4\n'
        '[models."fraud"]\nmax_batch_size = 7\ninstances = 5\nmax_queue_delay_microseconds = 6\n'
    )
    monkeypatch.setenv("TRITONPIPE_CONFIG", str(file))
    monkeypatch.setenv("TRITONPIPE_MAX_BATCH_SIZE", "8")
    options = options_from_config({"max_queue_delay_microseconds": 9})
    fraud, other = options.settings_of("fraud"), options.settings_of("other")
    found = (fraud.instances, fraud.max_batch_size, fraud.max_queue_delay_microseconds)
    assert found == (5, 8, 9)
    assert (other.instances, other.repository) == (4, "s3://models/file")
    assert (fraud.tracking_uri, fraud.repository) == ("http://mlflow:5000", "s3://models/file")


def test_tolerances_of_the_config_are_explicit() -> None:
    settings = options_from_config({"relative_tolerance": "0.01"}).settings
    assert settings.explicit("relative_tolerance", "absolute_tolerance") == {
        "relative_tolerance": 0.01
    }


def test_unknown_names_and_wrong_values_are_told_by_name() -> None:
    with pytest.raises(RequestError, match="'batch', 'repository', which is no option"):
        options_from_config({"repository": "x", "batch": 1})
    with pytest.raises(RequestError, match=r"instances: .* found 'many'"):
        options_from_config({"instances": "many"})


def test_a_version_is_taken_as_by_nvidias_plugin_and_told_to_have_no_effect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert options_from_config({"version": "1"}) == options_from_config({})
    assert "version=1 has no effect" in caplog.text


def test_the_help_names_every_option() -> None:
    assert {name for name in (*SETTINGS, GOLDEN, STATE_DIRECTORY) if name not in HELP} == set()


def test_the_variables_of_nvidias_plugin_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_MODEL_REPO", "s3://models/repository")
    monkeypatch.setenv("TRITON_URL", "http://triton.example:9000")
    settings = options_from_config(None).settings
    assert settings.repository == "s3://models/repository"
    assert settings.triton_http == "triton.example:9000"
    assert settings.triton_grpc == "triton.example:9001"
    monkeypatch.setenv("TRITONPIPE_REPOSITORY", "s3://ours/r")
    monkeypatch.setenv("TRITONPIPE_TRITON_HTTP", "here:1")
    settings = options_from_config(None).settings
    assert (settings.repository, settings.triton_http) == ("s3://ours/r", "here:1")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("TRITON_MODEL_REPO", "s3://http://minio:9000/bucket/prefix", "at once"),
        ("TRITON_MODEL_REPO", "s3://minio:9000/bucket/prefix", "at once"),
        ("TRITON_URL", "https://triton", "without TLS"),
    ],
)
def test_what_cannot_be_taken_over_is_told(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=message) as raised:
        options_from_config({})
    if "s3" in value:
        assert "AWS_ENDPOINT_URL=http://minio:9000 TRITON_MODEL_REPO=s3://bucket/prefix" in (
            raised.value.hint
        )


@pytest.mark.parametrize("is_batching", [True, False])
def test_the_options_of_a_config_are_those_it_was_made_with(is_batching: bool) -> None:
    made = Settings(max_batch_size=8, preferred_batch_sizes=(4, 2, 16), instances=2)
    config = model_config(
        name="m",
        version=1,
        backend="onnxruntime",
        inputs=X,
        outputs=X,
        is_batching=is_batching,
        options=serving_options(made),
        warmup=(),
    )
    names = frozenset(SETTINGS[:5])
    assert differences(config, made, names) == []
    other = Settings(max_batch_size=9, instances=1, device="gpu")
    found = differences(config, other, names)
    batching = ["max_batch_size 8 (not 9)", "preferred_batch_sizes 2,4 (not none)"]
    always = ["instances 2 (not 1)", "device cpu (not gpu)"]
    assert found == (batching if is_batching else []) + always
    assert differences(config, other, frozenset({"instances"})) == always[:1]
