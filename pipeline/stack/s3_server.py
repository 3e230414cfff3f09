"""S3 by ``rclone serve s3``: a folder as an object store, with signatures checked.

Each subfolder of ``<state>/s3`` is a bucket. It does not honour conditional writes, so there must
be one writer at a time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from pipeline.stack.credentials import s3_key
from pipeline.stack.environment import ServerEnvironment
from pipeline.stack.inheritance import inherited
from pipeline.stack.part import Launch, http_status
from pipeline.stack.ports import LOOPBACK
from pipeline.stack.state import StateDirectory

BUCKET: Final = "models"
PREFIX: Final = "repository"
_ROOT_FILE: Final = ".tritonpipe"


def repository_folder(state: StateDirectory) -> Path:
    """The model repository, as the files that the server keeps."""
    return state.path / "s3" / BUCKET / PREFIX


def launch_s3(state: StateDirectory, environment: ServerEnvironment, port: int) -> Launch:
    """Prepare the bucket and say how the server is started."""
    root = state.folder("s3")
    # Triton gives up polling for good if the repository has no object when it starts. A file at
    # the root is ignored by it.
    state.folder(f"s3/{BUCKET}/{PREFIX}")
    (repository_folder(state) / _ROOT_FILE).touch()
    key = s3_key(state)
    return Launch(
        command=(
            str(environment.rclone),
            *("serve", "s3", "--addr", f"{LOOPBACK}:{port}"),
            # Written through at once: an object that was acknowledged survives a kill.
            *("--vfs-cache-mode", "off"),
            *("--config", os.devnull),
            str(root),
        ),
        environment={
            **inherited(os.environ),
            # One value of a comma-separated list, hence the quotation marks within.
            "RCLONE_AUTH_KEY": f'"{key.access_key},{key.secret_key}"',
        },
        directory=root,
        ports=(port,),
        # Without a signature it answers with a refusal: enough to know that it answers.
        answers=lambda: http_status(port, "/")[0] != 0,
    )
