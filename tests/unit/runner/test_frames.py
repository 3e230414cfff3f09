from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from pipeline.runner.frames import Array, Frame, FrameError, frame_bytes, read_frame


def written(**arrays: Any) -> bytes:
    return b"".join(frame_bytes(Frame(kind="ask", arrays=arrays, fields={"form": "frame"})))


def read(data: bytes) -> Frame:
    stream = io.BytesIO(data)

    def exactly(size: int) -> bytes:
        piece = stream.read(size)
        if len(piece) < size:
            raise EOFError
        return piece

    return read_frame(exactly)


ARRAYS: list[Array] = [
    *(np.arange(6).reshape(2, 3).astype(t) for t in ("bool", "uint8", "int64", "float16")),
    np.array([[1.5, np.nan], [-np.inf, 0.0]]),
    np.array([["Köln"], [""], ["a\0b\n"]], dtype=object),
    np.array(["text", "of numpy"]),
    np.zeros((0, 3), np.float32),
    np.zeros((0, 1), object),
    np.array(3.0),
    np.arange(12, dtype=np.int32).reshape(3, 4).T,
    np.arange(3, dtype=">i4"),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_what_is_read_is_what_was_written(array: Array) -> None:
    frame = read(written(x=array, y=np.ones(2)))
    assert frame.kind == "ask"
    assert frame.fields == {"form": "frame"}
    assert list(frame.arrays) == ["x", "y"]
    assert frame.arrays["x"].shape == array.shape
    np.testing.assert_array_equal(frame.arrays["x"], array)
    is_text = array.dtype.kind in "OU"
    assert frame.arrays["x"].dtype == (object if is_text else array.dtype.newbyteorder("="))


@pytest.mark.parametrize(
    "array",
    [
        np.array(["2020-01-01"], "datetime64[D]"),
        np.array([1j]),
        np.array(["a", None], dtype=object),
        np.array(["a", 1.5], dtype=object),
        np.array(["\ud800"], dtype=object),
    ],
    ids=["datetime", "complex", "missing text", "mixed", "no UTF-8"],
)
def test_what_no_tensor_carries_is_refused_by_name(array: Array) -> None:
    with pytest.raises(FrameError, match="'column'"):
        written(column=array)


def test_damage_is_an_error_and_never_another_array() -> None:
    whole = written(x=np.arange(5), text=np.array(["ab", "c"], dtype=object))
    expected = read(whole).arrays
    for cut in range(len(whole)):
        with pytest.raises((EOFError, FrameError)):
            read(whole[:cut])
    generator = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        place = int(generator.integers(0, len(whole) - 51))  # not in the contents
        damaged[place] ^= int(generator.integers(1, 256))
        try:
            found = read(bytes(damaged)).arrays
        except (EOFError, FrameError):
            continue
        for name, array in expected.items():
            if name in found and found[name].dtype == array.dtype:
                assert found[name].size == array.size or name == "text"
