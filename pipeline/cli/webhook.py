"""``tritonpipe webhook install | list | remove``: have MLflow wake a watcher."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.output import emit, json_option, print_line, say, table
from pipeline.cli.secret_file import shared_secret
from pipeline.errors import RequestError, UnavailableError


@click.group()
def webhook() -> None:
    """Have MLflow wake `tritonpipe watch` when an alias is set.

    Without a webhook the watcher looks every --interval seconds; with one, at once. A notification
    that is lost costs that interval and nothing else.
    """


@webhook.command()
@click.argument("url")
@click.option(
    "--secret-file",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Holds the secret shared with MLflow; made, readable by you alone, if it is not there.",
)
@click.option("--test/--no-test", default=True, help="Have MLflow deliver an example now.")
@json_option
def install(url: str, secret_file: Path, test: bool, as_json: bool) -> None:  # noqa: FBT001
    """Make the webhook at URL, or bring it up to date, and try it.

    \b
    Examples:
      tritonpipe watch --listen 127.0.0.1:8090 --webhook-secret-file webhook.secret
      tritonpipe webhook install http://127.0.0.1:8090/webhook --secret-file webhook.secret
    """
    from pipeline.configuration import effective_settings
    from pipeline.registries.mlflow_webhooks import MlflowWebhooks

    webhooks = MlflowWebhooks(effective_settings().required("tracking_uri"))
    made, is_new = webhooks.install(url, shared_secret(secret_file))
    delivery = webhooks.test(made) if test else None
    verb = "made" if is_new else "brought up to date"
    emit(
        {"webhook": made, "is_new": is_new, "delivery": delivery},
        as_json=as_json,
        human=lambda: print_line(f"webhook to {made.url} {verb} at {webhooks.address}"),
    )
    if delivery is not None and not delivery.is_accepted:
        answer = f" with status {delivery.status}" if delivery.status else ""
        raise UnavailableError(
            f"the webhook is there, but its test failed{answer}: {delivery.message}",
            hint="start the watcher with --listen and the same --webhook-secret-file, then install "
            "again; MLflow may also take a minute to know a new secret",
        )
    if delivery is not None and not as_json:
        say("MLflow delivered an example, and it was accepted")


@webhook.command("list")
@json_option
def list_(as_json: bool) -> None:  # noqa: FBT001
    """Show the webhooks that were made by this tool."""
    from pipeline.configuration import effective_settings
    from pipeline.registries.mlflow_webhooks import MlflowWebhooks

    webhooks = MlflowWebhooks(effective_settings().required("tracking_uri"))
    found = webhooks.all()

    def human() -> None:
        if found:
            rows = [[w.url, "yes" if w.is_active else "no", ", ".join(w.events)] for w in found]
            table(["url", "active", "events"], rows)
        else:
            say(f"there is none at {webhooks.address}")

    emit(found, as_json=as_json, human=human)


@webhook.command()
@click.argument("url")
@json_option
def remove(url: str, as_json: bool) -> None:  # noqa: FBT001
    """Remove the webhook to URL."""
    from pipeline.configuration import effective_settings
    from pipeline.registries.mlflow_webhooks import MlflowWebhooks

    webhooks = MlflowWebhooks(effective_settings().required("tracking_uri"))
    known = webhooks.all()
    found = [each for each in known if each.url == url]
    if not found:
        raise RequestError(
            f"there is no webhook to {url} at {webhooks.address}; there is "
            + (", ".join(each.url for each in known) or "none"),
            hint="see what there is: tritonpipe webhook list",
        )
    for each in found:
        webhooks.remove(each)
    emit(found, as_json=as_json, human=lambda: print_line(f"webhook to {url} removed"))
