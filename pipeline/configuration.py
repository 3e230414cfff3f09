"""Which models are served and how, from ``tritonpipe.toml``; every value knows where it comes from.

::

    [defaults]                      # any setting of pipeline/settings.py by its name
    max_queue_delay_microseconds = 500

    [models."fraud"]                # a name in the registry, or a pattern as in a shell
    serve = { champion = "fraud", challenger = "fraud-challenger" }
    requires = { validation_status = "approved" }        # tags of the version
    metrics = { auc = ">= 0.9" }                         # what its run has measured
    max_batch_size = 128

    [models."dev.*"]
    watch = false

Of the tables that fit a model, the first one counts. A variable of the environment counts before
the file, a table before ``[defaults]``.
"""

from __future__ import annotations

import operator
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from pipeline.errors import SettingsError
from pipeline.served_names import problem_of, shadowed
from pipeline.settings import Settings, load_settings

FILE_NAME: Final = "tritonpipe.toml"
FILE_VARIABLE: Final = "TRITONPIPE_CONFIG"

DEFAULT: Final = "default"
ENVIRONMENT: Final = "environment"

_OWN_KEYS: Final = frozenset({"serve", "watch", "requires", "metrics"})
OF_THE_SYSTEM: Final = frozenset(
    {
        "tracking_uri", "repository", "records", "triton_http", "triton_grpc", "lock",
        "verify_key", "verify_certificates", "verify_identity", "verify_issuer", "cache",
        "cache_bytes", "alias",
    }
)  # fmt: skip
"""Settings that belong to the whole system, not to one model."""

_BOUND: Final = re.compile(r"\s*(?P<sign><=|>=|<|>|==)\s*(?P<value>[-+0-9.eE]+)\s*")
_SIGNS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a metric must pass.

    Attributes:
        text: As it was written.
    """

    text: str

    def is_passed_by(self, value: float) -> bool:
        """Whether a value passes; NaN passes nothing."""
        match = _BOUND.fullmatch(self.text)
        return match is not None and _SIGNS[match["sign"]](value, float(match["value"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTable:
    """How the registered models whose names fit a pattern are served.

    Attributes:
        pattern: As in a shell.
        watch: Whether they are looked after at all.
        serve: Names in Triton by alias; None for the default alias under the model's own name.
        requires: Tags that a version must have before it is served.
        metrics: Bounds that the metrics of its run must pass.
        settings: Settings that hold for them, as they were written.
    """

    pattern: str
    watch: bool = True
    serve: Mapping[str, str] | None = None
    requires: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Bound] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The file, and the settings from the environment below it.

    Attributes:
        path: The file; None if there is none.
        base: The settings without any table.
        defaults: What ``[defaults]`` says, as it was written.
        models: The tables, in their order.
    """

    base: Settings
    path: Path | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    models: tuple[ModelTable, ...] = ()

    def table_of(self, name: str) -> ModelTable | None:
        """The table that is about a registered model; None if there is none."""
        return next((table for table in self.models if fnmatchcase(name, table.pattern)), None)

    def settings_of(self, table: ModelTable | None) -> Settings:
        """The settings that hold for the models of a table."""
        return _settings(self.base, self.defaults, table.settings if table else {})

    def origins_of(self, table: ModelTable | None) -> dict[str, str]:
        """Where each setting comes from."""
        found = dict.fromkeys(Settings.model_fields, DEFAULT)
        found |= dict.fromkeys(self.defaults, f"{self.path}, [defaults]")
        if table is not None:
            found |= dict.fromkeys(table.settings, f'{self.path}, [models."{table.pattern}"]')
        return found | dict.fromkeys(self.base.model_fields_set, ENVIRONMENT)


