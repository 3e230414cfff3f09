"""What the original is asked besides its example, with originals that are plain functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper

from pipeline.artifacts import Export, ModelVersion, OnnxModel, SourceModel
from pipeline.errors import ModelError
from pipeline.exporters import Exported
from pipeline.exporters import answers as answers_module
from pipeline.exporters.answers import keep_answers
from pipeline.exporters.probes import UNSEEN_WORD
from pipeline.onnx_graph import onnx_model
from pipeline.samples import Samples, load_samples

MATRIX = np.array([[0, 1.5, 3], [1, -2.5, 7], [1, 0.25, 5]], np.float32)
"""A flag, a number and a whole number."""
TOKENS = np.array([[3, 1, 4, 1], [5, 9, 2, 6]], np.int64)
PEOPLE = pd.DataFrame(
    {
        "city": ["Oslo", "Rome", None],
        "age": [20, 60, 40],
        "income": [1.5, np.nan, 4.25],
        "debt": [0.5, 1.5, 2.5],
        "member": [True, False, True],
        "size": pd.Categorical(["S", "M", "S"], categories=["S", "M", "L"]),
        "points": pd.array([1, None, 3], dtype="Int64"),
    }
)
SIGNATURE = """
flavors: {}
signature:
  inputs: '[{"type": "double", "name": "debt", "required": false},
            {"type": "long", "name": "age", "required": true}]'
