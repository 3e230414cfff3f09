"""Checks that a version folder is what somebody trusted has signed.

Guarantees of :func:`verify_folder`: it returns only if exactly these files were signed, and the
signed manifest lists exactly these files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline.errors import RefusedError, SettingsError
from pipeline.manifest import SIGNATURE_NAME, Manifest
from pipeline.signing.files import MAKE_KEYS, hash_every_file, listed_manifest, not_installed
from pipeline.signing.trust import CertificateAuthority, SigstoreIdentity, Trust, described

if TYPE_CHECKING:
    from model_signing import verifying

_ALTERED: Final = "Signature mismatch: "
_LINK: Final = "Cannot use "
_OTHER_KEY: Final = "Key mismatch: "
"""How the library begins what it says."""


def verify_folder(folder: Path, trust: Trust) -> Manifest:
    """Return the manifest of a version folder if it is, file by file, what was signed.

    The caller compares model and version with those it asked for: a folder that was signed as
    another version is genuine, but in the wrong place.

    Raises:
        RefusedError: It is not signed, signed by somebody else, or not what was signed.
        SettingsError: The key to verify with cannot be used.
        DependencyError: The library is not installed.
    """
    verifier = _verifier(trust)
    signature = folder / SIGNATURE_NAME
    if not signature.is_file():
        raise RefusedError(
            f"{folder} is not signed: it has no {SIGNATURE_NAME}",
            hint="publish with TRITONPIPE_SIGN=true",
        )
    _refuse_nameless_key(signature, trust)
    config, digests = hash_every_file()
    try:
        verifier.set_hashing_config(config).verify(folder, signature)
    except OSError:
        raise
    except Exception as error:  # a damaged signature makes the library fail in many ways
        raise _not_verified(folder, trust, error) from error
    return listed_manifest(folder, digests)


def _verifier(trust: Trust) -> verifying.Config:
    try:
        from model_signing import verifying
    except ModuleNotFoundError as error:
        raise not_installed(error) from error
    if isinstance(trust, CertificateAuthority) and not trust.certificates:
        # The library would then trust every authority that vouches for web servers.
        raise SettingsError("no certificate is given to verify with", hint="give the root")
    config = verifying.Config()  # type: ignore[no-untyped-call]
    try:
        match trust:
            case Path():
                return config.use_elliptic_key_verifier(public_key=trust)
            case CertificateAuthority(certificates=certificates):
                return config.use_certificate_verifier(certificate_chain=certificates)
            case SigstoreIdentity(identity=identity, issuer=issuer):
                return config.use_sigstore_verifier(identity=identity, oidc_issuer=issuer)
    except Exception as error:  # of the file system, of OpenSSL, of Sigstore's client
        hint = "correct the TRITONPIPE_VERIFY_* variables; Sigstore needs the internet"
        if isinstance(trust, Path):
            hint = f"give the public half of an elliptic-curve key in PEM; {MAKE_KEYS}"
        raise SettingsError(
            f"cannot verify with {described(trust)}: {error}",
            hint=hint,
        ) from error


def _refuse_nameless_key(signature: Path, trust: Trust) -> None:
    """Refuse what signers before 1.0 of the format wrote: the library would print about it."""
    if not isinstance(trust, Path):
        return
    try:
        hint = json.loads(signature.read_bytes())["verificationMaterial"]["publicKey"]["hint"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _not_verified(signature.parent, trust, error) from error
    if not isinstance(hint, str) or not hint:
        raise _not_verified(signature.parent, trust, ValueError("it names no key"))


def _not_verified(folder: Path, trust: Trust, error: Exception) -> RefusedError:
    text = str(error)
    if text.startswith((_ALTERED, _LINK)):
        return RefusedError(
            f"{folder} is not what was signed: {text.removeprefix(_ALTERED)[:500]}",
            hint="somebody has changed the files since: find out who can write to the store, and "
            "publish the version again",
        )
    if text.startswith(_OTHER_KEY):
        why = "it was made with another key"
    else:
        why = "it was altered, or made with another key"
        why += f" ({type(error).__name__}: {text.splitlines()[0]})" if text else ""
    return RefusedError(
        f"the signature of {folder} does not hold for {described(trust)}: {why}",
        hint="use the key of who published it, or publish the version again",
    )
