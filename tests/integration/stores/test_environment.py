"""The ordinary variables of AWS's tools, seen in the requests that they lead to."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.errors import SettingsError
from pipeline.stores import open_store
from pipeline.stores.parts import PART

_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "the-key",
    "AWS_SECRET_ACCESS_KEY": "the-secret",
    "AWS_REGION": "eu-north-1",
}
_CREDENTIALS = {
    "AccessKeyId": "temporary",
    "SecretAccessKey": "secret",
    "Token": "the-token",
    "Expiration": "2099-01-01T00:00:00Z",
}
_ASSUMED = b"""<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>
<AccessKeyId>temporary</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>
<SessionToken>the-token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>
</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


def _neighbour(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


recording = _neighbour("recording").recording


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_CA_BUNDLE", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in _VARIABLES.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with recording() as record:
        monkeypatch.setenv("AWS_ENDPOINT_URL", record.url)
        yield record


def test_region_key_and_path(server: Any) -> None:
    open_store("s3://models/prefix").put("m/k", b"x")
    [request] = server.requests
    assert request.line == "PUT /models/prefix/m/k"
    scope = request.headers["Authorization"]
    assert "Credential=the-key/" in scope
    assert "/eu-north-1/s3/" in scope


def test_a_session_token(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-token")
    open_store("s3://models").put("k", b"x")
    assert server.requests[0].headers["x-amz-security-token"] == "the-token"


def test_the_digest_of_every_object_and_part_is_sent(server: Any, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (PART + 1))
    store = open_store("s3://models")
    store.put("small", b"x")
    store.put("large", tmp_path / "large")
    parts = [r for r in server.requests if "partNumber" in r.line]
    for request in (server.of("PUT /models/small"), *parts):
        digest = base64.b64encode(hashlib.sha256(request.body).digest()).decode()
        assert request.headers["x-amz-checksum-sha256"] == digest
    assert sorted(len(part.body) for part in parts) == [1, PART]
    assert server.of("POST /models/large?uploads").headers["x-amz-checksum-algorithm"] == "SHA256"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"AWS_SERVER_SIDE_ENCRYPTION": "AES256"}, {"x-amz-server-side-encryption": "AES256"}),
        (
            {
                "AWS_SERVER_SIDE_ENCRYPTION": "aws:kms",
                "AWS_SSE_KMS_KEY_ID": "arn:aws:kms:eu-north-1:1:key/2",
                "AWS_SSE_BUCKET_KEY_ENABLED": "true",
            },
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "arn:aws:kms:eu-north-1:1:key/2",
                "x-amz-server-side-encryption-bucket-key-enabled": "true",
            },
        ),
    ],
    ids=["SSE-S3", "SSE-KMS"],
)
def test_encryption_is_asked_for_in_every_kind_of_write(
    server: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    expected: dict[str, str],
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "large").write_bytes(b"x" * (PART + 1))
    store = open_store("s3://models")
    store.put("small", b"x")
    store.replace("small", b"y", etag="e")
    store.put("large", tmp_path / "large")
    writes = [r for r in server.requests if r.line.startswith("PUT /models/small")]
    assert len(writes) == 2
    for request in (*writes, server.of("POST /models/large?uploads")):
        assert {name: request.headers[name] for name in expected} == expected


def test_a_certificate_authority_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = _self_signed(tmp_path)
    with recording(certificate) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        with pytest.raises(SettingsError, match="certificate") as caught:
            open_store("s3://models").put("k", b"x")
        assert "AWS_CA_BUNDLE" in caught.value.hint
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        open_store("s3://models").put("k", b"x")
        assert [r.line for r in server.requests] == ["PUT /models/k"]


def _self_signed(folder: Path) -> Path:
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ("-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1")
    # Clients take no certificate for a server that may itself sign others.
    kind = ("-x509", "-nodes", "-days", "2", "-addext", "basicConstraints=critical,CA:FALSE")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run(
        ["openssl", "req", *kind, *curve, *subject, *files], check=True, capture_output=True
    )
    certificate.write_text(certificate.read_text() + key.read_text())
    return certificate


@pytest.fixture
def without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("without_keys")
def test_a_web_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Kubernetes gives it to a pod; tokens are sent over TLS only."""
    certificate = _self_signed(tmp_path)
    (tmp_path / "token").write_text("identity")
    with recording(certificate) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/publisher")
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"{server.url}/sts")
        server.answers["/sts"] = _ASSUMED
        _require_temporary_credentials(server)
        asked = server.requests[0]
        assert "role%2Fpublisher" in asked.line + asked.body.decode()


@pytest.mark.usefixtures("without_keys")
def test_a_container_role(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("authorization")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/container")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    server.answers["/container"] = json.dumps(_CREDENTIALS).encode()
    _require_temporary_credentials(server)


@pytest.mark.usefixtures("without_keys")
def test_an_instance_role(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", server.url)
    folder = "/latest/meta-data/iam/security-credentials/"
    server.answers |= {
        "/latest/api/token": b"t",
        folder: b"role",
        f"{folder}role": json.dumps(_CREDENTIALS | {"Code": "Success"}).encode(),
    }
    _require_temporary_credentials(server)


def _require_temporary_credentials(server: Any) -> None:
    open_store("s3://models").put("k", b"x")
    headers = server.of("PUT /models/k").headers
    assert "Credential=temporary/" in headers["Authorization"]
    assert headers["x-amz-security-token"] == "the-token"


@pytest.mark.usefixtures("without_keys")
def test_a_profile(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("boto3")
    (tmp_path / "credentials").write_text(
        "[team]\naws_access_key_id = temporary\naws_secret_access_key = s\n"
        "aws_session_token = the-token\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "team")
    _require_temporary_credentials(server)
