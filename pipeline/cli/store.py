"""``tritonpipe store check``: what an object store can be relied on for."""

from __future__ import annotations

from dataclasses import dataclass

import click

from pipeline.cli.output import emit, json_option, table
from pipeline.stores import Conditions


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """What was found out.

    Attributes:
        url: Where it was tried.
        endpoint: The server; empty for Amazon S3 or a local directory.
        conditions: What it was seen to honour.
        lock: What TRITONPIPE_LOCK says; empty if it is not set.
        is_safe: Whether two publishers at once cannot mix their releases.
    """

    url: str
    endpoint: str
    conditions: Conditions
    lock: str
    is_safe: bool


@click.group()
def store() -> None:
    """Examine the object store that holds the model repository."""


@store.command()
@click.argument("url", required=False)
@json_option
def check(url: str | None, as_json: bool) -> None:  # noqa: FBT001
    """Find out whether a store honours conditional writes; several publishers rely on them.

    URL is s3://BUCKET/PREFIX or a directory; by default where the records of TRITONPIPE_REPOSITORY
    are. A few small objects are written below URL/.probe-…/ and removed again: do not name a
    prefix that Triton polls.

    \b
    Examples:
      tritonpipe store check
      tritonpipe store check s3://models/scratch --json
    """
    report = _examine(url)
    emit(report, as_json=as_json, human=lambda: _print(report))


def _examine(url: str | None) -> StoreReport:
    import os

    from pipeline.configuration import effective_settings
    from pipeline.errors import RequestError
    from pipeline.flows.repository import records_url
    from pipeline.stores import open_store
    from pipeline.stores.probe import probe_conditions

    settings = effective_settings()
    repository = settings.repository.rstrip("/")
    if url and repository and f"{url.rstrip('/')}/".startswith(f"{repository}/"):
        raise RequestError(
            f"{url} is inside the model repository, where Triton would load what is tried",
            hint="name no URL, to try it where the records are",
        )
    target = open_store(url or records_url(settings))
    conditions = probe_conditions(target)
    is_remote = target.url.startswith("s3://")
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    endpoint = next((os.environ[name] for name in names if os.environ.get(name)), "")
    return StoreReport(
        url=target.url,
        endpoint=endpoint if is_remote else "",
        conditions=conditions,
        lock=settings.lock,
        is_safe=conditions.suffice or bool(settings.lock),
    )


def _print(report: StoreReport) -> None:
    seen = report.conditions
    if seen.suffice:
        verdict = "the store itself refuses the second one"
    elif report.lock:
        verdict = "while all of them use this TRITONPIPE_LOCK; the store would let them mix"
    else:
        verdict = "set TRITONPIPE_LOCK, or have one publisher only"
    table(
        ["what", "seen", "meaning"],
        [
            ["put if absent", _word(seen.create), "an object that exists is not overwritten"],
            ["put if match", _word(seen.replace), "a change that was not seen is not overwritten"],
            ["one winner", _word(seen.atomic), "the same of writers at the same moment"],
            ["two publishers at once", "safe" if report.is_safe else "NOT safe", verdict],
        ],
        title=f"{report.url} at {report.endpoint}" if report.endpoint else report.url,
    )


def _word(honoured: bool) -> str:  # noqa: FBT001
    return "honoured" if honoured else "IGNORED"
