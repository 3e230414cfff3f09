"""What ``tritonpipe.toml`` says, what counts, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.configuration import Bound, Configuration, load_configuration
from pipeline.errors import SettingsError
from pipeline.settings import AUTHOR_SETTINGS, Settings

EXAMPLE = """
[defaults]
max_batch_size = 32
instances = 2
tracking_uri = "http://registry:5000"

[models."fraud"]
serve = { champion = "fraud", challenger = "fraud-challenger" }
requires = { validation_status = "approved" }
metrics = { auc = ">= 0.9", loss = "<0.5" }
max_batch_size = 128

[models."fr*"]
watch = false
"""


def load(tmp_path: Path, text: str, base: Settings | None = None) -> Configuration:
    file = tmp_path / "t.toml"
    file.write_text(text)
    return load_configuration(base or Settings(), file)


def test_without_a_file_the_settings_alone_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = load_configuration(Settings(instances=3))
    assert (found.path, found.models, found.settings_of(None).instances) == (None, (), 3)


def test_a_file_in_the_working_directory_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tritonpipe.toml").write_text(EXAMPLE)
    monkeypatch.chdir(tmp_path)
    assert len(load_configuration(Settings()).models) == 2


def test_the_first_table_that_fits_counts(tmp_path: Path) -> None:
    found = load(tmp_path, EXAMPLE)
    fraud, other = found.table_of("fraud"), found.table_of("fruit")
    assert fraud is not None
    assert other is not None
    assert (fraud.watch, other.watch) == (True, False)
    assert found.table_of("churn") is None
    assert fraud.serve == {"champion": "fraud", "challenger": "fraud-challenger"}


def test_a_table_counts_before_the_defaults_and_the_environment_before_both(tmp_path: Path) -> None:
    found = load(tmp_path, EXAMPLE)
    table = found.table_of("fraud")
    assert found.settings_of(None).max_batch_size == 32
    assert found.settings_of(table).max_batch_size == 128
    assert found.settings_of(table).instances == 2
    assert found.settings_of(table).tracking_uri == "http://registry:5000"

    mine = Settings.model_validate({"max_batch_size": 8, "MLFLOW_TRACKING_URI": "http://mine"})
    loud = load(tmp_path, EXAMPLE, mine)
    assert loud.settings_of(loud.table_of("fraud")).max_batch_size == 8
    assert loud.settings_of(None).tracking_uri == "http://mine"


def test_what_authors_may_set_is_said_for_all_or_for_some(tmp_path: Path) -> None:
    text = """
    [defaults]
    author_tags = "instances, max_batch_size"
    [models.a]
    author_tags = ["max_queue_delay_microseconds"]
    [models.b]
    author_tags = "none"
    """
    found = load(tmp_path, text)
    assert found.settings_of(None).author_tags == ("instances", "max_batch_size")
    of = {name: found.settings_of(found.table_of(name)).author_tags for name in "abc"}
    assert of["a"] == ("max_queue_delay_microseconds",)
    assert of["b"] == ()
    assert of["c"] == ("instances", "max_batch_size")
    assert load(tmp_path, "").settings_of(None).author_tags == AUTHOR_SETTINGS


def test_every_value_tells_where_it_comes_from(tmp_path: Path) -> None:
    found = load(tmp_path, EXAMPLE, Settings(device="gpu"))
    origins = found.origins_of(found.table_of("fraud"))
    assert origins["max_batch_size"].endswith('[models."fraud"]')
    assert origins["instances"].endswith("[defaults]")
    assert origins["device"] == "environment"
    assert origins["confirm_seconds"] == "default"
    assert set(origins) == set(Settings.model_fields)


@pytest.mark.parametrize(
    ("text", "value", "passes"),
    [
        (">= 0.9", 0.9, True),
        (">= 0.9", 0.8999, False),
        ("> 0.9", 0.9, False),
        ("<0.5", 0.4, True),
        ("<= 1e-3", 2e-3, False),
        ("== 1", 1.0, True),
        (">= 0.9", float("nan"), False),
    ],
)
def test_bounds(text: str, value: float, passes: bool) -> None:
    assert Bound(text=text).is_passed_by(value) is passes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[defaults", "cannot be read"),
        ("[default]", "default is not known"),
        ("[defaults]\nbatch = 3", "batch is not known"),
        ("[defaults]\nmax_batch_size = 0", "max_batch_size"),
        ('[defaults]\nauthor_tags = "device"', "author_tags: Input should be 'max_batch_size'"),
        ("defaults = 3", "not a table"),
        ('[models."a"]\nmax_batch_size = "many"', 'models."a"'),
        ('[models."a"]\nrepository = "s3://x"', "move it to [defaults]"),
        ('[models."a"]\nserve = {}', "watch = false"),
        ('[models."a"]\nserve = "a"', "not a table of texts"),
        ('[models."a"]\nserve = { champion = "a b" }', "cannot be the name of a Triton model"),
        ('[models."a"]\nserve = { champion = "" }', "cannot be the name of a Triton model"),
        ('[models."a"]\nserve = { champion = "{modle}-x" }', "only {model} can stand"),
        ('[models."a"]\nserve = { x = "same", y = "same" }', "same is the name for several"),
        ('[models."*"]\n[models."a"]', '[models."*"] stands before it'),
        ('[models."dev.*"]\n[models."dev.a"]', '[models."dev.*"] stands before it'),
        ('[models."a"]\nwatch = "no"', "not true or false"),
        ('[models."a"]\nmetrics = { auc = "0.9" }', "'>= 0.9'"),
        ('[models."a"]\nmetrics = { auc = ">= 1e" }', "'>= 0.9'"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    assert words in caught.value.message
    assert "t.toml" in caught.value.message


def test_a_file_that_was_named_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITONPIPE_CONFIG", str(tmp_path / "absent.toml"))
    with pytest.raises(SettingsError, match="no file"):
        load_configuration(Settings())
