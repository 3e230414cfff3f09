"""What exporters through ``torch.onnx`` share: its silence, and where the weights go."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

MOST_INNER_BYTES: Final = 256 * 2**20
"""Of weights that are part of the graph's own file."""

_CHATTER: Final = ("torch.onnx", "torch.export", "torch._export", "onnxscript", "onnx_ir")


@contextmanager
def quiet(*others: str) -> Iterator[None]:
    """Torch tells its own developers a lot, and so do ``others``; errors are raised anyway."""
    loggers = [logging.getLogger(name) for name in (*_CHATTER, *others)]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def save_program(program: Any, file: Path) -> None:
    """Write the graph; large weights into a file beside it, from which they need not be copied.

    A graph that holds its weights is copied whole by everything that reads or writes it.
    """
    constants = (value.const_value for value in program.model.graph.initializers.values())
    size = sum(constant.nbytes for constant in constants if constant is not None)
    program.save(str(file), external_data=size > MOST_INNER_BYTES)
