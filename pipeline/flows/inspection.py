"""What a release is made of, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import RequestError, TritonpipeError
from pipeline.flows.journal import JournalEntry
from pipeline.flows.parts import owner_of
from pipeline.flows.publish import damage, read_state
from pipeline.flows.servers import Servers, open_servers
from pipeline.flows.service_report import configuration_text
from pipeline.manifest import Manifest
from pipeline.model_config import check_name, config_from_text, tensor_specs
from pipeline.registries import Run
from pipeline.settings import Settings
from pipeline.tensors import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Everything known of one release.

    Attributes:
        manifest: Files, digests, lineage and tools.
        inputs: What clients send.
        outputs: What they get.
        configuration: How it is served, in words.
        relative_tolerance: Of the comparisons of live answers.
        absolute_tolerance: Likewise, near zero.
        intact: Whether the repository still holds it as it was published.
        served: Whether the config in the store names it.
        run: The run that trained it, if the registry still has it.
        report: Where the report of its last promotion can be read; empty if that is not known.
        events: What happened to this version, oldest first.
        problems: Sources that did not answer; what they would say is missing above.
    """

    manifest: Manifest
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    configuration: str
    relative_tolerance: float
    absolute_tolerance: float
    digest: str
    intact: bool
    served: bool
    run: Run | None
    report: str
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
        manifest, config = release.manifest, config_from_text(release.config)
        entries = servers.journal.entries(model)
        problems: list[str] = []
        run = _run(servers, manifest.lineage.run_id, problems)
        folder = f"{owner_of(model, entries) or model}-{wanted}"
        return Inspection(
            manifest=manifest,
            inputs=tensor_specs(config.input, config.max_batch_size),
            outputs=tensor_specs(config.output, config.max_batch_size),
            configuration=configuration_text(release.config),
            relative_tolerance=release.relative_tolerance,
            absolute_tolerance=release.absolute_tolerance,
            digest=manifest.digest,
            intact=not damage(servers.repository, manifest),
            served=current == wanted,
            run=run,
            report=run.report_page(folder, "report.html") if run else "",
            events=tuple(e for e in entries if e.version == wanted),
            problems=tuple(problems),
        )


def _run(servers: Servers, run_id: str | None, problems: list[str]) -> Run | None:
    try:
        return None if run_id is None else servers.registry.run(run_id)
    except TritonpipeError as error:
        problems.append(error.message)
        return None
