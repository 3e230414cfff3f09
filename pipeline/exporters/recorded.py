"""Samples that a model carries beside its input example: what clients really sent, or rare cases.

They are files named ``serving_samples`` in the model's folder, or in ``extra_files``, where MLflow
puts what is named when a model is logged. Guarantees: nothing that could be code is read, and
nothing without bound; every value is of the type that the input example has, or the file is refused
with the reason; what is left out for being too much is told.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.artifacts import SourceModel
from pipeline.errors import ModelError
from pipeline.exporters.logged import described
from pipeline.samples import Array

FOLDERS: Final = (".", "extra_files")
STEM: Final = "serving_samples"
MOST_ROWS: Final = 4096
"""That are compared, of all files together."""

MOST_BYTES: Final = 32 * 2**20
"""Of these rows and the answers to them."""

MOST_FILE_BYTES: Final = 64 * 2**20
"""Of a file, unpacked."""

_MISSING: Final = ("", "NaN", "nan", "NA", "N/A", "null", "NULL", "None")
"""What stands for no number in a table of text."""

_HINT: Final = (
    "write them in the form of the input example: a DataFrame with to_csv(..., index=False) or "
    "to_json(..., orient='split', index=False), arrays with numpy.savez; then log the model again"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recorded:
    """One file of samples.

    Attributes:
        values: In the form of the input example.
        rows: How many these are.
        file: Name below the model's folder.
    """

    values: Any
    rows: int
    file: str


def recorded_samples(source: SourceModel, example: Any) -> Iterator[Recorded]:
    """Every file of samples that the model carries.

    Args:
        source: The fetched model.
        example: In the form that the samples must have; DataFrame, array, or dict of arrays.

    Raises:
        ModelError: A file cannot be read, is too large, or does not fit the example.
    """
    for folder in FOLDERS:
        for file in sorted((source.path / folder).glob(f"{STEM}.*")):
            name = str(file.relative_to(source.path))
            try:
                values = _fitting(_read(file, example), example)
                rows = _rows(values)
            except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
                reason = str(error) if type(error) is ValueError else described(error)
                raise ModelError(
                    f"the samples in {name} of {source.version} cannot be used: {reason}",
                    hint=_HINT,
                ) from error
            yield Recorded(values=values, rows=rows, file=name)


def spread(values: Any, rows: int, wanted: int) -> Any:
    """At most so many of the rows, evenly spread."""
    return taken(values, np.unique(np.linspace(0, rows - 1, min(rows, wanted)).astype(int)))


def taken(values: Any, rows: Array) -> Any:
    """The rows of these numbers."""
    if isinstance(values, Mapping):
        return {name: array[rows] for name, array in values.items()}
    return values[rows] if isinstance(values, np.ndarray) else values.iloc[rows]


def _read(file: Path, example: Any) -> Any:
    size = file.stat().st_size
    if file.suffix == ".npz":
        with zipfile.ZipFile(file) as archive:
            size = max(size, sum(entry.file_size for entry in archive.infolist()))
    if size > MOST_FILE_BYTES:
        raise ValueError(f"it has {size >> 20} MiB, at most {MOST_FILE_BYTES >> 20} MiB are read")
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    import pandas as pd

    if file.suffix == ".json":
        document = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or not {"columns", "data"} <= document.keys():
            raise ValueError("it has no 'columns' and 'data', as orient='split' writes them")
        return pd.DataFrame(document["data"], columns=document["columns"])
    if file.suffix == ".csv":
        types = dict(example.dtypes) if hasattr(example, "columns") else {}
        text = {str(name): str for name, dtype in types.items() if not _is_number(dtype)}
        heads = pd.read_csv(file, nrows=0).columns
        return pd.read_csv(
            file,
            dtype=text,
            keep_default_na=False,
            na_values={name: [*_MISSING] for name in heads if name not in text},
        )
    raise ValueError(f"{file.suffix or 'no suffix'} is not among .csv, .json and .npz")


def _fitting(found: Any, example: Any) -> Any:
    """The samples in the form and the types of the example."""
    if hasattr(example, "columns"):
        if not hasattr(found, "columns"):
            raise ValueError("the model takes a DataFrame, these are arrays")
        found.columns = found.columns.astype(str)
        names = {str(name): name for name in example.columns}
        _expect_names(set(names), set(found.columns))
        frame = found[list(names)].rename(columns=names)
        for name in example.columns:
            frame[name] = _as_column(frame[name], example[name].dtype, str(name))
        return frame
    if isinstance(example, np.ndarray):
        return _as_array(_only(found), example, "the array")
    if isinstance(example, Mapping):
        if len(example) == 1:
            name = next(iter(example))
            return {name: _as_array(_only(found, str(name)), example[name], repr(name))}
        if hasattr(found, "columns"):
            raise ValueError(f"the model takes the arrays {sorted(example)}, this is a DataFrame")
        _expect_names({str(name) for name in example}, set(found))
        return {
            name: _as_array(found[str(name)], array, repr(name)) for name, array in example.items()
        }
    raise ValueError(f"the model takes {type(example).__name__}, of which no samples can be kept")


def _only(found: Any, name: str = "") -> Array:
    """The one array, whatever it is called; the numbers of a DataFrame are one."""
    if hasattr(found, "columns"):
        matrix: Array = found.to_numpy()
        return matrix
    if len(found) != 1 and name not in found:
        raise ValueError(f"the model takes one array, the file has {sorted(found)}")
    only: Array = found[name] if name in found else next(iter(found.values()))
    return only


def _expect_names(wanted: set[str], found: set[str]) -> None:
    if wanted != found:
        raise ValueError(
            f"missing {sorted(wanted - found) or 'nothing'}, unknown to the model "
            f"{sorted(found - wanted) or 'nothing'}"
        )


def _as_column(column: Any, dtype: Any, name: str) -> Any:
    missing = column.isna()
    if hasattr(dtype, "categories"):
        changed = ~missing & ~column.isin(dtype.categories)
    else:
        column = column.where(~missing, None) if dtype.kind == "O" else column
        cast = column.astype(dtype)
        changed = cast.isna() != missing
        if not changed.any() and getattr(dtype, "kind", "O") in "iub":
            changed = (cast != column).fillna(value=False).astype(bool)
    if changed.any():
        value = column[changed].iloc[0]
        raise ValueError(f"column {name!r} holds {value!r}, which is no {dtype}")
    return column.astype(dtype)


def _as_array(array: Array, like: Array, name: str) -> Array:
    if array.ndim != like.ndim:
        raise ValueError(
            f"{name} has {array.ndim} dimensions {list(array.shape)}, the input example {like.ndim}"
        )
    if like.dtype == object:
        return array.astype(str).astype(object)
    cast = array.astype(like.dtype)
    if like.dtype.kind != "f" and not np.array_equal(cast, array):
        raise ValueError(f"{name} is {array.dtype} and holds values that are no {like.dtype}")
    return cast


def _rows(values: Any) -> int:
    counts = {len(array) for array in values.values()} if isinstance(values, Mapping) else set()
    if len(counts) > 1:
        raise ValueError(f"its arrays have {sorted(counts)} rows")
    rows = counts.pop() if counts else len(values)
    if not rows:
        raise ValueError("it has no rows")
    return rows


def _is_number(dtype: Any) -> bool:
    kind: str = getattr(getattr(dtype, "categories", None), "dtype", dtype).kind
    return kind in "fiub"
