"""Entries of the model repository that people write: ensembles, Python steps, ONNX files.

As people write them, in a folder under version control::

    NAME/config.pbtxt     as Triton reads it; the publisher adds which version is served
    NAME/N/…              exactly one version; its number is the version
    NAME/golden.json      one request and its answer: the live server must prove itself
    NAME/*.md             not published, nor is any .gitkeep

Guarantees: an entry is read as a whole or refused as a whole, with every problem named; nothing of
it is run; the same config gives the same text, however it was written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from pipeline.backend_files import file_problems
from pipeline.ensemble_edges import is_ensemble
from pipeline.errors import ModelError, RequestError
from pipeline.golden_requests import GOLDEN_NAME, golden_samples, golden_template
from pipeline.model_config import CONFIG_NAME, config_from_text, tensor_specs, with_versions
from pipeline.repository_names import check_entry
from pipeline.samples import Samples
from pipeline.tensors import DYNAMIC, TensorSpec

NOT_PUBLISHED: Final = ".gitkeep"
"""Keeps a folder in git that has no files, as the version folder of an ensemble."""

_LAYOUT: Final = (
    f"an entry is {CONFIG_NAME}, {GOLDEN_NAME}, one folder N with the files of version N, and "
    "*.md for people"
)


_FOLDERS: Final = "name a folder that holds an entry; for all of them: model_repository/*/"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HandwrittenEntry:
    """A valid entry.

    Attributes:
        name: Name of the Triton model.
        version: Number of the Triton version.
        config: Text of its ``config.pbtxt``, naming exactly this version.
        folder: The version folder.
        files: Paths of the files to be published, relative to it.
        golden: A request and its answer.
    """

    name: str
    version: int
    config: str
    folder: Path
    files: tuple[str, ...]
    golden: Samples


def read_entry(folder: Path) -> HandwrittenEntry:
    """Read and validate the entry in a folder; writes nothing.

    Whether an ensemble fits its steps is the business of :mod:`pipeline.ensemble_edges`.

    Raises:
        RequestError: There is no such folder, or its layout or a name is not that of an entry.
        ModelError: Config, files and golden answers do not fit together; names every problem.
    """
    folder = folder.resolve()
    name = folder.name
    version_folder = _version_folder(folder)
    version = int(version_folder.name)
    files = _files_of(version_folder)
    check_entry(name, version, files)
    config = _parsed(folder / CONFIG_NAME)
    inputs = tensor_specs(config.input, config.max_batch_size)
    outputs = tensor_specs(config.output, config.max_batch_size)
    problems = [*_config_problems(config, name, version), *_tensor_problems(config)]
    problems += _file_problems(config, version_folder, files)
    if problems:
        raise ModelError(
            f"{name} cannot be published: {'; '.join(problems)}",
            hint=f"correct {folder / CONFIG_NAME} or the files beside it",
        )
    config.name = name
    return HandwrittenEntry(
        name=name,
        version=version,
        config=with_versions(str(text_format.MessageToString(config)), [version]),
        folder=version_folder,
        files=tuple(files),
        golden=_golden(folder / GOLDEN_NAME, inputs, outputs, config.max_batch_size),
    )


def _version_folder(folder: Path) -> Path:
    """The one version folder, after a look at everything beside it."""
    if not folder.is_dir():
        raise RequestError(f"there is no folder {folder}", hint=_FOLDERS)
    children = sorted(folder.iterdir())
    versions = [path for path in children if path.is_dir() and _is_version(path.name)]
    known = {CONFIG_NAME, GOLDEN_NAME, NOT_PUBLISHED, *(path.name for path in versions)}
    foreign = [p.name for p in children if p.name not in known and p.suffix != ".md"]
    if foreign:
        raise RequestError(
            f"{folder.name} holds {', '.join(map(repr, foreign))}, which is no part of an entry",
            hint=f"{_LAYOUT}: move it into the version, or delete it",
        )
    if len(versions) != 1:
        found = ", ".join(path.name for path in versions) or "none"
        raise RequestError(
            f"{folder.name} needs exactly one version folder; found {found}",
            hint=f"{_LAYOUT}. Published bytes never change: for changed files, git mv 1 2",
        )
    links = [path for path in (*children, *versions[0].rglob("*")) if path.is_symlink()]
    if links:
        raise RequestError(
            f"{folder.name} holds the symbolic link {str(links[0].relative_to(folder))!r}",
            hint="put the file itself there: what is published must be what is reviewed",
        )
    return versions[0]


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and not name.startswith("0")


def _files_of(version_folder: Path) -> list[str]:
    files = [path for path in sorted(version_folder.rglob("*")) if not path.is_dir()]
    special = [path for path in files if not path.is_file()]
    if special:
        raise RequestError(f"{special[0]} is no regular file", hint="remove it")
    return [p.relative_to(version_folder).as_posix() for p in files if p.name != NOT_PUBLISHED]


def _parsed(file: Path) -> Any:
    try:
        return config_from_text(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(f"{file} is missing", hint=_LAYOUT) from None
    except ValueError as error:  # also what is not UTF-8
        raise ModelError(
            f"{file} cannot be read: {error}", hint="the number is line:column of the file"
        ) from error


def _config_problems(config: Any, name: str, version: int) -> Iterator[str]:
    if config.name not in {"", name}:
        yield f"the config is named {config.name!r}, and its folder {name!r}"
    policy = config.version_policy
    chosen = list(policy.specific.versions) if policy.HasField("specific") else None
    if config.HasField("version_policy") and chosen != [version]:
        yield f"leave version_policy out: the publisher writes specific {{ versions: [{version}] }}"
    if not (config.backend or config.platform or is_ensemble(config)):
        yield 'it names no backend: write, for example, backend: "python"'
    if config.max_batch_size < 0:
        yield f"max_batch_size is {config.max_batch_size}, expected 0 or more"
    # The golden request is one request of its own with one answer.
    if config.model_transaction_policy.decoupled:
        yield "it is decoupled, so its answers cannot be proven with one request and one answer"
    if config.HasField("sequence_batching"):
        yield "it has sequence_batching, so it cannot be proven with one request of its own"


def _tensor_problems(config: Any) -> Iterator[str]:
    for kind, tensors in (("input", config.input), ("output", config.output)):
        names = [tensor.name for tensor in tensors]
        if not names:
            yield f"it has no {kind}: Triton is not asked to guess them"
        for name in sorted({n for n in names if names.count(n) > 1}):
            yield f"{kind} {name!r} is there more than once"
        for tensor in tensors:
            if not tensor.name:
                yield f"an {kind} has no name"
            if tensor.data_type == pb.TYPE_INVALID:
                yield f"{kind} {tensor.name!r} has no data_type"
            if not tensor.dims or any(size < 1 and size != DYNAMIC for size in tensor.dims):
                yield (
                    f"{kind} {tensor.name!r} has dims {list(tensor.dims)}, expected one or more, "
                    f"each above 0, or {DYNAMIC} for any size"
                )


def _file_problems(config: Any, version_folder: Path, files: list[str]) -> list[str]:
    if is_ensemble(config):
        return [f"an ensemble has no files, found {path!r} in its version" for path in files[:1]]
    if not files:
        return [f"the version folder {version_folder.name} is empty"]
    inputs = tensor_specs(config.input, config.max_batch_size, reshaped=True)
    outputs = tensor_specs(config.output, config.max_batch_size, reshaped=True)
    return file_problems(config, version_folder, inputs, outputs)


def _golden(
    file: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], max_batch_size: int
) -> Samples:
    hint = (
        "write one request and the answer to it, as the V2 protocol has them: "
        f"{golden_template(inputs, outputs)}"
    )
    try:
        text = file.read_text(encoding="utf-8")
        return golden_samples(text, inputs=inputs, outputs=outputs, max_batch_size=max_batch_size)
    except FileNotFoundError:
        raise RequestError(
            f"{file} is missing: without it the live server could not be asked for a proof",
            hint=hint,
        ) from None
    except ValueError as error:
        raise ModelError(f"{file} does not fit the config: {error}", hint=hint) from error
