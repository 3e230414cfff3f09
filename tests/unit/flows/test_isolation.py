"""What a process can still reach on each level, tried out in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.flows.isolation import _LEVELS, NOT_AS_TRIED, Entered, Level

BEGINNING = """
import errno, json, os, signal, socket, sys
from pathlib import Path
from pipeline.errors import TritonpipeError
from pipeline.flows import isolation, namespaces
from pipeline.flows.isolation import Mode
here, wanted, way = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
isolation._HIDDEN = (here / "home",)
isolation._LEVELS = (*isolation._LEVELS[wanted:-1], isolation._LEVELS[-1])
parent = os.getpid()

def attempt(action):
    try:
        return action() or "done"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))

def enter(mode=Mode.AUTO, parent=None):
    os.chdir(here / "own")
    known = isolation.tried() if way == "known" else None
    return isolation.enter(mode, parent=parent or os.getppid(), writable=[here / "own"],
                           readable=[here / "home" / "model"], known=known)

def tell(**told):
    print(json.dumps(told), flush=True)
"""
LEVELS = list(range(len(_LEVELS) - 1))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "home" / "model").mkdir(parents=True)
    (tmp_path / "home" / "credentials").write_text("secret")
    (tmp_path / "home" / "model" / "weights").write_text("1")
    (tmp_path / "own").mkdir()
    (tmp_path / "others").mkdir()
    return tmp_path


@pytest.fixture(params=["tried", "known"])
def way(request: pytest.FixtureRequest) -> str:
    """Whether a process tries what the kernel allows, or is a fork of one that has."""
    return str(request.param)


@pytest.fixture
def run(here: Path, way: str) -> Callable[..., Any]:
    """Run a script that may enter isolation; gives what it told, or how it ended."""

    def run(script: str, level: int = 0) -> Any:
        command = [sys.executable, "-P", "-c", BEGINNING + script, str(here), str(level), way]
        environment = {**os.environ, "SECRET": "that of the parent"}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert not done.stderr, done.stderr
        if not done.stdout:
            return done.returncode
        found = json.loads(done.stdout)
        entered = found.pop("missing", None)
        if entered is not None and entered != _LEVELS[level].missing:
            pytest.skip(f"this kernel does not allow {_LEVELS[level]}")
        return found

    return run


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_takes_away_what_it_says(run: Callable[..., Any], level: int) -> None:
    found = run(
        """
level = enter().level
def connect():
    with socket.socket() as client:
        client.settimeout(5)
        client.connect(("127.0.0.1", 9))
tell(missing=level.missing,
     network=attempt(connect),
     others=attempt(lambda: (here / "others" / "file").write_text("x")),
     credentials=attempt(lambda: (here / "home" / "credentials").read_text()),
     model=attempt(lambda: (here / "home" / "model" / "weights").read_text()),
     change=attempt(lambda: (here / "home" / "model" / "weights").write_text("2")),
     own=attempt(lambda: Path("file").write_text("x")),
     processes=sorted(int(e.name) for e in Path("/proc").iterdir() if e.name.isdigit())[:3],
     user=os.getuid(),
     rights=[line.split()[1] for line in Path("/proc/self/status").read_text().splitlines()
             if line.startswith(("CapPrm", "CapEff", "CapBnd"))],
)
""",
        level,
    )
    wished = _LEVELS[level]
    assert found["network"] == ("ENETUNREACH" if wished.network else "ECONNREFUSED")
    assert found["others"] == ("EROFS" if wished.files else 1)
    assert found["credentials"] == ("ENOENT" if wished.files else "secret")
    assert found["change"] == ("EROFS" if wished.files else 1)
    assert found["processes"] == ([1, 2] if wished.processes else found["processes"])
    assert (found["own"], found["model"], found["user"]) == (1, "1", os.getuid())
    assert set(found["rights"][:2]) == {"0000000000000000"}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("is_root", [True, False], ids=["root", "user"])
def test_the_environment_of_the_parent_is_not_seen(
    run: Callable[..., Any], level: int, is_root: bool
) -> None:
    if os.getuid() != 0 and is_root:
        pytest.skip("needs root")
    found = run(
        f"""
import shutil, tempfile
from pipeline.flows.unreadable import unreadable
if not {is_root} and os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    namespaces.set_dumpable(True)  # changing the user had switched it off
    here = Path(tempfile.mkdtemp(dir="/tmp"))  # nobody but root enters those of the tests
    (here / "own").mkdir()
    (here / "home" / "model").mkdir(parents=True)
    isolation._HIDDEN = (here / "home",)
def read():
    return Path(f"/proc/{{parent}}/environ").read_text()
if os.fork() == 0:
    bare = attempt(read)
    os._exit(0 if "SECRET" in bare else 1)
assert os.wait()[1] == 0, "the test would prove nothing"
with unreadable():
    child = os.fork()
    if child == 0:
        namespaces.set_dumpable(True)  # as it is in a program that has just been started
        missing = enter(parent=parent).level.missing
        tell(missing=missing, seen=attempt(read))
        os._exit(0)
    os.waitpid(child, 0)
