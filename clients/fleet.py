"""Several brokers of one store: which of them a client asks, and what became of the others. No I/O.

Any of them serves any user. Which one is asked first follows from who asks, by rendezvous hashing:
the address with the highest weight, made of user and address, comes first, that with the next one
second. So users spread evenly, clients that log in as one user meet at one broker, whatever the
order of their lists, and a broker that is added or taken out moves its own part of the users only.
One address is a fleet too: then nothing here chooses, waits or draws lots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import inf
from typing import Final, TypeAlias

from broker.wire.errors import Code, WireError
from clients.errors import BadRequest, RequestError

#: What a client is given: one address, several with commas between, or a sequence of addresses.
Addresses: TypeAlias = str | Sequence[str]

#: Brokers of one list: each may be tried within the time of one call.
BROKERS_MAX: Final = 64
#: Whoever failed is not asked again for so long (half to one and a half of it, by lot), unless
#: nobody else is left: longer than a restart takes, so that a fleet restarted one by one is not
#: met twice; and the lots spread the clients that come back to it over half a minute.
RETURN_MS: Final = 30_000
#: ... and where it fails again within so long, twice as long each time, up to eight times: also
#: one that answers in between, as one does that is drained, or starts and falls over.
STRIKES_MAX: Final = 4
FORGOTTEN_MS: Final = 600_000
#: Where nobody else is left, whoever failed longer ago than this may be back.
AGAIN_MS: Final = 1_000
#: The least time that a broker is given to answer, however little the call has left.
SHARE_MS_MIN: Final = 100


def parse_addresses(given: Addresses) -> tuple[str, ...]:
    """Return the addresses, each once, in the order given; one alone is left as it is.

    In a string, commas stand between them; those of a sequence are taken whole.
    Errors: `BadRequest`.
    """
    if isinstance(given, str):
        if "," not in given:
            return (given,)
        given = [part.strip() for part in given.split(",") if part.strip()]
    addresses = tuple(dict.fromkeys(given))
    if not addresses or not all(isinstance(each, str) for each in addresses):
        raise BadRequest(
            Code.BAD_REQUEST,
            "give the address of a broker, or several: in one string with commas between, or as a "
            "sequence of strings",
        )
    if len(addresses) > BROKERS_MAX:
        raise BadRequest(
            Code.BAD_REQUEST,
            f"{len(addresses)} brokers were given, {BROKERS_MAX} at most may be: give each client "
            "a part of them, or put them behind one name",
        )
    return addresses


def ranked(addresses: Sequence[str], key: str) -> list[str]:
    """Return the addresses in the order in which whoever has ``key`` asks them."""

    def weight(address: str) -> bytes:
        return blake2b(f"{key}\0{address}".encode(errors="replace"), digest_size=8).digest()

    return sorted(addresses, key=weight, reverse=True)


@dataclass(slots=True)
class _Standing:
    """What is known of one broker. Times in ms on the session's clock."""

    failed_ms: float = -inf
    barred_until_ms: float = -inf
    strikes: int = 0
    trouble: str = ""
    #: It will refuse the next connection as well, until somebody changes the keys.
    final: bool = False


