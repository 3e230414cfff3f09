"""Strings between Triton, which carries bytes, and ONNX Runtime, which computes with text.

Guarantee: bytes that are not UTF-8 are refused by the name of their input; without this step ONNX
Runtime would take the Python notation of the bytes (``b'...'``) for the text. The way back needs
nothing: Triton encodes text itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def text_from_bytes(name: str, array: npt.NDArray[Any]) -> npt.NDArray[np.object_]:
    """Decode an array of ``bytes`` into an array of ``str`` of the same shape.

    Raises:
        ValueError: An element is not UTF-8; names the input.
    """
    try:
        texts = [item.decode() for item in array.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise ValueError(f"input {name!r} is not UTF-8 text: {error}") from error
    return np.array(texts, dtype=object).reshape(array.shape)
