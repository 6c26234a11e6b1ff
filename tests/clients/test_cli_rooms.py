"""Rooms, history, status, devices and presence as a person asks for them, one command each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from broker import cli as program
from broker.wire.errors import Code
from clients import cli
from clients.errors import HistoryLost
from clients.session_file import read_session
from tests.clients.fake_calls import FakeBroker, refusal

Kotak = Callable[..., int]
Capture = pytest.CaptureFixture[str]
MINUTE_MS = 60_000


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def session_path(tmp_path: Path) -> Path:
    return tmp_path / "session.json"


@pytest.fixture
def kotak(broker: FakeBroker, session_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kotak:
    """Return what runs ``kotak WORDS``, the whole program but for the broker."""
    monkeypatch.setenv("KOTAK_SESSION_FILE", str(session_path))
    monkeypatch.delenv("KOTAK_BROKER", raising=False)
    monkeypatch.setenv("PRP", "prp")
    add_commands = cli.add_commands
    monkeypatch.setattr(
        cli, "add_commands", lambda commands: add_commands(commands, connect=broker.connect)
    )

    def run(*words: str) -> int:
        try:
            return program.main(words)
        except SystemExit as stop:
            return int(str(stop.code))

    return run


@pytest.fixture
def as_fadly(kotak: Kotak, capsys: Capture) -> Kotak:
    assert kotak("login", "fadly", "--password-env", "PRP") == 0
    capsys.readouterr()
    return kotak


def without_times(text: str) -> list[str]:
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "TIME", text).splitlines()


# --- devices -----------------------------------------------------------------------------------


def test_a_device_is_told_to_the_broker_and_shown_where_the_login_is(
    kotak: Kotak, broker: FakeBroker, session_path: Path, capsys: Capture
) -> None:
    assert kotak("login", "fadly", "--password-env", "PRP", "--device", "phone") == 0
    assert broker.devices == ["phone"]
    said = "Fadly (fadly), device phone, at tcp://127.0.0.1:8890\n"
    assert capsys.readouterr().out == f"logged in as {said}"
    assert kotak("whoami") == 0
    assert capsys.readouterr().out == said
    saved = read_session(session_path)
    assert saved
    assert saved.device == "phone"


def test_a_device_whose_session_has_ended_is_told_how_to_come_back(
    kotak: Kotak, broker: FakeBroker, capsys: Capture
) -> None:
    kotak("login", "fadly", "--password-env", "PRP", "--device", "phone")
    broker.sessions.clear()
    assert kotak("inbox") == 1
    assert "run kotak login USER --device phone\n" in capsys.readouterr().err


def test_a_session_file_without_a_device_is_still_good(
    as_fadly: Kotak, session_path: Path, capsys: Capture
) -> None:
    fields = json.loads(session_path.read_text())
    del fields["device"]
    session_path.write_text(json.dumps(fields))
    assert as_fadly("whoami") == 0
    assert capsys.readouterr().out == "Fadly (fadly) at tcp://127.0.0.1:8890\n"


# --- send --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "ttl_ms"),
    [("1s", 1_000), ("5m", 300_000), ("2h", 7_200_000), ("3650d", 315_360_000_000)],
)
def test_a_message_may_be_given_a_time_to_be_read_in(
    as_fadly: Kotak, broker: FakeBroker, given: str, ttl_ms: int
) -> None:
    assert as_fadly("send", "shafwa", "hi", "--ttl", given) == 0
    assert broker.ttls_ms == [ttl_ms]


@pytest.mark.parametrize("given", ["0s", "3651d", "5", "m", "5 m", "1.5h", "3w", "-5m", "٣m", ""])
def test_what_is_no_such_time_is_answered_with_what_is(
    as_fadly: Kotak, broker: FakeBroker, given: str, capsys: Capture
) -> None:
    assert as_fadly("send", "shafwa", "hi", f"--ttl={given}") == 2
    said, hint = capsys.readouterr().err.splitlines()
    assert said == (
        "kotak: argument --ttl: give a number and a unit, as 30s, 5m, 2h or 7d: 1s at least, "
        "3650d at most"
    )
    assert hint == "try: kotak send --help"
    assert not broker.sent_ids


def test_a_room_is_a_recipient(as_fadly: Kotak, broker: FakeBroker, capsys: Capture) -> None:
    broker.room("#team", "fadly", "shafwa")
    assert as_fadly("send", "#team", "hai", "semua") == 0
    assert capsys.readouterr().out == "message sent to #team (sequence 1)\n"
    assert broker.waiting("shafwa") == ["hai semua"]


@pytest.mark.parametrize(
    "words",
    [("send",), ("send", "fadly"), ("room", "join"), ("history", "--room"), ("status",)],
)
def test_a_room_that_the_shell_took_for_a_comment_is_told_how_to_be_written(
    as_fadly: Kotak, words: tuple[str, ...], capsys: Capture
) -> None:
    assert as_fadly(*words) == 2
    assert "in a shell, what begins with # needs quotes: '#team'\n" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("send", "", "hi"), ("room", "join", ""), ("room", "join", "#")])
def test_an_empty_name_is_told_what_is_wanted(
    as_fadly: Kotak, broker: FakeBroker, words: tuple[str, ...], capsys: Capture
) -> None:
    assert as_fadly(*words) == 2
    assert "as '#team'\n" in capsys.readouterr().err
    assert broker.calls == ["login"]


# --- reading -----------------------------------------------------------------------------------


def test_the_room_of_a_message_stands_where_its_reader_would(
    as_fadly: Kotak, broker: FakeBroker, capsys: Capture
) -> None:
    broker.put("fadly", "shafwa", "hai", room="#team", redelivered=True)
    broker.put("fadly", "shafwa", "hai")
    assert as_fadly("inbox", "--keep") == 0
    assert without_times(capsys.readouterr().out) == [
        "[TIME] Shafwa (shafwa) in #team: hai",
        "[TIME] Shafwa (shafwa) to Fadly: hai",
    ]
    assert as_fadly("inbox", "--json") == 0
    said, private = map(json.loads, capsys.readouterr().out.splitlines())
    assert (said["room"], said["redelivered"]) == ("#team", True)
    assert "room" not in private
    assert "redelivered" not in private


LOST = "history was lost: messages from sequence 3 to 17 may be gone; history shows what there is"


def test_lost_history_is_told_once_and_the_reading_goes_on(
    as_fadly: Kotak, broker: FakeBroker, capsys: Capture
) -> None:
    broker.page_max = 1
    broker.lost = (3, 17)
    for text in ("one", "two"):
        broker.put("fadly", "shafwa", text)
    assert as_fadly("inbox") == 0
    out, err = capsys.readouterr()
    assert [line[-3:] for line in out.splitlines()] == ["one", "two"]
    assert err.splitlines() == [LOST, "messages: 2"]


def test_lost_history_is_told_where_nothing_else_waits(
    as_fadly: Kotak, broker: FakeBroker, capsys: Capture
) -> None:
    broker.lost = (3, 17)
    assert as_fadly("inbox") == 0
    assert capsys.readouterr() == ("", f"{LOST}\nno messages\n")


def test_watch_tells_of_lost_history_in_a_line_and_goes_on(
    as_fadly: Kotak, broker: FakeBroker, capsys: Capture
) -> None:
    broker.put("fadly", "shafwa", "hai")
    broker.faults["messages"].append(HistoryLost(3, 17))
    broker.faults["messages end"].append(KeyboardInterrupt())
    assert as_fadly("watch") == 0
    out, err = capsys.readouterr()
    assert out.endswith(": hai\n")
    assert LOST in err.splitlines()
    assert broker.waiting("fadly") == []


# --- history and status ------------------------------------------------------------------------


def test_history_shows_what_was_read_too_oldest_first_with_sequences(
    as_fadly: Kotak, broker: FakeBroker, capsys: Capture
) -> None:
    for number in range(10):
        broker.put("fadly", "shafwa", f"text {number}\nmore")
    broker.put("fadly", "mamang", "hai", room="#team")
    broker.cursors["fadly"] = 4
    assert as_fadly("history", "--limit", "3") == 0
    out, err = capsys.readouterr()
    assert without_times(out) == [
        " 9  [TIME] Shafwa (shafwa) to fadly: text 8",
        "    more",
        "10  [TIME] Shafwa (shafwa) to fadly: text 9",
        "    more",
        "11  [TIME] mamang in #team: hai",
    ]
    assert err == "there are older ones: --before 9\n"
    assert broker.cursors["fadly"] == 4


def test_pages_of_history_follow_one_another_both_ways(
    as_fadly: Kotak, broker: FakeBroker, capsys: Capture
) -> None:
    for number in range(1, 8):
        broker.put("fadly", "shafwa", str(number))

    def page(*words: str) -> tuple[str, str]:
        assert as_fadly("history", "--limit", "3", *words) == 0
        out, err = capsys.readouterr()
        return "".join(line[-1] for line in out.splitlines()), err

    assert page() == ("567", "there are older ones: --before 5\n")
    assert page("--before", "5") == ("234", "there are older ones: --before 2\n")
    assert page("--before", "2") == ("1", "")
    assert page("--after", "2") == ("345", "there are newer ones: --after 5\n")
    assert page("--after", "5") == ("67", "")
    assert page("--after", "7") == ("", "no messages\n")


def test_what_was_sent_is_shown_with_where_it_stands(
    as_fadly: Kotak, broker: FakeBroker, capsys: Capture
) -> None:
    broker.room("#team", "fadly")
    for to in ("shafwa", "#team", "mamang"):
        as_fadly("send", to, "hai", to)
    broker.cursors["shafwa"] = 1
    capsys.readouterr()
    assert as_fadly("history", "--sent") == 0
    assert sorted(without_times(capsys.readouterr().out)) == [
        "1  [TIME] to shafwa, acknowledged: hai shafwa",
        "2  [TIME] to #team, stored: hai #team",
        "3  [TIME] to mamang, stored: hai mamang",
    ]
    assert as_fadly("history", "--sent", "--json") == 0
    fields = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (fields["to"], fields["state"]) == ("shafwa", "acknowledged")


@pytest.mark.parametrize("name", ["#team", "team"])
def test_the_history_of_a_room_is_asked_for_with_or_without_its_mark(
    as_fadly: Kotak, broker: FakeBroker, name: str, capsys: Capture
) -> None:
    broker.room("#team", "fadly", "shafwa")
    broker.put("fadly", "shafwa", "here", room="#team")
    broker.put("fadly", "shafwa", "elsewhere")
    assert as_fadly("history", "--room", name) == 0
    assert without_times(capsys.readouterr().out) == ["1  [TIME] Shafwa (shafwa) in #team: here"]


@pytest.mark.parametrize(
    "words",
    [
        ("history", "--sent", "--room", "team"),
        ("history", "--before", "1", "--after", "2"),
        ("history", "--before", "0"),
        ("history", "--after", "9" * 5_000),
        ("history", "--limit", "1001"),
        ("status", "shafwa", "x"),
        ("room", "create", "a", "b"),
        ("room",),
    ],
)
def test_arguments_that_make_no_sense_exit_with_2(
    as_fadly: Kotak, broker: FakeBroker, words: tuple[str, ...], capsys: Capture
) -> None:
    assert as_fadly(*words) == 2
    assert capsys.readouterr().err.startswith("kotak: ")
    assert broker.calls == ["login"]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("stored", "stored, not delivered yet"),
        ("delivered", "delivered, not acknowledged yet"),
        ("acknowledged", "acknowledged"),
        ("expired", "expired unread"),
        ("of a later version", "of a later version"),
    ],
)
def test_status_says_in_words_where_a_message_stands(
    as_fadly: Kotak,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    state: str,
    words: str,
) -> None:
    as_fadly("send", "shafwa", "hai")
    monkeypatch.setattr("tests.clients.fake_calls.FakeClient._state", lambda *_: state)
    capsys.readouterr()
    assert as_fadly("status", "shafwa", "1") == 0
    assert without_times(capsys.readouterr().out) == [f"message 1 to shafwa, sent TIME: {words}"]
    assert as_fadly("status", "shafwa", "1", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"state": state, "at_ms": 1_700_000_000_000, "id": "id1"}


def test_a_message_in_a_room_is_stored_there_and_no_more_is_told(
    as_fadly: Kotak, broker: FakeBroker, capsys: Capture
) -> None:
    broker.room("#team", "fadly")
    as_fadly("send", "#team", "hai")
    capsys.readouterr()
    assert as_fadly("status", "#team", "1") == 0
    assert without_times(capsys.readouterr().out) == [
        "message 1 to #team, sent TIME: stored in the room"
    ]


def test_a_message_that_was_not_sent_is_the_brokers_refusal(
    as_fadly: Kotak, capsys: Capture
) -> None:
    assert as_fadly("status", "shafwa", "9") == 1
    assert capsys.readouterr().err.endswith("(no_such_message)\n")


# --- presence ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ago_ms", "words"),
    [
        (59_000, "just now"),
        (-MINUTE_MS, "just now"),  # the broker's two clocks may differ a little
        (MINUTE_MS, "1 minute ago"),
        (59 * MINUTE_MS, "59 minutes ago"),
        (119 * MINUTE_MS, "1 hour ago"),
        (47 * 60 * MINUTE_MS, "1 day ago"),
        (72 * 60 * MINUTE_MS, "3 days ago"),
    ],
)
def test_detail_says_who_is_connected_and_when_the_others_were(
    as_fadly: Kotak, broker: FakeBroker, capsys: Capture, ago_ms: int, words: str
) -> None:
    broker.sessions["elsewhere"] = "shafwa"
    broker.seen_ms["shafwa"] = broker.now_ms - ago_ms
    assert as_fadly("who", "--detail") == 0
    assert capsys.readouterr().out.splitlines() == [
        "Fadly (fadly): connected",
        f"Shafwa (shafwa): last seen {words}",
    ]


def test_presence_for_programs_has_the_names_of_the_protocol(
    as_fadly: Kotak, broker: FakeBroker, capsys: Capture
) -> None:
    assert as_fadly("who", "--detail", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "user": "fadly",
        "name": "Fadly",
        "connected": True,
        "seen_ms": broker.now_ms,
    }


# --- rooms -------------------------------------------------------------------------------------


def test_the_life_of_a_room(as_fadly: Kotak, broker: FakeBroker, capsys: Capture) -> None:
    def said(*words: str) -> list[str]:
        assert as_fadly("room", *words) == 0
        out, err = capsys.readouterr()
        return (out + err).splitlines()

    assert said("list") == ["no rooms"]
    assert said("create", "team") == ["room #team made: its members may invite others"]
    assert said("create", "#all", "--open", "--history") == ["room #all made: anybody may join"]
    assert said("invite", "team", "shafwa") == ["shafwa may join #team now"]
    broker.members["#team"].append("shafwa")
    assert said("members", "team") == ["Fadly (fadly)", "Shafwa (shafwa)"]
    broker.room("#plan", "shafwa", invited="fadly")
    assert said("list") == [
        "#team  2 members, by invitation, owner fadly",
        "#all   1 member, open, newcomers read what was said before, owner fadly",
        "#plan  1 member, by invitation, owner shafwa; you are invited",
    ]
    assert said("join", "#plan") == ["joined #plan (2 members)"]
    assert said("leave", "plan") == ["you are not in #plan any more"]
    assert broker.members["#plan"] == ["shafwa"]


def test_whoever_joins_a_room_with_history_is_told_of_it(
    as_fadly: Kotak, broker: FakeBroker, capsys: Capture
) -> None:
    broker.room("#all", "shafwa", open=True, history=True)
    assert as_fadly("room", "join", "all") == 0
    said = capsys.readouterr().out
    assert said == "joined #all (2 members); its history shows what was said before\n"


def test_rooms_for_programs_have_the_names_of_the_protocol(
    as_fadly: Kotak, capsys: Capture
) -> None:
    room = {
        "room": "#team",
        "owner": "fadly",
        "open": True,
        "history": False,
        "members": 1,
        "joined": True,
    }
    assert as_fadly("room", "create", "team", "--open", "--json") == 0
    assert json.loads(capsys.readouterr().out) == room
    assert as_fadly("room", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == room
    assert as_fadly("room", "members", "team", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"user": "fadly", "name": "Fadly"}


def test_a_refusal_of_a_room_bears_its_code(
    as_fadly: Kotak, broker: FakeBroker, capsys: Capture
) -> None:
    broker.room("#theirs", "shafwa")
    for words in (("room", "join", "theirs"), ("room", "leave", "theirs"), ("send", "#no", "x")):
        assert as_fadly(*words) == 1
        assert capsys.readouterr().err.endswith("(no_such_room)\n")


def test_names_of_strangers_cannot_speak_to_the_terminal(
    as_fadly: Kotak, broker: FakeBroker, capsys: Capture
) -> None:
    broker.room("#\x1b[2J", "fadly")
    broker.faults["history"].append(refusal(Code.INTERNAL, "\x1b[2J"))
    assert as_fadly("room", "list") == 0
    assert as_fadly("room", "join", "\x1b[2J") == 1
    assert as_fadly("history") == 1
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("room", "crate"), "there is no command 'kotak room crate'; did you mean create?"),
        (("room", "xyzzy"), "it is list, create, invite, join, leave, members"),
        (("rooms",), "did you mean room?"),
        (("histroy",), "did you mean history?"),
    ],
)
def test_a_misspelt_command_is_answered_with_the_one_that_was_meant(
    kotak: Kotak, words: tuple[str, ...], meant: str, capsys: Capture
) -> None:
    assert kotak(*words) == 2
    assert meant in capsys.readouterr().err


@pytest.mark.parametrize("words", [("send",), ("room",), ("room", "create"), ("history",)])
def test_help_before_a_command_is_the_help_behind_it(
    kotak: Kotak, words: tuple[str, ...], capsys: Capture
) -> None:
    assert kotak(*words, "--help") == 0
    behind = capsys.readouterr().out
    assert behind.startswith(f"usage: kotak {' '.join(words)} ")
    assert kotak("help", *words) == 0
    assert capsys.readouterr().out == behind
