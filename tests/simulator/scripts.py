"""What the clients of a run do: send, be pushed to, ask, come to rooms and leave them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from math import inf
from typing import Any, Final

from clients.errors import HistoryLost, KotakError, NoSuchMessage, Unauthorized
from clients.request import Call
from clients.results import Message
from clients.subscription import Subscription
from tests.proof.checker import REFUSALS
from tests.proof.history import OK, digest
from tests.simulator.door import Door
from tests.simulator.journal import Given, Reader, Send, Shown, Stay
from tests.simulator.node import Node, Script, Wait, answer
from tests.simulator.plan import MINUTE, SECOND

PASSWORD: Final = "password"
#: After these a user gives a message up. With room on the disk again, the same one is sent again.
_FINAL: Final = REFUSALS - {"storage_full"}
#: Share of messages after which a receiver leaves its loop.
_LEAVING: Final = 0.02
Steps = Generator[Wait, None, Any]


class Phase:
    """What all scripts know of the run."""

    def __init__(self, door: Door, *, late_frames: bool) -> None:
        #: Faults are over: settle what is open, and begin nothing new.
        self.settling = False
        self.door = door
        #: What a client gave up may still be carried out: a refusal says nothing of earlier copies.
        self.late_frames = late_frames

    @property
    def done(self) -> bool:
        """Whoever pauses goes on when the faults are over."""
        return self.settling


def log_in(node: Node) -> Steps:
    """Come by a token, however long it takes."""
    args = {"user": node.user, "password": PASSWORD}
    if node.device:
        args["device"] = node.device
    while True:
        call = node.ask("login", args, own=False)
        yield node.until(call)
        if call.error is None:
            node.token = call.result["token"]
            return
        yield node.pause(SECOND)


def carry_out(node: Node, command: str, args: dict[str, Any]) -> Generator[Wait, None, Call]:
    """Ask until there is an answer other than that the session has ended, or silence."""
    while True:
        if node.token is None:
            yield from log_in(node)
        call = node.ask(command, args)
        yield node.until(call)
        if not isinstance(call.error, Unauthorized):
            return call
        node.token = None


# --- senders -------------------------------------------------------------------------------------


class Sender:
    """Sends a user's messages; what it began outlives the process's deaths, as a file would."""

    def __init__(self, phase: Phase, others: tuple[str, ...], rooms: tuple[str, ...]) -> None:
        self._phase = phase
        self._others = others
        self._rooms = rooms
        self._sent = 0
        #: By id: what has no final answer yet, and the attempts that this process waits for.
        self._open: dict[str, Send] = {}
        self._calls: dict[str, Call] = {}
        self._answered: list[Send] = []
        self._first_t0: dict[str, int] = {}

    def script(self, node: Node) -> Script:
        """Send all messages, then settle what has no answer."""
        plan = node.plan
        self._calls.clear()
        while self._sent < plan.messages and not self._phase.settling:
            if node.token is None:
                yield from log_in(node)
            if len(self._calls) >= plan.window:
                yield node.until(*self._calls.values())
                continue
            self._send_next(node)
            if node.luck.random() < plan.asking and self._answered:
                yield from self._learn_state(node, node.luck.choice(self._answered[-10:]))
            yield node.until(self._phase, at_most=_pace(node))
        yield node.until(self._phase)
        yield from self._settle(node)

    def _send_next(self, node: Node) -> None:
        luck, plan = node.luck, node.plan
        given_up = [
            each
            for each in self._open.values()
            if each.id not in self._calls and self._is_remembered(node, each)
        ]
        if given_up and luck.random() < 0.3:
            self._send(node, luck.choice(given_up))
            return
        self._sent += 1
        to = luck.choice(self._others)
        if self._rooms and luck.random() < plan.to_rooms:
            to = luck.choice(self._rooms)
        ttl_ms = luck.choice((1_000, 5_000, 60_000)) if luck.random() < plan.expiring else None
        message_id = f"{node.user}-{self._sent}"
        if ttl_ms is not None:
            self._phase.door.ttl_ms[node.user, message_id] = ttl_ms
        self._send(node, Send(node.user, to, message_id, self._sent, digest(message_id), ttl_ms, 0))

    def _send(self, node: Node, like: Send) -> Call:
        """Send a message for the first time, or again under its id."""
        send = Send(like.sender, like.to, like.id, like.i, like.digest, like.ttl_ms, node.time.now)
        node.journal.sends.append(send)
        call = node.session.chat(
            send.to,
            send.id,  # the text is the id
            message_id=send.id,
            token=node.token,
            now_ms=node.now_ms,
            timeout_ms=node.plan.timeout_ms,
            ttl_ms=send.ttl_ms,
        )
        self._open[send.id] = send
        self._first_t0.setdefault(send.id, send.t0)
        self._calls[send.id] = call
        call.on_done = lambda call: self._note(node, send, call)
        return call

    def _is_remembered(self, node: Node, send: Send) -> bool:
        """Tell whether the broker promises to know the id of an attempt, had it been stored."""
        return (node.time.now - self._first_t0[send.id]) / 1_000 < node.plan.retry_ms_max

    def _note(self, node: Node, send: Send, call: Call) -> None:
        del self._calls[send.id]
        code, result = answer(call)
        if code == OK:
            send.seq = result["seq"]
            self._answered.append(send)
        elif call.sends > 1 and (self._phase.late_frames or code == "storage_full"):
            # What the refusal says of this attempt says nothing of one before it: where the disk is
            # so full that not even acknowledgements find room, the broker does not look for the id.
            code = None
        if code == "unauthorized":
            node.token = None
        if code is not None:
            send.answer, send.t1 = code, node.time.now
        node.time.log(f"{node.name} learns of {send.id}: {code} {send.seq or ''}")
        if code == OK or code in _FINAL:
            del self._open[send.id]

    def _learn_state(self, node: Node, send: Send) -> Steps:
        call = yield from carry_out(node, "status", {"to": send.to, "seq": send.seq})
        if call.error is None:
            self._note_state(node, send, call.result["state"])
        elif isinstance(call.error, NoSuchMessage) and (
            node.plan.purging or node.plan.engine == "redis"
        ):
            # And deleted, both long ago; or it never got into the list of what was sent, which over
            # Redis is written behind the appends.
            self._note_state(node, send, "expired")

    @staticmethod
    def _note_state(node: Node, send: Send, state: str) -> None:
        for each in node.journal.sends:
            if (each.sender, each.id) == (send.sender, send.id):
                each.state = state

    def _settle(self, node: Node) -> Steps:
        """Send again what has no answer until there is one; ask after what may have expired."""
        while self._open or self._calls:
            if self._calls:
                yield node.until(*self._calls.values())
                continue
            if node.token is None:
                yield from log_in(node)
            send = next(iter(self._open.values()))
            if self._is_remembered(node, send):
                yield node.until(self._send(node, send))
                yield node.pause(SECOND / 10)  # whoever hammers is refused for ever
            else:
                del self._open[send.id]
        mortal = [send for send in self._answered if send.ttl_ms is not None]
        if mortal:
            last_us = max((send.t1 or 0) + (send.ttl_ms or 0) * 1_000 for send in mortal)
            # The broker's clock may have stood still meanwhile, for a minute at most.
            yield node.pause(max(last_us - node.time.now, 0) + MINUTE)
        for send in mortal:
            yield from self._learn_state(node, send)


def _pace(node: Node) -> float:
    """Return a pause: bursts, and long silences between them."""
    plan = node.plan
    mean = plan.minutes * 60 * SECOND / plan.messages
    roll = node.luck.random()
    if roll < 0.6:
        return node.luck.uniform(0, 0.02 * SECOND)
    return node.luck.uniform(0, mean * 4)


# --- receivers -----------------------------------------------------------------------------------


class Receiver:
    """Reads for one cursor, by being pushed to or by asking."""

    def __init__(self, phase: Phase, how: str) -> None:
        self._phase = phase
        self._how = how

    def script(self, node: Node) -> Script:
        """Read until the run is over."""
        while True:
            if node.token is None:
                yield from log_in(node)
            if self._how == "push":
                yield from self._stay(node)
            else:
                yield from self._ask(node)

    def _stay(self, node: Node) -> Steps:
        """Hold a subscription for a while."""
        luck = node.luck
        node.pushed_at.clear()
        subscription = node.session.subscribe(
            node.token,
            window=node.plan.push_window,
            after=None,
            epoch=node.epoch,
            now_ms=node.now_ms,
            timeout_ms=node.plan.timeout_ms,
        )
        stay = inf if luck.random() < 0.5 else luck.uniform(0, 300) * SECOND
        end = node.time.now + stay
        try:
            while node.time.now < end or self._phase.settling:
                left = end - node.time.now
                yield node.until(subscription, at_most=left if left > 0 else inf)
                while subscription.done:
                    yield from self._take(node, subscription)
                    if luck.random() < _LEAVING and not self._phase.settling:
                        end = 0  # with what has arrived and was not looked at
                        break
        except HistoryLost:
            node.epoch = subscription._epoch
        except KotakError as error:
            node.token = None if isinstance(error, Unauthorized) else node.token
            yield node.pause(SECOND / 2)
        node.epoch = subscription._epoch or node.epoch
        for call in node.session.unsubscribe(subscription, node.now_ms, 500):
            yield node.until(call)

    @staticmethod
    def _take(node: Node, subscription: Subscription) -> Steps:
        """Take one message, spend some time with it, and say that it is dealt with."""
        message = subscription.next(node.now_ms)
        pushed_at = node.pushed_at.get(message.seq, node.time.now)
        _note_given(node, pushed_at, [message])
        if node.luck.random() < 0.2:
            yield node.pause(node.luck.choice((0.001, 0.1, 3.0)) * SECOND)
        subscription.finish(message.seq, node.now_ms)

    def _ask(self, node: Node) -> Steps:
        """Read a page or a few, acknowledge some of it."""
        luck = node.luck
        after = 0
        while True:
            args: dict[str, Any] = {"limit": luck.choice((1, 3, 100))}
            if after:
                args["after"] = after
            if node.epoch is not None:
                args["epoch"] = node.epoch
            t0 = node.time.now
            call = yield from carry_out(node, "kotakmasuk", args)
            if call.error is not None:
                break
            node.epoch = call.result["epoch"]
            _note_given(node, t0, [Message.parse(each) for each in call.result["messages"]])
            messages = call.result["messages"]
            if messages and (luck.random() < 0.8 or self._phase.settling):
                upto = messages[-1] if self._phase.settling else luck.choice(messages)
                yield from carry_out(node, "ack", {"seq": upto["seq"]})
            after = messages[-1]["seq"] if messages and luck.random() < 0.3 else 0
            if not call.result["more"]:
                break
        yield node.pause(luck.choice((0.1, 3.0, 10.0, 30.0)) * SECOND)


def _note_given(node: Node, t0: int, messages: list[Message]) -> None:
    shown = tuple(map(_shown, messages))
    reader = Reader(node.user, node.device)
    node.journal.given.append(Given(reader, t0, node.time.now, shown))


def _shown(message: Message) -> Shown:
    return Shown(
        message.seq,
        message.sender,
        message.id,
        digest(message.text),
        message.room,
        message.redelivered,
    )


def drain(done: Callable[[], None]) -> Callable[[Node], Script]:
    """Read what is left of a cursor to its end, by asking."""

    def script(node: Node) -> Script:
        reader = Reader(node.user, node.device)
        while True:
            t0 = node.time.now
            call = yield from carry_out(node, "kotakmasuk", {"limit": 100})
            if call.error is not None:
                yield node.pause(SECOND)
                continue
            if not call.result["messages"]:
                node.journal.drains.append((reader, t0, node.time.now))
                break
            _note_given(node, t0, [Message.parse(each) for each in call.result["messages"]])
            yield from carry_out(node, "ack", {"seq": call.result["messages"][-1]["seq"]})
        done()

    return script


# --- rooms ---------------------------------------------------------------------------------------


class Wanderer:
    """Comes to open rooms and leaves them."""

    def __init__(self, phase: Phase, rooms: tuple[str, ...]) -> None:
        self._phase = phase
        self._rooms = rooms
        self._stay: Stay | None = None

    def script(self, node: Node) -> Script:
        while not self._phase.settling:
            room = node.luck.choice(self._rooms)
            stay = Stay(node.user, room, node.time.now)
            node.journal.stays.append(stay)
            call = yield from carry_out(node, "room_join", {"room": room})
            stay.granted = node.time.now if call.error is None else inf
            yield node.until(self._phase, at_most=node.luck.uniform(0, 120) * SECOND)
            if self._phase.settling and call.error is None:
                return
            stay.leaving = node.time.now
            while (yield from carry_out(node, "room_leave", {"room": room})).error is not None:
                yield node.pause(SECOND)
            stay.left = node.time.now
            yield node.pause(node.luck.uniform(0, 60) * SECOND)


__all__ = ["PASSWORD", "Phase", "Receiver", "Sender", "Wanderer", "drain"]
