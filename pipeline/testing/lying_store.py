"""A store that lies in chosen calls, and a publisher that fills it in the order of ours.

For laws about readers of a repository: whatever a call answers, nothing that is served may suffer.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Final

from pipeline.errors import ConflictError, SettingsError, UnavailableError
from pipeline.manifest import MANIFEST_NAME, FileDigest, Lineage, Manifest
from pipeline.model_config import CONFIG_NAME, with_versions
from pipeline.stores import StoredObject
from pipeline.testing.simulated import SimulatedStore, World

LIES: Final = ("down", "denied", "empty", "truncated", "garbage")


class LyingStore(SimulatedStore):
    """Answers rightly, but for the calls that a lie was told for."""

    def __init__(self) -> None:
        super().__init__(World())
        self.calls = 0
        self._lie = ""
        self._at = 0
        self._goes_on = False

    def tell_lie(self, lie: str, at: int, *, goes_on: bool = False) -> None:
        """Count reading calls from 0 again, and lie in number ``at``, or from there on."""
        self.calls, self._lie, self._at, self._goes_on = 0, lie, at, goes_on

    def be_honest(self) -> None:
        """Answer rightly from now on."""
        self.tell_lie("", 0)

    def list_folder(self, folder: str) -> list[StoredObject]:
        """As in the parent, or a lie."""
        lie, found = self._next(), super().list_folder(folder)
        if lie == "empty":
            return []
        if lie == "truncated":
            return found[: len(found) // 2]
        if lie == "garbage":
            return [replace(o, key=o.key[::-1], size=o.size + 1) for o in found]
        return found

    def get(self, key: str) -> bytes | None:
        """As in the parent, or a lie."""
        lie, data = self._next(), super().get(key)
        return None if lie == "empty" else data and _spoilt(data, lie)

    def download(self, key: str, path: Path) -> None:
        """As in the parent, or a lie."""
        lie, data = self._next(), super().get(key)
        if lie == "empty" or data is None:
            raise ConflictError(f"there is no {key}")
        path.write_bytes(_spoilt(data, lie))

    def _next(self) -> str:
        number, self.calls = self.calls, self.calls + 1
        lie = self._lie if number == self._at or (self._goes_on and number > self._at) else ""
        if lie == "down":
            raise UnavailableError("the store is down")
        if lie == "denied":
            raise SettingsError("the store refused the credentials")
        return lie


def _spoilt(data: bytes, lie: str) -> bytes:
    if lie == "truncated":
        return data[: len(data) // 2]
    return bytes(reversed(data)) if lie == "garbage" else data


class SimulatedPublisher:
    """Publishes small versions; ``committed`` has the configs of each model, oldest first."""

    def __init__(self, store: SimulatedStore) -> None:
        self.store = store
        self.committed: dict[str, list[str]] = {}
        store.put(".tritonpipe", b"x")

    def upload(self, model: str, version: int, content: bytes = b"graph") -> None:
        """Everything of a version but the commit."""
        files = {"model.onnx": content + b"-%d" % version, "deep/data.bin": b"0123456789"}
        for path, data in files.items():
            self.store.put(f"{model}/{version}/{path}", data)
        manifest = Manifest(
            model=model,
            version=version,
            config_sha256=hashlib.sha256(config_of(model, version).encode()).hexdigest(),
            files=tuple(
                FileDigest(path=p, size=len(d), sha256=hashlib.sha256(d).hexdigest())
                for p, d in files.items()
            ),
            lineage=Lineage(
                registered_model=model,
                registered_version=version,
                run_id=None,
                source="s",
                source_digest="d",
                flavor="onnx",
            ),
            tools={},
        )
        self.store.put(f"{model}/warmup/README", b"x")
        self.store.put(f"{model}/{version}/{MANIFEST_NAME}", manifest.to_bytes())

    def commit(self, model: str, *versions: int) -> None:
        """Serve these versions, with the config of the first one."""
        self.store.world.sleep(1.0)
        text = with_versions(config_of(model, versions[0]), versions)
        self.committed.setdefault(model, []).append(text)
        self.store.put(f"{model}/{CONFIG_NAME}", text.encode())

    def publish(self, model: str, version: int, content: bytes = b"graph") -> None:
        """Upload and commit."""
        self.upload(model, version, content)
        self.commit(model, version)

    def withdraw(self, model: str) -> None:
        """Delete everything of a model."""
        self.store.delete([key for key in self.store.snapshot() if key.startswith(f"{model}/")])


def config_of(model: str, version: int) -> str:
    """The config of a version, as it is published: that of another one differs in more."""
    text = f'name: "{model}" backend: "onnxruntime" default_model_filename: "{version}.onnx"'
    return with_versions(text, [version])
