"""What a data scientist reads in MLflow about a version that is served: one screen.

Where it is served and how to ask it, since when, whether it agrees with the model, how fast it
answers, how it is configured, and the digests. A report is true of the moment that it names; what
became of the version later is in its tags, and the report says so.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.artifacts import Confirmation, ModelVersion, Release
from pipeline.ensembles import steps_of
from pipeline.flows.claims import Claim
from pipeline.manifest import digest_of_files
from pipeline.model_config import config_from_text, tensor_specs
from pipeline.report_page import page, table
from pipeline.reports import Report
from pipeline.serialization import to_json
from pipeline.tensors import DYNAMIC, DataType, TensorSpec

_LATER: Final = "what became of it since: see the tag tritonpipe.state of the version"


_KINDS: Final = {DataType.BOOL: "np.bool_", DataType.BF16: "ml_dtypes.bfloat16"}
"""NumPy types that are not called as they are elsewhere, or not in NumPy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A release as it is served, with everything that is told of it.

    Attributes:
        version: The registry version.
        release: What is served, under the Triton name of its manifest.
        confirmation: Answers of the live servers.
        claim: Since when, on whose behalf, and what the confirmation found.
        parity: The comparisons before it was published, in words; empty if they are not known.
        address: Where a server answers over HTTP, as the publisher sees it.
        seconds: Duration of each stage.
    """

    version: ModelVersion
    release: Release
    confirmation: Confirmation
    claim: Claim
    parity: str
    address: str
    seconds: Mapping[str, float]

    @property
    def title(self) -> str:
        """What was confirmed when."""
        name = self.release.manifest.model
        return f"{self.version}, served by Triton as {name} at {self.claim.confirmed_at}"

    @property
    def pages(self) -> dict[str, str]:
        """The report by file name."""
        return {
            "report.html": _html(self),
            "report.md": _markdown(self),
            "report.json": json.dumps(_document(self), indent=1),
        }


def model_digest(release: Release) -> str:
    """Names all files that Triton loads; empty for a model in parts, which has none of its own."""
    return "" if steps_of(release.config) else digest_of_files(release.manifest.files)


def parity_text(report: Report, release: Release) -> str:
    """The comparisons before a release is published, in words."""
    relative, absolute = release.relative_tolerance, release.absolute_tolerance
    allowed = report.allowed_row_fraction
    return (
        f"{len(report.comparisons)} comparisons agree within {absolute:g} + {relative:g}·|expected|"
        f"{f' in all but {allowed:.2%} of the rows' if allowed else ''}; largest difference "
        f"{report.max_absolute_error:.1e}, on {report.samples_origin}"
    )


def _document(service: Service) -> Any:
    """The report as what the ``json`` module can write."""
    manifest = service.release.manifest
    return {
        "registered_model": service.version.name,
        "registered_version": service.version.version,
        "run_id": service.version.run_id,
        "triton_model": manifest.model,
        "triton_version": manifest.version,
        **to_json(service.claim),
        "parity": service.parity,
        "confirmation": to_json(service.confirmation),
        "model_digest": model_digest(service.release),
        "manifest": to_json(manifest),
        "config": service.release.config,
        "seconds": dict(service.seconds),
    }


def _rows(service: Service) -> Iterator[tuple[str, str]]:
    release, claim = service.release, service.claim
    manifest, found = release.manifest, service.confirmation
    alias = f", for the alias {claim.alias}" if claim.alias else ""
    yield "state", f"serving at {claim.confirmed_at}; {_LATER}"
    yield "in Triton", f"{manifest.model}, version {manifest.version}{alias}"
    yield "since", claim.since
    agreeing = f"{len(found.comparisons)} comparisons with the model's own predictions agree"
    yield "live answers", f"{agreeing}; largest difference {claim.max_absolute_error:.1e}"
    yield "before publication", service.parity or "see the report of its first promotion"
    yield (
        "latency",
        ", ".join(f"{ms:.1f} ms over {how}" for how, ms in claim.latency_milliseconds.items())
        + f", median of the confirming requests with {found.comparisons[0].rows} rows each",
    )
    yield "configuration", configuration_text(release.config)
    yield "release", manifest.digest
    if model_digest(release):
        yield "files that Triton loads", model_digest(release)
    yield "logged model", f"{manifest.lineage.source_digest}, flavor {manifest.lineage.flavor}"
    yield "stages", ", ".join(f"{name} {taken:.2f} s" for name, taken in service.seconds.items())


def configuration_text(text: str) -> str:
    """How a ``config.pbtxt`` has a model served, in words."""
    steps = steps_of(text)
    if steps:
        return f"an ensemble of {', '.join(step.model for step in steps)}"
    config = config_from_text(text)
    batching = "one request at a time"
    if config.HasField("dynamic_batching"):
        waits = config.dynamic_batching.max_queue_delay_microseconds
        sizes = ", ".join(map(str, config.dynamic_batching.preferred_batch_size))
        batching = f"batches of up to {config.max_batch_size}, for which a request waits {waits} µs"
        batching += f"; preferred {sizes}" if sizes else ""
    groups = [
        f"{group.count} on {'GPU' if group.kind == group.KIND_GPU else 'CPU'}"
        for group in config.instance_group
    ]
    return f"{batching}; instances: {', '.join(groups) or '1'}; backend {config.backend}"


def _tensors(service: Service) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    config = config_from_text(service.release.config)
    size = config.max_batch_size
    return tensor_specs(config.input, size), tensor_specs(config.output, size)


def _client(service: Service) -> str:
    """A program that asks for one row of nothing in particular."""
    inputs, _outputs = _tensors(service)
    extra = ["import ml_dtypes"] if DataType.BF16 in {spec.data_type for spec in inputs} else []
    lines = [*extra, "import numpy as np", "import tritonclient.http as client", "", "inputs = []"]
    for spec in inputs:
        shape = [1 if size == DYNAMIC else size for size in spec.shape]
        is_text = spec.data_type is DataType.STRING
        kind = "BYTES" if is_text else spec.data_type.value
        data = f'np.full({shape}, b"text", object)' if is_text else _zeros(spec, shape)
        lines.append(f"inputs.append(client.InferInput({spec.name!r}, {shape}, {kind!r}))")
        lines.append(f"inputs[-1].set_data_from_numpy({data})")
    name = service.release.manifest.model
    lines += [
        f"answer = client.InferenceServerClient({service.address!r}).infer({name!r}, inputs)",
        'print(answer.get_response()["model_version"])',
    ]
    lines += [f"print(answer.as_numpy({spec.name!r}))" for spec in _tensors(service)[1]]
    return "\n".join(lines)


def _zeros(spec: TensorSpec, shape: list[int]) -> str:
    kind = _KINDS.get(spec.data_type, f"np.{spec.data_type.numpy}")
    return f"np.zeros({shape}, {kind})"


def _html(service: Service) -> str:
    inputs, outputs = _tensors(service)
    return page(
        service.title,
        [
            table(_rows(service)),
            "<h2>How to ask it</h2>",
            table(
                [("input", str(spec)) for spec in inputs]
                + [("output", str(spec)) for spec in outputs]
            ),
            f"<pre>{html.escape(_client(service))}</pre>",
            "<h2>What the live servers answered</h2>",
            table([("run", "output", "rows", "largest difference"), *_answers(service)]),
        ],
    )


def _answers(service: Service) -> Iterator[tuple[str, str, str, str]]:
    for found in service.confirmation.comparisons:
        yield found.subject, found.output, str(found.rows), f"{found.max_absolute_error:.1e}"


def _markdown(service: Service) -> str:
    inputs, outputs = _tensors(service)
    lines = [f"# {service.title}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in _rows(service)]
    lines += ["", "## How to ask it", ""]
    lines += [f"- input {_cell(str(spec))}" for spec in inputs]
    lines += [f"- output {_cell(str(spec))}" for spec in outputs]
    lines += ["", "```python", _client(service), "```", ""]
    lines += ["| run | output | rows | largest difference |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(_cell(part) for part in row)} |" for row in _answers(service)]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text of a model's author as it stands, in a table of Markdown."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("`", "\\`")
