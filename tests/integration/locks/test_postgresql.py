"""Advisory locks of a real PostgreSQL server, between real processes that are really killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConflictError, SettingsError, UnavailableError
from pipeline.locks import postgresql_session
from pipeline.locks.postgresql import PostgresqlLocks

psycopg = pytest.importorskip("psycopg", reason="the extra postgresql is not installed")
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
pytestmark = pytest.mark.skipif(not PROGRAMS, reason="PostgreSQL (Debian: postgresql) is absent")

REPOSITORY = "s3://models/repository"
HOLDER = """
import sys, time
from pipeline.locks.postgresql import PostgresqlLocks
url, model, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
with PostgresqlLocks(url, repository="s3://models/repository").hold(
    model, seconds=seconds, tell=lambda text: print(text, flush=True)
):
    print("held", flush=True)
    time.sleep(60)
"""
COUNTER = """
import sys, time
from pathlib import Path
from pipeline.locks.postgresql import PostgresqlLocks
url, path = sys.argv[1], Path(sys.argv[2])
locks = PostgresqlLocks(url, repository="s3://models/repository")
for _ in range(5):
    with locks.hold("counted", seconds=60, tell=lambda text: None) as held:
        count = int(path.read_text())
        time.sleep(0.02)
        held.require_held()
        path.write_text(str(count + 1))
"""


@dataclass(frozen=True, kw_only=True)
class Server:
    url: str

    def ask(self, query: str) -> list[Any]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    def sessions(self, of: int) -> list[int]:
        """Processes of the server that serve a process of ours."""
        name = f"tritonpipe %, process {of}"
        query = f"SELECT pid FROM pg_stat_activity WHERE application_name LIKE '{name}'"
        return [row[0] for row in self.ask(query)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of our own, which refuses to run as root."""
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="tritonpipe-postgresql-"))
    programs = PROGRAMS[-1].parent
    try:
        (folder / "password").write_text("s3cr3t")
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, "nobody")
        initialise: list[str | Path] = [
            programs / "initdb",
            "--pgdata",
            folder / "data",
            "--username",
            "tester",
        ]
        initialise += ["--auth=scram-sha-256", f"--pwfile={folder}/password", "--no-sync"]
        subprocess.run(initialise, check=True, capture_output=True, cwd=folder, **user)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        start: list[str | Path] = [programs / "postgres", "-D", folder / "data", "-k", folder, "-F"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*start, "-h", "127.0.0.1", "-p", str(port)],
                stdout=log,
                stderr=log,
                cwd=folder,
                **user,
            )
        server = Server(url=f"postgresql://tester:s3cr3t@127.0.0.1:{port}/postgres")
        try:
            await_true(lambda: answers(server))
            yield server
        finally:
            process.send_signal(signal.SIGINT)  # ends sessions, too
            process.wait(30)
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def locks(server: Server) -> PostgresqlLocks:
    return PostgresqlLocks(server.url, repository=REPOSITORY)


