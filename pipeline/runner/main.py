"""The model's own process: loads it with its own packages, and answers until nobody asks any more.

Started as ``python -I -S`` with nothing but the standard library in reach; the packed packages are
then the only ones. Requests come through standard input, answers leave through a descriptor of
their own, and whatever the model prints goes where the supervisor reads it. Guarantees: the process
ends when its parent does, however that ended: at the next request at the latest by the end of its
input, and in the middle of a prediction by a signal, which needs no help of Python's.
"""

from __future__ import annotations

import fcntl
import os
import signal
import site
import sys
from collections.abc import Callable
from typing import Any, Final

_O_ASYNC: Final = getattr(os, "O_ASYNC", 0o20000)


def start(arguments: list[str]) -> None:
    """Take the descriptors, load the model, answer.

    Args:
        arguments: Folder of the packages, folder of the model, descriptor for answers, descriptor
            whose other end the parent holds as long as it lives.
    """
    packages, model, answers, life = arguments
    _end_with_the_parent(int(life))
    requests = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for descriptor in (requests, int(answers), int(life)):
        os.set_inheritable(descriptor, False)  # noqa: FBT003  has no name
    site.addsitedir(packages)
    _serve(model, requests, int(answers))


def _end_with_the_parent(life: int) -> None:
    """Have the kernel end this process, and what it starts, when the other end is closed."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | _O_ASYNC | os.O_NONBLOCK)
    try:
        is_over = os.read(life, 1) == b""  # it ended before the line above
    except BlockingIOError:
        is_over = False
    if is_over:
        os._exit(1)


def _serve(model: str, requests: int, answers: int) -> None:
    from . import frames

    def read(size: int) -> bytearray:
        content = bytearray(size)
        view, place = memoryview(content), 0
        while place < size:
            got = os.readv(requests, [view[place:]])
            if not got:
                raise EOFError
            place += got
        return content

    def write(pieces: list[bytes | memoryview]) -> None:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(answers, view) :]

    def said(kind: str, **fields: str) -> list[bytes | memoryview]:
        return frames.frame_bytes(frames.Frame(kind=kind, fields=fields))

    try:
        predict = _loaded(model)
    except BaseException as error:  # noqa: BLE001  whatever the author's code raises
        write(said("failed", reason=_described(error)))
        return
    write(said("ready", python=sys.version.split()[0]))
    while True:
        try:
            asked = frames.read_frame(read)
        except EOFError:
            return
        try:
            answer = frames.frame_bytes(frames.Frame(kind="answer", arrays=predict(asked)))
        except Exception as error:  # noqa: BLE001  as above
            answer = said("refused", reason=_described(error))
        write(answer)


def _loaded(model: str) -> Callable[[Any], Any]:
    """Load the model by MLflow alone, and return what predicts on a frame."""
    os.environ.setdefault("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody is asked
    import logging

    import mlflow.pyfunc

    # What it says of other versions and hints would leave no place for the model's own last words.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    loaded = mlflow.pyfunc.load_model(model)
    from . import answers, contract

    def predict(asked: Any) -> Any:
        fields = asked.fields
        value = _value(fields["form"], asked.arrays, fields.get("dtypes", {}))
        predicted = answers.named_answers(loaded.predict(value))
        outputs = fields.get("outputs")
        if outputs is None:
            return predicted
        tensors = [contract.Tensor(name=n, dtype=d, shape=tuple(s)) for n, d, s in outputs]
        return answers.as_promised(predicted, tensors)

    return predict


def _value(form: str, arrays: Any, dtypes: Any) -> Any:
    if form == "frame":
        import pandas as pd

        columns = {}
        for name, array in arrays.items():
            values = array.reshape(-1)
            columns[name] = pd.Series(values.tolist() if values.dtype == object else values)
            if name in dtypes:
                columns[name] = columns[name].astype(dtypes[name])
        return pd.DataFrame(columns)
    if form == "array":
        return next(iter(arrays.values()))
    return dict(arrays)


def _described(error: BaseException) -> str:
    """On one line, with its type and the last place in the author's code."""
    words = " ".join(str(error).split())[:1000]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
