"""Signs version folders with a key, with a certificate, or through Sigstore."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline.errors import RefusedError, SettingsError
from pipeline.manifest import MANIFEST_NAME, SIGNATURE_NAME, Manifest
from pipeline.signing.files import MAKE_KEYS, hash_every_file, listed_manifest, not_installed

if TYPE_CHECKING:
    from model_signing import signing

PASSWORD_VARIABLE: Final = "TRITONPIPE_SIGNING_KEY_PASSWORD"  # noqa: S105  the name, not the secret
"""Read where the key is loaded and never part of the settings, so that nothing prints it."""

_CORRECT_KEY: Final = (
    f"correct the TRITONPIPE_SIGNING_* variables, {PASSWORD_VARIABLE} among them; or {MAKE_KEYS}"
)


class Signer:
    """Signs version folders; made by :func:`key_signer` and its siblings, which load the key."""

    def __init__(self, config: signing.Config) -> None:
        self._config = config

    def sign(self, folder: Path, manifest: Manifest) -> None:
        """Write ``manifest.json`` and its signature into a folder that holds all other files.

        Raises:
            RefusedError: The folder does not hold what the manifest lists.
        """
        (folder / MANIFEST_NAME).write_bytes(manifest.to_bytes())
        signature = folder / SIGNATURE_NAME
        config, digests = hash_every_file()
        self._config.set_hashing_config(config).sign(folder, signature)
        try:
            listed_manifest(folder, digests)
        except RefusedError:
            signature.unlink()
            raise


def key_signer(private_key: Path) -> Signer:
    """A signer with an elliptic-curve key in PEM (P-256, P-384, P-521).

    Raises:
        SettingsError: There is no such key, its password is wrong, or it is of another kind.
        DependencyError: The library is not installed.
    """
    # The library declares the password a text, and hands it to OpenSSL, which wants bytes.
    password = os.environ.get(PASSWORD_VARIABLE, "").encode() or None
    return _signer(
        f"the private key {private_key}",
        lambda config: config.use_elliptic_key_signer(
            private_key=private_key,
            password=password,  # type: ignore[arg-type]
        ),
    )


def certificate_signer(private_key: Path, certificate: Path, chain: Iterable[Path]) -> Signer:
    """A signer with a key, which must have no password, and its certificate.

    Raises:
        SettingsError: One of them cannot be read, or they do not belong together.
        DependencyError: The library is not installed.
    """
    return _signer(
        f"the private key {private_key} with the certificate {certificate}",
        lambda config: config.use_certificate_signer(
            private_key=private_key, signing_certificate=certificate, certificate_chain=chain
        ),
    )


def sigstore_signer() -> Signer:
    """A signer without a key: Sigstore asks who runs this, or takes the CI system's word for it.

    Raises:
        SettingsError: Sigstore cannot be reached.
        DependencyError: The library is not installed.
    """
    return _signer(
        "Sigstore",
        lambda config: config.use_sigstore_signer(use_ambient_credentials=True),
        hint="Sigstore needs the internet; without it, set TRITONPIPE_SIGNING_METHOD=key",
    )


def _signer(
    what: str,
    configure: Callable[[signing.Config], signing.Config],
    *,
    hint: str = _CORRECT_KEY,
) -> Signer:
    try:
        from model_signing import signing
    except ModuleNotFoundError as error:
        raise not_installed(error) from error
    try:
        config = signing.Config()  # type: ignore[no-untyped-call]
        return Signer(configure(config))
    except Exception as error:  # of the file system, of OpenSSL, of Sigstore's client
        raise SettingsError(
            f"cannot sign with {what}: {error}",
            hint=hint,
        ) from error
