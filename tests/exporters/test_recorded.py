"""Samples that a model carries: all are compared, none is misread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.artifacts import Export, ModelVersion, SourceModel
from pipeline.checks.gate import check_export
from pipeline.errors import ModelError
from pipeline.exporters import Exported, recorded
from pipeline.exporters.answers import keep_answers
from pipeline.exporters.recorded import recorded_samples
from pipeline.onnx_graph import onnx_model
from pipeline.samples import Samples, load_samples

EXAMPLE = np.array([[0.5, 0.25], [0.75, 0.5], [0.125, 1]], np.float32)
TABLE = pd.DataFrame(
    {
        "city": ["Oslo", "Rome"],
        "age": [20, 60],
        "income": [1.5, np.nan],
        "member": [True, False],
        "size": pd.Categorical(["S", "M"], categories=["S", "M", "L"]),
        "points": pd.array([1, None], dtype="Int64"),
    }
)


@pytest.fixture
def source(tmp_path: Path) -> SourceModel:
    folder = tmp_path / "model"
    (folder / "extra_files").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}")
    version = ModelVersion(name="m", version=1, run_id=None, source="", tags={})
    return SourceModel(version=version, path=folder, flavors=(), digest="sha256:0")


@pytest.fixture
def export(source: SourceModel, tmp_path: Path) -> Callable[..., Export]:
    """Of an original that doubles; the graph is wrong where the first column is above a bound."""

    def run(wrong_above: float, ask: Callable[[Any], Samples] | None = None) -> Export:
        folder = tmp_path / f"exported-{wrong_above}"
        (folder / "onnx").mkdir(parents=True)
        nodes = [
            helper.make_node("Add", ["x", "x"], ["twice"]),
            helper.make_node("Greater", ["x", "bound"], ["is_above"]),
            helper.make_node("Cast", ["is_above"], ["error"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["twice", "error"], ["y"]),
        ]
        tensors = [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 2]) for n in ("x", "y")
        ]
        bound = numpy_helper.from_array(np.array(wrong_above, np.float32), "bound")
        graph = helper.make_graph(nodes, "g", tensors[:1], tensors[1:], [bound])
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.save(model, folder / "onnx" / "model.onnx")
        exported = Exported(
            onnx=onnx_model(folder / "onnx", source=source, flavor="plain", packages=["onnx"]),
            example=EXAMPLE,
            origin="logged",
            ask=ask or doubled,
        )
        return keep_answers(exported, source, folder)

    return run


def doubled(values: Any) -> Samples:
    return Samples(inputs={"x": values}, outputs={"y": values + values})


def read(source: SourceModel, example: Any) -> Any:
    (found,) = recorded_samples(source, example)
    assert found.rows == len(next(iter(found.values.values())) if isinstance(found.values, dict)
                             else found.values)  # fmt: skip
    return found.values


def test_a_graph_that_is_wrong_only_where_samples_were_recorded_is_refused(
    source: SourceModel, export: Callable[..., Export]
) -> None:
    assert check_export(export(49.0)).ok, "nothing that was made up comes near 50"
    rows = np.tile(EXAMPLE, (400, 1))
    rows[777] = 50
    np.savez(source.path / "extra_files" / "serving_samples.npz", rows)
    report = check_export(export(49.5))
    assert not report.ok
    assert "1200 samples logged in extra_files/serving_samples.npz" in report.problems[0]
    assert any(c.failing_rows == (777,) for c in report.comparisons)
    honest = check_export(export(51.0))
    assert honest.ok
    assert honest.samples_origin == (
        "logged and 1200 samples logged in extra_files/serving_samples.npz"
    )


def test_more_than_can_be_compared_are_spread_evenly_and_told(
    source: SourceModel, export: Callable[..., Export], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "MOST_ROWS", 300)
    rows = np.arange(2000, dtype=np.float32).reshape(1000, 2)
    np.savez(source.path / "serving_samples.npz", rows)
    kept = export(1e9)
    assert kept.recorded == "300 of 1000 samples logged in serving_samples.npz"
    inputs = load_samples(kept.probes[-1].samples).inputs["x"]
    assert len(inputs) == 300
    assert (inputs[0] == rows[0]).all()
    assert (inputs[-1] == rows[-1]).all()
    assert np.diff(inputs[:, 0]).max() <= 8
    monkeypatch.setattr(recorded, "MOST_BYTES", 160)
    assert export(1e8).recorded.startswith("10 of 1000 samples"), "16 bytes for each row"


def test_what_the_original_refuses_is_told_and_all_of_it_is_an_error(
    source: SourceModel, export: Callable[..., Export]
) -> None:
    def strict(values: Any) -> Samples:
        if (values > 900).any():
            raise ModelError("too large")
        return doubled(values)

    rows = np.zeros((500, 2), np.float32)
    rows[[3, 400, 499]] = 1000
    np.savez(source.path / "serving_samples.npz", rows)
    kept = export(1e9, strict)
    assert kept.recorded == (
        "500 samples logged in serving_samples.npz; 3 that the original refuses left out: too large"
    )
    assert load_samples(kept.probes[-1].samples).rows == 497
    np.savez(source.path / "serving_samples.npz", rows[[3]])
    with pytest.raises(ModelError, match=r"refuses every one of the samples .*: too large"):
        export(1e8, strict)


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_table_comes_back_as_it_was(source: SourceModel, kind: str) -> None:
    file = source.path / "extra_files" / f"serving_samples.{kind}"
    table = TABLE.assign(city=["007", "NA"])[["age", *TABLE.columns.drop("age")]]
    if kind == "csv":
        table.to_csv(file, index=False)
    else:
        table.to_json(file, orient="split", index=False)
    pd.testing.assert_frame_equal(read(source, TABLE), table[list(TABLE.columns)])


def test_arrays_come_back_in_the_types_of_the_example(source: SourceModel) -> None:
    example = {"ids": np.ones((2, 3), np.int64), "text": np.array([["a"]], dtype=object)}
    np.savez(source.path / "serving_samples.npz", ids=np.eye(4, dtype=np.int8),
             text=np.array([["x"], ["y"], ["z"], ["w"]]))  # fmt: skip
    found = read(source, example)
    assert {name: array.dtype for name, array in found.items()} == {"ids": "int64", "text": "O"}
    assert found["text"].ravel().tolist() == ["x", "y", "z", "w"]


def test_a_table_of_numbers_fits_a_matrix(source: SourceModel) -> None:
    pd.DataFrame({"a": [1, 2], "b": [0.5, 3]}).to_csv(
        source.path / "serving_samples.csv", index=False
    )
    np.testing.assert_array_equal(read(source, EXAMPLE), np.array([[1, 0.5], [2, 3]], np.float32))
    assert read(source, {"x": EXAMPLE})["x"].dtype == np.float32


def test_several_files_are_several_samples(source: SourceModel) -> None:
    for number, folder in enumerate((source.path, source.path / "extra_files")):
        np.savez(folder / f"serving_samples.{number}.npz", EXAMPLE)
    (source.path / "other.npz").write_bytes(b"")
    assert [found.file for found in recorded_samples(source, EXAMPLE)] == [
        "serving_samples.0.npz",
        "extra_files/serving_samples.1.npz",
    ]


def test_no_file_no_samples(source: SourceModel) -> None:
    assert not list(recorded_samples(source, EXAMPLE))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"age": ["old", "older"]}, "ValueError|could not convert|invalid literal"),
        ({"age": [1.5, 2]}, "column 'age' holds .*1.5.*, which is no int64"),
        ({"age": [1, None]}, "NaN|NA|non-finite"),
        ({"member": ["yes", "no"]}, "column 'member' holds 'yes', which is no bool"),
        ({"size": ["S", "XL"]}, "column 'size' holds 'XL', which is no category"),
        ({"more": [1, 2]}, r"missing nothing, unknown to the model \['more'\]"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_the_reason(
    source: SourceModel, change: dict[str, Any], reason: str
) -> None:
    TABLE.assign(**change).to_csv(source.path / "serving_samples.csv", index=False)
    with pytest.raises(ModelError, match=reason) as raised:
        read(source, TABLE)
    assert raised.value.message.startswith(
        "the samples in serving_samples.csv of m/1 cannot be used: "
    )


@pytest.mark.parametrize(
    ("arrays", "example", "reason"),
    [
        ({"a": EXAMPLE, "b": EXAMPLE}, EXAMPLE, r"takes one array, the file has \['a', 'b'\]"),
        ({"a": EXAMPLE[0]}, EXAMPLE, r"has 1 dimensions \[2\], the input example 2"),
        ({"a": EXAMPLE}, {"a": EXAMPLE, "b": EXAMPLE}, r"missing \['b'\]"),
        ({"a": EXAMPLE, "b": EXAMPLE[:1]}, {"a": EXAMPLE, "b": EXAMPLE}, r"\[1, 3\] rows"),
        ({"a": EXAMPLE}, np.ones((1, 2), np.int64), "holds values that are no int64"),
        ({"a": EXAMPLE[:0]}, EXAMPLE, "it has no rows"),
        ({"a": EXAMPLE}, TABLE, "takes a DataFrame"),
        ({"a": np.array([[{}]], dtype=object)}, EXAMPLE, "Object arrays cannot be loaded"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_the_reason(
    source: SourceModel, arrays: dict[str, Any], example: Any, reason: str
) -> None:
    np.savez(source.path / "serving_samples.npz", **arrays)
    with pytest.raises(ModelError, match=reason):
        read(source, example)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("serving_samples.pkl", b"cos\nsystem\n(S'true'\ntR.", "is not among .csv, .json and .npz"),
        ("serving_samples.npz", b"PK", "BadZipFile"),
        ("serving_samples.json", b"[1, 2]", "no 'columns' and 'data'"),
        ("serving_samples.json", b"{", "JSONDecodeError"),
        ("serving_samples.csv", b"", "EmptyDataError"),
    ],
)
def test_what_is_no_file_of_samples_is_refused(
    source: SourceModel, name: str, content: bytes, reason: str
) -> None:
    (source.path / name).write_bytes(content)
    with pytest.raises(ModelError, match=reason):
        read(source, EXAMPLE)


def test_a_flood_is_refused_before_it_is_read(
    source: SourceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(source.path / "serving_samples.npz", np.zeros((2**18, 2), np.float64))
    monkeypatch.setattr(recorded, "MOST_FILE_BYTES", 2**20)
    with pytest.raises(ModelError, match="it has 4 MiB, at most 1 MiB are read"):
        read(source, EXAMPLE)
