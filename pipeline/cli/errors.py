"""Turns what was raised into a sentence and an exit code: the only place that catches.

An expected failure is printed as what happened and what to do next, without a traceback. A bug
keeps its traceback. The exit code tells a script how to react.
"""

from __future__ import annotations

import json
import sys
from typing import Final

import click

from pipeline import errors
from pipeline.cli.output import say

EXIT_CODES: Final[dict[type[errors.TritonpipeError], int]] = {
    errors.RequestError: 3,
    errors.SettingsError: 4,
    errors.DependencyError: 5,
    errors.ModelError: 6,
    errors.RefusedError: 7,
    errors.UnavailableError: 8,
    errors.ConflictError: 9,
    errors.ConfirmationError: 10,
    errors.StackError: 11,
}
PROBLEMS_REMAIN: Final = 12
"""A check has found something that needs somebody; the command itself went well."""

INTERRUPTED: Final = 130
"""What a shell reports for a program ended by Ctrl-C (128 + SIGINT)."""


def exit_code(error: errors.TritonpipeError) -> int:
    """The exit code of an expected failure; 1 for one without a reaction of its own."""
    return EXIT_CODES.get(type(error), 1)


def report(error: errors.TritonpipeError, *, as_json: bool) -> int:
    """Print the failure and return the exit code."""
    code = exit_code(error)
    if as_json:
        kind = type(error).__name__
        document = {"kind": kind, "message": error.message, "hint": error.hint, "exit_code": code}
        click.echo(json.dumps({"error": document}, indent=1))
        return code
    say(f"{click.style('error:', fg='red', bold=True)} {error.message}")
    if error.hint:
        say(f"{click.style(' hint:', fg='yellow', bold=True)} {error.hint}")
    return code


def report_interrupt() -> int:
    """Say that the command was interrupted and return the exit code."""
    sys.stderr.write(
        "\ninterrupted: what was not proven yet was undone; what is served is served "
        "(tritonpipe status)\n"
    )
    return INTERRUPTED
