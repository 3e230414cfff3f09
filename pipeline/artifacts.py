"""The values that travel through a promotion, in the order in which the stages make them.

All are frozen and JSON-serialisable (:mod:`pipeline.serialization`): any stage can run elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pipeline.manifest import FileDigest, Manifest
from pipeline.reports import Comparison as Comparison
from pipeline.reports import Report as Report
from pipeline.tensors import TensorSpec

ONNX_FILE: Final = "model.onnx"
"""The file that Triton's onnxruntime backend loads by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionRequest:
    """What was asked for: a registered model and either an alias or a version of it.

    Attributes:
        model: Name of the registered model.
        alias: Alias to resolve; None if a version was named.
        version: Version number; None if an alias was named.
        triton_name: Name to serve it under; None for the name of the registered model.
        on_behalf_of: The alias that wishes the version, where a version is named; for the record.
    """

    model: str
    alias: str | None = None
    version: int | None = None
    triton_name: str | None = None
    on_behalf_of: str = ""

    def __str__(self) -> str:
        wanted = f"/{self.version}" if self.alias is None else f"@{self.alias}"
        return self.model + wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A version in the registry. The alias that led here travels no further.

    Attributes:
        name: Name of the registered model.
        version: Version number, also the number of the Triton version.
        run_id: The run that logged it, if any.
        source: URI of the artifacts.
        tags: Tags of the version.
        model_tags: Tags of the registered model, if it was asked for them.
    """

    name: str
    version: int
    run_id: str | None
    source: str
    tags: Mapping[str, str]
    model_tags: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModel:
    """The fetched artifacts of a version, as the data scientist logged them.

    Attributes:
        version: Where they come from.
        path: Local folder that holds the ``MLmodel`` file.
        flavors: Flavors named in ``MLmodel``.
        digest: Digest of all files below ``path``.
    """

    version: ModelVersion
    path: Path
    flavors: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxModel:
    """An exported model: a folder with ``model.onnx`` and its external data files.

    Attributes:
        path: The folder; it holds nothing else.
        opset: Version of the default operator set.
        inputs: Inputs of the graph.
        outputs: Outputs of the graph.
        digest: Digest of all files below ``path``.
        source_digest: Digest of the source model.
        flavor: The exporter that made it.
        tools: Versions of the tools that made it.
    """

    path: Path
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    digest: str
    source_digest: str
    flavor: str
    tools: Mapping[str, str]

    @property
    def file(self) -> Path:
        """The graph itself."""
        return self.path / ONNX_FILE

    @property
    def is_batching(self) -> bool:
        """Whether requests can be stacked along a first dimension, all with the same inputs."""
        return bool(self.inputs) and all(
            spec.has_dynamic_batch and not spec.optional for spec in (*self.inputs, *self.outputs)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """A step in front of the graph: from texts to the tokens that it takes, served with it.

    Attributes:
        path: Folder with the data of the step, and nothing else.
        inputs: What clients send.
        outputs: What the step makes; the inputs of the graph are among them.
        handed_on: Those of its outputs that clients get beside the outputs of the graph.
        paddings: By output, what stands where a text has no token.
        pads_left: Whether that is in front of the text.
        tools: Versions of the tools that made it.
    """

    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    handed_on: tuple[str, ...]
    paddings: Mapping[str, int]
    pads_left: bool
    tools: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """More inputs than were logged, in the same form, to compare on.

    Attributes:
        samples: File with the inputs and the source model's own predictions on them.
        origin: What was made of what, in words for the report.
    """

    samples: Path
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What the export stage hands on.

    Attributes:
        onnx: The exported model.
        samples: File with inputs and the model's own predictions on them (:mod:`pipeline.samples`).
        samples_origin: Where the inputs come from, in words for the report.
        probes: Further inputs and predictions.
        left_out: Inputs that could not be compared on, and why, in words for the report.
        recorded: Which of the probes are samples that the model carries, in words; empty if none.
        preprocessing: The step in front of the graph, if there is one. The samples then have what
            clients send, and the outputs of the step beside those of the graph.
    """

    onnx: OnnxModel
    samples: Path
    samples_origin: str
    probes: tuple[Probe, ...] = ()
    left_out: tuple[str, ...] = ()
    recorded: str = ""
    preprocessing: Preprocessing | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything that was written."""
        step = () if self.preprocessing is None else (self.preprocessing.path,)
        return (self.onnx.path, *step, self.samples, *(probe.samples for probe in self.probes))


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryEntry:
    """A version ready to be published: a folder, its manifest and the config that serves it.

    Attributes:
        folder: Local copy of the version folder; manifest and signature are in it if it was signed.
        manifest: Lists the files of ``folder``.
        config: Text of ``config.pbtxt``.
    """

    folder: Path
    manifest: Manifest
    config: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishPlan:
    """What publishing will do; a value, so that ``--dry-run`` can print exactly this.

    Attributes:
        model: Triton model.
        version: Version that will be served.
        previous: Version that is served now, if any.
        uploads: Files to upload, largest first, then the manifest; none if it is there.
        deletes: Keys to remove first: left behind by a publication that never committed.
        commit: Whether ``config.pbtxt`` will be written; False if it already says so.
        signed: Whether a signature follows the manifest.
        parts: What is published and committed together with it.
        client_changes: What clients of the version that is served now must change, in words.
    """

    model: str
    version: int
    previous: int | None
    uploads: tuple[FileDigest, ...]
    deletes: tuple[str, ...]
    commit: bool
    signed: bool = False
    parts: tuple[PublishPlan, ...] = ()
    client_changes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the store already is as wished."""
        mine = self.uploads or self.deletes or self.commit
        return not mine and all(part.is_empty for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A published version as recorded in the store, enough to serve it again.

    Attributes:
        manifest: The version's files and lineage.
        config: Text of the ``config.pbtxt`` that serves it.
        relative_tolerance: Tolerance for answers, relative to the expected value.
        absolute_tolerance: Tolerance for answers near zero.
    """

    manifest: Manifest
    config: str
    relative_tolerance: float
    absolute_tolerance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """Proof that the live server serves a release.

    Attributes:
        version: The version that answered.
        comparisons: Answers of every server and protocol against the model's own predictions.
        seconds_to_ready: From the commit to the version being ready; 0 if it already was.
        latency_milliseconds: Median of the confirming requests to the slowest server, by protocol.
    """

    version: int
    comparisons: tuple[Comparison, ...]
    seconds_to_ready: float
    latency_milliseconds: Mapping[str, float]

    @property
    def ok(self) -> bool:
        """Whether all answers agree."""
        return bool(self.comparisons) and all(c.ok for c in self.comparisons)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionResult:
    """How a promotion ended.

    Attributes:
        outcome: ``promoted``, or ``unchanged`` if the version was already served.
        version: The registry version.
        triton_name: The model name that clients use.
        digest: Digest of the release.
        previous: Version that was served before.
        report: Parity of the export; None if an earlier release was served again.
        confirmation: Answers of the live server.
        seconds: Duration of each stage.
        client_changes: As in the plan.
    """

    outcome: str
    version: ModelVersion
    triton_name: str
    digest: str
    previous: int | None
    report: Report | None
    confirmation: Confirmation
    seconds: Mapping[str, float]
    client_changes: tuple[str, ...] = ()
