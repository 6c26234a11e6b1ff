"""``kotak user`` as a program, on the folder of a broker that runs, that is stopped, or is none."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.wire.errors import Code
from clients import Client
from clients.text_connection import TextConnection
from tests.e2e.program import Ended, Serving, complaint, connect, contents, refused, run

WORD = "mks"  # shafwa's password


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(params=["online", "offline"])
def administered(request: pytest.FixtureRequest, data: Path) -> Iterator[Path]:
    """A data folder with the demo users, and a broker running on it or not."""
    with Serving(data, "--demo") as broker:
        if request.param == "offline":
            broker.stop()
        yield data


def user(data: Path, *words: str, typed: str = "") -> Ended:
    return run("user", *words, "--data", str(data), typed=typed)


def test_accounts_are_administered_whether_the_broker_runs_or_not(
    administered: Path, tmp_path: Path
) -> None:
    data = administered
    ended = user(data, "add", "ana", "--name", "Ana B", "--password-stdin", typed="first word\n")
    assert ended == (0, "added ana\n", "")
    assert user(data, "add", "ana", "--password-stdin", typed="x\n").code == 1
    file = tmp_path / "users.txt"
    file.write_text("budi:word:Budi\nana:word\n")
    assert user(data, "import", str(file)).out == "added 1, existed already 1, of 2\n"
    assert user(data, "passwd", "ana", "--password-stdin", typed="second word\n").code == 0
    assert user(data, "remove", "afif", "--yes").code == 0
    assert user(data, "remove", "afif", "--yes").code == 1
    listed = user(data, "list").out.splitlines()
    assert listed == [
        "ana\tAna B\tuser",
        "budi\tBudi\tuser",
        "fadly\tFadly\tuser",
        "mamang\tmamang\tuser",
        "shafwa\tShafwa\tuser",
    ]
    file.write_text("carl:word\nno colon here\n")
    assert user(data, "import", str(file)).code == 2
    assert len(user(data, "list").out.splitlines()) == 5


def test_what_was_administered_offline_counts_for_the_next_broker(data: Path) -> None:
    assert user(data, "add", "ana", "--password-stdin", typed="first word\n").code == 0
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    with Serving(data) as broker, connect(broker, "ana", "first word") as client:
        assert [each.user for each in client.users_on()] == ["ana"]


def test_the_sessions_of_a_removed_user_end_on_both_doors(data: Path) -> None:
    with Serving(data, "--demo") as broker, connect(broker) as client:
        with TextConnection(*broker.text_address) as text:
            token = text.login("shafwa", WORD)["tokenid"]
            assert user(data, "remove", "shafwa", "--yes").code == 0
            assert text.user_on(token)["message"] == "Informasi tidak ditemukan"
        assert refused(client.ping) == Code.UNAUTHORIZED
        assert refused(lambda: client.login("shafwa", WORD)) == Code.BAD_CREDENTIALS


def test_the_sessions_of_a_user_with_a_new_password_end_even_if_it_was_set_offline(
    data: Path,
) -> None:
    with Serving(data, "--demo") as broker:
        with connect(broker) as client:
            token = client.token
        broker.stop()
        assert user(data, "passwd", "shafwa", "--password-stdin", typed="new\n").code == 0
        with broker.again() as restarted, Client(restarted.zmq, token=token) as client:
            assert refused(client.ping) == Code.UNAUTHORIZED
            assert client.login("shafwa", "new").user == "shafwa"


@pytest.mark.parametrize(
    "words", [("list",), ("passwd", "ana", "--password-stdin"), ("remove", "ana", "--yes")]
)
def test_a_mistyped_folder_is_refused_and_not_made(data: Path, words: tuple[str, ...]) -> None:
    ended = user(data, *words, typed="word\n")
    assert ended.code == 5
    assert complaint(ended).startswith(f"there are no accounts in {data}: ")
    assert not data.exists()
    data.mkdir(mode=0o700)
    assert user(data, *words, typed="word\n").code == 5
    assert list(data.iterdir()) == []


def test_no_accounts_are_made_where_a_broker_kept_none(data: Path) -> None:
    with Serving(data, "--store", "memory:") as broker:
        broker.stop()
    assert user(data, "list").code == 5
    assert contents(data) == {}


@pytest.mark.parametrize("words", [("add", "ana", "--password-stdin"), ("import", "-")])
def test_a_folder_of_somebody_else_is_not_taken_over(data: Path, words: tuple[str, ...]) -> None:
    data.mkdir(mode=0o700)
    (data / "letter.txt").write_text("mine")
    ended = user(data, *words, typed="ana:word\n")
    assert ended.code == 5
    assert "choose a new or an empty one" in complaint(ended)
    assert contents(data) == {"letter.txt": b"mine"}
