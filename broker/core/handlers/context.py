"""What handlers work on, and what they return.

A handler knows neither the door that its command came through nor the engine that stores. What it
returns becomes the reply after the batch has been committed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from broker.core.accounts import Accounts
from broker.core.attempts import AttemptLimits
from broker.core.blocks import Blocks
from broker.core.model import AuditEntry, History, Lost, Page, Receipt, Route
from broker.core.ports import Hasher, Operations, Store
from broker.core.rates import SendLimits, SendRates
from broker.core.rooms import Rooms
from broker.core.sessions import Session, SessionLimits, Sessions
from broker.core.shared_rates import SharedRates
from broker.core.subscriptions import Subscriptions
from broker.wire.errors import WireError

#: A user who was not heard for so long is not connected.
PRESENCE_MS: Final = 60_000


#: Text in pages that one connection is given in a turn: who asks for many at once and does not read
#: them would otherwise cost a megabyte a request. The page that crosses it is still given whole.
PAGED_BYTES_PER_TURN_MAX: Final = 4_194_304
#: When to ask for the next page then, in milliseconds.
PAGED_RETRY_MS: Final = 50


class Deferred(NamedTuple):
    """Slow work: ``work`` runs without the baton, ``finish`` in a later batch with its outcome.

    What ``work`` raises as a `WireError` is the answer. ``stores``: finishing takes room on the
    disk. ``entry`` is for the audit, its outcome still to come. ``tries`` names the user whose
    password is tried (``bad_credentials``: it was wrong), ``registers`` that an account is opened:
    whether either may be now is judged before the work is run.
    """

    work: Callable[[], Any]
    finish: Callable[[Context, Any], Result]
    stores: bool = True
    entry: AuditEntry | None = None
    tries: str | None = None
    registers: bool = False


class Inbox(NamedTuple):
    """A page for its reader; ``lost`` is what the reader has to be told of."""

    user: str
    page: Page
    lost: Lost | None


Result = Receipt | Inbox | History | Deferred | Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What this broker allows."""

    #: May strangers register?
    register: bool = False
    sessions: SessionLimits = field(default_factory=SessionLimits)
    sends: SendLimits = field(default_factory=SendLimits)
    attempts: AttemptLimits = field(default_factory=AttemptLimits)
    presence_ms: int = PRESENCE_MS
    #: Are senders told by a message of what has expired unread?
    expiry_notices: bool = False


@dataclass(slots=True)
class Context:
    """The service's parts; ``now_ms``, ``route`` and ``session`` are the request's."""

    store: Store
    hasher: Hasher
    sessions: Sessions
    accounts: Accounts
    rooms: Rooms
    blocks: Blocks
    subscriptions: Subscriptions
    policy: Policy
    #: None where anybody may send as fast as they can.
    rates: SendRates | SharedRates | None
    #: The broker's name and version, for `hello`.
    server: str
    #: The key that a connection has proved to be its own; None where it is not encrypted.
    key_of: Callable[[Route], str | None]
    #: Where a request comes from, by connection and token; None where that is not known.
    origin_of: Callable[[Route, str | None], str | None]
    #: None where there is no broker around the core.
    operations: Operations | None
    #: Why nothing new is taken, as names of reasons; empty: it is.
    closed: set[str] = field(default_factory=set)
    #: What a request for something new is refused with in this turn.
    refusal: WireError | None = None
    now_ms: int = 0
    #: Text that each connection was given in pages in this turn, in bytes.
    paged: dict[Route, int] = field(default_factory=dict)
    #: The connection that the request came through.
    route: Route = b""
    #: Set wherever the command's `Needs` is not NOTHING.
    session: Session = None  # type: ignore[assignment]  # an Optional would be checked everywhere
