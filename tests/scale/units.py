"""What one of each thing costs in Redis: bytes, commands, CPU. The figures of docs/SCALE.md.

The store is used directly, with no broker and no client, on one server: memory is what the server
has allocated, CPU is its process's, both as it tells them itself.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker.core.model import Account, Membership, Room, SessionRecord
from broker.stores.redis import RedisStore
from broker.stores.redis.keys import Keys
from tests.scale.cluster import Single
from tests.scale.live import Live
from tests.scale.live import measure as measure_live
from tests.scale.node import Node
from tests.scale.spending import Spent, spent
from tests.scale.trial import Show, between, conclude, parser, progress

HELP = "bytes a user, a message, a session in Redis; commands and CPU a send, a read, an ack"

_TEXT: Final = "x" * 100
_DAY_MS: Final = 86_400_000
#: Messages in one batch of a broker, when it has little and when it has much to do.
BATCHES: Final = (1, 20, 200)
_HASH: Final = "$argon2id$v=19$m=19456,t=2,p=1$" + "s" * 22 + "$" + "h" * 43


class Bytes(NamedTuple):
    """Memory of one thing."""

    what: str
    bytes: float
    remark: str


class Work(NamedTuple):
    """One step: µs of Redis's CPU, commands (those inside scripts counted), bytes to and from."""

    what: str
    batch: int
    cpu_us: float
    commands: float
    network_bytes: float


def main(argv: Sequence[str]) -> int:
    """Return 0: this measures, and judges nothing."""
    made = parser("units", __doc__ or "")
    made.add_argument("--users", type=between(100, 1_000_000), default=2_000, metavar="N",
        help="accounts, each with a mailbox (2,000)")  # fmt: skip
    made.add_argument("--subscribers", type=between(1, 300), default=50, metavar="N",
        help="who are there and get nothing, and then are pushed to (50)")  # fmt: skip
    made.add_argument("--seconds", type=between(1, 600, float), default=8.0, metavar="S",
        help="of either (8)")  # fmt: skip
    given = made.parse_args(argv)
    with (
        progress(Console(stderr=True)) as show,
        TemporaryDirectory(prefix="kotak-scale-") as folder,
        Single(Path(folder)) as server,
    ):
        store = RedisStore(server.url)
        try:
            trial = _Trial(store, server.nodes[0], given.users)
            kept, worked = trial.bytes(show), trial.work(show)
        finally:
            store.close()
        live = measure_live(show, subscribers=given.subscribers, seconds=given.seconds)
    conclude(
        {
            "live": live.as_json(),
            "users": given.users,
            "bytes": [each._asdict() for each in kept],
            "work": [each._asdict() for each in worked],
        },
        as_json=given.json,
        parts=[
            Text(f"one Redis, {given.users:,} users"),
            *(_bytes_table(kept), _work_table(worked), _live_table(live)),
        ],
    )
    return 0


