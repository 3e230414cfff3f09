"""What a release is made of, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import RequestError, TritonpipeError
from pipeline.flows.journal import JournalEntry
from pipeline.flows.publish import damage, read_state
from pipeline.flows.servers import Servers, open_servers
from pipeline.manifest import Manifest
from pipeline.model_config import check_name
from pipeline.registries import Run
from pipeline.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Everything known of one release.

    Attributes:
        manifest: Files, digests, lineage and tools.
        intact: Whether the repository still holds it as it was published.
        served: Whether the config in the store names it.
        run: The run that trained it, if the registry still has it.
        events: What happened to this version, oldest first.
        problems: Sources that did not answer; what they would say is missing above.
    """

    manifest: Manifest
    digest: str
    intact: bool
    served: bool
    run: Run | None
    events: tuple[JournalEntry, ...]
    problems: tuple[str, ...]


def inspect(model: str, version: int | None, settings: Settings) -> Inspection:
    """Everything known of a release, back to the run that trained it.

    Args:
        model: Triton model.
        version: Its version; None for the one published now.
        settings: Where the servers are.

    Raises:
        RequestError: There is no such release.
    """
    with open_servers(settings) as servers:
        current = read_state(servers.repository, check_name(model)).version
        wanted = current if version is None else version
        release = None if wanted is None else servers.journal.release(model, wanted)
        if release is None or wanted is None:
            raise RequestError(
                f"there is no release {model}" + (f"/{wanted}" if wanted else ""),
                hint="see what there is: tritonpipe status",
            )
        manifest = release.manifest
        problems: list[str] = []
        return Inspection(
            manifest=manifest,
            digest=manifest.digest,
            intact=not damage(servers.repository, manifest),
            served=current == wanted,
            run=_run(servers, manifest.lineage.run_id, problems),
            events=tuple(e for e in servers.journal.entries(model) if e.version == wanted),
            problems=tuple(problems),
        )


def _run(servers: Servers, run_id: str | None, problems: list[str]) -> Run | None:
    try:
        return None if run_id is None else servers.registry.run(run_id)
    except TritonpipeError as error:
        problems.append(error.message)
        return None
