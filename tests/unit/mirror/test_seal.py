"""Signatures of the real library, seen through the mirror."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.errors import SettingsError
from pipeline.manifest import manifest_from_bytes
from pipeline.mirror.seal import KeySeal
from pipeline.signing.sign import key_signer
from pipeline.testing.lying_store import LyingStore, SimulatedPublisher
from pipeline.testing.mirrored import InlineMirror, unloadable


def key_pair(folder: Path) -> tuple[Path, Path]:
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "key.pem", folder / "key.pub"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


def sign(store: LyingStore, version: str, private: Path, folder: Path) -> None:
    """As a publisher does who has the files."""
    for key, data in store.snapshot().items():
        if key.startswith(f"{version}/") and data is not None:
            path = folder / key.removeprefix(f"{version}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    manifest = manifest_from_bytes((folder / "manifest.json").read_bytes())
    key_signer(private).sign(folder, manifest)
    store.put(f"{version}/manifest.json.sig", (folder / "manifest.json.sig").read_bytes())


def test_only_what_the_key_signed_file_by_file_is_served(
    start: Callable[..., InlineMirror],
    publisher: SimulatedPublisher,
    store: LyingStore,
    tmp_path: Path,
) -> None:
    private, public = key_pair(tmp_path / "ours")
    stranger, _ = key_pair(tmp_path / "theirs")
    mirror = start(seal=KeySeal(public))
    publisher.publish("m", 1)
    sign(store, "m/1", private, tmp_path / "one")
    mirror.look()
    assert mirror.serving("m") == (1,)
    assert (tmp_path / "mirror/repository/m/1/manifest.json.sig").is_file()
    publisher.publish("m", 2)
    sign(store, "m/2", stranger, tmp_path / "two")
    mirror.look()
    # Whoever can write to the store can make files and manifest agree, but not sign them.
    publisher.publish("m", 3)
    sign(store, "m/3", private, tmp_path / "three")
    publisher.publish("m", 3, b"other bytes")
    mirror.look()
    assert mirror.serving("m") == (1,)
    assert mirror.reasons() == {"m": "refused"}
    assert unloadable(tmp_path / "mirror") == []
    publisher.commit("m", 1)
    mirror.look()
    assert mirror.reasons() == {}
    bytes_before = mirror.follower.status().bytes
    assert bytes_before > 0
    again = start(seal=KeySeal(public), read_digests=True)
    again.look()
    assert again.follower.status().bytes == 0


def test_a_key_that_cannot_be_read_is_a_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        KeySeal(tmp_path / "none.pub")
