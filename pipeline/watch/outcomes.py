"""How an attempt ended, and when the same wish is tried again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.artifacts import ModelVersion
from pipeline.configuration import OF_THE_SYSTEM
from pipeline.flows.claims import TAG_PREFIX, is_recorded
from pipeline.flows.export_cache import tools_fingerprint
from pipeline.settings import Settings
from pipeline.watch.memory import Failure
from pipeline.watch.wishes import Wish

INTERRUPTED: Final = "Interrupted"
DIED: Final = "Died"
BUG: Final = "Bug"

FIRST_RETRY_SECONDS: Final = 5.0
LAST_RETRY_SECONDS: Final = 300.0

_DECIDED: Final = frozenset({"RefusedError", "ModelError"})
"""The same bytes give the same answer: only another wish, or other tools, can succeed."""

_TRIED_THRICE: Final = frozenset({"ConfirmationError", DIED, BUG})
"""It may be the version's fault or the server's. Each try makes Triton load it, so not for ever."""

_MOST_TRIES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        kind: ``promoted``, ``unchanged`` or ``retired``; or the name of the error's class,
            :data:`INTERRUPTED`, :data:`DIED` or :data:`BUG`.
        message: What happened; empty for a success.
        hint: What to do about it.
    """

    kind: str
    message: str = ""
    hint: str = ""

    @property
    def is_success(self) -> bool:
        """Whether the wish is fulfilled."""
        return self.kind in {"promoted", "unchanged", "retired"}


def failure_after(
    previous: Failure | None, wish: Wish | None, fingerprint: str, outcome: Outcome, now: float
) -> Failure:
    """What to remember of an attempt that failed; without a wish, of one to take a model away.

    What can heal by itself is tried again after 5 s, then after twice as long each time, at most
    every 5 minutes.
    """
    is_same = previous is not None and previous.fingerprint == fingerprint
    attempts = 1 + (previous.attempts if previous and is_same else 0)
    is_final = outcome.kind in _DECIDED or (
        outcome.kind in _TRIED_THRICE and attempts >= _MOST_TRIES
    )
    # Bounded before the power is taken, which would overflow after some days of trying.
    pause = min(FIRST_RETRY_SECONDS * 2 ** min(attempts - 1, 20), LAST_RETRY_SECONDS)
    return Failure(
        fingerprint=fingerprint,
        wish=str(wish or ""),
        kind=outcome.kind,
        message=outcome.message,
        hint=outcome.hint,
        attempts=attempts,
        at=now,
        retry_at=None if is_final else now + pause,
    )


def fingerprint_of(wish: Wish, version: ModelVersion | None, conditions: str) -> str:
    """Names everything that decides whether a wish can be fulfilled.

    Args:
        wish: What is wished.
        version: The version as the registry has it; None if it does not. The author's tags below
            our prefix count, of the version and of its registered model. Setting one, such as
            ``tritonpipe.retry``, therefore asks for another try.
        conditions: Settings and tools, in any form that changes when they do.
    """
    tags = (version.tags, version.model_tags) if version else ()
    author = [_authors(each) for each in tags]
    document = [wish.registered_model, wish.version, author, conditions]
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()


def _authors(tags: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted(
        (key, value)
        for key, value in tags.items()
        if key.startswith(TAG_PREFIX) and not is_recorded(key)
    )


def conditions_of(settings: Settings) -> str:
    """Settings and tools that decide whether a version can be served; changes when they do."""
    deciding = settings.model_dump(mode="json", exclude=set(OF_THE_SYSTEM))
    explicit = sorted(settings.model_fields_set - OF_THE_SYSTEM)
    return json.dumps([deciding, explicit, tools_fingerprint()], sort_keys=True)
