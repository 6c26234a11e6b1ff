"""Which connection should stand, when the next one is tried, and when another broker is gone to.

The session's half that knows nothing of requests, and no I/O. A broker is left for another one in
three ways: its connection broke or was never made (`Way.lost`), it takes nothing for now
(`Way.turn_away`), or one that comes before it in the client's order answers again. That last one is
tried out first, by a second connection that carries one ``ping`` and, where that is answered,
takes the place of the first as soon as nothing is under way there.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

from clients.fleet import Fleet

#: No connection within this time (libzmq reports no failed name look-up): try again ...
CONNECT_MS: Final = 5_000
#: ... or the next broker, where there is one: a lost first packet is repeated after a second.
CONNECT_ELSEWHERE_MS: Final = 2_000
#: Between attempts to connect, and between repetitions: doubled each time, with jitter.
BACKOFF_MS: Final = 50
BACKOFF_MS_MAX: Final = 2_000
#: ... but no longer than this where the broker is away, so that all are back soon after it. Of
#: 10 000 clients a machine without its broker refuses 27 000 attempts a second, a tenth of a core;
#: to one that is back they are the same 10 000 handshakes (1 s of work, encrypted 7 s), within half
#: a second and not two: a client has one attempt under way, and waits 5 s for its answer.
RECONNECT_MS_MAX: Final = 500
#: A broker that takes nothing is left at once, but the next one that says so not before this: their
#: store may be away for a moment, and clients that change place do not bring it back.
TURN_MS: Final = 1_000
#: ... and for one that failed lately not before this (half to one and a half of it), then twice as
#: long each time, up to eight times: where all say so, nobody runs in circles.
TURN_AWAY_MS: Final = 5_000
TURNS_MAX: Final = 4
#: So long the answers to what was sent are waited for before such a broker is left ...
TURNED_AWAY_MS: Final = 250
#: ... and before a broker is left for a better one; that is put off where they do not come.
LEAVE_MS: Final = 1_000
#: A broker that is tried out has answered within this, and is looked at so often.
SCOUT_MS: Final = 2_000
SCOUT_LOOK_MS: Final = 50


class Way:
    """One client's connections, by number. Times in ms on the session's clock."""

    def __init__(self, fleet: Fleet, *, random: Callable[[], float]) -> None:
        self.fleet = fleet
        #: The connection that should stand now; 0 for none, another number for a new one.
        self.wanted = 0
        #: The connection that is tried out beside it, at `scout_address`; 0 for none.
        self.scouting = 0
        self.scout_address = ""
        #: Whether the broker there has answered.
        self.scouted = False
        #: Why the last connection ended.
        self.trouble = "no connection was made"
        self.not_before_ms: float = 0
        self.connect_end_ms: float = inf
        #: Until when what is under way may be answered before the broker is left; infinity: it
        #: is not to be left.
        self.leave_end_ms: float = inf
        #: Whether it is left all the same when that time has come.
        self.forced = False
        #: A connection stands on which nothing was heard yet.
        self.unproven = False
        self._random = random
        self._numbers = 0
        self._attempts = 0  # failed ones since a broker was last heard
        self._stood_at: str | None = None
        self._scout_end_ms: float = inf
        self._turned_ms: float = -inf  # when a broker was last left since it took nothing
        self._patient_until_ms: float = -inf
        self._turns = 0  # ... and how many of late

    # --- making a connection -----------------------------------------------------------------

    def open(self, now_ms: float, deadline_ms: float) -> None:
        """Want a connection; ``deadline_ms`` is when the first call that waits for it ends."""
        self.fleet.choose(now_ms)
        self.wanted = self._number()
        self._expect(now_ms, deadline_ms)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _expect(self, now_ms: float, deadline_ms: float) -> None:
        most_ms = CONNECT_ELSEWHERE_MS if self.fleet.many else CONNECT_MS
        self.connect_end_ms = now_ms + self.fleet.share(most_ms, deadline_ms - now_ms)

    def connected(self) -> bool:
        """Note that it stands; True where it leads elsewhere than the one before it."""
        self.connect_end_ms = self.leave_end_ms = inf
        self.unproven = True
        elsewhere = self._stood_at not in (None, self.fleet.current)
        self._stood_at = self.fleet.current
        return elsewhere

    def heard(self) -> None:
        """Note that the broker has answered on this connection."""
        self.unproven = False
        self._attempts = 0
        self.fleet.answered()

    def lost(self, now_ms: float, reason: str, *, final: bool) -> None:
        """Note that the connection, or the attempt to make one, has failed."""
        self.wanted = self.scouting = 0
        self.connect_end_ms = self.leave_end_ms = inf
        self.trouble = reason
        self.fleet.failed(now_ms, reason, final=final)
        self._attempts += 1
        brokers = len(self.fleet.addresses)
        # Round by round: a broker that has not been tried yet has done nothing to be waited for.
        most_ms = BACKOFF_MS_MAX if final and self.fleet.hopeless else RECONNECT_MS_MAX
        most_ms = max(most_ms // brokers, BACKOFF_MS)
        round_ = 1 + (self._attempts - 1) // brokers
        self.not_before_ms = now_ms + backoff_ms(self._random(), round_, most_ms)

    def close(self) -> None:
        """Want no connection any more."""
        self.wanted = self.scouting = 0

    @property
    def nobody_answers(self) -> bool:
        """Tell whether every broker has failed since one was last heard."""
        return self._attempts >= len(self.fleet.addresses)

    # --- leaving a broker --------------------------------------------------------------------

    @property
    def leaving(self) -> bool:
        return self.leave_end_ms < inf

    def may_turn_away(self, now_ms: float, *, last_chance: bool) -> bool:
        """Tell whether to leave a broker that takes nothing; ``last_chance``: or a call fails."""
        if self.fleet.elsewhere(now_ms, fresh=True):
            return last_chance or now_ms >= self._turned_ms + TURN_MS
        return now_ms >= self._patient_until_ms and self.fleet.elsewhere(now_ms, fresh=False)

    def turn_away(self, now_ms: float, reason: str) -> None:
        """Leave a broker that takes nothing, as soon as what it had taken is answered."""
        self.fleet.failed(now_ms, reason)
        self.scouting = 0
        self.leave_end_ms, self.forced = now_ms + TURNED_AWAY_MS, True
        self._turned_ms = now_ms
        begun_anew = now_ms - self._patient_until_ms > TURN_AWAY_MS << TURNS_MAX
        self._turns = 1 if begun_anew else min(self._turns + 1, TURNS_MAX)
        patience_ms = TURN_AWAY_MS << self._turns - 1
        self._patient_until_ms = now_ms + patience_ms * (0.5 + self._random())

    def go_back(self, now_ms: float) -> None:
        """Leave a broker for the one that was tried out, as soon as nothing is under way."""
        self.leave_end_ms, self.forced = now_ms + LEAVE_MS, False

    def stay(self, now_ms: float) -> None:
        """Do not go back for now."""
        self.leave_end_ms, self.scouting = inf, 0
        self.fleet.postpone(self.scout_address, now_ms)

    def go(self, now_ms: float) -> None:
        """Be gone: to the broker that was tried out, else to none before the next `open`."""
        self.leave_end_ms = inf
        self.wanted, self.scouting = self.scouting, 0
        self.not_before_ms = now_ms
        if self.wanted:
            self.fleet.current = self.scout_address
            self._expect(now_ms, inf)

    # --- trying out a better one -------------------------------------------------------------

    def look_out(self, now_ms: float) -> None:
        """Try out a broker that comes before this one, when it is time to; give one up."""
        if self.scouting and not self.scouted and now_ms >= self._scout_end_ms:
            self.tried_out(now_ms, answered=False)
        if not self.scouting and (better := self.fleet.better(now_ms)) is not None:
            self.scouting, self.scouted = self._number(), False
            self.scout_address, self._scout_end_ms = better, now_ms + SCOUT_MS

    def tried_out(self, now_ms: float, *, answered: bool) -> None:
        """Note what came of it."""
        if answered:
            self.scouted = True
        elif self.scouting:
            self.scouting = 0
            self.fleet.failed(now_ms, "no answer when it was tried again", at=self.scout_address)

    def due_ms(self, now_ms: float, *, up: bool) -> float:
        """Return when to look again whether a broker is to be left; ``up``: one is connected."""
        if not self.fleet.many or not (up or self.leaving):
            return inf
        if self.scouting:
            return min(self.leave_end_ms, now_ms + SCOUT_LOOK_MS)
        return min(self.leave_end_ms, self.fleet.better_ms)


def backoff_ms(random: float, attempt: int, most_ms: float = BACKOFF_MS_MAX) -> float:
    """Return the wait before the ``attempt``-th repetition; jitter keeps clients apart."""
    doubled: float = min(BACKOFF_MS << min(attempt - 1, 10), most_ms)
    return doubled * (0.5 + random / 2)
