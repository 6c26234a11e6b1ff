"""A whole service over the memory store, fed step by step, with what must hold after each step.

A step is a plain value, so that a list of them is a case that can be kept and fed again:

    ["turn", ms since the last, [[route, [frame, ...] or nil], ...], run the slow work first?]
    ["lost", route, gone?]   ["full", full?]   ["drain", draining?]   ["tidy", ms since the last]
    ["fault", how many of the next commits find no room]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from typing import Any, Final

from broker.core.attempts import ENTRIES_MAX
from broker.core.dedup import DedupLimits
from broker.core.dispatcher import Job
from broker.core.handlers import Policy
from broker.core.model import (
    AuditEntry,
    BackupTaken,
    Block,
    Depth,
    LoginKey,
    Membership,
    Room,
    SessionRecord,
)
from broker.core.ports import Store, StoreFullError, StoreLimits
from broker.core.rates import SendLimits
from broker.core.service import SLOW_REQUESTS_MAX, Arrival, Finished, Service
from broker.core.sessions import SessionLimits
from broker.wire.codec import unpack_reply, unpack_request
from broker.wire.envelope import ERROR, EVENT, OK, encode_request, encoder
from broker.wire.errors import Code, WireError
from broker.wire.limits import (
    BLOCKS_PER_USER_MAX,
    DEVICES_PER_USER_MAX,
    INBOX_MESSAGES_MAX,
    KEYS_PER_USER_MAX,
    REPLY_BYTES_MAX,
    ROOMS_PER_USER_MAX,
    SUBSCRIPTIONS_PER_USER_MAX,
)
from tests.core.fakes import ADMIN, World
from tests.hostile.fuzz.breach import Breach, require
from tests.hostile.fuzz.grammar import KEYS

USERS: Final = ("ani", "budi", "citra", "dewi")
ROOMS: Final = ("#a", "#b", "#c", "#closed")
ROUTES: Final = (b"r1", b"r2", b"r3", b"curve")
#: So small that each is reached.
LIMITS: Final = StoreLimits(
    mailbox_messages_max=12,
    mailbox_bytes_max=100_000,
    retention_read_ms=20_000,
    retention_room_ms=40_000,
    retention_bytes_max=60_000,
    dedup=DedupLimits(ids_per_sender=20, ids_max=100, window_ms=60_000),
)
SESSIONS: Final = SessionLimits(idle_ms=120_000, max_ms=600_000, per_user_max=5)
POLICIES: Final = (
    Policy(sessions=SESSIONS, register=True),
    Policy(sessions=SESSIONS, expiry_notices=True),
    Policy(sessions=SESSIONS, sends=SendLimits(rate_max=2, burst_max=3, message_bytes_max=500)),
)

#: What the text door calls itself by.
DOOR: Final = "door-token"
#: Arguments that nobody may write down.
_SECRETS: Final = frozenset({"password", "new_password", "password_hash", "text", "token"})

_encode: Final = encoder()
_CODES: Final = frozenset(code.value for code in Code)


class _Around:
    """What the process around the service would do, and where it would write."""

    started_at_ms = 1

    def reload(self) -> list[str]:
        return ["keys"]

    def backup(self, name: str | None) -> BackupTaken:
        if name is not None and name != name.strip():
            raise WireError(Code.BAD_REQUEST, "a backup's name is a file's")
        return BackupTaken("/backups/x", 1, 1, 1, 1)

    def note(self, entry: AuditEntry) -> None:
        """Take an entry, which may hold neither a secret nor much."""
        require(not _SECRETS & entry.args.keys(), "the audit holds no secret")
        texts = [each for each in entry.args.values() if isinstance(each, str)]
        require(all(len(each) <= 64 for each in texts), "nobody makes the audit grow")


class _World(World):
    """The world of the core's tests, with all that a broker has around its service."""

    def _serve(self, engine: Store) -> Service:
        around = _Around()
        service = Service(
            engine,
            hasher=self.hasher,
            make_token=lambda: next(self._tokens),
            policy=self.policy,
            server="kotak test",
            key_of=self.keys.get,
            address_of={b"r1": "192.0.2.1", b"r2": "2001:db8::1"}.get,
            operations=around,
            audit=around,
        )
        service.grant_admin(ADMIN)
        service.trust_door(DOOR)
        return service


class _TakeBack(Exception):
    """Ends a batch that was only looked into."""


