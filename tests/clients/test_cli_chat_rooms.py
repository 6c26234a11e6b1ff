"""The chat's commands beyond those of 2020: rooms, history, status, presence, help."""

from __future__ import annotations

import re

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from broker.wire.commands import ALIASES
from clients.chat import LEAVE_MS, UNKNOWN_COMMAND, UNKNOWN_OUTCOME, Chat
from clients.errors import ConnectionFailed, RequestTimeout
from clients.prompt import ChatCompleter
from clients.results import Message
from tests.clients.fake_calls import FakeBroker, FakeClient

ADDRESS = "tcp://127.0.0.1:8890"


class Table:
    """A chat of fadly, who is logged in, and the broker behind it."""

    def __init__(self) -> None:
        self.broker = FakeBroker()
        self.client: FakeClient = self.broker.connect(ADDRESS, token=None, timeout_ms=1_000)
        self.said: list[str] = []
        self.chat = Chat(self.client, ADDRESS, say=self.said.append)
        self.type("login fadly prp")

    def type(self, *lines: str) -> list[str]:
        """Type lines; return what was said to them, without times."""
        before = len(self.said)
        for line in lines:
            assert self.chat.handle(line)
        said = self.said[before:]
        return [re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "TIME", line) for line in said]

    def completed(self, text: str) -> list[str]:
        found = ChatCompleter(self.chat).get_completions(Document(text), CompleteEvent())
        return [completion.text for completion in found]


@pytest.fixture
def table() -> Table:
    return Table()


# --- rooms -------------------------------------------------------------------------------------


def test_a_room_from_its_making_to_its_leaving(table: Table) -> None:
    assert table.type("room list") == ["no rooms"]
    assert table.type("room create #team history open") == ["room #team made: anybody may join"]
    assert table.type("room create plan") == ["room #plan made: its members may invite others"]
    assert table.type("room invite #team shafwa") == ["shafwa may join #team now"]
    assert table.type("chat #team hai  semua") == ["message sent to #team"]
    assert table.type("kotakmasuk") == ["[TIME] Fadly (fadly) in #team: hai  semua"]
    assert table.type("history #team") == ["1  [TIME] Fadly (fadly) in #team: hai  semua"]
    assert table.type("room members #team") == ["members of #team: fadly"]
    assert table.type("room leave #plan") == ["you are not in #plan any more"]
    assert table.type("room list")[0] == (
        "#team  1 member, open, newcomers read what was said before, owner fadly"
    )
    table.broker.room("#all", "shafwa", open=True)
    assert table.type("room join #all") == ["joined #all (2 members)"]
    assert not table.chat.failed


@pytest.mark.parametrize("name", ["'#team'", '"#team"', "#team"])
def test_the_quotes_of_a_shell_do_no_harm(table: Table, name: str) -> None:
    assert table.type(f"room create {name}")[0].startswith("room #team made")
    assert table.type(f"chat {name} '#hai'") == ["message sent to #team"]
    assert table.type(f"history {name}") == ["1  [TIME] Fadly (fadly) in #team: '#hai'"]


def test_what_was_typed_here_is_not_shown_again_when_its_room_pushes_it(table: Table) -> None:
    table.broker.room("#team", "fadly")
    table.type("chat #team typed here")
    (sent_id,) = table.broker.sent_ids
    here = Message(1, 0, "fadly", "Fadly", sent_id, "typed here", "#team")
    said = len(table.said)
    for message in (
        here,
        here._replace(id="of another session", text="typed on the phone"),
        here._replace(sender="shafwa", text="with the same id"),
        here._replace(room=None, text="to myself alone"),
    ):
        table.chat.arrived(message, reader="Fadly")
    assert [line.rpartition(": ")[2] for line in table.said[said:]] == [
        "typed on the phone",
        "with the same id",
        "to myself alone",
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("room", "room takes list, create, invite, join, leave or members"),
        ("room crate #a", "or members; did you mean create?"),
        ("room create", "room create takes a #room, then open or history or both"),
        ("room create #a closed", "a new room may be open, history or both"),
        ("room create #a open history x", "room create takes"),
        ("room invite #a", "room invite takes a #room and a user"),
        ("room join #", "'#' is no room: a room is called as #team"),
        ("room leave #theirs", "there is no such room, or it is closed to you"),
        ("history nonsense", "history takes sent or a #room, then before or after"),
        ("history before", "history takes"),
        ("history before x", "'x' is no sequence"),
        ("history after 0", "'0' is no sequence"),
        ("block nobody", "there is no user of that name"),
        ("block shafwa afif", "block takes one user"),
        ("unblock shafwa afif", "unblock takes one user"),
        ("status shafwa", "status takes whom the message was sent to, and its sequence"),
        ("status shafwa 9", "you sent no such message, or it is no longer kept"),
    ],
)
def test_a_line_that_is_not_understood_says_what_would_be(
    table: Table, line: str, words: str
) -> None:
    (said,) = table.type(line)
    assert said.startswith("Error, ")
    assert words in said
    assert table.chat.failed