class Fleet:
    """The brokers of one client, in the order in which it asks them; ``current`` is the one asked.

    ``key`` is whom the order is for, a user or what stands for one; without it the order is drawn
    by lot, until `prefer`. ``random`` returns 0 to 1.
    """

    def __init__(
        self, addresses: Addresses, *, key: str | None, random: Callable[[], float]
    ) -> None:
        self.addresses = parse_addresses(addresses)
        self.many = len(self.addresses) > 1
        self._random = random
        self._order = list(self.addresses)
        if self.many:
            self._order = ranked(self.addresses, key if key is not None else str(random()))
        self._standing = {address: _Standing() for address in self.addresses}
        self.current = self._order[0]
        #: Where the session was opened, as far as is known.
        self.login_at: str | None = None

    @property
    def text(self) -> str:
        """The addresses as one string, from which `parse_addresses` makes them again."""
        return ",".join(self.addresses)

    # --- which one ---------------------------------------------------------------------------

    def prefer(self, key: str, now_ms: float, *, connected: bool) -> None:
        """Order the brokers for ``key``; a connection that stands is not left for that at once."""
        if not self.many:
            return
        self._order = ranked(self.addresses, key)
        if connected:
            for address in self._better():
                standing = self._standing[address]
                standing.barred_until_ms = max(standing.barred_until_ms, now_ms + self._bar_ms(1))

    def choose(self, now_ms: float) -> None:
        """Settle whom to ask next: the first that has not failed lately, else who failed first."""
        free = (each for each in self._order if self._standing[each].barred_until_ms <= now_ms)
        oldest = min(self._order, key=lambda each: self._standing[each].failed_ms)
        self.current = next(free, oldest)

    def elsewhere(self, now_ms: float, *, fresh: bool) -> bool:
        """Tell whether another broker may serve; ``fresh``: it has not failed lately."""
        return self.many and any(
            standing.barred_until_ms <= now_ms
            or (not fresh and standing.failed_ms + AGAIN_MS <= now_ms)
            for address, standing in self._standing.items()
            if address != self.current
        )

    def better(self, now_ms: float) -> str | None:
        """Return the first broker that comes before the current one and may be tried again."""
        for address in self._better():
            if self._standing[address].barred_until_ms <= now_ms:
                return address
        return None

    @property
    def better_ms(self) -> float:
        """When `better` has something to say; infinity: never, as things are."""
        waits = (self._standing[each].barred_until_ms for each in self._better())
        return min(waits, default=inf)

    def _better(self) -> list[str]:
        return self._order[: self._order.index(self.current)]

    # --- what became of them -----------------------------------------------------------------

    def failed(self, now_ms: float, trouble: str, *, final: bool = False, at: str = "") -> None:
        """Note that the current broker, or ``at``, does not serve for now."""
        standing = self._standing[at or self.current]
        standing.trouble, standing.final = trouble, final
        if self.many:
            again = now_ms - standing.failed_ms < FORGOTTEN_MS
            standing.strikes = min(standing.strikes + 1, STRIKES_MAX) if again else 1
            standing.failed_ms = now_ms
            standing.barred_until_ms = now_ms + self._bar_ms(standing.strikes)

    def postpone(self, address: str, now_ms: float) -> None:
        """Leave a broker that answers alone for a while: this is no time to go there."""
        self._standing[address].barred_until_ms = now_ms + self._bar_ms(1)

    def answered(self) -> None:
        """Note that the current broker answers."""
        standing = self._standing[self.current]
        standing.barred_until_ms, standing.trouble, standing.final = -inf, "", False

    def _bar_ms(self, strikes: int) -> float:
        return (RETURN_MS << strikes - 1) * (0.5 + self._random())

    @property
    def hopeless(self) -> bool:
        """Tell whether the next attempt at each broker would end as the last one did."""
        return all(standing.final for standing in self._standing.values())

    def share(self, ms: float, left_ms: float) -> float:
        """Return how much of ``ms`` one broker may take, where a call has ``left_ms`` for all.

        So that it is never the first broker alone who lets a call's time pass.
        """
        if not self.many:
            return ms
        return min(ms, max(SHARE_MS_MIN, left_ms / len(self.addresses)))

    # --- in plain words ----------------------------------------------------------------------

    def account(self) -> str:
        """Say of each broker what became of it; of one alone only what."""
        if not self.many:
            return self._standing[self.current].trouble
        return "; ".join(f"{each}: {self._said_of(each)}" for each in self._order)

    def _said_of(self, address: str) -> str:
        if trouble := self._standing[address].trouble:
            return trouble
        return "no answer in time" if address == self.current else "not asked"

    def unreached(self, trouble: str) -> str:
        """Say that a request was never sent, and why."""
        if self.many:
            return (
                f"no connection to any of {len(self.addresses)} brokers in time "
                f"({self.account()}); the request was not sent: are they running, and are these "
                "their addresses?"
            )
        return (
            f"no connection to a broker at {self.current} in time ({trouble}); the request "
            "was not sent: is the broker running, and is this its address?"
        )

    def unanswered(self) -> str:
        """Say that a request was sent and not answered."""
        if self.many:
            return f"none of the brokers answered in time ({self.account()})"
        return f"the broker at {self.current} did not answer in time"

    def refused(self, error: RequestError) -> RequestError:
        """Add to the ``unavailable`` of one broker which one that was, and what the others said."""
        if not self.many or error.code is not Code.UNAVAILABLE:
            return error
        others = "; ".join(
            f"{each}: {self._said_of(each)}" for each in self._order if each != self.current
        )
        message = f"{error.message} (so says {self.current}; {others})"
        return type(error)(error.code, message, error.retry_after_ms)

    def doubted(self, error: WireError) -> WireError:
        """Add to an ``unauthorized`` what it may mean where there are several brokers."""
        if not self.many or self.current == self.login_at:
            return error
        where = f"the session was opened at {self.login_at}; if " if self.login_at else "if "
        return WireError(
            error.code,
            f"{error.message} (so says {self.current}: {where}another broker of the list still "
            "knows the session, they do not share a store, as the brokers of one list must)",
            error.retry_after_ms,
        )
