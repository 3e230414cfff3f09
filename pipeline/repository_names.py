"""What may exist below the root of a model repository: names that Triton reads as they are meant.

Triton takes names for statements: every folder below the root is a model, every folder of a model
that begins with a number is a version, and every other entry reloads what is served. Publishers
refuse such names here, before anything is written; those that others wrote are found in
:mod:`pipeline.odd_names`. Exactly this exists in a repository of ours::

    .tritonpipe                 one file, so that an empty repository exists
    MODEL/config.pbtxt          the commit
    MODEL/warmup/README         makes the warm-up folder exist
    MODEL/N/FILE                N in 1 … 18 digits, without a leading zero
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from pipeline.errors import RequestError
from pipeline.manifest import MANIFEST_NAME, SIGNATURE_NAME
from pipeline.model_config import check_name

ROOT_FILE: Final = ".tritonpipe"
RESERVED_NAMES: Final = frozenset({MANIFEST_NAME, SIGNATURE_NAME})
"""Written by the publisher beside the files of a version; an entry cannot bring its own."""

_LARGEST_KEY: Final = 1024
_SAFE_NAME: Final = re.compile(r"[0-9A-Za-z._-]+")
_VERSION: Final = re.compile(r"[1-9][0-9]{0,17}")


def check_entry(model: str, version: int, files: Iterable[str]) -> None:
    """Return if a version can be published without any name that Triton misreads.

    Args:
        model: Name of the Triton model.
        version: Number of the Triton version.
        files: Paths of its files relative to the version folder.

    Raises:
        RequestError: A name is illegal; nothing has been written.
    """
    check_name(model)
    check_version(version)
    for path in files:
        check_file_name(path)
        if len(f"{model}/{version}/{path}".encode()) > _LARGEST_KEY // 2:
            raise RequestError(
                f"{path[:60]!r}… is too long a file name: with the model's, an object's key on S3 "
                f"has at most {_LARGEST_KEY} bytes, half of which are left for the repository's",
                hint="shorten the names of the model's files",
            )


def check_version(version: int) -> int:
    """Return ``version`` if it can be a version folder.

    Raises:
        RequestError: It cannot: Triton ignores or misreads it, or ends with an uncaught exception.
    """
    if is_version(str(version)):
        return version
    raise RequestError(
        f"{version} cannot be the version of a Triton model: only 1 to {10**18 - 1}",
        hint="register the model anew, so that its versions count from 1",
    )


def check_file_name(path: str) -> str:
    """Return ``path`` if it can be a file of a version, relative to the version folder.

    Sub-folders are legal; each costs Triton eight requests per poll.

    Raises:
        RequestError: It cannot: Triton would load it once and never see that it changed, or the
            publisher writes a file of this name itself.
    """
    segments = path.split("/")
    bad = [segment for segment in segments if not is_safe(segment)]
    if bad:
        raise RequestError(
            f"{path!r} cannot be a file of a Triton model: each part of its name needs one or more "
            f"letters, digits, '.', '_' and '-', and is not . or ..; found {bad[0]!r}",
            hint="rename the file; Triton loads other names and never sees that they change",
        )
    if segments[0] in RESERVED_NAMES:
        raise RequestError(
            f"{path!r} cannot be a file of a Triton model: the publisher writes it itself",
            hint="rename or remove the file",
        )
    return path


def is_legal_model(name: str) -> bool:
    """Whether a folder below the root can be a model of ours."""
    try:
        return bool(check_name(name))
    except RequestError:
        return False


def is_version(name: str) -> bool:
    """Whether a folder of a model can be a version of ours."""
    return bool(_VERSION.fullmatch(name))


def is_safe(segment: str) -> bool:
    """Whether Triton reads back one part of a path as it was written."""
    return segment not in {".", ".."} and bool(_SAFE_NAME.fullmatch(segment))
