"""Small changes of bytes, as a fuzzer makes them: thousands a second, so plain and without objects.

All chance comes from one function that returns floats in [0, 1): a run repeats by its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

#: What is made is no longer than the largest frame and a little more.
BYTES_MAX: Final = 140_000

#: Bytes that mean something: msgpack's headers, line ends, blanks, the ends of ranges.
_BYTES: Final = bytes(
    (
        *(0x00, 0x01, 0x0A, 0x0D, 0x20, 0x22, 0x23, 0x3A, 0x3D, 0x5B, 0x7B, 0x7F, 0x80, 0x8F),
        *(0x90, 0x94, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC7, 0xCA, 0xCB, 0xCC),
        *(0xCF, 0xD0, 0xD3, 0xD4, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF, 0xE0, 0xFE, 0xFF),
    )
)
_WHOLE: Final = (0, 1, -1, 127, 255, 256, 257, 32_767, 65_535, 65_536, 2**31, 2**63, 2**63 - 1)
_BIG: Final[tuple[bytes, ...]] = tuple(
    (value % 2 ** (8 * width)).to_bytes(width, "big") for width in (2, 4, 8) for value in _WHOLE
)
_NUMBERS: Final[tuple[bytes, ...]] = (*_BIG, *(number[::-1] for number in _BIG))


def mutate(data: bytes, other: bytes, chance: Callable[[], float]) -> bytes:
    """Return ``data`` with one to four changes; some of them splice in a part of ``other``."""
    for _ in range(1 + int(chance() ** 2 * 4)):
        kind = int(chance() * len(_KINDS))
        at = int(chance() * (len(data) + 1))
        data = _KINDS[kind](data, at, other, chance)
    return data if len(data) <= BYTES_MAX else data[:BYTES_MAX]


def _flip(data: bytes, at: int, _: bytes, chance: Callable[[], float]) -> bytes:
    if at >= len(data):
        return data
    return b"%b%c%b" % (data[:at], data[at] ^ (1 << int(chance() * 8)), data[at + 1 :])


def _replace(data: bytes, at: int, _: bytes, chance: Callable[[], float]) -> bytes:
    return b"%b%c%b" % (data[:at], _BYTES[int(chance() * len(_BYTES))], data[at + 1 :])


def _insert(data: bytes, at: int, _: bytes, chance: Callable[[], float]) -> bytes:
    return b"%b%c%b" % (data[:at], _BYTES[int(chance() * len(_BYTES))], data[at:])


def _add(data: bytes, at: int, _: bytes, chance: Callable[[], float]) -> bytes:
    """Change a byte by a little: lengths and counts stand in single bytes."""
    if at >= len(data):
        return data
    return b"%b%c%b" % (data[:at], (data[at] + int(chance() * 9) - 4) & 255, data[at + 1 :])


def _delete(data: bytes, at: int, _: bytes, chance: Callable[[], float]) -> bytes:
    return data[:at] + data[at + 1 + int(chance() ** 3 * 16) :]


def _cut(data: bytes, at: int, _: bytes, chance: Callable[[], float]) -> bytes:
    return data[:at] if chance() < 0.7 else data[at:]


def _number(data: bytes, at: int, _: bytes, chance: Callable[[], float]) -> bytes:
    number = _NUMBERS[int(chance() * len(_NUMBERS))]
    return data[:at] + number + data[at + (len(number) if chance() < 0.7 else 0) :]


def _repeat(data: bytes, at: int, _: bytes, chance: Callable[[], float]) -> bytes:
    part = data[at : at + 1 + int(chance() ** 2 * 12)]
    return data[:at] + part * (1 + int(chance() ** 6 * 300)) + data[at:]


def _splice(data: bytes, at: int, other: bytes, chance: Callable[[], float]) -> bytes:
    start = int(chance() * (len(other) + 1))
    part = other[start : start + 1 + int(chance() * 40)]
    return data[:at] + part + data[at + (len(part) if chance() < 0.5 else 0) :]


def _join(data: bytes, at: int, other: bytes, _: Callable[[], float]) -> bytes:
    return data[:at] + other[-(len(other) - at) :] if at < len(other) else data


_KINDS: Final[Sequence[Callable[[bytes, int, bytes, Callable[[], float]], bytes]]] = (
    *(_flip, _replace, _insert, _add, _delete, _cut, _number, _repeat, _splice, _join),
    *(_replace, _add, _splice),  # what has found the most, twice
)
