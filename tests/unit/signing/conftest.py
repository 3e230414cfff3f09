"""Keys made for one test run, and version folders that are signed with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.manifest import Lineage, Manifest, digest_folder
from pipeline.signing.sign import key_signer


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    private: Path
    public: Path


@pytest.fixture(scope="session")
def new_key_pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., KeyPair]:
    def make(password: str = "", curve: ec.EllipticCurve | None = None) -> KeyPair:
        folder = tmp_path_factory.mktemp("keys")
        key = ec.generate_private_key(curve or ec.SECP256R1())
        hidden = (
            serialization.BestAvailableEncryption(password.encode())
            if password
            else serialization.NoEncryption()
        )
        pair = KeyPair(private=folder / "key.pem", public=folder / "key.pub")
        pair.private.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)
        )
        pair.public.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        return pair

    return make


@pytest.fixture(scope="session")
def keys(new_key_pair: Callable[..., KeyPair]) -> KeyPair:
    return new_key_pair()


@pytest.fixture
def new_folder(tmp_path: Path) -> Callable[..., tuple[Path, Manifest]]:
    """An unsigned version folder and its manifest."""

    def make(version: int = 7, graph: bytes = b"graph") -> tuple[Path, Manifest]:
        folder = tmp_path / "fraud" / str(version)
        (folder / "data").mkdir(parents=True)
        (folder / "model.onnx").write_bytes(graph)
        (folder / "data" / "weights.bin").write_bytes(bytes(range(64)))
        (folder / "empty").touch()
        manifest = Manifest(
            model="fraud",
            version=version,
            config_sha256="0" * 64,
            files=digest_folder(folder),
            lineage=Lineage(
                registered_model="fraud",
                registered_version=version,
                run_id="r1",
                source="models:/m-1",
                source_digest="sha256:0",
                flavor="sklearn",
            ),
            tools={},
        )
        return folder, manifest

    return make


@pytest.fixture
def signed(new_folder: Callable[..., tuple[Path, Manifest]], keys: KeyPair) -> Path:
    """A signed version folder."""
    folder, manifest = new_folder()
    key_signer(keys.private).sign(folder, manifest)
    return folder
