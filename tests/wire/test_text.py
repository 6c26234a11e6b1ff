"""broker.wire.text: lines and replies, byte for byte. Source: docs/PROTOCOL.md, "The text door"."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.wire import text
from broker.wire.errors import Code, WireError
from broker.wire.limits import LINE_BYTES_MAX, TEXT_BYTES_MAX
from broker.wire.text import Line, LineSplitter, parse_line

BAD_LINE = b'{"status": "ERROR", "message": "--Protocol Tidak Benar"}\r\n\r\n'
LONGEST = b"x" * (LINE_BYTES_MAX - 1)


def split(*segments: bytes) -> list[bytes]:
    splitter, lines = LineSplitter(), []
    for segment in segments:
        splitter.feed(segment)
        while (line := splitter.pop()) is not None:
            lines.append(line)
    return lines


def refusal(line: bytes) -> Code:
    with pytest.raises(WireError) as caught:
        parse_line(line)
    return caught.value.code


# --- the splitter ----------------------------------------------------------------------------


def test_lines_end_at_crlf_or_lf_and_an_empty_line_is_a_line() -> None:
    assert split(b"a\r\nb\nc \r\n\r\nrest") == [b"a", b"b", b"c ", b""]


def test_a_carriage_return_inside_a_line_belongs_to_it() -> None:
    assert split(b"a\rb\r\r\n") == [b"a\rb\r"]


def test_the_longest_line_passes_whole_and_a_longer_one_is_cut_and_refused_once() -> None:
    assert split(LONGEST + b"\r\nnext\n") == [LONGEST, b"next"]
    lines = split(LONGEST + b"xx\nnext\n")
    assert [len(line) for line in lines] == [LINE_BYTES_MAX + 1, 4]
    assert refusal(lines[0]) is Code.TOO_LARGE
    assert refusal(b" " * (LINE_BYTES_MAX + 1)) is Code.TOO_LARGE


def test_an_endless_line_is_reported_before_it_ends_and_costs_no_memory() -> None:
    splitter = LineSplitter()
    splitter.feed(b"x" * (LINE_BYTES_MAX + 1))
    assert splitter.pop() == b"x" * (LINE_BYTES_MAX + 1)
    for _ in range(100):
        splitter.feed(b"x" * 10_000)
        assert splitter.pop() is None
        assert splitter.partial
        assert not splitter._bytes  # nothing is kept of what nobody will read
    splitter.feed(b"\nping\n")
    assert splitter.pop() == b"ping"
    assert splitter.pop() is None
    assert not splitter.partial


def test_partial_says_whether_a_line_has_begun() -> None:
    splitter = LineSplitter()
    assert not splitter.partial
    splitter.feed(b"lo")
    assert splitter.pop() is None
    assert splitter.partial


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=20))
@example(b"\r\n\r\n", [1, 2, 3])
def test_the_segmentation_never_changes_the_lines(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(stream)]
    segments = [stream[a:b] for a, b in itertools.pairwise(edges)]
    whole = split(stream)
    assert split(*segments) == whole
    assert whole == [line.removesuffix(b"\r") for line in stream.split(b"\n")[:-1]]


@given(st.integers(-3, 3), st.lists(st.integers(0, LINE_BYTES_MAX + 9), max_size=5))
def test_the_segmentation_never_changes_what_is_overlong(over: int, cuts: list[int]) -> None:
    stream = b"x" * (LINE_BYTES_MAX + over) + b"\r\nend\n"
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    segments = [stream[a:b] for a, b in itertools.pairwise(edges)]
    assert split(*segments) == split(stream)


# --- the parser ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        (b"login shafwa mks ", Line("login", None, {"user": "shafwa", "password": "mks"})),
        (b"auth shafwa mks", Line("login", None, {"user": "shafwa", "password": "mks"})),
        (b"chat T fadly  hai dudee ", Line("chat", "T", {"to": "fadly", "text": "hai dudee"})),
        (b"send T fadly hai", Line("chat", "T", {"to": "fadly", "text": "hai"})),
        (b"kotakmasuk T ", Line("kotakmasuk", "T", {})),
        (b"inbox T", Line("kotakmasuk", "T", {})),
        (b"user_on T ", Line("user_on", "T", {})),
        (b"who T", Line("user_on", "T", {})),
        (b"logout T ", Line("logout", "T", {})),
        (b"", None),
        (b" ", None),
    ],
)
def test_every_command_and_alias_is_parsed(line: bytes, parsed: Line | None) -> None:
    assert parse_line(line) == parsed


def test_only_the_framing_blanks_are_taken_from_a_text() -> None:
    parsed = parse_line("chat T fadly   dua  spasi, é \U0001f600  ".encode())
    assert parsed
    assert parsed.args["text"] == " dua  spasi, é \U0001f600 "


def test_a_no_break_space_is_part_of_a_password() -> None:
    parsed = parse_line("login u a\u00a0b ".encode())
    assert parsed
    assert parsed.args["password"] == "a\u00a0b"


@pytest.mark.parametrize(
    "line",
    [
        *(b"login", b"login a", b"login a ", b"login \xff\xfe x"),
        *(
            b"chat",
            b"chat T",
            b"chat T ",
            b"chat T u",
            b"chat T u  ",
            b"chat T  u hi",
            b"chat T u \0",
        ),
        *(b"kotakmasuk", b"user_on ", b"logout"),
    ],
)
def test_too_few_words_bad_utf8_and_a_nul_are_bad_requests(line: bytes) -> None:
    assert refusal(line) is Code.BAD_REQUEST


@pytest.mark.parametrize("line", [b"foo", b"LOGIN a b", b"login\ta b", b" login a b", b"ack T 1"])
def test_anything_else_is_an_unknown_command(line: bytes) -> None:
    assert refusal(line) is Code.UNKNOWN_COMMAND


def test_a_token_that_is_too_long_is_an_unknown_one() -> None:
    assert refusal(b"user_on " + b"x" * 65) is Code.UNAUTHORIZED
    assert refusal(b"chat " + b"x" * 65 + b" u hi") is Code.UNAUTHORIZED


def test_the_longest_text_fits_a_line_with_token_and_name() -> None:
    line = b"chat %b %b  %b \r" % (b"t" * 64, b"u" * 64, b"x" * TEXT_BYTES_MAX)
    assert split(line + b"\n") == [line.removesuffix(b"\r")]


@given(st.binary(max_size=200) | st.text(max_size=60).map(lambda words: f"chat T {words}".encode()))
def test_any_line_is_parsed_or_refused_and_nothing_else_happens(line: bytes) -> None:
    try:
        parsed = parse_line(line)
    except WireError:
        return
    assert parsed is None or all(parsed.args.values())


# --- replies ---------------------------------------------------------------------------------


def test_replies_are_these_bytes() -> None:
    assert text.login_reply("T") == b'{"status": "OK", "tokenid": "T", "tokenId": "T"}\r\n\r\n'
    assert text.chat_reply() == b'{"status": "OK", "message": "Message Sent"}\r\n\r\n'
    assert text.inbox_reply([("Shafwa", "Fadly", "hai")]) == (
        b'{"status": "OK", "messages": '
        b'[{"msg_from": "Shafwa", "msg_to": "Fadly", "msg": "hai"}]}\r\n\r\n'
    )
    assert text.users_reply(["shafwa", "fadly"]) == (
        b'{"status": "OK", "message": "shafwa, fadly, "}\r\n\r\n'
    )
    assert text.logout_reply() == (
        b'{"status": "OK", "message": "logout success", "messages": "logout success"}\r\n\r\n'
    )


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (Code.UNKNOWN_COMMAND, "**Protocol Tidak Benar"),
        (Code.BAD_REQUEST, "--Protocol Tidak Benar"),
        (Code.TOO_LARGE, "--Protocol Tidak Benar"),
        (Code.UNAUTHORIZED, "Informasi tidak ditemukan"),
        (Code.BAD_CREDENTIALS, "Uncorrect Password"),
        (Code.NO_SUCH_USER, "User Tidak Ditemukan"),
        (Code.MAILBOX_FULL, "our own words"),
    ],
)
def test_errors_use_the_original_words_where_there_were_any(code: Code, words: str) -> None:
    reply = text.error_reply(WireError(code, "our own words"))
    assert reply == b'{"status": "ERROR", "message": "%b"}\r\n\r\n' % words.encode()


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=5))
def test_a_reply_is_ascii_and_its_end_occurs_once_at_its_end(
    messages: list[tuple[str, str, str]],
) -> None:
    frame = text.inbox_reply(messages)
    assert frame.isascii()
    assert frame.index(text.REPLY_END) == len(frame) - 4
    inbox = json.loads(frame)["messages"]
    assert [tuple(each.values()) for each in inbox] == messages
