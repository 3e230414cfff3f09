"""The zygote: imports libraries, touches no model, and is forked for each job.

Started by :class:`pipeline.flows.zygote.Zygote`. A *spare* is forked ahead of the next request and
waits for it, with a child of its own that will do the job: so forking, which takes long in a large
process, is over before anybody waits. The spare watches over its child, and tells how it ended.

Guarantees: when the other end of its socket is closed everywhere, it ends; when that of a job is
closed, the job ends. Only a process with one thread is ever forked, and none in which libraries
are older than those that are installed. With exit code 0 it ends only as it should.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final, NoReturn

from pipeline.flows import worker_main
from pipeline.flows.children import GUARD_SECONDS
from pipeline.flows.huge_pages import collapse
from pipeline.flows.installed import installed_distributions
from pipeline.flows.isolation import Entered, tried
from pipeline.flows.namespaces import die_with_parent, set_dumpable
from pipeline.flows.zygote import GO, MOST_BYTES, READY, Request

AT_START: Final = (
    "onnxruntime",
    "mlflow.sklearn",
    "mlflow.models",
    "skl2onnx",
    "skops.io",
    "onnx.reference",
    "pipeline.checks.gate",
    "pipeline.exporters.answers",
    "pipeline.exporters.sklearn",
)
"""What most children import; every check needs the first one."""

_NEEDLESS: Final = {"skops.io": "torch"}
"""What modules import without a need: skops looks for estimators in all modules of scikit-learn,
also in an adapter for PyTorch. Without it the zygote is half as large, and as quick to fork.
"""

AFTER_USE: Final = {
    "xgboost": ("mlflow.xgboost", "xgboost"),
    "lightgbm": ("mlflow.lightgbm", "lightgbm"),
    "catboost": ("mlflow.catboost", "catboost"),
    "pytorch": ("mlflow.pytorch", "torch", "onnxscript"),
    "transformers": ("mlflow.transformers", "torch", "onnxscript"),
}
"""What exporters need, imported when they were used for the first time.

Two are missing on purpose: TensorFlow starts threads when it is imported, and Transformers
notes then where its files go, below a home that is not that of a fork.
"""


_OVER: Final = "over"
"""Said by a spare when nothing is to be forked any more."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Zygote:
    """What a spare has to know.

    Attributes:
        requests: Where the next request comes from.
        known: What this kernel allows to leave behind.
        code: Our own code.
        installed: What was installed when nothing was imported yet.
    """

    requests: socket.socket
    known: Entered
    code: Sequence[Path]
    installed: Set[str]


