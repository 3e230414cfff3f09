"""Whatever is asked for or broken: a clear error, and what is served stays served."""

from __future__ import annotations

import importlib
import pickle
import socket
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.tracking import MlflowClient
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from pipeline.artifacts import PromotionRequest
from pipeline.errors import ConfirmationError
from pipeline.flows import publish, release
from pipeline.flows.promote import promote
from pipeline.flows.rollback import rollback
from pipeline.flows.servers import Servers
from pipeline.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _what_is_served_stays_served(served: Any) -> Iterator[None]:
    yield
    served.assert_still_served()


def closed_address() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{unused.getsockname()[1]}"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nobody", "no registered model 'nobody'"),
        ("nobody/1", "no registered model 'nobody'"),
        ("always-served@nothing", "no alias 'nothing'"),
        ("always-served/99", "no version 99; it has 1"),
        ("always-served/0", "does not name a model version"),
        ("a/b/c", "does not name a model version"),
    ],
)
def test_what_does_not_exist(tritonpipe: Callable[..., Any], reference: str, message: str) -> None:
    done = tritonpipe("promote", reference)
    assert done.code == 3, done.err
    assert message in done.err


def test_errors_are_json_too(tritonpipe: Callable[..., Any]) -> None:
    done = tritonpipe("promote", "nobody", "--json")
    assert done.data["error"]["exit_code"] == done.code == 3


def test_a_version_that_is_not_ready(
    name: str, register: Callable[..., int], tritonpipe: Callable[..., Any], artifact_folder: Path
) -> None:
    register(name)
    [database] = artifact_folder.rglob("*.db")
    with sqlite3.connect(database, timeout=30) as connection:
        connection.execute(
            "UPDATE model_versions SET status = 'PENDING_REGISTRATION' WHERE name = ?", [name]
        )
    done = tritonpipe("promote", f"{name}/1")
    assert done.code == 3
    assert "not READY but PENDING_REGISTRATION" in done.err


def test_neither_signature_nor_example(
    name: str, register: Callable[..., int], tritonpipe: Callable[..., Any]
) -> None:
    register(name, input_example=None)
    done = tritonpipe("promote", f"{name}/1")
    assert done.code == 6
    assert "signature" in done.err
    assert "input_example" in done.err


def test_an_unsupported_flavor_names_the_supported_ones(
    name: str, register: Callable[..., int], tritonpipe: Callable[..., Any]
) -> None:
    class Echo(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        # MLflow takes type hints for a signature.
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            return model_input

    register(name, None, flavor="pyfunc", python_model=Echo())
    done = tritonpipe("promote", f"{name}/1")
    assert done.code == 6
    assert all(flavor in done.err for flavor in ("onnx", "pytorch", "sklearn"))


def test_an_export_that_disagrees_is_refused(
    name: str,
    register: Callable[..., int],
    tritonpipe: Callable[..., Any],
    servers: Servers,
    registry: MlflowClient,
) -> None:
    # Seconds since 1970 as a feature: FP32 knows only every 128th of them.
    seconds = 1.7e9 + np.arange(8, dtype=np.float64).reshape(-1, 1)
    register(name, LinearRegression().fit(seconds, seconds[:, 0] - 1.7e9), input_example=seconds)
    done = tritonpipe("promote", f"{name}/1")
    assert done.code == 7, done.err
    assert "prediction" in done.err
    assert servers.repository.list_folder(name) == []
    version = registry.get_model_version(name, "1")
    assert version.tags["tritonpipe.state"] == "refused"
    assert "prediction" in version.tags["tritonpipe.reason"]
    page = registry.download_artifacts(version.run_id, f"tritonpipe/{name}-1/refused.html")
    assert "Refused" in Path(page).read_text(encoding="utf-8")
    assert f"/runs/{version.run_id}/artifacts/tritonpipe/{name}-1/refused.html" in done.err
    script = next(line for line in done.err.splitlines() if "see it fail" in line)
    shown = subprocess.run(
        [sys.executable, "-P", script.split()[-1]], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 1
    assert shown.stdout.startswith("still disagrees: output 'prediction'")


def test_damaged_artifacts(
    name: str, register: Callable[..., int], tritonpipe: Callable[..., Any], artifact_folder: Path
) -> None:
    before = set(artifact_folder.rglob("model.pkl"))
    register(name)
    [pickle] = set(artifact_folder.rglob("model.pkl")) - before
    pickle.write_bytes(pickle.read_bytes()[:50])
    done = tritonpipe("promote", f"{name}/1")
    assert done.code == 6
    assert f"{name}/1" in done.err
    (pickle.parent / "MLmodel").unlink()
    done = tritonpipe("promote", f"{name}/1")
    assert done.code == 6
    assert "MLmodel" in done.err


@pytest.fixture
def logged(name: str, register: Callable[..., int], artifact_folder: Path) -> Callable[..., Path]:
    """Log a model, and give the folder in which the server keeps it."""

    def log(*arguments: Any, **options: Any) -> Path:
        before = set(artifact_folder.rglob("MLmodel"))
        register(name, *arguments, **options)
        [mlmodel] = set(artifact_folder.rglob("MLmodel")) - before
        return mlmodel.parent

    return log


def aliases_of_aliases(folder: Path) -> None:
    lines = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 12)]
    lines.insert(0, "a0: &a0 [x, x]")
    (folder / "MLmodel").write_text("\n".join(lines))


