"""A whole broker on a failing, a full and a slow disk, as its clients see it."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.exits import Exit
from broker.wire.errors import Code
from clients.client import Client
from clients.errors import RequestError, RequestTimeout, StorageFull
from tests.e2e.program import Serving
from tests.proof.disk.full import RECOVERY_S_MAX
from tests.proof.disk.interposer import FOR_EVER, Calls, Interposer
from tests.proof.disk.journal import Kind
from tests.proof.disk.whole import add_users, log_in, surrounded

TEXT = "x" * 3_000


class Machine:
    """A broker on the interposer, and where it keeps its data."""

    def __init__(self, disk: Interposer, data: Path) -> None:
        self.disk = disk
        with surrounded(disk.environment()):
            self.broker = Serving(data)
        self.tokens = log_in(self.broker.zmq)

    def client(self, user: str) -> Client:
        return Client(self.broker.zmq, token=self.tokens[user], timeout_ms=30_000)


@pytest.fixture
def machine(library: Path, tmp_path: Path) -> Iterator[Machine]:
    data = tmp_path.resolve() / "data"
    data.mkdir(mode=0o700)
    add_users(data)
    with Interposer(library, data, tmp_path) as disk:
        machine = Machine(disk, data)
        with machine.broker:
            yield machine


@contextmanager
def refused(*codes: Code) -> Iterator[None]:
    with pytest.raises(RequestError) as caught:
        yield
    assert caught.value.code in codes


@pytest.mark.parametrize("calls", [Calls.SYNC, pytest.param(Calls.WRITE, marks=pytest.mark.slow)])
def test_a_disk_that_fails_once_ends_the_broker_and_a_restart_recovers(
    machine: Machine, calls: Calls
) -> None:
    """The send is answered ``unavailable``, or not at all; under its id it is stored once."""
    with machine.client("ann") as client:
        first = client.send("bob", "before")
        machine.disk.fail(calls, 1, error=errno.EIO)
        with pytest.raises(RequestError) as caught:
            client.send("bob", "meanwhile", message_id="m", timeout_ms=800)
        assert caught.value.code == Code.UNAVAILABLE or isinstance(caught.value, RequestTimeout)
    assert machine.broker.end().code == Exit.DISK_FAILED
    with machine.broker.again() as again, Client(again.zmq, token=machine.tokens["ann"]) as client:
        client.send("bob", "meanwhile", message_id="m")
        with Client(again.zmq, token=machine.tokens["bob"]) as reader:
            messages = reader.inbox().messages
    assert [message.text for message in messages] == ["before", "meanwhile"]
    assert messages[0].seq == first.seq


def test_a_broker_whose_sync_failed_does_not_sync_again(machine: Machine) -> None:
    """A second sync may report success for pages that the kernel has dropped."""
    with machine.client("ann") as client:
        client.send("bob", "before")
        machine.disk.fail(Calls.SYNC, 1, error=errno.EIO)
        with pytest.raises(RequestError):
            client.send("bob", "meanwhile", timeout_ms=800)
    assert machine.broker.end().code == Exit.DISK_FAILED
    kinds = [entry.kind for entry in machine.disk.entries()]
    assert Kind.SYNC not in kinds[kinds.index(Kind.SYNC_FAILED) :]


def accepted(client: Client, text: str) -> bool:
    try:
        client.send("bob", text, message_id=text, timeout_ms=30_000)
    except StorageFull:
        return False
    return True


def test_a_full_disk_refuses_sends_serves_reads_and_recovers_without_a_restart(
    machine: Machine,
) -> None:
    with machine.client("ann") as client, machine.client("bob") as reader:
        client.send("bob", "before")
        machine.disk.fail(Calls.WRITE, 1, error=errno.ENOSPC, times=FOR_EVER)
        for _ in range(3):
            with refused(Code.STORAGE_FULL):
                client.send("bob", TEXT, timeout_ms=1_000)
        assert [message.text for message in reader.inbox().messages] == ["before"]
        reader.ping()
        machine.disk.fail(Calls.WRITE, 0, error=0)
        began = time.monotonic()
        while not accepted(client, "after"):
            assert time.monotonic() - began < 10 * RECOVERY_S_MAX  # the machine may be busy
            time.sleep(0.02)
        assert [message.text for message in reader.inbox().messages] == ["before", "after"]


def test_a_slow_disk_delays_answers_and_loses_none(machine: Machine) -> None:
    """Each sync takes 100 ms: whoever sends waits for it, and everything is there, in order."""
    with machine.client("ann") as client, machine.client("bob") as reader:
        machine.disk.delay_syncs(100)
        began = time.monotonic()
        waiting = [client.submit("bob", f"{n}") for n in range(50)]
        seqs = [pending.result().seq for pending in waiting]
        assert time.monotonic() - began >= 0.1
        machine.disk.delay_syncs(0)
        assert [message.seq for message in reader.inbox().messages] == seqs == sorted(seqs)
