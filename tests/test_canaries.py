"""The search for canaries: every spelling is found, and nothing is found where there is none."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from functools import partial

import pytest

from tests.canaries import Canaries, Kind


def _base64_behind(before: int, text: str) -> bytes:
    return base64.b64encode(b"x" * before + text.encode() + b"yz")


def _urlsafe_behind(before: int, text: str) -> bytes:
    return base64.urlsafe_b64encode(b"\xff" * before + text.encode())


SPELLINGS: dict[str, Callable[[str], bytes]] = {
    "plain": str.encode,
    "hexadecimal": lambda text: text.encode().hex().encode(),
    "capital hexadecimal": lambda text: text.encode().hex().upper().encode(),
    "repr": lambda text: repr(text).encode(),
    "repr of its bytes": lambda text: repr(text.encode()).encode(),
    "json": lambda text: json.dumps({"password": text}).encode(),
    "escaped": lambda text: text.encode("unicode_escape"),
    "utf-16": lambda text: text.encode("utf-16-be"),
    "the first half": lambda text: text[:20].encode(),
    "the second half": lambda text: text[15:].encode(),
    **{f"base64, {before} bytes in": partial(_base64_behind, before) for before in range(3)},
    **{
        f"urlsafe base64, {before} bytes in": partial(_urlsafe_behind, before)
        for before in range(3)
    },
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_canary_is_found_in_every_spelling(spelling: str) -> None:
    canaries = Canaries()
    canaries.make(Kind.BODY, "another")
    text = canaries.make(Kind.PASSWORD, "mine")
    data = b"12:04 login failed " + SPELLINGS[spelling](text) + b" at service.py"
    assert [canary.name for canary in canaries.found_in(data)] == ["mine"]


@pytest.mark.parametrize("spelling", ["plain", "hexadecimal", "base64, 1 bytes in", "json"])
def test_a_secret_that_somebody_else_made_is_found_as_well(spelling: str) -> None:
    canaries = Canaries()
    token = "kt_" + secrets.token_urlsafe(32)
    canaries.know(Kind.TOKEN, "a token", token)
    assert canaries.found_in(SPELLINGS[spelling](token))
    assert not canaries.found_in(SPELLINGS[spelling]("kt_" + secrets.token_urlsafe(32)))


def test_one_that_is_cut_short_is_found_without_its_name() -> None:
    canaries = Canaries()
    text = canaries.make(Kind.PASSWORD, "mine")
    assert [each.name for each in canaries.found_in(text[:12].encode())] == [
        "one that was cut short"
    ]


def test_nothing_is_found_in_what_holds_none() -> None:
    canaries = Canaries()
    for kind in Kind:
        canaries.make(kind, kind)
    canaries.know(Kind.KEY, "a key", secrets.token_bytes(32))
    assert (
        canaries.found_in(secrets.token_bytes(200_000) + secrets.token_hex(200_000).encode()) == []
    )


def test_no_canary_prints_itself() -> None:
    canaries = Canaries()
    text = canaries.make(Kind.PASSWORD, "mine")
    assert text[:8] not in repr(canaries.all())
    with pytest.raises(AssertionError):
        canaries.know(Kind.TOKEN, "too short", "mks")
