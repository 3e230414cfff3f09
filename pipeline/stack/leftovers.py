"""What a killed Triton leaves behind on the machine, outside the state directory.

Triton removes both kinds itself when it ends in order. Only what is certainly this stack's is
removed: shared memory by its prefix, copies of models by their manifests. Call these when the
stack's Triton does not run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Final

import psutil

from pipeline.manifest import MANIFEST_NAME
from pipeline.stack.s3_server import repository_folder
from pipeline.stack.state import StateDirectory

_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108  where Triton puts it, not a choice
_COPIES: Final = Path("/tmp")  # noqa: S108  compiled into Triton, whatever TMPDIR says


def shared_memory_prefix(state: StateDirectory) -> str:
    """Begins the names of this stack's shared memory, and of no other's."""
    return "tritonpipe_" + hashlib.sha256(str(state.path).encode()).hexdigest()[:12] + "_"


def remove_leftovers(state: StateDirectory) -> None:
    """Remove shared memory and copies of models of a Triton that could not do so itself."""
    for region in _SHARED_MEMORY.glob(f"{shared_memory_prefix(state)}*"):
        region.unlink(missing_ok=True)
    for copy in _copies_of(repository_folder(state)):
        shutil.rmtree(copy, ignore_errors=True)


def _copies_of(repository: Path) -> tuple[Path, ...]:
    """Triton's copies of entries of this repository that no process works with."""
    candidates = [path for path in _COPIES.glob("folder??????") if _is_mine(path)]
    if not candidates:
        return ()
    ours = {path.read_bytes() for path in repository.glob(f"*/*/{MANIFEST_NAME}")}
    # A copy with the same manifest may belong to another stack, whose processes then name it.
    in_use = "\n".join(_command_lines())
    return tuple(
        path
        for path in candidates
        if str(path) not in in_use
        and any(m.read_bytes() in ours for m in path.glob(f"*/{MANIFEST_NAME}"))
    )


def _is_mine(path: Path) -> bool:
    return not path.is_symlink() and path.is_dir() and path.stat().st_uid == os.getuid()


def _command_lines() -> list[str]:
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return lines
