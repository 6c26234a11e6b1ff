"""Bad frames: each is a `BadRequest`, with the id where it can be read, and nothing else.

Source: docs/PROTOCOL.md, "Encoding" and "Requests and replies".
"""

from __future__ import annotations

import datetime as dt
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.wire.envelope import (
    BadRequest,
    check_request,
    decode_replies,
    decode_request,
    decode_requests,
    encode_request,
    encoder,
    join,
    read_reply,
    requests_in,
)
from broker.wire.errors import Code, WireError
from broker.wire.limits import FRAME_BYTES_MAX, REQUEST_ID_MAX, TOKEN_CHARS_MAX

pack = msgpack.packb


def refusal(frame: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        decode_request(frame)
    assert caught.value.code is Code.BAD_REQUEST
    assert caught.value.retry_after_ms is None
    return caught.value


UNREADABLE = {
    "nothing": b"",
    "huge array": b"\xdd\xff\xff\xff\xff",
    "huge map": b"\xdf\xff\xff\xff\xff",
    "huge binary": b"\xc6\xff\xff\xff\xff",
    "huge string": b"\xdb\xff\xff\xff\xff",
    "huge extension": b"\xc9\xff\xff\xff\xff\x01",
    "a depth bomb": b"\x91" * 100_000,
    "a depth bomb of maps": b"\x81\xa1a" * 40_000,
    "an amplifier": b"\xdc\xff\xff" + b"\x80" * 65_535,
    "an amplifier in the args": b"\x94\x01\xa4ping\xc0\xde\xff\xff" + b"\x80" * 65_535,
    "never used": b"\xc1",
    "truncated": pack([1, "ping", None, {}])[:-1],
    "trailing": pack([1, "ping", None, {}]) + b"\xc0",
    "two values": pack([1, "ping", None, {}]) * 2,
    "bad utf-8 in a command": b"\x94\x01\xa2\xc3\x28\xc0\x80",
    "bad utf-8 in a text": b"\x94\x01\xa4chat\xc0\x81\xa4text\xa1\xff",
    "a surrogate": b"\x94\x01\xa4chat\xc0\x81\xa4text\xa3\xed\xa0\x80",
    "a number as key": pack([1, "ping", None, {1: 2}]),
    "nil as key": pack([1, "ping", None, {None: 2}]),
    "a list as key": b"\x94\x01\xa4ping\xc0\x81\x90\x01",
    "a timestamp": pack(dt.datetime.now(dt.UTC), datetime=True),
    "a timestamp in the args": pack([1, "ping", None, {"a": msgpack.Timestamp(1)}]),
    "an extension": pack([1, "ping", None, {"a": msgpack.ExtType(5, b"x")}]),
    "257 items": pack([1, "ping", None, {"a": [0] * 257}]),
    "17 pairs": pack([1, "ping", None, {str(number): 0 for number in range(257)}]),
}


@pytest.mark.parametrize("name", list(UNREADABLE))
def test_a_frame_that_cannot_be_read_is_refused_without_an_id(name: str) -> None:
    assert refusal(UNREADABLE[name]).request_id is None


ILL_SHAPED: dict[str, Any] = {
    "no array": {"id": 1},
    "a text": "login shafwa mks",
    "nil": None,
    "three": [1, "ping", None],
    "five": [1, "ping", None, {}, 5],
    "a text as id": ["1", "ping", None, {}],
    "nil as id": [None, "ping", None, {}],
    "true as id": [True, "ping", None, {}],
    "a negative id": [-1, "ping", None, {}],
    "a float as id": [1.0, "ping", None, {}],
    "nan as id": [float("nan"), "ping", None, {}],
    "an empty extension": msgpack.ExtType(5, b""),
}


@pytest.mark.parametrize("name", list(ILL_SHAPED))
def test_an_envelope_without_a_good_id_is_refused_without_one(name: str) -> None:
    assert refusal(pack(ILL_SHAPED[name])).request_id is None


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ((1, None, {}), "command must be a string"),
        ((None, None, {}), "command must be a string"),
        ((b"ping", None, {}), "command must be a string"),
        (("ping", 1, {}), "token must be a string or nil"),
        (("ping", b"t", {}), "token must be a string or nil"),
        (("ping", False, {}), "token must be a string or nil"),
        (("ping", "t" * (TOKEN_CHARS_MAX + 1), {}), "token is too long"),
        (("ping", None, None), "args must be a map"),
        (("ping", None, []), "args must be a map"),
        (("ping", None, "x"), "args must be a map"),
    ],
)
def test_an_envelope_with_a_good_id_is_refused_under_it(rest: tuple[Any, ...], words: str) -> None:
    error = refusal(pack([77, *rest]))
    assert error.request_id == 77
    assert words in error.message


