"""The ZeroMQ door, through the client library."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Self

from broker.wire.limits import INBOX_MESSAGES_MAX
from clients.client import Client, Pending
from clients.errors import ConnectionFailed, RequestError, RequestTimeout
from tests.load.doors import START, Arrived, Letter, Outcome, Page, Place, UnreachableError
from tests.load.plan import PASSWORD
from tests.proof.history import OK


class ZmqDoor:
    """The client library, one connection for all users: the token says whose request it is.

    Only the user who logged in last can send.
    """

    takes = False

    def __init__(self, address: str, timeout_ms: int) -> None:
        self._client = Client(address, timeout_ms=timeout_ms)
        self._tokens: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def login(self, user: str) -> None:
        try:
            self._tokens[user] = self._client.login(user, PASSWORD).token
        except RequestError as error:
            raise UnreachableError(f"cannot log in as {user}: {error}") from None

    def send_all(self, user: str, letters: Iterable[Letter], window: int) -> Iterator[Outcome]:
        pending: deque[Pending] = deque()
        for to, text, message_id in letters:
            pending.append(self._client.submit(to, text, message_id=message_id))
            if len(pending) < window:
                continue
            yield _outcome(pending.popleft())
            # One look at the socket brings many answers: asking after each message would not.
            while pending and pending[0].done:
                yield _outcome(pending.popleft())
        while pending:
            yield _outcome(pending.popleft())

    def read(self, user: str, place: Place = START) -> Page | None:
        args: dict[str, int] = {"limit": INBOX_MESSAGES_MAX}
        if place.epoch is not None:
            args |= {"after": place.seq, "epoch": place.epoch}
        try:
            page = self._client.request("kotakmasuk", args, token=self._tokens[user])
        except RequestError:
            return None
        messages = [
            Arrived(message["seq"], message["text"], message.get("redelivered", False))
            for message in page["messages"]
        ]
        lost = page.get("history_lost")
        return Page(messages, page.get("epoch"), (lost["first"], lost["last"]) if lost else None)

    def acknowledge(self, user: str, seq: int) -> str | None:
        try:
            self._client.request("ack", {"seq": seq}, token=self._tokens[user])
        except RequestError as error:
            return answer_of(error)
        return OK

    def tokens_valid(self) -> int:
        return sum(self._is_valid(token) for token in self._tokens.values())

    def _is_valid(self, token: str) -> bool:
        try:
            self._client.request("ping", token=token)
        except RequestError:
            return False
        return True


def _outcome(pending: Pending) -> Outcome:
    try:
        receipt = pending.result()
    except RequestError as error:
        return Outcome(answer_of(error))
    return Outcome(OK, receipt.seq)


def answer_of(error: RequestError) -> str | None:
    """Return the code that the broker answered with; None where it was the client that gave up."""
    silence = isinstance(error, RequestTimeout | ConnectionFailed)
    return None if silence else str(error.code)