def load_configuration(base: Settings, path: Path | None = None) -> Configuration:
    """Read the file.

    Args:
        base: The settings of the environment.
        path: The file; by default the one that ``TRITONPIPE_CONFIG`` names, or ``tritonpipe.toml``
            in the working directory, if there is one.

    Raises:
        SettingsError: The file cannot be read, or says something that is not understood; names the
            table and the key.
    """
    named, file = _named_file(path), file_of(path)
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named is None:
            return Configuration(base=base)
        raise SettingsError(f"there is no file {file}", hint=f"correct {FILE_VARIABLE}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} cannot be read: {error}", hint="correct it") from error
    unknown = document.keys() - {"defaults", "models"}
    if unknown:
        raise _wrong(file, "", f"{', '.join(sorted(unknown))} is not known; there are "
                     "[defaults] and [models.\"NAME\"]")  # fmt: skip
    defaults = _mapping(file, "defaults", document.get("defaults", {}))
    _refuse_unknown(file, "defaults", defaults, frozenset(Settings.model_fields))
    tables = _mapping(file, "models", document.get("models", {}))
    models = tuple(_table(file, pattern, content) for pattern, content in tables.items())
    for pattern, earlier in shadowed([*tables]).items():
        raise _wrong(file, f'models."{pattern}"', f'[models."{earlier}"] stands before it and is '
                     "about the same models, so nothing of it holds: put it first")  # fmt: skip
    found = Configuration(base=base, path=file, defaults=defaults, models=models)
    for table in (None, *models):
        try:
            found.settings_of(table)
        except ValidationError as error:
            where = f'models."{table.pattern}"' if table else "defaults"
            problems = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())
            raise _wrong(file, where, problems) from None
    return found


def file_of(path: Path | None) -> Path:
    """The file that :func:`load_configuration` reads, whether it is there or not."""
    return _named_file(path) or Path(FILE_NAME)


def _named_file(path: Path | None) -> Path | None:
    return path or (Path(os.environ[FILE_VARIABLE]) if os.environ.get(FILE_VARIABLE) else None)


def _settings(base: Settings, *layers: Mapping[str, Any]) -> Settings:
    """Settings with values from a file, of which later layers count more; the environment most."""
    values: dict[str, Any] = {}
    for layer in layers:
        values |= layer
    values |= {name: getattr(base, name) for name in base.model_fields_set}
    if "tracking_uri" in values:  # the one field that has another name outside
        values["MLFLOW_TRACKING_URI"] = values.pop("tracking_uri")
    return Settings.model_validate(values)


def _table(file: Path, pattern: str, content: Any) -> ModelTable:
    where = f'models."{pattern}"'
    values = _mapping(file, where, content)
    allowed = (frozenset(Settings.model_fields) - OF_THE_SYSTEM) | _OWN_KEYS
    _refuse_unknown(file, where, values, allowed)
    watch = values.get("watch", True)
    if not isinstance(watch, bool):
        raise _wrong(file, where, f"watch is {watch!r}, not true or false")
    serve = _texts(file, where, "serve", values.get("serve"))
    if "serve" in values and not serve:
        raise _wrong(file, where, "serve names no alias; to serve nothing, write watch = false")
    problem = problem_of(serve)
    if problem:
        raise _wrong(file, where, f"serve: {problem}")
    return ModelTable(
        pattern=pattern,
        watch=watch,
        serve=serve or None,
        requires=_texts(file, where, "requires", values.get("requires")),
        metrics={
            name: _bound(file, where, name, text)
            for name, text in _texts(file, where, "metrics", values.get("metrics")).items()
        },
        settings={key: value for key, value in values.items() if key not in _OWN_KEYS},
    )


def _bound(file: Path, where: str, name: str, text: str) -> Bound:
    match = _BOUND.fullmatch(text)
    try:
        float(match["value"] if match else "none")
    except ValueError:
        raise _wrong(
            file, where, f"the bound of metric {name} is {text!r}; write it as '>= 0.9'"
        ) from None
    return Bound(text=text)


def _mapping(file: Path, where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(file, where, f"it is {value!r}, not a table")
    return value


def _texts(file: Path, where: str, key: str, value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise _wrong(file, where, f"{key} is {value!r}, not a table of texts")
    return value


def _refuse_unknown(
    file: Path, where: str, values: Mapping[str, Any], allowed: frozenset[str]
) -> None:
    for key in values:
        if key in allowed:
            continue
        if key in OF_THE_SYSTEM:
            raise _wrong(file, where, f"{key} holds for all models: move it to [defaults]")
        raise _wrong(file, where, f"{key} is not known; known are {', '.join(sorted(allowed))}")


def _wrong(file: Path, where: str, text: str) -> SettingsError:
    table = f"[{where}]: " if where else ""
    return SettingsError(f"{file}: {table}{text}", hint="correct it; tritonpipe config check")


def effective_settings() -> Settings:
    """The settings of the environment, and below them those of the file's ``[defaults]``.

    Raises:
        SettingsError: A variable or the file is wrong.
    """
    return load_configuration(load_settings()).settings_of(None)