@pytest.mark.parametrize("request_id", [0, 127, 2**32, REQUEST_ID_MAX])
def test_every_unsigned_number_is_an_id(request_id: int) -> None:
    frame = encode_request(encoder(), request_id, "ping", "t" * TOKEN_CHARS_MAX, {})
    assert decode_request(frame) == (request_id, "ping", "t" * TOKEN_CHARS_MAX, {})


def test_of_two_equal_keys_the_last_counts() -> None:
    """One value of the two, checked like any other: never both, never neither."""
    frame = b"\x94\x01\xa4chat\xc0\x82\xa2to\xa1a\xa2to\xa1b"
    assert decode_request(frame)[3] == {"to": "b"}


def test_a_refusal_never_quotes_the_frame() -> None:
    rests: list[list[Any]] = [
        ["ping", None, "canary"],
        ["ping", ["canary"], {}],
        [{"canary": 1}, None, {}],
    ]
    for rest in rests:
        assert "canary" not in str(refusal(pack([1, *rest])))


@pytest.mark.parametrize("name", ["huge array", "huge binary", "an amplifier", "a depth bomb"])
def test_a_bomb_takes_no_memory(name: str) -> None:
    refusal(UNREADABLE[name])
    tracemalloc.start()
    try:
        refusal(UNREADABLE[name])
        assert tracemalloc.get_traced_memory()[1] < 4 * FRAME_BYTES_MAX
    finally:
        tracemalloc.stop()


# --- anything at all -------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=20),
    st.binary(max_size=20),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=12,
)
ENVELOPES = st.tuples(
    st.one_of(st.integers(0, 2**64 - 1), SCALARS),
    st.one_of(st.sampled_from(["chat", "ping"]), VALUES),
    st.one_of(st.none(), st.text(max_size=70), VALUES),
    st.one_of(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), VALUES),
)


def is_request_or_refusal(frame: bytes) -> None:
    try:
        request_id, command, token, args = decode_request(frame)
    except BadRequest as error:
        request_id, command, token, args = error.request_id or 0, "", None, {}
    assert type(request_id) is int
    assert 0 <= request_id <= REQUEST_ID_MAX
    assert type(command) is str
    assert token is None or type(token) is str
    assert type(args) is dict


@given(frame=st.binary(max_size=200))
@example(frame=b"\x94")
def test_any_bytes_are_a_request_or_a_refusal(frame: bytes) -> None:
    is_request_or_refusal(frame)


@given(value=st.one_of(VALUES, ENVELOPES))
def test_any_value_is_a_request_or_a_refusal(value: object) -> None:
    is_request_or_refusal(pack(value))


@given(value=ENVELOPES, at=st.integers(0, 200), byte=st.integers(0, 255))
def test_a_request_with_one_byte_changed_is_a_request_or_a_refusal(
    value: object, at: int, byte: int
) -> None:
    frame = bytearray(pack(value))
    frame[at % len(frame)] = byte
    is_request_or_refusal(bytes(frame))


# --- several requests in a frame ---------------------------------------------------------------

REQUESTS: list[tuple[int, str, None, dict[str, Any]]] = [
    (number, "ping", None, {}) for number in range(3)
]


@pytest.mark.parametrize("count", [1, 2, 15, 16, 256])
def test_joined_requests_come_apart_again_in_order(count: int) -> None:
    frames = [pack((number, "chat", "token", {"text": "x"})) for number in range(count)]
    requests, together = decode_requests(join(frames))
    assert together
    assert [check_request(each)[0] for each in requests] == list(range(count))
    assert requests_in(join(frames)) == count


def test_an_array_that_msgpack_wrote_itself_is_the_same() -> None:
    assert decode_requests(pack(REQUESTS)) == (tuple(REQUESTS), True)
    assert decode_requests(join([pack(each) for each in REQUESTS])) == (tuple(REQUESTS), True)


def test_a_frame_with_one_request_is_one() -> None:
    requests, together = decode_requests(pack(REQUESTS[0]))
    assert (requests, together) == ((REQUESTS[0],), False)
    assert requests_in(pack(REQUESTS[0])) == 1


@pytest.mark.parametrize("value", [[], [[]], [[1]], [None], 7, {}, [[1, "ping", None, {}], 7]])
def test_what_is_no_request_among_others_is_refused_by_itself(value: object) -> None:
    requests, _ = decode_requests(pack(value))
    with pytest.raises(BadRequest):
        check_request(requests[-1])


def test_too_many_in_a_frame_are_refused_unbuilt() -> None:
    with pytest.raises(BadRequest):
        decode_requests(join([pack(REQUESTS[0])] * 257))


def test_replies_come_alone_or_together() -> None:
    reply = [1, "OK", {}]
    assert decode_replies(pack(reply)) == (reply,)
    assert decode_replies(pack([reply, reply])) == [reply, reply]
    with pytest.raises(WireError):
        read_reply(decode_replies(pack([]))[0])
