"""Signed releases on the real servers: published, served, verified; and everything tampered with.

What is tampered with is a copy of the repository that no Triton polls.
"""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.errors import ConflictError, RefusedError, RequestError
from pipeline.flows.repository import records_url
from pipeline.flows.servers import Servers, open_servers
from pipeline.flows.verify import verify_release
from pipeline.manifest import MANIFEST_NAME, SIGNATURE_NAME
from pipeline.settings import Settings
from pipeline.stores import Store, open_store

PASSWORD = "correct horse"


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    private: Path
    public: Path

    def variables(self) -> dict[str, str | None]:
        return {
            "TRITONPIPE_SIGN": "true",
            "TRITONPIPE_SIGNING_KEY": str(self.private),
            "TRITONPIPE_SIGNING_KEY_PASSWORD": PASSWORD,
            "TRITONPIPE_VERIFY_KEY": str(self.public),
        }


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A model with two signed versions, of which the second one is served."""

    name: str
    keys: KeyPair


@pytest.fixture(scope="session")
def new_keys(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], KeyPair]:
    def make() -> KeyPair:
        folder = tmp_path_factory.mktemp("keys")
        key = ec.generate_private_key(ec.SECP256R1())
        pair = KeyPair(private=folder / "key.pem", public=folder / "key.pub")
        hidden = serialization.BestAvailableEncryption(PASSWORD.encode())
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        pair.private.write_bytes(key.private_bytes(pem, pkcs8, hidden))
        info = serialization.PublicFormat.SubjectPublicKeyInfo
        pair.public.write_bytes(key.public_key().public_bytes(pem, info))
        return pair

    return make


@pytest.fixture(scope="module")
def signed(
    stack: object,
    register: Callable[..., int],
    new_classifier: Callable[[int], Any],
    command: list[str],
    new_keys: Callable[[], KeyPair],
) -> Iterator[Signed]:
    name, keys = f"signed-{uuid.uuid4().hex[:8]}", new_keys()
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in keys.variables().items():
            patch.setenv(variable, str(value))
        for seed in (1, 2):
            version = register(name, new_classifier(seed))
            done = subprocess.run(
                [*command, "-v", "promote", f"{name}/{version}"],
                check=True,
                capture_output=True,
                text=True,
            )
            assert ", signed" in done.stderr
            assert PASSWORD not in done.stdout + done.stderr
    yield Signed(name=name, keys=keys)
    with open_servers(Settings()) as servers:
        servers.repository.delete([o.key for o in servers.repository.list_folder(name)])


@pytest.fixture
def copied(signed: Signed, settings: Settings) -> Iterator[tuple[Settings, Store]]:
    """The signed model and its records in a repository that nobody polls."""
    there = settings.model_copy(
        update={"repository": f"{settings.repository}-copy-{uuid.uuid4().hex[:8]}"}
    )
    pairs = [
        (open_store(settings.repository), open_store(there.repository)),
        (open_store(records_url(settings)), open_store(records_url(there))),
    ]
    for source, target in pairs:
        for found in source.list_folder(signed.name):
            data = source.get(found.key)
            assert data is not None
            target.put(found.key, data)
    yield there, pairs[0][1]
    for _source, target in pairs:
        target.delete([o.key for o in target.list_folder(signed.name)])


def refusal(signed: Signed, settings: Settings, version: int | None = None) -> str:
    with pytest.raises(RefusedError) as caught:
        verify_release(signed.name, version, settings, signed.keys.public)
    assert caught.value.hint
    return caught.value.message


def test_a_signed_release_is_served_and_verified(
    signed: Signed, tritonpipe: Callable[..., Any], servers: Servers, rows: Any
) -> None:
    done = tritonpipe("verify-release", signed.name, "--json", **signed.keys.variables())
    assert done.code == 0, done.out
    assert (done.data["version"], done.data["served"]) == (2, True)
    (replica,) = servers.replicas
    assert replica.infer("grpc", signed.name, {"X": rows}).version == 2
    listed = {o.key for o in servers.repository.list_folder(f"{signed.name}/2")}
    assert f"{signed.name}/2/{SIGNATURE_NAME}" in listed
    assert done.data["files"] == len(listed)


def test_a_version_that_is_not_served_is_verified_with_its_recorded_config(
    signed: Signed, tritonpipe: Callable[..., Any]
) -> None:
    key = str(signed.keys.public)
    done = tritonpipe("verify-release", f"{signed.name}/1", "--json", "--public-key", key)
    assert done.code == 0, done.out
    assert (done.data["version"], done.data["served"]) == (1, False)


def test_another_tool_of_the_format_verifies_a_downloaded_folder(
    signed: Signed, servers: Servers, tmp_path: Path
) -> None:
    for found in servers.repository.list_folder(f"{signed.name}/2"):
        path = tmp_path / found.key
        path.parent.mkdir(parents=True, exist_ok=True)
        servers.repository.download(found.key, path)
    folder = tmp_path / signed.name / "2"
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    command += ["--signature", str(folder / SIGNATURE_NAME)]
    command += ["--public_key", str(signed.keys.public)]
    assert subprocess.run(command, capture_output=True).returncode == 0
    (folder / "model.onnx").write_bytes(b"another")
    assert subprocess.run(command, capture_output=True).returncode != 0


@pytest.mark.parametrize("file", ["model.onnx", MANIFEST_NAME, SIGNATURE_NAME])
@pytest.mark.parametrize("where", [0.0, 0.5, 0.999])
def test_a_changed_byte_is_refused(
    file: str, where: float, signed: Signed, copied: tuple[Settings, Store]
) -> None:
    settings, store = copied
    key = f"{signed.name}/2/{file}"
    data = bytearray(store.get(key) or b"")
    data[int(where * len(data))] ^= 1
    store.put(key, bytes(data))
    refusal(signed, settings)


def test_a_file_too_many_too_few_or_renamed_is_refused(
    signed: Signed, copied: tuple[Settings, Store]
) -> None:
    settings, store = copied
    folder = f"{signed.name}/2"
    verify_release(signed.name, None, settings, signed.keys.public)
    store.put(f"{folder}/more.bin", b"")
    assert "more.bin" in refusal(signed, settings)
    store.delete([f"{folder}/more.bin"])
    graph = store.get(f"{folder}/model.onnx")
    assert graph is not None
    store.put(f"{folder}/other.onnx", graph)
    store.delete([f"{folder}/model.onnx"])
    assert "other.onnx" in refusal(signed, settings)
    store.delete([f"{folder}/other.onnx"])
    assert "model.onnx" in refusal(signed, settings)


def test_a_missing_or_foreign_signature_is_refused(
    signed: Signed, copied: tuple[Settings, Store], new_keys: Callable[[], KeyPair]
) -> None:
    settings, store = copied
    with pytest.raises(RefusedError, match="made with another key"):
        verify_release(signed.name, None, settings, new_keys().public)
    first, second = (f"{signed.name}/{version}/{SIGNATURE_NAME}" for version in (1, 2))
    store.put(second, store.get(first) or b"")
    assert "is not what was signed" in refusal(signed, settings)
    store.delete([second])
    assert "is not signed" in refusal(signed, settings)


def test_a_signed_version_in_the_place_of_another_is_refused(
    signed: Signed, copied: tuple[Settings, Store]
) -> None:
    settings, store = copied
    store.delete([o.key for o in store.list_folder(f"{signed.name}/2")])
    for found in store.list_folder(f"{signed.name}/1"):
        data = store.get(found.key) or b""
        store.put(found.key.replace(f"{signed.name}/1/", f"{signed.name}/2/"), data)
    assert f"is the signed release {signed.name}/1" in refusal(signed, settings)


def test_a_config_that_was_not_signed_is_refused(
    signed: Signed, copied: tuple[Settings, Store]
) -> None:
    settings, store = copied
    key = f"{signed.name}/config.pbtxt"
    config = (store.get(key) or b"").decode()
    store.put(key, (config + "# more\n").encode())
    assert "in the repository is not the one" in refusal(signed, settings)
    # The other version is judged by its record, which a rollback would write.
    verify_release(signed.name, 1, settings, signed.keys.public)
    records = open_store(records_url(settings))
    record = f"{signed.name}/releases/1/release.json"
    text = (records.get(record) or b"").decode()
    records.put(record, text.replace("max_batch_size: 64", "max_batch_size: 63").encode())
    assert "in the record is not the one" in refusal(signed, settings, version=1)


def test_what_is_not_there_is_a_wrong_request(
    signed: Signed, copied: tuple[Settings, Store]
) -> None:
    settings, store = copied
    for model, version in (("absent", None), (signed.name, 3)):
        with pytest.raises(RequestError):
            verify_release(model, version, settings, signed.keys.public)
    store.put(f"{signed.name}/config.pbtxt", b"nonsense {")
    with pytest.raises(ConflictError):
        verify_release(signed.name, None, settings, signed.keys.public)


def test_a_key_that_cannot_sign_stops_before_the_export(
    name: str, register: Callable[..., int], tritonpipe: Callable[..., Any], servers: Servers
) -> None:
    register(name)
    for key in (None, "/nowhere/key.pem"):
        variables = {"TRITONPIPE_SIGN": "true", "TRITONPIPE_SIGNING_KEY": key}
        done = tritonpipe("promote", f"{name}/1", **variables)
        assert done.code == 4
        assert "TRITONPIPE_SIGNING_KEY" in done.err
        assert "export" not in done.err
    assert servers.repository.list_folder(name) == []


def test_a_version_published_without_a_signature_is_not_served_anew(
    name: str,
    register: Callable[..., int],
    new_classifier: Callable[[int], Any],
    tritonpipe: Callable[..., Any],
    new_keys: Callable[[], KeyPair],
) -> None:
    variables = new_keys().variables()
    register(name)
    assert tritonpipe("promote", f"{name}/1").code == 0
    unsigned = tritonpipe("verify-release", name, **variables)
    assert unsigned.code == 7
    assert "is not signed" in unsigned.err
    again = tritonpipe("promote", f"{name}/1", **variables)
    assert again.code == 0, again.err
    register(name, new_classifier(5))
    assert tritonpipe("promote", f"{name}/2", **variables).code == 0
    back = tritonpipe("promote", f"{name}/1", **variables)
    assert back.code == 9
    assert "without a signature" in back.err


def test_a_mirror_takes_what_its_key_has_signed_and_nothing_else(
    signed: Signed,
    copied: tuple[Settings, Store],
    tritonpipe: Callable[..., Any],
    new_keys: Callable[[], KeyPair],
    tmp_path: Path,
) -> None:
    settings, _store = copied
    arguments = ["mirror", settings.repository, str(tmp_path / "ours"), "--once", "--public-key"]
    assert tritonpipe(*arguments, str(signed.keys.public)).code == 0
    folder = tmp_path / "ours" / "repository" / signed.name
    assert (folder / "2" / SIGNATURE_NAME).is_file()
    assert (folder / "config.pbtxt").is_file()
    arguments[2] = str(tmp_path / "theirs")
    refused = tritonpipe(*arguments, str(new_keys().public))
    assert "made with another key" in refused.err
    assert not (tmp_path / "theirs" / "repository" / signed.name / "config.pbtxt").exists()
