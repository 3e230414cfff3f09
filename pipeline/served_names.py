"""Names in Triton as a table of ``tritonpipe.toml`` gives them, with ``{model}`` in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

from pipeline.errors import RequestError
from pipeline.model_config import check_name

OWN: Final = "{model}"
"""Stands for the registered model's own name."""

_WILDCARDS: Final = frozenset("*?[")


def name_in_triton(template: str, registered_model: str) -> str:
    """The name under which a registered model is served."""
    return template.replace(OWN, registered_model)


def problem_of(serve: Mapping[str, str]) -> str:
    """Why names by alias can serve no model at all, in words; empty if they can."""
    for alias, template in serve.items():
        if "{" in template.replace(OWN, ""):
            return f"{alias} is served as {template!r}, in which only {OWN} can stand"
        try:
            check_name(name_in_triton(template, "m"))
        except RequestError as error:
            return f"{alias}: {error.message}"
    doubled = [name for name, times in Counter(serve.values()).items() if times > 1]
    if doubled:
        return f"{', '.join(doubled)} is the name for several aliases, of which one can be served"
    return ""


def shadowed(patterns: Sequence[str]) -> dict[str, str]:
    """Patterns about which no model is left, by the earlier one that takes them all.

    Seen are names without a wildcard, and everything after ``*``.
    """
    found = {}
    for place, pattern in enumerate(patterns):
        for earlier in patterns[:place]:
            is_name = not _WILDCARDS & set(pattern)
            if earlier == "*" or (is_name and fnmatchcase(pattern, earlier)):
                found[pattern] = earlier
                break
    return found
