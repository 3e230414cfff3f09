"""Every dangerous name, on a real S3, in a repository that no Triton polls."""

from __future__ import annotations

import hashlib
import hmac
import os
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from pipeline.errors import RequestError
from pipeline.flows.publish import plan_publication, read_state
from pipeline.manifest import digest_folder
from pipeline.stores import Store, open_store
from pipeline.testing.prove.entries import Recipe, make_candidate
from pipeline.testing.radosgw import RadosGateway
from pipeline.testing.radosgw_packages import installed_radosgw


@pytest.fixture
def odd(stack: object, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A repository beside the one that Triton polls, with one model of ours."""
    url = f"s3://models/odd-{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("TRITONPIPE_REPOSITORY", url)
    return open_store(url)


@pytest.mark.parametrize(
    ("key", "code", "severity"),
    [
        ("_manifest.json", "root-file", "note"),
        ("a name=1", "root-file", "note"),
        (".pipeline/state.json", "illegal-model-name", "error"),
        (".pipeline/1/x", "illegal-model-name", "error"),
        ("a+b/1/x", "illegal-model-name", "warning"),
        ("a b/1/x", "illegal-model-name", "warning"),
        ("notes/todo.txt", "no-model", "error"),
        ("fraud/conf", "blinds-triton", "error"),
        ("fraud/config", "blinds-triton", "error"),
        ("fraud/manifest.json", "file-in-model-folder", "warning"),
        ("fraud/config.pbtxt.sig", "file-in-model-folder", "warning"),
        ("fraud/notes/x", "folder-in-model-folder", "warning"),
        ("fraud/.staging/3/x", "folder-in-model-folder", "warning"),
        ("fraud/-1/x", "folder-in-model-folder", "warning"),
        ("fraud/3.tmp/x", "odd-version", "warning"),
        ("fraud/2024-01-01/x", "odd-version", "warning"),
        ("fraud/03/x", "odd-version", "warning"),
        ("fraud/12345678901234567890/x", "aborts-triton", "error"),
        ("fraud/1/a b", "unsafe-file-name", "warning"),
        ("fraud/1/a+b", "unsafe-file-name", "warning"),
    ],
)
def test_an_odd_name_is_found(
    odd: Store, tritonpipe: Callable[..., Any], key: str, code: str, severity: str
) -> None:
    odd.put("fraud/1/model.onnx", b"x")
    odd.put(key, b"x")
    found = tritonpipe("fsck", "--json").data["findings"]
    assert (code, severity) in {(f["code"], f["severity"]) for f in found}


@pytest.mark.parametrize("file", ["a b", "naïve.bin", "weights+1", "sub/a b"])
def test_an_entry_with_such_a_name_is_refused_before_anything_is_written(
    odd: Store, tmp_path: Path, file: str
) -> None:
    candidate = make_candidate(Recipe(model="fraud", version=1), tmp_path)
    entry = candidate.entry
    assert entry is not None
    path = entry.folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    manifest = replace(entry.manifest, files=digest_folder(entry.folder))
    with pytest.raises(RequestError, match="cannot be a file of a Triton model"):
        plan_publication(odd, read_state(odd, "fraud"), replace(entry, manifest=manifest))
    assert odd.list_folder("") == []


@pytest.fixture
def gateway(stack: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A server that takes keys with empty names; rclone refuses them."""
    installation = installed_radosgw()
    if installation is None:
        pytest.skip("radosgw is not installed: python -P -m pipeline.testing.radosgw")
    with RadosGateway(installation) as running:
        running.create_bucket("models")
        for name, value in running.variables.items():
            monkeypatch.setenv(name, value)
        yield dict(os.environ)


@pytest.mark.parametrize("key", ["/fraud/1/x", "fraud//x", "fraud/1//x"])
def test_a_key_with_an_empty_name_is_found(
    gateway: dict[str, str], odd: Store, tritonpipe: Callable[..., Any], key: str
) -> None:
    put_raw(f"{odd.url.removeprefix('s3:/')}/{key}")
    report = tritonpipe("fsck", "--json")
    assert report.code == 12
    (found,) = (f for f in report.data["findings"] if f["code"] == "unlistable")
    assert f"/{key}" in found["message"]


def put_raw(path: str) -> None:
    """Write an object whose key no well-behaved client would send."""
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    uri, sha256 = quote(path), hashlib.sha256(b"x").hexdigest()
    headers = {
        "host": urlsplit(endpoint).netloc,
        "x-amz-content-sha256": sha256,
        "x-amz-date": now,
    }
    names = ";".join(headers)
    lines = [f"{name}:{value}" for name, value in headers.items()]
    request = "\n".join(["PUT", uri, "", *lines, "", names, sha256])
    scope = f"{now[:8]}/{os.environ['AWS_REGION']}/s3/aws4_request"
    digest = hashlib.sha256(request.encode()).hexdigest()
    key = f"AWS4{os.environ['AWS_SECRET_ACCESS_KEY']}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest}"
    signature = hmac.new(key, text.encode(), "sha256").hexdigest()
    credential = f"{os.environ['AWS_ACCESS_KEY_ID']}/{scope}"
    headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
    )
    urllib.request.urlopen(  # of the test's own server
        urllib.request.Request(endpoint + uri, data=b"x", method="PUT", headers=headers)
    ).close()
