"""What a killed Triton leaves behind on the machine, outside the state directory.

That is shared memory, which Triton removes itself when it ends in order. Only what is certainly
this stack's is removed, by its prefix. Call these when the stack's Triton does not run.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from pipeline.stack.state import StateDirectory

_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108  where Triton puts it, not a choice


def shared_memory_prefix(state: StateDirectory) -> str:
    """Begins the names of this stack's shared memory, and of no other's."""
    return "tritonpipe_" + hashlib.sha256(str(state.path).encode()).hexdigest()[:12] + "_"


def remove_leftovers(state: StateDirectory) -> None:
    """Remove the shared memory of a Triton that could not do so itself."""
    for region in _SHARED_MEMORY.glob(f"{shared_memory_prefix(state)}*"):
        region.unlink(missing_ok=True)
