"""Whom users take no messages from. Source: docs/PROTOCOL.md, "block"."""

from __future__ import annotations

from collections import defaultdict

from broker.core.model import Block
from broker.core.ports import Store
from broker.wire.errors import Code, WireError
from broker.wire.limits import BLOCKS_PER_USER_MAX


class Blocks:
    """All blocks in memory, some 100 bytes each: every message is checked against them.

    ``by_user`` holds those who have blocked anybody, each with whom. It stays empty where the store
    is shared, which checks messages itself: what this broker knew would be late.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.by_user: dict[str, set[str]] = {}
        self.reload()

    def add(self, user: str, sender: str) -> None:
        """Take nothing from a sender. Idempotent. Errors: ``too_many``."""
        blocked = self._blocked_by(user)
        if sender in blocked:
            return
        if len(blocked) >= BLOCKS_PER_USER_MAX:
            raise WireError(
                Code.TOO_MANY, f"you block {BLOCKS_PER_USER_MAX} users: unblock one of them first"
            )
        self._store.put(Block(user, sender))
        if not self._store.shared:
            self.by_user.setdefault(user, set()).add(sender)

    def remove(self, user: str, sender: str) -> None:
        """Take messages again. Idempotent."""
        self._store.remove(Block, (user, sender))
        blocked = self.by_user.get(user, set())
        blocked.discard(sender)
        if not blocked:
            self.by_user.pop(user, None)

    def remove_all(self, user: str) -> None:
        """Forget whom a user has blocked."""
        for sender in list(self._blocked_by(user)):
            self.remove(user, sender)

    def of(self, user: str) -> list[str]:
        """Return whom a user has blocked, by name."""
        return sorted(self._blocked_by(user))

    def check(self, user: str, sender: str) -> None:
        """Refuse a sender whom the user has blocked. Errors: ``blocked``."""
        if sender in self._blocked_by(user):
            raise blocked_by_recipient()

    def reload(self) -> None:
        """Read them anew: a batch was rolled back."""
        if self._store.shared:
            return
        found: dict[str, set[str]] = defaultdict(set)
        for each in self._store.find_all(Block):
            found[each.user].add(each.sender)
        self.by_user = dict(found)

    def _blocked_by(self, user: str) -> set[str]:
        if self._store.shared:
            return {each.sender for each in self._store.find_all(Block, of=user)}
        return self.by_user.get(user, set())


def blocked_by_recipient() -> WireError:
    """Make the refusal of a message whose sender the recipient has blocked."""
    return WireError(Code.BLOCKED, "that user takes no messages from you: nothing was stored")
