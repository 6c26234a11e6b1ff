"""The client's side of the protocol without I/O: which frames to send, what each reply means, when.

Time comes in as ``now_ms`` (milliseconds on any clock that never steps back), randomness as a
parameter; sockets belong to the caller, who does in turn:

    session.tick(now)                      # expire, probe, repeat, reconnect: what is due by now
    open or close the connection so that its number is ``session.wanted`` (0: none), to
    ``session.address``; likewise a second one, ``session.way.scouting``, to
    ``session.way.scout_address``: send it `ping_frame`, its answer goes to session.tried_out()
    while frames := session.take():        # one ZeroMQ message after the other
        send, or session.give_back() when there is no room
    session.received(frames, now)          # and connected() / lost() when the connection says so
    wait for the socket, until session.due_ms at most

Order: a sender's messages must arrive in the order in which they were started. Hence one
connection at a time, and whatever may have been lost is repeated together with every younger
message that is still unanswered, oldest first. The broker stores each message id once, so it
sees an order-keeping merge; several brokers of one store do so together, which is why going on to
another of them (`clients.way`) is a reconnect like any other.
Source: docs/PROTOCOL.md, "Transport" and "Errors".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any, Final

from broker.wire.envelope import EVENT, OK, decode_replies, read_reply
from broker.wire.errors import RETRYABLE, Code, WireError
from clients.errors import (
    Busy,
    ClientClosed,
    RequestError,
    from_wire,
)
from clients.fleet import Addresses, Fleet
from clients.outbox import ORDERED, Outbox
from clients.request import Call, chat_args, refused
from clients.subscription import Loss, Subscription
from clients.way import Way, backoff_ms

#: The finest step of timers: bounds how often the unanswered requests are looked through.
GRAIN_MS: Final = 10
#: Repetitions on a connection that answers otherwise wait longer each time, up to so many times.
PATIENCE_MAX: Final = 16
#: A password hash may take long on a busy broker, and repeating it makes the broker busier.
SLOW_PATIENCE: Final = 5
SLOW: Final = frozenset({"login", "auth", "register", "passwd", "user_add", "user_passwd"})
#: What a repeated command is answered when its first copy, whose answer was lost, did the work.
DONE_BEFORE: Final[Mapping[str, Code]] = {"logout": Code.UNAUTHORIZED}


class Session(Outbox):
    """Requests, deadlines, repetition and reconnection of one client. Not for two threads."""

    def __init__(
        self,
        addresses: Addresses,
        *,
        retry_ms: float,
        random: Callable[[], float],
        key: str | None = None,
    ) -> None:
        """``key``: whom the order of several brokers is for; see `clients.fleet.Fleet`.

        Errors: `BadRequest`.
        """
        super().__init__(Fleet(addresses, key=key, random=random), retry_ms=retry_ms)
        #: Which connections there should be.
        self.way = Way(self.fleet, random=random)
        # A call with less time than this cannot give each broker two such silences; 0: need not.
        self._hasty_ms = 2 * retry_ms * len(self.fleet.addresses) if self.fleet.many else 0
        self._random = random
        self._turned_away: str | None = (
            None  # why the broker is to be left once its replies are taken in
        )
        self._probe_end_ms: float = inf
        #: The last loss of history that a reader was told of.
        self.loss_told: Loss | None = None
        self._subscription: Subscription | None = None
        self._unsubscribe: Call | None = None

    # --- requests ----------------------------------------------------------------------------

    def start(
        self,
        command: str,
        token: str | None,
        args: Mapping[str, Any],
        now_ms: float,
        timeout_ms: float,
    ) -> Call:
        """Begin one request; it fails by itself ``timeout_ms`` from now.

        Errors, at once: `BadRequest`, `TooLarge`, `ClientClosed`, and `Busy` where `PENDING_MAX`
        are unanswered.
        """
        deadline_ms, due_ms = self._expect(now_ms, timeout_ms)
        return self._put(command, token, args, deadline_ms, due_ms)

    def chat(
        self,
        to: str,
        text: str,
        *,
        message_id: str,
        token: str | None,
        now_ms: float,
        timeout_ms: float,
        ttl_ms: int | None = None,
    ) -> Call:
        """As `start`, for one message; its text is measured before anything is sent."""
        args = chat_args(to, text, message_id)
        if ttl_ms is not None:
            args["ttl_ms"] = ttl_ms
        deadline_ms, due_ms = self._expect(now_ms, timeout_ms)
        call = self._put("chat", token, args, deadline_ms, due_ms)
        call.message_id = message_id
        return call

    def chats(
        self,
        letters: Iterable[tuple[str, str]],
        ids: Iterable[str],
        token: str | None,
        now_ms: float,
        timeout_ms: float,
    ) -> list[Call]:
        """As `chat`, for (recipient, text) pairs with an id each; a refused one bears its error."""
        # Hot path: what is the same for all of them is worked out once.
        deadline_ms, due_ms = self._expect(now_ms, timeout_ms)
        calls: list[Call] = []
        for (to, text), message_id in zip(letters, ids, strict=False):
            try:
                args = chat_args(to, text, message_id)
                call = self._put("chat", token, args, deadline_ms, due_ms)
                call.message_id = message_id
            except RequestError as error:
                call = refused(error)
            calls.append(call)
        return calls

    def _expect(self, now_ms: float, timeout_ms: float) -> tuple[float, float]:
        """Return when what is begun now ends, and when to look at it; see to being asked then."""
        deadline_ms = now_ms + timeout_ms
        quiet_ms = self._quiet_ms(timeout_ms) if timeout_ms < self._hasty_ms else self._retry_ms
        # Comparisons instead of min(), here and below: who sends one by one pays for each line.
        due_ms = now_ms + quiet_ms
        if due_ms > deadline_ms:  # noqa: PLR1730 - see above
            due_ms = deadline_ms
        if due_ms < self.due_ms:  # noqa: PLR1730 - see above
            self.due_ms = due_ms
        if not (self._up or self.way.wanted):
            self.by(self.way.not_before_ms)
        return deadline_ms, due_ms

    def close(self) -> None:
        """Fail every unanswered call with `ClientClosed`, and every later one."""
        self._closed = True
        self.way.close()
        self._up, self.due_ms = False, inf
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.fail(ClientClosed("the client was closed"))
        self.fail_all(lambda: ClientClosed("the client was closed while the request was waiting"))

    # --- the subscription --------------------------------------------------------------------

    @property
    def subscription(self) -> Subscription | None:
        """The one that is held, if any."""
        return self._subscription

    def subscribe(
        self,
        token: str | None,
        *,
        window: int,
        after: int | None,
        epoch: int | None,
        now_ms: float,
        timeout_ms: float,
    ) -> Subscription:
        """Begin to receive messages; ``timeout_ms`` is for the first answer only.

        Errors, at once: `Busy` where a subscription is held already, and as `start`.
        """
        if self._subscription is not None:
            raise Busy(
                Code.BUSY,
                "this client receives messages already: leave that loop first, or make another "
                "client",
            )
        if self._unsubscribe is not None:
            self.abandon(self._unsubscribe)  # repeated late, it would end the new one
        subscription = Subscription(self, token, window=window, after=after, epoch=epoch)
        subscription.begin(now_ms, timeout_ms)
        self._subscription = subscription
        self.by(subscription.due_ms)
        return subscription

    def unsubscribe(
        self, subscription: Subscription, now_ms: float, timeout_ms: float
    ) -> list[Call]:
        """Receive no more; return the requests that say so to the broker, as one may wait for.

        None where the subscription is not held any more, or no connection stands.
        """
        if self._subscription is not subscription:
            return []
        self._subscription = None
        calls = subscription.leave(now_ms, timeout_ms)
        if not self._up:
            for call in calls:
                self.abandon(call)
            return []
        self._unsubscribe = calls[-1] if calls else None
        return calls

    # --- frames ------------------------------------------------------------------------------

    def received(self, frames: Iterable[bytes], now_ms: float) -> None:
        """Take in reply frames. Late and repeated replies are ignored; a foreign peer is left."""
        heard = False
        for frame in frames:
            heard = True
            try:
                replies = decode_replies(frame)
                self._received_replies(replies, now_ms)
            except (WireError, TypeError, ValueError):
                self.lost(now_ms, "the peer's answer is not Kotak's protocol")
                return
        if heard:
            self._probe_end_ms = inf
            if self.way.unproven:
                self.way.heard()
            if self._turned_away is not None:
                self._turn_away(now_ms, self._turned_away)
            if self._subscription is not None:
                self._subscription.advance(now_ms)

    def _received_replies(self, replies: Iterable[Any], now_ms: float) -> None:
        pop = self._pending.pop
        # Hot path, for each reply: three checks, one pop.
        for request_id, status, body in replies:
            if status == OK and type(request_id) is int and type(body) is dict:
                call = pop(request_id, None)
                if call is not None:
                    call.result = body
                    call.done = True
                    if call.on_done is not None:
                        call.on_done(call)
            elif status == EVENT and request_id is None:
                self._received_event(body)
            else:
                self._received_other([request_id, status, body], now_ms)

    def _received_event(self, body: Mapping[str, Any]) -> None:
        if self._subscription is not None:
            self._subscription.received(body)

    def _received_other(self, value: Any, now_ms: float) -> None:
        """Take in an ERROR reply; what has no id belongs to no request of ours.

        Errors: `WireError`, where it is no reply at all.
        """
        reply = read_reply(value)
        if reply.error is not None and reply.request_id is not None:
            call = self._pending.get(reply.request_id)
            if call is not None:
                self._refused(call, reply.error, now_ms)

    def _refused(self, call: Call, error: WireError, now_ms: float) -> None:
        """Repeat the call later, or fail it."""
        if call.sends > 1 and DONE_BEFORE.get(call.command) is error.code:
            self._pending.pop(call.request_id)
            call.finish()
            return
        if error.code is Code.UNAUTHORIZED:
            error = self.fleet.doubted(error)
        call.tries += 1
        again_ms = now_ms + self._delay(error.retry_after_ms, call.tries)
        repeatable = error.code in RETRYABLE or (error.code is Code.INTERNAL and call.tries == 1)
        if error.code is Code.RATE_LIMITED and call.command in SLOW:
            repeatable = False  # who types passwords is told at once how long to wait
        late = again_ms >= call.deadline_ms
        if error.code is Code.UNAVAILABLE and self._may_turn_away(now_ms, late=late):
            call.refusal = from_wire(error)
            self._turned_away = error.message
            return
        # Waiting for a repetition beyond the deadline would only delay the answer.
        if not repeatable or late:
            self._fail(call, self.fleet.refused(from_wire(error)))
            return
        call.refusal = from_wire(error)
        if call.command in ORDERED:
            self._hold(again_ms)
        else:
            call.due_ms = again_ms
        self.by(again_ms)

    # --- the connection ----------------------------------------------------------------------

    @property
    def address(self) -> str:
        """The broker that is asked, or would be."""
        return self.fleet.current

    @property
    def wanted(self) -> int:
        """The connection that should stand now; 0 for none, another number for a new one."""
        return self.way.wanted

    def prefer(self, user: str, now_ms: float) -> None:
        """Order the brokers for ``user``."""
        self.fleet.prefer(user, now_ms, connected=bool(self.way.wanted))

    def connected(self, now_ms: float) -> None:
        """Note that the connection ``wanted`` stands: everything unanswered goes out, in order."""
        self._up = True
        self._outgoing.clear()
        elsewhere = self.way.connected()
        if elsewhere:
            self._hold_end_ms = 0  # what another broker asked to wait for
        for call in self._pending.values():
            ordered = call.command in ORDERED
            if elsewhere or not (self._hold_end_ms if ordered else call.refusal):
                self._queue(call, now_ms)
        self.by(self.way.due_ms(now_ms, up=True))

    def lost(self, now_ms: float, reason: str, *, final: bool = False) -> None:
        """Note that the connection is broken, or judge it so; another follows by itself.

        ``final``: it will be refused, too, until somebody changes the keys; a try costs both much.
        """
        self._down()
        self.way.lost(now_ms, reason, final=final)
        self.by(self.way.not_before_ms)
        if self._subscription is not None:
            self._subscription.lost(now_ms, told=self.way.nobody_answers)

    def _down(self) -> None:
        self._up = False
        self._turned_away = None
        self._outgoing.clear()
        self._probe_end_ms = inf

    # --- to another broker -------------------------------------------------------------------

    def _may_turn_away(self, now_ms: float, *, late: bool) -> bool:
        """Tell whether an ``unavailable`` is a reason to leave, rather than to wait."""
        return self.way.leaving or self.way.may_turn_away(now_ms, last_chance=late)

    def _turn_away(self, now_ms: float, reason: str) -> None:
        """Leave a broker that said ``unavailable``."""
        if not self.way.leaving:
            self.way.turn_away(now_ms, reason)
        self._down()
        self.by(now_ms)

    def tried_out(self, frames: Iterable[bytes], now_ms: float) -> None:
        """Hear what the broker of ``scouting`` answered; nothing: its connection has ended."""
        try:
            replies = [read_reply(reply) for frame in frames for reply in decode_replies(frame)]
        except (WireError, TypeError, ValueError):
            replies = []
        answered = any(reply.error is None for reply in replies)
        self.way.tried_out(now_ms, answered=answered)
        self.by(now_ms)

    def _change(self, now_ms: float) -> None:
        """Try out a better broker, begin to leave this one, or be gone; whatever is due."""
        way = self.way
        if self._up:
            way.look_out(now_ms)
            # A slow command would have to be carried out twice.
            if way.scouting and way.scouted and not self._is_slow():
                way.go_back(now_ms)
                self._down()
        if not way.leaving:
            return
        awaited = any(call.sends and call.refusal is None for call in self._pending.values())
        if not awaited or (way.forced and now_ms >= way.leave_end_ms):
            way.go(now_ms)
            if self._subscription is not None:
                self._subscription.lost(now_ms, told=False)
        elif now_ms >= way.leave_end_ms:
            way.stay(now_ms)
            self.connected(now_ms)

    def _is_slow(self) -> bool:
        return any(call.command in SLOW for call in self._pending.values())

    def _delay(self, least_ms: int | None, attempt: int) -> float:
        """Return the wait before the ``attempt``-th repetition; jitter keeps clients apart."""
        if least_ms is not None:
            return max(least_ms, 1) * (1 + self._random() / 4)
        return backoff_ms(self._random(), attempt)

    # --- time --------------------------------------------------------------------------------

    def tick(self, now_ms: float) -> None:
        """Do what is due by now. Costs one comparison when nothing is."""
        if now_ms < self.due_ms:
            return
        if now_ms >= self._probe_end_ms:
            self.lost(now_ms, "the broker stopped answering")
        elif now_ms >= self.way.connect_end_ms:
            self.lost(now_ms, "no answer to the attempt to connect")
        if self._hold_end_ms and now_ms >= self._hold_end_ms:
            self._hold_end_ms = 0
            self._repeat_chats(0, now_ms)
        if self._subscription is not None:
            self._subscription.advance(now_ms)
        if self.fleet.many:
            self._change(now_ms)
        soonest_ms = self._look_through(now_ms)
        if self._pending and not self.way.wanted and not self.way.leaving:
            if now_ms >= self.way.not_before_ms:
                self.way.open(now_ms, min(call.deadline_ms for call in self._pending.values()))
            else:
                soonest_ms = min(soonest_ms, self.way.not_before_ms)
        if self._subscription is not None:
            soonest_ms = min(soonest_ms, self._subscription.due_ms)
        soonest_ms = min(
            soonest_ms,
            self._probe_end_ms,
            self.way.connect_end_ms,
            self._hold_end_ms or inf,
            self.way.due_ms(now_ms, up=self._up),
        )
        self.due_ms = max(soonest_ms, now_ms + GRAIN_MS)

    def _look_through(self, now_ms: float) -> float:
        """Act on each call that is due; return when the next one will be."""
        lost_from: int | None = None
        for call in list(self._pending.values()):
            if call.due_ms > now_ms:
                continue
            if now_ms >= call.deadline_ms:
                trouble = "it takes nothing for the moment" if self._up else self.way.trouble
                self._fail(call, call.expired(self.fleet, trouble))
            elif self._is_lost(call, now_ms):
                if call.command in ORDERED:
                    lost_from = call.request_id if lost_from is None else lost_from
                else:
                    self._queue(call, now_ms)
        if lost_from is not None:
            self._repeat_chats(lost_from, now_ms)
        return min((call.due_ms for call in self._pending.values()), default=inf)

    def _is_lost(self, call: Call, now_ms: float) -> bool:
        """Judge a call that is due: True to repeat it now; otherwise wait, and perhaps probe."""
        ordered = call.command in ORDERED
        if self._up and call.refusal is not None and not ordered:
            return True
        wait_ms = self._quiet_ms(call.deadline_ms - now_ms)
        if self._up and call.sends and not (ordered and self._hold_end_ms):
            if call.probed:
                call.patience = min(call.patience * 2, PATIENCE_MAX)
                return True
            # Silence: ask whether anybody is there. The answer to anything will do.
            call.probed = True
            self._probe(now_ms, wait_ms)
            wait_ms *= call.patience * (SLOW_PATIENCE if call.command in SLOW else 1)
        call.due_ms = min(now_ms + wait_ms, call.deadline_ms)
        return False

    def _probe(self, now_ms: float, wait_ms: float) -> None:
        if self._probe_end_ms == inf:
            # Not a pending call: whatever its answer is, it shows that the connection works.
            self._outgoing.insert(0, Call(self._next_id, "ping", self.ping_frame(), inf, inf))
            self._probe_end_ms = now_ms + wait_ms
