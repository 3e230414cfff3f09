"""A repository with releases of one model, in a world in which every step can be broken.

What real servers do with it is the business of the integration tests; this is for laws about every
order of events and every fault.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, cast

import numpy as np

from pipeline.artifacts import Release
from pipeline.errors import TritonpipeError
from pipeline.flows.journal import PROMOTE, Journal, JournalEntry
from pipeline.flows.progress import silent
from pipeline.flows.publish import WARMUP_MARKER
from pipeline.flows.repository import Repository
from pipeline.flows.serve import serve
from pipeline.flows.servers import Servers, repository_of
from pipeline.manifest import FileDigest, Lineage, Manifest
from pipeline.model_config import CONFIG_NAME, served_versions
from pipeline.registries import RegisteredModel
from pipeline.samples import Samples
from pipeline.stores.objects import ObjectStore
from pipeline.testing.simulated import (
    Fault,
    Killed,
    SimulatedLocks,
    SimulatedStore,
    SimulatedTriton,
    World,
)

MODEL = "m"


class SimulatedRepository:
    """Everything that a flow talks to, and releases of the model ``m``.

    Attributes:
        aliases: Where the aliases of the registered model ``m`` point.
    """

    def __init__(self, world: World, store: SimulatedStore) -> None:
        self.world = world
        self.store = store
        self.records = SimulatedStore(world)
        self.journal = Journal(self.records)
        self.locks = SimulatedLocks()
        self.triton = _QuickTriton(world, store, {})
        self.aliases: dict[str, int] = {}
        self.registered: dict[int, tuple[Release, Samples]] = {}
        store.put(".tritonpipe", b"")
        registry: Any = self
        triton: Any = self.triton
        self.servers = Servers(
            registry=registry,
            repository=store,
            journal=self.journal,
            replicas=cast("Any", (triton,)),
            locks=self.locks,
        )

    @property
    def repository(self) -> Repository:
        """The part that is the repository."""
        return repository_of(self.servers)

    def registered_models(self) -> list[RegisteredModel]:
        """As a registry; a step."""
        self.world.step()
        return [RegisteredModel(name=MODEL, aliases=dict(self.aliases))]

    def publish(self, *versions: int, works: bool = True, warmup: str = "") -> None:
        """Upload and record versions; nothing is served yet."""
        for version in versions:
            answer = np.full((1, 1), float(version), dtype=np.float32)
            self.triton.answers[version] = answer if works else -answer
            files = {"model.onnx": b"graph %d" % version, "data.bin": b"w" * version}
            release = _release(version, files, warmup)
            for path, data in files.items():
                self.store.put(f"{MODEL}/{version}/{path}", data)
            self.store.create(f"{MODEL}/{WARMUP_MARKER}", b"Warm-up data is part of each version")
            self.store.put(f"{MODEL}/{version}/manifest.json", release.manifest.to_bytes())
            rows = np.zeros((1, 1), np.float32)
            golden = Samples(inputs={"x": rows}, outputs={"y": answer})
            self.journal.keep(release, golden)
            self.registered[version] = release, golden

    def serve(self, *versions: int, action: str = PROMOTE) -> None:
        """Commit and prove published versions, one after the other."""
        for version in versions:
            release, golden = self.registered[version]
            with self.locks.hold(MODEL, seconds=0, tell=lambda _text: None) as held:
                serve(
                    self.servers,
                    release,
                    golden,
                    held=held,
                    action=action,
                    seconds=10,
                    progress=silent,
                )

    def break_serving(self, version: int, step: int, fault: Fault, action: str = PROMOTE) -> None:
        """Serve with a fault, however that ends."""
        self.world.break_at(step, fault)
        with suppress(TritonpipeError, KeyboardInterrupt, Killed):
            self.serve(version, action=action)
        self.world.break_at(0, None)

    @property
    def served(self) -> int | None:
        """The version that clients get."""
        return self.triton.served(MODEL)

    @property
    def entries(self) -> list[JournalEntry]:
        """The journal."""
        return self.journal.entries(MODEL)

    def folders(self) -> set[int]:
        """The versions of which any object is there."""
        parts = (key.split("/") for key in self.store.snapshot() if key.startswith(f"{MODEL}/"))
        return {int(p[1]) for p in parts if len(p) > 2 and p[1].isdigit()}


class _QuickTriton(SimulatedTriton):
    """Reads one object instead of all, and each config once; serves nothing it cannot read."""

    def ready(self, model: str) -> tuple[int, ...]:
        """As in the parent; no step."""
        found = ObjectStore.read(self._store, f"{model}/{CONFIG_NAME}")
        named = () if found is None else _named(found.data)
        return tuple(version for version in named if version in self.answers)


@functools.cache
def _named(config: bytes) -> tuple[int, ...]:
    try:
        return served_versions(config.decode())
    except ValueError:
        return ()


def _release(version: int, files: Mapping[str, bytes], warmup: str) -> Release:
    config = (
        f'name: "{MODEL}" max_batch_size: 4 '
        f"version_policy {{ specific {{ versions: {version} }} }} {warmup}"
    )
    manifest = Manifest(
        model=MODEL,
        version=version,
        config_sha256=hashlib.sha256(config.encode()).hexdigest(),
        files=tuple(_digests(files.items())),
        lineage=Lineage(
            registered_model=MODEL,
            registered_version=version,
            run_id=f"run-{version}",
            source="s",
            source_digest="d",
            flavor="onnx",
        ),
        tools={},
    )
    return Release(manifest=manifest, config=config, relative_tolerance=0.0, absolute_tolerance=0.0)


def _digests(files: Iterable[tuple[str, bytes]]) -> Iterable[FileDigest]:
    for path, data in sorted(files):
        digest = hashlib.sha256(data).hexdigest()
        yield FileDigest(path=path, size=len(data), sha256=digest)
