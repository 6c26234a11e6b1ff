"""Every limit of the protocol: its name carries the unit, the comment gives the reason.

``hello`` returns the ones that a client needs (see `as_hello`). Source: docs/PROTOCOL.md, "Limits".
"""

from __future__ import annotations

from typing import Final

#: The one protocol version spoken; `hello` refuses any other.
PROTOCOL_VERSION: Final = 1

# --- ZeroMQ frames ---------------------------------------------------------------------------
#: A request frame. Holds the longest text and its envelope; libzmq cuts the peer above it.
FRAME_BYTES_MAX: Final = 131_072
#: Requests in one ZeroMQ message, in a frame each or all in one: enough to fill a disk commit,
#: small enough to bound a bomb.
FRAMES_PER_MESSAGE_MAX: Final = 256
#: A reply frame; clients set it as their own MAXMSGSIZE. Holds the largest inbox page.
REPLY_BYTES_MAX: Final = 4_194_304
#: Elements of one msgpack array: the requests of a frame (an envelope has four).
ARRAY_ITEMS_MAX: Final = FRAMES_PER_MESSAGE_MAX
#: Pairs of one msgpack map: no command takes more than eight arguments.
MAP_PAIRS_MAX: Final = 16
#: Request ids are msgpack unsigned integers.
REQUEST_ID_MAX: Final = 2**64 - 1

# --- Fields ----------------------------------------------------------------------------------
#: The text of one message, as UTF-8: a long letter, far from a file.
TEXT_BYTES_MAX: Final = 65_536
#: A client-made message id: a ULID has 26 characters, a UUID 36.
MESSAGE_ID_CHARS_MAX: Final = 64
#: A user name: it stands in tables, file names of exports and prompts.
USER_CHARS_MAX: Final = 64
#: A display name, as UTF-8.
NAME_BYTES_MAX: Final = 128
#: A password that a user chooses (NIST 800-63B); an administrator may set a shorter one.
PASSWORD_CHARS_MIN: Final = 8
#: A password is refused above this before it is hashed: hashing cost must not depend on a peer.
PASSWORD_BYTES_MAX: Final = 1_024
#: A stored password hash (argon2's encoded form), accepted from administrators only.
PASSWORD_HASH_CHARS_MAX: Final = 256
#: A token: 256 random bits as 43 URL-safe characters, behind a prefix of three.
TOKEN_CHARS_MAX: Final = 64
#: What a client says of itself in `hello`; it appears in logs, hence short.
CLIENT_CHARS_MAX: Final = 64
#: A device's name: it stands in the user's own lists.
DEVICE_CHARS_MAX: Final = 32
#: A message may expire after a second at the earliest (clocks) and ten years at the latest.
TTL_MS_MIN: Final = 1_000
TTL_MS_MAX: Final = 315_360_000_000
#: What a session is called in lists: 64 bits of the digest of its token, in hexadecimal.
SESSION_ID_CHARS: Final = 16
#: A backup's name: it becomes a file's.
BACKUP_NAME_CHARS_MAX: Final = 64
#: Sequence numbers fit SQLite's and every language's signed 64-bit integer.
SEQ_MAX: Final = 2**63 - 1

# --- Pages -----------------------------------------------------------------------------------
#: Messages in one `kotakmasuk` reply when the client does not say.
INBOX_MESSAGES_DEFAULT: Final = 100
#: ... and the most it may ask for.
INBOX_MESSAGES_MAX: Final = 1_000
#: Text in one `kotakmasuk` reply; one message always fits.
INBOX_BYTES_MAX: Final = 1_048_576
#: Names in one page of `user_on` and `user_list`.
USERS_PAGE_MAX: Final = 1_000

# --- Readers and rooms -----------------------------------------------------------------------
#: Devices of one user, each with a cursor: a person's, with room.
DEVICES_PER_USER_MAX: Final = 16
#: Rooms of one user: each is looked at when the user reads.
ROOMS_PER_USER_MAX: Final = 100
#: Invitations of one user that wait for an answer.
INVITATIONS_PER_USER_MAX: Final = 100
#: Keys that log one user in: a person's machines, with room.
KEYS_PER_USER_MAX: Final = 100
#: Senders that one user has blocked: more than a person can be bothered by, and bounded.
BLOCKS_PER_USER_MAX: Final = 1_000
#: The first character of a room's name, and of no user's.
ROOM_MARK: Final = "#"
#: Who the broker's own notices are from: no user can have that name.
NOTICE_SENDER: Final = "!kotak"

# --- Push ------------------------------------------------------------------------------------
#: Pushed and not yet acknowledged messages of a subscription when the client does not say.
WINDOW_DEFAULT: Final = 100
#: ... and the most it may ask for: far below what libzmq queues for a peer.
WINDOW_MAX: Final = 1_000
#: Text in one event; one message always fits.
EVENT_BYTES_MAX: Final = 262_144
#: Subscriptions of one user: the devices of a person, with room.
SUBSCRIPTIONS_PER_USER_MAX: Final = 100
#: A subscriber that sends nothing for so long is gone; its client pings three times as often.
SUBSCRIBER_SILENCE_MS: Final = 60_000

# --- The text door ---------------------------------------------------------------------------
#: One line: the longest text, a token, a name and the command word.
LINE_BYTES_MAX: Final = 66_560
#: Messages in one text reply: its client keeps the whole JSON object in memory and re-scans it.
LINE_INBOX_MESSAGES_MAX: Final = 1_000


def as_hello() -> dict[str, int]:
    """Return the limits that `hello` tells a client, by their names in PROTOCOL.md."""
    return {
        "frame_bytes_max": FRAME_BYTES_MAX,
        "frames_per_message_max": FRAMES_PER_MESSAGE_MAX,
        "text_bytes_max": TEXT_BYTES_MAX,
        "message_id_chars_max": MESSAGE_ID_CHARS_MAX,
        "inbox_messages_max": INBOX_MESSAGES_MAX,
        "inbox_bytes_max": INBOX_BYTES_MAX,
        "users_page_max": USERS_PAGE_MAX,
        "window_max": WINDOW_MAX,
    }