"""


def graph(folder: Path, shapes: dict[str, list[Any]], kind: int, source: SourceModel) -> OnnxModel:
    """A graph with these inputs; nobody runs it here."""
    inputs = [helper.make_tensor_value_info(n, kind, shape) for n, shape in shapes.items()]
    first = next(iter(shapes))
    output = helper.make_tensor_value_info("y", kind, shapes[first])
    node = helper.make_node("Identity", [first], ["y"])
    model = helper.make_model(
        helper.make_graph([node], "g", inputs, [output]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    (folder / "onnx").mkdir()
    onnx.save(model, folder / "onnx" / "model.onnx")
    return onnx_model(folder / "onnx", source=source, flavor="plain", packages=["onnx"])


class Asked:
    """An original that remembers what it was asked."""

    def __init__(self, refuse: Callable[[Any], str] = lambda values: "") -> None:
        self.refuse = refuse
        self.seen: list[Any] = []

    def __call__(self, values: Any) -> Samples:
        reason = self.refuse(values)
        if reason:
            raise ModelError(reason)
        self.seen.append(values)
        if hasattr(values, "columns"):
            values = values[values["city"].notna()]
            inputs = {str(n): values[n].to_numpy().reshape(-1, 1) for n in values.columns}
            inputs["size"] = values["size"].astype(str).to_numpy(object).reshape(-1, 1)
            inputs["points"] = values["points"].to_numpy(np.float64, na_value=np.nan).reshape(-1, 1)
            return Samples(inputs=inputs, outputs={"y": inputs["age"]})
        inputs = values if isinstance(values, dict) else {"x": values}
        return Samples(inputs=inputs, outputs={"y": next(iter(inputs.values()))})


@pytest.fixture
def source(tmp_path: Path) -> SourceModel:
    (tmp_path / "MLmodel").write_text(SIGNATURE)
    version = ModelVersion(name="m", version=1, run_id=None, source="", tags={})
    return SourceModel(version=version, path=tmp_path, flavors=(), digest="sha256:0")


@pytest.fixture
def keep(source: SourceModel, tmp_path: Path) -> Callable[..., Export]:
    def run(
        example: Any, ask: Asked, shapes: Any, kind: int = TensorProto.FLOAT, out: str = "out"
    ) -> Export:
        (tmp_path / out).mkdir()
        described = graph(tmp_path / out, shapes, kind, source)
        exported = Exported(onnx=described, example=example, origin="logged", ask=ask)
        return keep_answers(exported, source, tmp_path / out)

    return run


def probes(export: Export) -> dict[str, Samples]:
    return {probe.origin: load_samples(probe.samples) for probe in export.probes}


TABLE: dict[str, list[Any]] = {"x": ["n", 3]}
FRAME: dict[str, list[Any]] = {"age": ["n", 1]}


def test_a_table_is_asked_about_more_than_two_hundred_rows_of_its_form(
    keep: Callable[..., Export],
) -> None:
    export = keep(MATRIX, Asked(), TABLE)
    within, around = (samples.inputs["x"] for samples in probes(export).values())
    assert len(within) + len(around) > 200
    for rows in (within, around):
        assert rows.dtype == np.float32
        assert set(rows[:, 0]) == {0.0, 1.0}
        assert (rows[:, 2] == np.rint(rows[:, 2])).all()
    assert (within.min(axis=0) >= MATRIX.min(axis=0)).all()
    assert (within.max(axis=0) <= MATRIX.max(axis=0)).all()
    assert around[:, 1].min() < -2.5
    assert around[:, 1].max() > 1.5
    assert np.ptp(around[:, 1]) <= 1.2 * 4.0 + 1e-6
    assert {2.0, 8.0} <= set(around[:, 2])
    assert len(np.unique(within[:, 1])) > 50


def test_the_same_example_gives_the_same_files(keep: Callable[..., Export]) -> None:
    first, second = (keep(MATRIX, Asked(), TABLE, out=name) for name in ("a", "b"))
    assert [p.samples.read_bytes() for p in first.probes] == [
        p.samples.read_bytes() for p in second.probes
    ]
    assert first.files[1:] == (first.samples, *(p.samples for p in first.probes))


def test_columns_keep_their_types_and_only_floats_go_missing(keep: Callable[..., Export]) -> None:
    ask = Asked()
    export = keep(PEOPLE, ask, FRAME)
    example, *asked = ask.seen
    assert example is PEOPLE
    assert len(asked) == len(export.probes) == 4
    for frame in asked:
        assert dict(frame.dtypes) == dict(PEOPLE.dtypes)
        assert set(frame["city"]) <= {"Oslo", "Rome", UNSEEN_WORD}
        assert set(frame["size"]) <= {"S", "M"}
        assert set(frame["points"].dropna()) <= {1, 3}
        numbers = frame[["income", "debt"]].to_numpy()
        np.testing.assert_array_equal(numbers, numbers.astype(np.float32))
    assert any(frame["debt"].isna().any() for frame in asked)
    assert any(frame["income"].isna().any() for frame in asked)
    assert any((frame["age"] > 60).any() for frame in asked)
    assert any((frame["city"] == UNSEEN_WORD).any() for frame in asked)


def test_a_refused_word_is_told_and_left_out(keep: Callable[..., Export]) -> None:
    def strict(values: Any) -> str:
        return "unknown category" if UNSEEN_WORD in set(values["city"]) else ""

    export = keep(PEOPLE, Asked(strict), FRAME)
    words = [origin for origin in probes(export) if "'city'" in origin]
    (told,) = words
    assert told.endswith("; 16 that the original refuses left out: unknown category")
    assert UNSEEN_WORD not in set(probes(export)[told].inputs["city"].ravel())


def test_rows_that_are_refused_do_not_take_the_others_with_them(
    keep: Callable[..., Export],
) -> None:
    def below(values: Any) -> str:
        return "larger than 7" if values[:, 2].max() > 7 else ""

    export = keep(MATRIX, Asked(below), TABLE)
    origins = list(probes(export))
    assert "left out" not in origins[0]
    assert "that the original refuses left out: larger than 7" in origins[1]
    assert probes(export)[origins[1]].inputs["x"][:, 2].max() <= 7


def test_probes_that_are_refused_altogether_are_told(keep: Callable[..., Export]) -> None:
    export = keep(MATRIX, Asked(lambda values: "" if values is MATRIX else "no"), TABLE)
    assert not export.probes
    assert len(export.left_out) == 2
    assert all(told.endswith("the original refuses them: no") for told in export.left_out)


def test_an_original_that_refuses_its_own_example_is_an_error(keep: Callable[..., Export]) -> None:
    with pytest.raises(ModelError, match="no"):
        keep(MATRIX, Asked(lambda values: "no"), TABLE)


def test_answers_of_another_type_are_left_out(keep: Callable[..., Export]) -> None:
    def ask(values: Any) -> Samples:
        kind = np.float32 if values is MATRIX else np.int64
        return Samples(inputs={"x": values}, outputs={"y": values.astype(kind)})

    export = keep(MATRIX, ask, TABLE)
    assert not export.probes
    assert "y would be of another type" in export.left_out[0]


def test_tokens_stay_in_the_vocabulary_and_get_other_lengths(keep: Callable[..., Export]) -> None:
    ask = Asked(lambda values: "index" if values["ids"].max() > 9 else "")
    example = {"ids": TOKENS, "mask": np.ones_like(TOKENS)}
    shapes = {"ids": ["batch", "length"], "mask": ["batch", "length"]}
    export = keep(example, ask, shapes, TensorProto.INT64)
    found = [samples.inputs for samples in probes(export).values()]
    assert [inputs["ids"].shape[1] for inputs in found] == [4, 4, 2, 9, 1]
    assert all(inputs["ids"].shape == inputs["mask"].shape for inputs in found)
    assert all(set(inputs["mask"].ravel()) == {1} for inputs in found)
    assert found[0]["ids"].min() >= 1
    assert list(probes(export))[2] == "dimension 1 of 'ids' and dimension 1 of 'mask' of size 2"


def test_dimensions_with_different_names_that_must_agree_change_together(
    keep: Callable[..., Export],
) -> None:
    ask = Asked(lambda values: "" if values["a"].shape == values["b"].shape else "unequal")
    shapes = {"a": ["n", "s"], "b": ["n", "t"]}
    export = keep({"a": TOKENS, "b": TOKENS}, ask, shapes, TensorProto.INT64)
    sizes = [origin for origin in probes(export) if origin.startswith("dimension")]
    assert [origin.rsplit(" ", 1)[1] for origin in sizes] == ["2", "9", "1"]
    assert export.left_out == (
        "dimension 1 of 'a': of other sizes, the original takes none: unequal",
        "dimension 1 of 'b': of other sizes, the original takes none: unequal",
    )


def test_a_model_that_takes_multiples_only_gets_multiples(keep: Callable[..., Export]) -> None:
    ask = Asked(lambda values: "multiple of 4" if values["x"].shape[1] % 4 else "")
    export = keep({"x": TOKENS}, ask, {"x": ["n", "s"]}, TensorProto.INT64)
    shapes = {samples.inputs["x"].shape[1] for samples in probes(export).values()}
    assert shapes == {4, 8, 16, 12}
    assert not export.left_out


def test_a_first_dimension_that_is_no_batch_gets_other_sizes_too(
    keep: Callable[..., Export], source: SourceModel
) -> None:
    shapes = {"x": ["s", 3], "fixed": [2, 2]}
    example = {"x": MATRIX, "fixed": np.ones((2, 2), np.float32)}
    export = keep(example, Asked(), shapes)
    assert {s.inputs["x"].shape[0] for s in probes(export).values()} == {3, 1, 7, 4}
    assert {s.inputs["fixed"].shape[0] for s in probes(export).values()} == {2}


def test_large_rows_are_fewer_and_the_whole_is_bounded(
    keep: Callable[..., Export], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(0).normal(size=(2, 3, 256, 256)).astype(np.float32)
    export = keep(image, Asked(), {"x": ["n", 3, "h", "w"]})
    total = sum(samples.nbytes for samples in probes(export).values())
    assert 0 < total <= 16 * 2**20
    monkeypatch.setattr(answers_module, "MOST_BYTES", 2**20)
    bounded = keep(image, Asked(), {"x": ["n", 3, "h", "w"]}, out="again")
    assert any("more than 1 MiB of probes" in told for told in bounded.left_out)


@pytest.mark.parametrize(
    ("kind", "is_exact"), [(TensorProto.FLOAT, True), (TensorProto.DOUBLE, False)]
)
def test_numbers_are_as_fine_as_requests_carry_them(
    keep: Callable[..., Export], kind: int, *, is_exact: bool
) -> None:
    """Seconds since 1970 need FP64, and then probes must tell them apart too."""
    seconds = np.array([[1.7e9 + 0.125], [1.7e9 + 97.5], [1.7e9 + 50.25]])
    (probe, _) = probes(keep(seconds, Asked(), {"x": ["n", 1]}, kind)).values()
    found = probe.inputs["x"]
    assert found.dtype == np.float64
    assert np.array_equal(found, found.astype(np.float32)) is is_exact
    assert len(np.unique(found)) < 4 if is_exact else len(np.unique(found)) > 50


def test_numbers_without_end_stay_numbers(keep: Callable[..., Export]) -> None:
    ends = np.array([[-1.7e308, 1], [1.7e308, 2], [np.inf, 3], [np.nan, 4]])
    for kind in (TensorProto.FLOAT, TensorProto.DOUBLE):
        found = probes(keep(ends, Asked(), {"x": ["n", 2]}, kind, out=str(kind)))
        fresh = next(iter(found.values())).inputs["x"]
        assert np.isfinite(fresh[:, 1]).all()
        assert np.isnan(fresh[:, 0]).any()


def test_an_example_of_a_strange_form_is_told(keep: Callable[..., Export]) -> None:
    def ask(values: Any) -> Samples:
        return Samples(inputs={"x": MATRIX}, outputs={"y": MATRIX})

    export = keep([[1.0, 2.0, 3.0]], ask, TABLE)
    assert export.left_out == ("no further inputs could be made from an example of this form",)
