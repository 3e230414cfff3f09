"""``mlflow deployments … -t tritonpipe``: a door for users of MLflow's own command and client.

Answers to the same calls as NVIDIA's ``mlflow-triton-plugin``, also as target ``triton``; what
differs is in ``docs/deployments.md``. Everything is done by the flows of the other doors.

MLflow loads this module for every use of the target, so it imports MLflow alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from mlflow.deployments import BaseDeploymentClient

from pipeline.deployments.errors import as_mlflow, invalid, unsupported
from pipeline.deployments.help import HELP

if TYPE_CHECKING:
    from pipeline.deployments.predictions import Predictions

__all__ = ["TritonpipeDeploymentClient", "run_local", "target_help"]


class TritonpipeDeploymentClient(BaseDeploymentClient):  # type: ignore[misc]  # no types in MLflow
    """Deployments on the Triton servers that the settings name.

    All methods raise :class:`pipeline.deployments.errors.DeploymentError`, an ``MlflowException``.
    """

    def __init__(self, target_uri: str) -> None:
        super().__init__(target_uri)
        if ":" in target_uri:
            raise invalid(
                f"the target {target_uri!r} takes no path: where the servers are is in variables; "
                "see mlflow deployments help -t tritonpipe"
            )
        self._predictor: Any = None

    def create_deployment(
        self,
        name: str,
        model_uri: str,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, str]:
        """Deploy a registered version; returns when it has proven itself on every server.

        Args:
            name: Name of the Triton model; must be free.
            model_uri: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, or ``models:/m-…`` and
                ``runs:/RUN/PATH`` of what is registered.
            flavor: One of the model's flavors; by default the one that is exported.
            config: See ``target_help``.
            endpoint: There are none.

        Returns:
            ``name``, ``flavor``, ``version`` and ``mlflow_model_uri``.
        """
        _refuse_endpoint(endpoint)
        with as_mlflow():
            from pipeline.deployments.changes import create
            from pipeline.deployments.options import options_from_config

            return create(name, model_uri, flavor, options_from_config(config))

    def update_deployment(
        self,
        name: str,
        model_uri: str | None = None,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, str]:
        """Serve another version of the same registered model, or confirm the one that is served.

        Until the new version has proven itself, the old one is served.

        Returns:
            As of :meth:`create_deployment`.
        """
        _refuse_endpoint(endpoint)
        with as_mlflow():
            from pipeline.deployments.changes import update
            from pipeline.deployments.options import options_from_config

            return update(name, model_uri, flavor, options_from_config(config))

    def delete_deployment(
        self,
        name: str,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> None:
        """Take a deployment away; once more is no error, a name that never was deployed is one."""
        _refuse_endpoint(endpoint)
        with as_mlflow():
            from pipeline.deployments.changes import delete
            from pipeline.deployments.options import options_from_config

            delete(name, options_from_config(config).settings)

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, str]]:
        """All deployments, by name, each as of :meth:`get_deployment`."""
        _refuse_endpoint(endpoint)
        with as_mlflow():
            from pipeline.deployments.deployed import all_deployments
            from pipeline.deployments.options import options_from_config

            return [
                found.described() for found in all_deployments(options_from_config({}).settings)
            ]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, str]:
        """One deployment, described as by NVIDIA's plugin.

        Returns:
            ``name``, ``version``, ``state``, ``triton_model_path``, ``mlflow_model_uri`` (with the
            version that is served, never an alias) and ``flavor``.

        Raises:
            NoDeploymentError: There is none of this name; it is a ``ValueError``, too.
        """
        _refuse_endpoint(endpoint)
        with as_mlflow():
            from pipeline.deployments.changes import existing
            from pipeline.deployments.options import options_from_config

            return existing(name, options_from_config({}).settings).described()

    def predict(
        self,
        deployment_name: str | None = None,
        inputs: Any = None,
        endpoint: str | None = None,
        *,
        df: Any = None,
    ) -> Predictions:
        """Ask a deployment.

        Args:
            deployment_name: Its name.
            inputs: A DataFrame, an array, or a dict of arrays by name of the input or column.
            endpoint: There are none.
            df: The same as ``inputs``, by the name that it has in NVIDIA's plugin.

        Returns:
            ``{"outputs": {NAME: array}}``, a :class:`mlflow.deployments.PredictionsResponse`.
        """
        _refuse_endpoint(endpoint)
        if deployment_name is None:
            raise invalid("name the deployment to be asked")
        with as_mlflow():
            from pipeline.deployments.options import options_from_config
            from pipeline.deployments.predict import Predictor
            from pipeline.deployments.predictions import Predictions

            self._predictor = self._predictor or Predictor()
            settings = options_from_config({}).settings
            given = df if inputs is None else inputs
            return Predictions.from_outputs(
                self._predictor.predict(deployment_name, given, settings)
            )

    def _refuse(self, *_arguments: Any, **_options: Any) -> NoReturn:
        raise unsupported()

    create_endpoint = update_endpoint = delete_endpoint = get_endpoint = list_endpoints = _refuse
    predict_stream = explain = _refuse


def run_local(
    name: str,
    model_uri: str,
    flavor: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Start the embedded stack if it does not run, deploy to it, and say where it answers."""
    with as_mlflow():
        import click

        from pipeline.deployments.local import run_on_stack

        done = run_on_stack(name, model_uri, flavor, config)
        click.echo(
            f"{done.name}/{done.version} is served at {done.address}/v2/models/{done.name}\n"
            'point a shell at it: eval "$(tritonpipe stack env)"; stop it: tritonpipe stack down'
        )


def target_help() -> str:
    """What ``mlflow deployments help -t tritonpipe`` prints."""
    return HELP


def _refuse_endpoint(endpoint: str | None) -> None:
    if endpoint is not None:
        raise unsupported()
