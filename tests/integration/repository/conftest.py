"""Releases of small graphs on the real stack, and a command line, for tests of their care."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.cli import tritonpipe as command
from pipeline.errors import TritonpipeError
from pipeline.flows.journal import PROMOTE
from pipeline.flows.progress import silent
from pipeline.flows.publication import publish_and_serve
from pipeline.flows.publish import read_state
from pipeline.flows.servers import Servers
from pipeline.settings import Settings
from pipeline.stores import Store
from pipeline.testing.prove.entries import Recipe, make_candidate


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A command that ended."""

    code: int
    out: str
    err: str
    error: TritonpipeError | None

    @property
    def data(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def tritonpipe(stack: object) -> Callable[..., Ended]:
    """Run the command line in this process, as ``main`` does."""

    def run(*arguments: str) -> Ended:
        done = CliRunner().invoke(command, arguments, standalone_mode=False)
        if done.exception is not None and not isinstance(done.exception, TritonpipeError):
            raise done.exception
        return Ended(
            code=done.return_value or 0,
            out=done.stdout,
            err=done.stderr,
            error=done.exception,
        )

    return run


@pytest.fixture
def store(servers: Servers) -> Store:
    return servers.repository


@pytest.fixture
def publish(servers: Servers, settings: Settings, name: str, tmp_path: Path) -> Callable[..., None]:
    """Publish and serve versions of ``y = version * x``, one after the other."""

    def run(*versions: int) -> None:
        for version in versions:
            folder = tmp_path / uuid.uuid4().hex
            folder.mkdir()
            publish_and_serve(
                servers,
                make_candidate(Recipe(model=name, version=version), folder),
                read_state(servers.repository, name),
                action=PROMOTE,
                settings=settings,
                progress=silent,
            )

    return run
