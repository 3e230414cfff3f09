"""Puts right what can be put right without a decision of a person.

Each repair restores a state that is proven: a manifest only if every byte is the one that was
published, a config only of the release that was proven last, and removed is only what was never
proven and no server holds. While an attempt is open or the journal is damaged, nothing is touched.
Every repair is written down in the journal. Done twice, the second does nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from pipeline.artifacts import Release
from pipeline.findings import Finding
from pipeline.flows.commit import commit, withdraw_files
from pipeline.flows.consistency import is_consistent, store_findings
from pipeline.flows.consistency_of_servers import server_findings
from pipeline.flows.evidence import Evidence, altered_files, ask_servers, examine
from pipeline.flows.garbage import remove_versions
from pipeline.flows.journal import FSCK, REPAIRED
from pipeline.flows.publish import WARMUP_MARKER, WARMUP_TEXT, RepositoryState, damage
from pipeline.flows.repository import Repository
from pipeline.flows.retention import garbage_of
from pipeline.locks import Held
from pipeline.manifest import MANIFEST_NAME
from pipeline.model_config import CONFIG_NAME

_POLL_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """Something that was put right.

    Attributes:
        code: Of the finding that it answers.
        subject: Of that finding.
        message: What was done.
    """

    code: str
    subject: str
    message: str


def model_findings(evidence: Evidence) -> list[Finding]:
    """Everything that is wrong with a model."""
    return [*store_findings(evidence), *server_findings(evidence)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repairer:
    """Repairs one model whose lock is held.

    Attributes:
        repository: Where.
        held: The lock.
        seconds: How long to wait for the servers after a commit.
    """

    repository: Repository
    held: Held
    seconds: float

    def repair(self, model: str) -> tuple[list[Repair], Evidence]:
        """Repair what can be; gives what was done and what there is then.

        Raises:
            ConflictError: The lock was lost, or somebody writes without it.
            UnavailableError: The store does not answer.
        """
        done: list[Repair] = []
        tried: set[tuple[str, str]] = set()
        while True:
            index, silent = ask_servers(self.repository.replicas)
            evidence = examine(self.repository, model, index)
            if evidence.journal_damage or evidence.holdings.attempt:
                return done, evidence
            todo = [f for f in model_findings(evidence) if f.code in _REPAIRS]
            todo = [f for f in todo if (f.code, f.subject) not in tried]
            if not todo:
                return done, evidence
            finding = todo[0]
            tried.add((finding.code, finding.subject))
            needs_servers = finding.code in _REMOVALS
            message = (
                "" if needs_servers and silent else _REPAIRS[finding.code](self, evidence, finding)
            )
            if message:
                if finding.code not in _WRITTEN_DOWN:
                    self._note(evidence, finding, message)
                done.append(Repair(code=finding.code, subject=finding.subject, message=message))

    def _note(self, evidence: Evidence, finding: Finding, message: str) -> None:
        version = _version_of(finding) or evidence.expected or 0
        self.repository.journal.append(
            evidence.model,
            action=FSCK,
            event=REPAIRED,
            version=version,
            previous=None,
            reason=f"{finding.subject}: {message}",
        )

    def write_manifest(self, evidence: Evidence, finding: Finding) -> str:
        """Write a manifest back, if all bytes of the version are those that it lists."""
        release = evidence.holdings.releases[_version_of(finding)]
        folder = f"{evidence.model}/{release.manifest.version}"
        sizes = {key: o.size for key, o in evidence.objects.items()}
        files = release.manifest.files
        if any(sizes.get(f"{folder}/{f.path}") != f.size for f in files):
            return ""
        if altered_files(self.repository, release):
            return ""
        self.held.require_held()
        self.repository.store.put(f"{folder}/{MANIFEST_NAME}", release.manifest.to_bytes())
        return f"written back: all {len(files)} files have the digests of the release"

    def write_config(self, evidence: Evidence, _finding: Finding) -> str:
        """Commit the release that was proven last."""
        release = self._whole_release(evidence)
        if release is None:
            return ""
        self._commit(evidence, release)
        return f"written back as it was when version {evidence.expected} was proven"

    def commit_again(self, evidence: Evidence, _finding: Finding) -> str:
        """Give a server that has missed the commit a newer one to see."""
        release = self._whole_release(evidence)
        if release is None or evidence.holdings.config != release.config.encode():
            return ""
        self._commit(evidence, release)
        return f"version {evidence.expected} was committed again"

    def write_marker(self, evidence: Evidence, _finding: Finding) -> str:
        """Make the warm-up folder exist."""
        self.held.require_held()
        self.repository.store.create(f"{evidence.model}/{WARMUP_MARKER}", WARMUP_TEXT)
        return "written back"

    def remove(self, evidence: Evidence, finding: Finding) -> str:
        """Remove a version that was never proven, or whose collection was begun."""
        version, holdings = _version_of(finding), evidence.holdings
        if holdings.held(version) or holdings.is_loading:
            return ""
        garbage = garbage_of(holdings, version)
        remove_versions(self.repository, holdings, [garbage], action=FSCK, held=self.held)
        return f"removed {garbage.objects} objects, {garbage.size} bytes"

    def withdraw(self, evidence: Evidence, _finding: Finding) -> str:
        """Remove what is left of a model that was never proven and lost its config."""
        if (
            evidence.holdings.is_loading
            or not evidence.objects
            or not evidence.holdings.is_recorded
        ):
            return ""
        self.held.require_held()
        withdraw_files(self.repository.store, evidence.model)
        return f"removed the last {len(evidence.objects)} objects of the model"

    def _whole_release(self, evidence: Evidence) -> Release | None:
        """The release that was proven last, if it can be served again as it is."""
        release = evidence.holdings.releases.get(evidence.expected or 0)
        if release is None or not is_consistent(release, evidence.model, release.manifest.version):
            return None
        return None if damage(self.repository.store, release.manifest) else release

    def _commit(self, evidence: Evidence, release: Release) -> None:
        found = evidence.objects.get(f"{evidence.model}/{CONFIG_NAME}")
        state = RepositoryState(
            model=evidence.model,
            objects=dict(evidence.objects),
            config=None,  # what is there may not even be text; its ETag is what counts
            config_etag=None if found is None else found.etag,
        )
        commit(self.repository.store, state, release.config, held=self.held)
        self._await_served(evidence, release.manifest.version)

    def _await_served(self, evidence: Evidence, version: int) -> None:
        """Wait for the servers that answer; what is not served then, is found so."""
        deadline = time.monotonic() + self.seconds
        answering = [
            r for r in self.repository.replicas if r.http_address in evidence.holdings.servers
        ]
        while not all(r.is_ready(evidence.model, version) for r in answering):
            if time.monotonic() > deadline:
                return
            time.sleep(_POLL_SECONDS)


_Action: TypeAlias = Callable[[Repairer, Evidence, Finding], str]
_REPAIRS: Final[Mapping[str, _Action]] = {
    "manifest-missing": Repairer.write_manifest,
    "manifest-altered": Repairer.write_manifest,
    "leftover": Repairer.remove,
    "collection-unfinished": Repairer.remove,
    "warmup-marker-missing": Repairer.write_marker,
    "config-missing": Repairer.write_config,
    "config-damaged": Repairer.write_config,
    "config-altered": Repairer.write_config,
    "commit-not-seen": Repairer.commit_again,
    "withdrawn-but-served": Repairer.withdraw,
}
_WRITTEN_DOWN: Final = frozenset({"leftover", "collection-unfinished"})
"""Repairs that the journal knows as collections."""

_REMOVALS: Final = _WRITTEN_DOWN | {"withdrawn-but-served"}
"""Repairs that need to know what every server holds."""


def _version_of(finding: Finding) -> int:
    """The version in ``MODEL/N`` or ``MODEL/N/FILE``; 0 if there is none."""
    parts = finding.subject.split("/")
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0
