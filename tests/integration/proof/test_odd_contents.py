"""Every name that Triton misreads is refused by the publisher, before anything is written."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RequestError
from pipeline.flows.journal import PROMOTE
from pipeline.flows.progress import silent
from pipeline.flows.publication import publish_and_serve
from pipeline.flows.publish import read_state
from pipeline.flows.servers import Servers, open_servers
from pipeline.manifest import FileDigest
from pipeline.settings import load_settings
from pipeline.testing.prove.entries import Recipe, make_candidate

MODEL = "odd-contents"
FILES = ["/leading", "a//b", "../2/model.onnx", "with space", "plus+", "manifest.json", "./x", "é"]
VERSIONS = [0, -1, 10**18, 12345678901234567890]
MODELS = [".pipeline", "-m", "with space", "plus+", "a/b", "m/../n", "", "m\n"]


@pytest.fixture
def servers(stack: Any) -> Iterator[Servers]:
    with open_servers(load_settings()) as opened:
        yield opened


@pytest.mark.parametrize(
    "change",
    [
        *({"files": (FileDigest(path=path, size=3, sha256="0" * 64),)} for path in FILES),
        *({"version": version} for version in VERSIONS),
        *({"model": model} for model in MODELS),
    ],
    ids=repr,
)
def test_an_odd_name_is_refused_and_nothing_is_written(
    servers: Servers, tmp_path: Path, change: dict[str, Any]
) -> None:
    model = f"{MODEL}-{uuid.uuid4().hex[:8]}"
    made = make_candidate(Recipe(model=model, version=1), tmp_path)
    assert made.entry is not None
    manifest = replace(made.release.manifest, **change)
    odd = replace(
        made,
        release=replace(made.release, manifest=manifest),
        entry=replace(made.entry, manifest=manifest),
    )
    before = [o.key for o in servers.repository.list_folder("")]
    with pytest.raises(RequestError):
        publish_and_serve(
            servers,
            odd,
            read_state(servers.repository, manifest.model),
            action=PROMOTE,
            settings=load_settings(),
            progress=silent,
        )
    assert [o.key for o in servers.repository.list_folder("")] == before
