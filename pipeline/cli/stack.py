"""``tritonpipe stack``: the embedded servers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from pipeline.cli.output import StageLog, emit, json_option, say, table

if TYPE_CHECKING:
    from pipeline.stack import Stack, StackStatus

F = TypeVar("F", bound=Callable[..., Any])

_PARTS: Final = ("s3", "mlflow", "mirror", "triton")
_part_argument = click.argument("part", required=False, type=click.Choice(_PARTS))
_port = click.IntRange(0, 65535)


def _state_dir_option(command: F) -> F:
    return click.option(
        "--state-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where the stack keeps everything. Default: $TRITONPIPE_STATE_DIR, else "
        "$XDG_STATE_HOME/tritonpipe, else ~/.local/state/tritonpipe.",
    )(command)


@click.group()
def stack() -> None:
    """Real MLflow, S3 and Triton on loopback, without Docker.

    \b
    Examples:
      tritonpipe stack up                          install what is missing, start, print addresses
      eval "$(tritonpipe stack env)"               point this shell at them
      tritonpipe stack logs triton -f              watch Triton
      tritonpipe stack down                        stop; data and addresses stay
      tritonpipe stack down --delete               stop and forget everything
      tritonpipe stack up --state-dir /tmp/other   another stack beside the first
    """


@stack.command()
@click.option(
    "--python",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Python 3.11 or 3.12 to install for, remembered by this stack. Default: the one that "
    "runs tritonpipe.",
)
@_state_dir_option
@json_option
def install(python: Path | None, state_dir: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Install the servers, which `up` also does by itself.

    They get an environment of their own, which all stacks of this user share and which is kept in
    $XDG_CACHE_HOME/tritonpipe (1.3 GB). The variable TRITONPIPE_SERVERS names an environment to
    use instead.

    \b
    Examples:
      tritonpipe stack install
      tritonpipe stack install --python /usr/bin/python3.12
    """
    environment = _open(state_dir).install(StageLog(), python=python)
    emit(
        {"path": environment.root, "python_version": environment.python_version},
        as_json=as_json,
        human=lambda: click.echo(str(environment.root)),
    )


@stack.command()
@click.option("--mlflow-port", "mlflow", type=_port, help="At first 5000; 0 for any free one.")
@click.option("--s3-port", "s3", type=_port, help="At first 9000.")
@click.option("--triton-http-port", "triton_http", type=_port, help="At first 8000.")
@click.option("--triton-grpc-port", "triton_grpc", type=_port, help="At first 8001.")
@click.option("--triton-metrics-port", "triton_metrics", type=_port, help="At first 8002.")
@click.option("--mirror-metrics-port", "mirror_metrics", type=_port, help="At first 8003.")
@click.option(
    "--poll-seconds",
    type=click.IntRange(1, 3600),
    help="How often Triton looks for new versions; remembered, at first 1.",
)
@click.option(
    "--mirror",
    "mirroring",
    is_flag=False,
    flag_value="poll",
    type=click.Choice(["off", "poll", "explicit"]),
    help="Let Triton read a mirror, which it polls itself (the default) or which tells it what to "
    "load; remembered, at first off.",
)
@_state_dir_option
@json_option
def up(
    poll_seconds: int | None,
    mirroring: str | None,
    state_dir: Path | None,
    as_json: bool,  # noqa: FBT001
    **ports: int | None,
) -> None:
    """Start what does not run, and return when everything answers.

    Prints addresses, and the variables that point a shell at the servers. A port that is taken
    is replaced by a free one, and a message says so; ports are remembered, so addresses stay the
    same over `down` and `up`. Run again, it starts only what is missing.

    \b
    Examples:
      tritonpipe stack up
      tritonpipe stack up --mlflow-port 5055 --poll-seconds 5
      tritonpipe stack up --mirror      an outage of S3 is no outage of Triton
      eval "$(tritonpipe stack up)"     start and point this shell at the servers
    """
    from pipeline.stack import Mirroring

    opened = _open(state_dir)
    opened.up(
        StageLog(),
        tell=say,
        ports={name: port for name, port in ports.items() if port is not None},
        poll_seconds=poll_seconds,
        mirroring=Mirroring(mirroring) if mirroring else None,
    )
    _print_addresses(opened, as_json=as_json)


