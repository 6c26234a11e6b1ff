"""What the command line asks of a client, and what it says while an answer is slow in coming."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator, Iterator
from threading import Event, Timer
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self, TypeAlias

from broker.wire.commands import INBOX
from broker.wire.limits import INBOX_MESSAGES_MAX, WINDOW_DEFAULT, WINDOW_MAX
from clients.curve_keys import Curve
from clients.display import broker_at, safe_line
from clients.errors import HistoryLost, InternalError, KotakError, RequestError, Unavailable
from clients.results import History, Inbox, Login, Message, Receipt, Room, Status, User

#: Silence up to here passes for speed; after it, a person wants to know what is going on.
NOTICE_AFTER_S: Final = 1.0
#: After these a message may be stored all the same: to repeat it, its id is needed.
MAY_BE_STORED: Final = (Unavailable, InternalError)
#: Messages that one command shows: a mailbox that fills as fast as it is read must not hold it.
MESSAGES_PER_RUN_MAX: Final = 10_000
#: Whoever keeps what is pushed subscribes again after so much, or the broker would wait for an
#: acknowledgement; each message counts as its text and `KEPT_BYTES_EACH`. Half of what it allows.
KEPT_BYTES_MAX: Final = 500_000
KEPT_BYTES_EACH: Final = 2 * KEPT_BYTES_MAX // WINDOW_MAX
#: ... and then has patience: a broker that was there comes back.
RENEWAL_MS: Final = 24 * 60 * 60 * 1_000


class Calls(Protocol):
    """The blocking client, as far as the command line uses it. Source: docs/PROTOCOL.md."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    @property
    def rooms(self) -> RoomCalls: ...
    def login(
        self, user: str, password: str | None = None, *, device: str | None = None
    ) -> Login: ...
    def logout(self, *, timeout_ms: int | None = None) -> None: ...
    def ping(self, *, timeout_ms: int | None = None) -> int: ...
    def send(
        self, to: str, text: str, *, message_id: str | None = None, ttl_ms: int | None = None
    ) -> Receipt: ...
    def inbox(self, *, limit: int = 100, after: int | None = None) -> Inbox: ...
    def acknowledge(self, seq: int) -> int: ...
    def messages(
        self,
        *,
        window: int = ...,
        after: int | None = None,
        acknowledge: bool = True,
        timeout_ms: int | None = None,
        stop: Event | None = None,
        on_connection: Callable[[bool], None] | None = None,
    ) -> Generator[Message, None, None]: ...
    def history(
        self,
        of: str = INBOX,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> History: ...
    def status(self, to: str, seq: int) -> Status: ...
    def users_on(self, *, detail: bool = False) -> list[User]: ...
    def block(self, user: str) -> None: ...
    def unblock(self, user: str) -> None: ...
    def blocked(self) -> list[str]: ...
    def register(self, user: str, password: str, *, name: str | None = None) -> object: ...
    def change_password(self, old: str, new: str) -> None: ...


# Within the class below "list" is a method.
_RoomList: TypeAlias = list[Room]
_UserList: TypeAlias = list[User]


class RoomCalls(Protocol):
    """The rooms of a client's user. Source: docs/PROTOCOL.md, "rooms" and what follows it."""

    def list(self) -> _RoomList: ...
    def create(self, room: str, *, open: bool = False, history: bool = False) -> Room: ...  # noqa: A002 - the library's own
    def invite(self, room: str, user: str) -> None: ...
    def join(self, room: str) -> Room: ...
    def leave(self, room: str) -> None: ...
    def members(self, room: str) -> _UserList: ...


class Connect(Protocol):
    """Open a client for ``address``; `clients.client.Client` is one."""

    def __call__(
        self, address: str, *, token: str | None, timeout_ms: int, curve: Curve | None
    ) -> Calls: ...


class Shown(NamedTuple):
    """How many messages were shown, and whether more were waiting behind them."""

    messages: int
    more: bool


def read_inbox(
    client: Calls,
    show: Callable[[Inbox], None],
    *,
    waiting: Callable[[], contextlib.AbstractContextManager[None]],
    keep: bool = False,
    messages_max: int = MESSAGES_PER_RUN_MAX,
) -> Shown:
    """Hand the waiting messages to ``show`` page by page; acknowledge each page after it returned.

    A page that ``show`` did not survive stays in the mailbox. ``keep`` acknowledges nothing.
    Lost history is handed on once, perhaps with a page that is empty.
    Errors: what ``show`` raises, and `KotakError`.
    """
    count, after = 0, None
    lost: tuple[int, int] | None = None
    while True:
        with waiting():
            page = client.inbox(limit=min(messages_max - count, INBOX_MESSAGES_MAX), after=after)
        known, lost = lost, page.history_lost
        if lost == known:
            page = page._replace(history_lost=None)
        if page.messages or page.history_lost:
            show(page)
        if not page.messages:
            return Shown(count, more=False)
        count += len(page.messages)
        after = page.messages[-1].seq
        if not keep:
            with waiting():
                client.acknowledge(after)
        if not page.more or count >= messages_max:
            return Shown(count, page.more)


def watch_inbox(
    client: Calls,
    show: Callable[[Message], None],
    *,
    on_connection: Callable[[bool], None],
    on_lost: Callable[[HistoryLost], None],
    keep: bool = False,
) -> None:
    """Hand each message to ``show`` as it arrives, and acknowledge it after that. Without end.

    ``keep`` acknowledges nothing. ``on_lost`` is told of lost history, after which the watching
    begins anew with what waits. Errors: what ``show`` raises, and `KotakError`.
    """
    after, timeout_ms, more = None, None, True
    while more:
        arriving = client.messages(
            window=WINDOW_MAX if keep else WINDOW_DEFAULT,
            after=after,
            acknowledge=not keep,
            timeout_ms=timeout_ms,
            on_connection=on_connection,
        )
        try:
            with contextlib.closing(arriving):
                after = _watch_some(arriving, show, keep=keep)
            more = after is not None
        except HistoryLost as lost:
            on_lost(lost)
            after = None
        timeout_ms = RENEWAL_MS


def _watch_some(
    arriving: Iterator[Message], show: Callable[[Message], None], *, keep: bool
) -> int | None:
    """Return the last sequence once it is time to subscribe again; None where there is no more."""
    kept_bytes = 0
    for message in arriving:
        show(message)
        kept_bytes += KEPT_BYTES_EACH + len(message.text.encode())
        if keep and kept_bytes >= KEPT_BYTES_MAX:
            return message.seq
    return None


@contextlib.contextmanager
def waiting_notice(address: str, *, after_s: float = NOTICE_AFTER_S) -> Iterator[None]:
    """Say on standard error what is being waited for, should it take longer than ``after_s``."""
    notice = f"waiting for {broker_at(address)} (Ctrl-C to give up)\n"
    timer = Timer(after_s, _say, (notice,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _say(notice: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody is left to read it
        sys.stderr.write(notice)
        sys.stderr.flush()


def sentence(error: KotakError) -> str:
    """Return what went wrong for a person: the broker's own sentence where it gave one."""
    return safe_line(error.message if isinstance(error, RequestError) else str(error))
