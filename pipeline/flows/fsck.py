"""Compares manifests, objects, releases, journal and servers; repairs where it is safe.

Each model is looked at under its lock, so that a publication at work is never taken for damage.
Without ``repair`` nothing is written but the lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from pipeline.errors import ConflictError, RequestError, SettingsError
from pipeline.findings import Finding, Severity
from pipeline.flows.consistency import altered_object
from pipeline.flows.evidence import Evidence, Index, altered_files, ask_servers, examine
from pipeline.flows.garbage import models_in
from pipeline.flows.locking import held_lock
from pipeline.flows.progress import Progress, silent
from pipeline.flows.repair import Repair, Repairer, model_findings
from pipeline.flows.repository import Repository, open_repository
from pipeline.model_config import check_name
from pipeline.odd_names import odd_names
from pipeline.repository_names import is_legal_model
from pipeline.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """How a repository is.

    Attributes:
        findings: What is wrong, most severe first; after the repairs.
        repairs: What was put right.
        models: How many models were looked at.
        objects: How many objects the repository holds.
        deep: Whether every byte was read.
    """

    findings: tuple[Finding, ...]
    repairs: tuple[Repair, ...]
    models: int
    objects: int
    deep: bool

    @property
    def ok(self) -> bool:
        """Whether nothing is left that needs anybody; notes do not."""
        return all(f.severity is Severity.NOTE for f in self.findings)


def check_repository(
    settings: Settings,
    models: Sequence[str] = (),
    *,
    deep: bool = False,
    repair: bool = False,
    progress: Progress = silent,
) -> CheckReport:
    """Check these models, or the whole repository.

    Args:
        settings: Where the servers are, and how long to wait for locks and servers.
        models: Triton models; all that repository or records know if there are none.
        deep: Read every byte of every release that is kept, and compare its digest.
        repair: Put right what needs no decision of a person.
        progress: Told the stages.

    Raises:
        RequestError: Neither repository nor records know a model.
        SettingsError: To repair, there is no lock that would hold.
        UnavailableError: The store does not answer; what was repaired until then stays so.
    """
    with open_repository(settings) as repository:
        check = Check(
            repository=repository,
            deep=deep,
            repair=repair,
            lock_seconds=settings.lock_seconds,
            confirm_seconds=settings.confirm_seconds,
            progress=progress,
        )
        return check.run(models)


@dataclass(slots=True, kw_only=True)
class Check:
    """One run over a repository; see :func:`check_repository`."""

    repository: Repository
    deep: bool
    repair: bool
    lock_seconds: float
    confirm_seconds: float
    progress: Progress
    findings: list[Finding] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)

    def run(self, models: Sequence[str]) -> CheckReport:
        """Look at every model, then at the names of all objects."""
        keys, _unlisted = self._keys()
        known = sorted({*models_in(keys), *_recorded_models(self.repository)})
        unknown = [name for name in models if check_name(name) not in known]
        if unknown:
            raise RequestError(
                f"neither repository nor records know {', '.join(map(repr, unknown))}",
                hint="see what there is: tritonpipe status",
            )
        index, without_answer = ask_servers(self.repository.replicas)
        self.findings += [_silent(address, why) for address, why in without_answer.items()]
        for name in models or known:
            with self.progress("check") as describe:
                before = len(self.findings)
                self._check(name, index)
                describe(f"{name}: {len(self.findings) - before} findings")
        keys, unlisted = self._keys()  # again: repairs may have removed some
        self.findings += unlisted
        self.findings += [
            f for f in odd_names(keys) if not models or f.subject.partition("/")[0] in models
        ]
        if not models:
            self.findings += _unknown_models(index, known)
        severities = list(Severity)
        return CheckReport(
            findings=tuple(
                sorted(self.findings, key=lambda f: (severities.index(f.severity), f.subject))
            ),
            repairs=tuple(self.repairs),
            models=len(models or known),
            objects=len(keys),
            deep=self.deep,
        )

    def _keys(self) -> tuple[list[str], list[Finding]]:
        """All keys of the repository; none, and a finding, if one of them forbids a listing."""
        try:
            return [o.key for o in self.repository.store.list_folder("")], []
        except ConflictError as error:
            return [], [_unlistable(error)]

    def _check(self, model: str, index: Index) -> None:
        try:
            self._check_listable(model, index)
        except ConflictError as error:
            self.findings.append(_not_checked(model, error))

    def _check_listable(self, model: str, index: Index) -> None:
        with ExitStack() as stack:
            try:
                held = stack.enter_context(
                    held_lock(
                        self.repository.locks, model, seconds=self.lock_seconds, progress=silent
                    )
                )
            except SettingsError:
                if self.repair:
                    raise
                held = None  # to read, it does without; what a publication does may look odd
            if self.repair and held is not None:
                repairer = Repairer(
                    repository=self.repository, held=held, seconds=self.confirm_seconds
                )
                done, evidence = repairer.repair(model)
                self.repairs += done
            else:
                evidence = examine(self.repository, model, index)
            self.findings += model_findings(evidence)
        if self.deep:
            self._read_all(evidence)

    def _read_all(self, evidence: Evidence) -> None:
        """Read the files of all kept releases; without the lock, since they never change."""
        for version in sorted(evidence.kept & evidence.holdings.releases.keys()):
            release = evidence.holdings.releases[version]
            sizes = {f"{evidence.model}/{version}/{f.path}": f.size for f in release.manifest.files}
            self.findings += [
                altered_object(key, sizes[key], sizes[key])
                for key in altered_files(self.repository, release)
            ]


def _recorded_models(repository: Repository) -> set[str]:
    parts = (o.key.split("/") for o in repository.records.list_folder(""))
    names = {p[0] for p in parts if len(p) > 2 and p[1] in {"journal", "releases"}}
    return {name for name in names if is_legal_model(name)}


def _unlistable(error: ConflictError) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        code="unlistable",
        subject="/",
        message=f"{error.message}. At a leading or doubled slash, Triton's listing fails, too, "
        "with 'Cannot handle item with empty name', and it unloads every model",
        hint="delete that object at once, with a tool that keeps the slashes; then check again: "
        "models without a record and odd names were not looked at",
    )


def _silent(address: str, why: str) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        code="server-silent",
        subject=address,
        message=f"what it serves is not known: {why}",
        hint="start it, or correct TRITONPIPE_TRITON_HTTP and TRITONPIPE_TRITON_GRPC",
    )


def _not_checked(model: str, error: ConflictError) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        code="not-checked",
        subject=model,
        message=error.message,
        hint=error.hint or "check it again when nobody else works on the model",
    )


def _unknown_models(index: Index, known: Sequence[str]) -> list[Finding]:
    """Models that a server serves, and that neither repository nor records know."""
    found = []
    for address, models in index.items():
        for name, states in (models or {}).items():
            if name not in known and any(s.state == "READY" for s in states.values()):
                found.append(
                    Finding(
                        severity=Severity.NOTE,
                        code="served-from-elsewhere",
                        subject=name,
                        message=f"Triton at {address} serves it, and this repository does not "
                        "know it",
                        hint="none, if the server polls another repository, too",
                    )
                )
    return found
