from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pipeline.errors import RequestError
from pipeline.model_config import (
    ServingOptions,
    WarmupInput,
    check_name,
    config_from_text,
    model_config,
    served_version,
)
from pipeline.tensors import DataType, TensorSpec

OPTIONS = ServingOptions(
    max_batch_size=64,
    preferred_batch_sizes=(32, 8, 128),
    max_queue_delay_microseconds=100,
    instances=2,
    device="cpu",
)
CITY = TensorSpec(name="City name", data_type=DataType.STRING, shape=(-1, 1))
AGE = TensorSpec(name="age", data_type=DataType.FP32, shape=(-1, 1), optional=True)
LABEL = TensorSpec(name="label", data_type=DataType.INT64, shape=(-1,))
IMAGE = TensorSpec(name="image", data_type=DataType.FP32, shape=(1, 3, -1, -1))


def mixed(version: int = 3, options: ServingOptions = OPTIONS) -> str:
    return model_config(
        name="churn",
        version=version,
        backend="onnxruntime",
        inputs=(CITY, AGE),
        outputs=(LABEL,),
        is_batching=True,
        options=options,
        warmup=(
            WarmupInput(spec=replace(CITY, shape=(1, 1)), file="../3/warmup-0.bin"),
            WarmupInput(spec=replace(AGE, shape=(1, 1)), file="../3/warmup-1.bin"),
        ),
    )


def fixed(options: ServingOptions = OPTIONS) -> str:
    return model_config(
        name="segment",
        version=1,
        backend="onnxruntime",
        inputs=(IMAGE,),
        outputs=(
            replace(IMAGE, name="mask"),
            TensorSpec(name="score", data_type=DataType.FP16, shape=()),
        ),
        is_batching=False,
        options=options,
        warmup=(WarmupInput(spec=replace(IMAGE, shape=(1, 3, 8, 8)), file="../1/warmup-0.bin"),),
    )


def test_batching_model_is_as_the_golden_file(golden: Callable[[str, str], None]) -> None:
    golden("mixed.config.pbtxt", mixed())


def test_model_without_batching_is_as_the_golden_file(golden: Callable[[str, str], None]) -> None:
    golden("fixed.config.pbtxt", fixed(replace(OPTIONS, device="gpu")))


def test_exactly_one_version_is_served() -> None:
    assert served_version(mixed(version=7)) == 7
    assert served_version("name: 'x'") is None
    assert served_version("version_policy { specific { versions: [1, 2] } }") is None
    assert served_version("version_policy { latest { num_versions: 1 } }") is None


def test_same_arguments_give_the_same_text() -> None:
    assert mixed() == mixed()


def test_two_versions_differ_in_nothing_but_the_policy() -> None:
    a, b = config_from_text(mixed(3)), config_from_text(mixed(4))
    a.version_policy.CopyFrom(b.version_policy)
    assert a == b


def test_names_with_quotes_and_newlines_survive_the_text_form() -> None:
    name = 'say "hi"\n{ name: 1 }'
    text = model_config(
        name="m",
        version=1,
        backend="onnxruntime",
        inputs=(replace(CITY, name=name),),
        outputs=(LABEL,),
        is_batching=True,
        options=OPTIONS,
        warmup=(),
    )
    assert config_from_text(text).input[0].name == name


def test_preferred_sizes_beyond_the_largest_batch_are_left_out() -> None:
    assert list(config_from_text(mixed()).dynamic_batching.preferred_batch_size) == [8, 32]


def test_model_without_batching_has_no_batcher() -> None:
    config = config_from_text(fixed())
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")


def test_text_that_is_no_config_is_refused() -> None:
    with pytest.raises(ValueError, match="not a config"):
        config_from_text("name: {")


@pytest.mark.parametrize("name", ["fraud", "dev.fraud", "Fraud_2-b", "3d"])
def test_legal_names_pass(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("Fraud model", "Fraud-model"), (".hidden", "hidden"), ("ü", "model"), ("a" * 201, "a" * 200)],
)
def test_illegal_names_are_refused_with_a_legal_suggestion(name: str, suggestion: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_name(name)
    assert (
        caught.value.hint.endswith(f"--name {suggestion}"[:60]) or suggestion in caught.value.hint
    )
