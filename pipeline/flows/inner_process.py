"""Goes on in another Python, with the packages of a model, once everything else was left behind.

What a package does when its environment starts is as little ours as what the model does. So the
interpreter of that environment is started by the isolated process, never by us. Guarantees: it has
the same walls and limits, sees our code but none of our packages, and this process ends as it ends.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.flows.isolation import Entered
from pipeline.serialization import from_json, to_json

_ENTERED: Final = "entered.json"
_CODE: Final = "code"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPackages:
    """An environment made for a model.

    Attributes:
        key: Names what is installed.
        root: The environment.
        base: Where its Python itself is installed.
        code: Folder of this package.
        exporter: Where in it the exporter is, as ``module:class``.
    """

    key: str
    root: Path
    base: Path
    code: Path
    exporter: str


def go_on_inside(packages: ModelPackages, job_file: Path, entered: Entered) -> None:
    """Let the other Python do the job; it writes the outcome."""
    folder = job_file.parent
    (folder / _ENTERED).write_text(json.dumps(to_json(entered)), encoding="utf-8")
    (folder / _CODE).mkdir()
    (folder / _CODE / packages.code.name).symlink_to(packages.code)
    command = [str(packages.root / "bin" / "python"), "-P", "-B", "-X", "faulthandler"]
    command += ["-m", "pipeline.flows.worker_main", str(job_file), str(os.getpid()), _ENTERED]
    _end_as(command, os.environ | {"PYTHONPATH": str(folder / _CODE)})


def entered_before(job_file: Path, name: str) -> Entered:
    """Where the process that started this one has left us."""
    document = json.loads((job_file.parent / name).read_text(encoding="utf-8"))
    entered: Entered = from_json(Entered, document)
    return entered


def _end_as(command: Sequence[str], environment: dict[str, str]) -> None:
    """Return if it succeeds; otherwise end with its status, or by the same signal."""
    status = subprocess.run(list(command), env=environment, check=False).returncode  # noqa: S603
    if status < 0:
        if -status != signal.SIGKILL:
            faulthandler.disable()
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    if status:
        raise SystemExit(status)
