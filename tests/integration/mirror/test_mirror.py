"""A real Triton on a mirror: whatever happens to S3, clients get answers."""

from __future__ import annotations

import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.demo.run import run_demo
from pipeline.demo.traffic import Tally
from pipeline.flows.progress import silent
from pipeline.stack import Mirroring
from pipeline.testing.prove.entries import Flaw
from pipeline.testing.s3_faults import Fault

Wait = Callable[..., float]
BEHIND = "tritonpipe_mirror_seconds_behind"


@pytest.fixture(scope="module")
def model(mirrored: Any) -> str:
    """A model that clients ask all the while."""
    mirrored.publish("always", 1)
    mirrored.wait_served("always", 1)
    return "always"


@pytest.fixture
def explicit(mirrored: Any) -> None:
    mirrored.stack.up(mirroring=Mirroring.EXPLICIT)


def assert_unharmed(tally: Tally, *versions: int) -> None:
    assert tally.failed == tally.wrong == 0, tally.errors
    assert set(tally.versions) == set(versions)
    assert tally.sent > 300


@pytest.mark.timeout(600)
def test_whatever_s3_does_clients_get_answers(mirrored: Any, model: str, wait_until: Wait) -> None:
    def suffer(reason: str) -> None:
        """Until the mirror has noticed and Triton has polled twice."""
        metric = f'tritonpipe_mirror_failures_total{{reason="{reason}"}}'
        before = mirrored.metrics().get(metric, 0)
        wait_until(lambda: mirrored.metrics().get(metric, 0) > before, 60)
        time.sleep(2.5)
        assert mirrored.metrics()[BEHIND] > 0

    with mirrored.clients(model, 1, 2, 3) as clients:
        two = mirrored.publish(model, 2)
        mirrored.wait_served(model, 2)
        three = mirrored.upload(model, 3)
        for fault, reason in ((Fault.FORBIDDEN, "denied"), (Fault.CORRUPTED, "unavailable")):
            with mirrored.faulty.broken(fault):
                suffer(reason)
        with mirrored.faulty.broken(is_empty=True):
            suffer("empty")
        mirrored.part("s3").stop()
        time.sleep(4)
        mirrored.stack.restart("mirror")  # and what does not run
        wait_until(lambda: mirrored.metrics()[BEHIND] == 0)
        mirrored.commit(model, three)
        mirrored.wait_served(model, 3)
        mirrored.commit(model, two)
        mirrored.wait_served(model, 2)
    assert_unharmed(clients.tally, 1, 2, 3)


@pytest.mark.timeout(300)
def test_with_s3_gone_mirror_and_triton_start_from_what_is_local(
    mirrored: Any, model: str, wait_until: Wait
) -> None:
    with mirrored.faulty.broken(Fault.RESET):
        mirrored.part("triton").stop()
        mirrored.start_mirror()
        mirrored.stack.up()
        mirrored.wait_served(model, 2)
        assert mirrored.metrics()[BEHIND] > 0
    wait_until(lambda: mirrored.metrics()[BEHIND] == 0, 60)


@pytest.mark.timeout(300)
def test_a_mirror_that_is_killed_goes_on_where_it_was(mirrored: Any) -> None:
    mirrored.publish("killed", 1)
    mirrored.wait_served("killed", 1)
    with mirrored.clients("killed", 1, 2, 3, 4) as clients:
        for version in (2, 3, 4):
            config = mirrored.upload("killed", version)
            mirrored.commit("killed", config)
            time.sleep(0.3 * (version - 2))  # before, about, and after the next listing
            os.kill(mirrored.part("mirror").identity().pid, signal.SIGKILL)
            mirrored.stack.up()
            mirrored.wait_served("killed", version)
    assert_unharmed(clients.tally, 1, 2, 3, 4)


def test_nothing_changed_costs_one_listing_per_interval(mirrored: Any, model: str) -> None:
    time.sleep(2)
    before = len(mirrored.faulty.requests())
    time.sleep(5)
    new = mirrored.faulty.requests()[before:]
    assert 3 <= len(new) <= 6
    assert all(request.is_listing for request in new)


@pytest.mark.timeout(300)
def test_the_demo_over_a_mirror_that_triton_polls(mirrored: Any) -> None:
    result = run_demo(mirrored.stack.environment_variables(), silent)
    assert result.requests.errors == ()
    assert result.ok


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("explicit")
def test_explicit_mode_loads_what_changed_and_converges(
    mirrored: Any, model: str, wait_until: Wait
) -> None:
    mirrored.wait_served(model, 2)
    failed = 'tritonpipe_mirror_loads_total{outcome="failed"}'
    troubled = f'tritonpipe_mirror_troubled_models{{model="{model}",reason="load"}}'
    with mirrored.clients(model, 2, 4, 6) as clients:
        mirrored.publish(model, 4)
        assert mirrored.wait_served(model, 4) < 10
        mirrored.publish(model, 5, Flaw.RAISES)
        wait_until(lambda: mirrored.metrics().get(failed, 0) >= 2)
        assert mirrored.metrics()[troubled] == 1
        mirrored.publish(model, 6)
        mirrored.wait_served(model, 6)
        wait_until(lambda: troubled not in mirrored.metrics())
        mirrored.stack.restart("mirror")
    assert_unharmed(clients.tally, 2, 4, 6)
    mirrored.part("triton").stop()
    mirrored.publish(model, 7)
    mirrored.stack.up()
    mirrored.wait_served(model, 7)
    identity = mirrored.part("triton").identity()
    os.kill(identity.pid, signal.SIGKILL)
    mirrored.stack.up()
    mirrored.wait_served(model, 7)


@pytest.mark.usefixtures("explicit")
def test_in_explicit_mode_nobody_but_the_mirror_can_load(mirrored: Any, model: str) -> None:
    for path in (f"models/{model}/unload", "index"):
        request = urllib.request.Request(
            f"http://{mirrored.http}/v2/repository/{path}", data=b"", method="POST"
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=10)
        with caught.value as answer:
            assert answer.code == 403
    # What a publisher has to know it can find out without the index.
    assert set(mirrored.triton.versions(model)) == {7}
    assert mirrored.triton.versions("unknown") == {}
    secret = (mirrored.stack.state_directory / "secrets" / "triton-admin-key").read_text()
    for log in mirrored.stack.logs().values():
        assert secret.partition("=")[2] not in log.read_text(errors="replace")


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("explicit")
def test_one_slow_load_holds_up_neither_loads_nor_clients(mirrored: Any, model: str) -> None:
    mirrored.wait_served(model, 7)
    with mirrored.clients(model, 7) as clients:
        mirrored.publish("slow", 1, Flaw.HANGS)
        time.sleep(3)
        mirrored.publish("quick", 1)
        assert mirrored.wait_served("quick", 1) < 10
        assert not mirrored.triton.is_ready("slow", 1)
        # A client that waits for an answer would now do so until its patience is over.
        leaving = time.monotonic()
    assert time.monotonic() - leaving < 5
    assert_unharmed(clients.tally, 7)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("explicit")
def test_the_demo_over_a_mirror_that_drives_triton(mirrored: Any) -> None:
    result = run_demo(mirrored.stack.environment_variables(), silent)
    assert result.requests.errors == ()
    assert result.ok
