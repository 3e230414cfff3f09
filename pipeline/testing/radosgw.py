"""Ceph's S3 gateway on loopback, without a container: a real server that honours conditions.

``rclone serve s3`` of the embedded stack ignores conditional writes, and fakes do what their author
believed. radosgw is the S3 server of many clusters; Debian has it, and a monitor, one in-memory OSD
and the gateway are up in two seconds. All objects are lost when it is closed.

``python -P -m pipeline.testing.radosgw`` installs it once (see :mod:`.radosgw_packages`).
"""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Final

import obstore
from obstore.store import S3Store

from pipeline.errors import StackError
from pipeline.testing.radosgw_packages import Installation, install_radosgw

_LOOPBACK: Final = "127.0.0.1"
_PATIENCE: Final = 60.0

# Without authentication between the daemons and with next to no batching in the monitor, whose
# defaults make a start take 12 s. memstore keeps objects in memory.
_CONFIG: Final = """
[global]
fsid = {fsid}
mon host = [v2:{loopback}:{mon_port}]
public addr = {loopback}
cluster addr = {loopback}
ms bind msgr1 = false
ms mon client mode = crc
ms mon cluster mode = crc
ms mon service mode = crc
auth cluster required = none
auth service required = none
auth client required = none
paxos propose interval = 0.02
paxos min wait = 0.01
mon tick interval = 1
mon data avail crit = 1
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 2000
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
run dir = {folder}
admin socket =
pid file =
log file = {folder}/$name.log
keyring = {folder}/keyring
plugin dir = {libraries}/ceph
erasure code dir = {libraries}/ceph/erasure-code
osd class dir = {libraries}/rados-classes
compressor dir = {libraries}/ceph/compressor
[mon.a]
mon data = {folder}/mon
[osd.0]
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 16G
[client.rgw]
rgw frontends = beast endpoint={loopback}:{port} tcp_nodelay=1
rgw data = {folder}/rgw
"""


class RadosGateway:
    """A cluster of one, while the body of its context runs.

    Attributes:
        variables: ``AWS_*`` that point a client at it.
    """

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._port = _free_port()
        self._open = ExitStack()
        self.variables = {
            "AWS_ENDPOINT_URL": f"http://{_LOOPBACK}:{self._port}",
            "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
            "AWS_REGION": "us-east-1",
        }

    def __enter__(self) -> RadosGateway:
        """Start it.

        Raises:
            StackError: A daemon did not start; the end of its output is in the message.
        """
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="radosgw-")))
            self._start(folder, stack)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it; nothing is left."""
        self._open.close()

    def create_bucket(self, name: str) -> None:
        """Create a bucket, which obstore can only sign, not send."""
        store = S3Store(
            name,
            endpoint=self.variables["AWS_ENDPOINT_URL"],
            access_key_id=self.variables["AWS_ACCESS_KEY_ID"],
            secret_access_key=self.variables["AWS_SECRET_ACCESS_KEY"],
            client_options={"allow_http": True},
        )
        url = obstore.sign(store, "PUT", "", timedelta(minutes=1))
        with urllib.request.urlopen(urllib.request.Request(url, method="PUT")):  # noqa: S310
            pass

    def _start(self, folder: Path, stack: ExitStack) -> None:
        for name in ("mon", "osd", "rgw"):
            (folder / name).mkdir()
        (folder / "keyring").touch()
        fsid, osd, mon_port = str(uuid.uuid4()), str(uuid.uuid4()), _free_port()
        config = folder / "ceph.conf"
        config.write_text(
            _CONFIG.format(
                fsid=fsid,
                mon_port=mon_port,
                port=self._port,
                loopback=_LOOPBACK,
                folder=folder,
                libraries=self._installation.libraries,
            )
        )
        command = self._installation.command
        conf = ("-c", str(config))
        monmap = str(folder / "monmap")
        address = f"[v2:{_LOOPBACK}:{mon_port}]"
        _run(command("monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, monmap))
        _run(command("ceph-mon", *conf, "--mkfs", "-i", "a", "--monmap", monmap))
        _spawn(command("ceph-mon", *conf, "-i", "a", "-f"), folder, stack)
        _run(self._installation.python("ceph", *conf, "osd", "new", osd, "0"))
        _run(command("ceph-osd", *conf, "-i", "0", "--mkfs", "--osd-uuid", osd))
        _spawn(command("ceph-osd", *conf, "-i", "0", "-f"), folder, stack)
        keys = ("--access-key", self.variables["AWS_ACCESS_KEY_ID"], "--secret-key")
        user = ("user", "create", "--uid", "t", "--display-name", "t", *keys)
        secret = self.variables["AWS_SECRET_ACCESS_KEY"]
        _run(command("radosgw-admin", *conf, "-n", "client.rgw", *user, secret))
        gateway = _spawn(command("radosgw", *conf, "-n", "client.rgw", "-f"), folder, stack)
        self._wait(gateway, folder)

    def _wait(self, gateway: subprocess.Popen[bytes], folder: Path) -> None:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and gateway.poll() is None:
            try:
                with urllib.request.urlopen(self.variables["AWS_ENDPOINT_URL"]):  # noqa: S310
                    return
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.05)
        log = folder / "output.log"
        raise StackError(f"radosgw did not start: {log.read_text(errors='replace')[-2000:]}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((_LOOPBACK, 0))
        return int(listener.getsockname()[1])


def _run(command: tuple[str, ...]) -> None:
    done = subprocess.run(  # noqa: S603  of programs that this installed itself
        command, capture_output=True, text=True, timeout=_PATIENCE, check=False
    )
    if done.returncode:
        raise StackError(f"{' '.join(command[-6:])} failed: {(done.stderr or done.stdout)[-2000:]}")


def _spawn(command: tuple[str, ...], folder: Path, stack: ExitStack) -> subprocess.Popen[bytes]:
    with (folder / "output.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)  # noqa: S603

    def stop() -> None:
        # Its data are in memory or deleted next: nothing is lost by a kill.
        process.kill()
        process.wait()

    stack.callback(stop)
    return process


if __name__ == "__main__":
    sys.stdout.write(f"{install_radosgw().root}\n")
