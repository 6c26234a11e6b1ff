"""Strangers fill the memory: the broker refuses, then ends in good order, and nothing is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from broker.exits import Exit
from broker.wire.errors import Code
from broker.wire.limits import FRAMES_PER_MESSAGE_MAX
from clients.errors import KotakError
from tests.e2e.program import Serving, connect, eventually
from tests.e2e.raw_peer import RawPeer
from tests.e2e.zmtp import Zmtp, unfinished

MIB = 1_048_576
#: A broker without mailboxes has some 60 MiB.
MEMORY_MAX = 300 * MIB
#: A million empty frames, and one behind which none follows.
BOMB = b"\x01\0" * 1_000_000 + b"\0\0"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def broker(data: Path) -> Iterator[Serving]:
    with Serving(data, "--demo", "--memory-max-bytes", str(MEMORY_MAX)) as broker:
        yield broker


def fill(broker: Serving, peer: Zmtp, percent: int) -> None:
    """Send a message that does not end until so much of the memory is taken, or the end."""
    block = unfinished(b"x" * 60_000) * 16
    with suppress(OSError):  # it is over
        while broker.process.poll() is None:
            if broker.memory_mib() * MIB >= MEMORY_MAX * percent / 100:
                return
            peer.socket.sendall(block)
            time.sleep(0.002)  # so that it is seen before the level has been passed


def counted(broker: Serving, sample: str) -> None:
    """Wait until the metrics page says so."""
    eventually(lambda: sample in broker.page("/metrics")[1])


def test_a_message_without_an_end_ends_the_broker_and_loses_nothing(
    broker: Serving, data: Path
) -> None:
    """Given an honest sender, if a stranger sends frames without end,

    I expect the exit code of spent memory and its sentence, and after a restart every message
    that was answered OK, in order, and once.
    """
    answered: list[str] = []

    def send() -> None:
        with connect(broker) as client, suppress(KotakError):  # the broker ends in the midst
            for number in range(1_000_000):
                client.send("fadly", f"{number}", timeout_ms=3_000)
                answered.append(f"{number}")

    sender = threading.Thread(target=send)
    sender.start()
    eventually(lambda: len(answered) > 100)
    with Zmtp(broker.zmq) as stranger:
        fill(broker, stranger, 1_000)
        ended = broker.end()
    sender.join()
    assert ended.code == Exit.MEMORY_SPENT
    assert "memory_max_bytes" in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err
    with broker.again() as restarted, connect(restarted, "fadly", "prp") as reader:
        found = [message.text for message in reader.history(limit=1_000).messages]
        waiting: list[str] = []
        while page := reader.inbox(limit=1_000).messages:
            waiting += [message.text for message in page]
            reader.acknowledge(page[-1].seq)
        assert found == waiting[-1_000:]
        # The last one may have been stored though its answer was lost.
        assert waiting[: len(answered)] == answered
        assert len(waiting) <= len(answered) + 1
        assert restarted.stop().code == 0


def test_near_the_limit_new_messages_are_refused_and_the_rest_goes_on(broker: Serving) -> None:
    with connect(broker) as client, RawPeer(broker.zmq) as peer:
        kept = client.send("shafwa", "before")
        another = peer.request("chat", client.token, to="fadly", text="hai", id="1")
        with Zmtp(broker.zmq) as stranger:
            fill(broker, stranger, 83)
            eventually(lambda: "nothing new is stored" in broker.err)
            assert peer.refusal(another) == Code.UNAVAILABLE
            assert [message.text for message in client.inbox().messages] == ["before"]
            assert client.acknowledge(kept.seq) == kept.seq
            assert broker.page("/readyz")[0] == 503
            assert broker.metric("kotak_memory_bytes") > MEMORY_MAX * 0.8
        # What the stranger held is given back when it is gone: no restart is needed.
        eventually(lambda: "stored again" in broker.err)
        assert peer.ask(another).error is None
        assert broker.page("/readyz")[0] == 200
    assert broker.stop().code == 0


def test_a_million_frames_are_one_refusal_however_often_and_take_bounded_memory(
    broker: Serving,
) -> None:
    """The second and third need what the first one left."""
    with connect(broker) as client, Zmtp(broker.zmq) as stranger:
        before = broker.memory_mib()
        for number in range(1, 4):
            stranger.socket.sendall(BOMB)
            counted(broker, f'kotak_refusals_total{{code="bad_request"}} {number}.0')
            assert broker.memory_mib() - before < 120
        assert client.send("shafwa", "still here").durability == "fsync"
    assert "memory" not in broker.stop().err


def test_what_comes_before_the_end_of_a_message_is_not_looked_at(broker: Serving) -> None:
    """A sender that is slow, or gone, between two frames costs its frames and holds up nobody."""
    with RawPeer(broker.zmq) as peer, Zmtp(broker.zmq) as stranger:
        stranger.send(*[peer.request("ping") for _ in range(FRAMES_PER_MESSAGE_MAX - 1)])
        assert peer.ask(peer.request("ping")).error is None
        stranger.socket.sendall(b"\0\0")
        counted(broker, f'kotak_requests_total{{command="ping"}} {FRAMES_PER_MESSAGE_MAX}.0')
    assert broker.stop().code == 0
