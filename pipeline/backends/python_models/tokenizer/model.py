"""The step in front of a network that takes tokens, for Triton's Python backend.

This file is part of every version that it serves, with copies of ``pipeline/manifest.py`` and
``pipeline/text_steps.py`` beside it. Guarantees: a version loads only if its files are those of its
manifest; a text that cannot be taken is the answer to its request only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from pipeline import manifest as tritonpipe_manifest
    from pipeline import text_steps as tritonpipe_texts
else:
    import tritonpipe_manifest
    import tritonpipe_texts


class TritonPythonModel:
    """One instance of one version; Triton creates it and calls its methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Check the version and read its tokenizer.

        Raises:
            pb_utils.TritonModelException: The version must not be served; the message says why.
        """
        self._name = f"model {args['model_name']!r} version {args['model_version']}"
        folder = Path(args["model_repository"]) / args["model_version"]
        self._check_manifest(folder)
        try:
            self._step = tritonpipe_texts.TextStep(folder)
        except ImportError as error:
            self._refuse(
                f"the server's Python has no module {error.name!r}: pip install tokenizers"
            )
        except Exception as error:  # noqa: BLE001 - errors of the Rust library have no common base
            self._refuse(f"its tokenizer cannot be read: {error}")
        config = json.loads(args["model_config"])
        self._outputs = [output["name"] for output in config["output"]]
        missing = set(self._outputs) - self._step.paddings.keys()
        if missing:
            self._refuse(f"the config has outputs that the step has not: {sorted(missing)}")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request, in order; never raises for the sake of one of them."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        texts = pb_utils.get_input_tensor_by_name(request, tritonpipe_texts.TEXT).as_numpy()
        try:
            arrays = self._step.run(texts)
        except ValueError as error:
            return self._failure(error, pb_utils.TritonError.INVALID_ARG)
        except Exception as error:  # noqa: BLE001 - as above
            return self._failure(error, pb_utils.TritonError.INTERNAL)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, arrays[name]) for name in self._outputs]
        )

    def _failure(self, error: Exception, code: int) -> Any:
        message = f"{self._name}: {error}"
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))

    def _check_manifest(self, folder: Path) -> None:
        path = folder / tritonpipe_manifest.MANIFEST_NAME
        try:
            published = tritonpipe_manifest.manifest_from_bytes(path.read_bytes())
        except FileNotFoundError:
            self._refuse(f"its folder has no {path.name}, so its files cannot be verified")
        except tritonpipe_manifest.InvalidManifestError as error:
            self._refuse(f"{path.name}: {error}")
        # Python keeps what it compiles beside what it read, which is these very files.
        problems = [
            problem
            for problem in tritonpipe_manifest.differences(folder, published)
            if not problem.startswith("__pycache__/")
        ]
        if problems:
            self._refuse("; ".join(f"{path.name} does not match: {each}" for each in problems))

    def _refuse(self, reason: str) -> NoReturn:
        raise pb_utils.TritonModelException(f"{self._name} is refused: {reason}")
