"""Whom users take no messages from. Source: docs/PROTOCOL.md, "block"."""

from __future__ import annotations

from collections import defaultdict

from broker.core.model import Block
from broker.core.ports import Directory
from broker.wire.errors import Code, WireError
from broker.wire.limits import BLOCKS_PER_USER_MAX


class Blocks:
    """All blocks in memory, some 100 bytes each: every message is checked against them.

    ``by_user`` holds those who have blocked anybody, each with whom.
    """

    def __init__(self, store: Directory) -> None:
        self._store = store
        self.by_user: dict[str, set[str]] = {}
        self.reload()

    def add(self, user: str, sender: str) -> None:
        """Take nothing from a sender. Idempotent. Errors: ``too_many``."""
        blocked = self.by_user.get(user, set())
        if sender in blocked:
            return
        if len(blocked) >= BLOCKS_PER_USER_MAX:
            raise WireError(
                Code.TOO_MANY, f"you block {BLOCKS_PER_USER_MAX} users: unblock one of them first"
            )
        self._store.put(Block(user, sender))
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
        for sender in list(self.by_user.get(user, ())):
            self.remove(user, sender)

    def of(self, user: str) -> list[str]:
        """Return whom a user has blocked, by name."""
        return sorted(self.by_user.get(user, ()))

    def check(self, user: str, sender: str) -> None:
        """Refuse a sender whom the user has blocked. Errors: ``blocked``."""
        if sender in self.by_user.get(user, ()):
            raise blocked_by_recipient()

    def reload(self) -> None:
        """Read them anew: a batch was rolled back."""
        found: dict[str, set[str]] = defaultdict(set)
        for each in self._store.find_all(Block):
            found[each.user].add(each.sender)
        self.by_user = dict(found)


def blocked_by_recipient() -> WireError:
    """Make the refusal of a message whose sender the recipient has blocked."""
    return WireError(Code.BLOCKED, "that user takes no messages from you: nothing was stored")
