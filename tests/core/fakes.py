"""A world for the service: a hasher that costs nothing, a store that can fail, a driver."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from broker.core.dispatcher import Job
from broker.core.handlers import Policy
from broker.core.model import Message, Page, Receipt
from broker.core.ports import Audit, Key, Operations, R, Record, Store, StoreFullError, StoreLimits
from broker.core.service import Finished, Service
from broker.core.sessions import SessionLimits
from broker.stores.memory import MemoryStore
from broker.wire.codec import unpack_reply
from broker.wire.commands import ChatArgs
from broker.wire.envelope import EVENT, Reply, decode_reply, encode_request, encoder
from broker.wire.errors import Code, WireError

ADMIN = "admin-token"
LIMITS = SessionLimits(idle_ms=10_000, max_ms=50_000)
POLICY = Policy(sessions=LIMITS)
#: So few that a test can fill a mailbox.
FEW = StoreLimits(mailbox_messages_max=3)
START_MS = 1_000_000


class FakeHasher:
    """Hashes that can be read: ``v1:password``. ``version`` is today's parameters."""

    version = "v1"

    def hash(self, password: str) -> str:
        return f"{self.version}:{password}"

    def verify(self, password_hash: str, password: str) -> bool:
        return password_hash.partition(":")[2] == password

    def needs_rehash(self, password_hash: str) -> bool:
        return not password_hash.startswith(self.version)

    def is_hash(self, password_hash: str) -> bool:
        return ":" in password_hash


class FaultyStore(MemoryStore):
    """A store in memory whose steps and commits fail on demand."""

    def __init__(self, limits: StoreLimits = FEW) -> None:
        super().__init__(limits)
        #: Raised at the end of each batch, one after the other; None lets one pass.
        self.commit_faults: list[Exception | None] = []
        #: Raised by each reading step.
        self.read_fault: Exception | None = None
        #: Raised by looking up a record.
        self.find_fault: Exception | None = None
        #: While True whatever takes room is refused by the engine.
        self.full = False

    @contextmanager
    def batch(self) -> Iterator[None]:
        with super().batch():
            yield
            fault = self.commit_faults.pop(0) if self.commit_faults else None
            if fault is not None:
                raise fault

    def append_all(
        self, sender: str, letters: Sequence[ChatArgs], now_ms: int
    ) -> list[Receipt | WireError]:
        if any(
            self.mailboxes.duplicate(sender, message_id) is None for _, _, message_id, _ in letters
        ):
            self._take_room()
        return super().append_all(sender, letters, now_ms)

    def put(self, record: Record) -> None:
        self._take_room()
        super().put(record)

    def expire(self, now_ms: int) -> list[Message]:
        expired = super().expire(now_ms)
        if expired:
            self._take_room()
        return expired

    def read(self, user: str, device: str, after: int, limit: int, bytes_max: int) -> Page:
        if self.read_fault is not None:
            raise self.read_fault
        return super().read(user, device, after, limit, bytes_max)

    def find(self, kind: type[R], key: Key) -> R | None:
        if self.find_fault is not None:
            raise self.find_fault
        return super().find(kind, key)

    def _take_room(self) -> None:
        if self.full:
            raise StoreFullError


class World:
    """A service with its store and clock. Slow work is run when asked for, by `finish`.

    ``engine`` takes the place of ``store`` where no faults are wanted of it.
    """

    def __init__(
        self,
        policy: Policy = POLICY,
        *,
        limits: StoreLimits = FEW,
        store: FaultyStore | None = None,
        engine: Store | None = None,
        operations: Operations | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._operations = operations
        self._audit = audit
        self.store = store or FaultyStore(limits)
        self.hasher = FakeHasher()
        self.now_ms = START_MS
        self.policy = policy
        #: By connection; `call` uses the one of ``b"r"``.
        self.keys: dict[bytes, str] = {}
        self.addresses: dict[bytes, str] = {}
        self._tokens = (f"token-{number}" for number in itertools.count(1))
        self.service = self._serve(engine or self.store)
        self.jobs: list[Job] = []
        #: What was pushed: the connection, and the event's body.
        self.events: list[tuple[bytes, dict[str, Any]]] = []
        self.failed = False
        self._encode = encoder()
        self._ids = itertools.count(1)

    def _serve(self, engine: Store) -> Service:
        service = Service(
            engine,
            hasher=self.hasher,
            make_token=lambda: next(self._tokens),
            policy=self.policy,
            server="kotak test",
            key_of=self.keys.get,
            address_of=self.addresses.get,
            operations=self._operations,
            audit=self._audit,
        )
        service.grant_admin(ADMIN)
        return service

    def restart(self, engine: Store | None = None) -> None:
        """Go on with a new service, over the same store or another."""
        self.service = self._serve(engine or self.store)

    def frame(self, command: str, token: str | None = None, **args: Any) -> bytes:
        return encode_request(self._encode, next(self._ids), command, token, args)

    def turn(
        self, *arrivals: tuple[bytes, list[bytes] | None], finished: Sequence[Finished] = ()
    ) -> dict[bytes, list[Reply]]:
        turn = self.service.turn(list(arrivals), list(finished), self.now_ms)
        self.jobs += turn.jobs
        self.failed = turn.failed
        replies: dict[bytes, list[Reply]] = {}
        for route, frames in turn.replies.items():
            for frame in frames:
                value = unpack_reply(frame)
                if value[1] == EVENT:
                    self.events.append((route, value[2]))
                else:
                    replies.setdefault(route, []).append(decode_reply(frame))
        return replies

    def batch(self, *frames: bytes) -> list[Reply]:
        """Send requests in one message and return the replies of its batch."""
        return self.turn((b"r", list(frames))).get(b"r", [])

    def work(self) -> list[Finished]:
        """Run the slow work that waits."""
        jobs, self.jobs = self.jobs, []
        return [Finished(job, _outcome(job)) for job in jobs]

    def call(self, command: str, token: str | None = None, **args: Any) -> Reply:
        """Send one request and return its answer, slow or not."""
        replies = self.batch(self.frame(command, token, **args))
        if not replies:
            replies = self.turn(finished=self.work())[b"r"]
        (reply,) = replies
        return reply

    def ok(self, command: str, token: str | None = None, **args: Any) -> Any:
        reply = self.call(command, token, **args)
        assert reply.error is None, reply
        return reply.result

    def code(self, command: str, token: str | None = None, **args: Any) -> Code:
        reply = self.call(command, token, **args)
        assert reply.error is not None, reply
        return reply.error.code

    def user(self, user: str, password: str = "password", **args: Any) -> str:
        """Add an account, log it in, return the token."""
        self.ok("user_add", ADMIN, user=user, password=password)
        return self.login(user, password, **args)

    def login(self, user: str, password: str = "password", **args: Any) -> str:
        token: str = self.ok("login", user=user, password=password, **args)["token"]
        return token

    def send(self, token: str, to: str, *ids: str, **args: Any) -> list[int]:
        """Send messages whose text is their id; return their sequences."""
        return [self.ok("chat", token, to=to, text=each, id=each, **args)["seq"] for each in ids]

    def texts(self, token: str, **args: Any) -> list[str]:
        """Return the texts of what waits."""
        return [each["text"] for each in self.ok("inbox", token, **args)["messages"]]


def _outcome(job: Job) -> object:
    """Do slow work as a worker does: a refusal is an outcome too."""
    try:
        return job.deferred.work()
    except WireError as error:
        return error
