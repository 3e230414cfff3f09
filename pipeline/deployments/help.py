"""What ``mlflow deployments help`` prints."""

from __future__ import annotations

from typing import Final

HELP: Final = """\
Deploys registered models to NVIDIA Triton: exported to ONNX, compared with their own predictions,
published to the model repository that Triton polls, and confirmed through the live servers. Until a
version has proven itself, what was served before is served.

  mlflow deployments create  -t tritonpipe --name fraud -m models:/fraud@champion
  mlflow deployments update  -t tritonpipe --name fraud -m models:/fraud/8
  mlflow deployments list    -t tritonpipe
  mlflow deployments get     -t tritonpipe --name fraud
  mlflow deployments predict -t tritonpipe --name fraud -I rows.json -O answers.json
  mlflow deployments delete  -t tritonpipe --name fraud

The target has no path. "triton" is the same target, for commands written for NVIDIA's plugin.

Where things are
  MLFLOW_TRACKING_URI                      the registry; in Python also mlflow.set_tracking_uri
  TRITONPIPE_REPOSITORY, or TRITON_MODEL_REPO    s3://BUCKET/PREFIX or a folder that Triton polls
  TRITONPIPE_TRITON_HTTP, or TRITON_URL    HOST:PORT, several with commas
  TRITONPIPE_TRITON_GRPC                   likewise; beside TRITON_URL by default the next port
  AWS_*                                    as for every S3 client
  All others: see the table of settings in README.md. For servers on this machine:
  tritonpipe stack up, then eval "$(tritonpipe stack env)".

Model URIs
  models:/NAME@ALIAS, models:/NAME/VERSION. models:/m-ID and runs:/RUN_ID/PATH stand for the version
  that is registered from them. What is not registered is refused, since only a registered version
  has a number that is never used again: mlflow.register_model(URI, NAME).

Flavors (-f)
  By default the one that is exported. "triton": a folder of a Triton model repository that was
  logged as it is, with triton_flavor.log_model of NVIDIA's plugin or mlflow.log_artifacts. It is
  proven by golden.json beside config.pbtxt, or by -C golden=FILE; of ONNX files by what ONNX
  Runtime computes here.

Config (-C NAME=VALUE)
  max_batch_size, preferred_batch_sizes, max_queue_delay_microseconds, instances, device
      how the version is served; fixed when it is first published
  relative_tolerance, absolute_tolerance, allowed_row_fraction
      how far answers may be from the model's own predictions
  confirm_seconds, export_seconds, lock_seconds
      how long to wait for the server, the export, another publisher
  golden      file with a request and its answer, for the flavor triton
  state_dir   folder of the stack, for run-local

Predict
  Rows in JSON as pandas.read_json reads them, or {"inputs": {NAME: [[...]]}}. Columns are found by
  the names of the model's signature, in any order. Numbers must fit the type of the input.

run-local
  Starts the embedded MLflow, S3 and Triton if they do not run ("tritonpipe stack up") and deploys
  to them; they keep running. The model is read from MLFLOW_TRACKING_URI, if it is set.

Endpoints, streams and explanations are not there: a deployment is one Triton model.
"""
