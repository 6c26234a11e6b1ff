"""One reader process: it reads and acknowledges its mailboxes until all that was sent is read."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Final

from tests.load.doors import Arrived, Door, Place
from tests.load.link import Link, Summary, now_ns, play_part
from tests.load.plan import Plan
from tests.proof.history import (
    OK,
    Ack,
    Drained,
    HistoryLost,
    Read,
    Record,
    Seen,
    digest,
    to_line,
)

#: How long a reader rests when all its mailboxes were empty.
_REST_SECONDS: Final = 0.01
#: The library repeats a read after two seconds: an answer that took half as long may be the
#: second one, whose messages rightly bear the mark of what was given before.
_ONCE_NS_MAX: Final = 1_000_000_000


class Reader:
    """The load of one reader. What it saw is kept as the lines that are written at the end."""

    def __init__(self, plan: Plan, number: int, link: Link) -> None:
        self._plan = plan
        self._number = number
        self._link = link
        self._lines: list[str] = []
        self._silent = False
        self._places: defaultdict[str, Place] = defaultdict(Place)

    def run(self, door: Door) -> Summary:
        """Log in, empty what an earlier load left, wait for the others, read, write it down."""
        mailboxes = self._plan.mailboxes_of(self._number)
        summary = Summary(f"reader {self._number}", tokens=len(mailboxes))
        for user in mailboxes:
            door.login(user)
        self._read_all(door, mailboxes)
        self._lines.clear()
        self._link.read[self._number] = 0
        self._link.start_together()
        while not (self._silent or self._link.all_sent.is_set()):
            if not sum(self._visit(door, user) for user in mailboxes):
                self._link.all_sent.wait(_REST_SECONDS)
        self._read_all(door, mailboxes)
        summary.tokens_valid = door.tokens_valid()
        if self._silent:
            summary.unreachable = True
            summary.fault = f"{summary.role}: a request got no answer; mailboxes are left unread"
        self._write(self._link.folder / f"reader-{self._number}.jsonl")
        return summary

    def _read_all(self, door: Door, mailboxes: list[str]) -> None:
        """Read each mailbox until it is empty, and note that it was."""
        for user in mailboxes:
            while not self._silent:
                t0 = now_ns()
                if not self._visit(door, user):
                    self._note(Drained(user, t0, now_ns()))
                    break

    def _visit(self, door: Door, user: str) -> int:
        """Read one page and acknowledge it. Return how many messages it had."""
        t0 = now_ns()
        page = door.read(user, self._places[user])
        t1 = now_ns()
        if page is None:
            self._silent = True
            self._note(Read(user, t0, taken=door.takes))
            return 1  # unknown, but not known to be empty
        sure = t1 - t0 < _ONCE_NS_MAX
        arrived = page.messages
        if page.lost is not None:
            self._note(HistoryLost(user, *page.lost, t0, t1))
        if arrived:
            seen = tuple(_seen(message, sure=sure) for message in arrived)
            self._note(Read(user, t0, t1, OK, door.takes, seen, epoch=page.epoch))
        if page.lost is not None and self._places[user].seq:
            self._places[user] = Place(0, page.epoch)  # what there is, from the beginning
            return 1
        self._places[user] = self._places[user]._replace(epoch=page.epoch)
        if not arrived:
            return 0
        self._link.read[self._number] += len(arrived)
        last = arrived[-1].seq
        if last is not None:
            self._acknowledge(door, user, last)
        return len(arrived)

    def _acknowledge(self, door: Door, user: str, seq: int) -> None:
        t0 = now_ns()
        answer = door.acknowledge(user, seq)
        self._note(Ack(user, seq, t0, now_ns() if answer else None, answer))
        self._silent |= answer != OK
        if answer == OK:
            self._places[user] = self._places[user]._replace(seq=seq)

    def _note(self, record: Record) -> None:
        # As text at once: a million small tuples would cost ten times the memory.
        self._lines.append(to_line(record))

    def _write(self, path: Path) -> None:
        with path.open("w", encoding="ascii") as file:
            file.writelines(f"{line}\n" for line in self._lines)


def _seen(message: Arrived, *, sure: bool) -> Seen:
    sender, message_id = Plan.label(message.text)
    mark = message.redelivered if sure else None
    return Seen(message.seq, sender, message_id, digest(message.text), mark)


def main(plan: Plan, number: int, address: str, link: Link) -> None:
    """Run a reader as a process."""
    play_part(f"reader {number}", Reader(plan, number, link).run, plan, address, link)