def test_publishers_in_several_processes_never_work_at_the_same_time(
    server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    counters = [
        subprocess.Popen([sys.executable, "-P", "-c", COUNTER, server.url, str(path)])
        for _ in range(4)
    ]
    assert [counter.wait(60) for counter in counters] == [0] * 4
    assert path.read_text() == "20"


def test_who_waits_is_told_for_whom_and_gives_up_in_time(
    server: Server, locks: PostgresqlLocks
) -> None:
    told: list[str] = []
    with holder(server, "fraud") as process:
        started = time.monotonic()
        with (
            pytest.raises(ConflictError) as caught,
            locks.hold("fraud", seconds=1, tell=told.append),
        ):
            pytest.fail("held by two")
        assert 1 <= time.monotonic() - started < 5
    name = f"process {process.pid}"
    assert name in caught.value.message
    assert len(told) == 1
    assert name in told[0]


def test_who_waits_gets_it_when_the_holder_is_killed(
    server: Server, locks: PostgresqlLocks
) -> None:
    with holder(server, "fraud") as process:
        process.kill()
        started = time.monotonic()
        with locks.hold("fraud", seconds=30, tell=print) as held:
            held.require_held()
        assert time.monotonic() - started < 5


def test_a_lock_that_is_given_back_is_free_at_once(locks: PostgresqlLocks) -> None:
    for _ in range(20):
        with locks.hold("fraud", seconds=0, tell=print) as held:
            held.require_held()
    with pytest.raises(ZeroDivisionError), locks.hold("fraud", seconds=0, tell=print):
        raise ZeroDivisionError
    with locks.hold("fraud", seconds=0, tell=print):
        pass


def test_other_models_and_other_repositories_do_not_wait(
    server: Server, locks: PostgresqlLocks
) -> None:
    elsewhere = PostgresqlLocks(server.url, repository="s3://models/another")
    with (
        locks.hold("fraud", seconds=0, tell=print) as one,
        locks.hold("fraud-2", seconds=0, tell=print) as two,
        elsewhere.hold("fraud", seconds=0, tell=print) as three,
    ):
        for held in (one, two, three):
            held.require_held()


def test_a_session_that_was_ended_has_lost_its_lock_even_to_another(
    server: Server, locks: PostgresqlLocks
) -> None:
    with locks.hold("fraud", seconds=0, tell=print) as held:
        for session in server.sessions(os.getpid()):
            server.ask(f"SELECT pg_terminate_backend({session})")
        with locks.hold("fraud", seconds=5, tell=print) as other:
            with pytest.raises(ConflictError, match="the lock of fraud was lost"):
                held.require_held()
            other.require_held()


def test_a_session_that_gave_its_lock_away_has_lost_it_even_to_another(
    server: Server, locks: PostgresqlLocks
) -> None:
    with locks.hold("fraud", seconds=0, tell=print) as held:
        held._connection.execute("SELECT pg_advisory_unlock_all()")  # type: ignore[attr-defined]
        with pytest.raises(ConflictError, match="does not hold it"):
            held.require_held()
        with (
            locks.hold("fraud", seconds=0, tell=print),
            pytest.raises(ConflictError, match="does not hold it"),
        ):
            held.require_held()


def test_a_server_that_says_nothing_is_not_waited_for(
    server: Server, locks: PostgresqlLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_session, "_ANSWER_SECONDS", 1.0)
    with locks.hold("fraud", seconds=0, tell=print) as held:
        (session,) = server.sessions(os.getpid())
        os.kill(session, signal.SIGSTOP)
        try:
            started = time.monotonic()
            with pytest.raises(ConflictError, match="was lost"):
                held.require_held()
            assert time.monotonic() - started < 4
        finally:
            os.kill(session, signal.SIGCONT)


def test_ctrl_c_ends_the_waiting(server: Server) -> None:
    with holder(server, "fraud"), waiter(server, "fraud") as waiting:
        waiting.send_signal(signal.SIGINT)
        waiting.wait(30)  # it would wait for a minute for the lock


def test_a_database_that_goes_away_while_waiting_is_unavailable(
    server: Server, locks: PostgresqlLocks
) -> None:
    def end_waiting(_text: str) -> None:
        (session,) = server.sessions(os.getpid())
        server.ask(f"SELECT pg_terminate_backend({session})")

    with (
        holder(server, "fraud"),
        pytest.raises(UnavailableError, match="while waiting for the lock of fraud"),
        locks.hold("fraud", seconds=5, tell=end_waiting),
    ):
        pytest.fail("held by two")


def test_both_sides_probe_a_connection_that_is_silent(server: Server) -> None:
    connection = postgresql_session.connect(server.url)
    try:
        for name, value in (("tcp_keepalives_idle", "10"), ("idle_session_timeout", "0")):
            assert connection.execute(f"SHOW {name}").fetchone() == (value,)
        with socket.socket(fileno=os.dup(connection.fileno())) as line:
            assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5
    finally:
        connection.close()


def test_what_cannot_be_opened_tells_no_password(server: Server) -> None:
    server.ask("CREATE DATABASE standby")
    server.ask("ALTER DATABASE standby SET default_transaction_read_only = on")
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody_there = f"127.0.0.1:{free.getsockname()[1]}"
    here = server.url.split("@")[1].split("/")[0]
    for url, kind in (
        (server.url.replace("s3cr3t", "s3cr3t2"), SettingsError),
        (server.url.replace("/postgres", "/absent"), SettingsError),
        (
            server.url.replace("/postgres", "/standby").replace("postgresql:", "postgres:"),
            UnavailableError,
        ),
        (server.url.replace(here, nobody_there), UnavailableError),
    ):
        with (
            pytest.raises(kind) as caught,
            PostgresqlLocks(url, repository=REPOSITORY).hold("fraud", seconds=0, tell=print),
        ):
            pytest.fail("held by nobody")
        assert "TRITONPIPE_LOCK" in caught.value.message
        assert "s3cr3t" not in f"{caught.value.message} {caught.value.hint}"


@contextmanager
def holder(server: Server, model: str) -> Iterator[subprocess.Popen[str]]:
    with started(server, model, seconds=0) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


@contextmanager
def waiter(server: Server, model: str) -> Iterator[subprocess.Popen[str]]:
    with started(server, model, seconds=60) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("waiting for ")
        yield process


@contextmanager
def started(server: Server, model: str, *, seconds: float) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLDER, server.url, model, str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        await_true(lambda: not server.sessions(process.pid))


def answers(server: Server) -> bool:
    with suppress(psycopg.OperationalError):
        return server.ask("SELECT 1") == [(1,)]
    return False


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
