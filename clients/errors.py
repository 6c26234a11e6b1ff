"""What a client raises, and what each error means for the caller.

    KotakError
     ├── RequestError (also a broker.wire.errors.WireError)   one request was not carried out, or
     │    │                                                   may not have been
     │    ├── BadRequest           mend the request
     │    │    ├── UnknownCommand        this broker has no such command
     │    │    └── UnsupportedVersion    this broker speaks another version
     │    ├── TooLarge             a field or the frame is over its limit
     │    ├── Unauthorized         log in (again)
     │    ├── BadCredentials       user name or password is wrong
     │    ├── Forbidden            not for this session
     │    ├── NoSuchUser           nobody of that name
     │    ├── NoSuchRoom           no room of that name, or it is closed to you
     │    ├── NoSuchMessage        you sent no such message, or it is no longer kept
     │    ├── UserExists           the name is taken
     │    ├── RoomExists           the name is taken
     │    ├── TooMany              a limit of this user's is reached: give something up
     │    ├── Conflict             this message id was used for another message
     │    ├── Blocked              the recipient takes no messages from you; nothing was stored
     │    ├── MailboxFull          nothing was stored; later
     │    ├── RateLimited          as Busy: the user sends faster than the broker allows; of a
     │    │                        login, at once: too many wrong passwords
     │    ├── StorageFull          nothing was stored; later
     │    ├── Busy                 nothing was done; later (repeated until the deadline already)
     │    ├── Unavailable          as Busy
     │    │    ├── ConnectionFailed      no connection: certainly not carried out
     │    │    └── RequestTimeout        no answer: carried out or not; repeat with the same id
     │    └── InternalError        a fault of the broker; its log says more
     ├── HistoryLost               messages may be gone; reading again goes on
     ├── ClientClosed              the client was closed, before or during the call
     ├── ForkedProcess             the client was made before os.fork
     └── WrongThread               the client belongs to another thread or event loop

No error's text holds a password, a token or a message. Source: docs/PROTOCOL.md, "Errors".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from broker.wire.errors import Code, WireError


class KotakError(Exception):
    """Everything that this library raises on purpose."""


class RequestError(KotakError, WireError):
    """One request failed: ``code``, ``message`` and, where waiting helps, ``retry_after_ms``."""


class BadRequest(RequestError):
    """The request is malformed, or a field has the wrong type."""


class UnknownCommand(BadRequest):
    """The broker has no such command in this version."""


class UnsupportedVersion(BadRequest):
    """The broker speaks another version of the protocol."""


class TooLarge(RequestError):
    """A field or the whole frame is over its limit; also found before anything is sent."""


class Unauthorized(RequestError):
    """No token, or one that is unknown or expired: log in."""


class BadCredentials(RequestError):
    """The user name or the password is wrong; which one is not told."""


class Forbidden(RequestError):
    """Not allowed for this session (an observer sends nothing), or by the administrator."""


class NoSuchUser(RequestError):
    """Nobody has that name."""


class NoSuchRoom(RequestError):
    """No room has that name, or it is closed to the user: ask a member for an invitation."""


class NoSuchMessage(RequestError):
    """The user sent no such message, or it is no longer kept."""


class UserExists(RequestError):
    """The name is taken."""


class RoomExists(RequestError):
    """The name is taken."""


class TooMany(RequestError):
    """A limit of this user's is reached, which the text names: give something up first."""


class Conflict(RequestError):
    """The message id was used with another text or recipient: a new message takes a new id."""


class Blocked(RequestError):
    """The recipient takes no messages, or no invitations, from this user; nothing was stored."""


class MailboxFull(RequestError):
    """The recipient has too much unread, or the room keeps too much; nothing was stored."""


class RateLimited(RequestError):
    """The user sends faster than the broker allows; nothing was stored.

    Raised where waiting for ``retry_after_ms`` would go beyond the call's timeout; repeated until
    then. Of a login, and of other commands with a password: there were too many wrong ones, and it
    is raised at once, so that whoever types is told to wait for so long.
    """


class StorageFull(RequestError):
    """The broker's disk is full; nothing was stored; reading and acknowledging go on."""


class Busy(RequestError):
    """Too much work is waiting, at the broker or in this client."""


class Unavailable(RequestError):
    """The broker is stopping or its disk failed."""


class ConnectionFailed(Unavailable):
    """The request was never sent, for want of a connection: it was certainly not carried out."""

    def __init__(self, message: str, *, message_id: str | None = None) -> None:
        super().__init__(Code.UNAVAILABLE, message)
        self.message_id = message_id


class RequestTimeout(Unavailable):
    """The request was sent and not answered: it may have been carried out or not.

    Repeating is safe; a chat message must be repeated with the same ``message_id`` (None for
    other commands), and is then stored once.
    """

    def __init__(self, message: str, *, message_id: str | None = None) -> None:
        super().__init__(Code.UNAVAILABLE, message)
        self.message_id = message_id


class InternalError(RequestError):
    """A fault of the broker (also: a code that this version does not know)."""


class HistoryLost(KotakError):
    """The broker's store was put back, or what this reader had not read was kept no longer.

    Messages with sequences from ``first`` to ``last`` may be gone, and acknowledgements made
    meanwhile may be undone. Raised once for each loss: whoever reads again goes on.
    Source: docs/PROTOCOL.md, "When history was lost".
    """

    def __init__(self, first: int, last: int) -> None:
        super().__init__(first, last)
        self.first = first
        self.last = last

    def __str__(self) -> str:
        return (
            f"the broker lost history: messages {self.first} to {self.last} may be gone; read "
            "again to go on, and without 'after' to see all that there is"
        )


class ClientClosed(KotakError):
    """The client was closed, before the call or while it waited."""


class ForkedProcess(KotakError):
    """The client was made before ``os.fork``; ZeroMQ's sockets do not survive it."""


class WrongThread(KotakError):
    """The client is used from another thread, or another event loop, than its own."""


#: The class that stands for each code on the wire.
CLASSES: Final[Mapping[Code, type[RequestError]]] = {
    Code.BAD_REQUEST: BadRequest,
    Code.UNKNOWN_COMMAND: UnknownCommand,
    Code.UNSUPPORTED_VERSION: UnsupportedVersion,
    Code.TOO_LARGE: TooLarge,
    Code.UNAUTHORIZED: Unauthorized,
    Code.BAD_CREDENTIALS: BadCredentials,
    Code.FORBIDDEN: Forbidden,
    Code.NO_SUCH_USER: NoSuchUser,
    Code.NO_SUCH_ROOM: NoSuchRoom,
    Code.NO_SUCH_MESSAGE: NoSuchMessage,
    Code.USER_EXISTS: UserExists,
    Code.ROOM_EXISTS: RoomExists,
    Code.TOO_MANY: TooMany,
    Code.CONFLICT: Conflict,
    Code.BLOCKED: Blocked,
    Code.MAILBOX_FULL: MailboxFull,
    Code.RATE_LIMITED: RateLimited,
    Code.STORAGE_FULL: StorageFull,
    Code.BUSY: Busy,
    Code.INTERNAL: InternalError,
    Code.UNAVAILABLE: Unavailable,
}


def from_wire(error: WireError) -> RequestError:
    """Return the exception that a caller catches for what the broker answered."""
    kind = CLASSES.get(error.code, InternalError)
    # ConnectionFailed and RequestTimeout stand in no table: they never come over the wire.
    return kind(error.code, error.message, error.retry_after_ms)
