"""What others wrote into a model repository, from the names alone, and what Triton makes of it.

One odd name can blind, unload or abort the server. The effects were measured on Triton 2.51 polling
an S3 server. What may exist is in :mod:`pipeline.repository_names`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Final

from pipeline.findings import Finding, Severity
from pipeline.model_config import CONFIG_NAME, WARMUP_FOLDER
from pipeline.repository_names import ROOT_FILE, is_legal_model, is_safe, is_version

_CONTENT_FOLDERS: Final = frozenset({WARMUP_FOLDER, "initial_state", "configs"})
"""Folders of a model that Triton knows not to be versions."""

_READABLE_VERSIONS: Final = range(-(2**63), 2**63)
_LEADING_NUMBER: Final = re.compile(r"\s*[+-]?[0-9]+")
"""What the server's ``std::stoll`` reads of a folder's name."""

_NO_LOAD: Final = (
    "Triton takes it for a model and fails to load it in every poll; if it completes configs by "
    "itself, its server-wide readiness says no until a restart, even when the folder is gone"
)


def odd_names(keys: Iterable[str]) -> list[Finding]:
    """What is odd about the names of a repository's objects; empty for one of ours.

    Args:
        keys: All keys, relative to the repository, in any order.

    Returns:
        One finding for each odd object or folder, most severe first.
    """
    models: dict[str, list[str]] = {}
    found: dict[tuple[str, str], Finding] = {}
    names = set(keys)
    folders = {str(parent) for key in names for parent in PurePosixPath(key).parents}
    for key in sorted(names):
        model, slash, rest = key.partition("/")
        if "" in key.removesuffix("/").split("/"):
            findings = iter([_empty_name(key)])
        elif key.endswith("/") or key in folders:
            findings = iter([_folder_marker(key)])
        elif not slash:
            findings = _in_root(key)
        elif not is_legal_model(model):
            findings = iter([_illegal_model(model)])
        else:
            models.setdefault(model, []).append(rest)
            continue
        for finding in findings:
            found.setdefault((finding.code, finding.subject), finding)
    for model, entries in models.items():
        for finding in _in_model(model, entries):
            found.setdefault((finding.code, finding.subject), finding)
    return sorted(found.values(), key=lambda f: (list(Severity).index(f.severity), f.subject))


def _is_config_or_version(entry: str) -> bool:
    first, slash, _rest = entry.partition("/")
    return entry == CONFIG_NAME or (bool(slash) and is_version(first))


def _empty_name(key: str) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        code="empty-name",
        subject=key,
        message="a key with a leading or doubled slash: Triton's listing fails with 'Cannot handle "
        "item with empty name', and it unloads every model",
        hint="delete this object at once, with a tool that keeps the slashes",
    )


def _folder_marker(key: str) -> Finding:
    return Finding(
        severity=Severity.NOTE,
        code="folder-marker",
        subject=key,
        message="an object with the name of a folder, as browsers of S3 write them",
        hint="delete it; on S3 a folder exists as long as something is in it",
    )


def _in_root(key: str) -> Iterator[Finding]:
    if key != ROOT_FILE:
        yield Finding(
            severity=Severity.NOTE,
            code="root-file",
            subject=key,
            message="a file beside the models: Triton ignores it, at two requests in every poll",
            hint="move it out of the repository",
        )


def _illegal_model(name: str) -> Finding:
    if is_safe(name):
        message = f"a folder that is no model of ours: {_NO_LOAD}"
        severity = Severity.ERROR
    else:
        message = (
            "a folder whose name Triton cannot read back: it looks in another bucket, an error in "
            "every poll; the other models are not affected"
        )
        severity = Severity.WARNING
    return Finding(
        severity=severity,
        code="illegal-model-name",
        subject=f"{name}/",
        message=message,
        hint="move the folder out of the repository",
    )


def _no_model(name: str) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        code="no-model",
        subject=f"{name}/",
        message=f"a folder with neither {CONFIG_NAME} nor a version: {_NO_LOAD}",
        hint="move the folder out of the repository",
    )


def _in_model(model: str, entries: list[str]) -> Iterator[Finding]:
    if any(_is_config_or_version(entry) for entry in entries):
        for entry in entries:
            yield from _in_folder(model, entry)
    else:
        yield _no_model(model)


def _in_folder(model: str, rest: str) -> Iterator[Finding]:
    first, slash, _path = rest.partition("/")
    if rest not in {CONFIG_NAME, f"{WARMUP_FOLDER}/README"}:
        yield from _model_entry(model, first, is_folder=bool(slash))
    unsafe = [segment for segment in rest.split("/") if not is_safe(segment)]
    if unsafe:
        yield Finding(
            severity=Severity.WARNING,
            code="unsafe-file-name",
            subject=f"{model}/{rest}",
            message=f"{unsafe[0]!r} has other characters than letters, digits, '.', '_' and '-': "
            "Triton loads it, never sees that it changes, and says so in every poll",
            hint="rename it at its source and publish a new version, then collect this one",
        )


def _model_entry(model: str, name: str, *, is_folder: bool) -> Iterator[Finding]:
    subject = f"{model}/{name}" + ("/" if is_folder else "")
    if CONFIG_NAME.startswith(name):
        yield Finding(
            severity=Severity.ERROR,
            code="blinds-triton",
            subject=subject,
            message=f"its name is the beginning of {CONFIG_NAME}: Triton says 'Duplicate model "
            "config is detected' and sees no change of this model any more, no commit and no "
            "rollback, while it exists",
            hint="delete it, then commit again: tritonpipe fsck --repair",
        )
    elif not is_folder:
        yield Finding(
            severity=Severity.WARNING,
            code="file-in-model-folder",
            subject=subject,
            message="a file beside the version folders: whenever it is written, Triton loads every "
            "served version of the model anew",
            hint="delete it when no load runs, or put it into a version before it is published",
        )
    elif name in _CONTENT_FOLDERS:
        yield Finding(
            severity=Severity.NOTE,
            code="content-folder",
            subject=subject,
            message="not of a published version: whenever a file in it is written, Triton loads "
            "every served version of the model anew",
            hint="put the files into a version folder; leave these alone while one uses them",
        )
    elif not is_version(name):
        yield _version_like(model, name)


def _version_like(model: str, name: str) -> Finding:
    number = _LEADING_NUMBER.match(name)
    value = int(number[0]) if number else None
    severity = Severity.WARNING
    hint = "move the folder out of the repository when no load runs"
    if value is None or value < 0:
        code = "folder-in-model-folder"
        message = (
            "not a version: Triton says 'ignore version directory' in every poll, and loads every "
            "served version of the model anew whenever a file in it is written"
        )
    elif name.startswith("0") and len(name) > 1:
        code = "odd-version"
        message = "Triton ignores versions with a leading zero, with a warning in every poll"
    else:
        code = "odd-version"
        message = f"Triton takes it for version {value} of the model" + (
            "" if name.isdigit() else ", and loads every served version anew when it is written to"
        )
    if value is not None and value not in _READABLE_VERSIONS and not name.startswith("0"):
        severity, code = Severity.ERROR, "aborts-triton"
        message = (
            "too large a number for a version: Triton ends with an uncaught std::out_of_range, and "
            "again at every start"
        )
        hint = "move the folder out of the repository at once"
    return Finding(
        severity=severity, code=code, subject=f"{model}/{name}/", message=message, hint=hint
    )
