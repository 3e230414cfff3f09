"""Who signs and whose signatures count, from the settings."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import SettingsError
from pipeline.settings import Settings
from pipeline.signing.files import MAKE_KEYS
from pipeline.signing.sign import Signer, certificate_signer, key_signer, sigstore_signer
from pipeline.signing.trust import CertificateAuthority, SigstoreIdentity, Trust


def chosen_signer(settings: Settings) -> Signer | None:
    """The signer that the settings ask for, with its key loaded; None if nothing is signed.

    Raises:
        SettingsError: The key is missing or cannot be used.
        DependencyError: The library is not installed.
    """
    if not settings.sign:
        return None
    if settings.signing_method == "sigstore":
        return sigstore_signer()
    key = Path(_required(settings.signing_key, "TRITONPIPE_SIGNING_KEY"))
    if settings.signing_method == "key":
        return key_signer(key)
    certificate = _required(settings.signing_certificate, "TRITONPIPE_SIGNING_CERTIFICATE")
    return certificate_signer(key, Path(certificate), [Path(c) for c in settings.signing_chain])


def chosen_trust(settings: Settings) -> Trust:
    """Whose signatures count: a key before certificates before an identity.

    Raises:
        SettingsError: The settings do not say.
    """
    if settings.verify_key:
        return Path(settings.verify_key)
    if settings.verify_certificates:
        return CertificateAuthority(certificates=tuple(map(Path, settings.verify_certificates)))
    if settings.verify_identity and settings.verify_issuer:
        return SigstoreIdentity(identity=settings.verify_identity, issuer=settings.verify_issuer)
    raise SettingsError(
        "nothing says by whom a release must be signed",
        hint="give --public-key, or set TRITONPIPE_VERIFY_KEY (or "
        "TRITONPIPE_VERIFY_CERTIFICATES, or TRITONPIPE_VERIFY_IDENTITY and …_ISSUER)",
    )


def _required(value: str, variable: str) -> str:
    if not value:
        raise SettingsError(
            f"TRITONPIPE_SIGN is true and {variable} is not set",
            hint=f"set it to a file in PEM; {MAKE_KEYS}",
        )
    return value
