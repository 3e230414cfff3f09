"""The ``tritonpipe`` command: a door for people and scripts.

Command modules import nothing heavy at module level, so that ``tritonpipe --help`` is immediate.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType

import click

from pipeline import __version__
from pipeline.cli import errors, models, repository
from pipeline.cli.audit import audit
from pipeline.cli.cache import cache
from pipeline.cli.config import config
from pipeline.cli.copy import copy
from pipeline.cli.demo import demo
from pipeline.cli.inspect import inspect
from pipeline.cli.mirror import mirror
from pipeline.cli.output import PrintableFormatter, say
from pipeline.cli.publish import publish
from pipeline.cli.retire import retire
from pipeline.cli.stack import stack
from pipeline.cli.status import status
from pipeline.cli.store import store
from pipeline.cli.verify import verify, verify_release
from pipeline.cli.watch import watch
from pipeline.cli.webhook import webhook
from pipeline.errors import TritonpipeError
from pipeline.variables import told_unknown


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tritonpipe")
@click.option("--verbose", "-v", is_flag=True, help="Log what is done, on stderr.")
def tritonpipe(verbose: bool) -> None:  # noqa: FBT001  click passes flags as booleans
    """Take a model from an MLflow registry to answers served by NVIDIA Triton.

    \b
    Try it on this machine, with real servers and no Docker:
      tritonpipe demo                    the whole job, from training to rollback under load
      tritonpipe stack up                MLflow, S3 and Triton on loopback
      eval "$(tritonpipe stack env)"     point this shell at them
      tritonpipe watch                   serve whatever an alias points at
      tritonpipe promote iris@champion   or one by hand: export, check, publish, confirm
      tritonpipe status                  wished, published, served
    """
    log = logging.StreamHandler(sys.stderr)
    log.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[log], level=logging.INFO if verbose else logging.WARNING)
    if not verbose:
        # Its retries are told again, in words, by the error at the end.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
    for problem in told_unknown(os.environ):
        say(f"warning: {problem}")


_COMMANDS = (
    demo, stack, mirror, watch, webhook, config, models.promote, publish, models.rollback, retire,
    status, inspect, verify, verify_release, repository.history, audit,
    repository.gc, repository.fsck, store, cache, copy,
)  # fmt: skip
for command in _COMMANDS:
    tritonpipe.add_command(command)


def main() -> None:
    """Run the command line and exit."""
    _interrupt_on_signals()
    code = _run(as_json="--json" in sys.argv)
    # The outcome is told: a signal now would only end the interpreter's own clean-up, loudly.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def _run(*, as_json: bool) -> int:
    try:
        return tritonpipe.main(standalone_mode=False) or 0
    except TritonpipeError as error:
        return errors.report(error, as_json=as_json)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return errors.report_interrupt()


def _interrupt_on_signals() -> None:
    """End on SIGTERM, and when the terminal is closed, as on Ctrl-C, so that clean-up runs."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return  # started with nohup
    terminals = [stream.fileno() for stream in (sys.stdout, sys.stderr) if stream.isatty()]

    def hang_up(_number: int, _frame: FrameType | None) -> None:
        # Both the kernel and the shell send it: the second one must not end the clean-up. Nor may
        # the clean-up's words, which a terminal that is gone would answer with an error.
        signal.signal(signal.SIGHUP, lambda _number, _frame: None)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for terminal in terminals:
            os.dup2(nowhere, terminal)
        raise KeyboardInterrupt

    signal.signal(signal.SIGHUP, hang_up)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
