"""``tritonpipe mirror``: follow a model repository into a local folder."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.output import dry_run_option, emit, json_option, say, table

if TYPE_CHECKING:
    from pipeline.mirror.follow import Follower
    from pipeline.mirror.preview import Step
    from pipeline.mirror.run import MirrorOptions
    from pipeline.mirror.status import MirrorStatus
    from pipeline.stores import Store

_MEBIBYTE = 1 << 20


@click.command()
@click.argument("url")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--once", is_flag=True, help="Take over what is published now, and end.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1),
    default=5.0,
    show_default=True,
    help="Seconds between two listings: the only requests while nothing changes.",
)
@click.option("--verify", is_flag=True, help="Read every local byte at the start, not only sizes.")
@click.option(
    "--public-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Refuse versions that this key has not signed.",
)
@click.option(
    "--grace-seconds",
    type=click.FloatRange(0),
    default=600.0,
    show_default=True,
    help="Keep versions so long that are neither served nor the one before.",
)
@click.option(
    "--reserve-mib",
    type=click.IntRange(0),
    default=256,
    show_default=True,
    help="Space on the disk that downloads must leave free.",
)
@click.option(
    "--control",
    type=click.Choice(["poll", "explicit"]),
    default="poll",
    show_default=True,
    help="Triton looks for changes itself, or is told of them by the mirror.",
)
@click.option("--triton", help="HOST:PORT of the gRPC interface of this mirror's own Triton.")
@click.option(
    "--admin-key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Holds NAME=VALUE, as in Triton's --grpc-restricted-protocol=model-repository:NAME=VALUE.",
)
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Serve Prometheus metrics.")
@click.option("--metrics-address", default="127.0.0.1", show_default=True, help="And where.")
@dry_run_option
@json_option
def mirror(
    url: str,
    directory: Path,
    once: bool,  # noqa: FBT001
    interval: float,
    verify: bool,  # noqa: FBT001
    public_key: Path | None,
    grace_seconds: float,
    reserve_mib: int,
    control: str,
    triton: str | None,
    admin_key_file: Path | None,
    metrics_port: int | None,
    metrics_address: str,
    dry_run: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """Keep a verified local copy of a repository for Triton.

    Triton unloads every model when one listing of S3 fails. A mirror changes its folder only when
    the next state is there completely and verified against the manifests: whatever S3 does, what
    is served stays. It can be killed at any moment, and starts from its folder when S3 is down.
    Point Triton at DIRECTORY/repository, never at DIRECTORY itself.

    With --control explicit the mirror has a Triton of its own load what changed, at once and each
    model by itself. That Triton serves what is mirrored and nothing else.

    With --json it prints its status as one line whenever something has changed.

    \b
    Examples:
      tritonpipe mirror s3://models/repository /models
      tritonpipe mirror s3://models/repository /models --once --json
      tritonpipe mirror s3://models/repository /models --public-key key.pub --metrics-port 8003
      tritonpipe mirror s3://models/repository /models --control explicit \\
        --triton 127.0.0.1:8001 --admin-key-file /run/secrets/triton-admin
    """
    from pipeline.mirror.advance import Rules
    from pipeline.mirror.run import MirrorOptions
    from pipeline.stores import open_store

    if control == "explicit" and (triton is None or once):
        raise click.UsageError("--control explicit needs --triton, and goes on until it is stopped")
    if control == "poll" and (triton or admin_key_file):
        raise click.UsageError("--triton and --admin-key-file are for --control explicit")
    store = open_store(url)
    options = MirrorOptions(
        directory=directory,
        public_key=public_key,
        read_digests=verify,
        rules=Rules(grace_seconds=grace_seconds, reserve_bytes=reserve_mib * _MEBIBYTE),
    )
    if dry_run:
        _preview(store, options, as_json=as_json)
    elif once:
        _once(store, options, as_json=as_json)
    else:
        driven = Driven(address=triton, key_file=admin_key_file) if triton else None
        metrics = (metrics_port, metrics_address) if metrics_port else None
        _follow(store, options, interval, driven, metrics, as_json=as_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """The Triton that is told what to load."""

    address: str
    key_file: Path | None


def _preview(store: Store, options: MirrorOptions, *, as_json: bool) -> None:
    from pipeline.mirror.preview import preview
    from pipeline.mirror.seal import KeySeal

    seal_name = KeySeal(options.public_key).name if options.public_key else ""
    steps = preview(store, options.directory, seal_name=seal_name)
    emit({"steps": steps}, as_json=as_json, human=lambda: _print_steps(steps))


def _once(store: Store, options: MirrorOptions, *, as_json: bool) -> None:
    from pipeline.mirror.run import open_mirror, require_current

    with open_mirror(store, options, say) as follower:
        _print_flags(follower)
        follower.look()
        follower.settle()
        status = follower.status()
    if status.is_current or not as_json:  # one document, of the status or of the error
        emit(status, as_json=as_json, human=lambda: _print_status(status))
    require_current(status)


def _follow(
    store: Store,
    options: MirrorOptions,
    interval: float,
    driven: Driven | None,
    metrics: tuple[int, str] | None,
    *,
    as_json: bool,
) -> None:
    from pipeline.mirror.run import follow, open_mirror

    stop, wake = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    with open_mirror(store, options, _say_when, wake.set) as follower:
        _print_flags(follower, driven)
        status = _drive(follower, driven, wake, stop) if driven else follower.status
        if metrics is not None:
            from pipeline.mirror.metrics import serve_metrics

            serve_metrics(*metrics, status)
        # In a thread of its own: a store that hangs must not hold up the end.
        _in_background(partial(follow, follower, interval=interval, stop=stop))
        _report_until(stop, status, as_json=as_json)
        say("stopped; what was in place stays")
        # A download may still run and nothing waits for it: a mirror can be killed at any moment.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _drive(
    follower: Follower, driven: Driven, wake: threading.Event, stop: threading.Event
) -> Callable[[], MirrorStatus]:
    """Have Triton load what the mirror holds; gives the status of both."""
    from pipeline.mirror.admin import TritonAdmin, admin_key_from_file
    from pipeline.mirror.control import Controller, control

    key = admin_key_from_file(driven.key_file) if driven.key_file else None
    controller = Controller(TritonAdmin(driven.address, key), follower.records, _say_when)
    _in_background(partial(control, controller, interval=1.0, wake=wake, stop=stop))
    return lambda: controller.described(follower.status())


def _report_until(
    stop: threading.Event, status: Callable[[], MirrorStatus], *, as_json: bool
) -> None:
    from pipeline.serialization import to_json

    last = None
    while not stop.wait(0.5):
        found = status()
        told = (found.models, found.problem)
        if as_json and told != last:
            click.echo(json.dumps(to_json(found)))
        last = told


def _in_background(job: Callable[[], None]) -> None:
    threading.Thread(target=job, daemon=True).start()


def _print_flags(follower: Follower, driven: Driven | None = None) -> None:
    from pipeline.mirror.triton_flags import explicit_flags, polling_flags

    repository = str(follower.repository)
    if driven is None:
        flags = shlex.join(polling_flags(repository))
    else:
        flags = shlex.join(explicit_flags(repository, "KEY" if driven.key_file else ""))
        # The shell puts the key in: it is not printed.
        flags = flags.replace(":KEY", f':"$(cat {shlex.quote(str(driven.key_file))})"')
    say(f"start Triton with: {flags}")
    if shlex.quote(repository) != repository:
        say("warning: Triton's Python backend hangs on such a path; give Triton a relative one")


def _say_when(text: str) -> None:
    say(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {text}")


def _print_status(status: MirrorStatus) -> None:
    rows = [
        [model.name, _numbers(model.serving), _numbers(model.versions), model.reason or "current"]
        for model in status.models
    ]
    table(["model", "serving", "in place", "state"], rows)


def _print_steps(steps: tuple[Step, ...]) -> None:
    rows = [
        [s.model, s.action, _numbers(s.serving), _numbers(s.named), s.size, s.problem]
        for s in steps
    ]
    table(["model", "action", "serving", "then", "bytes", "problem"], rows)


def _numbers(versions: tuple[int, ...]) -> str:
    return ", ".join(map(str, versions)) or "-"
