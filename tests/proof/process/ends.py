"""SIGTERM under load, with peers that neither read nor go away."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from broker.exits import Exit
from tests.e2e.raw_peer import RawPeer
from tests.proof.disk.course import USERS
from tests.proof.history import Send
from tests.proof.process.machine import Machine

#: docs/DURABILITY.md: a stop is over within so long.
STOP_S_MAX: Final = 5.0
_LOAD_S: Final = (0.1, 0.5)
_SILENT_PEERS: Final = 5


@dataclass
class Stops:
    """What came of the rounds; ``silent`` sends had no answer, and are good again."""

    rounds: int = 0
    sends: int = 0
    silent: int = 0
    longest_s: float = 0.0
    breaches: list[str] = field(default_factory=list)


def stop_under_load(
    place: Path, rounds: int, seed: int, show: Callable[[int], None] = lambda _: None
) -> Stops:
    """End a broker by SIGTERM again and again, in the midst of its work; judge it at the end."""
    result, rng = Stops(), random.Random(seed)
    with Machine(place, spoiled="") as machine:
        for number in range(1, rounds + 1):
            machine.start()
            _one(machine, rng.uniform(*_LOAD_S), result)
            show(number)
        result.breaches += machine.judged()
    return result


def _one(machine: Machine, seconds: float, result: Stops) -> None:
    with dead_peers(machine):
        crowd = machine.crowd()
        time.sleep(seconds)
        code, took = machine.terminate()
        records, faults = machine.finish(crowd)
    result.rounds += 1
    result.longest_s = max(result.longest_s, round(took, 2))
    sends = [record for record in records if isinstance(record, Send)]
    result.sends += len(sends)
    result.silent += sum(send.answer is None for send in sends)
    result.breaches += [f"round {result.rounds}: {fault}" for fault in faults]
    if code != Exit.OK or took > STOP_S_MAX:
        result.breaches.append(f"round {result.rounds}: exit code {code} after {took:.1f} s")


@contextmanager
def dead_peers(machine: Machine) -> Iterator[None]:
    """Surround a broker with a receiver that reads nothing, and with silent and half-said peers."""
    text, door = _tcp(machine.process.doors.text), machine.process.doors.zmq
    with ExitStack() as stack:
        stalled = stack.enter_context(RawPeer(door, RCVHWM=1, RCVBUF=4_096))
        token = machine.tokens[USERS[0]]
        stalled.send([stalled.request("subscribe", token, window=1_000)])
        for address, said in ((_tcp(door.removeprefix("tcp://")), b"\xff"), (text, b"chat kt_")):
            for _ in range(_SILENT_PEERS):
                peer = stack.enter_context(socket.create_connection(address, STOP_S_MAX))
                peer.sendall(said)
        greedy = stack.enter_context(socket.create_connection(text, STOP_S_MAX))
        greedy.sendall(f"user_on {token} \r\n".encode() * 500)
        yield


def _tcp(door: str) -> tuple[str, int]:
    host, _, port = door.rpartition(":")
    return host, int(port)
