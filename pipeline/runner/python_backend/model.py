"""Serves a packed model in Triton's Python backend; it is the ``model.py`` of a version.

Guarantees: a version loads only if its files are those of its manifest and its model has answered;
loading ends within its time, since a load that hangs keeps Triton from polling; requests that
Triton hands over together are asked together; an error is the answer to those requests only.

The model runs in a process of its own with its own packages, see ``supervisor``. Here is only what
came with Triton: its NumPy, and the copy of this package in ``model.zip``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from pipeline import manifest, request_groups
    from pipeline.runner import packed, supervisor, unpacking
else:
    sys.path.insert(0, str(Path(__file__).resolve().parent / "model.zip"))
    from tritonpipe_runner import manifest, packed, request_groups, supervisor, unpacking

_CANNOT_LOAD = (unpacking.UnpackingError, supervisor.ModelDiedError, supervisor.ModelRefusedError)


class TritonPythonModel:
    """One instance of one version; Triton creates it and calls its methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Check the version, unpack it, load the model and let it answer once.

        Raises:
            pb_utils.TritonModelException: The version must not be served; the message says why.
        """
        self._name = f"model {args['model_name']!r} version {args['model_version']}"
        _expect_right_numbers(self._refuse)
        folder = Path(args["model_repository"]) / args["model_version"]
        self._check_manifest(folder)
        try:
            self._model = packed.OpenedModel(folder)
        except (*_CANNOT_LOAD, ValueError, OSError, KeyError) as error:
            self._refuse(str(error))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request, in order; never raises for the sake of one of them."""
        answers: dict[int, Any] = {}
        feeds: dict[int, request_groups.Feed] = {}
        for position, request in enumerate(requests):
            try:
                feeds[position] = _feed(request)
            except ValueError as error:
                answers[position] = self._failure(error, pb_utils.TritonError.INVALID_ARG)
        batches = self._model.contract.is_batching
        groups = request_groups.groups_of(feeds) if batches else [[p] for p in feeds]
        for group in groups:
            responses = self._answer([requests[p] for p in group], [feeds[p] for p in group])
            answers.update(zip(group, responses, strict=True))
        return [answers[position] for position in range(len(requests))]

    def finalize(self) -> None:
        """End the model's process; its version is served no more."""
        self._model.close()

    def _answer(self, requests: Sequence[Any], feeds: Sequence[request_groups.Feed]) -> list[Any]:
        """Ask about all rows at once; where the model refuses that, about each request's."""
        try:
            parts = self._asked(feeds)
        except supervisor.ModelDiedError as error:
            return [self._failure(error, pb_utils.TritonError.UNAVAILABLE) for _ in requests]
        except (supervisor.ModelRefusedError, ValueError) as error:
            if len(requests) == 1:
                return [self._failure(error, pb_utils.TritonError.INTERNAL)]
            return [
                self._answer([request], [feed])[0]
                for request, feed in zip(requests, feeds, strict=True)
            ]
        return [_response(request, part) for request, part in zip(requests, parts, strict=True)]

    def _asked(self, feeds: Sequence[request_groups.Feed]) -> Sequence[Mapping[str, Any]]:
        answers = dict(self._model.ask(request_groups.stacked(feeds)))
        if not self._model.contract.is_batching:
            return [answers]
        return request_groups.distributed(answers, [request_groups.rows_of(f) for f in feeds])

    def _failure(self, error: Exception, code: int) -> Any:
        message = f"{self._name}: {error}"
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))

    def _refuse(self, reason: str) -> NoReturn:
        raise pb_utils.TritonModelException(f"{self._name} is refused: {reason}")

    def _check_manifest(self, folder: Path) -> None:
        try:
            data = (folder / manifest.MANIFEST_NAME).read_bytes()
            found = manifest.differences(folder, manifest.manifest_from_bytes(data))
        except (OSError, manifest.InvalidManifestError) as error:
            found = [str(error)]
        # Python has compiled this file into the server's own copy of the folder.
        problems = [problem for problem in found if not problem.startswith("__pycache__/model.")]
        if problems:
            self._refuse(f"its files are not those that were published: {'; '.join(problems)}")


def _expect_right_numbers(refuse: Any) -> None:
    """Refuse a NumPy with which this Triton hands over other numbers, without an error.

    A Triton whose backend was compiled for NumPy 1 does with NumPy 2. (The trial itself needs
    NumPy 2: memory of NumPy 1 that is handed to Triton 2.51 in this way crashes the process.)
    """
    if int(np.__version__.split(".", 1)[0]) < 2:
        return
    sent = np.array([1.5, 2.5], np.float32)
    got = pb_utils.Tensor.from_dlpack("trial", sent).as_numpy()
    if got.shape != sent.shape or not np.array_equal(got, sent):
        refuse(
            f"with NumPy {np.__version__} Triton's Python backend hands over wrong numbers; "
            "install 'numpy<2' for the server"
        )


def _feed(request: Any) -> request_groups.Feed:
    feed = {}
    for tensor in request.inputs():
        array = tensor.as_numpy()
        if array.dtype == object:
            try:
                texts = [item.decode() for item in array.ravel().tolist()]
            except UnicodeDecodeError as error:
                raise ValueError(f"input {tensor.name()!r} is no UTF-8 text: {error}") from error
            array = np.array(texts, dtype=object).reshape(array.shape)
        feed[tensor.name()] = array
    return feed


def _response(request: Any, arrays: Mapping[str, Any]) -> Any:
    names = request.requested_output_names()
    return pb_utils.InferenceResponse([pb_utils.Tensor(n, arrays[n]) for n in names])