class _Trial:
    """Fills a store, and looks at the server before and after."""

    def __init__(self, store: RedisStore, node: Node, users: int) -> None:
        self._store = store
        self._node = node
        self._users = [f"user-{number:08d}" for number in range(users)]
        self._sent = 0

    def bytes(self, show: Show) -> list[Bytes]:
        """Fill it with one thing after the other."""
        users, count = self._users, len(self._users)
        self._warm_up()
        show("accounts")
        account = self._growth(lambda: self._each(self._add_user), count)
        show("sessions")
        session = self._growth(lambda: self._each(self._add_session), count)
        show("messages")
        first = self._growth(lambda: self._send(users), count)
        ten = self._growth(lambda: self._send(users * 9), 9 * count)
        few = users[: max(1, count // 100)]
        many = self._growth(lambda: self._send(few * 1_000), 1_000 * len(few))
        show("rooms")
        member = self._growth(self._fill_room, count)
        show("listeners")
        listener = self._listeners()
        return [
            Bytes("user", account.memory_bytes, "an account with an empty mailbox"),
            Bytes("session", session.memory_bytes, "a token"),
            Bytes("first message", first.memory_bytes, "100 bytes, alone in its mailbox"),
            Bytes("message", ten.memory_bytes, "each of the next nine"),
            Bytes("... of many", many.memory_bytes, "each of a thousand in one mailbox"),
            Bytes("member", member.memory_bytes, "a user in a room"),
            Bytes("listener", listener.memory_bytes, "a mailbox that a broker has subscribers of"),
            Bytes("on disk", ten.log_bytes, "of the append-only file, a message"),
        ]

    def work(self, show: Show) -> list[Work]:
        """Let it do one thing again and again, in batches of several sizes."""
        found: list[Work] = []
        for batch in BATCHES:
            show(f"work in batches of {batch}")
            users = self._users[: max(batch, min(len(self._users), 20 * batch))]
            places = {user: self._newest(user) for user in users}
            found += [
                self._work("send", batch, users, self._append),
                self._work("read", batch, users, partial(self._read, places=places)),
                self._work("ack", batch, users, partial(self._acknowledge, places=places)),
                self._work("read nothing", batch, users, partial(self._read, places={})),
            ]
        return found

    def _warm_up(self) -> None:
        """Have every script loaded, and every index there, before anything is counted."""
        with self._batch():
            self._add_user("warm")
            self._add_session("warm")
            self._append("warm")
            self._store.read("warm", "", 0, 1, 1)

    def _listeners(self) -> Spent:
        """Subscribe to all mailboxes as a broker does."""
        client = self._node.client()
        connection = client.connection_pool.get_connection()
        keys = Keys("kotak")

        def subscribe() -> None:
            for user in self._users:
                connection.send_command("SSUBSCRIBE", f"{keys.place(user)}:wake")
                connection.read_response()

        try:
            return self._growth(subscribe, len(self._users))
        finally:
            connection.disconnect()
            client.close()

    def _growth(self, act: Callable[[], None], count: int) -> Spent:
        before = spent(self._node)
        act()
        after = spent(self._node)
        return Spent(*((b - a) / count for a, b in zip(before, after, strict=True)))

    def _work(
        self, what: str, batch: int, users: Sequence[str], act: Callable[[str], object]
    ) -> Work:
        def all_of_them() -> None:
            for start in range(0, len(users), batch):
                with self._batch():
                    for user in users[start : start + batch]:
                        act(user)

        spent = self._growth(all_of_them, len(users))
        return Work(what, batch, spent.cpu_us, spent.commands, spent.network_bytes)

    @contextmanager
    def _batch(self) -> Iterator[None]:
        with self._store.batch():
            yield

    def _each(self, act: Callable[[str], None]) -> None:
        for start in range(0, len(self._users), 500):
            with self._batch():
                for user in self._users[start : start + 500]:
                    act(user)

    def _add_user(self, user: str) -> None:
        self._store.put(Account(user, user, _HASH))

    def _add_session(self, user: str) -> None:
        digest = hashlib.sha256(secrets.token_bytes(32)).digest()
        now = _now_ms()
        self._store.put(SessionRecord(digest, user, now, now + 30 * _DAY_MS))

    def _send(self, recipients: Sequence[str]) -> None:
        for start in range(0, len(recipients), 500):
            with self._batch():
                for user in recipients[start : start + 500]:
                    self._append(user)

    def _append(self, to: str) -> None:
        self._sent += 1
        sender = self._users[self._sent % len(self._users)]
        self._store.append(to, sender, f"{self._sent:026d}", _TEXT, _now_ms())

    def _newest(self, user: str) -> int:
        with self._batch():
            return self._store.read(user, "", 0, 1, 1).last

    def _read(self, user: str, places: dict[str, int]) -> None:
        """Read the one message that came last; nothing where no place is known."""
        after = places.get(user, 1 << 53)
        page = self._store.read(user, "", after, 1_000, 1 << 20)
        if page.messages:
            places[user] = page.messages[-1].seq

    def _acknowledge(self, user: str, places: dict[str, int]) -> None:
        self._store.acknowledge(user, "", places[user])

    def _fill_room(self) -> None:
        with self._batch():
            self._store.put(Room("#everybody", self._users[0], open=True, history=False))
        self._each(lambda user: self._store.put(Membership("#everybody", user, joined=True)))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _bytes_table(kept: Sequence[Bytes]) -> Table:
    table = Table("thing", "bytes", "", box=box.SIMPLE)
    table.columns[1].justify = "right"
    for each in kept:
        table.add_row(each.what, f"{each.bytes:,.0f}", Text(each.remark, "dim"))
    return table


def _work_table(worked: Sequence[Work]) -> Table:
    table = Table("step", "in a batch", "CPU µs", "commands", "network bytes", box=box.SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for each in worked:
        figures = (f"{each.cpu_us:,.1f}", f"{each.commands:,.1f}", f"{each.network_bytes:,.0f}")
        table.add_row(each.what, f"{each.batch:,}", *figures)
    return table


def _live_table(live: Live) -> Table:
    table = Table("with two brokers", "broker µs", "Redis µs", "commands", box=box.SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for what, cost in (
        ("a second of an empty broker", live.empty),
        (f"a second of each of {live.subscribers} idle subscribers", live.idle),
        (f"a message of {live.pushed:,}, alone: sent, pushed, acknowledged", live.message),
    ):
        table.add_row(what, *(f"{figure:,.1f}" for figure in cost))
    return table
