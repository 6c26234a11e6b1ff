"""Sessions: a token opens one, every command refreshes it, idleness and age end it.

Source: docs/PROTOCOL.md, "Requests and replies".
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from broker.core.model import Account, SessionRecord
from broker.core.ports import Store
from broker.wire.errors import Code, WireError
from broker.wire.limits import SESSION_ID_CHARS
from broker.wire.roles import Role

#: Sessions kept in front of the store; above it the cache starts anew, at the price of look-ups.
CACHE_SESSIONS_MAX = 100_000
#: What a shared store says of a session is believed for so long at most, in milliseconds, even
#: where the news of its end was never written: a broker died between the one and the other.
CHECK_MS: Final = 60_000
#: A list of all sessions of a shared store is good for so long, in milliseconds: it costs a walk
#: over everybody, and anybody may ask for it.
LISTED_MS: Final = 5_000
#: A session's use is written down after this part of its idle time, not with every command.
_TOUCH_PARTS = 100


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How long a session lives, in milliseconds."""

    #: Without a command.
    idle_ms: int = 7 * 86_400_000
    #: In all.
    max_ms: int = 30 * 86_400_000
    #: Sessions of one user; a further login ends the oldest.
    per_user_max: int = 100


class Session:
    """A live session. ``user`` is empty for the administrator of this broker's run.

    ``plain``: of a user who may write, and good on any connection; else there is more to look at.
    """

    __slots__ = (
        "checked_until_ms",
        "device",
        "digest",
        "expires_ms",
        "fresh_until_ms",
        "key",
        "opened_ms",
        "plain",
        "role",
        "token",
        "user",
    )

    def __init__(self, token: str, record: SessionRecord, role: str, fresh_until_ms: int) -> None:
        self.token = token
        self.digest = record.digest
        self.user = record.user
        self.device = record.device
        self.key = record.key
        self.role = role
        self.plain = bool(record.user) and not record.key and role != Role.OBSERVER
        self.opened_ms = record.opened_ms
        self.expires_ms = record.expires_ms
        #: Until then what the store holds need not be looked at, unless there is news of the user.
        self.checked_until_ms = fresh_until_ms
        #: Until then a command needs neither a check nor a write.
        self.fresh_until_ms = fresh_until_ms


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class Sessions:
    """Open, find and end sessions. What the store holds is the truth; the cache saves a hash.

    Where the store is shared, the other brokers are told who was heard, once in ``lease_ms``.
    """

    def __init__(
        self,
        store: Store,
        *,
        make_token: Callable[[], str],
        limits: SessionLimits,
        lease_ms: int = 20_000,
    ) -> None:
        self._store = store
        self._make_token = make_token
        self._limits = limits
        self._touch_ms = limits.idle_ms // _TOUCH_PARTS
        self._lease_ms = lease_ms
        self._cache: dict[str, Session] = {}
        #: Where the store is shared: who was online, and up to when that is good; the tokens of
        #: the cache by user; when we told of each.
        self._listed: tuple[int, dict[str, int]] = (0, {})
        self._tokens: defaultdict[str, set[str]] = defaultdict(set)
        self._told_ms: dict[str, int] = {}
        #: When each user was heard last, in milliseconds, as far as this process knows.
        self._heard_ms: dict[str, int] = {}
        self._admin: Session | None = None
        #: While True no use is written down: the store has no room, and a session outlives that.
        self.sparing = False

    def grant_admin(self, token: str) -> None:
        """Accept one token as the administrator's, for as long as this object lives."""
        never = 2**63
        record = SessionRecord(_digest(token), "", 0, never)
        self._admin = Session(token, record, Role.ADMIN, never)

    def open(self, user: str, device: str, now_ms: int, *, key: str = "") -> Session:
        """Open a session and return it with its token, which is told once and never stored.

        With a ``key`` it is bound to that.
        """
        self._make_room(user, now_ms)
        token = self._make_token()
        expires_ms = now_ms + min(self._limits.idle_ms, self._limits.max_ms)
        record = SessionRecord(_digest(token), user, now_ms, expires_ms, device, key)
        self._store.put(record)
        self._heard_ms[user] = now_ms
        if self._store.shared:
            self._listed[1].setdefault(user, now_ms)
        return self._renewed(self._remember(token, record, now_ms), now_ms)

    def resolve(self, token: str, now_ms: int) -> Session:
        """Return the session of a token that was just used. Errors: ``unauthorized``."""
        session = self._cache.get(token)
        # The hot path: one look-up, one comparison, one note.
        if session is None or now_ms >= session.fresh_until_ms:
            session = self._resolve_slowly(token, now_ms)
        self._heard_ms[session.user] = now_ms
        return session

    def find(self, token: str, now_ms: int) -> Session:
        """As `resolve`, for a session that was not heard now: nothing is written or kept of it.

        Were it, no command of a session that is pushed to a lot would ever find itself stale, and
        the session would end by idleness in the middle of its use.
        """
        session = self._cache.get(token)
        if session is None or now_ms >= session.checked_until_ms:
            record = self._store.find(SessionRecord, _digest(token))
            if record is None or record.expires_ms <= now_ms:
                raise _ended()
            session = self._session(token, record, now_ms)
        return session

    def ends_ms(self, session: Session) -> int:
        """Return when a session ends at the latest, however much it is used."""
        return session.opened_ms + self._limits.max_ms

    def close(self, session: Session) -> None:
        """End one session."""
        self._cache.pop(session.token, None)
        self._store.remove(SessionRecord, session.digest)

    def close_all(self, user: str, *, keep: Session | None = None) -> int:
        """End all sessions of a user, but for one that may be kept; return how many."""
        records = self._store.find_all(SessionRecord, of=user)
        ended = [each for each in records if keep is None or each.digest != keep.digest]
        for record in ended:
            self._store.remove(SessionRecord, record.digest)
        # Not even the kept one stays: it may have ended by itself in the meantime.
        self.forget()
        return len(ended)

    def close_named(self, user: str, name: str) -> bool:
        """End the session of a user that `of` has named so; False where there is none."""
        for record in self._store.find_all(SessionRecord, of=user):
            if name_of(record) == name:
                self._store.remove(SessionRecord, record.digest)
                self.forget()
                return True
        return False

    def of(self, user: str, now_ms: int) -> list[tuple[str, SessionRecord, int]]:
        """Return a user's live sessions: what each is called, and when it was last refreshed."""
        return [
            (name_of(each), each, self._refreshed_ms(each))
            for each in self._store.find_all(SessionRecord, of=user)
            if each.expires_ms > now_ms
        ]

    def close_bound(self, user: str, key: str) -> None:
        """End the sessions of a user that are bound to a key."""
        for record in self._store.find_all(SessionRecord, of=user):
            if record.key == key:
                self._store.remove(SessionRecord, record.digest)
        self.forget()

    def forget(self) -> None:
        """Empty the cache: the store changed behind it, or a batch was rolled back."""
        self._cache.clear()
        self._tokens.clear()

    def forget_user(self, user: str) -> None:
        """Look a user's sessions up again, where the store is shared: another changed them."""
        for token in self._tokens.pop(user, ()):
            self._cache.pop(token, None)

    def online(self, now_ms: int) -> dict[str, int]:
        """Return the users with a live session, in order of login, and when each was heard last.

        Who was not heard since the broker was started: when the session was last refreshed. Where
        the store is shared, this is what was so `LISTED_MS` ago at the latest, and the logins here.
        """
        good_until_ms, seen = self._listed
        if now_ms >= good_until_ms:
            seen = {}
            for each in self._store.find_all(SessionRecord):
                if each.expires_ms > now_ms:
                    seen[each.user] = max(seen.get(each.user, 0), self._refreshed_ms(each))
            if self._store.shared:
                self._listed = (now_ms + LISTED_MS, seen)
        return {user: max(at_ms, self._heard_ms.get(user, 0)) for user, at_ms in seen.items()}

    def _refreshed_ms(self, record: SessionRecord) -> int:
        return max(record.opened_ms, record.expires_ms - self._limits.idle_ms)

    def _make_room(self, user: str, now_ms: int) -> None:
        """Drop what has expired, and the oldest sessions where a user has too many."""
        records = self._store.find_all(SessionRecord, of=user)
        live = [record for record in records if record.expires_ms > now_ms]
        surplus = max(0, len(live) + 1 - self._limits.per_user_max)
        kept = {record.digest for record in live[surplus:]}
        gone = [record.digest for record in records if record.digest not in kept]
        for digest in gone:
            self._store.remove(SessionRecord, digest)
        if gone:
            self.forget()

    def _remember(self, token: str, record: SessionRecord, now_ms: int) -> Session:
        if len(self._cache) >= CACHE_SESSIONS_MAX:
            self.forget()
            self._heard_ms.clear()
            self._told_ms.clear()
        fresh_until_ms = min(now_ms + self._touch_ms, record.expires_ms)
        if self._store.shared:
            self._tokens[record.user].add(token)
            fresh_until_ms = min(fresh_until_ms, now_ms + CHECK_MS)
        session = self._cache[token] = self._session(token, record, fresh_until_ms)
        return session

    def _session(self, token: str, record: SessionRecord, fresh_until_ms: int) -> Session:
        account = self._store.find(Account, record.user)
        role = account.role if account is not None else Role.USER
        return Session(token, record, role, fresh_until_ms)

    def _resolve_slowly(self, token: str, now_ms: int) -> Session:
        digest = _digest(token)
        if self._admin is not None and digest == self._admin.digest:
            return self._admin
        known = self._cache.get(token)
        if known is not None and now_ms < known.checked_until_ms:
            return self._renewed(known, now_ms)
        self._cache.pop(token, None)
        record = self._store.find(SessionRecord, digest)
        if record is None or record.expires_ms <= now_ms:
            if record is not None and not self.sparing:
                self._store.remove(SessionRecord, digest)
            raise _ended()
        oldest_ms = record.opened_ms + self._limits.max_ms
        expires_ms = min(now_ms + self._limits.idle_ms, oldest_ms)
        if expires_ms - record.expires_ms >= self._touch_ms and not self.sparing:
            record = replace(record, expires_ms=expires_ms)
            self._store.put(record)
        return self._renewed(self._remember(token, record, now_ms), now_ms)

    def _renewed(self, session: Session, now_ms: int) -> Session:
        """Let the other brokers know that the user is heard here, and when to do so again."""
        if self._store.shared:
            user = session.user
            if now_ms - self._told_ms.get(user, 0) >= self._lease_ms:
                self._store.hear(user, now_ms)
                self._told_ms[user] = now_ms
            session.fresh_until_ms = min(session.checked_until_ms, now_ms + self._lease_ms)
        return session


def name_of(record: SessionRecord) -> str:
    """Return what a session is called in lists; nothing can be done with it but ending it."""
    return record.digest.hex()[:SESSION_ID_CHARS]


def check_key(session: Session, key: str | None) -> None:
    """Refuse a session that is bound to another key than its connection's.

    Errors: ``unauthorized``, in the words of a session that is unknown.
    """
    if session.key and session.key != key:
        raise _ended()


def _ended() -> WireError:
    return WireError(Code.UNAUTHORIZED, "the session is unknown or has ended: log in again")
