"""Uploads of a folder, ours beside rclone, the AWS command line and boto3's own transfers.

One embedded S3 server (``rclone serve s3``), three jobs: one file of 1 GiB, 1,000 files of 100 KiB,
and the same 1,000 again with nothing changed. Whole processes are measured, from start to exit. The
contenders take turns in every round, and ratios are taken within a round, because machines are
noisy. Prints a Markdown table, and how many requests an unchanged folder costs us.

    python benchmarks/sync.py [--rounds 3] [--folder /dev/shm]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sync_contenders import HERE, Contender, contenders, variables

from pipeline.stack.credentials import s3_key
from pipeline.stack.environment import ensure_server_environment
from pipeline.stack.ports import LOOPBACK
from pipeline.stack.s3_server import BUCKET, launch_s3
from pipeline.stack.state import StateDirectory
from pipeline.testing.s3_proxy import S3Proxy

ONE, MANY, AGAIN = "1 file of 1 GiB", "1,000 files of 100 KiB", "the same, nothing changed"
_PORT = 29200


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one process and its children: wall and processor seconds, largest resident memory."""

    wall: float
    cpu: float
    mebibytes: float


def main() -> None:
    """Make the files, start the server, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where files and objects are kept meanwhile")
    options = parser.parse_args()
    all_contenders = contenders()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        one, many = make_files(Path(folder))
        with s3_server(Path(folder) / "state") as (clients, objects):
            results: dict[tuple[str, str], list[Cost]] = {}
            for number in range(options.rounds):
                first = number % len(all_contenders)  # whoever begins has an emptier cache
                for turn, contender in enumerate(all_contenders[first:] + all_contenders[:first]):
                    # A prefix that was never used: the server remembers what was in a folder.
                    prefix = f"run-{number}-{turn}"
                    for job, source in ((ONE, one), (MANY, many), (AGAIN, many)):
                        target = f"{prefix}/{source.name}"
                        cost = run(contender.command(source, f"s3://{BUCKET}/{target}"), clients)
                        require_same(source, objects / target)
                        results.setdefault((job, contender.name), []).append(cost)
                    shutil.rmtree(objects / prefix)
                print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
            idle = run([sys.executable, str(HERE / "sync_ours.py")], clients)
            print_tables([c.name for c in all_contenders], results, idle)
            print_requests(all_contenders[0], many, clients)


def make_files(folder: Path) -> tuple[Path, Path]:
    """Random bytes, so that nothing is compressed or skipped."""
    one, many = folder / "one", folder / "many"
    one.mkdir()
    many.mkdir()
    with (one / "model.bin").open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(16 << 20))
    for number in range(1000):
        (many / f"{number:04d}.bin").write_bytes(os.urandom(100 << 10))
    return one, many


@contextmanager
def s3_server(folder: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """The embedded stack's S3 server alone; its clients' environment, and its bucket's folder."""
    state = StateDirectory(folder)
    state.create()
    launch = launch_s3(state, ensure_server_environment(), _PORT)
    with subprocess.Popen(
        launch.command,
        env=dict(launch.environment),
        cwd=launch.directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            while not launch.answers():
                time.sleep(0.05)
            key = s3_key(state)
            endpoint = f"http://{LOOPBACK}:{_PORT}"
            clients = variables(endpoint, key.access_key, key.secret_key)
            yield {**os.environ, **clients}, folder / "s3" / BUCKET
        finally:
            server.terminate()


def require_same(source: Path, target: Path) -> None:
    """End the benchmark unless all files have arrived."""
    sizes = [{p.name: p.stat().st_size for p in f.iterdir()} for f in (source, target)]
    if sizes[0] != sizes[1]:
        sys.exit(f"{target} is not what was sent")


def run(command: list[str], environment: dict[str, str]) -> Cost:
    """Run a command to its end; what others left to be written to the disk is not charged to it."""
    os.sync()
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[:3]} failed with {process.returncode}")
    return Cost(wall=wall, cpu=usage.ru_utime + usage.ru_stime, mebibytes=usage.ru_maxrss / 1024)


def print_tables(names: list[str], results: dict[tuple[str, str], list[Cost]], idle: Cost) -> None:
    """Medians over the rounds; the ratio is the median of the ratios within each round."""
    print(f"\n{os.cpu_count()} processors shared by server and clients, medians of rounds\n")
    print("| job | program | seconds | ours / theirs | CPU seconds | peak MiB |")
    print("|---|---|---|---|---|---|")
    for job in (ONE, MANY, AGAIN):
        ours = results[job, names[0]]
        for name in names:
            theirs = results[job, name]
            ratio = statistics.median(o.wall / t.wall for o, t in zip(ours, theirs, strict=True))
            wall = statistics.median(c.wall for c in theirs)
            cpu = statistics.median(c.cpu for c in theirs)
            memory = max(c.mebibytes for c in theirs)
            print(f"| {job} | {name} | {wall:.2f} | {ratio:.2f} | {cpu:.2f} | {memory:.0f} |")
    print(f"\nof which our interpreter and imports: {idle.wall:.2f} s, {idle.mebibytes:.0f} MiB")


def print_requests(ours: Contender, source: Path, environment: dict[str, str]) -> None:
    """Count what a run that finds nothing to do asks the server."""
    target = f"s3://{BUCKET}/{source.name}"
    run(ours.command(source, target), environment)
    with S3Proxy(_PORT, lambda _: None) as proxy:
        run(ours.command(source, target), environment | {"AWS_ENDPOINT_URL": proxy.url})
        print(f"requests for 1,000 unchanged files: {len(proxy.seen)}")


if __name__ == "__main__":
    main()
