"""Rooms: logs that their members read. A message is stored once, however many they are.

Source: docs/PROTOCOL.md, "rooms", "room_join", "room_invite".
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from broker.core.mailboxes import no_such_room
from broker.core.model import Membership, Room
from broker.core.ports import Store
from broker.core.refusals import being_made
from broker.wire.errors import Code, WireError
from broker.wire.limits import (
    INVITATIONS_PER_USER_MAX,
    NOTICE_SENDER,
    ROOMS_PER_USER_MAX,
    USERS_PAGE_MAX,
)


class Rooms:
    """Who is in which room, and who may come in."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, user: str) -> list[tuple[Room, Membership]]:
        """Return the user's rooms, and those it is invited to, by name."""
        memberships = self._store.find_all(Membership, of=user)
        found = [(self._store.find(Room, each.room), each) for each in memberships]
        return [(room, membership) for room, membership in found if room is not None]

    def joined(self, user: str) -> list[str]:
        """Return the names of the rooms that the user is in."""
        return [each.room for each in self._store.find_all(Membership, of=user) if each.joined]

    def create(self, room: Room) -> Room:
        """Make a room with its owner in it, and return it.

        Made again as it was, by its owner: that is the repetition of a request without an answer.
        Errors: ``room_exists``, ``too_many``, ``busy``.
        """
        if not self._store.claim(room.room):
            raise being_made()
        found = self._store.find(Room, room.room)
        if found is not None:
            mine = self._store.find(Membership, (room.room, room.owner))
            if replace(found, members=room.members) == room and mine is not None and mine.joined:
                return found
            raise WireError(Code.ROOM_EXISTS, "that room's name is taken: choose another")
        self._check_joined(room.owner)
        self._store.put(room)
        self._store.put(Membership(room.room, room.owner, joined=True))
        return room

    def join(self, name: str, user: str) -> Room:
        """Let a user in who may come. Errors: ``no_such_room``, ``too_many``."""
        room = self._store.find(Room, name)
        membership = self._store.find(Membership, (name, user))
        if room is None or (membership is None and not room.open):
            raise no_such_room()
        if membership is None or not membership.joined:
            self._check_joined(user)
            self._store.put(Membership(name, user, joined=True))
        return self._store.find(Room, name) or room

    def invite(self, name: str, user: str, *, by: str, now_ms: int) -> None:
        """Let ``user`` come in, and tell it. Errors: ``no_such_room``, ``too_many``.

        The user must exist.
        """
        self.check_member(name, by)
        if self._store.find(Membership, (name, user)) is not None:
            return
        self._check_invitations(user)
        text = f"{by} invites you to the room {name}: join it to read what is said there"
        notice = hashlib.blake2s(
            f"{now_ms} {name} {user} {by}".encode(), digest_size=16
        ).hexdigest()
        # Its sequence is asked for, so that a refusal comes before the invitation.
        _ = self._store.append(user, NOTICE_SENDER, notice, text, now_ms).seq
        self._store.put(Membership(name, user, joined=False))

    def leave(self, name: str, user: str) -> None:
        """Take a user out, or decline an invitation; the last one takes the room along."""
        if self._store.find(Membership, (name, user)) is None:
            return
        self._store.remove(Membership, (name, user))
        room = self._store.find(Room, name)
        if room is not None and room.members == 0:
            self._store.remove(Room, name)

    def members(self, name: str, user: str, after: str) -> list[str]:
        """Return, for a member, a page of the members and one more. Errors: ``no_such_room``."""
        self.check_member(name, user)
        found: list[str] = []
        while len(found) <= USERS_PAGE_MAX:
            page = self._store.find_all(Membership, of=name, after=after, limit=USERS_PAGE_MAX + 1)
            found += [each.user for each in page if each.joined]
            if len(page) <= USERS_PAGE_MAX:
                break
            after = page[-1].user
        return found[: USERS_PAGE_MAX + 1]

    def check_member(self, name: str, user: str) -> None:
        """Refuse who is not in the room. Errors: ``no_such_room``."""
        membership = self._store.find(Membership, (name, user))
        if membership is None or not membership.joined:
            raise no_such_room()

    def _check_joined(self, user: str) -> None:
        if self._count(user, joined=True) >= ROOMS_PER_USER_MAX:
            raise WireError(
                Code.TOO_MANY, f"you are in {ROOMS_PER_USER_MAX} rooms: leave one of them first"
            )

    def _check_invitations(self, user: str) -> None:
        # Counted apart: strangers must not be able to keep somebody out of rooms of its own.
        if self._count(user, joined=False) >= INVITATIONS_PER_USER_MAX:
            raise WireError(
                Code.TOO_MANY,
                f"{user} has {INVITATIONS_PER_USER_MAX} invitations that are not answered: later",
            )

    def _count(self, user: str, *, joined: bool) -> int:
        memberships = self._store.find_all(Membership, of=user)
        return sum(each.joined is joined for each in memberships)
