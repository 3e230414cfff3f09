"""``tritonpipe history | gc | fsck``: looking after a model repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from pipeline.cli.errors import EXIT_CODES, PROBLEMS_REMAIN
from pipeline.cli.output import StageLog, dry_run_option, emit, json_option, say, table
from pipeline.errors import ConflictError

if TYPE_CHECKING:
    from pipeline.flows.fsck import CheckReport
    from pipeline.flows.history import Attempt, History
    from pipeline.flows.retention import ModelGarbage

_KEEP: Final = 3
"""The release that is served and two to return to."""


@click.command()
@click.argument("model")
@click.option("--limit", type=click.IntRange(min=1), help="Only the newest ones.")
@json_option
def history(model: str, limit: int | None, as_json: bool) -> None:  # noqa: FBT001
    """Show what was served as MODEL, and how it ended.

    When, by whom, from which run; newest first. Only the store is asked, so it works while MLflow
    and Triton are down.

    \b
    Examples:
      tritonpipe history fraud
      tritonpipe history fraud --limit 5 --json
    """
    from pipeline.configuration import effective_settings
    from pipeline.flows.history import history as read_history

    found = read_history(model, effective_settings(), limit=limit)
    emit(found, as_json=as_json, human=lambda: _print_history(found))
    if found.omitted:
        say(f"{found.omitted} older ones are not shown")
    for problem in found.problems:
        say(f"warning: {problem}")


@click.command()
@click.argument("models", nargs=-1)
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=_KEEP,
    show_default=True,
    help="Proven releases of each model that are kept in any case.",
)
@dry_run_option
@json_option
def gc(models: tuple[str, ...], keep: int, dry_run: bool, as_json: bool) -> int:  # noqa: FBT001
    """Remove versions that nobody needs from the repository.

    Never removed: what is served or committed, what any alias wishes, what a rollback would return
    to, what an ensemble names, and what a publication that has not ended is about. MODELS are
    Triton models; all of the repository by default. Safe beside running publications. A model
    whose state cannot be judged is left alone; the exit code is then that of a conflict.

    \b
    Examples:
      tritonpipe gc --dry-run
      tritonpipe gc --keep 2
      tritonpipe gc fraud
    """
    from pipeline.configuration import effective_settings
    from pipeline.flows.garbage import collect_garbage

    found = collect_garbage(
        effective_settings(), models, keep=keep, dry_run=dry_run, progress=StageLog()
    )
    emit(found, as_json=as_json, human=lambda: _print_garbage(found, dry_run=dry_run))
    for model in found:
        if model.problem:
            say(f"warning: {model.model} was left alone: {model.problem}")
    return EXIT_CODES[ConflictError] if any(model.problem for model in found) else 0


@click.command()
@click.argument("models", nargs=-1)
@click.option("--deep", is_flag=True, help="Read every byte of what is kept, not only its size.")
@click.option("--repair", is_flag=True, help="Put right what needs no decision of a person.")
@json_option
def fsck(
    models: tuple[str, ...],
    deep: bool,  # noqa: FBT001
    repair: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> int:
    """Compare manifests, objects, releases, journal and servers.

    Each finding says what follows from it and what to do. --repair writes back a manifest or a
    config that is known to be the published one, commits again what a server has missed, and
    removes what was never proven; nothing else is touched. MODELS are Triton models; all of the
    repository by default. The exit code is 0 if nothing is left that needs anybody, otherwise 12.

    \b
    Examples:
      tritonpipe fsck
      tritonpipe fsck fraud --deep
      tritonpipe fsck --repair --json
    """
    from pipeline.configuration import effective_settings
    from pipeline.flows.fsck import check_repository

    report = check_repository(
        effective_settings(), models, deep=deep, repair=repair, progress=StageLog()
    )
    emit(report, as_json=as_json, human=lambda: _print_report(report))
    return 0 if report.ok else PROBLEMS_REMAIN


def _print_history(found: History) -> None:
    table(
        ["when (UTC)", "version", "what", "how it ended", "served for", "release", "from", "by"],
        [
            [
                a.started[:19].replace("T", " "),
                a.version,
                a.action + _with_others(a),
                a.outcome + (f": {a.reason}" if a.reason else ""),
                _service(a, found.committed),
                a.digest[:19],
                _origin(a),
                a.by,
            ]
            for a in found.attempts
        ],
    )


def _with_others(attempt: Attempt) -> str:
    models = [name.rpartition("/")[0] for name in attempt.together]
    return f" of {', '.join(models)}" if len(models) > 1 else ""


def _service(attempt: Attempt, committed: int | None) -> str:
    if attempt.served_from is None:
        return ""
    if attempt.served_seconds is None:
        return "not known"
    is_now = attempt.served_until is None and attempt.version == committed
    return _duration(attempt.served_seconds) + (", until now" if is_now else "")


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _origin(attempt: Attempt) -> str:
    if not attempt.registered_model:
        return attempt.source
    run = f", run {attempt.run_id}" if attempt.run_id else ""
    return f"{attempt.registered_model}/{attempt.registered_version}{run}"


def _print_garbage(found: tuple[ModelGarbage, ...], *, dry_run: bool) -> None:
    done = "would be removed" if dry_run else "removed"
    rows: list[list[object]] = []
    for model in found:
        rows += [[model.model, v, "kept", ", ".join(why), ""] for v, why in model.kept.items()]
        rows += [
            [model.model, g.version, done, g.why, f"{g.objects} objects, {g.size} bytes"]
            for g in model.garbage
        ]
    if rows:
        table(["model", "version", "", "why", "size"], rows)
    else:
        say("the repository holds no version of any model")


def _print_report(report: CheckReport) -> None:
    if report.repairs:
        rows = [[r.code, r.subject, r.message] for r in report.repairs]
        table(["repaired", "subject", "how"], rows)
    if report.findings:
        table(
            ["severity", "code", "subject", "what", "what to do"],
            [[f.severity, f.code, f.subject, f.message, f.hint] for f in report.findings],
        )
    depth = "every byte read" if report.deep else "sizes only; --deep reads every byte"
    say(
        f"{report.models} models, {report.objects} objects, {depth}: "
        + (f"{len(report.findings)} findings" if report.findings else "nothing to complain about")
    )
