"""The arguments of each command: their bounds, just inside and just outside.

Source: docs/PROTOCOL.md, "Commands" and "Limits".
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.wire import commands, limits
from broker.wire.commands import PARSERS
from broker.wire.errors import Code, WireError

#: A public key. The parser asks for its form only.
KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
#: Good arguments of each command, all optional ones given.
GOOD: dict[str, dict[str, Any]] = {
    "hello": {"version": 1, "client": "test"},
    "ping": {},
    "login": {"user": "ann", "password": "p", "device": "phone"},
    "logout": {},
    "chat": {"to": "ann", "text": "hi", "id": "m1", "ttl_ms": 60_000},
    "kotakmasuk": {"limit": 5, "after": 7, "epoch": 3},
    "ack": {"seq": 7},
    "subscribe": {"window": 5, "after": 7, "epoch": 3},
    "unsubscribe": {},
    "history": {"of": "#lunch", "before": 7, "limit": 5},
    "status": {"to": "ann", "seq": 7},
    "user_on": {"after": "ann", "detail": True},
    "block": {"user": "ann"},
    "unblock": {"user": "ann"},
    "blocks": {},
    "rooms": {},
    "room_create": {"room": "#lunch", "open": True, "history": True},
    "room_invite": {"room": "#lunch", "user": "ann"},
    "room_join": {"room": "#lunch"},
    "room_leave": {"room": "#lunch"},
    "room_members": {"room": "#lunch", "after": "ann"},
    "register": {"user": "ann", "password": "p", "name": "Ann"},
    "passwd": {"password": "p", "new_password": "q"},
    "user_add": {"user": "ann", "password": "p", "name": "Ann"},
    "user_list": {"after": "ann"},
    "user_passwd": {"user": "ann", "password": "p"},
    "user_role": {"user": "ann", "role": "observer"},
    "user_remove": {"user": "ann"},
    "key_add": {"user": "ann", "key": KEY},
    "key_list": {"user": "ann"},
    "key_remove": {"user": "ann", "key": KEY},
    "session_list": {"user": "ann"},
    "session_revoke": {"user": "ann", "session": "0123456789abcdef"},
    "session_revoke_all": {"user": "ann"},
    "mailbox_list": {"after": "ann"},
    "mailbox_depth": {"user": "ann"},
    "broker_status": {},
    "broker_drain": {"on": True},
    "broker_reload": {},
    "broker_backup": {"name": "before-the-move"},
}
OPTIONAL = {
    ("hello", "client"), ("login", "password"), ("login", "device"), ("chat", "ttl_ms"),
    ("kotakmasuk", "limit"),
    ("kotakmasuk", "after"), ("kotakmasuk", "epoch"), ("subscribe", "window"),
    ("subscribe", "after"), ("subscribe", "epoch"), ("history", "of"), ("history", "before"),
    ("history", "limit"), ("user_on", "after"), ("user_on", "detail"), ("room_create", "open"),
    ("room_create", "history"), ("room_members", "after"), ("user_list", "after"),
    ("register", "name"), ("user_add", "name"), ("mailbox_list", "after"),
    ("broker_backup", "name"),
}  # fmt: skip
FIELDS = [(command, field) for command, args in GOOD.items() for field in args]


def refusal(command: str, **args: Any) -> WireError:
    with pytest.raises(WireError) as caught:
        PARSERS[command](args)
    return caught.value


def changed(command: str, field: str, value: object) -> dict[str, Any]:
    return GOOD[command] | {field: value}


@pytest.mark.parametrize("command", list(PARSERS))
def test_good_arguments_come_back_as_they_were_sent(command: str) -> None:
    parsed = PARSERS[command](dict(GOOD[command]))
    assert set(GOOD[command].values()) <= set(parsed)


@pytest.mark.parametrize("session", ["0123456789abcde", "0123456789ABCDEF", "0123456789abcdeg", ""])
def test_a_sessions_number_is_what_the_list_of_them_shows(session: str) -> None:
    error = refusal("session_revoke", user="ann", session=session)
    assert error.code is Code.BAD_REQUEST
    assert "'session'" in error.message


@pytest.mark.parametrize("command", list(PARSERS))
def test_an_unknown_field_is_refused_by_its_name(command: str) -> None:
    error = refusal(command, **GOOD[command], colour="red")
    assert error.code is Code.BAD_REQUEST
    assert "'colour'" in error.message


def test_the_name_of_an_unknown_field_is_not_repeated_at_length() -> None:
    assert len(refusal("ping", **{"x" * 10_000: 1}).message) < 200


@pytest.mark.parametrize(("command", "field"), FIELDS)
def test_a_missing_field_is_named_unless_it_is_optional(command: str, field: str) -> None:
    args = {key: value for key, value in GOOD[command].items() if key != field}
    if (command, field) in OPTIONAL:
        PARSERS[command](args)
    else:
        error = refusal(command, **args)
        assert error.code is Code.BAD_REQUEST
        assert f"'{field}'" in error.message


#: Those that mean something of their own when they are absent, rather than a default.
NIL = [
    ("hello", "client"), ("login", "device"), ("login", "password"), ("chat", "ttl_ms"),
    ("kotakmasuk", "after"), ("kotakmasuk", "epoch"), ("subscribe", "after"),
    ("subscribe", "epoch"), ("history", "before"),
    ("user_on", "after"), ("room_members", "after"), ("user_list", "after"), ("register", "name"),
    ("mailbox_list", "after"), ("broker_backup", "name"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "field"), NIL)
def test_nil_is_the_same_as_absent(command: str, field: str) -> None:
    absent = {key: value for key, value in GOOD[command].items() if key != field}
    assert PARSERS[command](changed(command, field, None)) == PARSERS[command](absent)


@pytest.mark.parametrize("value", [b"x", True, 1.5, float("nan"), [], {}, ("x",)], ids=repr)
@pytest.mark.parametrize(("command", "field"), FIELDS)
def test_an_ill_typed_field_is_named(command: str, field: str, value: object) -> None:
    if value is True and GOOD[command][field] is True:
        value = 1  # nor is a number a boolean
    error = refusal(command, **changed(command, field, value))
    assert error.code is Code.BAD_REQUEST
    assert f"'{field}'" in error.message


STRINGS = [(command, field) for command, field in FIELDS if type(GOOD[command][field]) is str]


@pytest.mark.parametrize(("command", "field"), STRINGS)
def test_an_empty_string_and_a_number_are_refused(command: str, field: str) -> None:
    for value in ("", 7):
        error = refusal(command, **changed(command, field, value))
        assert error.code is Code.BAD_REQUEST
        assert f"'{field}'" in error.message


#: Field, how many, counted in characters rather than bytes?
SIZES = [
    ("hello", "client", limits.CLIENT_CHARS_MAX, True),
    ("login", "user", limits.USER_CHARS_MAX, True),
    ("login", "password", limits.PASSWORD_BYTES_MAX, False),
    ("chat", "to", limits.USER_CHARS_MAX, True),
    ("chat", "text", limits.TEXT_BYTES_MAX, False),
    ("chat", "id", limits.MESSAGE_ID_CHARS_MAX, True),
    ("status", "to", limits.USER_CHARS_MAX, True),
    ("user_on", "after", limits.USER_CHARS_MAX, True),
    ("room_invite", "room", limits.USER_CHARS_MAX, True),
    ("room_invite", "user", limits.USER_CHARS_MAX, True),
    ("room_join", "room", limits.USER_CHARS_MAX, True),
    ("room_leave", "room", limits.USER_CHARS_MAX, True),
    ("room_members", "room", limits.USER_CHARS_MAX, True),
    ("room_members", "after", limits.USER_CHARS_MAX, True),
    ("register", "password", limits.PASSWORD_BYTES_MAX, False),
    ("register", "name", limits.NAME_BYTES_MAX, False),
    ("passwd", "password", limits.PASSWORD_BYTES_MAX, False),
    ("passwd", "new_password", limits.PASSWORD_BYTES_MAX, False),
    ("user_add", "password", limits.PASSWORD_BYTES_MAX, False),
    ("user_add", "name", limits.NAME_BYTES_MAX, False),
    ("user_list", "after", limits.USER_CHARS_MAX, True),
    ("user_passwd", "user", limits.USER_CHARS_MAX, True),
    ("user_passwd", "password", limits.PASSWORD_BYTES_MAX, False),
    ("user_remove", "user", limits.USER_CHARS_MAX, True),
    ("key_list", "user", limits.USER_CHARS_MAX, True),
    ("key_add", "user", limits.USER_CHARS_MAX, True),
    ("key_remove", "user", limits.USER_CHARS_MAX, True),
]


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\u20ac", "\U0001f4ec"])
@pytest.mark.parametrize(("command", "field", "size", "chars"), SIZES)
def test_a_string_may_be_as_long_as_its_limit_and_no_longer(
    command: str, field: str, size: int, *, chars: bool, letter: str
) -> None:
    each = 1 if chars else len(letter.encode())
    longest = letter * (size // each) + "x" * (size % each)
    PARSERS[command](changed(command, field, longest))
    error = refusal(command, **changed(command, field, longest + "x"))
    assert error.code is Code.TOO_LARGE
    assert f"'{field}'" in error.message


def test_the_limits_of_a_password_hash() -> None:
    args = {"user": "ann", "password_hash": "x" * limits.PASSWORD_HASH_CHARS_MAX}
    assert commands.UserAddArgs.parse(args).password is None
    too_long = {**args, "password_hash": "x" * (limits.PASSWORD_HASH_CHARS_MAX + 1)}
    assert refusal("user_add", **too_long).code is Code.TOO_LARGE


def test_an_account_is_made_from_a_password_or_a_hash_and_not_from_both() -> None:
    for extra in ({}, {"password": "p", "password_hash": "h"}):
        assert "one of" in refusal("user_add", user="ann", **extra).message


@pytest.mark.parametrize(
    ("command", "field", "low", "high"),
    [
        ("hello", "version", 0, 2**31),
        ("chat", "ttl_ms", limits.TTL_MS_MIN, limits.TTL_MS_MAX),
        ("kotakmasuk", "limit", 1, limits.INBOX_MESSAGES_MAX),
        ("kotakmasuk", "after", 0, limits.SEQ_MAX),
        ("kotakmasuk", "epoch", 0, limits.SEQ_MAX),
        ("ack", "seq", 0, limits.SEQ_MAX),
        ("subscribe", "window", 1, limits.WINDOW_MAX),
        ("subscribe", "after", 0, limits.SEQ_MAX),
        ("subscribe", "epoch", 0, limits.SEQ_MAX),
        ("history", "before", 0, limits.SEQ_MAX),
        ("history", "limit", 1, limits.INBOX_MESSAGES_MAX),
        ("status", "seq", 1, limits.SEQ_MAX),
    ],
)
def test_a_number_lies_within_its_bounds(command: str, field: str, low: int, high: int) -> None:
    for good in (low, high):
        assert good in PARSERS[command](changed(command, field, good))
    for bad in (low - 1, high + 1):
        error = refusal(command, **changed(command, field, bad))
        assert error.code is Code.BAD_REQUEST
        assert f"'{field}'" in error.message


def test_what_optional_fields_mean_when_they_are_absent() -> None:
    assert commands.InboxArgs.parse({}) == (limits.INBOX_MESSAGES_DEFAULT, None, None)
    assert commands.SubscribeArgs.parse({}) == (limits.WINDOW_DEFAULT, None, None)
    newest = (commands.INBOX, None, None, limits.INBOX_MESSAGES_DEFAULT)
    assert commands.HistoryArgs.parse({}) == newest
    assert commands.PresenceArgs.parse({}) == (None, False)
    assert commands.LoginArgs.parse({"user": "ann", "password": "p"}).device == ""
    room = commands.RoomCreateArgs.parse({"room": "#lunch"})
    assert (room.open, room.history) == (False, False)


def test_history_goes_one_way_at_a_time() -> None:
    assert commands.HistoryArgs.parse({"after": 7}).after == 7
    assert "'before' and 'after'" in refusal("history", before=7, after=7).message
    assert "'after'" in refusal("history", after=-1).message


@pytest.mark.parametrize("of", ["inbox", "sent", "#lunch", "#" + "a" * 63])
def test_what_history_may_be_of(of: str) -> None:
    assert commands.HistoryArgs.parse({"of": of}).of == of


@pytest.mark.parametrize("of", ["ann", "INBOX", " #lunch", "#" + "a" * 64])
def test_what_history_may_not_be_of(of: str) -> None:
    assert "'of'" in refusal("history", of=of).message


#: Who gives a name, in which field, what stands before it, and how long it may be in all.
NAMED = [
    ("register", "user", "", limits.USER_CHARS_MAX),
    ("user_add", "user", "", limits.USER_CHARS_MAX),
    ("login", "device", "", limits.DEVICE_CHARS_MAX),
    ("room_create", "room", limits.ROOM_MARK, limits.USER_CHARS_MAX),
]
named = pytest.mark.parametrize(("command", "field", "mark", "chars"), NAMED)


@named
def test_names_that_may_be_given(command: str, field: str, mark: str, chars: int) -> None:
    for name in ("a", "0", "a.b_c-d", "9lives", "a" * (chars - len(mark))):
        assert mark + name in PARSERS[command](changed(command, field, mark + name))


@pytest.mark.parametrize(
    "bad", ["A", ".a", "-a", "_a", "a b", "a\n", "\u00e9", "a/b", "\u0661", "a\x00", "#a", "!a"]
)
@named
def test_names_that_may_not_be_given(
    command: str, field: str, mark: str, chars: int, *, bad: str
) -> None:
    error = refusal(command, **changed(command, field, mark + bad))
    assert error.code is Code.BAD_REQUEST
    assert "digit first" in error.message


@named
def test_a_name_may_not_be_longer(command: str, field: str, mark: str, chars: int) -> None:
    error = refusal(command, **changed(command, field, mark + "a" * (chars - len(mark) + 1)))
    assert error.code is Code.TOO_LARGE
    assert f"'{field}'" in error.message


@pytest.mark.parametrize("room", ["lunch", "#", "##lunch", "lunch#"])
def test_a_rooms_name_has_its_mark_and_no_user_can_have_it(room: str) -> None:
    assert "'#'" in refusal("room_create", room=room).message
    assert refusal("register", **changed("register", "user", "#lunch")).code is Code.BAD_REQUEST


def test_the_brokers_own_name_can_be_given_to_nobody() -> None:
    for command in ("register", "user_add"):
        error = refusal(command, **changed(command, "user", limits.NOTICE_SENDER))
        assert error.code is Code.BAD_REQUEST


def test_a_message_of_three_fields_is_parsed_as_one_of_four() -> None:
    """The short way through the parser and the long one agree."""
    args = {"to": "ann", "text": "hi", "id": "m1"}
    assert commands.parse_chat(args) == commands.parse_chat({**args, "ttl_ms": None})


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=80), st.binary(),
    st.lists(st.integers()), st.dictionaries(st.text(), st.integers()),
)  # fmt: skip
NAMES = sorted({field for _, field in FIELDS})


@given(
    command=st.sampled_from(sorted(PARSERS)),
    args=st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(), st.binary()), VALUES),
)
def test_any_fields_are_arguments_or_a_refusal(command: str, args: dict[str, Any]) -> None:
    refusals = []
    try:
        PARSERS[command](args)
    except WireError as error:
        refusals.append(error)
    assert all(each.code in {Code.BAD_REQUEST, Code.TOO_LARGE} for each in refusals)
    assert all(len(each.message) < 300 for each in refusals)


@pytest.mark.parametrize("key", ["x", KEY[:-1], KEY + "x", "\u00e9" * 40, "~" * 40, "#" * 40])
def test_what_is_no_key_cannot_be_enrolled(key: str) -> None:
    error = refusal("key_add", user="ann", key=key)
    assert "'key'" in error.message
