"""Whose signatures count: three ways to say it, as values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateAuthority:
    """Trust whom these certificates vouch for: roots, and intermediates that a signature lacks."""

    certificates: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SigstoreIdentity:
    """Trust one person or workflow, as the public Sigstore instance knows it; needs the internet.

    Attributes:
        identity: Such as ``me@example.org``.
        issuer: Who vouches for it, such as ``https://accounts.google.com``.
    """

    identity: str
    issuer: str


Trust = Path | CertificateAuthority | SigstoreIdentity
"""Whose signatures count; a path is that of a public key."""


def described(trust: Trust) -> str:
    """Words for an error."""
    match trust:
        case Path():
            return f"the public key {trust}"
        case CertificateAuthority(certificates=certificates):
            return "the certificates " + ", ".join(map(str, certificates))
        case SigstoreIdentity(identity=identity, issuer=issuer):
            return f"the Sigstore identity {identity} of {issuer}"