class Desk:
    """The service, and what it owes. ``variant`` chooses the policy; ``requests`` counts."""

    def __init__(self, variant: int) -> None:
        self.world = _World(POLICIES[variant % len(POLICIES)], limits=LIMITS)
        self.world.keys[b"curve"] = KEYS[0]
        self.service = self.world.service
        self.requests = 0
        self._jobs: list[Job] = []
        self._full = False
        for user in USERS:
            self._must("user_add", ADMIN, user=user, password="password")
        for user in USERS:
            self._must("login", None, user=user, password="password")
        self._must("key_add", ADMIN, user=USERS[0], key=KEYS[0])

    def _must(self, command: str, token: str | None, **args: Any) -> None:
        frame = encode_request(_encode, 1, command, token, args)
        self.turn(1, [(b"r1", [frame])], work=False)
        self.turn(1, [], work=True)

    def step(self, step: Sequence[Any]) -> None:
        """Take one step. Raises what the service raises, or `Breach`."""
        match list(step):
            case ["turn", int(ms), arrivals, work]:
                self.turn(ms, [(route, frames) for route, frames in arrivals], work=bool(work))
            case ["lost", route, gone]:
                self.service.lost({route: bool(gone)})
            case ["full", full]:
                self._full = self.world.store.full = bool(full)
                self.world.store.commit_faults = []
            case ["fault", int(times)]:
                # As many as one turn meets at most: what only reads needs no room.
                self.world.store.commit_faults = [StoreFullError()] * (1 if self._full else times)
            case ["drain", draining]:
                self.service.draining = bool(draining)
            case ["tidy", int(ms)]:
                self.world.now_ms += ms
                require(self.service.tidy(self.world.now_ms), "the store lives on")
            case _:
                raise ValueError(step)

    def turn(self, ms: int, arrivals: Sequence[Arrival], *, work: bool) -> None:
        """Hand in one batch, and check that everything in it is answered."""
        self.world.now_ms += ms
        finished = [Finished(job, _outcome(job)) for job in self._jobs] if work else []
        owed = _owed(arrivals, finished)
        turn = self.service.turn(list(arrivals), finished, self.world.now_ms)
        require(not turn.failed, "the store can be trusted")
        if work:
            self._jobs = []
        self._jobs += turn.jobs
        self.requests += sum(len(frames or ()) for _, frames in arrivals)
        answered = {route: Counter(_answers(frames)) for route, frames in turn.replies.items()}
        for job in turn.jobs:
            answered.setdefault(job.route, Counter())[job.request_id] += 1
        for route in {*owed, *answered}:
            mine, theirs = owed.get(route, Counter()), answered.get(route, Counter())
            missing, more = mine - theirs, theirs - mine
            require(not missing, "every request is answered, or its work is under way")
            require(not more, "nothing is answered twice, or unasked")

    def tokens(self) -> list[str | None]:
        """Return tokens of sessions that live, and others."""
        find = self.world.store.find
        made = (f"token-{number}" for number in range(self._tokens_made(), 0, -1))
        there = (each for each in made if find(SessionRecord, sha256(each.encode()).digest()))
        live = list(islice(there, 12))
        handed_on = (f"{DOOR}@192.0.2.{len(live)}", f"{DOOR}@", "x@192.0.2.1")
        return [*live, *live, *live, "token-1", "token-99", ADMIN, *handed_on, None, None, None]

    def _tokens_made(self) -> int:
        """Say how many there may have been: no more than logins were asked for."""
        asked = self.service.requests
        return min(100, asked["login"] + asked["auth"])

    # --- what must hold of the tables ----------------------------------------------------------

    def audit(self) -> None:
        """Hold all that is in the store, and what the service keeps, against each other."""
        store = self.world.store
        boxes = store.mailboxes
        waiting = [0, 0, 0]
        with suppress(_TakeBack), store.batch():
            for user in self._users():
                depth = self._audit_box(user)
                require(store.depth(user) == depth, "what waits for a user is told right")
                waiting = [in_all + here for in_all, here in zip(waiting, depth, strict=True)]
                self._audit_records(user)
            raise _TakeBack
        require(list(boxes.depth()) == waiting, "what waits in all is what waits for each")
        require(len(boxes) == sum(1 for _ in self._users()) + self._rooms(), "a box for each name")
        require(len(boxes._dedup) <= 2 * LIMITS.dedup.ids_max + 2, "remembered ids are bounded")
        slow = self.service._slow
        require(len(slow) == len(self._jobs), "slow work is counted right")
        require(len(slow) <= SLOW_REQUESTS_MAX, "slow work is bounded")
        tries = slow._attempts
        for table in (tries._pairs, tries._homes, tries._addresses, tries._users):
            require(len(table) <= ENTRIES_MAX, "what is known of attempts is bounded")
        require(not boxes._undo, "nothing of a batch is left behind it")
        require(store.mailboxes.read_bytes >= 0, "read text is counted, never less than none")

    def _audit_box(self, user: str) -> Depth:
        """Check one mailbox; return what nobody has acknowledged."""
        store = self.world.store
        box = store.mailboxes.find(user)
        seqs, sizes, head = list(box.seqs), list(box.sizes), box.head
        require(seqs == sorted(set(seqs)) and len(seqs) == len(sizes), "sequences are in order")
        require(all(seq <= box.furthest for seq in seqs[:head]), "what is before the head is read")
        require(all(seq > box.furthest for seq in seqs[head:]), "what is behind it is not")
        require(box.waiting_bytes == sum(sizes[head:]), "bytes that wait are counted right")
        require(len(seqs) - head <= LIMITS.mailbox_messages_max, "a mailbox keeps its limit")
        require(len(box.devices) <= DEVICES_PER_USER_MAX, "devices are bounded")
        for device in ("", *box.devices):
            page = store.read(user, device, 0, 10**6, 10**12)
            own = [message for message in page.messages if message.to == user]
            cursor = store.mailboxes.reader(box, device).cursor
            unread = [seq for seq in seqs if seq > cursor]
            require([message.seq for message in own] == unread, "what is unread can be read")
            texts = dict(zip(seqs, sizes, strict=True))
            right = all(texts[each.seq] == len(each.text.encode()) for each in own)
            require(right, "each text is as long as it is counted")
        return Depth(1, len(seqs) - head, sum(sizes[head:]))

    def _audit_records(self, user: str) -> None:
        store, subscriptions = self.world.store, self.service._subscriptions
        memberships = store.find_all(Membership, of=user)
        sessions = store.find_all(SessionRecord, of=user)
        require(len(memberships) <= 2 * ROOMS_PER_USER_MAX, "rooms and invitations are bounded")
        require(len(sessions) <= SESSIONS.per_user_max, "sessions are bounded")
        require(len(store.find_all(LoginKey, of=user)) <= KEYS_PER_USER_MAX, "keys are bounded")
        require(len(store.find_all(Block, of=user)) <= BLOCKS_PER_USER_MAX, "blocks are bounded")
        receivers = subscriptions._by_user.get(user, ())
        require(len(receivers) <= SUBSCRIPTIONS_PER_USER_MAX, "subscriptions are bounded")
        box = store.mailboxes.find(user)
        joined = {each.room for each in memberships if each.joined}
        require(joined == {room.name for room in box.rooms}, "who is in a room reads it")

    def _users(self) -> Iterator[str]:
        for name in list(self.world.store.mailboxes._boxes):
            if not name.startswith("#"):
                yield name

    def _rooms(self) -> int:
        rooms = self.world.store.find_all(Room)
        require(all(room.members for room in rooms), "a room without members is gone")
        return len(rooms)


