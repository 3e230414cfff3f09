"""The embedded stack: real MLflow, S3 and Triton servers as child processes on loopback.

No Docker: the servers come as Python packages into an environment of their own. For trying out,
for tests and for demonstrations; every server listens on 127.0.0.1 only.
"""

from __future__ import annotations

from pipeline.stack.stack import Stack
from pipeline.stack.state import Mirroring
from pipeline.stack.status import PartStatus, StackStatus

__all__ = ["Mirroring", "PartStatus", "Stack", "StackStatus"]
