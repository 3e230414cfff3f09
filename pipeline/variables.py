"""Variables of the environment that look like ours and that nothing reads: most are misspelt."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

_PREFIX: Final = "TRITONPIPE_"
_NO_SETTINGS: Final = frozenset(
    {
        "TRITONPIPE_CONFIG",
        "TRITONPIPE_PYFUNC_CACHE",
        "TRITONPIPE_SERVERS",
        "TRITONPIPE_SIGNING_KEY_PASSWORD",
        "TRITONPIPE_STATE_DIR",
    }
)
"""Read where they are needed, and not part of the settings."""

# Kubernetes sets these for every service; one may be called tritonpipe-mirror.
_OF_KUBERNETES: Final = re.compile(
    r".*_(SERVICE_(HOST|PORT(_.+)?)|PORT(_[0-9]+_(TCP|UDP|SCTP).*)?)"
)


def known_variables() -> frozenset[str]:
    """Every variable of ours that something reads."""
    from pipeline.settings import Settings

    return _NO_SETTINGS | {_PREFIX + name.upper() for name in Settings.model_fields}


def told_unknown(variables: Iterable[str]) -> list[str]:
    """A sentence for each of these names that begins as ours do, and that nothing reads.

    Values are not looked at: a misspelt name may hold a secret.
    """
    ours = sorted(name for name in variables if name.upper().startswith(_PREFIX))
    if not ours:
        return []
    known = known_variables()
    ends = [name.removeprefix(_PREFIX) for name in known]
    told = []
    for name in ours:
        if name.upper() in known or _OF_KUBERNETES.fullmatch(name.upper()):
            continue
        alike = get_close_matches(name.upper().removeprefix(_PREFIX), ends, n=1)
        hint = f"; did you mean {_PREFIX}{alike[0]}?" if alike else ""
        told.append(f"the variable {name} is not known and has no effect{hint}")
    return told
