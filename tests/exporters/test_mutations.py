"""The gate is worth what it refuses: honest exports pass, and none of their mutants does."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow.onnx
import mlflow.pytorch
import mlflow.sklearn
import mlflow.transformers
import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from mlflow.models import ModelSignature, infer_signature
from mlflow.types.schema import Schema, TensorSpec
from onnx import TensorProto, helper, numpy_helper
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn

from pipeline.artifacts import Export
from pipeline.checks.gate import check_export
from pipeline.exporters.onnx import OnnxExporter
from pipeline.exporters.pytorch import PytorchExporter
from pipeline.exporters.sklearn import SklearnExporter
from pipeline.exporters.transformers import TransformersExporter
from pipeline.exporters.transformers_pipelines import quiet
from pipeline.onnx_graph import load_graph
from pipeline.testing.exporter_contract import export_here, source_from_folder
from pipeline.testing.tiny_pipelines import tiny_example, tiny_pipeline
from pipeline.text_steps import STEP_FILE, TOKENIZER_FILE

pytestmark = [
    # Said by mlflow.pyfunc of its own type hints, by MLflow's schemas, and by torch.export.
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*contains integer column:UserWarning"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

RNG = np.random.default_rng(11)
CITIES = ["Oslo", "Rome", "Lima"]


def classifier(folder: Path) -> Export:
    """Columns of text, numbers with gaps and flags; labels and probabilities."""
    rows = 80
    frame = pd.DataFrame(
        {
            "city": RNG.choice(CITIES, rows).astype(object),
            "age": RNG.integers(18, 90, rows),
            "income": RNG.normal(3, 1, rows),
            "member": RNG.integers(0, 2, rows).astype(bool),
        }
    )
    is_good = frame["income"] * 10 + frame["age"] + 9 * (frame["city"] == "Rome") > 80
    answer = np.where(is_good, "yes", "no")
    frame.loc[::7, "income"] = np.nan
    columns = ColumnTransformer(
        [
            ("city", OneHotEncoder(handle_unknown="ignore"), ["city"]),
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "income"]),
            ("flags", "passthrough", ["member"]),
        ]
    )
    model = make_pipeline(columns, LogisticRegression()).fit(frame, answer)
    mlflow.sklearn.save_model(
        model,
        folder / "model",
        signature=infer_signature(frame, answer),
        input_example=frame[1:6],
        serialization_format="cloudpickle",
        pip_requirements=[],
    )
    return export_here(SklearnExporter(), source_from_folder(folder / "model"), out(folder))


def regressor(folder: Path) -> Export:
    """A matrix; a forest whose answers are large."""
    matrix = RNG.normal(size=(120, 4)).astype(np.float32)
    target = 40_000 * matrix[:, 0] + 20_000 * matrix[:, 1] ** 2 + 90_000
    model = RandomForestRegressor(5, max_depth=5, random_state=0).fit(matrix, target)
    mlflow.sklearn.save_model(
        model,
        folder / "model",
        signature=infer_signature(matrix, target),
        input_example=matrix[:5],
        serialization_format="cloudpickle",
        pip_requirements=[],
    )
    return export_here(SklearnExporter(), source_from_folder(folder / "model"), out(folder))


class Tagger(nn.Module):  # type: ignore[misc,unused-ignore]
    """Attention over tokens, and probabilities of four classes for each."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 8)
        self.mix = nn.Linear(8, 8, bias=False)
        self.head = nn.Linear(8, 4)

    def forward(self, ids: Any) -> Any:
        x = self.table(ids)
        attention = torch.softmax(self.mix(x) @ x.transpose(1, 2), dim=-1)
        return torch.softmax(2 * self.head(attention @ x), dim=-1)


def tagger(folder: Path) -> Export:
    """A free sequence axis."""
    torch.manual_seed(3)
    ids = RNG.integers(0, 12, (3, 5))
    mlflow.pytorch.save_model(
        Tagger().eval(),
        folder / "model",
        signature=ModelSignature(Schema([TensorSpec(np.dtype("int64"), (-1, -1), "ids")])),
        input_example=ids,
        serialization_format="pickle",
        pip_requirements=[],
    )
    return export_here(PytorchExporter(), source_from_folder(folder / "model"), out(folder))


