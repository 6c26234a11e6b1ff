"""Where a request comes from, and whom the broker believes when it is told."""

from __future__ import annotations

import pytest

from broker.core.origins import DOOR_TOKEN_CHARS_MAX, Origins, handed_on
from broker.wire.limits import TOKEN_CHARS_MAX

DOOR = "d" * DOOR_TOKEN_CHARS_MAX
ROUTE = b"r"


@pytest.fixture
def origins() -> Origins:
    origins = Origins({ROUTE: "192.0.2.1"}.get)
    origins.trust(DOOR)
    return origins


def test_a_request_comes_from_where_its_connection_comes_from(origins: Origins) -> None:
    assert origins.of(ROUTE, None) == "192.0.2.1"
    assert origins.of(b"other", None) is None


@pytest.mark.parametrize("address", ["198.51.100.7", "2001:db8:1111:2222:3333:4444:5555:6666"])
def test_what_comes_with_the_doors_token_comes_from_the_address_in_it(
    origins: Origins, address: str
) -> None:
    token = handed_on(DOOR, address)
    assert len(token) <= TOKEN_CHARS_MAX
    assert origins.of(b"inproc", token) == address


def test_an_address_that_the_door_does_not_know_is_none(origins: Origins) -> None:
    assert origins.of(b"inproc", handed_on(DOOR, "")) is None


def test_the_zone_of_an_address_is_left_out(origins: Origins) -> None:
    assert origins.of(b"inproc", handed_on(DOOR, "fe80::1%a-very-long-interface")) == "fe80::1"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "@10.0.0.1",
        "x@10.0.0.1",
        DOOR,
        f"{DOOR[:-1]}@10.0.0.1",
        f"{DOOR}x@10.0.0.1",
        "\u0434@10.0.0.1",
    ],
)
def test_nobody_else_is_believed(origins: Origins, token: str) -> None:
    assert origins.of(ROUTE, token) == "192.0.2.1"


def test_without_a_door_nobody_is_believed() -> None:
    assert Origins(lambda _: "192.0.2.1").of(ROUTE, "@10.0.0.1") == "192.0.2.1"
