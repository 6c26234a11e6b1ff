"""One sender process: it sends by the plan, and remembers when each answer came."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import count
from typing import Final

from tests.load.doors import Door, Letter, Outcome
from tests.load.link import Link, Summary, now_ns, play_part
from tests.load.plan import Plan
from tests.proof.history import OK, Send, digest, write

#: How often the progress is told: a shared write a message would be measured along.
_TELL_EVERY: Final = 64
_NO_SEQ: Final = -1


class Sender:
    """The load of one sender. Times and sequences are kept in arrays: 24 bytes a message."""

    def __init__(self, plan: Plan, number: int, link: Link) -> None:
        self._plan = plan
        self._number = number
        self._link = link
        self._t0 = array("q")
        self._t1 = array("q")
        self._seq = array("q")
        self._not_ok: dict[int, str | None] = {}
        self._silent = False

    def run(self, door: Door) -> Summary:
        """Log in, wait for the others, send, and write the history down."""
        user = self._plan.sender(self._number)
        summary = Summary(user, tokens=1)
        door.login(user)
        self._link.start_together()
        for outcome in door.send_all(user, self.letters(), self._plan.window):
            self.note(outcome)
        self.conclude(summary)
        summary.tokens_valid = door.tokens_valid()
        return summary

    def conclude(self, summary: Summary) -> None:
        """Tell how it went, and write the history down."""
        user = self._plan.sender(self._number)
        self._link.sent[self._number] = len(self._t1)
        summary.errors.update(answer or "no answer" for answer in self._not_ok.values())
        if self._silent:
            summary.unreachable = True
            summary.fault = f"{user}: a send got no answer within {self._plan.timeout_ms} ms"
        write(self._link.folder / f"{user}.jsonl", self._records())

    def letters(self) -> Iterator[Letter]:
        """Yield what is to be sent; the moment of asking is the moment of sending."""
        plan, number, t0, stop = self._plan, self._number, self._t0, self._link.stop
        deadline = now_ns() + int(plan.seconds * 1e9) if plan.seconds else None
        for i in count() if plan.messages is None else range(plan.messages):
            letter = (plan.recipient(number, i), plan.text(number, i), plan.message_id(number, i))
            now = now_ns()
            late = deadline is not None and now > deadline
            if late or self._silent or (i % _TELL_EVERY == 0 and stop.is_set()):
                return
            t0.append(now)
            yield letter

    def note(self, outcome: Outcome) -> None:
        """Remember the answer to the next of the letters, in their order."""
        self._t1.append(now_ns())
        self._seq.append(_NO_SEQ if outcome.seq is None else outcome.seq)
        done = len(self._t1)
        if outcome.answer != OK:
            self._not_ok[done - 1] = outcome.answer
            self._silent |= outcome.answer is None
        if done % _TELL_EVERY == 0:
            self._link.sent[self._number] = done

    def _records(self) -> Iterator[Send]:
        plan, number = self._plan, self._number
        for i, t0 in enumerate(self._t0):
            known = i < len(self._t1)
            answer = self._not_ok.get(i, OK) if known else None
            seq = self._seq[i] if known and self._seq[i] != _NO_SEQ else None
            t1 = self._t1[i] if answer is not None else None
            yield Send(
                plan.sender(number),
                plan.recipient(number, i),
                plan.message_id(number, i),
                i,
                digest(plan.text(number, i)),
                t0,
                t1,
                answer,
                seq,
            )


def main(plan: Plan, number: int, address: str, link: Link) -> None:
    """Run a sender as a process."""
    play_part(plan.sender(number), Sender(plan, number, link).run, plan, address, link)
