"""Sessions with a fake clock: idleness, age, the cache, and who is administrator."""

from __future__ import annotations

import hashlib

import pytest

from broker.core import sessions as sessions_module
from broker.core.model import SessionRecord
from broker.core.ports import Key, R, Record
from broker.core.sessions import SessionLimits, Sessions
from broker.stores.memory import MemoryStore
from broker.wire.errors import Code, WireError
from broker.wire.roles import Role

LIMITS = SessionLimits(idle_ms=1_000, max_ms=2_500, per_user_max=7)


class CountingStore(MemoryStore):
    """Counts what the cache is there to save."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_up = 0
        self.written = 0

    def sessions(self, user: str = "") -> list[SessionRecord]:
        return self.find_all(SessionRecord, of=user)

    def find(self, kind: type[R], key: Key) -> R | None:
        self.looked_up += 1
        return super().find(kind, key)

    def put(self, record: Record) -> None:
        self.written += 1
        super().put(record)

    def remove(self, kind: type[R], key: Key) -> None:
        self.written += 1
        super().remove(kind, key)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


def over(store: MemoryStore, limits: SessionLimits = LIMITS) -> Sessions:
    made = iter(f"token-{number}" for number in range(10_000))
    return Sessions(store, make_token=lambda: next(made), limits=limits)


@pytest.fixture
def sessions(store: CountingStore) -> Sessions:
    return over(store)


def ended(sessions: Sessions, token: str, now_ms: int) -> bool:
    try:
        sessions.resolve(token, now_ms)
    except WireError as error:
        return error.code is Code.UNAUTHORIZED
    return False


def test_the_store_sees_the_digest_and_never_the_token(
    store: CountingStore, sessions: Sessions
) -> None:
    session = sessions.open("ann", "", 0)
    (record,) = store.sessions()
    assert record.digest == hashlib.sha256(b"token-0").digest()
    assert session.token not in repr(record)


def test_a_session_ends_by_idleness(sessions: Sessions) -> None:
    token = sessions.open("ann", "", 0).token
    assert not ended(sessions, token, 999)
    assert not ended(sessions, token, 1_998)
    assert ended(sessions, token, 2_998)


def test_a_session_ends_by_age_however_busy(sessions: Sessions) -> None:
    token = sessions.open("ann", "", 0).token
    for now_ms in range(0, 2_500, 100):
        assert not ended(sessions, token, now_ms)
    assert ended(sessions, token, 2_500)


def test_an_ended_session_is_removed_from_the_store(
    store: CountingStore, sessions: Sessions
) -> None:
    token = sessions.open("ann", "", 0).token
    assert ended(sessions, token, 1_000)
    assert store.sessions() == []


def test_another_broker_object_over_the_store_knows_the_session(
    store: CountingStore, sessions: Sessions
) -> None:
    token = sessions.open("ann", "", 0).token
    assert over(store).resolve(token, 500).user == "ann"


def test_a_busy_session_costs_no_look_up_and_few_writes(
    store: CountingStore, sessions: Sessions
) -> None:
    token = sessions.open("ann", "", 0).token
    for now_ms in range(1_000):
        sessions.resolve(token, now_ms)
    assert store.looked_up <= 200  # the session and, for the role, its account
    assert store.written <= 101


def test_a_clock_set_back_ends_nothing_and_extends_nothing(
    store: CountingStore, sessions: Sessions
) -> None:
    token = sessions.open("ann", "", 10_000).token
    assert not ended(sessions, token, 5_000)
    sessions.forget()
    assert not ended(sessions, token, 5_000)
    assert [each.expires_ms for each in store.sessions()] == [11_000]


def test_one_user_has_a_limited_number_of_sessions_and_the_oldest_ends(
    store: CountingStore, sessions: Sessions
) -> None:
    other = sessions.open("bob", "", 0).token
    tokens = [sessions.open("ann", "", 0).token for _ in range(LIMITS.per_user_max + 1)]
    assert ended(sessions, tokens[0], 1)
    assert not ended(sessions, tokens[1], 1)
    assert not ended(sessions, other, 1)
    assert len(store.sessions("ann")) == LIMITS.per_user_max


@pytest.mark.parametrize("most", [1, 2, 7])
def test_no_session_ends_before_there_are_too_many(store: CountingStore, most: int) -> None:
    sessions = over(store, SessionLimits(per_user_max=most))
    for number in range(1, most + 4):
        sessions.open("ann", "", 0)
        assert len(store.sessions("ann")) == min(number, most)


def test_a_session_belongs_to_its_device_also_after_a_restart(
    store: CountingStore, sessions: Sessions
) -> None:
    token = sessions.open("ann", "phone", 0).token
    assert over(store).resolve(token, 0).device == "phone"


def test_a_look_at_a_session_neither_writes_nor_keeps_it_from_being_refreshed(
    store: CountingStore, sessions: Sessions
) -> None:
    """As where something is pushed each second to a user who acknowledges it at once."""
    token = sessions.open("ann", "", 0).token
    for now_ms in range(9, 2_400, 10):
        before = store.written
        assert sessions.find(token, now_ms).user == "ann"
        assert store.written == before
        assert not ended(sessions, token, now_ms + 1), "it was used all the time"


def test_a_look_finds_no_session_that_has_ended(store: CountingStore, sessions: Sessions) -> None:
    token = sessions.open("ann", "", 0).token
    for now_ms, sought in ((1_000, token), (0, "made up")):
        with pytest.raises(WireError) as caught:
            sessions.find(sought, now_ms)
        assert caught.value.code is Code.UNAUTHORIZED
    assert len(store.sessions()) == 1, "ended by whoever uses it, not by a look"


def test_a_login_clears_away_what_has_expired(store: CountingStore, sessions: Sessions) -> None:
    sessions.open("ann", "", 0)
    sessions.open("ann", "", 5_000)
    assert len(store.sessions()) == 1


def test_closing_all_keeps_the_one_that_is_named(sessions: Sessions) -> None:
    kept, gone, other = (sessions.open(user, "", 0) for user in ("ann", "ann", "bob"))
    sessions.close_all("ann", keep=kept)
    assert [ended(sessions, each.token, 1) for each in (kept, gone, other)] == [False, True, False]
    sessions.close_all("ann")
    assert ended(sessions, kept.token, 1)


def test_an_ended_session_is_not_brought_back_by_being_kept(sessions: Sessions) -> None:
    session = sessions.open("ann", "", 0)
    sessions.close(session)
    sessions.close_all("ann", keep=session)
    assert ended(sessions, session.token, 1)


def test_online_is_who_has_a_live_session_in_order_of_login(sessions: Sessions) -> None:
    for user, now_ms in (("cat", 0), ("bob", 600), ("ann", 601), ("bob", 602)):
        sessions.open(user, "", now_ms)
    assert list(sessions.online(999)) == ["cat", "bob", "ann"]
    assert list(sessions.online(1_000)) == ["bob", "ann"]


def test_the_administrators_token_never_expires_and_is_nobodys(
    store: CountingStore, sessions: Sessions
) -> None:
    sessions.grant_admin("secret")
    admin = sessions.resolve("secret", 10**15)
    assert (admin.role, admin.user) == (Role.ADMIN, "")
    assert sessions.open("ann", "", 0).role == Role.USER
    assert "" not in sessions.online(0), "the administrator is not online"
    sessions.forget()
    assert not ended(sessions, "secret", 0)


def test_without_a_grant_nobody_is_administrator(sessions: Sessions) -> None:
    assert ended(sessions, "secret", 0)


def test_a_full_cache_starts_anew_and_ends_no_session(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "CACHE_SESSIONS_MAX", 2)
    tokens = [sessions.open(f"user-{number}", "", 0).token for number in range(5)]
    assert not any(ended(sessions, token, 1) for token in tokens)
    assert len(sessions._cache) <= 2


def test_a_sparing_session_store_is_not_written_to(
    store: CountingStore, sessions: Sessions
) -> None:
    live, over_age = sessions.open("ann", "", 600).token, sessions.open("bob", "", 0).token
    sessions.sparing = True
    before = store.written
    assert not ended(sessions, live, 1_100)
    assert ended(sessions, over_age, 1_100)
    assert store.written == before
