"""A version is served as it was first published: other options for it are refused, not ignored."""

from __future__ import annotations

from pipeline.errors import ConflictError
from pipeline.flows.parts import recorded_parts
from pipeline.flows.publish import read_state
from pipeline.flows.release import reusable_release
from pipeline.flows.servers import open_servers
from pipeline.flows.serving_options import differences
from pipeline.settings import Settings


def refuse_other_options(
    name: str, version: int, settings: Settings, serving: frozenset[str]
) -> None:
    """Return unless the version is on record with other serving options than the call names.

    Args:
        name: The Triton model.
        version: Its version.
        settings: What is wished.
        serving: The options that the call names.

    Raises:
        ConflictError: Names what differs.
    """
    if not serving:
        return
    with open_servers(settings) as servers:
        state = read_state(servers.repository, name)
        kept = reusable_release(servers, state, version)
        if kept is None:
            return
        # Of a model in several parts, the last one computes.
        configs = [part.release.config for part in recorded_parts(servers, kept[0])]
    differs = differences((configs or [kept[0].config])[-1], settings, serving)
    if differs:
        raise ConflictError(
            f"{name}/{version} was published with {', '.join(differs)}, and a version never "
            "changes",
            hint="register the model as a new version and deploy that with other options; or "
            "leave them out",
        )