def _outcome(job: Job) -> Any:
    """Do slow work as the broker's workers do, who hand on an exception as the outcome."""
    try:
        return job.deferred.work()
    except Exception as error:  # noqa: BLE001 - it is answered when the request is finished
        return error


def _owed(
    arrivals: Sequence[Arrival], finished: Sequence[Finished]
) -> dict[bytes, Counter[int | None]]:
    """Tell which ids are to be answered, by PROTOCOL.md and not by the broker's own reading."""
    owed: dict[bytes, Counter[int | None]] = {}
    for job, _ in finished:
        owed.setdefault(job.route, Counter())[job.request_id] += 1
    for route, frames in arrivals:
        mine = owed.setdefault(route, Counter())
        whole = [b""] if frames is None else frames  # too many frames have one answer
        for frame in whole:
            mine.update(_ids_in(frame, alone=len(whole) == 1))
    return owed


def _ids_in(frame: bytes, *, alone: bool) -> list[int | None]:
    try:
        value = unpack_request(frame)
    except WireError:
        return [None]
    # An extension of no length is decoded, to a tuple of a kind of its own: no request.
    if type(value) is tuple and value and type(value[0]) is tuple:
        return [_id_of(each) for each in value] if alone else [None]
    return [_id_of(value)]


def _id_of(request: object) -> int | None:
    """Return a request's id, None where it has none."""
    if type(request) is not tuple or len(request) != 4:
        return None
    number = request[0]
    return number if type(number) is int and 0 <= number < 2**64 else None


def _answers(frames: Sequence[bytes]) -> Iterator[int | None]:
    """Check each reply and event, and give the ids of the replies."""
    for frame in frames:
        require(len(frame) <= REPLY_BYTES_MAX, "a reply fits into what clients accept")
        value = unpack_reply(frame)
        together = bool(value) and isinstance(value[0], list)
        for each in value if together else [value]:
            require(isinstance(each, list) and len(each) == 3, "a reply has three parts")
            number, status, body = each
            require(isinstance(body, dict), "its body is a map")
            if status == EVENT:
                require(number is None and not together, "an event has no id")
                _check_page(body)
                continue
            require(status in (OK, ERROR), "OK or ERROR")
            require(number is not None or status == ERROR, "only an error has no id")
            if status == ERROR:
                _check_error(body)
            else:
                _check_page(body)
            yield number


def _check_error(body: Mapping[str, Any]) -> None:
    require(body["code"] in _CODES, "a code of the protocol")
    if body["code"] == Code.INTERNAL.value:
        raise Breach("no request is a fault of the broker")
    require(isinstance(body["message"], str) and body["message"], "a sentence that says what to do")


def _check_page(body: Mapping[str, Any]) -> None:
    messages = body.get("messages")
    if isinstance(messages, list):  # a backup counts them
        seqs = [each["seq"] for each in messages]
        require(seqs == sorted(set(seqs)), "a page is in order")
        require(len(seqs) <= INBOX_MESSAGES_MAX, "a page keeps its limit")
