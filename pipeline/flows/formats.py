"""Which logged models are read without running anything of theirs.

For these, MLflow's switches against unpickling are thrown: a pickle that somebody put in the place
of such a file is refused. All others *are* code (a pickle, skops with the author's own list of
trusted types, Python files), and for them the walls around the process are the protection.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Final

_NEVER_CODE: Final = frozenset({"onnx", "xgboost", "catboost"})
"""Flavors that know no format with code in it."""

_CODE_FREE_FILES: Final = {
    "pytorch": ".pt2",
    "lightgbm": ".lgb",
    "keras": ".keras",
    "tensorflow": ".keras",
    "transformers": ".safetensors",
}
"""Flavors with several formats, and the one that has no code in it."""

_CODE_FILES: Final = frozenset(
    {
        ".pkl", ".pickle", ".cloudpickle", ".joblib", ".dill", ".skops",
        ".pth", ".pt", ".bin", ".h5", ".hdf5", ".py",
    }
)  # fmt: skip
"""Files that can carry code, or are code."""


def runs_code(folder: Path, flavor: str) -> bool:
    """Whether loading a model runs code of its author.

    Args:
        folder: The fetched model.
        flavor: The flavor that it is loaded as.
    """
    if flavor in _NEVER_CODE:
        return False
    native = _CODE_FREE_FILES.get(flavor)
    suffixes = {PurePath(path).suffix.lower() for path in folder.rglob("*")}
    return native not in suffixes or not suffixes.isdisjoint(_CODE_FILES)
