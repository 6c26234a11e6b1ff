"""``kotak watch`` and the messages that the chat shows as they arrive."""

from __future__ import annotations

import argparse
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.wire.errors import Code
from clients import cli
from clients.calls import KEPT_BYTES_EACH, KEPT_BYTES_MAX, watch_inbox
from clients.client import Client
from clients.display import lost_text
from clients.errors import ConnectionFailed, HistoryLost
from clients.live import NOT_SHOWN, THREAD, LiveInbox
from clients.results import Message
from tests.clients.fake_calls import FakeBroker, FakeClient, refusal
from tests.conftest import Broker
from tests.e2e.program import Program
from tests.load.broker_process import BrokerProcess

Watch = Callable[..., int]


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.002)


@pytest.fixture
def broker() -> FakeBroker:
    fake = FakeBroker()
    # The loop over the messages has no end but this.
    fake.faults["messages end"].append(KeyboardInterrupt())
    return fake


@pytest.fixture
def watch(
    broker: FakeBroker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Watch:
    monkeypatch.setenv("KOTAK_SESSION_FILE", str(tmp_path / "session.json"))
    monkeypatch.delenv("KOTAK_BROKER", raising=False)
    monkeypatch.setenv("PRP", "prp")

    def run(*argv: str) -> int:
        parser = argparse.ArgumentParser(prog="kotak")
        cli.add_commands(parser.add_subparsers(required=True), connect=broker.connect)
        args = parser.parse_args(argv)
        code: int = args.run(args)
        return code

    assert run("login", "fadly", "--password-env", "PRP") == 0
    capsys.readouterr()
    return lambda *options: run("watch", *options)


# --- kotak watch -------------------------------------------------------------------------------


def test_messages_look_as_in_the_inbox_and_ctrl_c_ends_quietly(
    broker: FakeBroker, watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.put("fadly", "shafwa", "hai\x1b[2J")
    assert watch() == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r"\[.{16}\] Shafwa \(shafwa\) to Fadly: hai\\x1b\[2J\n", out)
    assert err.splitlines() == [
        "messages to Fadly (fadly) as they arrive; Ctrl-C to end",
        "waiting for the broker at tcp://127.0.0.1:8890",
        "the broker at tcp://127.0.0.1:8890 is back",
    ]
    assert broker.waiting("fadly") == []


def test_json_is_one_object_a_line(
    broker: FakeBroker, watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.put("fadly", "shafwa", "a\nb")
    broker.put("fadly", "mamang", "c")
    assert watch("--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["from"], line["text"]) for line in lines] == [("shafwa", "a\nb"), ("mamang", "c")]


def test_keep_takes_nothing(broker: FakeBroker, watch: Watch) -> None:
    broker.put("fadly", "shafwa", "hai")
    assert watch("--keep") == 0
    assert broker.waiting("fadly") == ["hai"]


def test_a_message_that_could_not_be_written_stays(
    broker: FakeBroker, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.put("fadly", "shafwa", "a")

    def fail(_: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("clients.commands.write_line", fail)
    monkeypatch.setattr("clients.cli._forget_output", lambda: None)
    assert watch() == 141
    assert broker.waiting("fadly") == ["a"]


def test_a_session_that_ends_says_what_to_run(
    broker: FakeBroker, watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.faults["messages"].append(refusal(Code.UNAUTHORIZED, "log in"))
    assert watch() == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "kotak: not logged in: run kotak login USER"


def test_whoever_keeps_what_is_pushed_sees_more_than_a_window(demo_broker: Broker) -> None:
    count = KEPT_BYTES_MAX // KEPT_BYTES_EACH + 200
    seen: list[str] = []

    def show(message: Message) -> None:
        seen.append(message.text)
        if len(seen) == count:
            raise KeyboardInterrupt

    with Client(demo_broker.zmq) as sender, Client(demo_broker.zmq) as reader:
        sender.login("shafwa", "mks")
        texts = [str(number) for number in range(count)]
        assert len(list(sender.send_many(("fadly", text) for text in texts))) == count
        reader.login("fadly", "prp")
        with pytest.raises(KeyboardInterrupt):
            watch_inbox(
                reader, show, on_connection=lambda _: None, on_lost=lambda _: None, keep=True
            )
        assert seen == texts
        assert reader.inbox().messages[0].text == "0"


def test_watch_survives_a_broker_that_is_killed(tmp_path: Path) -> None:
    session = str(tmp_path / "session.json")
    environment = {"KOTAK_SESSION_FILE": session, "PRP": "prp"}
    with BrokerProcess(tmp_path / "data", options=["--demo"]) as process:
        address = process.doors.zmq
        login = ("login", "fadly", "--password-env", "PRP", "--broker", address)
        with Program(*login, env=environment) as command:
            assert command.end().code == 0
        with Client(address) as sender, Program("watch", env=environment) as watching:
            sender.login("shafwa", "mks")
            for text in ("one", "two", "three"):
                sender.send("fadly", text)
                watching.wait_for(re.compile(rf": {text}$", re.MULTILINE))
                if text == "two":
                    process.kill()
                    _until(lambda: "waiting for the broker at" in watching.err)
                    process.start()
            watching.signal(signal.SIGINT)
            ended = watching.end()
    assert ended.code == 0
    assert [line.rpartition(": ")[2] for line in ended.out.splitlines()] == ["one", "two", "three"]
    assert ended.err.splitlines()[1:] == [
        f"waiting for the broker at {address}",
        f"the broker at {address} is back",
    ]


# --- the chat ------------------------------------------------------------------------------------


class Room:
    """Followed sessions, and what was shown and said."""

    def __init__(self) -> None:
        self.broker = FakeBroker()
        self.shown: list[str] = []
        self.said: list[str] = []
        self.live = LiveInbox(self._open, self.said.append)

    def _open(self, token: str) -> FakeClient:
        return self.broker.connect("tcp://there:1", token=token, timeout_ms=1)

    def login(self, user: str) -> str:
        token = f"kt_{user}"
        self.broker.sessions[token] = user
        return token

    def show(self, message: Message) -> None:
        self.shown.append(message.text)


def _following() -> bool:
    return any(thread.name == THREAD for thread in threading.enumerate())


@pytest.fixture
def room() -> Iterator[Room]:
    made = Room()
    with made.live:
        yield made


def test_what_arrives_is_shown_and_still_waits_to_be_read(room: Room) -> None:
    room.live.follow(room.login("fadly"), room.show)
    room.broker.put("fadly", "shafwa", "one")
    _until(lambda: room.shown == ["one"])
    room.broker.put("fadly", "shafwa", "two")
    _until(lambda: room.shown == ["one", "two"])
    assert len(room.broker.waiting("fadly")) == 2


def test_what_came_before_is_left_to_be_asked_for(room: Room) -> None:
    room.broker.put("fadly", "shafwa", "long ago", at_ms=1)
    room.live.follow(room.login("fadly"), room.show)
    room.broker.put("fadly", "shafwa", "now")
    _until(lambda: room.shown == ["now"])


def test_another_login_follows_another_mailbox_and_logout_none(room: Room) -> None:
    room.live.follow(room.login("fadly"), room.show)
    room.live.follow(room.login("mamang"), room.show)
    room.broker.put("fadly", "shafwa", "not this")
    room.broker.put("mamang", "shafwa", "this")
    _until(lambda: room.shown == ["this"])
    room.live.follow(None, room.show)
    room.broker.put("mamang", "shafwa", "nor this")
    assert room.shown == ["this"]
    assert not _following()


def test_the_same_session_is_followed_once(room: Room) -> None:
    token = room.login("fadly")
    for _ in range(3):
        room.live.follow(token, room.show)
    _until(lambda: "messages" in room.broker.calls)
    assert room.broker.calls.count("messages") == 1


def test_lost_history_is_told_and_what_arrives_is_shown_on(room: Room) -> None:
    room.broker.faults["messages"].append(HistoryLost(3, 17))
    room.live.follow(room.login("fadly"), room.show)
    room.broker.put("fadly", "shafwa", "hai")
    _until(lambda: room.shown == ["hai"])
    assert room.said == [lost_text(3, 17)]


def test_a_session_that_has_ended_is_the_chats_to_tell(room: Room) -> None:
    room.live.follow("kt_unknown", room.show)
    _until(lambda: not _following())
    assert room.said == []


def test_other_troubles_are_told(room: Room) -> None:
    room.broker.faults["messages"].append(ConnectionFailed("there is no broker"))
    room.live.follow(room.login("fadly"), room.show)
    _until(lambda: room.said)
    assert room.said == [
        f"Error, there is no broker; {NOT_SHOWN}",
    ]
