"""Opens S3 and what speaks its protocol, the way other AWS tools do.

Everything is in the ordinary variables. obstore reads most of them itself: ``AWS_ENDPOINT_URL``,
``AWS_REGION``, keys, web identity, container and instance roles, ``AWS_SERVER_SIDE_ENCRYPTION`` and
``AWS_SSE_KMS_KEY_ID``. ``AWS_CA_BUNDLE`` and ``AWS_PROFILE`` it does not know; they are read here.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from obstore import exceptions
from obstore.store import S3Store

from pipeline.errors import DependencyError, SettingsError
from pipeline.stores.objects import ObjectStore

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3CredentialProvider

_S3_URL: Final = re.compile(
    r"s3://(?P<bucket>[0-9a-z][0-9a-z.-]{1,61}[0-9a-z])"
    r"(?P<prefix>(/(?!\.\.?(/|$))[0-9A-Za-z._-]+)*)/?"
)
_PATIENCE: Final = 60
"""Seconds for one request: a part of 16 MiB over a line of 2.5 Mbit/s."""

# Time for a second attempt after one that was not answered at all.
_REPEATING: Final[RetryConfig] = {"max_retries": 5, "retry_timeout": timedelta(seconds=150)}
_ONCE: Final[RetryConfig] = {"max_retries": 0}
_PROFILE_LIFE: Final = timedelta(minutes=5)


def open_s3(url: str) -> ObjectStore:
    """Open the store at ``s3://BUCKET/PREFIX``.

    Raises:
        SettingsError: The URL is not of this form. Triton reads no other: upper case or ``_`` in
            the bucket and special characters in the prefix make it look for another bucket; no
            object has ``.`` or ``..`` as a segment of its key. Or the variables do not make a
            client.
        DependencyError: ``AWS_PROFILE`` is set and boto3 is not installed.
    """
    match = _S3_URL.fullmatch(url)
    if match is None:
        raise SettingsError(
            f"{url!r} is not a model repository that Triton can read",
            hint="use s3://BUCKET/PREFIX, bucket of [0-9a-z.-], prefix of [0-9A-Za-z._-], no "
            "part of which is . or .., or an absolute path",
        )
    authorities, (credentials, config) = _authorities(), _profile()

    def client(seconds: int, repetitions: RetryConfig) -> S3Store:
        options: ClientConfig = {
            "allow_http": True,
            "timeout": f"{seconds}s",
            "connect_timeout": "5s",
        }
        if authorities is not None:
            options["root_certificate"] = authorities
        return S3Store(
            match["bucket"],
            prefix=match["prefix"].strip("/") or None,
            config=config,
            client_options=options,
            retry_config=repetitions,
            credential_provider=credentials,
        )

    try:
        return ObjectStore(url.rstrip("/"), client(_PATIENCE, _REPEATING), once=client(10, _ONCE))
    except exceptions.BaseError as error:
        raise SettingsError(
            f"the AWS_* variables do not make a client for {url}: {str(error).splitlines()[0]}",
            hint="set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for a store of your own, "
            'AWS_ENDPOINT_URL; for the local stack: eval "$(tritonpipe stack env)"',
        ) from error


def _authorities() -> bytes | None:
    """The certificates of ``AWS_CA_BUNDLE``, trusted beside those of the system."""
    bundle = os.environ.get("AWS_CA_BUNDLE")
    if not bundle:
        return None
    try:
        return Path(bundle).read_bytes()
    except OSError as error:
        raise SettingsError(
            f"cannot read the certificates of AWS_CA_BUNDLE, {bundle}: {error.strerror}",
            hint="point AWS_CA_BUNDLE at a file of PEM certificates, or unset it",
        ) from error


def _profile() -> tuple[S3CredentialProvider | None, S3Config]:
    """Credentials and region of ``AWS_PROFILE``; as for AWS's own tools, keys go before it."""
    config: S3Config = {}
    if "AWS_CHECKSUM_ALGORITHM" not in os.environ:
        # Kept with the object; it costs nothing, since requests are signed with the same digest.
        config["checksum_algorithm"] = "SHA256"
    profile = os.environ.get("AWS_PROFILE")
    if not profile or os.environ.get("AWS_ACCESS_KEY_ID"):
        return None, config
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise DependencyError(
            f"AWS_PROFILE is {profile!r}, and boto3, which reads profiles, is not installed",
            hint="pip install boto3; or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, for "
            'example with: eval "$(aws configure export-credentials --format env)"',
        ) from error
    from botocore.exceptions import BotoCoreError

    try:
        session = boto3.Session(profile_name=profile)
        provider = Boto3CredentialProvider(session, ttl=_PROFILE_LIFE)
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(
            f"AWS_PROFILE {profile!r} gives no credentials: {error}",
            hint="check the profile with: aws sts get-caller-identity; for single sign-on: "
            "aws sso login",
        ) from error
    if session.region_name and not {"AWS_REGION", "AWS_DEFAULT_REGION"} & os.environ.keys():
        config["region"] = session.region_name
    return provider, config
