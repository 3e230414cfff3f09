"""``tritonpipe cache ls | prune``: exports that need not be made again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from pipeline.cli.output import dry_run_option, emit, json_option, say, table
from pipeline.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.flows.export_cache import CachedExport, ExportCache


@click.group()
def cache() -> None:
    """List and remove exports that are kept on this machine."""


@cache.command("ls")
@json_option
def list_exports(as_json: bool) -> None:  # noqa: FBT001
    """List the kept exports, the one used last first.

    \b
    Examples:
      tritonpipe cache ls
      tritonpipe cache ls --json | jq 'map(.size) | add'
    """
    kept = _open()
    _emit(kept.entries(), kept.folder, as_json=as_json, nothing="no export is kept")


@cache.command()
@click.option("--all", "everything", is_flag=True, help="Remove all of them.")
@dry_run_option
@json_option
def prune(everything: bool, dry_run: bool, as_json: bool) -> None:  # noqa: FBT001
    """Remove the exports not used for longest, beyond TRITONPIPE_CACHE_BYTES.

    That happens by itself whenever an export is added. What is published does not need them.

    \b
    Examples:
      tritonpipe cache prune --all --dry-run
      TRITONPIPE_CACHE_BYTES=1000000000 tritonpipe cache prune
    """
    kept = _open()
    limit = 0 if everything else kept.most_bytes
    removed = kept.superfluous(limit) if dry_run else kept.prune(limit)
    _emit(removed, kept.folder, as_json=as_json, nothing="there is nothing to remove")


def _open() -> ExportCache:
    from pipeline.configuration import effective_settings
    from pipeline.flows.export_cache import open_cache

    kept = open_cache(effective_settings())
    if kept is None:
        raise SettingsError(
            "TRITONPIPE_CACHE is off, so no export is kept",
            hint="unset it, or name a folder",
        )
    return kept


def _emit(entries: list[CachedExport], folder: Path, *, as_json: bool, nothing: str) -> None:
    def human() -> None:
        if not entries:
            say(nothing)
            return
        table(
            ["export", "made for", "flavor", "MB", "last used"],
            [
                [
                    entry.key[:12],
                    entry.model,
                    entry.flavor,
                    f"{entry.size / 1e6:,.3f}",
                    datetime.fromtimestamp(entry.used_at, UTC).isoformat(" ", "seconds"),
                ]
                for entry in entries
            ],
        )
        total = sum(entry.size for entry in entries)
        say(f"{len(entries)} exports, {total / 1e6:,.3f} MB in {folder}")

    emit(entries, as_json=as_json, human=human)
