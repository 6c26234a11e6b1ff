"""Results and events as frames: made after the commit, from what the handlers returned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, cast

from broker.core.accounts import Accounts
from broker.core.handlers import Inbox, Result
from broker.core.model import History, Message, Page, Receipt, Route
from broker.core.refusals import refused, too_many_frames
from broker.core.subscriptions import Subscription
from broker.wire.envelope import encode_error, encode_event, encode_ok, encoder, join_replies
from broker.wire.errors import WireError
from broker.wire.limits import FRAMES_PER_MESSAGE_MAX, ROOM_MARK
from broker.wire.receipts import Receipts

#: A result, or the refusal in its place.
Outcome = Result | WireError
#: Frames to send, by route, in order.
Frames = dict[Route, list[bytes]]
_RECEIPT: Final[set[type]] = {Receipt}


class Answered:
    """The replies of one route to be, in order: ids of requests, and what came of each.

    A nil id is that of an unreadable request. Two lists, since runs are put behind as a whole.
    """

    __slots__ = ("ids", "outcomes")

    def __init__(self) -> None:
        self.ids: list[int | None] = []
        self.outcomes: list[Outcome] = []

    def add(self, request_id: int | None, outcome: Outcome) -> None:
        """Put one reply behind the others."""
        self.ids.append(request_id)
        self.outcomes.append(outcome)


#: The replies of a batch to be.
Answers = dict[Route, Answered]


class Replies:
    """Encodes for one service. ``errors`` counts refusals by code."""

    def __init__(self, accounts: Accounts, *, durability: str, epoch: int) -> None:
        self._accounts = accounts
        self._receipts = Receipts(durability)
        self._epoch = epoch
        self._encode = encoder()
        self.errors: Counter[str] = Counter()

    def encode(self, answers: Answers, together: Collection[Route] = ()) -> Frames:
        """Encode the replies of a committed batch, in the order of the requests.

        For the routes in ``together`` receipts and errors come first, in one frame.
        """
        frames: Frames = {}
        for route, answered in answers.items():
            if route in together:
                frames[route] = self._encode_together(answered)
            elif answered.ids:
                frames[route] = list(map(self._encode_one, answered.ids, answered.outcomes))
        return frames

    def _encode_together(self, answered: Answered) -> list[bytes]:
        """Encode what is short in frames of many, and each page and other result in its own."""
        ids, outcomes = answered.ids, answered.outcomes
        short: list[bytes] = []
        own: list[bytes] = []
        if set(map(type, outcomes)) == _RECEIPT:  # hot path
            receipts = cast("Sequence[Receipt]", outcomes)
            seqs = [each.seq for each in receipts]
            short = self._receipts.encode_all(cast("Sequence[int]", ids), seqs)
        else:
            for request_id, outcome in zip(ids, outcomes, strict=True):
                result = _found_out(outcome)
                frame = self._encode_one(request_id, result)
                (short if isinstance(result, Receipt | WireError) else own).append(frame)
        many = range(0, len(short), FRAMES_PER_MESSAGE_MAX)
        return [*(join_replies(short[at : at + FRAMES_PER_MESSAGE_MAX]) for at in many), *own]

    def messages_event(self, subscription: Subscription, after: int, page: Page) -> bytes:
        """Encode messages pushed to a subscription; ``after`` is what was pushed before them."""
        fields = {"after": after, "messages": self._for_reader(subscription.user, page)}
        return encode_event(self._encode, subscription.number, "messages", fields)

    def ended_event(self, subscription: Subscription) -> bytes:
        """Encode the end of a subscription."""
        return encode_event(self._encode, subscription.number, "ended", {})

    def _encode_one(self, request_id: int | None, outcome: Outcome) -> bytes:
        # Hot path: a receipt is seen first.
        result = outcome if type(outcome) is Receipt else _found_out(outcome)
        if type(result) is Receipt and request_id is not None:
            return self._receipts.encode(request_id, result.seq)
        if isinstance(result, WireError):
            self.errors[result.code.value] += 1
            return encode_error(self._encode, request_id, result)
        assert request_id is not None
        if isinstance(result, Inbox):
            return encode_ok(self._encode, request_id, self._inbox(result))
        if isinstance(result, History):
            return encode_ok(self._encode, request_id, self._history(result))
        assert isinstance(result, dict)
        return encode_ok(self._encode, request_id, result)

    def _inbox(self, inbox: Inbox) -> dict[str, Any]:
        user, page, lost = inbox
        answer = {
            "user": user,
            "name": self._accounts.name(user),
            "messages": self._for_reader(user, page),
            "more": page.more,
            "cursor": page.cursor,
            "epoch": self._epoch,
        }
        return answer if lost is None else answer | {"history_lost": lost._asdict()}

    def _history(self, history: History) -> dict[str, Any]:
        written = self._written(history.messages)
        for fields, message in zip(written, history.messages, strict=True):
            fields["to"] = message.to
            if message.to.startswith(ROOM_MARK):
                fields["room"] = message.to
        for fields, state in zip(written, history.states or (), strict=False):
            fields["state"] = state
        return {"messages": written, "more": history.more}

    def _for_reader(self, user: str, page: Page) -> list[dict[str, Any]]:
        """Write messages out with what only some of them bear: a room, and that they come again."""
        messages = page.messages
        if not messages:
            return []
        written = self._written(messages)
        # Hot path: mostly none of them does, and that costs less to see than a look at each.
        if page.delivered < messages[0].seq and {each.to for each in messages} == {user}:
            return written
        for fields, message in zip(written, messages, strict=True):
            if message.seq <= page.delivered:
                fields["redelivered"] = True
            if message.to != user:
                fields["room"] = message.to
        return written

    def _written(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Write messages out for their reader, with display names as they are now."""
        senders = {message.sender for message in messages}
        names = dict(zip(senders, map(self._accounts.name, senders), strict=True))
        return [
            {
                "seq": seq,
                "at_ms": at_ms,
                "from": sender,
                "name": names[sender],
                "id": message_id,
                "text": text,
            }
            for seq, at_ms, sender, message_id, text, _ in messages
        ]


def _found_out(outcome: Outcome) -> Outcome:
    """Return what came of an append whose engine answers at the end of the batch."""
    if isinstance(outcome, Receipt) and type(outcome) is not Receipt:
        try:
            return Receipt(outcome.seq)
        except WireError as error:
            return error
    return outcome


def answers_to_all(
    arrivals: Iterable[tuple[Route, list[bytes] | None]],
    finished: Iterable[tuple[Route, int]],
    error: WireError,
) -> Answers:
    """Answer every request of a batch with one error: new ones, and slow ones that were done."""
    answers: Answers = {}
    for route, request_id in finished:
        answers.setdefault(route, Answered()).add(request_id, error)
    for route, frames in arrivals:
        replies = answers.setdefault(route, Answered())
        if frames is None:
            replies.add(None, too_many_frames())
            continue
        for frame in frames:
            for refusal in refused(frame, alone=len(frames) == 1, error=error):
                replies.add(*refusal)
    return answers
