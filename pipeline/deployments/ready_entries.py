"""Publishes a ready entry of a model repository that was logged with MLflow.

NVIDIA's ``triton_flavor.log_model`` logs a folder as people have it: any version number, a policy,
labels and warm-up data beside the versions, no golden request. Here it becomes an entry as
:mod:`pipeline.handwritten` wants it, and is published by the same flow. Guarantees: the version
that is served is the one that the entry's own policy names, under the number of the registered
version; its files are what was logged, byte for byte; it is proven by a golden request.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.artifacts import ModelVersion
from pipeline.deployments.golden import golden_of
from pipeline.deployments.options import Options
from pipeline.errors import ModelError, RequestError
from pipeline.flows.handwritten import publish
from pipeline.flows.progress import Progress, silent
from pipeline.golden_requests import GOLDEN_NAME
from pipeline.model_config import CONFIG_NAME, WARMUP_FOLDER, config_from_text
from pipeline.registries.mlflow_uris import MlflowModels

_LOG = "log the folder NAME of a Triton model repository, with NAME/config.pbtxt and NAME/1/…"


def publish_entry(
    models: MlflowModels,
    version: ModelVersion,
    name: str,
    options: Options,
    *,
    progress: Progress = silent,
) -> None:
    """Fetch, bring into form, publish and prove; see :func:`pipeline.flows.handwritten.publish`.

    Raises:
        RequestError: Options that the entry's own config decides; no golden request to be had.
        ModelError: What was logged is no entry, or not a valid one.
    """
    if options.serving:
        raise RequestError(
            f"{', '.join(sorted(options.serving))} of {version} is decided by the {CONFIG_NAME} "
            "that was logged",
            hint="change that and register a new version; leave the options out",
        )
    settings = options.settings_of(version.name)
    with tempfile.TemporaryDirectory(prefix="tritonpipe-") as folder:
        fetched, entry = Path(folder, "fetched"), Path(folder, name)
        fetched.mkdir()
        with progress("fetch"):
            models.fetch_files(version, fetched)
        logged = logged_entry(fetched, str(version))
        config = write_entry(logged, entry, number=version.version, subject=str(version))
        target = entry / GOLDEN_NAME
        if options.golden is not None:
            shutil.copyfile(_golden_file(options.golden), target)
        elif not target.exists():
            with progress("golden"):
                text = golden_of(entry / str(version.version), config, version, settings)
            if text is not None:
                target.write_text(text, encoding="utf-8")
        try:
            publish(
                [entry],
                settings,
                sources={name: f"models:/{version}"},
                progress=progress,
            )
        except RequestError as error:
            if target.exists():
                raise
            raise RequestError(
                f"{version} has no {GOLDEN_NAME}, and only of ONNX files the answers are computed "
                "here: the live server could not be asked for a proof",
                hint=f"{error.hint}; log it as {GOLDEN_NAME} beside {CONFIG_NAME}, or name the "
                "file: -C golden=FILE",
            ) from error


def logged_entry(fetched: Path, subject: str) -> Path:
    """The folder with ``config.pbtxt`` in what was fetched: the root, or one below it.

    Raises:
        ModelError: There is none, or several.
    """
    found = [p.parent for p in (fetched / CONFIG_NAME, *sorted(fetched.glob(f"*/{CONFIG_NAME}")))]
    entries = [folder for folder in found if (folder / CONFIG_NAME).is_file()]
    if len(entries) != 1:
        names = ", ".join(entry.name for entry in entries) or "none"
        raise ModelError(
            f"{subject} should hold one folder with a {CONFIG_NAME}, found {names}", hint=_LOG
        )
    return entries[0]


def write_entry(logged: Path, entry: Path, *, number: int, subject: str) -> Any:
    """Write what was logged as an entry with one version.

    Returns:
        The parsed config.

    Raises:
        ModelError: The config cannot be read, or its policy serves none or several versions.
    """
    try:
        config = config_from_text((logged / CONFIG_NAME).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{CONFIG_NAME} of {subject} cannot be read: {error}", hint=_LOG) from None
    served = _served_folder(logged, config, subject)
    version = entry / str(number)
    shutil.copytree(served, version)
    moved = _beside_versions(logged, config)
    for path, target in moved.items():
        (version / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(logged / path, version / target)
    _point_into_version(config, served.name, number, moved)
    config.name = ""
    config.ClearField("version_policy")
    (entry / CONFIG_NAME).write_text(str(config), encoding="utf-8")
    for child in sorted(logged.iterdir()):
        if child.is_file() and child.name not in {CONFIG_NAME, *moved}:
            shutil.copyfile(child, entry / child.name)
        elif child.is_dir() and not child.name.isdigit() and child.name != WARMUP_FOLDER:
            shutil.copytree(child, entry / child.name)  # refused by name with the entry
    return config


def _served_folder(logged: Path, config: Any, subject: str) -> Path:
    """The version that Triton would serve of it: by default the one with the largest number."""
    versions = sorted(int(p.name) for p in logged.iterdir() if p.is_dir() and p.name.isdigit())
    policy = config.version_policy
    wanted = versions[-1:]
    if policy.HasField("specific"):
        wanted = [v for v in policy.specific.versions if v in versions]
    elif policy.HasField("all"):
        wanted = versions
    elif policy.HasField("latest"):
        wanted = versions[-max(1, policy.latest.num_versions) :]
    if len(wanted) != 1:
        found = ", ".join(map(str, wanted)) or "none"
        raise ModelError(
            f"the version_policy of {subject} serves versions {found}; a deployment serves one",
            hint="log one version folder; every registered version is deployed with a number of "
            "its own",
        )
    return next(p for p in logged.iterdir() if p.name.isdigit() and int(p.name) == wanted[0])


def _beside_versions(logged: Path, config: Any) -> dict[str, str]:
    """Labels and warm-up data beside the version folders, and where they go in the version.

    A publication must not change them for the version that is served now.
    """
    labels = [tensor.label_filename for tensor in config.output if tensor.label_filename]
    warmup = [
        f"{WARMUP_FOLDER}/{item.input_data_file}"
        for sample in config.model_warmup
        for item in sample.inputs.values()
        if item.input_data_file
    ]
    wanted = sorted({*labels, *warmup})
    root = logged.resolve()
    return {
        path: path
        for path in wanted
        if not path.split("/", 1)[0].isdigit()
        and ".." not in PurePosixPath(path).parts
        and (logged / path).is_file()
        and (logged / path).resolve().is_relative_to(root)
    }


def _point_into_version(config: Any, logged: str, number: int, moved: dict[str, str]) -> None:
    for tensor in config.output:
        path = tensor.label_filename
        if path in moved:
            tensor.label_filename = f"{number}/{moved[path]}"
        elif path.startswith(f"{logged}/"):
            tensor.label_filename = f"{number}/{path.removeprefix(f'{logged}/')}"
    for sample in config.model_warmup:
        for item in sample.inputs.values():
            path = item.input_data_file
            if f"{WARMUP_FOLDER}/{path}" in moved:
                item.input_data_file = f"../{number}/{moved[f'{WARMUP_FOLDER}/{path}']}"
            elif path.startswith(f"../{logged}/"):
                item.input_data_file = f"../{number}/{path.removeprefix(f'../{logged}/')}"


def _golden_file(path: Path) -> Path:
    if not path.is_file():
        raise RequestError(f"there is no file {path}", hint="name a file: -C golden=FILE")
    return path
