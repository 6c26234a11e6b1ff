"""What comes from the other brokers: a thread that listens, with connections of its own.

Sharded channels give the hints, each on the server that has its slot: ``PLACE:wake`` of a mailbox
(the sequence of what was appended) and ``INDEX:changes`` (a user). A hint may be lost. So every few
seconds what it would have said is compared with the store: the last sequence of each mailbox, and
the streams of changes. Where a connection breaks, all are made anew, and then the news is that
anything may have changed. What comes on ``INDEX:tried`` (see `broker.stores.redis.limits`) is
handed on as it is, and what is lost of it stays so.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from redis.connection import Connection
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as NoAnswerError

from broker.core.model import Kind, News
from broker.core.ports import (
    NEWS_LATE_MS_MAX,
    StoreFailedError,
    StoreFullError,
    StoreUnavailableError,
    StoreUnusableError,
)
from broker.stores.redis.keys import Keys
from broker.stores.redis.link import ERRORS, Call, Link
from broker.stores.redis.nodes import Node, nodes_of
from broker.stores.redis.telling import CHANGES_KEPT
from broker.stores.redis.url import RedisUrl

log = logging.getLogger("kotak.redis")

#: Between comparisons with the store, in seconds. With the time that one takes, and the turn that
#: it leads to, news is not later than `NEWS_LATE_MS_MAX`.
COMPARE_S: Final = 0.8 * NEWS_LATE_MS_MAX / 1_000
#: Until the first attempt to connect again, and between the later ones at most.
_PAUSE_S: Final = 0.1
_PAUSE_S_MAX: Final = 2.0
#: What the end of the thread may take.
_END_S: Final = 5.0
#: Commands that are sent, or mailboxes compared, at once.
_AT_ONCE: Final = 500
#: News that waits to be asked for; above it, it is that anything may have changed.
_WAITING_MAX: Final = 100_000
#: Attempts at passwords that wait to be asked for, the latest: more than brokers hash in seconds.
_TRIED_MAX: Final = 10_000

_ANYTHING: Final = News(Kind.ALL, "")
_FAILURES: Final = (
    *ERRORS,
    StoreFailedError,
    StoreFullError,
    StoreUnavailableError,
    StoreUnusableError,  # as it connects
)


class Listener:
    """Hears what others tell. All but `close` may be called while the thread runs, by one caller.

    The thread begins when it is first asked for anything: tools that only read need none.
    """

    def __init__(self, url: RedisUrl, keys: Keys) -> None:
        self._url = url
        self._keys = keys
        self._wake: Callable[[], None] = _nobody
        self._thread: threading.Thread | None = None
        self._closing = False
        # Between the thread and its caller: news, with the highest sequence that it told of.
        self._lock = threading.Lock()
        self._waiting: dict[News, int] = {}
        self._tried: deque[bytes] = deque(maxlen=_TRIED_MAX)
        self._wanted: frozenset[str] = frozenset()
        self._compared_at = time.monotonic()
        self._bell, self._rope = socket.socketpair()
        for end in (self._bell, self._rope):
            end.setblocking(False)
        # The caller's: what it has appended itself.
        self._known: dict[str, int] = {}

    # --- for the caller ------------------------------------------------------------------------

    def news(self) -> Sequence[News]:
        """Return what has come; anything may have changed where the thread came to nothing."""
        self._begin()
        if time.monotonic() - self._compared_at > NEWS_LATE_MS_MAX / 1_000:
            self._compared_at = time.monotonic()
            self._say(_ANYTHING)
        if not self._waiting:
            return ()
        with self._lock:
            heard, self._waiting = self._waiting, {}
        if _ANYTHING in heard:
            self._known.clear()  # a server that took over may give lower sequences
        known = self._known
        return [each for each, seq in heard.items() if not seq or seq > known.get(each.name, 0)]

    def tried(self) -> list[bytes]:
        """Return what was told of attempts at passwords, this broker's own too."""
        return [self._tried.popleft() for _ in range(len(self._tried))]

    def listen(self, names: Iterable[str]) -> None:
        """Want news of these mailboxes."""
        self._begin()
        self._wanted = wanted = frozenset(names)
        self._known = {name: seq for name, seq in self._known.items() if name in wanted}
        self._ring()

    def on_news(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called, by the thread, when there is news."""
        with self._lock:  # so that afterwards nobody is waking by what was there before
            self._wake = wake
        self._begin()

    def appended(self, name: str, seq: int) -> None:
        """Note what this broker has appended itself: that is no news."""
        if name in self._wanted:
            self._known[name] = seq

    def close(self) -> None:
        """End the thread. One that waits for a server which keeps silent is left to itself."""
        self._closing = True
        self._ring()
        if self._thread is not None:
            self._thread.join(_END_S)
            if self._thread.is_alive():
                return
        self._bell.close()
        self._rope.close()

    def _begin(self) -> None:
        if self._thread is None:
            self._compared_at = time.monotonic()
            self._thread = threading.Thread(target=self._live, name="kotak-news", daemon=True)
            self._thread.start()

    def _ring(self) -> None:
        with suppress(BlockingIOError):  # it rings already
            self._rope.send(b"!")

    # --- the thread ----------------------------------------------------------------------------

    def _live(self) -> None:
        """Listen until the end, whatever comes."""
        pause_s, told = _PAUSE_S, False
        while not self._closing:
            began = time.monotonic()
            ears = Ears(self._url, self._keys, self._bell, self._say, self._tried.append)
            try:
                self._listen(ears)
            except _FAILURES as error:
                if ears.opened or not told:  # once for as long as it lasts
                    fields = {"reason": str(error)}
                    log.warning("news of other brokers is interrupted", extra={"fields": fields})
                told = True
            except Exception:
                log.exception("the listener for news met a fault")
            finally:
                ears.close()
            if time.monotonic() - began > _PAUSE_S_MAX:
                pause_s = _PAUSE_S  # it went well for a while
            self._rest(pause_s)
            pause_s = min(_PAUSE_S_MAX, 2 * pause_s)

    def _listen(self, ears: Ears) -> None:
        """Hear and compare. Errors: what the library and `Link` raise."""
        ears.open(self._wanted)
        next_at = time.monotonic() + COMPARE_S
        while not self._closing:
            if self._wanted is not ears.wanted:
                ears.want(self._wanted)
            if time.monotonic() >= next_at:
                next_at = time.monotonic() + COMPARE_S
                ears.compare()
                self._compared_at = time.monotonic()
            ears.wait(max(0.0, next_at - time.monotonic()))
            self._silence_bell()

    def _say(self, news: News, seq: int = 0) -> None:
        with self._lock:
            waiting = self._waiting
            if len(waiting) >= _WAITING_MAX:
                waiting.clear()
                news, seq = _ANYTHING, 0
            waiting[news] = max(seq, waiting.get(news, 0))
            self._wake()

    def _rest(self, pause_s: float) -> None:
        until = time.monotonic() + pause_s
        while not self._closing and (left_s := until - time.monotonic()) > 0:
            with selectors.DefaultSelector() as selector:
                selector.register(self._bell, selectors.EVENT_READ)
                selector.select(left_s)
            self._silence_bell()

    def _silence_bell(self) -> None:
        with suppress(BlockingIOError):
            while self._bell.recv(1_024):
                pass


class Ears:
    """The connections, from their making until the first of them breaks."""

    def __init__(
        self,
        url: RedisUrl,
        keys: Keys,
        bell: socket.socket,
        say: Callable[..., None],
        hand_on: Callable[[bytes], None],
    ) -> None:
        self._url = url
        self._keys = keys
        self._say = say
        self._hand_on = hand_on
        self._nodes = nodes_of(url)
        self._link: Link | None = None
        self._selector = selectors.DefaultSelector()
        self._selector.register(bell, selectors.EVENT_READ, None)
        self.wanted: frozenset[str] = frozenset()
        self._connections: dict[Node, Connection] = {}
        self._heard_at: dict[Connection, float] = {}
        #: By channel: the mailbox, or (of changes and attempts) nothing; and where each is
        #: subscribed to.
        self._names: dict[bytes, str] = {}
        self._places: dict[bytes, Connection] = {}
        self._tried = frozenset(channel.encode() for channel in keys.shards("tried"))
        #: Channels that no server has confirmed yet, and ends that none has.
        self._unconfirmed: set[bytes] = set()
        self._leaving: Counter[bytes] = Counter()
        #: Mailboxes that were confirmed and not yet looked at; at first it is all of them.
        self._fresh: set[str] = set()
        self._opening = True
        #: The last sequences of mailboxes, and the last entries of the streams.
        self._last: dict[str, int] = {}
        self._entries: dict[str, bytes] = {}

    @property
    def opened(self) -> bool:
        """Tell whether everything has been subscribed to."""
        return not self._opening

    def open(self, wanted: frozenset[str]) -> None:
        """Connect, and subscribe to everything."""
        self._link = Link(self._url)
        changes = (channel.encode() for channel in self._keys.shards("changes"))
        self._names = dict.fromkeys([*changes, *self._tried], "")
        self._subscribe(list(self._names))
        self.want(wanted)

    def want(self, wanted: frozenset[str]) -> None:
        """Subscribe to these mailboxes, and no longer to others."""
        come, gone = wanted - self.wanted, self.wanted - wanted
        self.wanted = wanted
        channels = []
        for name in come:
            channel = f"{self._keys.place(name)}:wake".encode()
            self._names[channel] = name
            channels.append(channel)
        self._subscribe(channels)
        leaving: defaultdict[Connection, list[Call]] = defaultdict(list)
        for name in gone:
            channel = f"{self._keys.place(name)}:wake".encode()
            self._names.pop(channel, None)
            self._unconfirmed.discard(channel)
            self._fresh.discard(name)
            self._last.pop(name, None)
            self._leaving[channel] += 1
            leaving[self._places.pop(channel)].append(("SUNSUBSCRIBE", channel))
        for connection, calls in leaving.items():
            _send(connection, calls)

    def wait(self, patience_s: float) -> None:
        """Hear what comes until the bell rings or it is time; at once where something came."""
        for key, _ in self._selector.select(patience_s):
            if key.data is not None:
                self._hear(key.data)
        if not self._unconfirmed if self._opening else self._fresh:
            self._look_at_fresh()

    def compare(self) -> None:
        """Say what the store tells and no hint has told. Errors: as `Link.ask`, `NoAnswerError`."""
        self._compare_mailboxes(self.wanted - self._fresh)
        self._compare_changes()
        oldest = time.monotonic() - COMPARE_S - self._url.timeout_ms / 1_000
        for connection, heard_at in self._heard_at.items():
            if heard_at < oldest:
                raise NoAnswerError("a server says nothing any more")
            _send(connection, [("PING",)])

    def close(self) -> None:
        """Hang up."""
        self._selector.close()
        for connection in self._connections.values():
            connection.disconnect()
        self._nodes.close()
        if self._link is not None:
            self._link.close()

    # --- subscribing ---------------------------------------------------------------------------

    def _subscribe(self, channels: Sequence[bytes]) -> None:
        by_connection: defaultdict[Connection, list[Call]] = defaultdict(list)
        for channel in channels:
            connection = self._connection(self._nodes.of(("SSUBSCRIBE", channel.decode())))
            self._places[channel] = connection
            # One by one: a command may not name channels of several slots.
            by_connection[connection].append(("SSUBSCRIBE", channel))
        self._unconfirmed.update(channels)
        for connection, calls in by_connection.items():
            _send(connection, calls)

    def _connection(self, node: Node) -> Connection:
        connection = self._connections.get(node)
        if connection is None:
            connection = self._connections[node] = node.connect()
            self._heard_at[connection] = time.monotonic()
            # There is no other way to wait for several connections.
            file = connection._sock  # noqa: SLF001 - as above
            assert file is not None
            self._selector.register(file, selectors.EVENT_READ, connection)
        return connection

    def _hear(self, connection: Connection) -> None:
        """Take in all that one connection has."""
        while connection.can_read(timeout=0):
            message = connection.read_response()
            self._heard_at[connection] = time.monotonic()
            if isinstance(message, list) and len(message) == 3:
                self._take(*message)

    def _take(self, kind: bytes, channel: bytes, what: Any) -> None:
        if kind == b"sunsubscribe":
            if not self._leaving[channel]:
                raise ResponseError("a slot has moved to another server")
            self._leaving[channel] -= 1
            return
        name = self._names.get(channel)
        if name is None:
            return  # no longer wanted
        if kind == b"smessage":
            if channel in self._tried:
                self._hand_on(what)
            elif name:
                seq = int(what)
                self._last[name] = max(seq, self._last.get(name, 0))
                self._say(News(Kind.MAILBOX, name), seq)
            else:
                self._say(News(Kind.USER, what.decode()))
        elif kind == b"ssubscribe":
            self._unconfirmed.discard(channel)
            if name:
                self._fresh.add(name)

    # --- comparing -----------------------------------------------------------------------------

    def _look_at_fresh(self) -> None:
        """Note where things stand, now that later ones are told; then have earlier ones seen."""
        fresh, self._fresh = self._fresh, set()
        for name, last in self._lasts(fresh):
            self._last[name] = max(last, self._last.get(name, 0))
        if self._opening:
            keys = self._keys.shards("changes")
            replies = self._ask([("XREVRANGE", key, "+", "-", "COUNT", 1) for key in keys])
            for key, rows in zip(keys, replies, strict=True):
                self._entries[key] = rows[0][0] if rows else b"0-0"
            self._opening = False
            self._say(_ANYTHING)
            return
        for name in fresh:
            self._say(News(Kind.MAILBOX, name))

    def _compare_mailboxes(self, names: Iterable[str]) -> None:
        for name, last in self._lasts(names):
            if last > self._last.get(name, 0):
                self._last[name] = last
                self._say(News(Kind.MAILBOX, name), last)

    def _compare_changes(self) -> None:
        keys = list(self._entries)
        replies = self._ask(
            [("XRANGE", key, self._entries[key], "+", "COUNT", CHANGES_KEPT) for key in keys]
        )
        for key, rows in zip(keys, replies, strict=True):
            before = self._entries[key]
            if rows:
                self._entries[key] = rows[-1][0]
            if len(rows) == CHANGES_KEPT or (
                before != b"0-0" and (not rows or rows[0][0] != before)
            ):
                self._say(_ANYTHING)  # some are missing
                if not rows:
                    self._entries[key] = b"0-0"
                continue
            for entry, fields in rows:
                if entry != before:
                    self._say(News(Kind.USER, fields[1].decode()))

    def _lasts(self, names: Iterable[str]) -> Iterable[tuple[str, int]]:
        """Ask for the last sequences of mailboxes, some at a time."""
        left = list(names)
        for start in range(0, len(left), _AT_ONCE):
            part = left[start : start + _AT_ONCE]
            replies = self._ask([("HGET", self._keys.of(name, "meta"), "last") for name in part])
            yield from ((name, int(last or 0)) for name, last in zip(part, replies, strict=True))

    def _ask(self, calls: Sequence[Call]) -> list[Any]:
        assert self._link is not None
        return self._link.ask(calls)


def _send(connection: Connection, calls: Sequence[Call]) -> None:
    for start in range(0, len(calls), _AT_ONCE):
        packed = connection.pack_commands(calls[start : start + _AT_ONCE])
        connection.send_packed_command(packed, check_health=False)


def _nobody() -> None:
    pass
