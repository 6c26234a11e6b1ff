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
login USER PASSWORD works too, but shows the password. Another login changes the user: one chat
serves several, one after the other, and ends all their sessions when it ends.""",
    ),
    "chat": Topic(
        "chat USER TEXT...",
        "send a message; USER may be a #room",
        """\
Once it says "message sent", the message is stored, and waits until its reader has taken it. Where
no answer came, the same line typed again settles it: the message is stored once.""",
    ),
    "kotakmasuk": Topic(
        "kotakmasuk",
        "show the waiting messages; they are then gone from the inbox",
        """\
Those of your rooms are among them. At a terminal messages also appear as they arrive; they wait all
the same. What was taken is still to be seen with history.""",
    ),
    "user_on": Topic(
        "user_on [detail]",
        "list the users who are logged in; detail: who is connected",
        "With detail, users who are not connected now are shown with when they last were.",
    ),
    "history": Topic(
        "history [sent | #ROOM]",
        "show what was sent to you, by you, or in a room",
        """\
The newest 20, oldest first, read or unread; nothing is taken. The number before a message is its
sequence: history before 17 shows what was sent before that one, history after 17 what came behind
it. history sent also tells where each message stands.""",
    ),
    "status": Topic(
        "status TO SEQUENCE",
        "say where a message stands that you have sent",
        "history sent shows the sequences. What is said in a room is stored there, and no more.",
    ),
    "room": Topic(
        "room COMMAND",
        "list, create, invite, join, leave, members",
        """\
room list                 your rooms, and those that you are invited to
room create #ROOM         make a room; behind it may stand open (anybody may join) and history
                          (newcomers may read what was said before)
room invite #ROOM USER    let a user join a room that you are in
room join #ROOM           become a member: what is said from now on is yours to read
room leave #ROOM          leave a room; with its last member it goes, and all in it
room members #ROOM        who is in a room that you are in
chat #ROOM TEXT           say something there""",
    ),
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
    return "\n".join(
        [
            *lines,
            f"{', '.join(names)} and {last} are other names of",
            f"{', '.join(meant)} and {meant_last}.",
        ]
    )


def about(name: str) -> str | None:
    """Return what there is to know of one command, None where there is none of that name."""
    topic = TOPICS.get(ALIASES.get(name, name))
    if topic is None:
        return None
    others = [alias for alias, canonical in ALIASES.items() if TOPICS[canonical] is topic]
    does = f"{topic.does[0].upper()}{topic.does[1:]}."
    also = [f"{others[0]} is another name of it."] if others else []
    return "\n".join([topic.usage, does, *([topic.more] if topic.more else []), *also])
