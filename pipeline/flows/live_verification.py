"""Asks the live servers again for what was recorded when a release was published.

Reads only: whatever the answers are, nothing that is served or recorded changes. Neither MLflow nor
the original model is needed, so it can run at any time and from any machine that reaches the store
and the servers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipeline.artifacts import Confirmation
from pipeline.errors import ConfirmationError, ConflictError, RequestError
from pipeline.flows.confirm import confirm
from pipeline.flows.progress import Progress, silent
from pipeline.flows.publish import read_state
from pipeline.flows.replicas import require_live
from pipeline.flows.repository import Repository, open_repository
from pipeline.model_config import check_name
from pipeline.settings import Settings

_PATIENCE: Final = 5.0
"""Seconds; what is served answers at once, and a switch under way is over by then or is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveVerification:
    """A release that every live server answers as it was recorded.

    Attributes:
        model: Name of the Triton model.
        digest: Names the release.
        servers: How many servers were asked.
        confirmation: Their answers.
    """

    model: str
    digest: str
    servers: int
    confirmation: Confirmation


def verify_live(model: str, settings: Settings, *, progress: Progress = silent) -> LiveVerification:
    """Send the golden inputs of the published version to every server and compare the answers.

    Raises:
        RequestError: No such model is published.
        ConflictError: The published version has no record to compare with.
        ConfirmationError: A server answers with another version, otherwise, or not at all.
        UnavailableError: The store does not answer, or a server is not live.
    """
    check_name(model)
    with open_repository(settings) as repository:
        require_live(repository.replicas)
        return verified(repository, model, progress=progress)


def verified(repository: Repository, model: str, *, progress: Progress) -> LiveVerification:
    """As :func:`verify_live`, with everything opened."""
    version = read_state(repository.store, model).version
    if version is None:
        raise RequestError(f"no model {model!r} is published", hint="look at: tritonpipe status")
    release = repository.journal.release(model, version)
    golden = repository.journal.golden(model, version)
    if release is None or golden is None:
        raise ConflictError(
            f"{model}/{version} has no record of what it should answer",
            hint=f"look at: tritonpipe fsck {model}",
        )
    with progress("verify") as describe:
        try:
            confirmation = confirm(
                repository.replicas, release, golden, seconds=_PATIENCE, waited=0.0
            )
        except ConfirmationError as error:
            raise ConfirmationError(
                error.message,
                hint=f"nothing was changed; look at: tritonpipe status {model}, or return to the "
                f"release before: tritonpipe rollback {model}",
            ) from error
        describe(f"{model}/{version} answers as it was recorded")
    return LiveVerification(
        model=model,
        digest=release.manifest.digest,
        servers=len(repository.replicas),
        confirmation=confirmation,
    )
