"""Named arrays as bytes between two processes that share neither NumPy nor anything else.

A frame is a head of four letters and two lengths, a header in JSON, and the contents of the arrays
one after another. Guarantees: reading runs no code of the writer; a frame that is cut off, too
large or damaged is an error in words, never a wrong array; text is UTF-8, or is refused by name.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

_HEAD: Final = struct.Struct("<4sIQ")
_MAGIC: Final = b"TPF1"
_LENGTH: Final = struct.Struct("<I")
_MOST_HEADER_BYTES: Final = 16 * 2**20
_MOST_BYTES: Final = 16 * 2**30
_TYPES: Final = frozenset(
    {
        "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
        "float16", "float32", "float64",
    }
)  # fmt: skip
_TEXT: Final = "text"


class FrameError(ValueError):
    """What was read is no frame, or what shall be written fits into none."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One message.

    Attributes:
        kind: What it says.
        arrays: By name, in order. Text is an array of ``str`` objects.
        fields: Anything that JSON holds.
    """

    kind: str
    arrays: Mapping[str, Array] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)


def frame_bytes(frame: Frame) -> list[bytes | memoryview]:
    """The pieces of a frame in the order in which they are written.

    Raises:
        FrameError: An array is of a type that no tensor has.
    """
    described, contents = [], []
    for name, array in frame.arrays.items():
        kind, content = _content(name, np.asarray(array))
        described.append([name, kind, list(array.shape), len(content)])
        contents.append(content)
    document = {"kind": frame.kind, "fields": dict(frame.fields), "arrays": described}
    header = json.dumps(document).encode()
    total = sum(map(len, contents))
    return [_HEAD.pack(_MAGIC, len(header), total) + header, *contents]


def read_frame(read: Callable[[int], bytes | bytearray]) -> Frame:
    """Read one frame.

    Args:
        read: Gives exactly so many bytes; raises EOFError if there are fewer.

    Raises:
        EOFError: The other side is gone.
        FrameError: What comes is no frame.
    """
    magic, header_bytes, total = _HEAD.unpack(read(_HEAD.size))
    if magic != _MAGIC or header_bytes > _MOST_HEADER_BYTES or total > _MOST_BYTES:
        raise FrameError(f"no frame: {magic!r}, lengths {header_bytes} and {total}")
    try:
        document = json.loads(bytes(read(header_bytes)))
        arrays: dict[str, Array] = {}
        for name, kind, shape, size in document["arrays"]:
            total -= size
            _expect_within(name, size, total)
            arrays[name] = _array(name, kind, tuple(shape), bytearray(read(size)))
        return Frame(kind=document["kind"], arrays=arrays, fields=document["fields"])
    except FrameError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise FrameError(f"no frame: {error}") from error


def _expect_within(name: str, size: int, remaining: int) -> None:
    if size < 0 or remaining < 0:
        raise FrameError(f"array {name!r} is longer than its frame")


def _content(name: str, array: Array) -> tuple[str, bytes | memoryview]:
    if array.dtype.kind in "OUST":
        parts = []
        for item in array.ravel().tolist():
            if isinstance(item, str):
                encoded = _utf8(name, item)
            elif isinstance(item, bytes):
                encoded = item
            else:
                raise FrameError(f"{name!r} holds {type(item).__name__} among its text")
            parts += [_LENGTH.pack(len(encoded)), encoded]
        return _TEXT, b"".join(parts)
    if array.dtype.name not in _TYPES:
        raise FrameError(f"{name!r} is of type {array.dtype}, which no tensor has")
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    return array.dtype.name, little.data.cast("B") if little.size else b""


def _utf8(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise FrameError(f"{name!r} holds what is no UTF-8 text: {error.reason}") from error


def _array(name: str, kind: str, shape: tuple[int, ...], content: bytearray) -> Array:
    count = int(np.prod(shape, dtype=np.int64))
    if kind == _TEXT:
        return _text(name, shape, count, content)
    if kind not in _TYPES:
        raise FrameError(f"array {name!r} is of the unknown type {kind!r}")
    dtype = np.dtype(kind)
    if len(content) != count * dtype.itemsize:
        raise FrameError(f"array {name!r} has {len(content)} bytes, too few or too many")
    return np.frombuffer(content, dtype).reshape(shape)


def _text(name: str, shape: tuple[int, ...], count: int, content: bytearray) -> Array:
    texts = np.empty(count, dtype=object)
    place = 0
    try:
        for number in range(count):
            (length,) = _LENGTH.unpack_from(content, place)
            place += _LENGTH.size + length
            texts[number] = content[place - length : place].decode()
    except struct.error:
        raise FrameError(f"array {name!r} has too few texts") from None
    except UnicodeDecodeError as error:
        raise FrameError(f"{name!r} holds what is no UTF-8 text: {error.reason}") from None
    if place != len(content):
        raise FrameError(f"array {name!r} has too few or too many bytes of text")
    return texts.reshape(shape)
