"""Which distributions are installed, read from the names of their folders alone.

Reading the metadata of some hundred distributions takes a tenth of a second, and tells no more.
"""

from __future__ import annotations

import os
import sys


def installed_distributions() -> list[str]:
    """Names and versions, such as ``onnx-1.19.0.dist-info``, of all that can be imported."""
    places = filter(os.path.isdir, dict.fromkeys(sys.path))
    found = {name for place in places for name in os.listdir(place)}  # noqa: PTH208
    return sorted(name for name in found if name.endswith((".dist-info", ".egg-info")))
