"""What MLflow is asked to search for, in its own language."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.errors import RequestError


def filter_of(name: str | None, tags: Mapping[str, str | None] | None = None) -> str:
    """The filter for model versions.

    Args:
        name: The registered model; None for all.
        tags: Tags that they have, with the value of each; None for any value.

    Raises:
        RequestError: A name or value has both kinds of quotation marks, for which the language has
            no escape.
    """
    terms = [] if name is None else [f"name = {_quoted(name)}"]
    for key, value in (tags or {}).items():
        is_so = "LIKE '%'" if value is None else f"= {_quoted(value)}"
        terms.append(f"tags.`{key}` {is_so}")
    return " AND ".join(terms)


def _quoted(text: str) -> str:
    if "'" in text and '"' in text:
        raise RequestError(
            f"MLflow cannot search for {text!r}: it has both kinds of quotation marks",
            hint="a registered model gets another name with "
            "mlflow.MlflowClient().rename_registered_model(OLD, NEW)",
        )
    quote = '"' if "'" in text else "'"
    return f"{quote}{text}{quote}"