def no_mapping(folder: Path) -> None:
    (folder / "MLmodel").write_text("- flavors")


def no_flavors(folder: Path) -> None:
    (folder / "MLmodel").write_text("model_uuid: abc")


def path_out_of_the_folder(folder: Path) -> None:
    document = yaml.safe_load((folder / "MLmodel").read_text())
    document["flavors"]["sklearn"]["pickled_model"] = "../../model.pkl"
    (folder / "MLmodel").write_text(yaml.safe_dump(document))


def archive_of_gigabytes(folder: Path) -> None:
    with zipfile.ZipFile(folder / "extra.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2**23))
        archive.filelist *= 200  # all share the bytes of one


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (aliases_of_aliases, "more than 400000 values"),
        (no_mapping, "no mapping but list"),
        (no_flavors, "names no flavors"),
        (path_out_of_the_folder, "is '../../model.pkl', which is outside"),
        (archive_of_gigabytes, "would unpack to 1.56 GiB"),
    ],
)
def test_artifacts_that_somebody_changed(
    name: str,
    logged: Callable[..., Path],
    tritonpipe: Callable[..., Any],
    servers: Servers,
    damage: Callable[[Path], None],
    message: str,
) -> None:
    damage(logged())
    done = tritonpipe("promote", f"{name}/1")
    assert done.code == 6, done.err
    assert message in done.err
    assert servers.repository.list_folder(name) == []


def test_a_pickle_that_calls_home_reaches_nobody(
    name: str, logged: Callable[..., Path], tritonpipe: Callable[..., Any], settings: Settings
) -> None:
    host, port = settings.triton_http.split(":")  # it listens

    class CallsHome:
        def __reduce__(self) -> Any:
            return socket.create_connection, ((host, int(port)), 5)

    (logged() / "model.pkl").write_bytes(pickle.dumps(CallsHome()))
    done = tritonpipe("promote", f"{name}/1")
    assert done.code == 6, done.err
    if "within reach of the network" in done.err:
        pytest.skip(done.err)
    assert "asked for the network, which it cannot reach" in done.err


