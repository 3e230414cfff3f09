"""A process that stands for a model's, without MLflow: a package of that name is enough."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import pipeline
from pipeline.runner.supervisor import (
    ModelDiedError,
    ModelRefusedError,
    Supervisor,
    interpreter_of,
)

FIELDS = {"form": "array"}
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
LOADER = """
def load_model(path):
    return Model(path)

class Model:
    def __init__(self, path):
        self.asked = 0
        exec(open(path + "/load.py").read())

    def predict(self, value):
        import os, subprocess, sys, time
        self.asked += 1
        what = int(value.ravel()[0])
        if what == 1:
            raise ValueError("not this one")
        if what == 2:
            os._exit(7)
        if what == 3:
            time.sleep(600)
        if what == 4:
            os.kill(os.getpid(), 11)
        if what == 5:
            print("x" * 1000 + "\\n" * 5, flush=True)
            for number in range(20_000):
                print("line", number, "of many that nobody reads" * 4)
        if what == 6:
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            time.sleep(600)
        if what == 7:
            sys.exit(0)
        if what == 8:
            return object()
        return value * 2 + self.asked * 0
"""


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    packages = tmp_path / "packages" / "mlflow" / "pyfunc"
    packages.mkdir(parents=True)
    (packages.parent / "__init__.py").touch()
    (packages / "__init__.py").write_text(LOADER, encoding="utf-8")
    numpy = Path(np.__file__).parent
    (tmp_path / "packages" / "numpy").symlink_to(numpy)
    (tmp_path / "packages" / "numpy.libs").symlink_to(numpy.parent / "numpy.libs")
    started: list[Supervisor] = []

    def make(code: str = "", **seconds: float) -> Supervisor:
        model = tmp_path / "model"
        model.mkdir(exist_ok=True)
        (model / "load.py").write_text(code, encoding="utf-8")
        supervisor = Supervisor(
            python=interpreter_of(PYTHON),
            code=Path(pipeline.__file__).parents[1],
            package="pipeline.runner",
            packages=tmp_path / "packages",
            model=model,
            scratch=tmp_path,
            load_seconds=seconds.get("load", 30.0),
            request_seconds=seconds.get("request", 30.0),
        )
        started.append(supervisor)
        return supervisor

    yield make
    for supervisor in started:
        supervisor.close()
    assert not [p for p in psutil.Process().children(recursive=True) if "load.py" in str(p)]


def asked(supervisor: Supervisor, what: float) -> Any:
    return supervisor.ask({"x": np.array([[what]])}, FIELDS)["prediction"]


def own_children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "-S" in p.cmdline()]


def test_it_answers_refuses_and_goes_on_in_the_same_process(
    supervised: Callable[..., Supervisor],
) -> None:
    supervisor = supervised()
    supervisor.start()
    (before,) = own_children()
    assert asked(supervisor, 10.0) == [[20.0]]
    with pytest.raises(ModelRefusedError, match="ValueError: not this one"):
        asked(supervisor, 1)
    with pytest.raises(ModelRefusedError, match="holds object"):
        asked(supervisor, 8)
    with pytest.raises(ModelRefusedError, match="complex"):
        supervisor.ask({"x": np.array([1j])}, FIELDS)
    asked(supervisor, 5)  # prints 2 MB that nobody reads
    big = np.ones((500_000, 2))
    answer = supervisor.ask({"x": big * 9}, FIELDS)["prediction"]
    np.testing.assert_array_equal(answer, big * 18)
    assert own_children() == [before]
    supervisor.close()
    assert own_children() == []


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (2, "exit status 7"),
        (4, "SIGSEGV"),
        (7, "exit status 0"),
        (6, "did not answer within 1 s"),
    ],
)
def test_one_that_dies_or_hangs_is_replaced_and_leaves_nothing(
    supervised: Callable[..., Supervisor], what: int, reason: str
) -> None:
    supervisor = supervised(request=1.0)
    supervisor.start()
    before = own_children()
    begun = time.monotonic()
    with pytest.raises(ModelDiedError, match=reason):
        asked(supervisor, what)
    assert time.monotonic() - begun < 20
    _, alive = psutil.wait_procs(before, timeout=10)
    assert not alive
    assert asked(supervisor, 10.0) == [[20.0]]
    assert len(psutil.Process().children(recursive=True)) == len(own_children()) == 1, "no zombies"


def test_one_that_was_killed_meanwhile_is_replaced_without_an_error(
    supervised: Callable[..., Supervisor],
) -> None:
    supervisor = supervised()
    supervisor.start()
    own_children()[0].kill()
    time.sleep(0.2)
    assert asked(supervisor, 10.0) == [[20.0]]


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        ("raise OSError('no weights')", r"cannot be loaded: OSError: no weights"),
        ("import os; print('last words', flush=True); os._exit(9)", r"status 9(?s:.*)last words"),
        ("import time; time.sleep(600)", r"not loaded within 2 s"),
    ],
    ids=["raises", "ends", "hangs"],
)
def test_one_that_cannot_be_loaded_says_why_in_time(
    supervised: Callable[..., Supervisor], load: str, reason: str
) -> None:
    supervisor = supervised(load, load=2.0)
    with pytest.raises(ModelDiedError, match=reason):
        supervisor.start()
    assert own_children() == []
    with pytest.raises(ModelDiedError, match="started again in a moment"):
        asked(supervisor, 10.0)
    assert own_children() == [], "it is not tried again at once"


def test_the_process_does_not_outlive_a_parent_that_was_killed(
    supervised: Callable[..., Supervisor], tmp_path: Path
) -> None:
    supervised()
    code = f"""
import numpy as np, sys
sys.path.insert(0, {str(Path(pipeline.__file__).parents[1])!r})
from pathlib import Path
from pipeline.runner.supervisor import *
here = Path({str(tmp_path)!r})
s = Supervisor(python=interpreter_of({PYTHON!r}), code=Path(sys.path[0]),
    package="pipeline.runner", packages=here / "packages", model=here / "model", scratch=here,
    load_seconds=30.0, request_seconds=600.0)
s.start()
print(s._process.pid, flush=True)
s.ask({{"x": np.array([[6.0]])}}, {{"form": "array"}})
"""
    parent = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    deadline = time.monotonic() + 20
    while not child.children() and time.monotonic() < deadline:
        time.sleep(0.02)
    family = [child, *child.children(recursive=True)]
    assert len(family) == 2, "the model has started one of its own"
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


def test_the_model_sees_neither_our_variables_nor_our_packages(
    supervised: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", str(Path(np.__file__).parents[1]))
    supervisor = supervised(
        "import os, sys\n"
        "assert not [n for n in os.environ if n.startswith(('AWS', 'PYTHON'))], os.environ\n"
        "try:\n    import onnxruntime\nexcept ImportError: pass\nelse: raise OSError('ours')\n"
    )
    supervisor.start()
    assert asked(supervisor, 10.0) == [[20.0]]
