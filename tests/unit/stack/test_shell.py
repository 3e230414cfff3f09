from __future__ import annotations

import subprocess

from pipeline.stack.addresses import addresses_from_ports, client_variables
from pipeline.stack.credentials import S3Key
from pipeline.stack.ports import Ports
from pipeline.stack.shell import shell_lines


def test_any_value_survives_a_shell() -> None:
    variables = {"A": "plain", "B": "a b'c\"$HOME`id`\\;\n#", "C": ""}
    script = "\n".join((*shell_lines(variables), 'printf \'%s|\' "$A" "$B" "$C"'))
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(f"{value}|" for value in variables.values())


def test_variables_of_another_account_are_unset() -> None:
    script = "\n".join((*shell_lines({}), "echo ${AWS_SESSION_TOKEN-unset}"))
    done = subprocess.run(
        ["sh", "-c", script],
        env={"AWS_SESSION_TOKEN": "theirs"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "unset\n"


def test_clients_get_what_each_of_them_knows() -> None:
    variables = client_variables(
        addresses_from_ports(Ports()), S3Key(access_key="A", secret_key="S")
    )
    assert variables == {
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
        "AWS_ACCESS_KEY_ID": "A",
        "AWS_SECRET_ACCESS_KEY": "S",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9000",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "TRITONPIPE_REPOSITORY": "s3://models/repository",
        "TRITONPIPE_TRITON_HTTP": "127.0.0.1:8000",
        "TRITONPIPE_TRITON_GRPC": "127.0.0.1:8001",
    }