def test_a_library_that_is_missing_is_named_with_the_version_to_install(
    name: str,
    register: Callable[..., int],
    tritonpipe: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "vanished_library.py").write_text(
        "from sklearn.linear_model import LogisticRegression\n"
        "class Vanished(LogisticRegression): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    vanished = importlib.import_module("vanished_library").Vanished()
    vanished.fit(np.eye(3), [0, 1, 1])
    register(name, vanished, pip_requirements=["mlflow", "vanished-library==1.2"])
    done = tritonpipe("promote", f"{name}/1")
    assert done.code == 6, done.err
    assert "needs the Python module 'vanished_library'" in done.err
    assert "pip install vanished-library==1.2" in done.err


def test_versions_of_the_training_are_named_when_a_model_cannot_be_loaded(
    name: str, logged: Callable[..., Path], tritonpipe: Callable[..., Any]
) -> None:
    folder = logged()
    (folder / "model.pkl").write_bytes(b"csklearn.tree.tree\nDecisionTreeRegressor\n.")
    (folder / "requirements.txt").write_text("mlflow\nscikit-learn==0.20.4\n")
    done = tritonpipe("promote", f"{name}/1")
    assert done.code == 6, done.err
    assert "trained with scikit-learn 0.20.4 (here " in done.err


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (pd.date_range("2026-01-01", periods=8), "datetime64"),
        ([[1], [2], [3], [4]] * 2, "list"),
    ],
    ids=["datetime", "object"],
)
def test_a_column_that_no_tensor_can_carry_is_named(
    name: str,
    register: Callable[..., int],
    tritonpipe: Callable[..., Any],
    column: Any,
    problem: str,
) -> None:
    rows = pd.DataFrame({"strange": column, "x": np.arange(8.0)})
    model = make_pipeline(OrdinalEncoder(), LinearRegression())
    is_known = problem != "list"  # scikit-learn cannot be trained on lists, but called with them
    model.fit(rows if is_known else rows.assign(strange=["1", "2"] * 4), np.arange(8))
    register(name, model, input_example=rows)
    done = tritonpipe("promote", f"{name}/1")
    assert done.code == 6, done.err
    assert "'strange'" in done.err
    assert problem in done.err


@pytest.mark.parametrize(
    ("variable", "value", "code", "message"),
    [
        ("AWS_ENDPOINT_URL", "closed", 8, "that the store is up"),
        ("AWS_SECRET_ACCESS_KEY", "wrong-secret-key", 4, "refused the credentials"),
        ("AWS_SECRET_ACCESS_KEY", None, 4, "the AWS_* variables do not make a client"),
        ("TRITONPIPE_REPOSITORY", "s3://no-such-bucket/repository", 4, "bucket does not exist"),
        ("TRITONPIPE_REPOSITORY", "s3://Upper_case/repository", 4, "not a model repository"),
        ("TRITONPIPE_REPOSITORY", None, 4, "TRITONPIPE_REPOSITORY is not set"),
        ("MLFLOW_TRACKING_URI", "closed", 8, "MLflow at"),
        ("MLFLOW_TRACKING_URI", None, 4, "MLFLOW_TRACKING_URI is not set"),
        ("TRITONPIPE_TRITON_HTTP", "closed", 8, "Triton does not answer over HTTP"),
        ("TRITONPIPE_TRITON_GRPC", "closed", 8, "Triton does not answer over gRPC"),
        ("TRITONPIPE_MAX_BATCH_SIZE", "many", 4, "TRITONPIPE_MAX_BATCH_SIZE"),
        ("TRITONPIPE_ISOLATION", "sometimes", 4, "TRITONPIPE_ISOLATION"),
    ],
)
def test_servers_that_are_down_or_wrong(
    name: str,
    register: Callable[..., int],
    tritonpipe: Callable[..., Any],
    servers: Servers,
    variable: str,
    value: str | None,
    code: int,
    message: str,
) -> None:
    register(name)
    if value == "closed":
        is_url = variable in {"AWS_ENDPOINT_URL", "MLFLOW_TRACKING_URI"}
        value = ("http://" if is_url else "") + closed_address()
    done = tritonpipe("promote", f"{name}/1", **{variable: value})
    assert done.code == code, done.err
    assert message in done.err
    assert "wrong-secret-key" not in done.err
    assert servers.repository.list_folder(name) == []


