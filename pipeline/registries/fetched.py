"""Looks at a fetched model before anything of it is loaded.

Guarantees: reads names, sizes, the directories of archives and one small text, and nothing else; a
model that passes has an ``MLmodel`` of a sane size, names no file outside of its folder, has no
link that leads out of it, and no archive that unpacks to more than it looks. What it *does* when it
is loaded is the business of the child process.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

import yaml

from pipeline.errors import ModelError
from pipeline.registries.archives import archive_problem

MLMODEL: Final = "MLmodel"
MOST_FILES: Final = 20_000
MOST_MLMODEL_BYTES: Final = 4 * 2**20
MOST_NODES: Final = 400_000
"""Values in ``MLmodel`` when every alias is written out."""

MOST_DEPTH: Final = 50

_PATHS: Final = frozenset(
    {
        "adapter_weights", "code", "data", "model_binary", "model_data", "model_path",
        "parameters_path", "path", "peft_adaptor", "pickled_model", "saved_model_dir",
        "serialized_explainer", "weight_name",
    }
)  # fmt: skip
"""Keys of flavors whose values MLflow joins to the model's folder."""

_EXAMPLE_PATHS: Final = frozenset({"artifact_path", "serving_input_path"})
_LOG_AGAIN: Final = "log the model again with mlflow.<flavor>.log_model, and register that version"
_TAMPERED: Final = (
    "MLflow never writes this: find out who changed the artifacts of this version, then log the "
    "model again"
)
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def flavors_of_fetched(folder: Path, model: str) -> tuple[str, ...]:
    """The flavors of a fetched model, once everything in its folder is found to be sane.

    Args:
        folder: What was fetched.
        model: The version, for errors.

    Raises:
        ModelError: Something is missing, damaged, too large, or leads out of the folder.
    """
    expect_sane_files(folder, model)
    document = _document(folder / MLMODEL, model)
    flavors = document.get("flavors")
    if not isinstance(flavors, dict) or not flavors:
        raise _damaged(model, "it names no flavors")
    for flavor, options in flavors.items():
        if not isinstance(flavor, str) or not isinstance(options, dict):
            raise _damaged(model, f"flavor {flavor!r} has no options")
    _expect_inside(folder, _values(flavors, _PATHS), model)
    example = document.get("saved_input_example_info")
    _expect_inside(folder, _values(example, _EXAMPLE_PATHS), model)
    return tuple(flavors)


def expect_sane_files(folder: Path, model: str) -> None:
    """Return if names, kinds, number and archives of what was fetched are sane.

    Raises:
        ModelError: Names the first that is not.
    """
    for path in _files(folder, model):
        problem = archive_problem(path)
        if problem:
            name = path.relative_to(folder)
            raise ModelError(f"{name} of {model} {problem}", hint=_LOG_AGAIN)


def _files(folder: Path, model: str) -> Iterator[Path]:
    """All files, while their number and kind are as they should be."""
    root = folder.resolve()
    number = 0
    for parent, folders, files in os.walk(folder, onerror=_raise):
        for name in (*folders, *files):
            path = Path(parent, name)
            number += 1
            if number > MOST_FILES:
                raise ModelError(
                    f"{model} has more than {MOST_FILES} files",
                    hint="log the model without its training data and caches",
                )
            if not name.isprintable() or not _is_text(name):
                raise ModelError(
                    f"{model} has a file whose name is no text: {name!r}", hint=_LOG_AGAIN
                )
            kind = path.lstat().st_mode
            if stat.S_ISLNK(kind) and not path.resolve().is_relative_to(root):
                raise ModelError(
                    f"{path.relative_to(folder)} of {model} is a link out of the model's folder",
                    hint=_TAMPERED,
                )
            if stat.S_ISREG(kind):
                yield path
            elif not stat.S_ISDIR(kind) and not stat.S_ISLNK(kind):
                raise ModelError(
                    f"{path.relative_to(folder)} of {model} is neither file nor folder",
                    hint=_TAMPERED,
                )


def _raise(error: OSError) -> None:
    raise error


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _document(file: Path, model: str) -> Mapping[Any, Any]:
    try:
        size = file.stat().st_size
        if size > MOST_MLMODEL_BYTES:
            raise _damaged(model, f"it has {size} bytes, at most {MOST_MLMODEL_BYTES} are read")
        text = file.read_text(encoding="utf-8")
        _expect_small(text)
        document = yaml.load(text, Loader=_Loader)  # noqa: S506  a safe loader, the fast one
    except FileNotFoundError:
        raise _damaged(model, "it is missing") from None
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise _damaged(model, " ".join(str(error).split())) from error
    if not isinstance(document, dict):
        raise _damaged(model, f"it holds no mapping but {type(document).__name__}")
    return document


def _damaged(model: str, problem: str) -> ModelError:
    return ModelError(
        f"the {MLMODEL} file of {model} is missing or damaged: {problem}", hint=_LOG_AGAIN
    )


def _expect_small(text: str) -> None:
    """Count what the document would hold with every alias written out, without building it.

    Nine lines of aliases of aliases are a billion values. Raises ValueError.
    """
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = []
    size = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"alias {event.anchor!r} stands for nothing, or for itself")
            size += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            size += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, size))
            size += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor:
                sizes[anchor] = size - before
        if size > MOST_NODES:
            raise ValueError(f"it holds more than {MOST_NODES} values")
        if len(opened) > MOST_DEPTH:
            raise ValueError(f"it is nested more than {MOST_DEPTH} levels deep")


def _values(value: Any, keys: frozenset[str]) -> Iterator[tuple[str, str]]:
    """All texts under one of the keys, with the key, at any depth."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in keys and isinstance(item, str):
                yield str(key), item
            else:
                yield from _values(item, keys)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _values(item, keys)


def _expect_inside(folder: Path, paths: Iterator[tuple[str, str]], model: str) -> None:
    root = folder.resolve()
    for key, value in paths:
        path = PurePosixPath(value)
        leaves = path.is_absolute() or ".." in path.parts or "\0" in value
        if leaves or not (folder / path).resolve().is_relative_to(root):
            raise ModelError(
                f"{key} in the {MLMODEL} file of {model} is {value!r}, which is outside of the "
                "model's folder",
                hint=_TAMPERED,
            )
