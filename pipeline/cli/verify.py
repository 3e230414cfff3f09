"""``tritonpipe verify | verify-release``."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.output import StageLog, emit, json_option, print_line, table
from pipeline.cli.references import release_from_text


@click.command()
@click.argument("model")
@json_option
def verify(model: str, as_json: bool) -> None:  # noqa: FBT001
    """Ask the live servers again for the recorded answers.

    MODEL is the name in Triton. Its golden inputs are sent to every server over gRPC and HTTP, and
    the answers compared with the source model's own predictions. Nothing is changed; exit code
    10 says that a server answers otherwise.

    \b
    Examples:
      tritonpipe verify fraud
      tritonpipe verify fraud --json | jq .confirmation.latency_milliseconds
    """
    from pipeline.configuration import effective_settings
    from pipeline.flows.live_verification import verify_live

    found = verify_live(model, effective_settings(), progress=StageLog())

    def human() -> None:
        table(
            ["run", "output", "rows", "max abs. error"],
            [
                [c.subject, c.output, str(c.rows), f"{c.max_absolute_error:.1e}"]
                for c in found.confirmation.comparisons
            ],
        )
        latency = ", ".join(
            f"{protocol} {ms:.1f} ms"
            for protocol, ms in found.confirmation.latency_milliseconds.items()
        )
        print_line(
            f"{found.model}/{found.confirmation.version} answers as recorded on {found.servers} "
            f"of {found.servers} servers: {latency}"
        )

    emit(found, as_json=as_json, human=human)


@click.command("verify-release")
@click.argument("release")
@click.option(
    "--public-key",
    type=click.Path(path_type=Path),
    help="By which it must be signed; default: TRITONPIPE_VERIFY_KEY.",
)
@json_option
def verify_release(release: str, public_key: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Check that a release is what was signed, byte for byte.

    RELEASE is MODEL/VERSION, or MODEL for the version published now. It is downloaded into a
    temporary folder; exit code 7 says that it is unsigned, altered, has a file too many or too few,
    or is served with another config than it was published with.

    \b
    Examples:
      tritonpipe verify-release fraud --public-key key.pub
      tritonpipe verify-release fraud/7 --json
    """
    from pipeline.configuration import effective_settings
    from pipeline.flows.verify import verify_release as run_verification
    from pipeline.signing.choice import chosen_trust

    model, version = release_from_text(release, command="verify-release")
    settings = effective_settings()
    trust = public_key or chosen_trust(settings)
    found = run_verification(model, version, settings, trust, progress=StageLog())

    def human() -> None:
        config = "and its config " if found.served else "(not served) "
        print_line(
            f"{found.model}/{found.version} {config}as it was signed: {found.files} files, "
            f"{found.bytes} bytes, {found.digest[:19]}"
        )

    emit(found, as_json=as_json, human=human)
