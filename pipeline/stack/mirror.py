"""The mirror between S3 and Triton: this very program, as a part of the stack."""

from __future__ import annotations

import os
import re
import sys
from typing import Final

from pipeline.mirror.admin import admin_key_from_file
from pipeline.stack.credentials import REGION, admin_key_file, s3_key
from pipeline.stack.inheritance import inherited
from pipeline.stack.part import Launch, http_status
from pipeline.stack.ports import LOOPBACK, Ports
from pipeline.stack.s3_server import BUCKET, PREFIX
from pipeline.stack.state import Mirroring, StateDirectory

_FOLDER: Final = "mirror"
MIRRORED: Final = f"../{_FOLDER}/repository"
"""Relative to Triton's working directory, since Triton passes it through a shell: a blank in the
path of the state directory would hang every load."""

MIRROR_OUTCOMES: Final = {
    Mirroring.POLL: "Triton polls a local copy of the repository",
    Mirroring.EXPLICIT: "Triton loads from a local copy what the mirror tells it to",
}
_LISTED: Final = re.compile(
    rb"^tritonpipe_mirror_last_success_timestamp_seconds [1-9]", re.MULTILINE
)


def launch_mirror(
    state: StateDirectory, ports: Ports, poll_seconds: int, mirroring: Mirroring
) -> Launch:
    """Say how the mirror is started."""
    folder = state.folder(_FOLDER)
    key = s3_key(state)
    return Launch(
        command=(
            *(sys.executable, "-P", "-m", "pipeline", "mirror"),
            *(f"s3://{BUCKET}/{PREFIX}", str(folder)),
            *("--interval", str(poll_seconds)),
            *("--metrics-address", LOOPBACK, "--metrics-port", str(ports.mirror_metrics)),
            *(_control(state, ports) if mirroring is Mirroring.EXPLICIT else ()),
        ),
        environment={
            **inherited(os.environ),
            "AWS_ACCESS_KEY_ID": key.access_key,
            "AWS_SECRET_ACCESS_KEY": key.secret_key,
            "AWS_ENDPOINT_URL": f"http://{LOOPBACK}:{ports.s3}",
            "AWS_REGION": REGION,
        },
        directory=folder,
        ports=(ports.mirror_metrics,),
        # Triton may start as soon as something was taken over once; more comes while it runs.
        answers=lambda: bool(_LISTED.search(http_status(ports.mirror_metrics, "/metrics")[1])),
    )


def admin_headers(state: StateDirectory, mirroring: Mirroring) -> dict[str, str]:
    """What opens the restricted part of Triton; nothing where it is not restricted."""
    if mirroring is not Mirroring.EXPLICIT:
        return {}
    key = admin_key_from_file(admin_key_file(state))
    return {key.name: key.value}


def _control(state: StateDirectory, ports: Ports) -> tuple[str, ...]:
    return (
        *("--control", "explicit", "--triton", f"{LOOPBACK}:{ports.triton_grpc}"),
        *("--admin-key-file", str(admin_key_file(state))),
    )
