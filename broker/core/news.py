"""What other brokers over the same store have done, and what of it makes this one forget.

News says what to look at again; the store says what is so. See `broker.core.ports.Neighbours`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

from broker.core.accounts import Accounts
from broker.core.model import Kind
from broker.core.ports import Store, StoreUnavailableError
from broker.core.rooms import Rooms
from broker.core.sessions import Sessions
from broker.core.subscriptions import Subscriptions

#: Users whose rooms are looked up in one turn, each a way to the server.
LOOKS_PER_TURN_MAX: Final = 256


class Newsreader:
    """Takes in the news once a turn. For a shared store; others have none."""

    def __init__(
        self,
        store: Store,
        sessions: Sessions,
        accounts: Accounts,
        rooms: Rooms,
        subscriptions: Subscriptions,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._accounts = accounts
        self._rooms = rooms
        self._subscriptions = subscriptions
        #: Subscribed users who may be in other rooms than this broker knows.
        self._doubtful: set[str] = set()

    @property
    def behind(self) -> bool:
        """Tell whether the last turn had no time for all that the news said."""
        return bool(self._doubtful)

    def take_in(self) -> None:
        """Forget what may have changed, and have the subscriptions it concerns looked after.

        Before the turn's batch. Never fails: what the store cannot tell now is asked again.
        """
        for kind, name in self._store.news():
            if kind is Kind.MAILBOX:
                self._subscriptions.wake(name)
            elif kind is Kind.USER:
                self._sessions.forget_user(name)
                self._accounts.forget_user(name)
                self.doubt((name,))
            else:
                self._sessions.forget()
                self._accounts.forget()
                self.doubt(self._subscriptions.users())
        if self._doubtful:
            self._look_up()

    def doubt(self, users: Iterable[str]) -> None:
        """Look up again, in the next turn, which rooms these are in."""
        self._doubtful.update(user for user in users if user in self._subscriptions)

    def tell_names(self) -> None:
        """Let the store know whom there are subscriptions for, where that has changed."""
        if self._subscriptions.names_changed:
            self._subscriptions.names_changed = False
            self._store.listen(self._subscriptions.names())

    def _look_up(self) -> None:
        for user in tuple(islice(self._doubtful, LOOKS_PER_TURN_MAX)):
            try:
                rooms = self._rooms.joined(user)
            except StoreUnavailableError:
                return  # the batch that follows finds that out too, and says so
            self._doubtful.discard(user)
            if user in self._subscriptions:
                self._subscriptions.listen(user, rooms)
                # Also where no room has changed: the session may be over.
                self._subscriptions.wake(user)
        # No batch of this broker's brought these about: none takes them back.
        self._subscriptions.keep()
