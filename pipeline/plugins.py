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

    Ours import what they need only when they are used, and then name the extra to install; this
    is about a module that cannot even be imported.

    Raises:
        DependencyError: A package that this kind needs is not installed.
    """
    point = kinds(room)[name]
    try:
        return point.load()
    except ImportError as error:
        origin = point.dist.name if point.dist else point.value
        raise DependencyError(
            f"the {name!r} kind of {room!r} cannot be loaded: {error}",
            hint=f"it comes from {origin}: install what that needs",
        ) from error
