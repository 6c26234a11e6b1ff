"""The running broker: its parts, the order they start in, and the order they stop in."""

from __future__ import annotations

import logging
import resource
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Final, NamedTuple

import zmq

from broker import logs
from broker.audit import AuditLog
from broker.config import Address, Config
from broker.core.model import Account
from broker.core.ports import Hasher, Store, StoreFailedError, StoreFullError, StoreUnavailableError
from broker.core.service import Service
from broker.exits import Exit, ExitError
from broker.metrics import Metrics
from broker.passwords import Argon2Hasher
from broker.server.access import publish, withdraw
from broker.server.assembly import WallClock, make_service, make_store, make_token
from broker.server.gate import Gate
from broker.server.listening import refused_address, require_encrypted, require_free
from broker.server.operations import Reloaded, RunningOperations
from broker.server.private_folder import require_private
from broker.server.text_door import Figure, TextDoor, open_tls
from broker.server.watch import Watch, memory_limit_bytes
from broker.stores import LocalStore
from broker.stores.folder import DataFolder, was_used
from broker.transports.private_file import SecretFileError
from broker.transports.router import Router
from broker.transports.status import Status
from broker.transports.tls import TlsDoor
from broker.workers import WorkerPool

log = logging.getLogger("kotak.server")

#: The four users of the 2020 service: user, display name, password.
DEMO_USERS: Final = (
    ("shafwa", "Shafwa", "mks"),
    ("fadly", "Fadly", "prp"),
    ("afif", "Afif", "plp"),
    ("mamang", "mamang", "jkt"),
)

#: Open files wanted: at its limit libzmq spins on a core and SQLite cannot open its files.
_OPEN_FILES_WANTED: Final = 65_536
#: Beside the connections of the text door: ZeroMQ peers, the database, the logs.
_OPEN_FILES_SPARE: Final = 1_000
#: The text gateway's own way to the ROUTER.
_INPROC: Final = "inproc://kotak"
#: What the text gateway counts, by its attributes, and what each means.
_TEXT_COUNTERS: Final[Mapping[Figure, str]] = {
    "lines": "Lines answered on the text door",
    "refused": "Text connections turned away over the limit",
    "unread": "Text peers cut off, since they did not read",
    "untaken": "Text inbox replies whose messages were not acknowledged, and will be read again",
    "faults": "Text lines that met a fault of the broker",
}
#: What ends a broker that runs, and what helps.
_DISK_FAILED: Final = (
    Exit.DISK_FAILED,
    "the disk failed: nothing more is accepted. Start again to recover",
)
_NO_ROOM_FOR_DEMO: Final = (
    Exit.DATA_FOLDER,
    "the disk is full, with no room for the demo users: free some, or start without --demo",
)
_GATE_FAILED: Final = (
    Exit.GATE_FAILED,
    "the encrypted zmq door let a stranger in: it is closed. Start again, and look at the log",
)
_MEMORY_SPENT: Final = (
    Exit.MEMORY_SPENT,
    "the memory that the broker may take (memory_max_bytes) is spent. Start again to recover",
)
#: Seconds between looks at whether the slow requests are done.
_DRAIN_POLL_S: Final = 0.01


class Doors(NamedTuple):
    """Where each door is; None is one that is off."""

    zmq: str
    text: Address | None
    http: Address | None

    def __str__(self) -> str:
        return f"zmq={self.zmq} text={self.text or 'off'} http={self.http or 'off'}"


