from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple
from itertools import count

import pytest

from pipeline.errors import SettingsError
from pipeline.stack.ports import Ports, choose_ports


def all_but(*taken: int) -> Callable[[int], bool]:
    return lambda port: port not in taken


@pytest.fixture
def free() -> Iterator[int]:
    return count(40000)


def test_documented_ports_where_they_are_free(free: Iterator[int]) -> None:
    ports, notices = choose_ports(
        Ports(), wanted={}, in_use_by_us=(), is_free=all_but(), free_ports=free
    )
    assert ports == Ports(
        mlflow=5000, s3=9000, triton_http=8000, triton_grpc=8001, triton_metrics=8002
    )
    assert notices == ()


def test_a_taken_port_is_replaced_and_the_message_names_both(free: Iterator[int]) -> None:
    ports, notices = choose_ports(
        Ports(), wanted={}, in_use_by_us=(), is_free=all_but(9000), free_ports=free
    )
    assert ports == Ports(s3=40000)
    assert notices == ("port 9000 is taken by another program: S3 gets 40000",)


def test_a_running_server_keeps_its_port_which_is_not_free_of_course(free: Iterator[int]) -> None:
    ports, notices = choose_ports(
        Ports(), wanted={}, in_use_by_us={"s3"}, is_free=all_but(9000), free_ports=free
    )
    assert (ports, notices) == (Ports(), ())


def test_zero_asks_for_any_port_without_a_message(free: Iterator[int]) -> None:
    ports, notices = choose_ports(
        Ports(), wanted={"mlflow": 0}, in_use_by_us=(), is_free=all_but(), free_ports=free
    )
    assert (ports, notices) == (Ports(mlflow=40000), ())


def test_a_port_that_was_asked_for_is_used_or_refused_never_replaced(free: Iterator[int]) -> None:
    ports, _ = choose_ports(
        Ports(), wanted={"s3": 9100}, in_use_by_us=(), is_free=all_but(), free_ports=free
    )
    assert ports.s3 == 9100
    with pytest.raises(SettingsError, match="port 9100, asked for S3, is taken") as caught:
        choose_ports(
            Ports(), wanted={"s3": 9100}, in_use_by_us=(), is_free=all_but(9100), free_ports=free
        )
    assert "--s3-port" in caught.value.hint


def test_a_running_server_does_not_move(free: Iterator[int]) -> None:
    with pytest.raises(SettingsError, match="MLflow already runs on port 5000, not on 5055"):
        choose_ports(
            Ports(),
            wanted={"mlflow": 5055},
            in_use_by_us={"mlflow"},
            is_free=all_but(),
            free_ports=free,
        )


def test_no_two_servers_get_the_same_port(free: Iterator[int]) -> None:
    ports, _ = choose_ports(
        Ports(mlflow=40000, s3=40001),
        wanted={"triton_http": 0},
        in_use_by_us=(),
        is_free=all_but(8001, 8002),
        free_ports=free,
    )
    assert len(set(astuple(ports))) == len(astuple(ports))
