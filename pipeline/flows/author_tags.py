"""What the author of a model says about how it is served: tags below ``tritonpipe.`` in MLflow.

What who runs the pipeline has set (a variable, ``tritonpipe.toml``, an option of a command) counts
first, then the tags of the version, then those of its registered model, then the defaults. Tags
reach nothing but the settings named by ``author_tags``, which all concern the author's own model.

Guarantees: asks nobody; without such tags the settings stay as they are; a value that is not of its
kind never counts, and every tag below the prefix that does not count is told.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from pydantic import ValidationError

from pipeline.artifacts import ModelVersion
from pipeline.errors import ModelError
from pipeline.flows.claims import TAG_PREFIX, is_recorded
from pipeline.flows.copy_version import COPIED_FROM
from pipeline.flows.packing import TAG as PYFUNC
from pipeline.flows.serving_options import shown
from pipeline.settings import AUTHOR_SETTINGS, Settings

RETRY: Final = f"{TAG_PREFIX}retry"
"""Means nothing but that somebody wishes another try."""

_OTHERS: Final = frozenset({RETRY, PYFUNC, COPIED_FROM})
_SHOWN_LENGTH: Final = 60


class Verdict(enum.StrEnum):
    """What becomes of a tag."""

    COUNTS = "counts"
    OVERRIDDEN = "overridden"
    WRONG = "wrong"
    NOT_THE_AUTHORS = "not the author's"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    """Something in the registry with its tags.

    Attributes:
        name: In words, such as ``version fraud/7``.
        tags: All of its tags.
        is_version: Whether it is a version, and no registered model.
    """

    name: str
    tags: Mapping[str, str]
    is_version: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorTag:
    """One tag below the prefix.

    Attributes:
        key: The tag.
        value: What it says; where it counts, as it is understood.
        place: What has it, in words.
        verdict: What becomes of it.
        reason: Why it does not count, in words; empty if it does.
    """

    key: str
    value: str
    place: str
    verdict: Verdict
    reason: str = ""

    @property
    def setting(self) -> str:
        """The setting that it names."""
        return self.key.removeprefix(TAG_PREFIX)

    def __str__(self) -> str:
        shown = self.value[:_SHOWN_LENGTH] + "…" * (len(self.value) > _SHOWN_LENGTH)
        told = f": {self.reason}" if self.reason else ""
        return f"the tag {self.key}={shown!r} of {self.place}{told}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The settings that hold for a model with the tags of its author.

    Attributes:
        settings: With the values of the tags that count.
        tags: Every tag below the prefix that is the author's, those of the version first.
    """

    settings: Settings
    tags: tuple[AuthorTag, ...]

    def of(self, *verdicts: Verdict) -> list[AuthorTag]:
        """The tags of which one of these became."""
        return [tag for tag in self.tags if tag.verdict in verdicts]

    def required(self) -> Settings:
        """The settings, if no tag is wrong.

        Raises:
            ModelError: Names every tag that is, with what has it, its value and what is expected.
        """
        wrong = self.of(Verdict.WRONG)
        if wrong:
            raise ModelError(
                "; ".join(map(str, wrong)),
                hint="correct the tag in MLflow, or delete it; nothing was published",
            )
        return self.settings


def tagged_of(version: ModelVersion) -> tuple[Tagged, Tagged]:
    """A version and its registered model, in the order in which their tags count."""
    return (
        Tagged(name=f"version {version}", tags=version.tags, is_version=True),
        tagged_model(version.name, version.model_tags),
    )


def tagged_model(name: str, tags: Mapping[str, str]) -> Tagged:
    """A registered model."""
    return Tagged(name=f"registered model {name!r}", tags=tags, is_version=False)


def chosen_settings(
    settings: Settings, places: Iterable[Tagged], *, origins: Mapping[str, str] | None = None
) -> Chosen:
    """The settings with the tags that count.

    Args:
        settings: Those of who runs the pipeline.
        places: What has tags; the first ones count most.
        origins: Where each setting comes from, to tell which one wins over a tag.
    """
    values: dict[str, Any] = {}
    judged: list[AuthorTag] = []
    for key, value, place in _authors(places):
        name = key.removeprefix(TAG_PREFIX)
        verdict, reason = _verdict(name, settings, (origins or {}).get(name, "a setting"))
        earlier = next((tag for tag in judged if tag.key == key), None)
        if verdict is Verdict.COUNTS and earlier is not None:
            verdict, reason = Verdict.OVERRIDDEN, f"{earlier.place} says {earlier.value!r}"
        if verdict is Verdict.COUNTS:
            try:
                values[name] = getattr(Settings.model_validate({name: value}), name)
                value = shown(values[name])
            except ValidationError as error:
                told = error.errors()[0]["msg"].replace("Input should be", "expected")
                verdict, reason = Verdict.WRONG, told
        judged.append(AuthorTag(key=key, value=value, place=place, verdict=verdict, reason=reason))
    changed = settings.model_copy(update=values) if values else settings
    return Chosen(settings=changed, tags=tuple(judged))


def _authors(places: Iterable[Tagged]) -> Iterator[tuple[str, str, str]]:
    for place in places:
        for key, value in sorted(place.tags.items()):
            is_other = key in _OTHERS and (place.is_version or key != PYFUNC)
            if key.startswith(TAG_PREFIX) and not (is_other or is_recorded(key)):
                yield key, value, place.name


def _verdict(name: str, settings: Settings, origin: str) -> tuple[Verdict, str]:
    if name not in Settings.model_fields:
        alike = get_close_matches(name.lower().replace("-", "_"), AUTHOR_SETTINGS, n=1)
        meant = f"did you mean {TAG_PREFIX}{alike[0]}?" if alike else "see docs/watch.md"
        return Verdict.UNKNOWN, f"it is not known; {meant}"
    if TAG_PREFIX + name == PYFUNC:
        return Verdict.NOT_THE_AUTHORS, "it counts on a version alone, see docs/pyfunc.md"
    if name not in settings.author_tags:
        where = f"TRITONPIPE_{name.upper()} or tritonpipe.toml"
        why = "author_tags leaves it out" if name in AUTHOR_SETTINGS else "it is not the author's"
        return Verdict.NOT_THE_AUTHORS, f"{why}; who runs the pipeline sets it in {where}"
    if name in settings.model_fields_set:
        return Verdict.OVERRIDDEN, f"{origin} says {shown(getattr(settings, name))}"
    return Verdict.COUNTS, ""
