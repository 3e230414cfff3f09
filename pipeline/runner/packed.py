"""Opens a version folder with a packed model: what the gate does, and Triton, in the same way."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile

from . import contract, supervisor, unpacking
from .frames import Array, read_frame

MODEL_FILE: Final = "model.zip"
"""This package, the logged model as an archive, the contract and one request."""

ENVIRONMENT_FILE: Final = "environment.tar.gz"
MODEL_ARCHIVE: Final = "model.tar"
EXAMPLE_FILE: Final = "example.frame"
PACKAGE: Final = "tritonpipe_runner"


class OpenedModel:
    """A model that answers, until :meth:`close`."""

    def __init__(
        self, folder: Path, *, cache: Path | None = None, packages: Path | None = None
    ) -> None:
        """Unpack, load, and ask for the answer to the example.

        Args:
            folder: The version folder.
            cache: Where archives are unpacked; by default this user's temporary folder.
            packages: What the archive of the packages holds, where it is unpacked already.

        Raises:
            unpacking.UnpackingError: An archive is damaged, or there is no place for it.
            supervisor.ModelDiedError: The model cannot be loaded, or not in time.
            supervisor.ModelRefusedError: It does not answer to the example that it was packed with.
            ValueError: A part is missing, or is none of ours.
        """
        code = (folder / MODEL_FILE).absolute()
        with ZipFile(code) as archive:
            self.contract = contract.contract_from_bytes(archive.read(contract.FILE))
            example = archive.read(EXAMPLE_FILE)
        if self.contract.machine != platform.machine():
            raise ValueError(
                f"its packages are for {self.contract.machine}, this is {platform.machine()}"
            )
        self._fields = {
            "form": self.contract.form,
            "outputs": [[t.name, t.dtype, t.shape] for t in self.contract.outputs],
        }
        self._opened = ExitStack()
        deadline = time.monotonic() + self.contract.load_seconds
        with ExitStack() as opening:
            cache = cache or unpacking.cache_folder()
            scratch = opening.enter_context(unpacking.scratch(cache))
            if packages is None:
                packages = opening.enter_context(
                    unpacking.unpacked(
                        folder / ENVIRONMENT_FILE,
                        self.contract.environment_sha256,
                        deadline=deadline,
                        folder=cache,
                    )
                )
            model = scratch / "model"
            with ZipFile(code) as archive, archive.open(MODEL_ARCHIVE) as file:
                unpacking.extract_all(file, model, name=MODEL_ARCHIVE, deadline=deadline)
            home = scratch / "home"
            home.mkdir()
            self._supervisor = supervisor.Supervisor(
                python=supervisor.interpreter_of(self.contract.python),
                code=code,
                package=PACKAGE,
                packages=packages,
                model=model,
                scratch=home,
                load_seconds=self.contract.load_seconds,
                request_seconds=self.contract.request_seconds,
            )
            opening.callback(self._supervisor.close)
            self._supervisor.start(seconds=max(1.0, deadline - time.monotonic()))
            self.ask(_arrays(example))
            self._opened = opening.pop_all()

    def ask(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """All outputs, in the types of the contract; see :meth:`supervisor.Supervisor.ask`."""
        ordered = {tensor.name: inputs[tensor.name] for tensor in self.contract.inputs}
        return self._supervisor.ask(ordered, self._fields)

    def close(self) -> None:
        """End the model's process and remove what belongs to it alone."""
        self._opened.close()


def _arrays(data: bytes) -> Mapping[str, Any]:
    view, place = memoryview(data), 0

    def read(size: int) -> bytes:
        nonlocal place
        place += size
        if place > len(view):
            raise EOFError
        return bytes(view[place - size : place])

    try:
        return read_frame(read).arrays
    except EOFError:
        raise ValueError(f"{EXAMPLE_FILE} is cut off") from None
