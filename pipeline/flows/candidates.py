"""What a hand-written entry would be as a release, and whether it is one already.

Guarantees: what a version was proven with (files, config, golden answers) never changes; a version
that was published from the same bytes is found again, whatever commit they are at now.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline import __version__
from pipeline.artifacts import Release, RepositoryEntry
from pipeline.errors import ConflictError
from pipeline.flows.journal import COLLECTED, FAILED, was_confirmed
from pipeline.flows.publication import Candidate
from pipeline.flows.publish import RepositoryState, read_state
from pipeline.flows.release import recorded_release, refuse_unsigned
from pipeline.flows.servers import Servers
from pipeline.handwritten import HandwrittenEntry, read_entry
from pipeline.manifest import Lineage, Manifest, digest_folder, digest_of_files
from pipeline.model_config import served_versions
from pipeline.reports import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE
from pipeline.settings import Settings

FLAVOR: Final = "handwritten"
"""Stands in the lineage where promoted models have the flavor that was exported."""

_NEW_VERSION: Final = "a version never changes: rename its folder to the next number (git mv 1 2)"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """An entry that is valid, and what the store held of it when that was found."""

    candidate: Candidate
    state: RepositoryState

    @property
    def model(self) -> str:
        """Name of the Triton model."""
        return self.state.model

    @property
    def config(self) -> str:
        """Text of the ``config.pbtxt`` that serves it."""
        return self.candidate.release.config


def candidate_from_folder(
    folder: Path,
    work: Path,
    *,
    relative_tolerance: float = RELATIVE_TOLERANCE,
    absolute_tolerance: float = ABSOLUTE_TOLERANCE,
    source: str = "",
) -> Candidate:
    """The entry in a folder as it would be published; the store is not asked.

    Args:
        folder: As people write it, see :mod:`pipeline.handwritten`.
        work: Gets a copy of the files; must exist as long as the candidate.
        relative_tolerance: For floating-point answers.
        absolute_tolerance: Likewise, near zero.
        source: Where its files come from; by default the folder, and its commit.

    Raises:
        RequestError: The folder is not laid out as an entry, or a name is not legal.
        ModelError: The entry is not valid.
    """
    entry = read_entry(folder)
    copy = work / entry.name
    copy.mkdir(parents=True)
    for path in entry.files:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(entry.folder / path, copy / path)
    files = digest_folder(copy)
    manifest = Manifest(
        model=entry.name,
        version=entry.version,
        config_sha256=hashlib.sha256(entry.config.encode()).hexdigest(),
        files=files,
        lineage=Lineage(
            registered_model="",
            registered_version=entry.version,
            run_id=None,
            source=source or _source(entry),
            source_digest=digest_of_files(files),
            flavor=FLAVOR,
        ),
        tools={"tritonpipe": __version__},
    )
    release = Release(
        manifest=manifest,
        config=entry.config,
        relative_tolerance=relative_tolerance,
        absolute_tolerance=absolute_tolerance,
    )
    repository_entry = RepositoryEntry(folder=copy, manifest=manifest, config=entry.config)
    return Candidate(release=release, golden=entry.golden, entry=repository_entry)


def decided(servers: Servers, candidate: Candidate, settings: Settings) -> Prepared:
    """The candidate, or its recorded release if this version was published before.

    Raises:
        ConflictError: The version was proven, or is committed, with other bytes; or the model is
            not ours to publish.
    """
    manifest = candidate.release.manifest
    state = read_state(servers.repository, manifest.model)
    committed = committed_versions(state)
    _refuse_registered(servers, state, committed)
    entries = servers.journal.entries(state.model)
    events = [e for e in entries if e.version == manifest.version]
    is_fixed = manifest.version in committed or was_confirmed(events, manifest.version)
    if not is_fixed and (not events or events[-1].event in {FAILED, COLLECTED}):
        return Prepared(candidate=candidate, state=state)
    try:
        release, golden = recorded_release(servers, state.model, manifest.version)
    except ConflictError:
        if is_fixed:
            raise
        return Prepared(candidate=candidate, state=state)
    recorded = Candidate(release=release, golden=golden, entry=None)
    changes = _changes(recorded, candidate)
    if not changes:
        if settings.sign and manifest.version not in committed:
            refuse_unsigned(state, manifest.version)
        return Prepared(candidate=recorded, state=state)
    if is_fixed:
        raise ConflictError(
            f"{state.model}/{manifest.version} was published with other {' and '.join(changes)}",
            hint=_NEW_VERSION,
        )
    return Prepared(candidate=candidate, state=state)


def _changes(recorded: Candidate, candidate: Candidate) -> list[str]:
    """What of a release differs, in words; where it was made from may differ."""
    before, now = recorded.release, candidate.release
    differs = {
        "files": before.manifest.files != now.manifest.files,
        "config.pbtxt": before.config != now.config,
        "golden answers": recorded.golden.to_bytes() != candidate.golden.to_bytes(),
    }
    return [what for what, is_different in differs.items() if is_different]


def committed_versions(state: RepositoryState) -> tuple[int, ...]:
    """The versions that the config names: several while a release of several models switches."""
    try:
        versions = served_versions(state.config or "")
    except ValueError:
        versions = ()
    return versions if versions or state.version is None else (state.version,)


def _refuse_registered(servers: Servers, state: RepositoryState, committed: Sequence[int]) -> None:
    if not committed:
        return
    release = servers.journal.release(state.model, max(committed))
    if release is None or not release.manifest.lineage.is_by_hand:
        serves = (
            "something that has no record here"
            if release is None
            else f"the registered model {release.manifest.lineage.registered_model!r}"
        )
        raise ConflictError(
            f"Triton model {state.model!r} serves {serves}, not a hand-written entry",
            hint="rename the folder, and the name in its config.pbtxt",
        )


def _source(entry: HandwrittenEntry) -> str:
    """``PATH@COMMIT`` in a git checkout that has exactly these files; the bare name elsewhere."""
    git, folder = shutil.which("git"), entry.folder.parent
    if git is None:
        return entry.name

    def ask(*arguments: str) -> str | None:
        done = subprocess.run(  # noqa: S603  git itself, and no words of others
            [git, "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout if done.returncode == 0 else None

    where = ask("rev-parse", "--show-prefix", "HEAD")
    changed = ask("status", "--porcelain", "--ignored", "--", ".")
    if where is None or changed != "":
        return entry.name
    path, commit = where.split()
    return f"{path.rstrip('/')}@{commit}"