# --- blocks ------------------------------------------------------------------------------------


def test_who_is_blocked_is_refused_in_words_until_it_is_unblocked(table: Table) -> None:
    table.broker.put("fadly", "shafwa", "waits")
    assert table.type("blocks") == ["nobody is blocked"]
    assert table.type("block shafwa", "block mamang") == [
        "shafwa's messages are refused from now on; those that wait stay",
        "mamang's messages are refused from now on; those that wait stay",
    ]
    assert table.type("blocks") == ["blocked: mamang, shafwa"]
    assert table.type("kotakmasuk") == ["[TIME] Shafwa (shafwa) to Fadly: waits"]
    table.type("login shafwa mks")
    assert table.type("chat fadly hai") == [
        "Error, that user takes no messages from you: nothing was stored"
    ]
    table.type("login fadly prp")
    assert table.type("unblock shafwa") == ["shafwa's messages are taken"]
    table.type("login shafwa mks")
    assert table.type("chat fadly hai") == ["message sent to fadly"]
    assert table.broker.waiting("fadly") == ["hai"]


def test_an_observer_who_writes_is_told_that_it_may_not(table: Table) -> None:
    table.broker.observers.add("fadly")
    assert table.type("chat shafwa hai") == ["Error, an observer may read, and write to nobody"]


def test_names_that_are_blocked_are_completed(table: Table) -> None:
    table.broker.blocked["fadly"] |= {"shafwa", "mamang"}
    assert table.completed("bl") == ["block ", "blocks "]
    assert table.completed("unblock s") == []
    table.type("blocks")
    assert table.completed("unblock ") == ["fadly ", "mamang ", "shafwa "]
    table.broker.accounts["afif"] = ("plp", "Afif")
    table.type("block afif", "block nobody")
    assert table.completed("block a") == ["afif "]
    assert table.completed("block n") == []


# --- what was said -----------------------------------------------------------------------------


def test_history_is_paged_by_the_line_that_it_offers(table: Table) -> None:
    for number in range(1, 43):
        table.broker.put("fadly", "shafwa", f"text {number}")
    *page, hint = table.type("history")
    assert page[0] == "23  [TIME] Shafwa (shafwa) to fadly: text 23"
    assert page[-1] == "42  [TIME] Shafwa (shafwa) to fadly: text 42"
    assert hint == "there are older ones: history before 23"
    *page, hint = table.type("history before 23")
    assert (len(page), page[0][:2], hint) == (20, " 3", "there are older ones: history before 3")
    assert len(table.type("history before 3")) == 2
    assert table.type("history after 1")[-1] == "there are newer ones: history after 21"
    assert table.broker.cursors["fadly"] == 0


def test_what_was_sent_tells_where_it_stands(table: Table) -> None:
    assert table.type("history sent") == ["no messages"]
    table.type("chat shafwa hai", "chat mamang hai")
    table.broker.cursors["shafwa"] = 1
    assert table.type("history sent") == [
        "1  [TIME] to shafwa, acknowledged: hai",
        "2  [TIME] to mamang, stored: hai",
    ]
    assert table.type("status shafwa 1") == ["message 1 to shafwa, sent TIME: acknowledged"]


def test_lost_history_is_told_before_what_is_left(table: Table) -> None:
    table.broker.lost = (3, 17)
    table.broker.put("fadly", "shafwa", "hai")
    lost, message = table.type("kotakmasuk")
    assert lost.startswith("history was lost: messages from sequence 3 to 17 may be gone")
    assert message.endswith(": hai")


