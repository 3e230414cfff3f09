from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.artifacts import ModelVersion, SourceModel
from pipeline.errors import ModelError
from pipeline.flows.packing import is_allowed, may_be_packed, with_how_to_allow
from pipeline.settings import Settings


def source(*flavors: str, **tags: str) -> SourceModel:
    named = {f"tritonpipe.{name}": value for name, value in tags.items()}
    version = ModelVersion(name="m", version=1, run_id=None, source="", tags=named)
    return SourceModel(version=version, path=Path(), flavors=flavors, digest="")


@pytest.mark.parametrize(
    ("setting", "tag", "expected"),
    [
        ("off", None, False),
        ("off", "allow", False),
        ("off", "nonsense", False),
        ("tagged", None, False),
        ("tagged", "allow", True),
        ("tagged", "deny", False),
        ("on", None, True),
        ("on", "allow", True),
        ("on", "deny", False),
    ],
)
def test_a_tag_counts_only_if_the_setting_lets_it(
    setting: str, tag: str | None, *, expected: bool
) -> None:
    tags = {} if tag is None else {"tritonpipe.pyfunc": tag}
    assert is_allowed(setting, tags) is expected


def test_it_is_off_unless_somebody_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITONPIPE_PYFUNC", raising=False)
    assert not may_be_packed(source("python_function", pyfunc="allow"), Settings())


@pytest.mark.parametrize("setting", ["tagged", "on"])
def test_a_tag_that_says_something_else_is_told(setting: str) -> None:
    with pytest.raises(ModelError, match=r"tritonpipe\.pyfunc of the model version is 'yes'"):
        is_allowed(setting, {"tritonpipe.pyfunc": "yes"})


def test_only_a_model_with_python_code_can_be_packed() -> None:
    settings = Settings(pyfunc="on")
    assert may_be_packed(source("python_function", "spacy"), settings)
    assert not may_be_packed(source("onnx"), settings)


def test_the_error_of_a_model_without_exporter_says_how_to_allow_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("MLmodel").write_text("signature: { inputs: '[]' }", encoding="utf-8")
    error = ModelError("there are no exporters for it", hint="log it with another flavor")
    told = with_how_to_allow(error, source("python_function"))
    assert told.message == error.message
    assert told.hint.startswith("log it with another flavor; or let Triton run")
    assert "TRITONPIPE_PYFUNC=tagged and the tag tritonpipe.pyfunc=allow" in told.hint
    assert with_how_to_allow(error, source("onnx")) is error