assert "SECRET" in attempt(read)
assert namespaces.is_dumpable()
if here != Path(sys.argv[1]):
    shutil.rmtree(here)
""",
        level,
    )
    assert found["seen"] in ("EACCES", "ENOENT")


@pytest.mark.parametrize("level", [*LEVELS, len(LEVELS)])
@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("os._exit(7)", 7),
        ("pass", 0),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("signal.raise_signal(signal.SIGXCPU)", -signal.SIGXCPU),
    ],
)
def test_the_guard_ends_as_the_process_ended(
    run: Callable[..., Any], level: int, ending: str, status: int
) -> None:
    assert run(f"enter()\n{ending}", level) == status


REFUSED = """
real = namespaces.unshare
def unshare(flags):  # in a namespace where no further ones are allowed: the kernel itself says no
    real(flags)
namespaces.unshare(namespaces.NEW_USER)
Path("/proc/sys/user/max_user_namespaces").write_text("0")
"""


def test_in_a_container_that_masks_parts_of_proc_everything_else_is_taken_away(
    run: Callable[..., Any],
) -> None:
    """Docker does so; a ``/proc`` of one's own would show what is masked, so there is none."""
    found = run(
        """
namespaces.unshare(namespaces.NEW_USER | namespaces.NEW_MOUNTS)
namespaces._mount("none", "/", "", namespaces._RECURSIVE | namespaces._PRIVATE)
namespaces._mount("tmpfs", "/proc/sys", "tmpfs", 0)
entered = enter()
tell(network=entered.level.network, files=entered.level.files, told=entered.told,
     processes=entered.level.processes, reason=entered.reason)
"""
    )
    assert found == {
        "network": True,
        "files": True,
        "processes": False,
        "told": "",
        "reason": "mount /proc: Operation not permitted",
    }


def test_an_installation_that_would_be_hidden_is_not_broken(
    run: Callable[..., Any], way: str
) -> None:
    """Installers can link files to a cache in the user's home instead of copying them."""
    found = run(
        """
package = here / "home" / "model" / "package"
package.mkdir()
(here / "home" / "cached.py").write_text("")
(package / "__init__.py").symlink_to(here / "home" / "cached.py")
entered = enter()
tell(network=entered.level.network, told=entered.told, seen=(package / "__init__.py").exists())
"""
    )
    if way == "known":  # too late for a fork: a fresh interpreter has to try
        assert found == NOT_AS_TRIED
        return
    assert (found["network"], found["seen"]) == (True, True)
    assert "within reach of the files of this user" in found["told"]
    assert "package/__init__.py leads to what is hidden" in found["told"]


@pytest.mark.parametrize("way", ["tried"], indirect=True)
@pytest.mark.parametrize("mode", ["AUTO", "REQUIRE"])
def test_what_was_refused_to_another_process_once_is_tried_again(
    run: Callable[..., Any], mode: str
) -> None:
    """The reason may have been that of a moment: a full disk, too many open files."""
    found = run(
        f"""
known = isolation.Entered(level=isolation.Level(), reason="no space left on device")
os.chdir(here / "own")
entered = isolation.enter(Mode.{mode}, parent=os.getppid(), writable=[here / "own"],
                          readable=[here / "home" / "model"], known=known)
tell(missing=entered.level.missing, told=entered.told, files=entered.level.files,
     others=attempt(lambda: (here / "others" / "file").write_text("x")))
"""
    )
    assert found == {"told": "", "files": True, "others": "EROFS"}


def test_a_kernel_that_refuses_is_told_about(run: Callable[..., Any]) -> None:
    found = run(
        REFUSED
        + """
entered = enter()
tell(told=entered.told, network=entered.level.network)
"""
    )
    assert found["network"] is False
    assert found["told"] == (
        "the model's code runs within reach of the network and the files of this user: "
        "unshare: user.max_user_namespaces"
    )


def test_what_is_required_and_refused_is_an_error_that_says_what_to_do(
    run: Callable[..., Any],
) -> None:
    found = run(
        REFUSED
        + """
try:
    enter(Mode.REQUIRE)
except TritonpipeError as error:
    tell(kind=type(error).__name__, message=error.message, hint=error.hint)
"""
    )
    assert found["kind"] == "SettingsError"
    assert "TRITONPIPE_ISOLATION is require" in found["message"]
    assert "the network" in found["message"]
    assert "allow user namespaces" in found["hint"]


def test_what_is_switched_off_is_not_complained_about(run: Callable[..., Any]) -> None:
    found = run("entered = enter(Mode.OFF)\ntell(told=entered.told, net=entered.level.network)")
    assert found == {"told": "", "net": False}


def test_a_parent_that_is_gone_already_is_noticed(run: Callable[..., Any]) -> None:
    assert run("isolation._LEVELS = isolation._LEVELS[-1:]\ntry: enter(parent=1)\n"
               "except SystemExit: os._exit(9)") == 9  # fmt: skip


def test_a_strong_level_misses_nothing() -> None:
    assert Entered(level=_LEVELS[0], reason="anything").told == ""
    assert Level().missing == "the network and the files of this user"
