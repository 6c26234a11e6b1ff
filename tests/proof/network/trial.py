"""One trial: clients at a door, a fault that comes and goes, and a verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from clients.client import Client
from clients.results import Message
from tests.load.broker_process import BrokerProcess
from tests.proof import checker
from tests.proof.disk.course import USERS
from tests.proof.disk.crowd import Crowd
from tests.proof.disk.whole import add_users, log_in
from tests.proof.history import OK, Ack, Drained, Read, Record, Seen, digest, gather
from tests.proof.network.faults import Fault, strike
from tests.proof.network.proxy import Proxy
from tests.proof.network.text_crowd import TextCrowd, seen

#: Everybody is served again within so long.
BACK_S_MAX: Final = 2.0
_CALM_S: Final = 0.2
_PATIENCE_S: Final = 15.0


class Clients(Protocol):
    """What both crowds have in common."""

    faults: list[str]

    def stop(self) -> Sequence[Record]: ...


@dataclass(frozen=True)
class Trial:
    """What came of one fault at one door."""

    fault: str
    sends: int
    silent: int
    back_s: float
    breaches: list[str]


@contextmanager
def serving(folder: Path) -> Iterator[tuple[BrokerProcess, dict[str, str]]]:
    """Run a broker with the users of a crowd, and their tokens."""
    data = folder / "data"
    data.mkdir(mode=0o700)
    add_users(data)
    with BrokerProcess(data) as broker:
        yield broker, log_in(broker.doors.zmq)


def at_zmq_door(
    broker: BrokerProcess, tokens: dict[str, str], fault: Fault, seconds: float, number: int
) -> Trial:
    """Let clients of the library meet a fault; their messages have ids and are repeated."""
    with Proxy(*_address(broker.doors.zmq.removeprefix("tcp://")), seed=number) as proxy:
        host, port = proxy.address
        crowd = Crowd(f"tcp://{host}:{port}", tokens, life=number)
        records, back_s = _meet(crowd, lambda: crowd._records, proxy, fault, seconds)
    end = _drain(broker, tokens, lambda m: Seen(m.seq, m.sender, m.id, digest(m.text)))
    return _judge(fault, records, end, back_s, crowd.faults)


def at_text_door(
    broker: BrokerProcess, tokens: dict[str, str], fault: Fault, seconds: float, number: int
) -> Trial:
    """Let senders of lines meet a fault; what they sent is read at the other door."""
    with Proxy(*_address(broker.doors.text), seed=number) as proxy:
        crowd = TextCrowd(proxy.address, tokens, life=number)
        records, back_s = _meet(crowd, lambda: crowd.records, proxy, fault, seconds)
    end = _drain(broker, tokens, lambda m: seen(m.seq, m.sender, m.text))
    return _judge(fault, records, end, back_s, crowd.faults)


def _address(door: str) -> tuple[str, int]:
    host, _, port = door.rpartition(":")
    return host, int(port)


def _meet(
    crowd: Clients,
    by_client: Callable[[], Sequence[Sequence[Record]]],
    proxy: Proxy,
    fault: Fault,
    seconds: float,
) -> tuple[list[Record], float]:
    """Return what the clients saw, and the seconds until the last of them was served again."""
    try:
        time.sleep(_CALM_S)
        healed_ns = strike(fault, proxy, seconds)
        back_ns = _last_answered(by_client, healed_ns)
        time.sleep(_CALM_S)
    finally:
        records = list(crowd.stop())
    return records, (back_ns - healed_ns) / 1e9


def _last_answered(by_client: Callable[[], Sequence[Sequence[Record]]], healed_ns: int) -> int:
    """Wait until each client has an answer that came after the healing; return the last one's."""
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        first = [_first_answer(list(records), healed_ns) for records in by_client()]
        if all(first):
            return max(first)
        time.sleep(0.01)
    return time.monotonic_ns()


def _first_answer(records: Sequence[Record], healed_ns: int) -> int:
    answers = 0
    for record in reversed(records):
        answered = getattr(record, "t1", None)
        if answered is None:
            continue
        if answered < healed_ns:
            break
        answers = answered
    return answers


def _drain(
    broker: BrokerProcess, tokens: dict[str, str], as_seen: Callable[[Message], Seen]
) -> list[Record]:
    """Read and acknowledge everything, on a calm way."""
    records: list[Record] = []
    for user in USERS:
        with Client(broker.doors.zmq, token=tokens[user]) as client:
            while True:
                began = time.monotonic_ns()
                messages = client.inbox(limit=1_000).messages
                read_ns = time.monotonic_ns()
                records.append(
                    Read(user, began, read_ns, OK, messages=tuple(map(as_seen, messages)))
                )
                if not messages:
                    records.append(Drained(user, began, read_ns))
                    break
                client.acknowledge(messages[-1].seq)
                records.append(Ack(user, messages[-1].seq, read_ns, time.monotonic_ns(), OK))
    return records


def _judge(
    fault: Fault, records: list[Record], end: list[Record], back_s: float, faults: list[str]
) -> Trial:
    history = gather([*records, *end])
    verdict = checker.judge(history)
    breaches = [*faults[:3], *map(str, verdict.breaches)]
    if verdict.undecided:
        breaches.append(f"{verdict.undecided} messages answered OK were not drained")
    if back_s > BACK_S_MAX:
        breaches.append(f"served again {back_s:.1f} s after the healing")
    silent = sum(send.answer is None for send in history.sends)
    return Trial(fault.name, len(history.sends), silent, round(back_s, 2), breaches)
