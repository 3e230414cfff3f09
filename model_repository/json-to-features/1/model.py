"""Turns JSON objects into rows of features, in the order that a model was trained with.

Clients send what they have, ``{"age": 42, "income": 51000}``; the order of columns, what a missing
value becomes and which columns exist at all are decided here, once, and not in every client.
"""

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Answers each request on its own: a row that cannot be read is an error of its sender."""

    def initialize(self, args):
        """Read the columns; what is wrong with them fails the load, not the requests."""
        config = json.loads(args["model_config"])
        parameters = {key: item["string_value"] for key, item in config["parameters"].items()}
        self._columns = [name.strip() for name in parameters["columns"].split(",")]
        self._missing = float(parameters["missing"]) if "missing" in parameters else None
        (width,) = (int(size) for size in config["output"][0]["dims"])
        if width != len(self._columns):
            raise pb_utils.TritonModelException(
                f"{len(self._columns)} columns do not make dims: [ {width} ]"
            )

    def execute(self, requests):
        """One response for each request, in order."""
        return [self._response(request) for request in requests]

    def _response(self, request):
        texts = pb_utils.get_input_tensor_by_name(request, "json").as_numpy()
        try:
            rows = [self._row(text) for text in texts.reshape(-1)]
        except ValueError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        features = np.array(rows, dtype=np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("features", features)])

    def _row(self, text):
        row = json.loads(text)
        if not isinstance(row, dict):
            raise ValueError(  # noqa: TRY004  what a client sends wrong is answered, as all values
                f"expected a JSON object, found {text.decode()[:80]}"
            )
        return [self._value(row, name) for name in self._columns]

    def _value(self, row, name):
        value = row.get(name)
        if value is None:
            if self._missing is None:
                raise ValueError(f"{name!r} is missing, and there is no default")
            return self._missing
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ValueError(f"{name!r} is {value!r}, expected a number") from None
