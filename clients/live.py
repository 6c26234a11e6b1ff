"""Shows the messages of the chat's user as they arrive, while its prompt waits for the next line.

A blocking client belongs to its thread, so the messages have a thread and a client of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from threading import Event, Thread
from types import TracebackType
from typing import Final, Self

from broker.wire.limits import WINDOW_MAX
from clients.calls import Calls, sentence
from clients.display import lost_text
from clients.errors import HistoryLost, KotakError, Unauthorized
from clients.results import Message

#: What follows from an error.
NOT_SHOWN: Final = "messages are not shown as they arrive any longer, kotakmasuk shows them"
#: Whoever follows no longer waits so long for the thread to have told the broker.
LEAVE_S: Final = 0.5
#: The thread's name.
THREAD: Final = "kotak-live"


class LiveInbox:
    """Follows one session at a time, from the moment on when it is asked to.

    Nothing is acknowledged: what was shown here is still there for ``kotakmasuk``, as what came
    before is. With ``WINDOW_MAX`` messages waiting, none is shown until some were read.
    """

    def __init__(self, open_client: Callable[[str], Calls], say: Callable[[str], None]) -> None:
        self._open_client = open_client
        self._say = say
        self._token: str | None = None
        self._thread: Thread | None = None
        self._stop = Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.follow(None, lambda _: None)

    def follow(self, token: str | None, show: Callable[[Message], None]) -> None:
        """Hand what arrives for the session of ``token`` to ``show``, in a thread; None: nobody's.

        The session that was followed before is left, unless it is the same one.
        """
        if token == self._token:
            return
        if self._thread is not None:
            self._stop.set()
            self._thread.join(LEAVE_S)  # without the broker, it may have more to wait for than we
            self._thread = None
        self._token = token
        if token is not None:
            self._stop = Event()
            self._thread = Thread(
                target=self._run, args=(token, show, self._stop), name=THREAD, daemon=True
            )
            self._thread.start()

    def _run(self, token: str, show: Callable[[Message], None], stop: Event) -> None:
        try:
            with self._open_client(token) as client:
                self._follow(client, show, stop)
        except Unauthorized:
            pass  # the chat's next command says so
        except KotakError as error:
            if not stop.is_set():
                self._say(f"Error, {sentence(error)}; {NOT_SHOWN}")

    def _follow(self, client: Calls, show: Callable[[Message], None], stop: Event) -> None:
        since_ms = client.ping()
        while not stop.is_set():
            try:
                arriving = client.messages(window=WINDOW_MAX, acknowledge=False, stop=stop)
                with closing(arriving):
                    for message in arriving:
                        if message.at_ms >= since_ms and not stop.is_set():
                            show(message)
            except HistoryLost as lost:
                self._say(lost_text(lost.first, lost.last))
            else:
                return
