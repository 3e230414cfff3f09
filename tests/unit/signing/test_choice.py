from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import SettingsError
from pipeline.manifest import SIGNATURE_NAME
from pipeline.settings import Settings, load_settings
from pipeline.signing import CertificateAuthority, SigstoreIdentity, verify_folder
from pipeline.signing.choice import chosen_signer, chosen_trust


def test_nothing_is_signed_unless_the_settings_say_so(keys: Any) -> None:
    assert chosen_signer(Settings(signing_key=str(keys.private))) is None


def test_the_chosen_key_signs_and_the_chosen_trust_verifies(
    keys: Any, new_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITONPIPE_SIGN", "true")
    monkeypatch.setenv("TRITONPIPE_SIGNING_KEY", str(keys.private))
    monkeypatch.setenv("TRITONPIPE_VERIFY_KEY", str(keys.public))
    settings = load_settings()
    folder, manifest = new_folder()
    signer = chosen_signer(settings)
    assert signer is not None
    signer.sign(folder, manifest)
    assert (folder / SIGNATURE_NAME).is_file()
    assert verify_folder(folder, chosen_trust(settings)) == manifest


@pytest.mark.parametrize("method", ["key", "certificate"])
def test_to_sign_without_a_key_is_refused(method: Any) -> None:
    with pytest.raises(SettingsError, match="TRITONPIPE_SIGNING_KEY is not set"):
        chosen_signer(Settings(sign=True, signing_method=method))


def test_to_sign_by_certificate_without_one_is_refused(keys: Any) -> None:
    settings = Settings(sign=True, signing_method="certificate", signing_key=str(keys.private))
    with pytest.raises(SettingsError, match="TRITONPIPE_SIGNING_CERTIFICATE is not set"):
        chosen_signer(settings)


def test_sigstore_that_cannot_be_reached_is_told_with_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):  # it keeps its trusted roots there
        monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(SettingsError, match="cannot sign with Sigstore") as caught:
        chosen_signer(Settings(sign=True, signing_method="sigstore"))
    assert "TRITONPIPE_SIGNING_METHOD=key" in caught.value.hint


def test_trust_is_a_key_or_certificates_or_an_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="by whom"):
        chosen_trust(Settings(verify_identity="me@example.org"))
    monkeypatch.setenv("TRITONPIPE_VERIFY_IDENTITY", "me@example.org")
    monkeypatch.setenv("TRITONPIPE_VERIFY_ISSUER", "https://issuer.example.org")
    identity = chosen_trust(load_settings())
    assert identity == SigstoreIdentity(
        identity="me@example.org", issuer="https://issuer.example.org"
    )
    monkeypatch.setenv("TRITONPIPE_VERIFY_CERTIFICATES", "root.pem, other.pem")
    roots = (Path("root.pem"), Path("other.pem"))
    assert chosen_trust(load_settings()) == CertificateAuthority(certificates=roots)
    monkeypatch.setenv("TRITONPIPE_VERIFY_KEY", "key.pub")
    assert chosen_trust(load_settings()) == Path("key.pub")
