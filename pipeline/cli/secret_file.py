"""The secret that MLflow signs its notifications with: made by whoever comes first."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pipeline.errors import SettingsError


def shared_secret(file: Path) -> str:
    """The secret in a file, which is made, readable by its owner alone, if it is not there.

    Raises:
        SettingsError: It is empty, or cannot be read or written.
    """
    try:
        return _made(file)
    except FileExistsError:
        pass
    except OSError as error:
        raise SettingsError(
            f"the secret cannot be kept in {file}: {error.strerror}", hint="choose another file"
        ) from error
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} cannot be read: {error}", hint="correct it") from error
    if not secret:
        raise SettingsError(f"{file} holds no secret", hint="remove it, or fill it")
    return secret


def _made(file: Path) -> str:
    secret = secrets.token_urlsafe(32)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(secret + "\n")
    return secret
