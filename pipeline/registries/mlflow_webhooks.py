"""MLflow's webhooks: who is told when an alias moves.

MLflow delivers at most four times within seconds and then never again, so a webhook can wake a
watcher and nothing more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pipeline.errors import SettingsError, UnavailableError
from pipeline.registries.mlflow import MlflowRegistry

NAME: Final = "tritonpipe"
"""Webhooks of this name are ours to change and to remove."""

EVENTS: Final = (
    "model_version_alias.created",  # also when an alias moves
    "model_version_alias.deleted",
    "model_version_tag.set",  # a gate such as validation_status, or a tolerance
    "model_version_tag.deleted",
    "model_version.created",
)
_NO_CONNECTION: Final = ("ConnectionError", "Connection refused", "Max retries")


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """One webhook of ours.

    Attributes:
        id: MLflow's name for it.
        url: Whom it tells.
        events: Of what.
        is_active: Whether it does.
    """

    id: str
    url: str
    events: tuple[str, ...]
    is_active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How a delivery that MLflow was asked for ended.

    Attributes:
        is_accepted: Whether the receiver took it.
        status: What it answered; None if it did not.
        message: What went wrong, in words; empty if nothing did.
    """

    is_accepted: bool
    status: int | None
    message: str


class MlflowWebhooks:
    """The webhooks of an MLflow server that this project has made.

    Every method raises ``UnavailableError`` if the server does not answer, and ``SettingsError`` if
    it cannot work with webhooks as it is set up.
    """

    def __init__(self, tracking_uri: str) -> None:
        registry = MlflowRegistry(tracking_uri)
        self.address = registry.address
        self._client: Any = registry.client

    def all(self) -> list[Webhook]:
        """Those of our name."""
        with self._answering(""):
            found, token = [], None
            while True:
                page = self._client.list_webhooks(max_results=100, page_token=token)
                found += page
                token = page.token
                if not token:
                    return [_webhook(each) for each in found if each.name == NAME]

    def install(self, url: str, secret: str) -> tuple[Webhook, bool]:
        """Have a URL told; returns the webhook, and whether it is new. Twice is once.

        Raises:
            SettingsError: MLflow refuses the URL; the hint names the settings of its server.
        """
        with self._answering(url):
            known = next((w for w in self.all() if w.url == url), None)
            if known is None:
                made = self._client.create_webhook(
                    name=NAME, url=url, events=list(EVENTS), secret=secret
                )
                return _webhook(made), True
            changed = self._client.update_webhook(
                known.id, events=list(EVENTS), secret=secret, status="ACTIVE"
            )
            return _webhook(changed), False

    def test(self, webhook: Webhook) -> Delivery:
        """Have MLflow deliver an example now."""
        with self._answering(webhook.url):
            result = self._client.test_webhook(webhook.id, "model_version_alias.created")
        message = ""
        if not result.success:
            text = result.error_message or result.response_body or "no answer"
            is_down = any(word in text for word in _NO_CONNECTION)
            message = f"nothing listens at {webhook.url}" if is_down else text.strip()[:300]
        return Delivery(is_accepted=result.success, status=result.response_status, message=message)

    def remove(self, webhook: Webhook) -> None:
        """Tell it no more."""
        with self._answering(webhook.url):
            self._client.delete_webhook(webhook.id)

    @contextmanager
    def _answering(self, url: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            yield
        except (MlflowException, RequestException) as error:
            text = str(error).splitlines()[0]
            code = getattr(error, "error_code", "")
            if code == "INVALID_PARAMETER_VALUE":
                raise _refused_url(self.address, url, text) from error
            if code == "INTERNAL_ERROR":
                raise SettingsError(
                    f"MLflow at {self.address} cannot read its webhooks: {text}",
                    hint="set MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY on its server before the first "
                    "webhook is made, and keep it: without it every restart has another key",
                ) from error
            raise UnavailableError(
                f"MLflow at {self.address} does not answer: {text}",
                hint="check MLFLOW_TRACKING_URI and that the server is up, then run again",
            ) from error


def _webhook(found: Any) -> Webhook:
    return Webhook(
        id=found.webhook_id,
        url=found.url,
        events=tuple(f"{e.entity.value}.{e.action.value}" for e in found.events),
        is_active=str(getattr(found.status, "value", found.status)) == "ACTIVE",
    )


def _refused_url(address: str, url: str, text: str) -> SettingsError:
    return SettingsError(
        f"MLflow at {address} refuses the webhook URL {url}: {text}",
        hint="it takes https to public addresses only, unless its server is started with "
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true and MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https; "
        "without a webhook, `tritonpipe watch` looks every --interval seconds all the same",
    )
