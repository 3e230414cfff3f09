"""``tritonpipe demo``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.output import StageLog, emit, json_option, say, table
from pipeline.errors import ConfirmationError

if TYPE_CHECKING:
    from pipeline.demo.run import DemoResult


@click.command()
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="State of the stack; default as for: tritonpipe stack up.",
)
@click.option("--keep", is_flag=True, help="Leave the servers running afterwards.")
@json_option
def demo(state_dir: Path | None, keep: bool, as_json: bool) -> None:  # noqa: FBT001
    """Show the whole job on real servers, training to rollback.

    Starts MLflow, S3 and Triton on loopback (see: tritonpipe stack), trains a scikit-learn pipeline
    and a PyTorch network, promotes both, promotes a second version and rolls it back while clients
    send requests. Fails if any client sees an error or a wrong answer.

    \b
    Examples:
      tritonpipe demo
      tritonpipe demo --keep     leave the servers running, to look around
    """
    from pipeline.demo.run import require_packages, run_demo
    from pipeline.stack import Stack

    require_packages()
    stack = Stack(state_dir)
    was_running = stack.is_running
    progress = StageLog()
    try:
        stack.up(progress)
        result = run_demo(stack.environment_variables(), progress)
    finally:
        if not (keep or was_running):
            stack.down(progress)
    if result.ok or not as_json:  # otherwise the error is the one document
        emit(result, as_json=as_json, human=lambda: _print(result))
    if not result.ok:
        errors = "; ".join(result.requests.errors)
        raise ConfirmationError(
            f"{result.requests.failed} requests failed and {result.requests.wrong} answers were "
            f"wrong of {result.requests.sent}" + (f": {errors}" if errors else "")
        )
    _say_what_next(
        stack.environment_variables(), state_dir=state_dir, is_running=keep or was_running
    )


def _print(result: DemoResult) -> None:
    stages = list(dict.fromkeys(s for p in result.promotions for s in p.seconds))
    rows = []
    for promotion in result.promotions:
        parity = "-" if promotion.report is None else f"{promotion.report.max_absolute_error:.1e}"
        cells = [f"{promotion.seconds[s]:.2f}" if s in promotion.seconds else "-" for s in stages]
        rows.append([f"{promotion.triton_name}/{promotion.confirmation.version}", parity, *cells])
    table(["promoted", "parity", *stages], rows, title="\nPromotions (stages in seconds)")
    requests = result.requests
    table(
        ["requests", "failed", "wrong", "answers by version", "longest gap"],
        [
            [
                requests.sent,
                requests.failed,
                requests.wrong,
                ", ".join(f"version {v}: {n}" for v, n in requests.versions.items()),
                f"{requests.longest_gap_seconds * 1000:.0f} ms",
            ]
        ],
        title="\nClients during the second promotion and its rollback",
    )
    click.echo(f"\nThe whole story took {result.seconds:.0f} s with the servers up.")


def _say_what_next(
    environment: dict[str, str], *, state_dir: Path | None, is_running: bool
) -> None:
    where = "" if state_dir is None else f" --state-dir {shlex.quote(str(state_dir))}"
    if not is_running:
        make = f"make demo DEMO_OPTIONS={shlex.quote(f'--keep{where}')}"
        say(
            "\nTo look around with the servers running:\n"
            f"  tritonpipe demo --keep{where}   (or: {make})"
        )
        return
    say(
        "\nThe servers are still running:\n"
        f"  MLflow UI   {environment['MLFLOW_TRACKING_URI']}  (tags and report of each version)\n"
        f"  Triton      http://{environment['TRITONPIPE_TRITON_HTTP']}/v2/models/demo-churn\n"
        f'  this shell  eval "$(tritonpipe stack env{where})", then: tritonpipe status\n'
        f"  stop        tritonpipe stack down{where}"
    )