def test_a_triton_that_does_not_poll_this_repository(
    name: str, register: Callable[..., int], tritonpipe: Callable[..., Any]
) -> None:
    register(name)
    done = tritonpipe(
        "promote",
        f"{name}/1",
        TRITONPIPE_REPOSITORY="s3://models/not-polled",
        TRITONPIPE_CONFIRM_SECONDS="4",
    )
    assert done.code == 10, done.err
    assert "check that Triton polls this repository" in done.err
    again = tritonpipe("status", name, TRITONPIPE_REPOSITORY="s3://models/not-polled")
    assert again.code == 3, "the commit was taken back"


def test_bytes_that_change_on_the_way_are_refused_by_the_server_and_the_old_version_restored(
    name: str,
    register: Callable[..., int],
    new_classifier: Callable[[int], Any],
    settings: Settings,
    servers: Servers,
    rows: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = new_classifier(1)
    register(name, first)
    register(name, new_classifier(2))
    promote(PromotionRequest(model=name, version=1), settings)
    real_upload = publish.upload

    def damaging_upload(store: Any, entry: Any, plan: Any, **options: Any) -> None:
        real_upload(store, entry, plan, **options)
        key = f"{name}/2/model.onnx"
        data = bytearray(store.get(key))
        data[-1] ^= 1
        store.put(key, bytes(data))

    with monkeypatch.context() as patch:
        patch.setattr(release, "upload", damaging_upload)
        with pytest.raises(ConfirmationError, match=r"refused to load.*model\.onnx has SHA-256"):
            promote(PromotionRequest(model=name, version=2), settings)
    answer = servers.replicas[0].infer("grpc", name, {"X": rows})
    assert answer.version == 1
    np.testing.assert_allclose(
        answer.outputs["probabilities"], first.predict_proba(rows), 1e-3, 1e-5
    )
    assert [e.event for e in servers.journal.entries(name)][-2:] == ["committing", "failed"]
    promote(PromotionRequest(model=name, version=2), settings)
    assert servers.replicas[0].infer("http", name, {"X": rows}).version == 2


def test_a_server_that_answers_otherwise_is_found_and_a_new_model_taken_back(
    name: str,
    register: Callable[..., int],
    settings: Settings,
    servers: Servers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    register(name)
    real_keep = servers.journal.__class__.keep

    def other_expectation(journal: Any, kept: Any, samples: Any) -> None:
        samples.outputs["probabilities"][0, 0] += 0.5
        real_keep(journal, kept, samples)

    monkeypatch.setattr(servers.journal.__class__, "keep", other_expectation)
    with pytest.raises(ConfirmationError, match="otherwise than the source model"):
        promote(PromotionRequest(model=name, version=1), settings)
    assert servers.repository.list_folder(name) == []
    deadline = time.monotonic() + 20
    while servers.replicas[0].is_ready(name, 1):
        assert time.monotonic() < deadline, "a refused model goes on answering"
        time.sleep(0.2)


def test_mlflow_going_down_after_the_publication_is_said_and_made_good_by_the_next_run(
    name: str,
    register: Callable[..., int],
    settings: Settings,
    registry: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pipeline.errors import UnavailableError
    from pipeline.registries.mlflow import MlflowRegistry

    register(name)

    def down(*_arguments: Any, **_options: Any) -> None:
        raise UnavailableError("MLflow does not answer")

    register(name)
    promote(PromotionRequest(model=name, version=1), settings)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowRegistry, "record", down)
        with pytest.raises(UnavailableError, match="is served and confirmed, but not recorded"):
            promote(PromotionRequest(model=name, version=2), settings)
    assert promote(PromotionRequest(model=name, version=2), settings).outcome == "unchanged"
    states = [
        registry.get_model_version(name, version).tags["tritonpipe.state"] for version in "12"
    ]
    assert states == ["superseded", "serving"]


def test_a_version_that_was_deleted_in_mlflow_is_in_nobodys_way(
    name: str,
    register: Callable[..., int],
    settings: Settings,
    registry: MlflowClient,
) -> None:
    for _ in (1, 2):
        register(name)
    promote(PromotionRequest(model=name, version=1), settings)
    registry.delete_model_version(name, "1")
    promote(PromotionRequest(model=name, version=2), settings)
    assert rollback(name, settings).plan.version == 1
