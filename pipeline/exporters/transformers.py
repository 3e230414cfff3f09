"""The ``transformers`` flavor: pipelines that take texts, as a tokenizer and an ONNX network.

Clients send texts. Guarantees: what is compared is what the logged pipeline itself answers for each
text alone; the axes of batch and tokens are free in the graph, or the model is refused; a text that
the pipeline refuses for its length is refused by the step, and cut off only where the pipeline does
so; nothing is fetched from a hub.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from pipeline.artifacts import ONNX_FILE, SourceModel
from pipeline.errors import DependencyError, ModelError
from pipeline.exporters import Exported
from pipeline.exporters.logged import described, example_or_generated, expect_inputs_logged
from pipeline.exporters.transformers_network import save_network
from pipeline.exporters.transformers_pipelines import load_pipeline, quiet
from pipeline.exporters.transformers_steps import write_step
from pipeline.exporters.transformers_task import Task
from pipeline.exporters.transformers_tasks import task_of
from pipeline.onnx_graph import onnx_model
from pipeline.samples import Array, Samples
from pipeline.text_steps import TEXT, TextStep
from pipeline.token_axes import token_axes

_PACKAGES: Final = ("onnx", "onnxscript", "tokenizers", "torch", "transformers")
_MOST_ROWS: Final = 64
"""Of an input example: each text is asked on its own."""

_HOW_TO_LOG: Final = (
    "log the pipeline with an example of texts: mlflow.transformers.log_model(pipeline, "
    'input_example=["a text", "another one"])'
)


class TransformersExporter:
    """A :class:`pipeline.exporters.Exporter` for pipelines of Hugging Face's transformers."""

    flavor: ClassVar[str] = "transformers"

    def export(self, source: SourceModel, destination: Path) -> Exported:
        """Write ``onnx/model.onnx`` and ``step/``; see the protocol."""
        expect_inputs_logged(source)
        try:
            import onnxscript  # noqa: F401  asked for here, so that its absence has a name
            import tokenizers  # noqa: F401
            import torch
            import transformers  # noqa: F401
        except ImportError as error:
            raise DependencyError(
                f"exporting the transformers flavor needs {error.name}",
                hint="pip install 'tritonpipe[transformers]'",
            ) from error

        folder, step = destination / "onnx", destination / "step"
        folder.mkdir()
        step.mkdir()
        with quiet(), torch.no_grad():
            task = task_of(load_pipeline(source), source)
            example, origin = _example(task, source)
            for text in example[TEXT].ravel():
                _asked(task, text)  # refused before minutes are spent on its network
            tokens = [task.tokens(str(text)) for text in example[TEXT].ravel()[:2]]
            save_network(task, tokens, folder / ONNX_FILE, source)
            preprocessing = write_step(task, step)
        onnx = onnx_model(folder, source=source, flavor=self.flavor, packages=_PACKAGES)
        axes, longest = token_axes(preprocessing, onnx), TextStep(step).longest

        def ask(values: Mapping[str, Array]) -> Samples:
            with quiet(), torch.no_grad():
                asked = partial(_asked, task, longest=longest)
                return axes.stacked([*map(asked, values[TEXT].ravel())])

        return Exported(
            onnx=onnx, example=example, origin=origin, ask=ask, preprocessing=preprocessing
        )


def _asked(task: Task, text: Any, *, longest: int | None = None) -> Samples:
    """What the pipeline says to one text, and what its tokenizer makes of it.

    Raises:
        ModelError: It refuses the text.
    """
    try:
        tokens = task.tokens(str(text))
        found = tokens["input_ids"].shape[1]
        answer = task.answer(str(text), tokens) if found <= (longest or found) else {}
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"it cannot predict on {str(text)[:60]!r}: {described(error)}") from error
    if not answer:
        raise ModelError(f"it takes {longest} tokens at most, and a text has {found}")
    return Samples(
        inputs={TEXT: np.array([[str(text)]], dtype=object)}, outputs={**tokens, **answer}
    )


def _example(task: Task, source: SourceModel) -> tuple[dict[str, Array], str]:
    found, origin = example_or_generated(source)
    texts = [task.completed(text) for text in _texts(found, source)][:_MOST_ROWS]
    if not texts:
        raise ModelError(f"the input example of {source.version} is empty", hint=_HOW_TO_LOG)
    return {TEXT: np.array(texts, dtype=object).reshape(-1, 1)}, origin


def _texts(found: Any, source: SourceModel) -> Iterator[str]:
    """The texts of an example, in whichever form it was logged."""
    values = found
    if hasattr(values, "columns"):
        values = values.to_numpy()
    if isinstance(values, Mapping):
        values = list(values.values())
    for value in np.array([values], dtype=object).ravel():
        if not isinstance(value, str) or (np.ndim(found) > 1 and np.shape(found)[1] != 1):
            raise ModelError(
                f"the input example of {source.version} holds {type(value).__name__}, or several "
                "texts for one answer; one text is supported",
                hint=_HOW_TO_LOG,
            )
        yield value
