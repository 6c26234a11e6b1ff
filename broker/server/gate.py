"""What guards the encrypted ZeroMQ door: its key, whom it admits, and the proof that it does.

The door is tried from outside (`Gate.require_shut`) before the broker calls itself ready and once a
minute afterwards: a stranger must be refused and the broker's own key admitted. A door that is open
to strangers ends the broker; one that admits nobody is told of and tried again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import zmq

from broker.config import Config
from broker.exits import Exit, ExitError
from broker.transports.curve import Enrolment, Pair, read_pair
from broker.transports.private_file import SecretFileError
from broker.transports.zap import Knock, ZapHandler, knock
from clients.curve_keys import Curve

log = logging.getLogger("kotak.server")

#: Seconds between two looks at the door.
_LOOK_S: Final = 60.0
#: Milliseconds for one connection to the own door; that of libzmq's handshake.
_KNOCK_MS: Final = 5_000

#: Before it, one raw connection stopped all deliveries behind CURVE (CVE-2020-15166).
_LIBZMQ_LEAST: Final = (4, 3, 3)

Context = zmq.Context[zmq.Socket[bytes]]


class Gate:
    """The guard of one door. `start` before the door is bound, `stop` after it is closed.

    Errors, of making one: `ExitError` (a key file cannot be used).
    """

    def __init__(self, config: Config) -> None:
        assert config.curve_key is not None
        _require_libzmq()
        clients = config.curve_clients
        #: Made anew at each start: the broker knocks with it, and ``kotak user`` comes in with it.
        self._own = Pair.make()
        try:
            self._pair = read_pair(config.curve_key)
            path = clients if isinstance(clients, Path) else None
            self._enrolment = Enrolment(path, own=self._own.public_bytes)
        except SecretFileError as error:
            raise ExitError(Exit.USAGE, f"the zmq door cannot be guarded: {error}") from None
        self._handler: ZapHandler | None = None
        self._ending = threading.Event()
        self._watch: threading.Thread | None = None

    @property
    def secret(self) -> str:
        """What the door encrypts with."""
        return self._pair.secret

    def judged(self) -> dict[str, int]:
        """Return how connections were judged, for the metrics page."""
        return dict(self._handler.judged) if self._handler else {}

    @property
    def own(self) -> Curve:
        """Keys that come in while this broker runs."""
        return Curve(server=self._pair.public, public=self._own.public, secret=self._own.secret)

    def start(self, context: Context) -> None:
        """Post the handler, which is to judge what comes in to this context's sockets."""
        self._context = context
        self._handler = ZapHandler(context, self._enrolment.admits)
        self._handler.start()
        if not self._enrolment.anybody and not self._enrolment.count:
            log.warning("no key is enrolled (curve_clients): nobody can connect to the zmq door")

    def stop(self) -> None:
        if self._handler:
            self._handler.stop()

    def reload(self) -> None:
        """Read the enrolled keys anew, for the connections to come. Errors: `SecretFileError`."""
        self._enrolment.reload()

    def require_shut(self, address: str) -> None:
        """Try the door at ``address`` from outside. Errors: `ExitError` where it does not hold."""
        if (fault := self.fault(address)) is not None:
            raise ExitError(Exit.GATE_FAILED, f"the encrypted zmq door does not hold: {fault[1]}")

    def fault(self, address: str, timeout_ms: int = _KNOCK_MS) -> tuple[Knock, str] | None:
        """Try the door; return what is wrong with it, None where it holds."""
        strangers: list[tuple[str, Pair | None]] = [("a client that does not encrypt", None)]
        if not self._enrolment.anybody:
            strangers.append(("a key that is not enrolled", Pair.make()))
        for stranger, pair in strangers:
            if (came := self._knock(address, pair, timeout_ms)) is not Knock.REFUSED:
                return came, f"{stranger} was {_WORDS[came]}"
        if (came := self._knock(address, self._own, timeout_ms)) is not Knock.ADMITTED:
            return came, f"the broker's own key was {_WORDS[came]}"
        return None

    def _knock(self, address: str, pair: Pair | None, timeout_ms: int) -> Knock:
        server = self._pair.public
        return knock(self._context, address, server=server, pair=pair, timeout_ms=timeout_ms)

    # --- while the broker runs -----------------------------------------------------------------

    def watch(self, address: str, *, on_open: Callable[[], None], every_s: float = _LOOK_S) -> None:
        """Look at the door again and again, in a thread, until `unwatch`.

        ``on_open`` is called, once, where a stranger was let in.
        """
        self._watch = threading.Thread(
            target=self._look, args=(address, on_open, every_s), name="kotak-gate", daemon=True
        )
        self._watch.start()

    def unwatch(self) -> None:
        self._ending.set()
        if self._watch is not None:
            self._watch.join()

    def _look(self, address: str, on_open: Callable[[], None], every_s: float) -> None:
        while not self._ending.wait(every_s):
            try:
                fault = self.fault(address)
            except zmq.ZMQError as error:  # no more sockets: the next look may find some
                log.error("the zmq door cannot be tried: %s", error.strerror)  # noqa: TRY400 - said in full
                continue
            if fault is None:
                continue
            log.error("the encrypted zmq door does not hold: %s", fault[1])
            if fault[0] is Knock.ADMITTED:
                on_open()
                return


def _require_libzmq() -> None:
    """Refuse a libzmq that cannot encrypt, or that one raw connection stops."""
    version = zmq.zmq_version()
    if zmq.zmq_version_info() < _LIBZMQ_LEAST or not zmq.has("curve"):
        least = ".".join(str(number) for number in _LIBZMQ_LEAST)
        raise ExitError(
            Exit.USAGE,
            f"libzmq {version} cannot guard the zmq door: install a pyzmq whose libzmq is "
            f"{least} or later, with CURVE",
        )


_WORDS: Final = {
    Knock.ADMITTED: "admitted",
    Knock.REFUSED: "refused",
    Knock.SILENCE: "not answered",
}