@stack.command()
@click.option("--delete", is_flag=True, help="Also delete all data, secrets and addresses.")
@_state_dir_option
def down(delete: bool, state_dir: Path | None) -> None:  # noqa: FBT001
    """Stop all servers; models, objects and addresses stay.

    \b
    Examples:
      tritonpipe stack down
      tritonpipe stack down --delete
    """
    opened = _open(state_dir)
    if not opened.is_running:
        say("nothing is running")
    opened.down(StageLog(), delete=delete)
    if delete:
        say(f"deleted {opened.state_directory}")


@stack.command()
@_part_argument
@_state_dir_option
def restart(part: str | None, state_dir: Path | None) -> None:
    """Stop one server, or all, and start it again on the same address.

    \b
    Examples:
      tritonpipe stack restart triton
      tritonpipe stack restart
    """
    _open(state_dir).restart(part, StageLog(), tell=say)


@stack.command()
@_state_dir_option
@json_option
def status(state_dir: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Show what runs and where, and why a server died.

    \b
    Examples:
      tritonpipe stack status
      tritonpipe stack status --json | jq .is_up
    """
    found = _open(state_dir).status()
    document = {"is_up": found.is_up, "parts": found.parts}
    emit(document, as_json=as_json, human=lambda: _print_status(found))


@stack.command()
@_part_argument
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--lines", "-n", type=click.IntRange(0), default=50, show_default=True)
@_state_dir_option
def logs(part: str | None, follow: bool, lines: int, state_dir: Path | None) -> None:  # noqa: FBT001
    """Print the end of the logs, of one server or of all.

    A log is about one run of a server; the one before is beside it, ending in .previous.

    \b
    Examples:
      tritonpipe stack logs triton -n 200
      tritonpipe stack logs -f
    """
    from pipeline.stack import logs as stack_logs

    files = _open(state_dir).logs(part)
    for name, file in files.items():
        for line in stack_logs.tail(file, lines):
            _print_log_line(part, name, line)
    if follow:
        for name, line in stack_logs.follow(files):
            _print_log_line(part, name, line)


@stack.command()
@_state_dir_option
@json_option
def env(state_dir: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Print the variables that point a shell at the servers.

    \b
    Examples:
      eval "$(tritonpipe stack env)"
      tritonpipe stack env --json | jq -r .MLFLOW_TRACKING_URI
    """
    from pipeline.stack.shell import shell_lines, without_proxy

    opened = _open(state_dir)
    variables = opened.environment_variables() | without_proxy(os.environ)
    if not opened.status().is_up:
        say("not everything runs: tritonpipe stack up")
    lines = "\n".join(shell_lines(variables))
    emit(variables, as_json=as_json, human=lambda: click.echo(lines))


def _open(state_dir: Path | None) -> Stack:
    from pipeline.stack import Stack

    return Stack(state_dir)


def _print_addresses(opened: Stack, *, as_json: bool) -> None:
    from pipeline.stack.shell import shell_lines, without_proxy

    where = opened.addresses()
    variables = opened.environment_variables() | without_proxy(os.environ)

    def human() -> None:
        click.echo(f"# MLflow  {where.mlflow}")
        click.echo(f"# S3      {where.s3}   {where.repository}")
        click.echo(
            f"# Triton  {where.triton_http}   gRPC {where.triton_grpc}   "
            f"metrics {where.triton_metrics}"
        )
        click.echo("\n".join(shell_lines(variables)))

    emit({"addresses": where, "environment": variables}, as_json=as_json, human=human)


def _print_status(found: StackStatus) -> None:
    table(
        ("part", "state", "address", "pid", "up", "memory"),
        [
            (
                part.title,
                part.state,
                part.address,
                part.pid,
                "" if part.seconds is None else _duration(part.seconds),
                "" if part.memory_bytes is None else f"{part.memory_bytes / 1e6:.0f} MB",
            )
            for part in found.parts
        ],
    )
    for part in found.parts:
        if part.problem:
            say(part.problem)


def _print_log_line(chosen: str | None, name: str, line: str) -> None:
    click.echo(line if chosen else f"{name:<6} | {line}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
