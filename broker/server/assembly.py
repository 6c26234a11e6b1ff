"""Parts that both the running broker and `kotak user` on a stopped one are made of."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from importlib.metadata import version

from broker.config import Config
from broker.core.attempts import AttemptLimits
from broker.core.dedup import DedupLimits
from broker.core.handlers import Policy
from broker.core.model import Route
from broker.core.ports import Audit, Hasher, Operations, Store, StoreLimits
from broker.core.rates import SendLimits
from broker.core.service import Service
from broker.core.sessions import SessionLimits
from broker.stores import open_store
from broker.stores.folder import DataFolder

#: 256 random bits; the prefix lets scanners of public code find a token that leaked.
_TOKEN_BYTES = 32
_TOKEN_PREFIX = "kt_"  # noqa: S105 - the prefix of every token


def make_token() -> str:
    """Return a new token."""
    return _TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)


class WallClock:
    """Milliseconds since the epoch, never going back.

    When the machine's clock is set back, this one goes at half speed until time has caught up: it
    must not stand still, since expiry, limits and what is tried again after a while go by it.
    """

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        steady_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall_ns = wall_ns
        self._steady_ns = steady_ns
        self._last_ms = 0
        #: While the machine's clock is behind: what was told when that was noticed, and when.
        self._behind: tuple[int, int] | None = None

    def __call__(self) -> int:
        wall_ms = self._wall_ns() // 1_000_000
        if wall_ms >= self._last_ms:
            self._last_ms, self._behind = wall_ms, None
            return wall_ms
        steady_ns = self._steady_ns()
        told_ms, since_ns = self._behind = self._behind or (self._last_ms, steady_ns)
        self._last_ms = told_ms + (steady_ns - since_ns) // 2_000_000
        return self._last_ms


def make_store(config: Config, folder: DataFolder) -> Store:
    """Open the store that the configuration names. Errors: `StoreUnusableError`."""
    dedup = DedupLimits(
        ids_per_sender=config.dedup_ids_per_sender,
        ids_max=config.dedup_ids_max,
        window_ms=config.dedup_window_ms,
    )
    limits = StoreLimits(
        mailbox_messages_max=config.mailbox_messages_max,
        mailbox_bytes_max=config.mailbox_bytes_max,
        retention_read_ms=config.retention_read_ms,
        retention_unread_ms=config.retention_unread_ms,
        retention_room_ms=config.retention_room_ms,
        retention_bytes_max=config.retention_bytes_max,
        dedup=dedup,
    )
    return open_store(config.store, folder, limits)


def make_policy(config: Config) -> Policy:
    """Gather what the configuration allows."""
    return Policy(
        register=config.register,
        sessions=SessionLimits(
            config.session_idle_ms, config.session_max_ms, config.sessions_per_user_max
        ),
        sends=SendLimits(
            message_bytes_max=config.message_bytes_max,
            rate_max=config.send_rate_max,
            burst_max=config.send_burst_max,
        ),
        attempts=AttemptLimits(
            failures_max=config.login_failures_max,
            address_failures_max=config.login_address_failures_max,
        ),
        presence_ms=config.presence_ms,
        expiry_notices=config.expiry_notices,
    )


def make_service(
    config: Config,
    store: Store,
    hasher: Hasher,
    audit: Audit,
    *,
    key_of: Callable[[Route], str | None] = lambda _: None,
    address_of: Callable[[Route], str | None] = lambda _: None,
    operations: Operations | None = None,
) -> Service:
    """Put the service over a store; ``key_of`` and ``address_of`` tell what a door knows."""
    return Service(
        store,
        hasher=hasher,
        make_token=make_token,
        policy=make_policy(config),
        server=f"kotak/{version('kotak')}",
        key_of=key_of,
        address_of=address_of,
        audit=audit,
        operations=operations,
    )
