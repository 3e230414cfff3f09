"""``tritonpipe stack``: the embedded servers."""

from __future__ import annotations

import click


@click.group()
def stack() -> None:
    """Real MLflow, S3 and Triton servers on loopback, without Docker."""