def test_presence_in_detail_is_a_line_a_user(table: Table) -> None:
    table.broker.sessions["elsewhere"] = "shafwa"
    table.broker.seen_ms["shafwa"] = table.broker.now_ms - 3_600_000
    assert table.type("user_on detail") == [
        "Fadly (fadly): connected",
        "Shafwa (shafwa): last seen 1 hour ago",
    ]


# --- an outcome that is not known --------------------------------------------------------------


def test_an_interrupted_message_says_that_it_may_have_been_sent_and_how_to_settle_it(
    table: Table,
) -> None:
    table.broker.faults["send"].append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        table.chat.handle("chat shafwa hai")
    table.chat.interrupted()
    assert table.said[-1] == f"Error, interrupted; {UNKNOWN_OUTCOME}"
    assert table.type("chat shafwa hai") == ["message sent to shafwa"]
    first, again = table.broker.sent_ids
    assert first == again


@pytest.mark.parametrize("line", ["kotakmasuk", "user_on", "history", "room list"])
def test_other_lines_that_are_interrupted_leave_no_doubt(table: Table, line: str) -> None:
    table.broker.faults["send"].append(RequestTimeout("no answer"))
    table.type("chat shafwa hai")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeClient, "_user", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            table.chat.handle(line)
    table.chat.interrupted()
    assert table.said[-1] == "Error, interrupted"


def _interrupt(_: object) -> str:
    raise KeyboardInterrupt


def test_a_message_that_was_certainly_not_sent_leaves_no_doubt(table: Table) -> None:
    table.broker.faults["send"].append(ConnectionFailed("there is no broker"))
    assert table.type("chat shafwa hai") == ["Error, there is no broker"]


def test_leaving_waits_a_moment_and_says_where_the_sessions_stay(table: Table) -> None:
    table.broker.faults["logout"].append(RequestTimeout("no answer"))
    table.chat.end_sessions(lambda token: table.broker.connect(ADDRESS, token=token, timeout_ms=1))
    assert table.said[-1] == "the broker does not answer: the sessions of this chat were not ended"
    table.chat.end_sessions(lambda token: table.broker.connect(ADDRESS, token=token, timeout_ms=1))
    assert table.broker.timeouts_ms == [LEAVE_MS]


# --- help and completion -----------------------------------------------------------------------


@pytest.mark.parametrize("name", [*Chat.COMMANDS, *ALIASES, "quit"])
def test_help_tells_more_of_every_command(table: Table, name: str) -> None:
    (text,) = table.type(f"help {name}")
    assert text.startswith(ALIASES.get(name, name))
    (overview,) = table.type("help")
    usage, does = text.splitlines()[0].split(": ", 1)
    assert re.search(rf"^{re.escape(usage)} +{re.escape(does)}$", overview, re.MULTILINE)
    assert all(len(line) <= 80 for line in [*text.splitlines(), *overview.splitlines()])


def test_help_of_another_name_says_whose_it_is(table: Table) -> None:
    (text,) = table.type("help send")
    assert text.splitlines()[-1] == "send is another name of it."


def test_help_of_what_is_no_command_is_a_wrong_command(table: Table) -> None:
    assert table.type("help nonsense") == [UNKNOWN_COMMAND]


def test_what_belongs_behind_a_command_is_completed(table: Table) -> None:
    table.broker.room("#team", "fadly")
    table.broker.put("fadly", "shafwa", "hai", room="#plan")
    table.type("chat shafwa hai", "room members #team", "kotakmasuk")
    assert table.completed("hi") == ["history "]
    assert table.completed("chat #") == ["#plan ", "#team "]
    assert table.completed("send s") == ["shafwa "]
    assert table.completed("history ") == ["after ", "before ", "sent ", "#plan ", "#team "]
    assert table.completed("history #team b") == ["before "]
    assert table.completed("room in") == ["invite "]
    assert table.completed("room invite #t") == ["#team "]
    assert table.completed("room invite #team s") == ["shafwa "]
    assert table.completed("room create #new o") == ["open "]
    assert table.completed("help st") == ["status "]
    assert table.completed("who d") == ["detail "]
    assert table.completed("chat shafwa s") == []
    assert table.completed("login #") == []
