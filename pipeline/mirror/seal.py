"""The check of signatures, as far as the mirror has to know of it."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Protocol

from pipeline.errors import DependencyError, SettingsError
from pipeline.signing import verify_folder


class Seal(Protocol):
    """Checks who has published a version folder."""

    @property
    def name(self) -> str:
        """Identifies the check: changes with what it trusts."""

    def check(self, folder: Path) -> None:
        """Return if the folder is signed.

        Raises:
            RefusedError: It is unsigned, altered, or signed by somebody else.
        """


class KeySeal:
    """Trusts one public key."""

    def __init__(self, public_key: Path) -> None:
        """Read the key.

        Raises:
            SettingsError: It cannot be read.
            DependencyError: The library that verifies is not installed.
        """
        if importlib.util.find_spec("model_signing") is None:
            raise DependencyError(
                "signatures cannot be verified: model-signing is not installed",
                hint='pip install "tritonpipe[signing]"',
            )
        self._public_key = public_key
        try:
            self.name = "key:" + hashlib.sha256(public_key.read_bytes()).hexdigest()
        except OSError as error:
            raise SettingsError(
                f"cannot read the public key {public_key}: {error.strerror}",
                hint="give the public half of an elliptic-curve key in PEM",
            ) from error

    def check(self, folder: Path) -> None:
        """Return if the folder is, file by file, what the key has signed."""
        verify_folder(folder, self._public_key)
