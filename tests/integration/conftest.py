"""One real stack for all integration tests, on ports of its own, and nothing left of it after."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from pipeline.stack import Stack
from pipeline.stack.leftovers import shared_memory_prefix
from pipeline.stack.ports import Ports, is_free
from pipeline.stack.processes import family
from pipeline.stack.shell import CONFLICTING, without_proxy
from pipeline.stack.state import StateDirectory

ANY_PORTS = {field.name: 0 for field in fields(Ports)}
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack, to which the environment of this process points."""
    # The blank is on purpose: Triton has to work in any folder.
    stack = Stack(tmp_path_factory.mktemp("stack") / "the state")
    with pytest.MonkeyPatch.context() as patch:
        stack.up(ports=ANY_PORTS)
        try:
            for name in CONFLICTING:
                patch.delenv(name, raising=False)
            variables = stack.environment_variables() | without_proxy(os.environ)
            for name, value in variables.items():
                patch.setenv(name, value)
            yield stack
        finally:
            down_without_a_trace(stack)


@pytest.fixture
def take_down() -> Callable[[Stack], None]:
    """Take a stack down and check that nothing of it is left but its data."""
    return down_without_a_trace


def down_without_a_trace(stack: Stack) -> None:
    """Take a stack down and check that no process, port or shared memory is left."""
    state = StateDirectory(stack.state_directory)
    ports = state.options().ports
    identities = [part.identity() for part in stack.parts()]
    stack.down()
    assert [family(identity) for identity in identities if identity] == [()] * len(identities)
    assert all(is_free(getattr(ports, field.name)) for field in fields(Ports))
    assert list(Path("/dev/shm").glob(f"{shared_memory_prefix(state)}*")) == []
