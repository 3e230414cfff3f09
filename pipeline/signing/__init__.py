"""Signatures that tell who published a version, checked by those who serve or fetch it.

Signed by OpenSSF model-signing are all files of the version folder and ``manifest.json`` among
them, so the signature covers model, version and the digest of the config, too. Any tool for that
format verifies a downloaded folder; for the library's own command line that is ``model_signing
verify key --public_key KEY --signature N/manifest.json.sig N``.

A signature does not tell whether a newer version exists: who can write to the store can always
bring back an older signed version.

The library is imported when it is needed, since that takes a third of a second.
"""

from __future__ import annotations

from pipeline.signing.trust import CertificateAuthority, SigstoreIdentity, Trust
from pipeline.signing.verify import verify_folder

__all__ = ["CertificateAuthority", "SigstoreIdentity", "Trust", "verify_folder"]
