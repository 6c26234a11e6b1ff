"""Judges what a restored backup holds by what clients saw while it was taken.

It must hold a prefix of what was sent: all that was answered OK before the backup began, nothing
that was sent after it had ended, nothing twice, nothing out of order, and nothing again that was
acknowledged before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from tests.hostile.backups_load import KEPT, TAKEN, Acked, Seen, Sent, origin_of

_SHOWN_MAX: Final = 3


class Window(NamedTuple):
    """When a backup was asked for, and when it was answered."""

    t0: int
    t1: int


class Found(NamedTuple):
    """A message that was read from the restored broker."""

    seq: int
    text: str


class Judged(NamedTuple):
    """``before``: messages answered OK before it began; ``extra``: those found beyond them."""

    before: int
    found: int
    extra: int
    acknowledged: int
    breaches: list[str]


def judge(window: Window, seen: Seen, found: Mapping[str, Sequence[Found]]) -> Judged:
    """Judge the mailboxes `KEPT` and `TAKEN` of one restored backup."""
    before = [each for each in seen.sent if each.t1 is not None and each.t1 < window.t0]
    breaches: list[str] = []
    present = {each.seq for name in (KEPT, TAKEN) for each in found[name]}
    for name in (KEPT, TAKEN):
        breaches += _order(name, found[name])
        breaches += _future(name, found[name], window, seen.sent)
    surely, perhaps = _acknowledged(window, seen.acked)
    again = [each.seq for each in found[TAKEN] if each.seq <= surely]
    breaches += _told("acknowledged before it began, and there again", again)
    gone = [
        each.seq
        for each in before
        if each.seq not in present and not (each.to == TAKEN and (each.seq or 0) <= perhaps)
    ]
    breaches += _told("answered OK before it began, and not there", gone)
    if found[KEPT]:
        breaches += _from_the_first(found[KEPT])
    known = {each.seq for each in before}
    extra = len(present - known)
    taken = sum(each.to == TAKEN and (each.seq or 0) <= surely for each in before)
    return Judged(len(before), len(present), extra, taken, breaches)


def _acknowledged(window: Window, acked: Iterable[Acked]) -> tuple[int, int]:
    """Return up to where `TAKEN` was acknowledged before the backup, and perhaps in its midst."""
    surely = perhaps = 0
    for each in acked:
        if each.t1 is not None and each.t1 < window.t0:
            surely = max(surely, each.seq)
        if each.t0 < window.t1:
            perhaps = max(perhaps, each.seq)
    return surely, perhaps


def _order(name: str, found: Sequence[Found]) -> list[str]:
    """Each sender's messages are in order, without a gap or a second copy."""
    places: dict[str, list[int]] = defaultdict(list)
    breaches = []
    for each in found:
        sender, i = origin_of(each.text)
        places[sender].append(i)
    for sender, order in places.items():
        if order != list(range(order[0], order[0] + len(order))):
            breaches.append(f"{name}: {sender}'s messages are doubled, out of order, or have a gap")
    seqs = [each.seq for each in found]
    if seqs != sorted(set(seqs)):
        breaches.append(f"{name}: sequences do not grow")
    return breaches


def _from_the_first(found: Sequence[Found]) -> list[str]:
    """Nobody acknowledges in `KEPT`: each sender's messages begin with the first."""
    first: dict[str, int] = {}
    for each in found:
        sender, i = origin_of(each.text)
        first.setdefault(sender, i)
    return _told("not the first of its sender in kept", [i for i in first.values() if i])


def _future(name: str, found: Sequence[Found], window: Window, sent: Iterable[Sent]) -> list[str]:
    """Nothing is there that nobody had sent by the end of the backup."""
    started = {(each.sender, each.i) for each in sent if each.to == name and each.t0 < window.t1}
    foreign = [each.seq for each in found if origin_of(each.text) not in started]
    return _told(f"in {name}, and not sent by the end of the backup", foreign)


def _told(what: str, found: Sequence[int | None]) -> list[str]:
    if not found:
        return []
    shown = ", ".join(str(each) for each in found[:_SHOWN_MAX])
    return [f"{len(found)} messages {what}: {shown}{' ...' if len(found) > _SHOWN_MAX else ''}"]
