"""A world for the service: a hasher that costs nothing, a store that can fail, a driver."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from broker.core.dedup import DedupLimits
from broker.core.model import Account, Page, Receipt
from broker.core.ports import StoreFullError
from broker.core.service import Finished, Job, Service
from broker.core.sessions import SessionLimits
from broker.stores.memory import MemoryStore
from broker.wire.codec import unpack_reply
from broker.wire.envelope import EVENT, Reply, decode_reply, encode_request, encoder
from broker.wire.errors import Code

ADMIN = "admin-token"
LIMITS = SessionLimits(idle_ms=10_000, max_ms=50_000)
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

    def __init__(self, *, mailbox_messages_max: int = 3) -> None:
        super().__init__(mailbox_messages_max=mailbox_messages_max, dedup=DedupLimits())
        #: Raised at the end of each batch, one after the other; None lets one pass.
        self.commit_faults: list[Exception | None] = []
        #: Raised by each reading step.
        self.read_fault: Exception | None = None
        #: Raised by looking up an account.
        self.account_fault: Exception | None = None
        #: While True whatever takes room is refused by the engine.
        self.full = False

    @contextmanager
    def batch(self) -> Iterator[None]:
        with super().batch():
            yield
            fault = self.commit_faults.pop(0) if self.commit_faults else None
            if fault is not None:
                raise fault

    def append(self, to: str, sender: str, message_id: str, text: str, now_ms: int) -> Receipt:
        if self.full:
            raise StoreFullError
        return super().append(to, sender, message_id, text, now_ms)

    def put_account(self, user: str, account: Account | None) -> None:
        if self.full and account is not None:
            raise StoreFullError
        super().put_account(user, account)

    def put_session(self, digest: bytes, record: Any) -> None:
        if self.full and record is not None:
            raise StoreFullError
        super().put_session(digest, record)

    def read(self, user: str, after: int, limit: int, bytes_max: int) -> Page:
        if self.read_fault is not None:
            raise self.read_fault
        return super().read(user, after, limit, bytes_max)

    def account(self, user: str) -> Account | None:
        if self.account_fault is not None:
            raise self.account_fault
        return super().account(user)


class World:
    """A service with its store and clock. Slow work is run when asked for, by `finish`."""

    def __init__(
        self,
        *,
        register: bool = False,
        store: FaultyStore | None = None,
        limits: SessionLimits = LIMITS,
    ) -> None:
        self.store = store or FaultyStore()
        self.hasher = FakeHasher()
        self.now_ms = START_MS
        tokens = (f"token-{number}" for number in itertools.count(1))
        self.service = Service(
            self.store,
            hasher=self.hasher,
            make_token=lambda: next(tokens),
            session_limits=limits,
            register=register,
            server="kotak test",
        )
        self.service.grant_admin(ADMIN)
        self.jobs: list[Job] = []
        #: What was pushed: the connection, and the event's body.
        self.events: list[tuple[bytes, dict[str, Any]]] = []
        self.failed = False
        self._encode = encoder()
        self._ids = itertools.count(1)

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
        return [Finished(job, job.deferred.work()) for job in jobs]

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

    def user(self, user: str, password: str = "password") -> str:
        """Add an account, log it in, return the token."""
        self.ok("user_add", ADMIN, user=user, password=password)
        return self.login(user, password)

    def login(self, user: str, password: str = "password") -> str:
        token: str = self.ok("login", user=user, password=password)["token"]
        return token
