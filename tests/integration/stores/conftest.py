"""One Ceph gateway for all tests of stores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.testing.radosgw import RadosGateway
from pipeline.testing.radosgw_packages import installed_radosgw


@pytest.fixture(scope="session")
def radosgw() -> Iterator[RadosGateway]:
    """A gateway with the bucket ``models``."""
    installation = installed_radosgw()
    if installation is None:
        pytest.skip("radosgw is not installed: python -P -m pipeline.testing.radosgw")
    with RadosGateway(installation) as gateway:
        gateway.create_bucket("models")
        yield gateway
