"""One broker through all its doors at once: what goes in through one comes out of the others."""

from __future__ import annotations

import json
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from clients import Client
from clients.text_connection import TextConnection
from tests.e2e.program import Serving, eventually

CONNECTIONS = 3_000
TIMEOUT_S = 60


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Serving]:
    with Serving(tmp_path / "data", "--demo") as serving:
        yield serving


class Netcat:
    """A person with ``nc``: lines in, whatever comes back."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, TIMEOUT_S)
        self._stream = self.socket.makefile("rb")

    def close(self) -> None:
        self._stream.close()
        self.socket.close()

    def reply(self) -> dict[str, object]:
        """Read one reply: a line of JSON, and the empty one behind it."""
        line = self._stream.readline()
        assert self._stream.readline() == b"\r\n"
        found: dict[str, object] = json.loads(line)
        return found

    def say(self, line: str) -> dict[str, object]:
        self.socket.sendall(f"{line}\n".encode())
        return self.reply()


class People:
    """The same three users on three kinds of client: shafwa by nc, fadly by text, afif by ZeroMQ.

    ``send`` and ``read`` do the same through each.
    """

    def __init__(self, broker: Serving, stack: ExitStack) -> None:
        self.nc = Netcat(broker.text_address)
        stack.callback(self.nc.close)
        self.text = stack.enter_context(TextConnection(*broker.text_address))
        self.client = stack.enter_context(Client(broker.zmq))
        self._nc_token = self.nc.say("login shafwa mks")["tokenid"]
        self._text_token = self.text.login("fadly", "prp")["tokenid"]
        self.client.login("afif", "plp")

    def send(self, sender: str, to: str, words: str) -> None:
        if sender == "shafwa":
            assert self.nc.say(f"chat {self._nc_token} {to} {words}")["status"] == "OK"
        elif sender == "fadly":
            assert self.text.chat(self._text_token, to, words)["status"] == "OK"
        else:
            assert self.client.send(to, words).durability == "fsync"

    def read(self, reader: str) -> list[tuple[str, str]]:
        """Take what waits: the senders' display names, and the texts."""
        if reader == "afif":
            messages = self.client.inbox(limit=1_000).messages
            if messages:
                self.client.acknowledge(messages[-1].seq)
            return [(message.name, message.text) for message in messages]
        reply = (
            self.nc.say(f"kotakmasuk {self._nc_token}")
            if reader == "shafwa"
            else self.text.kotakmasuk(self._text_token)
        )
        inbox = reply["messages"]
        assert isinstance(inbox, list)
        return [(message["msg_from"], message["msg"]) for message in inbox]


@pytest.fixture
def people(broker: Serving) -> Iterator[People]:
    with ExitStack() as stack:
        yield People(broker, stack)


NAMES = {"shafwa": "Shafwa", "fadly": "Fadly", "afif": "Afif"}


def test_every_door_reads_what_any_door_sent_in_order_and_once(people: People) -> None:
    """Nine directions, the doors taking turns within each mailbox."""
    texts = ["satu", "dua  spasi", "tiga é \U0001f600", '"} \\r\\n {']
    for words in texts:
        for to in NAMES:
            for sender in NAMES:
                people.send(sender, to, words)
    expected = [(name, words) for words in texts for name in NAMES.values()]
    for reader in NAMES:
        assert people.read(reader) == expected
        assert people.read(reader) == []


def test_what_one_door_has_taken_the_other_does_not_show(broker: Serving, people: People) -> None:
    """Two sessions of one user, on different doors: a cursor is the user's, not the session's."""
    with Client(broker.zmq) as second:
        second.login("fadly", "prp")
        people.send("afif", "fadly", "once")
        assert [message.text for message in second.inbox().messages] == ["once"]  # not taken yet
        assert people.read("fadly") == [("Afif", "once")]
        assert eventually(lambda: not second.inbox().messages)
        people.send("afif", "fadly", "twice")
        second.acknowledge(second.inbox().messages[-1].seq)
        assert people.read("fadly") == []


def test_a_token_is_good_on_every_door(broker: Serving, people: People) -> None:
    token = people.client.token
    assert token
    people.send("shafwa", "afif", "by token")
    with TextConnection(*broker.text_address) as text:
        (message,) = text.kotakmasuk(token)["messages"]
    assert message["msg"] == "by token"


def test_logging_out_on_one_door_ends_that_session_and_no_other(
    broker: Serving, people: People
) -> None:
    with TextConnection(*broker.text_address) as text:
        token = text.login("afif", "plp")["tokenid"]
        text.logout(token)
        assert text.user_on(token)["message"] == "Informasi tidak ditemukan"
    assert [user.user for user in people.client.users_on()] == ["shafwa", "fadly", "afif"]
    people.client.logout()
    people.send("shafwa", "afif", "later")  # a mailbox needs no session


def test_pipelined_lines_are_answered_one_by_one_and_in_order(people: People) -> None:
    """Two hundred lines in one segment, while another door sends into the same mailbox."""
    lines = "".join(
        f"chat {people._nc_token} afif {number}\r\n" if number % 2 else "user_on nobody\r\n"
        for number in range(200)
    )
    people.nc.socket.sendall(lines.encode())
    people.send("fadly", "afif", "between")
    for number in range(200):
        assert people.nc.reply()["status"] == ("OK" if number % 2 else "ERROR")
    texts = [text for name, text in people.read("afif") if name == "Shafwa"]
    assert texts == [str(number) for number in range(1, 200, 2)]


def test_thousands_of_text_connections_leave_the_zeromq_door_alone(
    broker: Serving, people: People
) -> None:
    """Given 3 000 open text connections, all of which have been answered once,

    I expect a ZeroMQ client and the first text client to be served, and all of them to be let go.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CONNECTIONS + 500:
        pytest.skip("too few open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, CONNECTIONS + 500), hard))
    before = broker.memory_mib()
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        crowd = []
        for _ in range(CONNECTIONS):
            peer = socket.create_connection(broker.text_address, TIMEOUT_S)
            stack.callback(peer.close)
            crowd.append(peer)
        for peer in crowd:
            peer.sendall(b"user_on nobody\r\n")
        for peer in crowd:
            assert peer.recv(64).startswith(b'{"status": "ERROR"')
        assert broker.metric("kotak_text_connections") == CONNECTIONS + 2
        people.send("afif", "fadly", "in the crowd")
        people.send("shafwa", "fadly", "in the crowd")
        assert len(people.read("fadly")) == 2
        assert broker.memory_mib() - before < CONNECTIONS * 16 / 1024  # 16 KiB each
    eventually(lambda: broker.metric("kotak_text_connections") == 2)
    assert people.read("shafwa") == []
    assert broker.stop().code == 0
