from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import pipeline
from pipeline.cli import tritonpipe
from pipeline.variables import known_variables, told_unknown


def test_every_variable_that_the_code_names_is_known() -> None:
    sources = Path(pipeline.__file__).parent.rglob("*.py")
    named = re.compile(r"\bTRITONPIPE_[A-Z_]*[A-Z]\b")
    found = {name for path in sources for name in named.findall(path.read_text(encoding="utf-8"))}
    assert found - known_variables() <= {"TRITONPIPE"}
    assert not told_unknown(known_variables())


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TRITONPIPE_MAX_BATCHSIZE", "TRITONPIPE_MAX_BATCH_SIZE"),
        ("TRITONPIPE_TRITON_URL", "TRITONPIPE_TRITON_GRPC"),
        ("tritonpipe_aliass", "TRITONPIPE_ALIAS"),
        ("TRITONPIPE_SIGNING_PASSWORD", "TRITONPIPE_SIGNING_KEY_PASSWORD"),
    ],
)
def test_a_misspelt_name_is_told_with_the_one_that_is_like_it(name: str, meant: str) -> None:
    (told,) = told_unknown(["PATH", name, "tritonpipe_alias"])
    assert name in told
    assert told.endswith(f"did you mean {meant}?")


def test_a_name_like_no_other_is_told_without_a_suggestion() -> None:
    (told,) = told_unknown(["TRITONPIPE_Q"])
    assert "did you mean" not in told


@pytest.mark.parametrize(
    "name",
    [
        "TRITONPIPE_MIRROR_SERVICE_HOST",
        "TRITONPIPE_MIRROR_SERVICE_PORT_METRICS",
        "TRITONPIPE_MIRROR_PORT",
        "TRITONPIPE_MIRROR_PORT_8003_TCP_ADDR",
    ],
)
def test_what_kubernetes_sets_for_services_is_passed_over(name: str) -> None:
    assert told_unknown([name]) == []


def test_a_command_tells_it_once_on_stderr_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITONPIPE_ALIASES", "secret")
    monkeypatch.setenv("TRITONPIPE_STATE_DIR", str(tmp_path))
    done = CliRunner().invoke(tritonpipe, ["stack", "status", "--json"])
    assert done.exit_code == 0
    assert done.stderr.count("TRITONPIPE_ALIASES") == 1
    assert "warning" in done.stderr
    assert "secret" not in done.output
