"""Models packed with packages in which a few lines stand for MLflow, so that they start at once."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from pipeline.artifacts import SourceModel
from pipeline.checks.packed import check_packed
from pipeline.checks.tolerances import Tolerances
from pipeline.errors import ModelError
from pipeline.exporters.answers import written_answers
from pipeline.exporters.python_function import pack
from pipeline.exporters.python_inputs import python_inputs
from pipeline.packed_models import PackedExport, PythonPackages
from pipeline.testing.exporter_contract import source_from_folder

PYFUNC = """
import os
class PythonModel:
    pass

def load_model(path):
    scope = {}
    exec(open(os.path.join(path, "model_code.py")).read(), scope)
    return scope["loaded"]
"""
CODE = """
import numpy, pandas
class Model:
    asked = 0
    def predict(self, rows):
        type(self).asked += 1
        return {body}
loaded = Model()
"""
FRAME = pd.DataFrame(
    {"size": [1.5, 2.5, 3.5, 9.0], "rooms": [1, 2, 3, 4], "city": ["a", "b", "a", "c"]}
)
GOOD = "pandas.DataFrame({'price': rows['size'] * rows['rooms'], 'place': rows['city'] + '!'})"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> PythonPackages:
    folder = tmp_path_factory.mktemp("packages")
    (folder / "mlflow" / "pyfunc").mkdir(parents=True)
    (folder / "mlflow" / "__init__.py").touch()
    (folder / "mlflow" / "pyfunc" / "__init__.py").write_text(PYFUNC, encoding="utf-8")
    ours = Path(np.__file__).parents[1]
    for package in ("numpy", "numpy.libs", "pandas", "pandas.libs", "dateutil", "six.py", "pytz"):
        if (ours / package).exists():
            (folder / package).symlink_to(ours / package)
    archive = folder.parent / "packages.tar.gz"
    archive.write_bytes(b"not looked into")
    from sys import version_info

    return PythonPackages(
        folder=folder,
        archive=archive,
        python_version=f"{version_info[0]}.{version_info[1]}",
        installed=("numpy==2",),
    )


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SourceModel]:
    # It advertises type hints with a warning that no filter keeps back.
    monkeypatch.setattr("mlflow.pyfunc.utils.data_validation.color_warning", lambda *_, **__: None)

    def saved(body: str, example: Any = FRAME, **options: Any) -> SourceModel:
        # Without annotations, by which MLflow would judge what is logged; it is replaced anyway.
        anything = type(
            "Anything",
            (mlflow.pyfunc.PythonModel,),
            {"predict": lambda self, context, model_input, params=None: [1.0]},
        )
        folder = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options.setdefault("signature", mlflow.models.infer_signature(example))
            mlflow.pyfunc.save_model(
                folder,
                python_model=anything(),
                input_example=example,
                pip_requirements=["mlflow"],
                **options,
            )
        (folder / "model_code.py").write_text(CODE.format(body=body), encoding="utf-8")
        return source_from_folder(folder)

    return saved


@pytest.fixture
def packed(
    packages: PythonPackages, tmp_path: Path
) -> Iterator[Callable[[SourceModel], PackedExport]]:
    with ExitStack() as stack:

        def make(source: SourceModel) -> PackedExport:
            destination = tmp_path / f"export-{len(list(tmp_path.iterdir()))}"
            destination.mkdir()
            made = pack(
                source,
                packages,
                destination,
                flavor="python_function",
                load_seconds=60,
                request_seconds=20,
                stack=stack,
            )
            answers = written_answers(made, source, destination)
            return PackedExport(
                packed=made.served,
                packages=packages.folder,
                samples=answers.samples,
                samples_origin=answers.samples_origin,
                probes=answers.probes,
                left_out=answers.left_out,
            )

        yield make


def check(export: PackedExport, cases: Path | None = None) -> Any:
    return check_packed(export, tolerances=Tolerances(), max_batch_size=8, cases=cases)


def test_the_packed_model_answers_as_the_original_and_has_one_digest(
    save: Callable[..., SourceModel], packed: Callable[[SourceModel], PackedExport]
) -> None:
    source = save(GOOD)
    export = packed(source)
    assert [str(spec) for spec in export.packed.inputs] == [
        "size: FP64[?,1]",
        "rooms: INT64[?,1]",
        "city: STRING[?,1]",
    ]
    assert [str(s) for s in export.packed.outputs] == ["price: FP64[?,1]", "place: STRING[?,1]"]
    assert export.packed.is_batching
    assert sorted(path.name for path in export.packed.path.iterdir()) == [
        "environment.tar.gz",
        "model.py",
        "model.zip",
    ]
    report = check(export)
    assert report.ok, report.problems
    assert {c.subject for c in report.comparisons} >= {f"packed model, batch {n}" for n in (1, 8)}
    assert packed(source).packed.digest == export.packed.digest


def test_a_model_that_answers_differently_when_it_is_asked_twice_is_refused(
    save: Callable[..., SourceModel], packed: Callable[[SourceModel], PackedExport]
) -> None:
    with pytest.raises(ModelError, match="answers differently when it is asked twice"):
        packed(save("rows['size'] + self.asked"))


def test_rows_that_depend_on_their_neighbours_are_found(
    save: Callable[..., SourceModel],
    packed: Callable[[SourceModel], PackedExport],
    tmp_path: Path,
) -> None:
    (tmp_path / "cases").mkdir()
    report = check(packed(save("rows['size'] - rows['size'].mean()")), tmp_path / "cases")
    assert not report.ok
    assert any("depends on the rows beside it" in problem for problem in report.problems)
    assert {file.suffix for file in (tmp_path / "cases").iterdir()} == {".npz"}


def test_one_answer_for_all_rows_is_served_without_batches(
    save: Callable[..., SourceModel], packed: Callable[[SourceModel], PackedExport]
) -> None:
    export = packed(save("{'mean': numpy.array([rows['size'].mean(), 1.0])}"))
    assert not export.packed.is_batching
    assert [spec.shape for spec in export.packed.outputs] == [(2, 1)]
    assert check(export).ok


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("[[1], [1, 2], [3], [4]]", "different lengths"),
        ("[{'a': object()}] * len(rows)", "holds object"),
        ("missing", "NameError"),
    ],
)
def test_answers_that_no_tensor_carries_are_refused_with_the_reason(
    save: Callable[..., SourceModel],
    packed: Callable[[SourceModel], PackedExport],
    body: str,
    reason: str,
) -> None:
    with pytest.raises(ModelError, match=reason):
        packed(save(body))


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (pd.DataFrame({"when": pd.to_datetime(["2020-01-01"])}), "'when'.*datetime"),
        (pd.DataFrame({"many": [[1, 2], [3]]}), "'many'.*Array"),
        (pd.DataFrame({"raw": [b"bytes"]}), "'raw'.*binary"),
    ],
)
def test_inputs_that_no_tensor_carries_are_refused_by_name(
    save: Callable[..., SourceModel], example: Any, reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        python_inputs(save("1", example))


def test_arrays_and_parameters(save: Callable[..., SourceModel]) -> None:
    example = {"a": np.ones((2, 3), np.float32), "b": np.array([1, 2])}
    found = python_inputs(save("1", example))
    assert (found.form, [str(spec) for spec in found.specs]) == (
        "arrays",
        ["a: FP32[?,3]", "b: INT64[?]"],
    )
    signature = mlflow.models.infer_signature(FRAME, params={"deep": 3})
    noted = python_inputs(save("1", FRAME, signature=signature))
    assert noted.notes == ("parameters deep: clients get their defaults",)


def test_a_signature_that_would_change_what_was_logged_is_refused(
    save: Callable[..., SourceModel],
) -> None:
    inputs = python_inputs(save("1"))
    with pytest.raises(ModelError, match="'rooms' holds float64, which INT64"):
        inputs.sent(FRAME.assign(rooms=[1.5, 2, 3, 4]))
