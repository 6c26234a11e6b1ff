"""docs/PROTOCOL.md and the code say the same: the document cannot drift."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker.config import Config
from broker.wire import limits
from broker.wire.commands import ALIASES, PARSERS
from broker.wire.errors import RETRYABLE, Code, WireError

DOCUMENT = (Path(__file__).parents[2] / "docs" / "PROTOCOL.md").read_text("utf-8")


def table(heading: str) -> list[list[str]]:
    """Return the rows of the first table under a heading, without their backticks."""
    section = DOCUMENT.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().replace("`", "") for cell in row.strip("|").split("|")] for row in rows]


COMMANDS = {row[0]: row for row in table("Commands")}


def test_the_table_of_commands_is_the_table_of_parsers() -> None:
    assert list(COMMANDS) == list(PARSERS)


def test_the_aliases_are_the_same() -> None:
    assert {row[1]: name for name, row in COMMANDS.items() if row[1]} == dict(ALIASES)


@pytest.mark.parametrize("command", list(PARSERS))
def test_a_command_takes_the_fields_of_the_table(command: str) -> None:
    documented = re.findall(r"[a-z_]+(?=\??(?:,| or|$))", COMMANDS[command][3])
    with pytest.raises(WireError) as caught:
        PARSERS[command]({"?": 0, "to": "x", "text": "x", "id": "x"})
    # `chat` reads its three fields before it looks for others.
    taken = caught.value.message.partition("this command takes: ")[2].split(", ")
    assert taken == (documented or ["none"])


def test_every_command_has_its_paragraph() -> None:
    described = set(re.findall(r"\*\*([a-z_]+)\*\*", DOCUMENT))
    assert set(PARSERS) <= described


def test_the_table_of_errors_is_the_list_of_codes() -> None:
    assert [row[0] for row in table("Errors")] == [code.value for code in Code]


def test_the_codes_to_repeat_are_those_that_say_yes() -> None:
    repeated = {row[0] for row in table("Errors") if row[2].startswith("yes")}
    assert repeated == {code.value for code in RETRYABLE}


def test_the_table_of_limits_is_what_hello_tells() -> None:
    numbers = {row[0]: int(re.sub(r"\D", "", row[1])) for row in table("Limits")}
    told = {name: numbers.pop(name) for name in limits.as_hello()}
    assert told == limits.as_hello()
    assert numbers == {
        "reply frame": limits.REPLY_BYTES_MAX,
        "unread messages a mailbox, messages kept of a room": Config().mailbox_messages_max,
        "... and their text": Config().mailbox_bytes_max,
        "line on the text door": limits.LINE_BYTES_MAX,
        "subscriptions a user": limits.SUBSCRIPTIONS_PER_USER_MAX,
        "devices a user": limits.DEVICES_PER_USER_MAX,
        "keys a user": limits.KEYS_PER_USER_MAX,
        "rooms a user": limits.ROOMS_PER_USER_MAX,
        "invitations a user": limits.INVITATIONS_PER_USER_MAX,
        "blocked senders a user": limits.BLOCKS_PER_USER_MAX,
        "silence of a subscriber": limits.SUBSCRIBER_SILENCE_MS,
    }


#: As one line: a sentence may be wrapped anywhere.
SENTENCES = " ".join(DOCUMENT.split())


def number(pattern: str) -> int:
    found = re.search(pattern, SENTENCES)
    assert found is not None, pattern
    return int(found.group(1).replace(" ", ""))


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (r"protocol, version (\d+)", limits.PROTOCOL_VERSION),
        (r"up to (\d+) request frames", limits.FRAMES_PER_MESSAGE_MAX),
        (r"of more than (\d+) frames is answered", limits.FRAMES_PER_MESSAGE_MAX),
        (r"frame over ([\d ]+) bytes", limits.FRAME_BYTES_MAX),
        (r"as are arrays\s+of more than (\d+) items", limits.ARRAY_ITEMS_MAX),
        (r"a single frame with an array of up to (\d+) requests", limits.ARRAY_ITEMS_MAX),
        (r"request, \.\.\.\]\s+1 to (\d+)", limits.FRAMES_PER_MESSAGE_MAX),
        (r"maps of more than (\d+), and", limits.MAP_PAIRS_MAX),
        (r"name the client \(1-(\d+) characters", limits.CLIENT_CHARS_MAX),
        (r"`text`: 1 to ([\d ]+) bytes", limits.TEXT_BYTES_MAX),
        (r"`id`: 1 to (\d+) characters", limits.MESSAGE_ID_CHARS_MAX),
        (r"At most `limit` of them \(1-(\d+)", limits.INBOX_MESSAGES_MAX),
        (r"\(1-1000, (\d+) by default\)", limits.INBOX_MESSAGES_DEFAULT),
        (r"`device` \(1-(\d+) of", limits.DEVICE_CHARS_MAX),
        (r"`ttl_ms` \((\d+) to", limits.TTL_MS_MIN),
        (r"`ttl_ms` \(\d+ to ([\d ]+)\)", limits.TTL_MS_MAX),
        (r"`window` \(1-(\d+)", limits.WINDOW_MAX),
        (r"`window` \(1-\d+, (\d+) by default", limits.WINDOW_DEFAULT),
        (r"An event holds about (\d+) KiB", limits.EVENT_BYTES_MAX // 1024),
        (r"sends nothing for (\d+) seconds loses it", limits.SUBSCRIBER_SILENCE_MS // 1000),
        (r"`busy` \((\d+) subscriptions", limits.SUBSCRIPTIONS_PER_USER_MAX),
        (r"`limit` \(1-(\d+), \d+ by default\) and about 1 MiB", limits.INBOX_MESSAGES_MAX),
        (r"`limit` \(1-\d+, (\d+) by default\) and", limits.INBOX_MESSAGES_DEFAULT),
        (r"`user`, `name`. At most (\d+)", limits.USERS_PAGE_MAX),
        (r"in order of `user`; at most (\d+)", limits.USERS_PAGE_MAX),
        (r"`room` is `#` and 1-(\d+) of", limits.USER_CHARS_MAX - len(limits.ROOM_MARK)),
        (r"`too_many` \((\d+) rooms a user", limits.ROOMS_PER_USER_MAX),
        (r"A user has (\d+) devices at most", limits.DEVICES_PER_USER_MAX),
        (r"`user`: 1-(\d+) of", limits.USER_CHARS_MAX),
        (r"`password`: (\d+) characters", limits.PASSWORD_CHARS_MIN),
        (r"`password`: \d+ characters to (\d+) bytes", limits.PASSWORD_BYTES_MAX),
        (r"display name: 1-(\d+) bytes", limits.NAME_BYTES_MAX),
        (r"a line over ([\d ]+) bytes", limits.LINE_BYTES_MAX),
        (r"A reply holds (\d+) messages", limits.LINE_INBOX_MESSAGES_MAX),
    ],
)
def test_a_number_in_the_text_is_the_limit(pattern: str, value: int) -> None:
    assert number(pattern) == value


def test_the_longest_request_fits_into_a_frame_and_the_largest_page_into_a_reply() -> None:
    text, name = limits.TEXT_BYTES_MAX, 4 * limits.USER_CHARS_MAX
    message_id = 4 * limits.MESSAGE_ID_CHARS_MAX
    assert text + name + message_id + limits.TOKEN_CHARS_MAX + 100 <= limits.FRAME_BYTES_MAX
    each = name + limits.NAME_BYTES_MAX + message_id + 100
    page = limits.INBOX_BYTES_MAX + limits.INBOX_MESSAGES_MAX * each
    assert page <= limits.REPLY_BYTES_MAX
