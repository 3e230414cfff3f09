from __future__ import annotations

import pytest

from pipeline.errors import SettingsError
from pipeline.flows.repository import records_url
from pipeline.settings import Settings, load_settings


def test_defaults_need_no_environment() -> None:
    assert load_settings().alias == "champion"


def test_addresses_keep_the_names_of_their_own_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")
    assert load_settings().required("tracking_uri") == "http://mlflow"


def test_lists_are_read_as_json_or_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("[8, 32]", "8,32", "8, 32, 8"):
        monkeypatch.setenv("TRITONPIPE_PREFERRED_BATCH_SIZES", text)
        assert load_settings().preferred_batch_sizes == (8, 32)


@pytest.mark.parametrize(
    ("name", "value"),
    [("MAX_BATCH_SIZE", "0"), ("INSTANCES", "many"), ("DEVICE", "tpu"), ("CONFIRM_SECONDS", "-1")],
)
def test_wrong_values_name_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"TRITONPIPE_{name}", value)
    with pytest.raises(SettingsError, match=f"TRITONPIPE_{name}"):
        load_settings()


@pytest.mark.parametrize("name", ["tracking_uri", "repository"])
def test_what_has_no_default_must_be_set(name: str) -> None:
    with pytest.raises(SettingsError, match="is not set"):
        load_settings().required(name)


@pytest.mark.parametrize(
    ("repository", "records", "expected"),
    [
        ("s3://models/repository", "", "s3://models/repository-records"),
        ("s3://models/repository/", "", "s3://models/repository-records"),
        ("s3://models/repository", "s3://other/x", "s3://other/x"),
        ("s3://models", "s3://records", "s3://records"),
        ("/srv/models", "", "/srv/models-records"),
    ],
)
def test_records_are_beside_the_repository(repository: str, records: str, expected: str) -> None:
    assert records_url(Settings(repository=repository, records=records)) == expected


@pytest.mark.parametrize(
    ("repository", "records"),
    [
        ("s3://models/repository", "s3://models/repository/records"),
        ("s3://models/repository", "s3://models/repository"),
        ("s3://models", ""),
        ("s3://models", "s3://models/records"),
    ],
)
def test_records_inside_the_repository_are_refused(repository: str, records: str) -> None:
    with pytest.raises(SettingsError, match="would not be beside"):
        records_url(Settings(repository=repository, records=records))
