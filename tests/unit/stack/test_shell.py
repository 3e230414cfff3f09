from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline.stack.addresses import addresses_from_ports, client_variables
from pipeline.stack.credentials import S3Key
from pipeline.stack.ports import Ports
from pipeline.stack.shell import point_at_stack, shell_lines, without_proxy


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
        addresses_from_ports(Ports()),
        S3Key(access_key="A", secret_key="S"),
        Path("/state/locks"),
    )
    assert variables == {
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
        "AWS_ACCESS_KEY_ID": "A",
        "AWS_SECRET_ACCESS_KEY": "S",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9000",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "TRITONPIPE_REPOSITORY": "s3://models/repository",
        "TRITONPIPE_LOCK": "/state/locks",
        "TRITONPIPE_TRITON_HTTP": "127.0.0.1:8000",
        "TRITONPIPE_TRITON_GRPC": "127.0.0.1:8001",
    }


def test_a_process_pointed_at_a_stack_finds_nothing_else() -> None:
    process = {
        "PATH": "/bin",
        "AWS_PROFILE": "theirs",
        "AWS_SESSION_TOKEN": "theirs",
        "AWS_ENDPOINT_URL": "http://theirs",
        "AWS_ENDPOINT_URL_S3": "http://theirs",
        "MLFLOW_REGISTRY_URI": "http://theirs",
        "MLFLOW_EXPERIMENT_ID": "7",
        "TRITONPIPE_RECORDS": "s3://theirs/records",
        "TRITONPIPE_MAX_BATCH_SIZE": "1",
        "TRITONPIPE_SERVERS": "/servers",
        "TRITONPIPE_STATE_DIR": "/state",
        "HTTP_PROXY": "http://proxy:3128",
        "no_proxy": "a.example",
    }
    ours = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000", "TRITONPIPE_REPOSITORY": "s3://models/x"}
    point_at_stack(process, ours)
    assert process == ours | {
        "PATH": "/bin",
        "TRITONPIPE_SERVERS": "/servers",
        "TRITONPIPE_STATE_DIR": "/state",
        "HTTP_PROXY": "http://proxy:3128",
        "NO_PROXY": "a.example,127.0.0.1,localhost",
        "no_proxy": "a.example,127.0.0.1,localhost",
    }
    before = dict(process)
    point_at_stack(process, ours)
    assert process == before


@pytest.mark.parametrize(
    ("upper", "lower", "expected"),
    [
        ("", "", ("127.0.0.1,localhost", "127.0.0.1,localhost")),
        ("a", "b, 127.0.0.1", ("a,127.0.0.1,localhost", "b,127.0.0.1,localhost")),
        ("*", "", ("*", "*")),
    ],
)
def test_what_the_user_exempts_from_a_proxy_stays(
    upper: str, lower: str, expected: tuple[str, str]
) -> None:
    found = without_proxy({"NO_PROXY": upper, "no_proxy": lower})
    assert (found["NO_PROXY"], found["no_proxy"]) == expected
