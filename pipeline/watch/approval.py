"""What the tables of ``tritonpipe.toml`` say of one version that a person promotes by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pipeline.artifacts import PromotionRequest
from pipeline.errors import RequestError
from pipeline.registries import Registry
from pipeline.served_names import name_in_triton
from pipeline.watch.versions import Versions
from pipeline.watch.wishes import Rule, Wish


def named(request: PromotionRequest, rule: Rule) -> PromotionRequest:
    """The request under the name that its alias is served as; one that has a name keeps it."""
    template = rule.serve.get(request.alias or "")
    if request.triton_name is not None or template is None:
        return request
    return replace(request, triton_name=name_in_triton(template, request.model))


def require_approved(
    request: PromotionRequest, rule: Rule, registry: Callable[[], Registry]
) -> None:
    """Nothing, if the version has what its rule requires; asks nobody if that is nothing.

    Raises:
        RequestError: It lacks something, or there is no such version.
        UnavailableError: The registry does not answer.
    """
    if not (rule.requires or rule.metrics):
        return
    found = registry()
    version = found.resolve(request)
    wish = Wish(
        model=request.triton_name or request.model,
        registered_model=request.model,
        alias=request.alias or "",
        version=version.version,
    )
    unmet = Versions(found).unmet(wish, rule)
    if unmet:
        raise RequestError(
            f"{version} is not approved: {unmet}",
            hint="the table of tritonpipe.toml requires it; --unapproved serves it all the same",
        )
