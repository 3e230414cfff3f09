"""JSON for the frozen dataclasses that travel between rooms, processes and machines.

The round trip is the identity: ``from_json(type(x), to_json(x)) == x``. Only the annotations that
those dataclasses use are understood; anything else is a ``TypeError``, so that a new field cannot
silently lose its type on the way through a child process.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SCALARS = (str, int, float, bool)


def to_json(value: Any) -> Any:
    """Turn ``value`` into what the ``json`` module can write."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, _SCALARS):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form")


def from_json(kind: Any, data: Any) -> Any:
    """Rebuild a value of type ``kind`` from what :func:`to_json` gave.

    Unknown keys are ignored, so that a newer writer can be read by an older reader.

    Raises:
        TypeError: ``data`` does not have the form of ``kind``, or ``kind`` is not supported.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return data
    if origin in (typing.Union, types.UnionType):
        return _optional_from_json(arguments, data)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass_from_json(kind, data)
    if origin is tuple:
        _expect(list, data, kind)
        return tuple(from_json(arguments[0], item) for item in data)
    if origin is not None and issubclass(origin, Mapping):
        _expect(dict, data, kind)
        return {from_json(arguments[0], k): from_json(arguments[1], v) for k, v in data.items()}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(data)
    if kind is Path:
        return Path(data)
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return _float_from_int(data)
    if kind in _SCALARS:
        _expect(kind, data, kind)
        return data
    raise TypeError(f"{kind!r} cannot be read from JSON")


def _float_from_int(data: int) -> float:
    try:
        return float(data)
    except OverflowError as error:
        raise TypeError(f"expected a float, found an integer that is too large: {error}") from error


def _optional_from_json(arguments: tuple[Any, ...], data: Any) -> Any:
    inner = [argument for argument in arguments if argument is not type(None)]
    if len(inner) != 1:
        raise TypeError(f"only 'X | None' can be read from JSON, not a union of {arguments}")
    return None if data is None else from_json(inner[0], data)


def _dataclass_from_json(kind: type, data: Any) -> Any:
    _expect(dict, data, kind)
    hints = _hints(kind)
    known = {f.name for f in dataclasses.fields(kind)} & data.keys()
    return kind(**{name: from_json(hints[name], data[name]) for name in known})


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _expect(expected: type, data: Any, kind: Any) -> None:
    if not isinstance(data, expected):
        raise TypeError(f"expected {expected.__name__} for {kind!r}, found {type(data).__name__}")
