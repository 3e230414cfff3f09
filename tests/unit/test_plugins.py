from __future__ import annotations

from importlib.metadata import EntryPoint, distribution

import pytest

from pipeline import plugins
from pipeline.errors import DependencyError
from pipeline.plugins import kinds, load_kind


def test_our_kinds_are_found_and_loaded() -> None:
    assert set(kinds("exporters")) >= {"onnx", "pytorch", "sklearn"}
    assert load_kind("exporters", "onnx").flavor == "onnx"


def test_a_kind_that_cannot_be_imported_names_where_it_comes_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As importlib.metadata does it: the distribution is not part of the constructor.
    point = EntryPoint("keras", "no_such_package.exporter:Keras", "tritonpipe.exporters")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    with pytest.raises(DependencyError, match="no_such_package") as caught:
        load_kind("exporters", "keras")
    assert "no_such_package.exporter:Keras" in caught.value.hint
    vars(point)["dist"] = distribution("tritonpipe")
    with pytest.raises(DependencyError) as caught:
        load_kind("exporters", "keras")
    assert caught.value.hint == "it comes from tritonpipe: install what that needs"
