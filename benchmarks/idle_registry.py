"""Many registered models, all of them published as their aliases wish: nothing is left to do."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from mlflow.tracking import MlflowClient

from pipeline.artifacts import Release
from pipeline.configuration import load_configuration
from pipeline.flows.journal import COMMITTING, CONFIRMED, PROMOTE, Journal
from pipeline.flows.servers import open_servers
from pipeline.manifest import FileDigest, Lineage, Manifest
from pipeline.samples import Samples
from pipeline.settings import load_settings
from pipeline.stores import Store
from pipeline.watch.jobs import Workshop
from pipeline.watch.planning import planned
from pipeline.watch.rounds import Rounds

_DATA = b"x" * 100


@contextmanager
def idle_rounds(count: int, like: str) -> Iterator[Rounds]:
    """Rounds over so many models, in a repository of their own, which no Triton polls.

    Their versions have the artifacts of version 1 of the registered model ``like``.
    """
    os.environ["TRITONPIPE_REPOSITORY"] += "-idle"
    settings = load_settings()
    with open_servers(settings) as servers:
        names = [f"idle-{n:05}" for n in range(count)]
        client = MlflowClient()
        first = client.get_model_version(like, "1")
        with ThreadPoolExecutor(max_workers=8) as workers:
            list(workers.map(lambda name: register(client, name, first), names))
            list(
                workers.map(lambda name: publish(servers.repository, servers.journal, name), names)
            )
        plan = planned(load_configuration(settings), names=("idle-*",))
        yield Rounds(servers, plan, Workshop(), lambda _event: None)


def register(client: MlflowClient, name: str, like: Any) -> None:
    """A registered model with one version and its alias."""
    client.create_registered_model(name)
    client.create_model_version(
        name, like.source, run_id=like.run_id, model_id=like.source.removeprefix("models:/")
    )
    client.set_registered_model_alias(name, "champion", "1")


def publish(store: Store, journal: Journal, name: str) -> None:
    """What a promotion leaves in the store."""
    config = f'name: "{name}" version_policy {{ specific {{ versions: 1 }} }}'
    file = FileDigest(path="model.onnx", size=len(_DATA), sha256=hashlib.sha256(_DATA).hexdigest())
    manifest = Manifest(
        model=name,
        version=1,
        config_sha256=hashlib.sha256(config.encode()).hexdigest(),
        files=(file,),
        lineage=Lineage(
            registered_model=name,
            registered_version=1,
            run_id=None,
            source="mlflow-artifacts:/none",
            source_digest="sha256:0",
            flavor="onnx",
        ),
        tools={},
    )
    release = Release(
        manifest=manifest, config=config, relative_tolerance=0.0, absolute_tolerance=0.0
    )
    row = np.zeros((1, 1), np.float32)
    for path, data in (
        ("1/model.onnx", _DATA),
        ("1/warmup-0.bin", _DATA),
        ("1/manifest.json", manifest.to_bytes()),
        ("warmup/README", _DATA),
    ):
        store.put(f"{name}/{path}", data)
    journal.keep(release, Samples(inputs={"x": row}, outputs={"y": row}))
    for event in (COMMITTING, CONFIRMED):
        journal.append(name, action=PROMOTE, event=event, version=1, previous=None)
    store.put(f"{name}/config.pbtxt", config.encode())