class Server:
    """A broker in this process. `start` it once, `stop` it once.

    ``failed`` is set when it cannot go on, and ``failure`` says why: stop, and start anew to
    recover. ``ending`` is set with it, and by whoever wants the broker to end.
    """

    def __init__(self, config: Config, *, hasher: Hasher | None = None) -> None:
        self._config = config
        self._hasher = hasher or Argon2Hasher()
        self._parts = ExitStack()
        self._gate: Gate | None = None
        self._tls: TlsDoor | None = None
        #: What an OK achieves, once it has started (`Store.durability`).
        self.durability = ""
        self.failed = threading.Event()
        self.failure: ExitError | None = None
        self.ending = threading.Event()

    def start(self) -> Doors:
        """Open everything, in order; what was opened is closed again where a step fails.

        Errors: `StoreUnusableError`, `ExitError` (an address is taken, a door is exposed).
        """
        require_encrypted(self._config, "zmq", "text", "http")
        _raise_open_files(self._config.text_connections_max + _OPEN_FILES_SPARE)
        with self._parts as opened:
            try:
                doors = self._open()
            except StoreFailedError as error:
                raise ExitError(*_DISK_FAILED) from error
            except StoreUnavailableError as error:
                raise ExitError(Exit.DATA_FOLDER, f"the store does not serve: {error}") from error
            self._parts = opened.pop_all()
        return doors

    def reload(self) -> Reloaded:
        """Read certificate and enrolled keys anew, for the connections to come.

        What cannot be read is told in the log, and the former ones stand. From any thread.
        """
        reloaded = Reloaded([], [])
        for name, part in (("curve_clients", self._gate), ("tls_cert", self._tls)):
            if part is not None and (fault := reload_logged(name, part)) is not None:
                reloaded.kept.append(f"{name}: {fault}")
            elif part is not None:
                reloaded.names.append(name)
        return reloaded

    def stop(self) -> None:
        """Finish what is under way and close everything; a second call does nothing.

        The order is that of the stack backwards. Readiness goes first, so that balancers look
        elsewhere; the text door while the broker still answers it; then slow requests finish, while
        new ones are told to come again; then the workers, after whom nobody touches the socket or
        the store; then the socket, whose replies get their linger; the store last.
        """
        self.ending.set()
        self._parts.close()

    def _open(self) -> Doors:
        config, close_later = self._config, self._parts.callback
        self._gate = Gate(config) if config.curve_key else None
        self._tls = open_tls(config)
        if not was_used(config.data):  # else "another broker is running on it" may say more
            require_free(config)
        folder = DataFolder(config.data)
        close_later(folder.close)
        require_private(folder)
        store = make_store(config, folder)
        close_later(store.close)
        self.durability = store.durability
        if config.demo:
            _add_demo_users(store, self._hasher)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        close_later(context.term)
        if self._gate is not None:
            close_later(self._gate.stop)
            self._gate.start(context)
        self._router = Router(context, curve_secret=self._gate.secret if self._gate else None)
        close_later(self._router.close)
        store.on_news(self._router.wake)
        close_later(store.on_news, _nobody)
        self._service = self._make_service(folder, store)
        zmq_address = self._bind()
        self._pool = WorkerPool(
            self._router,
            self._service,
            threads=config.workers,
            clock_ms=WallClock(),
            on_failure=partial(self._fail, _DISK_FAILED),
        )
        self._text = TextDoor(config, _INPROC, context=context, tls=self._tls)
        self._watch = Watch(
            memory_max_bytes=memory_limit_bytes(config.memory_max_bytes),
            refuse=self._refuse_new,
            on_spent=partial(self._fail, _MEMORY_SPENT),
        )
        http = self._open_http(store)
        self._pool.start()
        close_later(self._pool.stop)
        close_later(self._drain)
        if self._gate is not None:
            self._gate.watch(zmq_address, on_open=partial(self._fail, _GATE_FAILED))
            close_later(self._gate.unwatch)
        close_later(self._watch.stop)
        self._watch.start()
        self._publish(folder, zmq_address)
        return Doors(zmq_address, self._open_text(), http)

    def _make_service(self, folder: DataFolder, store: Store) -> Service:
        """Put the core together with what it asks of the process around it."""
        self._audit = AuditLog(folder.audit_file)
        self._parts.callback(self._audit.close)
        return make_service(
            self._config,
            store,
            self._hasher,
            self._audit,
            key_of=self._router.key_of,
            address_of=self._router.address_of,
            operations=RunningOperations(
                folder.database if self._config.store == "sqlite:" else self._config.store,
                reload=self.reload,
                stopping=self.ending.is_set,
            ),
        )

    def _bind(self) -> str:
        try:
            self._router.bind(_INPROC)
            address = self._router.bind(self._config.zmq)
        except zmq.ZMQError as error:
            raise refused_address("zmq", self._config.zmq, error) from error
        if self._gate is not None:
            self._gate.require_shut(address)  # before anything that came in is looked at
        return address

    def _publish(self, folder: DataFolder, zmq_address: str) -> None:
        token = make_token()
        self._service.grant_admin(token)
        publish(folder, zmq_address, token, self._gate.own if self._gate else None)
        self._parts.callback(withdraw, folder)

    def _open_text(self) -> Address | None:
        if self._config.text is None:
            return None
        self._service.trust_door(self._text.token)
        try:
            address = self._text.start()
        except OSError as error:
            raise refused_address("text", self._config.text, error) from error
        self._parts.callback(self._text.stop)
        return address

    def _open_http(self, store: Store) -> Address | None:
        wanted = self._config.http
        if wanted is None:
            return None
        metrics = self._metrics(store)
        status = Status(
            exposition=metrics.exposition,
            ready=self._is_ready,
            degraded=lambda: self._service.degraded,
        )
        try:
            address = Address(*status.start(*wanted))
        except OSError as error:
            raise refused_address("http", wanted, error) from error
        self._parts.callback(status.stop)
        return address

    def _metrics(self, store: Store) -> Metrics:
        """Name what the parts count."""
        metrics, service, pool, text = Metrics(), self._service, self._pool, self._text
        count, gauge = metrics.counter, metrics.gauge
        count("kotak_requests", "Requests", lambda: dict(service.requests), label="command")
        count("kotak_refusals", "Requests refused", lambda: dict(service.errors), label="code")
        count("kotak_turns", "Batches handled, each one commit at most", lambda: pool.turns)
        dropped = self._router.dropped
        gate, tls = self._gate, self._tls
        judged = gate.judged if gate else dict
        count("kotak_curve_handshakes", "Encrypted connections judged", judged, label="outcome")
        failed = "TLS handshakes that came to nothing"
        count("kotak_tls_failed_handshakes", failed, lambda: tls.failed if tls else 0)
        count("kotak_replies_dropped", "Replies lost", lambda: dict(dropped), label="reason")
        if isinstance(store, LocalStore):  # of one that brokers share, its own metrics tell
            boxes = store.mailboxes
            gauge("kotak_mailboxes", "Mailboxes", lambda: len(boxes))
            gauge("kotak_waiting_messages", "Not yet acknowledged", lambda: store.depth().messages)
            gauge("kotak_read_bytes", "Text acknowledged and kept", lambda: boxes.read_bytes)
        count("kotak_expired_messages", "Messages that expired unread", lambda: service.expired)
        count(
            "kotak_notices_dropped",
            "Notices of expiry that could not be stored",
            lambda: service.unnoticed,
        )
        gauge(
            "kotak_subscriptions",
            "Peers that messages are pushed to",
            lambda: service.subscriptions,
        )
        gauge(
            "kotak_store_unavailable",
            "1 while the store cannot be reached, and some seconds longer",
            lambda: int(service.degraded),
        )
        watch = self._watch
        gauge("kotak_memory_bytes", "Memory in use", lambda: watch.levels.memory_bytes)
        gauge(
            "kotak_open_files",
            "Files open, connections among them",
            lambda: watch.levels.open_files,
        )
        count("kotak_log_lines_dropped", "Log lines lost: nobody read them", logs.dropped)
        audit = self._audit
        count("kotak_audit_lines_dropped", "Audit lines not written", lambda: audit.dropped)
        gauge("kotak_text_connections", "Text connections open", lambda: text.figure("connections"))
        for figure, meaning in _TEXT_COUNTERS.items():
            count(f"kotak_text_{figure}", meaning, partial(text.figure, figure))
        return metrics

    def _is_ready(self) -> bool:
        return not self.ending.is_set() and not self._service.closed

    def _refuse_new(self, near_the_limit: bool) -> None:  # noqa: FBT001 - a callback's only argument
        if near_the_limit:
            self._service.close_to_new("memory")
        else:
            self._service.open_to_new("memory")

    def _drain(self) -> None:
        """Answer newcomers with ``unavailable`` until the slow requests are finished."""
        self._service.draining = True
        until = time.monotonic() + self._config.drain_ms / 1_000 / 2
        while self._service.busy and not self.failed.is_set() and time.monotonic() < until:
            time.sleep(_DRAIN_POLL_S)

    def _fail(self, failure: tuple[Exit, str]) -> None:
        self.failure = self.failure or ExitError(*failure)
        self.failed.set()
        self.ending.set()


def reload_logged(name: str, part: Gate | TlsDoor) -> SecretFileError | None:
    """Have a part read its files anew; the log says what came of it. Return what was wrong."""
    try:
        part.reload()
    except SecretFileError as error:
        log.error("%s stays as it was: %s", name, error)  # noqa: TRY400 - said in full
        return error
    log.info("%s was read anew", name)
    return None


def _nobody() -> None:
    """Wake nobody: the turns are over."""


def _add_demo_users(store: Store, hasher: Hasher) -> None:
    """Make the original's users where they are missing; those that exist are left alone.

    Errors: `ExitError`, where the disk is full; `StoreFailedError`.
    """
    try:
        with store.batch():
            for user, name, password in DEMO_USERS:
                if store.find(Account, user) is None:
                    store.put(Account(user, name, hasher.hash(password)))
    except StoreFullError as error:
        raise ExitError(*_NO_ROOM_FOR_DEMO) from error


def _raise_open_files(needed: int) -> None:
    """Allow as many open files as we may; say so where that is less than ``needed``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else min(_OPEN_FILES_WANTED, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if max(soft, wanted) < needed:
        log.warning("only %d files may be open at once: raise LimitNOFILE or ulimit -n", wanted)