def scorer(folder: Path) -> Export:
    """Two layers, logged as ONNX with an example."""
    tensors = {
        "first": RNG.normal(size=(6, 6)),
        "bias": RNG.normal(size=6),
        "second": RNG.normal(size=(6, 3)),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Add", ["a", "bias"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "second"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    example = {"x": RNG.normal(size=(5, 6)).astype(np.float32)}
    mlflow.onnx.save_model(model, folder / "model", input_example=example, pip_requirements=[])
    return export_here(OnnxExporter(), source_from_folder(folder / "model"), out(folder))


def reader(folder: Path) -> Export:
    """Texts, through a tokenizer that cuts off what is too long, to three classes."""
    pipe = tiny_pipeline("text-classification", seed=3)
    with quiet():
        mlflow.transformers.save_model(
            pipe,
            folder / "model",
            input_example=tiny_example("text-classification"),
            model_config={"truncation": True, "max_length": 16},
            pip_requirements=[],
        )
    return export_here(TransformersExporter(), source_from_folder(folder / "model"), out(folder))


def out(folder: Path) -> Path:
    (folder / "out").mkdir()
    return folder / "out"


def node_of(graph: Any, kind: str, number: int = 0) -> Any:
    return [node for node in graph.node if node.op_type == kind][number]


def attribute(graph: Any, kind: str, name: str, number: int = 0) -> Any:
    return next(a for a in node_of(graph, kind, number).attribute if a.name == name)


def change_constant(graph: Any, name: str, change: Callable[[Any], Any]) -> None:
    tensor = next(t for t in graph.initializer if t.name == name)
    array = numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(numpy_helper.from_array(change(array).astype(array.dtype), name))


def change_floats(graph: Any, kind: str, name: str, change: Callable[[Any], Any]) -> None:
    """Of an attribute, which is a list, or a tensor in newer operators."""
    for found in node_of(graph, kind).attribute:
        if found.name == name:
            found.floats[:] = change(np.array(found.floats)).tolist()
        elif found.name == f"{name}_as_tensor":
            array = numpy_helper.to_array(found.t)
            found.t.CopyFrom(numpy_helper.from_array(change(array.copy()).astype(array.dtype)))


def scaled(index: int, factor: float) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array.flat[index] *= factor
        return array

    return change


def constant(graph: Any, value: Any) -> str:
    name = f"mutant_{len(graph.initializer)}"
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def spliced(graph: Any, name: str, *steps: tuple[str, list[Any], dict[str, Any]]) -> None:
    """Put operators behind an input or before an output; their other arguments are constants."""
    is_input = any(value.name == name for value in graph.input)
    inner = f"{name}_inner"
    for node in graph.node:
        node.input[:] = [inner if n == name else n for n in node.input]
        if not is_input:
            node.output[:] = [inner if n == name else n for n in node.output]
    names = [f"{name}_{number}" for number in range(len(steps) - 1)]
    flow = [name, *names, inner] if is_input else [inner, *names, name]
    made = [
        helper.make_node(kind, [source, *(constant(graph, c) for c in constants)], [target], **more)
        for source, target, (kind, constants, more) in zip(flow, flow[1:], steps, strict=False)
    ]
    place = 0 if is_input else len(graph.node)
    for number, node in enumerate(made):
        graph.node.insert(place + number, node)


def before(name: str, *steps: tuple[str, list[Any], dict[str, Any]]) -> Callable[[Any], None]:
    return lambda graph: spliced(graph, name, *steps)


def mixing_rows(name: str, part: float, *, opset: int) -> Callable[[Any], None]:
    """Drawn a little to the mean of the batch; a row alone is not, so no single row tells."""

    def mutate(graph: Any) -> None:
        spliced(graph, name, ("Identity", [], {}))
        inner = graph.node[-1].input[0]
        del graph.node[-1]
        over = [constant(graph, np.array([0]))] if opset >= 18 else []
        axes: Any = {} if opset >= 18 else {"axes": [0]}
        graph.node.extend(
            [
                helper.make_node("ReduceMean", [inner, *over], ["mean"], keepdims=1, **axes),
                helper.make_node("Sub", ["mean", inner], ["away"]),
                helper.make_node("Mul", ["away", constant(graph, np.float32(part))], ["bit"]),
                helper.make_node("Add", [inner, "bit"], [name]),
            ]
        )

    return mutate


def reversed_classes(graph: Any) -> None:
    labels = attribute(graph, "LinearClassifier", "classlabels_strings").strings
    labels[:] = list(reversed(labels))


def imputer_that_waits_for_another_value(graph: Any) -> None:
    attribute(graph, "Imputer", "replaced_value_float").f = -1.0


def categories_in_another_order(graph: Any) -> None:
    names = attribute(graph, "OneHotEncoder", "cats_strings").strings
    names[:] = [*names[1:], names[0]]


def encoder_that_knows_all_words(graph: Any) -> None:
    attribute(graph, "OneHotEncoder", "zeros").i = 0


def softmax_over(number: int, axis: int) -> Callable[[Any], None]:
    def mutate(graph: Any) -> None:
        attribute(graph, "Softmax", "axis", number).i = axis

    return mutate


def of_type_double(graph: Any) -> None:
    spliced(graph, "y", ("Cast", [], {"to": TensorProto.DOUBLE}))
    graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def renamed(graph: Any) -> None:
    spliced(graph, "y", ("Identity", [], {}))
    graph.node[-1].output[0] = graph.output[0].name = "z"


@dataclasses.dataclass(frozen=True)
class OfStep:
    """Spoils the step in front of a graph instead: its tokenizer and its rules, as documents."""

    change: Callable[[Any, Any], None]

    def __call__(self, folder: Path) -> None:
        files = [folder / name for name in (TOKENIZER_FILE, STEP_FILE)]
        documents = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        self.change(*documents)
        for file, document in zip(files, documents, strict=True):
            file.write_text(json.dumps(document), encoding="utf-8")


def tokens_off_by_one(tokenizer: Any, _rules: Any) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    first = len(tokenizer["added_tokens"])
    ordinary = sorted((w for w, n in vocabulary.items() if n >= first), key=vocabulary.__getitem__)
    numbers = [vocabulary[word] for word in ordinary]
    vocabulary.update(zip(ordinary, [*numbers[1:], numbers[0]], strict=True))


def of_rules(**rules: Any) -> OfStep:
    return OfStep(lambda _tokenizer, found: found.update(rules))


def of_tokenizer(**parts: Any) -> OfStep:
    return OfStep(lambda found, _rules: found.update(parts))


def padding_attended(_tokenizer: Any, rules: Any) -> None:
    rules["outputs"][1]["padding"] = 1


def other_word_for_the_unknown(tokenizer: Any, _rules: Any) -> None:
    tokenizer["model"]["unk_token"] = "[MASK]"


def words_in_another_order(graph: Any) -> None:
    table = next(t for t in graph.initializer if t.name == "label_words")
    table.string_data[:] = list(reversed(table.string_data))


def longer_by(number: int) -> OfStep:
    def change(_tokenizer: Any, rules: Any) -> None:
        rules["truncation"]["max_length"] += number

    return OfStep(change)


Step = tuple[str, list[Any], dict[str, Any]]
FP16: Step = ("Cast", [], {"to": TensorProto.FLOAT16})
FP32: Step = ("Cast", [], {"to": TensorProto.FLOAT})
ZERO_THE_THIRD = np.array([1, 1, 0, 1, 1, 1], np.float32)

Mutant = tuple[Callable[[Any], None], str]
MUTANTS: Mapping[Callable[[Path], Export], Mapping[str, Mutant]] = {
    classifier: {
        "one weight": (
            lambda g: change_floats(g, "LinearClassifier", "coefficients", scaled(1, 1.05)),
            "'probabilities' differs",
        ),
        "wrong scale": (
            lambda g: change_floats(g, "Scaler", "scale", scaled(0, 1.02)),
            "'probabilities' differs",
        ),
        "swapped classes": (
            before("probabilities", ("Gather", [np.array([1, 0])], {"axis": 1})),
            "'probabilities' decides differently",
        ),
        "shifted labels": (reversed_classes, "'label' differs .* expected '(yes|no)'"),
        "a dropped column": (
            before("member", ("Mul", [np.float32(0)], {})),
            "'probabilities' differs",
        ),
        "missing numbers not replaced": (
            imputer_that_waits_for_another_value,
            "missing numbers.* found nan",
        ),
        "categories in another order": (categories_in_another_order, "'probabilities' differs"),
        "new words refused": (encoder_that_knows_all_words, "word never seen.* cannot run"),
        "probabilities that saturate": (
            before("probabilities", ("Clip", [np.float32(0.01), np.float32(0.99)], {})),
            "'probabilities' differs",
        ),
    },
    regressor: {
        "one threshold of one tree": (
            lambda g: change_floats(g, "TreeEnsembleRegressor", "nodes_values", scaled(0, 1.3)),
            "generated rows.*'prediction' differs",
        ),
        "one leaf": (
            lambda g: change_floats(g, "TreeEnsembleRegressor", "target_weights", scaled(3, 1.1)),
            "generated rows.*'prediction' differs",
        ),
        "wrong scale": (
            before("prediction", ("Mul", [np.float32(1.005)], {})),
            "'prediction' differs",
        ),
        "swapped columns": (
            before("X", ("Gather", [np.array([1, 0, 2, 3])], {"axis": 1})),
            "'prediction' differs",
        ),
        "overflow of FP16": (before("prediction", FP16, FP32), "found inf"),
        "rounded inputs": (
            before(
                "X", ("Mul", [np.float32(32)], {}), ("Round", [], {}), ("Div", [np.float32(32)], {})
            ),
            "'prediction' differs",
        ),
    },
    tagger: {
        "one weight": (
            lambda g: change_constant(g, "val_3", scaled(5, 1.5)),
            "'output' differs",
        ),
        "one row of the table": (
            lambda g: change_constant(g, "table.weight", scaled(17, 1.5)),
            "'output' differs",
        ),
        "transposed weights": (lambda g: change_constant(g, "val_2", np.transpose), "differs"),
        "transposed layout": (
            before(
                "output",
                ("Transpose", [], {"perm": [1, 0, 2]}),
            ),
            "'output' has shape",
        ),
        "softmax of attention over the wrong axis": (softmax_over(0, 1), "'output' differs"),
        "softmax of classes over the wrong axis": (softmax_over(1, 1), "'output' differs"),
        "softmax over the batch": (softmax_over(1, 0), "rows beside it"),
        "tokens off by one": (
            before("ids", ("Add", [np.int64(1)], {}), ("Mod", [np.int64(12)], {})),
            "'output' differs",
        ),
        "tokens clipped": (
            before("ids", ("Min", [np.int64(10)], {})),
            "'output' differs",
        ),
        "frozen batch": (
            before("output", ("Reshape", [np.array([2, -1, 4])], {})),
            "batch 1,.*has shape",
        ),
        "frozen length": (
            before("output", ("Reshape", [np.array([-1, 5, 4])], {})),
            "dimension 1 of 'ids' of size 2.*(cannot run|has shape)",
        ),
        "rows in another order": (
            before(
                "output",
                ("Slice", [np.array([-1]), np.array([-99]), np.array([0]), np.array([-1])], {}),
            ),
            "batch 2.*'output' differs",
        ),
        "swapped classes": (
            before("output", ("Gather", [np.array([3, 1, 2, 0])], {"axis": 2})),
            "'output' decides differently",
        ),
        "mean over the batch": (mixing_rows("output", 0.01, opset=20), "rows beside it"),
    },
    scorer: {
        "one weight": (lambda g: change_constant(g, "second", scaled(4, 1.02)), "'y' differs"),
        "one bias": (lambda g: change_constant(g, "bias", scaled(2, 1.02)), "'y' differs"),
        "a dropped column": (before("x", ("Mul", [ZERO_THE_THIRD], {})), "'y' differs"),
        "mean over the batch": (mixing_rows("y", 0.002, opset=17), "rows beside it"),
        "another type": (of_type_double, "is of type float64, expected float32"),
        "another name": (renamed, "output 'y' is missing"),
        "values cut off at the seen range": (
            before("x", ("Clip", [np.float32(-1.9), np.float32(1.9)], {})),
            "generated rows.*'y' differs",
        ),
        "rounded answers": (
            before(
                "y", ("Mul", [np.float32(32)], {}), ("Round", [], {}), ("Div", [np.float32(32)], {})
            ),
            "'y' differs",
        ),
        "a frozen batch": (before("y", ("Reshape", [np.array([64, -1])], {})), "batch 1"),
    },
    reader: {
        "tokens off by one": (OfStep(tokens_off_by_one), "'input_ids' differs"),
        "special tokens missing": (of_tokenizer(post_processor=None), "'input_ids' differs"),
        "cut off one token early": (longer_by(-1), "longer.*'input_ids'"),
        "cut off one token late": (longer_by(1), "longer.*'input_ids' has shape"),
        "not cut off": (of_rules(truncation=None), "longer.*'input_ids' has shape"),
        "refused for its length": (
            of_rules(truncation=None, longest=16),
            "longer.*takes at most 16",
        ),
        "letters kept large": (of_tokenizer(normalizer=None), "'input_ids'"),
        "another word for the unknown": (OfStep(other_word_for_the_unknown), "'input_ids' differs"),
        "padding attended to": (OfStep(padding_attended), "batch 2.*'attention_mask' differs"),
        "padding on the left": (of_rules(padding_side="left"), "batch 2.*'input_ids' differs"),
        "mask of padding ignored": (
            before("attention_mask", ("Max", [np.int64(1)], {})),
            "'scores' differs|rows beside it",
        ),
        "swapped labels": (words_in_another_order, "'label' differs .* expected"),
        "scores of another class": (
            before("scores", ("Gather", [np.array([1, 0, 2])], {"axis": 1})),
            "'scores' decides differently",
        ),
        "the best score halved": (
            before("score", ("Mul", [np.float32(0.5)], {})),
            "'score' differs",
        ),
        "one weight": (
            lambda g: change_constant(g, "model.classifier.weight", scaled(3, 1.5)),
            "'scores' differs",
        ),
    },
}
REFUSED: Mapping[Callable[[Path], Export], int] = {
    classifier: 9,
    regressor: 6,
    tagger: 14,
    scorer: 9,
    reader: 15,
}


def mutated(export: Export, mutate: Callable[[Any], None], folder: Path) -> Export:
    if isinstance(mutate, OfStep) and export.preprocessing is not None:
        shutil.copytree(export.preprocessing.path, folder)
        mutate(folder)
        step = dataclasses.replace(export.preprocessing, path=folder)
        return dataclasses.replace(export, preprocessing=step)
    model = load_graph(export.onnx.file)
    mutate(model.graph)
    del model.graph.value_info[:]
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    return dataclasses.replace(export, onnx=dataclasses.replace(export.onnx, path=folder))


@pytest.mark.parametrize("build", MUTANTS, ids=lambda build: build.__name__)
def test_the_honest_export_passes_and_every_mutant_is_refused_for_its_reason(
    build: Callable[[Path], Export], tmp_path: Path
) -> None:
    export = build(tmp_path)
    honest = check_export(export)
    assert honest.ok, honest.problems
    refused = {}
    for number, (name, (mutate, reason)) in enumerate(MUTANTS[build].items()):
        report = check_export(mutated(export, mutate, tmp_path / str(number)))
        problems = "\n".join(report.problems)
        assert problems, f"{name} passed"
        assert re.search(reason, problems), f"{name}: {problems}"
        refused[name] = problems
    assert len(refused) == REFUSED[build]
