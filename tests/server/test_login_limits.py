"""Wrong passwords over real sockets, at both doors: refused unhashed, and nobody else is slowed."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.cli import main as kotak
from broker.core import attempts
from broker.core.attempts import AttemptLimits
from broker.server import Server
from broker.server.broker import Doors
from clients import BadCredentials, Client, RateLimited
from clients.text_connection import TextConnection
from tests.server.in_process import PlainHasher, any_ports

DEADLINE_S = 30.0
FREE = AttemptLimits().failures_max


class CountingHasher(PlainHasher):
    """Counts the passwords that were compared."""

    def __init__(self) -> None:
        self.compared = 0
        self._lock = threading.Lock()

    def verify(self, password_hash: str, password: str) -> bool:
        with self._lock:
            self.compared += 1
        return super().verify(password_hash, password)


class Broker:
    """A running broker, and logins at its doors: each returns what was said, empty for OK."""

    def __init__(self, data: Path) -> None:
        self.hasher = CountingHasher()
        self.server = Server(any_ports(data), hasher=self.hasher)
        self.doors: Doors = self.server.start()

    def by_client(self, user: str, password: str) -> str:
        with Client(self.doors.zmq) as client:
            try:
                client.login(user, password)
            except (BadCredentials, RateLimited) as error:
                return error.message
        return ""

    def by_line(self, user: str, password: str) -> str:
        assert self.doors.text is not None
        with TextConnection(*self.doors.text) as line:
            reply = line.login(user, password)
        return "" if reply["status"] == "OK" else str(reply["message"])


Login = Callable[[str, str], str]


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    # So long that no machine is too slow to be refused.
    monkeypatch.setattr(attempts, "DELAY_MS", 60_000)
    broker = Broker(tmp_path / "data")
    yield broker
    broker.server.stop()


@pytest.fixture(params=["by_client", "by_line"])
def login(broker: Broker, request: pytest.FixtureRequest) -> Login:
    found: Login = getattr(broker, request.param)
    return found


@pytest.mark.parametrize("user", ["shafwa", "nobody"])
def test_the_sixth_wrong_password_is_refused_without_hashing(
    broker: Broker, login: Login, user: str
) -> None:
    said = {login(user, f"wrong{number}") for number in range(FREE)}
    assert len(said) == 1
    compared = broker.hasher.compared
    refusal = login(user, "wrong")
    assert refusal == "too many wrong passwords: wait 60 s, then try again"
    assert broker.hasher.compared == compared == FREE


def test_another_user_at_the_same_address_gets_in_meanwhile(broker: Broker, login: Login) -> None:
    for number in range(FREE):
        login("shafwa", f"wrong{number}")
    assert "wait 60 s" in login("shafwa", "mks")
    assert login("fadly", "prp") == ""


def test_the_right_password_works_after_the_delay_and_not_before(
    broker: Broker, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "DELAY_MS", 500)
    for number in range(FREE):
        began = time.monotonic()
        login("shafwa", f"wrong{number}")
    while login("shafwa", "mks"):
        assert time.monotonic() - began < DEADLINE_S
        time.sleep(0.02)
    assert time.monotonic() - began >= 0.499
    assert broker.hasher.compared == FREE + 1
    assert login("shafwa", "mks") == ""


def test_both_doors_keep_one_count(broker: Broker) -> None:
    for number in range(FREE):
        broker.by_line("shafwa", f"wrong{number}")
    assert "wait 60 s" in broker.by_client("shafwa", "mks")


def test_a_guesser_at_the_text_door_does_not_slow_down_its_other_users(broker: Broker) -> None:
    """They come from other addresses of this machine, and share the door's one connection."""
    assert broker.doors.text is not None
    host, port = broker.doors.text
    assert host == "127.0.0.1"
    for number in range(FREE):
        broker.by_line("shafwa", f"wrong{number}")
    assert broker.by_line("shafwa", "mks") != ""
    with socket.create_connection((host, port), DEADLINE_S, ("127.0.0.2", 0)) as elsewhere:
        elsewhere.sendall(b"login shafwa mks \r\n")
        reply = elsewhere.makefile("rb").readline()
    assert json.loads(reply)["status"] == "OK"


def test_guesses_at_once_are_no_way_around(broker: Broker) -> None:
    """Many connections, one address: what is under way counts, and waits for its turn."""
    said: list[str] = []
    guessers = [
        threading.Thread(target=lambda: said.append(broker.by_line("afif", "wrong")))
        for _ in range(24)
    ]
    for guesser in guessers:
        guesser.start()
    for guesser in guessers:
        guesser.join(DEADLINE_S)
    assert len(said) == len(guessers)
    assert broker.hasher.compared == FREE
    assert sum("too many wrong passwords" in each for each in said) == len(guessers) - FREE


def test_kotak_login_says_how_long_to_wait_and_does_not_wait_itself(
    broker: Broker,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(FREE):
        broker.by_client("mamang", f"wrong{number}")
    monkeypatch.setenv("PASSWORD_HERE", "jkt")
    monkeypatch.setenv("KOTAK_SESSION_FILE", str(tmp_path / "session" / "session.json"))
    words = ["--broker", broker.doors.zmq, "login", "mamang", "--password-env", "PASSWORD_HERE"]
    assert kotak(words) == 1
    said = capsys.readouterr().err
    assert said == "kotak: too many wrong passwords: wait 60 s, then try again (rate_limited)\n"
