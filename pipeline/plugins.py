"""Finds the interchangeable kinds of a room, ours and third parties', through entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pipeline.errors import DependencyError


def kinds(room: str) -> dict[str, EntryPoint]:
    """All kinds of a room by name; nothing is imported yet."""
    return {point.name: point for point in entry_points(group=f"tritonpipe.{room}")}


def load_kind(room: str, name: str) -> Any:
    """Import one kind.

    Raises:
        DependencyError: A package that this kind needs is not installed.
    """
    try:
        return kinds(room)[name].load()
    except ImportError as error:
        raise DependencyError(
            f"the {name!r} kind of {room!r} cannot be loaded: {error}",
            hint=f"install the extra that brings it, such as: pip install 'tritonpipe[{name}]'",
        ) from error
