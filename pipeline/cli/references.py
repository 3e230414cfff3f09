"""How model versions are named on the command line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pipeline.errors import RequestError

if TYPE_CHECKING:
    from pipeline.artifacts import PromotionRequest

# MLflow allows @ in names of models, but not in aliases; the last one separates.
_REFERENCE = re.compile(
    r"(?P<model>[^/]+)(@(?P<alias>[^/@]+)|/(?P<version>[1-9][0-9]{0,17}))|(?P<bare>[^/@]+)"
)


def request_from_text(
    text: str, *, alias: str | None = None, triton_name: str | None = None
) -> PromotionRequest:
    """Read ``NAME@ALIAS``, ``NAME/VERSION`` or ``NAME``, which means ``alias``.

    A name with ``@`` in it needs the alias or the version: ``a@b@c`` is alias ``c`` of ``a@b``.

    Raises:
        RequestError: The text is none of these.
    """
    from pipeline.artifacts import PromotionRequest

    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise RequestError(
            f"{text!r} does not name a model version",
            hint="write NAME@ALIAS, NAME/VERSION (a positive number) or NAME",
        )
    version = int(match["version"]) if match["version"] else None
    return PromotionRequest(
        model=match["model"] or match["bare"],
        alias=None if version else match["alias"] or alias,
        version=version,
        triton_name=triton_name,
    )
