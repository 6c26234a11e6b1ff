"""argon2id behind the `Hasher` port: real hashes, hence few."""

from __future__ import annotations

import argon2
import pytest

from broker.passwords import Argon2Hasher

HASHER = Argon2Hasher(cores=1)
HASH = HASHER.hash("correct horse")


def test_a_password_fits_its_own_hash_only() -> None:
    assert HASHER.verify(HASH, "correct horse")
    assert not HASHER.verify(HASH, "correct horsf")
    assert HASHER.hash("correct horse") != HASH, "each hash has its own salt"


def test_a_hash_does_not_contain_the_password() -> None:
    assert "correct" not in HASH


def test_an_accent_typed_in_two_ways_is_one_password() -> None:
    one, other = "caf\u00e9", "cafe\u0301"
    assert HASHER.verify(HASHER.hash(one), other)
    assert HASHER.verify(HASHER.hash(other), one)


@pytest.mark.parametrize(
    "text",
    [
        "", "plain", "$argon2id$", "$2b$12$abcdefghijklmnopqrstuv", "\u00e9",
        "$argon2id$v=19$m=8,t=1,p=1$\u00e9\u00e9\u00e9$aGFzaA",
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_no_hash_and_fits_nothing(text: str) -> None:
    assert not HASHER.is_hash(text)
    assert not HASHER.verify(text, "correct horse")


def test_a_hash_with_a_broken_salt_fits_nothing() -> None:
    assert not HASHER.verify("$argon2id$v=19$m=8,t=1,p=1$!!$aGFzaA", "correct horse")


@pytest.mark.parametrize(
    ("cores", "memory_kib", "passes", "lanes"),
    [(1, 19_456, 2, 1), (3, 19_456, 2, 1), (4, 65_536, 3, 4), (64, 65_536, 3, 4)],
)
def test_the_parameters_follow_the_cores(
    cores: int, memory_kib: int, passes: int, lanes: int
) -> None:
    found = argon2.extract_parameters(Argon2Hasher(cores=cores).hash("x"))
    assert (found.memory_cost, found.time_cost, found.parallelism) == (memory_kib, passes, lanes)
    assert found.type is argon2.Type.ID


def test_a_hash_of_other_parameters_is_to_be_renewed_and_still_fits() -> None:
    larger = Argon2Hasher(cores=8)
    assert larger.is_hash(HASH)
    assert larger.needs_rehash(HASH)
    assert not HASHER.needs_rehash(HASH)
    assert larger.verify(HASH, "correct horse")
