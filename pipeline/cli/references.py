"""How model versions are named on the command line."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pipeline.errors import RequestError

if TYPE_CHECKING:
    from pipeline.artifacts import PromotionRequest

_URIS: Final = ("models:/", "runs:/")

# MLflow allows @ in names of models, but not in aliases; the last one separates.
_REFERENCE = re.compile(
    r"(?P<model>[^/]+)(@(?P<alias>[^/@]+)|/(?P<version>[1-9][0-9]{0,17}))|(?P<bare>[^/@]+)"
)


def request_from_text(
    text: str, *, alias: str | None = None, triton_name: str | None = None
) -> PromotionRequest:
    """Read ``NAME@ALIAS``, ``NAME/VERSION`` or ``NAME``, which means ``alias``.

    The first two may be written as MLflow does: ``models:/NAME@ALIAS``. A name with ``@`` in it
    needs the alias or the version: ``a@b@c`` is alias ``c`` of ``a@b``.

    Raises:
        RequestError: The text is none of these.
    """
    from pipeline.artifacts import PromotionRequest

    if text.startswith(_URIS):
        return replace(_request_from_uri(text), triton_name=triton_name)
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise RequestError(
            f"{text!r} does not name a model version",
            hint="write NAME@ALIAS, NAME/VERSION (a positive number) or NAME; models:/NAME@ALIAS "
            "and models:/NAME/VERSION will do, too",
        )
    version = int(match["version"]) if match["version"] else None
    return PromotionRequest(
        model=match["model"] or match["bare"],
        alias=None if version else match["alias"] or alias,
        version=version,
        triton_name=triton_name,
    )


def release_from_text(text: str, *, command: str) -> tuple[str, int | None]:
    """Read ``MODEL/VERSION``, or ``MODEL`` for whichever is meant without a number.

    Args:
        text: What was written.
        command: For what, for the hint.

    Raises:
        RequestError: It is neither, or an alias, which a release does not have.
    """
    request = request_from_text(text)
    if request.alias is not None:
        raise RequestError(
            f"{text!r} names an alias, and releases have none: an alias may have moved since",
            hint=f"tritonpipe {command} {request.model}, or {request.model}/VERSION",
        )
    return request.model, request.version


def _request_from_uri(text: str) -> PromotionRequest:
    from pipeline.registries.mlflow_uris import model_uri_from_text

    request = model_uri_from_text(text).request
    if request is None:
        raise RequestError(
            f"{text!r} is not a registered version",
            hint=f'register it first: mlflow.register_model("{text}", "NAME")',
        )
    return request
