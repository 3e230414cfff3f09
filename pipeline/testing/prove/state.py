"""Whether everything is as it should be in the end: store, journal, server and answers."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from pipeline.manifest import MANIFEST_NAME, differences, manifest_from_bytes
from pipeline.model_config import CONFIG_NAME
from pipeline.testing.prove.arena import Arena
from pipeline.testing.prove.entries import golden_answers

_ALLOWED: Final = frozenset({CONFIG_NAME, "warmup/README"})
_PARTS: Final = ".rclone_temp_multipart_"
"""Where the server keeps the parts of an upload that nobody completed; S3 does not show them."""


def wrong_model(
    arena: Arena, model: str, version: int, *, ending: tuple[str, int] | None = None
) -> list[str]:
    """Why it is not true that this version is served and all is well; empty if it is.

    Args:
        arena: Where.
        model: Triton model.
        version: The one that should be served.
        ending: Event and version that the journal should end with; by default the proof of it.
    """
    problems = []
    committed = arena.committed(model)
    if committed != version:
        problems.append(f"the config names {committed}")
    config = arena.model_folder(model) / CONFIG_NAME
    manifest = arena.model_folder(model) / str(version) / MANIFEST_NAME
    if config.is_file() and manifest.is_file():
        digest = manifest_from_bytes(manifest.read_bytes()).config_sha256
        if hashlib.sha256(config.read_bytes()).hexdigest() != digest:
            problems.append("the config is not the one of the manifest")
    problems += _strange_files(arena, model) + wrong_version(arena, model, version)
    problems += _wrong_journal(arena.events(model), ending or ("confirmed", version))
    arena.settled(model)
    states = arena.states(model)
    ready = [v for v, state in states.items() if state == "READY"]
    if ready != [version]:
        problems.append(f"Triton serves {ready}, all states {states}")
    return [f"{model}/{version}: {problem}" for problem in problems]


def wrong_version(arena: Arena, model: str, version: int) -> list[str]:
    """How folder and record of a version differ from what was published."""
    folder = arena.model_folder(model) / str(version)
    if not (folder / MANIFEST_NAME).is_file():
        return ["there is no manifest"]
    data = (folder / MANIFEST_NAME).read_bytes()
    found = differences(folder, manifest_from_bytes(data))
    problems = [words for words in found if _PARTS not in words]
    return problems + _wrong_records(arena, model, version, data)


def _strange_files(arena: Arena, model: str) -> list[str]:
    folder = arena.model_folder(model)
    paths = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    return [
        f"there is {path}"
        for path in paths
        if path not in _ALLOWED and not path.split("/")[0].isdigit() and _PARTS not in path
    ]


def _wrong_records(arena: Arena, model: str, version: int, manifest: bytes) -> list[str]:
    recorded, golden = arena.recorded(model, version)
    problems = []
    if recorded != manifest:
        problems.append("the record has another manifest")
    if golden != golden_answers(version).to_bytes():
        problems.append("the record has other golden answers")
    return problems


def _wrong_journal(events: list[dict[str, Any]], ending: tuple[str, int]) -> list[str]:
    if not events:
        return ["the journal is empty"]
    last = events[-1]
    if (last["event"], last["version"]) != ending:
        return [f"the journal ends with {json.dumps(last)}"]
    return []
