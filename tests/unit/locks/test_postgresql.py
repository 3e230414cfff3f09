"""What needs no server: keys that stay the same, and addresses that tell no password."""

from __future__ import annotations

import sys

import pytest
from obstore.store import MemoryStore

from pipeline.errors import DependencyError, SettingsError
from pipeline.locks.choice import open_locks
from pipeline.locks.postgresql import PostgresqlLocks, lock_key
from pipeline.stores.objects import ObjectStore


def hold(url: str) -> None:
    with PostgresqlLocks(url, repository="s3://models/r").hold("m", seconds=0, tell=print):
        pass


def test_the_key_of_a_model_never_changes() -> None:
    # Another number, and publishers of two versions of this tool would not hold each other off.
    assert lock_key("s3://models/repository", "fraud") == -3703369315595060448
    assert lock_key("s3://models/repository/", "fraud") == -3703369315595060448


def test_keys_are_signed_64_bit_numbers_and_differ() -> None:
    pairs = [(f"s3://{bucket}/r", f"m{n}") for bucket in "ab" for n in range(500)]
    keys = {lock_key(repository, model) for repository, model in pairs}
    assert len(keys) == len(pairs)
    assert min(keys) < 0
    assert all(-(2**63) <= key < 2**63 for key in keys)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hun@ter2@127.0.0.1:1/db",
        "postgresql://me:hun/ter2@127.0.0.1:1/db",
        "postgresql://me:hun?ter2@127.0.0.1:1/db",
        "postgresql://me:hun#ter2@127.0.0.1:1/db",
        "postgresql://me:hun%zzter2@127.0.0.1:1/db",
        "postgresql://me:hunter2@127.0.0.1:1/db?nonsense=1",
        "mysql://me:hunter2@127.0.0.1:1/db",
    ],
)
def test_a_url_that_libpq_would_misread_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        hold(url)
    text = f"{caught.value.message} {caught.value.hint}"
    assert "hun" not in text
    assert "ter2" not in text
    assert "%40" in text


def test_without_the_client_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DependencyError) as caught:
        hold("postgresql://127.0.0.1:1/db")
    assert "tritonpipe[postgresql]" in caught.value.hint


def test_an_address_of_another_kind_is_refused_without_its_password() -> None:
    url = "postgresql+psycopg2://me:hunter2@127.0.0.1/mlflow"
    records = ObjectStore("memory://records", MemoryStore())
    with pytest.raises(SettingsError, match="postgresql://") as caught:
        open_locks(url, repository="s3://models/r", records=records)
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"
