"""How Triton is started on a repository: one wrong word serves nothing, or everything."""

from __future__ import annotations

# An upload that is not finished must not be guessed at, must not end the server, and must not make
# it unready for ever.
_ALWAYS = ("--disable-auto-complete-config", "--exit-on-error=false", "--strict-readiness=false")


def polling_flags(repository: str, *, poll_seconds: int = 1) -> tuple[str, ...]:
    """For a Triton that looks for changes itself."""
    return (
        "--model-control-mode=poll",
        f"--repository-poll-secs={poll_seconds}",
        f"--model-repository={repository}",
        *_ALWAYS,
    )


def explicit_flags(repository: str, admin_key: str) -> tuple[str, ...]:
    """For a Triton that loads what its mirror tells it to, and that nobody else can tell.

    Args:
        repository: The mirror's.
        admin_key: ``NAME=VALUE``, or what a shell makes that of; empty to leave it open to all.
    """
    restricted = (
        f"--http-restricted-api=model-repository:{admin_key}",
        f"--grpc-restricted-protocol=model-repository:{admin_key}",
    )
    return (
        "--model-control-mode=explicit",
        "--load-model=*",
        f"--model-repository={repository}",
        *(restricted if admin_key else ()),
        *_ALWAYS,
    )
