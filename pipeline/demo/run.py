"""The story of the demo: two models, two versions, one rollback, clients that notice nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from pipeline.artifacts import PromotionRequest, PromotionResult
from pipeline.errors import ConfirmationError, DependencyError
from pipeline.flows.progress import Progress
from pipeline.flows.promote import promote
from pipeline.flows.rollback import RollbackResult, rollback
from pipeline.settings import Settings, load_settings
from pipeline.stack.shell import point_at_stack

if TYPE_CHECKING:
    from pipeline.demo import science

ALIAS: Final = "champion"
_PACKAGES: Final = ("sklearn", "skl2onnx", "pandas", "torch", "onnxscript")
_STEADY_SECONDS: Final = 1.5
"""How long clients go on before, between and after the switches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A model that the data scientist registered."""

    model: str
    version: int
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """What the clients saw during the promotion and the rollback.

    Attributes:
        sent: Requests sent over gRPC and HTTP.
        failed: Requests that gave an error.
        wrong: Answers that are not what the answering version's own model predicts.
        versions: Answers by version.
        longest_gap_seconds: Longest time in which no client got an answer.
        errors: The first few errors.
    """

    sent: int
    failed: int
    wrong: int
    versions: Mapping[int, int]
    longest_gap_seconds: float
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """Everything the demo saw."""

    trained: tuple[TrainedModel, ...]
    promotions: tuple[PromotionResult, ...]
    rollback: RollbackResult
    requests: Requests
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether no client noticed anything but better answers."""
        return not self.requests.failed and not self.requests.wrong


def require_packages() -> None:
    """Return if the packages are here that the demo trains and exports with.

    Raises:
        DependencyError: Some are not; names them.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise DependencyError(
            f"the demo trains with packages that are not installed: {', '.join(missing)}",
            hint="pip install 'tritonpipe[sklearn,pytorch]'",
        )


def run_demo(environment: Mapping[str, str], progress: Progress) -> DemoResult:
    """Play the story against running servers.

    Args:
        environment: Addresses and credentials of the servers, as environment variables; they
            replace those of this process.
        progress: Told of every step.

    Raises:
        TritonpipeError: A step failed; the message says which.
        ConfirmationError: A client got an error or a wrong answer.
    """
    started = time.perf_counter()
    # MLflow and the S3 client read their addresses from the environment, as in a user's shell.
    point_at_stack(os.environ, environment)
    settings = load_settings()
    from pipeline.demo import science

    with progress("train") as describe:
        churn, digits = science.train_churn(), science.train_digits()
        describe(
            f"{churn.model}/{churn.version} accuracy {churn.accuracy:.3f} (scikit-learn), "
            f"{digits.model}/{digits.version} accuracy {digits.accuracy:.3f} (PyTorch)"
        )
    promotions = [_promote(trained, settings, progress) for trained in (churn, digits)]
    with progress("query") as describe:
        describe(_query(churn, digits, settings))
    with progress("train") as describe:
        better = science.train_churn(with_forest=True)
        describe(f"{better.model}/{better.version} accuracy {better.accuracy:.3f} (random forest)")
    back, requests, second = _switch_under_load(churn, better, settings, progress)
    promotions.append(second)
    trained = tuple(
        TrainedModel(model=t.model, version=t.version, accuracy=t.accuracy)
        for t in (churn, digits, better)
    )
    return DemoResult(
        trained=trained,
        promotions=tuple(promotions),
        rollback=back,
        requests=requests,
        seconds=time.perf_counter() - started,
    )


def _promote(trained: science.Trained, settings: Settings, progress: Progress) -> PromotionResult:
    from mlflow.tracking import MlflowClient

    MlflowClient().set_registered_model_alias(trained.model, ALIAS, str(trained.version))
    with progress(f"alias {ALIAS}") as describe:
        describe(f"{trained.model} -> version {trained.version}; now promoting it")
    return promote(PromotionRequest(model=trained.model, alias=ALIAS), settings, progress=progress)


def _query(churn: science.Trained, digits: science.Trained, settings: Settings) -> str:
    """Ask both models over both protocols, with plain client code."""
    import tritonclient.grpc as grpc_client
    import tritonclient.http as http_client

    from pipeline.demo.traffic import agrees, request_tensors

    answers = 0
    for module, address in (
        (grpc_client, settings.triton_grpc),
        (http_client, settings.triton_http),
    ):
        client = module.InferenceServerClient(address)
        for trained in (churn, digits):
            result = client.infer(trained.model, request_tensors(module, trained.inputs))
            for name, expected in trained.outputs.items():
                if not agrees(result.as_numpy(name), expected):
                    raise ConfirmationError(
                        f"{trained.model} answered {name} otherwise than its own model"
                    )
            answers += 1
        client.close()
    return f"{answers} plain tritonclient requests over gRPC and HTTP, all answers as expected"


def _switch_under_load(
    first: science.Trained, second: science.Trained, settings: Settings, progress: Progress
) -> tuple[RollbackResult, Requests, PromotionResult]:
    from pipeline.demo.traffic import Traffic

    expected = {first.version: first.outputs, second.version: second.outputs}
    clients = Traffic(
        first.model,
        first.inputs,
        expected,
        http=settings.triton_http,
        grpc=settings.triton_grpc,
    )
    with clients:
        time.sleep(_STEADY_SECONDS)
        promoted = _promote(second, settings, progress)
        time.sleep(_STEADY_SECONDS)
        with progress("rollback") as describe:
            describe(f"{first.model} back to version {first.version}, clients still sending")
        back = rollback(first.model, settings, progress=progress)
        time.sleep(_STEADY_SECONDS)
    tally = clients.tally
    requests = Requests(
        sent=tally.sent,
        failed=tally.failed,
        wrong=tally.wrong,
        versions=dict(sorted(tally.versions.items())),
        longest_gap_seconds=tally.longest_gap,
        errors=tuple(tally.errors),
    )
    return back, requests, promoted
