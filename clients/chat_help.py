"""What ``help`` says in the chat: every command in a line or two, and each one at length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from broker.wire.commands import ALIASES


class Topic(NamedTuple):
    """A command: how it is typed, what it does in a line, and what else there is to know."""

    usage: str
    does: str
    more: str


#: By canonical name, in the order of the overview.
TOPICS: Final[Mapping[str, Topic]] = {
    "login": Topic(
        "login USER",
        "log in; the password is asked for, hidden",
        """\
login USER PASSWORD works too, but shows the password. Another login changes
the user: one chat serves several, one after the other, and ends the sessions
of all of them when it ends.""",
    ),
    "chat": Topic(
        "chat USER TEXT...",
        "send a message; USER may be a #room",
        """\
Once it says "message sent", the message is stored, and waits until its reader
has taken it. Where no answer came, type the same line next: it is then sent,
and just once.""",
    ),
    "kotakmasuk": Topic(
        "kotakmasuk",
        "show the waiting messages, and take them from the inbox",
        """\
Those of your rooms are among them. At a terminal messages also appear as they
arrive, and wait all the same. What was taken can still be seen with history,
for as long as the broker keeps it.""",
    ),
    "user_on": Topic(
        "user_on [detail]",
        "list who is logged in; detail: who is connected",
        "With detail, the others are shown with how long ago they were.",
    ),
    "history": Topic(
        "history [sent | #ROOM]",
        "show what was sent to you, by you, or in a room",
        """\
The newest 20, oldest first, read or unread; nothing is taken. The number
before a message is its sequence. To see others, add it: history before 17,
history sent after 17. Of what you have sent, each line says where it stands.""",
    ),
    "status": Topic(
        "status TO SEQUENCE",
        "say where a message stands that you have sent",
        """\
history sent shows the sequences. Of what was said in a room it is told that
it is stored there, and not who has read it.""",
    ),
    "room": Topic(
        "room COMMAND",
        "rooms: list, create, invite, join, leave, members",
        """\
room list                 your rooms, and those that you are invited to
room create #ROOM         make a room, which its members let others into; add
                          open to let anybody in, history to let newcomers
                          read what was said before
room invite #ROOM USER    let a user join a room that you are in
room join #ROOM           become a member: what is said from now on you read
room leave #ROOM          leave; with its last member a room goes, and all in it
room members #ROOM        who is in a room that you are in
chat #ROOM TEXT...        say something there""",
    ),
    "block": Topic(
        "block USER",
        "take no messages from a user, nor invitations",
        """\
What that user sends is refused from now on, and the sender is told so. What
waits stays, and rooms that both of you are in are as before.""",
    ),
    "unblock": Topic(
        "unblock USER", "take messages from a user again", "blocks lists whom you block."
    ),
    "blocks": Topic("blocks", "list the users from whom you take no messages", ""),
    "logout": Topic("logout", "end the session", "The other sessions of this chat live on."),
    "help": Topic("help [COMMAND]", "this page, or more about one command", ""),
    "quit": Topic(
        "quit, Ctrl-D", "end every session of this chat and leave", "exit is the same command."
    ),
}
_WIDTH: Final = max(len(topic.usage) for topic in TOPICS.values())


def overview() -> str:
    """Return one line a command, and the commands' other names."""
    lines = [f"{topic.usage:<{_WIDTH}}  {topic.does}" for topic in TOPICS.values()]
    *names, last = ALIASES
    *meant, meant_last = ALIASES.values()
    others = f"{', '.join(names)} and {last} stand for {', '.join(meant)} and {meant_last}."
    return "\n".join([*lines, others])


def about(name: str) -> str | None:
    """Return what there is to know of one command, None where there is none of that name."""
    topic = TOPICS.get(ALIASES.get(name, name))
    if topic is None:
        return None
    other = [alias for alias, canonical in ALIASES.items() if TOPICS[canonical] is topic]
    also = [f"{each} is another name of it." for each in other]
    more = [topic.more] if topic.more else []
    return "\n".join([f"{topic.usage}: {topic.does}", *more, *also])
