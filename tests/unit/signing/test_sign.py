"""Keys that cannot sign are refused before anything is signed, and no secret is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from pipeline.errors import DependencyError, RefusedError, SettingsError
from pipeline.manifest import SIGNATURE_NAME
from pipeline.signing import CertificateAuthority, verify_folder
from pipeline.signing.sign import PASSWORD_VARIABLE, certificate_signer, key_signer


@dataclass(frozen=True, kw_only=True)
class Certified:
    key: Path
    certificate: Path
    root: Path


@pytest.fixture
def certified(tmp_path: Path) -> Callable[[str], Certified]:
    """A root of that name, and a key with a certificate of it for signatures."""

    def make(name: str) -> Certified:
        folder = tmp_path / name
        folder.mkdir()
        root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "publisher")])
        root = certificate(issuer, issuer, root_key.public_key(), root_key, is_root=True)
        leaf = certificate(subject, issuer, key.public_key(), root_key, is_root=False)
        made = Certified(
            key=folder / "key.pem", certificate=folder / "leaf.pem", root=folder / "root.pem"
        )
        made.key.write_bytes(pem(key))
        made.certificate.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
        made.root.write_bytes(root.public_bytes(serialization.Encoding.PEM))
        return made

    return make


def test_a_key_with_a_password_signs_when_the_password_is_set(
    new_key_pair: Any, new_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = new_key_pair(password="hunter2")
    folder, manifest = new_folder()
    monkeypatch.setenv(PASSWORD_VARIABLE, "hunter2")
    key_signer(pair.private).sign(folder, manifest)
    assert verify_folder(folder, pair.public) == manifest


@pytest.mark.parametrize("password", [None, "", "hunter3"])
def test_a_wrong_password_is_a_setting_and_is_not_told(
    password: str | None, new_key_pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if password is not None:
        monkeypatch.setenv(PASSWORD_VARIABLE, password)
    with pytest.raises(SettingsError) as caught:
        key_signer(new_key_pair(password="hunter2").private)
    assert PASSWORD_VARIABLE in caught.value.hint
    assert "hunter" not in f"{caught.value!r} {caught.value.hint} {caught.value.__cause__!r}"


def test_keys_that_cannot_sign_are_a_setting(keys: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    (tmp_path / "rsa.pem").write_bytes(pem(rsa.generate_private_key(65537, 2048)))
    (tmp_path / "curve.pem").write_bytes(pem(ec.generate_private_key(ec.SECP256K1())))
    names = [tmp_path / name for name in ("absent.pem", "empty.pem", "rsa.pem", "curve.pem")]
    for key in [*names, tmp_path, keys.public]:
        with pytest.raises(SettingsError, match=key.name) as caught:
            key_signer(key)
        assert "openssl ecparam" in caught.value.hint


def test_the_keys_that_the_hint_makes_sign(tmp_path: Path, new_folder: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        key_signer(tmp_path / "absent.pem")
    commands = caught.value.hint.split("make a pair with: ")[1]
    subprocess.run(["sh", "-c", commands], cwd=tmp_path, check=True, capture_output=True)
    folder, manifest = new_folder()
    key_signer(tmp_path / "key.pem").sign(folder, manifest)
    verify_folder(folder, tmp_path / "key.pub")


def test_a_folder_that_is_not_its_manifest_is_not_signed(new_folder: Any, keys: Any) -> None:
    folder, manifest = new_folder()
    (folder / "model.onnx").write_bytes(b"changed since")
    with pytest.raises(RefusedError, match=r"model\.onnx"):
        key_signer(keys.private).sign(folder, manifest)
    assert not (folder / SIGNATURE_NAME).exists()


def test_signing_twice_gives_a_signature_that_holds(
    signed: Path, keys: Any, new_folder: Any
) -> None:
    key_signer(keys.private).sign(signed, verify_folder(signed, keys.public))
    verify_folder(signed, keys.public)


def test_a_certificate_counts_for_those_who_trust_its_root(
    certified: Callable[[str], Certified], new_folder: Any, keys: Any
) -> None:
    ours, theirs = certified("ours"), certified("theirs")
    folder, manifest = new_folder()
    certificate_signer(ours.key, ours.certificate, [ours.root]).sign(folder, manifest)
    assert verify_folder(folder, CertificateAuthority(certificates=(ours.root,))) == manifest
    for other in (CertificateAuthority(certificates=(theirs.root,)), keys.public):
        with pytest.raises(RefusedError, match="does not hold for"):
            verify_folder(folder, other)
    with pytest.raises(SettingsError, match="no certificate"):
        verify_folder(folder, CertificateAuthority(certificates=()))
    (folder / "model.onnx").write_bytes(b"changed")
    with pytest.raises(RefusedError, match="is not what was signed"):
        verify_folder(folder, CertificateAuthority(certificates=(ours.root,)))


def test_a_certificate_of_another_key_is_a_setting(
    certified: Callable[[str], Certified],
) -> None:
    ours, theirs = certified("ours"), certified("theirs")
    with pytest.raises(SettingsError, match=str(ours.key)):
        certificate_signer(ours.key, theirs.certificate, [theirs.root])


def test_without_the_library_the_error_names_the_extra(
    keys: Any, signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    for attempt in (lambda: key_signer(keys.private), lambda: verify_folder(signed, keys.public)):
        with pytest.raises(DependencyError) as caught:
            attempt()
        assert "tritonpipe[signing]" in caught.value.hint


def test_the_library_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, pipeline.signing.sign; print('model_signing' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def pem(key: Any) -> bytes:
    data: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return data


def certificate(
    subject: x509.Name, issuer: x509.Name, key: Any, signer: Any, *, is_root: bool
) -> x509.Certificate:
    now = datetime.now(UTC)
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    usage = dict.fromkeys((*others, "encipher_only", "decipher_only"), False)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=is_root, crl_sign=is_root, **usage),
            critical=True,
        )
        .sign(signer, hashes.SHA256())
    )