def main(descriptor: int) -> None:
    """Answer requests.

    Args:
        descriptor: Our end of the pair of sockets.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    code = tuple(Path(worker_main.__file__).parents[1].rglob("*.py"))
    installed = _installed(code)
    with tempfile.TemporaryDirectory(prefix="tritonpipe-zygote-") as home:
        os.chdir(home)
        os.environ.update(HOME=home, TMPDIR=home)
        known = tried()  # as long as this process is small
        set_dumpable(False)  # no code of a model may look into it, or change it
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a spare has ended
        _import(AT_START)
        zygote = _Zygote(
            requests=socket.socket(fileno=descriptor), known=known, code=code, installed=installed
        )
        while (exporter := _next_exporter(zygote)) is not None:
            _import(AFTER_USE.get(exporter, ()))


def _import(modules: tuple[str, ...]) -> None:
    if not modules:
        return
    for name in modules:
        # Not installed, or broken: the child that needs it will tell.
        with _hidden(_NEEDLESS.get(name)), suppress(Exception):
            import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a child shall not copy every page
    collapse()


@contextmanager
def _hidden(module: str | None) -> Iterator[None]:
    """As if a module were not installed."""
    if module is None or module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # this is how imports are told to fail
    try:
        yield
    finally:
        del sys.modules[module]


def _installed(code: Iterable[Path]) -> Set[str]:
    """Names the distributions that are installed, and the states of our own code."""
    states = {f"{path} {path.stat().st_mtime_ns}" for path in code if path.exists()}
    return states.union(installed_distributions())


def _next_exporter(zygote: _Zygote) -> str | None:
    """Wait until a spare was asked for something; gives the exporter, None at the end of it all.

    Raises:
        SystemExit: This process, or what waited, is not as it should be.
    """
    if _fork() == 0:  # has libraries of linear algebra end the threads that wait for work
        os._exit(0)
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208  a fork would lack the others
        sys.exit("a library has started a thread that does not end")
    told, telling = os.pipe()
    if _fork() == 0:
        _stand_by(zygote, telling)
    os.close(telling)
    with os.fdopen(told, "rb") as pipe:
        words = pipe.read().decode()
    if not words:
        sys.exit("what waited for the next request was killed, or failed")
    return None if words == _OVER else words.removesuffix("\n")


def _fork() -> int:
    pid = os.fork()
    if pid == 0:
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
    return pid


def _stand_by(zygote: _Zygote, telling: int) -> NoReturn:
    """Do what is asked next, and tell the zygote as soon as it is known."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here = os.getpid()
    child = _fork()
    if child == 0:
        zygote.requests.close()
        ours.close()
        os.close(telling)
        _work(theirs, here, zygote.known)
    try:
        theirs.close()
        message, descriptors, _, _ = socket.recv_fds(zygote.requests, MOST_BYTES, 2)
        zygote.requests.close()
        if message and _installed(zygote.code) == zygote.installed:
            os.write(telling, f"{Request.from_bytes(message).exporter}\n".encode())
            os.close(telling)
            with suppress(ConnectionError):  # nobody waits any more
                _oversee(child, ours, message, *descriptors)
        else:
            os.write(telling, _OVER.encode())
        ours.close()
        os.waitpid(child, 0)  # it ends by itself if it was given nothing to do
    except Exception:  # noqa: BLE001  the process ends with it
        traceback.print_exc()
    finally:
        os._exit(0)


def _oversee(child: int, to_child: socket.socket, message: bytes, answers: int, log: int) -> None:
    """Have a child do what was asked, until it ends or nobody waits for it any more."""
    handle = os.pidfd_open(child)
    with socket.socket(fileno=answers) as connection:
        connection.send(READY)
        if connection.recv(MOST_BYTES) != GO:
            return
        socket.send_fds(to_child, [message], [log])
        if not _is_over(handle, connection):
            # The child is not reaped yet, so its number cannot belong to others.
            os.kill(child, signal.SIGTERM)  # its guard ends all, even what has left its group
            if not _is_over(handle, seconds=GUARD_SECONDS):
                os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())


def _is_over(handle: int, *others: socket.socket, seconds: float | None = None) -> bool:
    """Wait for a process; False if another one had something to say, or it took too long."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    for other in others:
        poll.register(other, select.POLLIN)
    found = poll.poll(None if seconds is None else seconds * 1000.0)
    return any(descriptor == handle for descriptor, _ in found)


def _work(channel: socket.socket, parent: int, known: Entered) -> NoReturn:
    """Become what a fresh interpreter would be, and do the job."""
    die_with_parent(signal.SIGKILL)  # until the walls stand, which do it in their own way
    message, descriptors, _, _ = socket.recv_fds(channel, MOST_BYTES, 1)
    if not message:
        os._exit(0)
    request = Request.from_bytes(message)
    os.setsid()
    for stream in (1, 2):
        os.dup2(descriptors[0], stream)
    set_dumpable(True)  # as every program is that was just started
    _close_others()
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.home)
    tempfile.tempdir = None
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # the generator of no two processes begins alike
    worker_main.run_and_exit(request.job_file, parent, known=known)


def _close_others() -> None:
    """Close everything but the standard streams, behind the back of the objects that used it."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        if int(name) > 2:
            with suppress(OSError):  # that of the listing itself
                os.close(int(name))


if __name__ == "__main__":
    main(int(sys.argv[1]))
