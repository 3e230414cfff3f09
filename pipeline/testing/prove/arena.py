"""The place where it is proved: a stack of its own, looked at past everything that is proved.

What the store holds is read from the server's folder, what Triton does from its log and its index:
the publisher's own code is not asked about its own work.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pipeline.model_config import CONFIG_NAME, served_version
from pipeline.stack import Stack
from pipeline.stack.part import http_status
from pipeline.stack.s3_server import BUCKET, PREFIX
from pipeline.stack.shell import point_at_stack
from pipeline.stores import Store, open_store
from pipeline.testing.prove.clients import Clients, Tally, Watched
from pipeline.testing.prove.table import Row

_LOAD_FAILED: Final = re.compile(r"failed to load '([^']+)' version (\d+)")
_SETTLED: Final = frozenset({"READY", "UNAVAILABLE", ""})


class Arena:
    """A running stack.

    Attributes:
        variables: What a client needs to find it.
        tally: What its clients saw so far.
        stack: The servers.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.variables = stack.environment_variables()
        self.tally = Tally()
        self._bucket = stack.state_directory / "s3" / BUCKET
        self._store = open_store(self.variables["TRITONPIPE_REPOSITORY"])
        self._records = open_store(self.variables["TRITONPIPE_REPOSITORY"] + "-records")
        self._log_offset = 0

    @property
    def s3_port(self) -> int:
        """Where the store listens."""
        return int(self.variables["AWS_ENDPOINT_URL"].rsplit(":", 1)[1])

    def clients(self, watched: Watched) -> Clients:
        """Clients for one model."""
        return Clients(
            watched,
            self.tally,
            http=self.variables["TRITONPIPE_TRITON_HTTP"],
            grpc=self.variables["TRITONPIPE_TRITON_GRPC"],
        )

    def model_folder(self, model: str) -> Path:
        """What the store holds of a model."""
        return self._bucket / PREFIX / model

    def committed(self, model: str) -> int | None:
        """The version that the config in the store names; -1 if it is not one of ours."""
        path = self.model_folder(model) / CONFIG_NAME
        if not path.is_file():
            return None
        try:
            return served_version(path.read_text())
        except ValueError:
            return -1

    def events(self, model: str) -> list[dict[str, Any]]:
        """The journal of a model, oldest first; what cannot be read is an event of its own."""
        folder = self._bucket / f"{PREFIX}-records" / model / "journal"
        return [_event(path.read_bytes()) for path in sorted(folder.glob("*.json"))]

    def recorded(self, model: str, version: int) -> tuple[bytes, bytes]:
        """The manifest and the golden answers in the record of a release; empty without one."""
        folder = self._bucket / f"{PREFIX}-records" / model / "releases" / str(version)
        release, golden = folder / "release.json", folder / "golden.npz"
        if not (release.is_file() and golden.is_file()):
            return b"", b""
        return json.loads(release.read_text())["manifest"].encode(), golden.read_bytes()

    def states(self, model: str) -> dict[int, str]:
        """State and reason of each version that Triton knows of."""
        port = int(self.variables["TRITONPIPE_TRITON_HTTP"].rsplit(":", 1)[1])
        status, body = http_status(port, "/v2/repository/index", method="POST")
        found = json.loads(body) if status == 200 else []
        return {
            int(entry["version"]): entry.get("state", "")
            for entry in found
            if entry["name"] == model and entry.get("version", "").isdigit()
        }

    def settled(self, model: str) -> None:
        """Return when Triton neither loads nor unloads a version of the model."""
        self.wait(lambda: set(self.states(model).values()) <= _SETTLED, f"{model} to settle")

    def remove(self, model: str) -> None:
        """Take a model away past the publisher: the config first, the rest when nothing loads."""
        self._store.delete([f"{model}/{CONFIG_NAME}"])
        self.settled(model)
        _delete(self._store, model)
        _delete(self._records, model)
        self.wait(
            lambda: "READY" not in self.states(model).values(), f"Triton to let go of {model}"
        )

    def keep_only(self, model: str, *versions: int) -> None:
        """Remove other versions and what is on record of them.

        Otherwise polls and runs would become slower from case to case, and the same request would
        have another number in each.
        """
        self.settled(model)
        for path in self.model_folder(model).iterdir():
            if path.name.isdigit() and int(path.name) not in versions:
                _delete(self._store, f"{model}/{path.name}")
                _delete(self._records, f"{model}/releases/{path.name}")
        events = sorted(self._records.list_folder(f"{model}/journal"), key=lambda o: o.key)
        proofs = {
            event["version"]: stored.key
            for event, stored in zip(self.events(model), events, strict=True)
            if event["event"] == "confirmed" and event["version"] in versions
        }
        self._records.delete([o.key for o in events if o.key not in proofs.values()])

    def snapshot(self, model: str) -> Mapping[str, Mapping[str, bytes]]:
        """All objects of a model and of its records, by store and key."""
        return {store.url: _objects(store, model) for store in (self._store, self._records)}

    def restore(self, model: str, snapshot: Mapping[str, Mapping[str, bytes]]) -> None:
        """Write back what is missing, and remove what was not there."""
        for store in (self._store, self._records):
            wanted, found = snapshot[store.url], _objects(store, model)
            store.delete(sorted(found.keys() - wanted.keys()))
            for key in sorted(wanted.keys() - found.keys()):
                store.put(key, wanted[key])

    def wait(self, condition: Callable[[], bool], what: str, *, seconds: float = 60.0) -> None:
        """Wait for a condition.

        Raises:
            TimeoutError: It did not come true.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds:.0f} s for {what}")
            time.sleep(0.25)  # most conditions make Triton list the store

    @contextmanager
    def counted(self, title: str, *, doomed: Collection[str] = ()) -> Iterator[Row]:
        """A row that counts what clients and server see while the body runs.

        Args:
            title: Of the row.
            doomed: ``MODEL/VERSION`` that nobody can load, on purpose; may grow in the body.
        """
        row = Row(scenario=title)
        started = time.monotonic()
        before = self.tally.counts.copy()
        self._failed_loads()
        yield row
        counts = self.tally.counts - before
        row.requests = counts["answered"] + counts["failed"] + counts["wrong"]
        row.failed, row.wrong = counts["failed"], counts["wrong"]
        row.words += self.tally.words
        self.tally.words.clear()
        failed_loads = {k: v for k, v in self._failed_loads().items() if k not in doomed}
        row.half_loaded = len(failed_loads)
        row.words += list(failed_loads.values())
        row.seconds = time.monotonic() - started

    def _failed_loads(self) -> dict[str, str]:
        """Versions that Triton began to load since the last call and could not, with its words."""
        with self.stack.logs("triton")["triton"].open("rb") as log:
            self._log_offset = min(self._log_offset, log.seek(0, os.SEEK_END))
            log.seek(self._log_offset)
            data = log.read()
        complete, _, _rest = data.rpartition(b"\n")
        self._log_offset += len(complete)
        lines = complete.decode(errors="replace").splitlines()
        found = ((_LOAD_FAILED.search(line), line) for line in lines)
        return {f"{match[1]}/{match[2]}": line for match, line in found if match}


def _event(data: bytes) -> dict[str, Any]:
    try:
        event: dict[str, Any] = json.loads(data)
    except ValueError:
        return {"event": "unreadable", "version": 0}
    return event


def _objects(store: Store, folder: str) -> dict[str, bytes]:
    found = ((o.key, store.get(o.key)) for o in store.list_folder(folder))
    return {key: data for key, data in found if data is not None}


def _delete(store: Store, folder: str) -> None:
    # Over S3, since the server remembers what its folders hold.
    store.delete([stored.key for stored in store.list_folder(folder)])


@contextmanager
def open_arena(folder: Path) -> Iterator[Arena]:
    """Start a stack in ``folder``, on ports of its own, and take it away in the end."""
    stack = Stack(folder / "state")
    stack.up(
        ports=dict.fromkeys(("mlflow", "s3", "triton_http", "triton_grpc", "triton_metrics"), 0)
    )
    try:
        # Clients of this process take them from here.
        point_at_stack(os.environ, stack.environment_variables())
        yield Arena(stack)
    finally:
        stack.down(delete=True)
